"""Asking every contender every question: each answer journaled and timed, failures counted, never scored.

Contenders are asked one after the other, `max_in_flight` calls at once, so that each is timed under the same load.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from synth.core.calls import ChatRequest, Completion, Endpoint, Sampling
from synth.core.errors import ConfigError, InferenceError, SynthError
from synth.core.heldout import HeldoutItem
from synth.core.jsonl import FileDigest, read_lines, write_jsonl
from synth.inference.journal import Journal
from tune.budget import Budget, Fitted
from tune.contenders import Contender, WeightsName
from tune.phrases import counted
from tune.scores import Score
from tune.serving import Running, Service

ANSWERS = "answers"


@dataclass(frozen=True, slots=True)
class Call:
    """One question put to one contender. `key` is the content key: equal calls are asked once.

    `prompt` is what the budget left of the contender's prompt. One with an error is not sent.
    """

    item: HeldoutItem
    contender: str
    weights: WeightsName
    request: ChatRequest
    key: str
    prompt: Fitted = field(default_factory=lambda: Fitted(()))


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a call: a completion, or the reason why there is none."""

    call: Call
    completion: Completion | None
    error: str | None = None

    @property
    def item(self) -> HeldoutItem:
        """The item that was asked."""
        return self.call.item

    @property
    def contender(self) -> str:
        """Who was asked."""
        return self.call.contender

    def to_json(self, score: Score | None = None) -> dict[str, Any]:
        """Return the line of answers/<contender>.jsonl; `call` is the key of the line in the journal.

        Args:
            score: the answer's score; None where it has none.
        """
        call, item, completion = self.call, self.call.item, self.completion
        return {
            "id": item.id,
            "document_id": item.document_id,
            "contender": call.contender,
            "question": item.question,
            "prompt": [message.to_json() for message in call.request.messages],
            "left_out": call.prompt.left_out,
            "answer": completion.text if completion else None,
            "references": list(item.answers),
            "unanswerable": item.unanswerable,
            "wanted": item.label,
            "values": dict(score.values) if score else {},
            "label": score.label if score else None,
            "refused": score.refused if score else None,
            "supported": score.supported if score else None,
            "confidence": score.confidence if score else None,
            "words": score.words if score else None,
            "prompt_tokens": completion.usage.prompt_tokens if completion else None,
            "completion_tokens": completion.usage.completion_tokens if completion else None,
            "seconds": (completion.seconds or None) if completion else None,
            "in_flight": (completion.in_flight or None) if completion else None,
            "finish_reason": completion.finish_reason if completion else None,
            "error": self.error,
            "call": call.key,
        }


def make_calls(
    items: Sequence[HeldoutItem],
    contenders: Sequence[Contender],
    services: Sequence[Service],
    *,
    max_tokens: int,
    budget: Budget | None = None,
) -> list[Call]:
    """Return every call, contender by contender, questions in file order.

    Greedy: temperature 0, no schema. Log probabilities are asked for, where the endpoint gives them.

    Args:
        items: what is asked.
        contenders: who is asked.
        services: between them they have the weights of every contender.
        max_tokens: the most tokens of an answer.
        budget: what no prompt may exceed.

    Raises:
        ConfigError: no service has the weights of a contender.
    """
    weights = {name: held for service in services for name, held in service.weights.items()}
    sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=max_tokens, logprobs=True)
    calls = []
    for contender in contenders:
        if contender.weights not in weights:
            raise ConfigError(
                f"nobody answers for {contender.name!r}: {contender.weights!r} is served by none of those given",
                where="--contenders",
                fix=f"name who serves {contender.weights!r}, or leave {contender.name} out",
            )
        who = weights[contender.weights]
        for item in items:
            prompt = contender.prompt(item, budget)
            request = ChatRequest(prompt.messages, sampling)
            key = request.key(who.model, who.revision)
            calls.append(Call(item, contender.name, contender.weights, request, key, prompt))
    return calls


def answer_all(
    calls: Sequence[Call],
    services: Sequence[Service],
    journal: Path,
    *,
    max_failed: float,
    max_in_flight: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Answer]:
    """Return the answers in the order of the calls. A service is started only where the journal lacks some of them.

    A call whose prompt does not fit its budget is not made: its answer says why, and it does not count as failed.
    At Ctrl-C the calls in flight are finished and journaled before KeyboardInterrupt goes on.

    Args:
        calls: what to ask.
        services: who answers; between them they have the weights of every call.
        journal: the folder of answered calls.
        max_failed: the share of calls that may fail, 0 to 1.
        max_in_flight: how many calls run at once.
        on_progress: called with the number of calls done and their total.

    Raises:
        InferenceError: more calls failed, or a server did not get ready. Answered calls are kept.
    """
    unique: dict[str, Call] = {}
    for call in calls:
        if call.prompt.error is None:
            unique.setdefault(call.key, call)
    found = asyncio.run(_journaled(journal, list(unique)))
    planned = Counter(call.contender for call in unique.values())
    asking = _Asking(planned, len(found), int(max_failed * len(unique)), max_in_flight, on_progress)
    on_progress(asking.done, asking.total)
    for service in services:
        missing = [call for call in unique.values() if call.weights in service.weights and call.key not in found]
        if missing:
            with service.start() as running:
                asyncio.run(asking.ask(missing, running, journal))
    found.update(asking.answered)
    return [
        Answer(call, None, call.prompt.error)
        if call.prompt.error is not None
        else Answer(call, found.get(call.key), asking.failed.get(call.key))
        for call in calls
    ]


def write_answers(folder: Path, answers: Sequence[Answer], scores: Iterable[Score] = ()) -> dict[str, FileDigest]:
    """Write answers/<contender>.jsonl of each contender in `folder`, and return the files' digests by name.

    Files of contenders that are not among the answers are removed: they are of another validation.

    Args:
        folder: validation/<candidate>/.
        answers: of all contenders, in the order of the lines.
        scores: those of the answers, in any order.

    Raises:
        RunError: a file cannot be written.
    """
    scored = {(score.contender, score.item_id): score for score in scores}
    held: dict[str, list[Answer]] = {}
    for answer in answers:
        held.setdefault(answer.contender, []).append(answer)
    written = {}
    for contender, own in held.items():
        rows = (answer.to_json(scored.get((contender, answer.item.id))) for answer in own)
        name = f"{ANSWERS}/{file_name(contender)}"
        written[name] = write_jsonl(folder / name, rows)
    for path in (folder / ANSWERS).glob("*.jsonl"):
        if f"{ANSWERS}/{path.name}" not in written:
            path.unlink()
    return written


def read_answers(folder: Path, contender: str) -> Iterator[dict[str, Any]]:
    """Yield the lines that `write_answers` wrote of a contender.

    Raises:
        RunError: there is no such file.
        RecordError: a line is not JSON.
    """
    for _, row in read_lines(folder / ANSWERS / file_name(contender)):
        yield row


def file_name(contender: str) -> str:
    """Return the name of a contender's file: "candidate:first" has candidate-first.jsonl."""
    return re.sub(r"[^\w.-]", "-", contender) + ".jsonl"


async def _journaled(folder: Path, keys: Sequence[str]) -> dict[str, Completion]:
    async with Journal(folder) as journal:
        return {key: completion for key in keys if (completion := journal.get(key)) is not None}


class _Asking:
    """Calls of one validation: what is done, what failed, and how much of that is too much."""

    def __init__(
        self,
        planned: Mapping[str, int],
        done: int,
        may_fail: int,
        max_in_flight: int,
        on_progress: Callable[[int, int], None],
    ) -> None:
        self.total, self.done, self.may_fail = sum(planned.values()), done, may_fail
        self._planned = planned
        self.answered: dict[str, Completion] = {}
        self.failed: dict[str, str] = {}
        self._max_in_flight, self._on_progress = max_in_flight, on_progress
        self._stopped = False

    async def ask(self, calls: Sequence[Call], running: Running, folder: Path) -> None:
        """Ask one contender after the other, many calls at a time, until all is answered or too much has failed."""
        by_contender: dict[str, list[Call]] = {}
        for call in calls:
            by_contender.setdefault(call.contender, []).append(call)
        async with Journal(folder) as journal, running.open() as endpoints:
            for contender, own in by_contender.items():
                # Of all its calls as many are on the way as may be, or all; of what an earlier go has left, no more.
                whole = len(own) == self._planned[contender]
                load = self._max_in_flight if whole else min(self._max_in_flight, len(own))
                if not self._stopped:
                    await self._ask_one(own, endpoints, journal, load)
        if len(self.failed) > self.may_fail:
            running.check()
            raise InferenceError(
                f"{counted(len(self.failed), 'call')} failed, so there is no verdict; the first reason: "
                f"{next(iter(self.failed.values()))}",
                fix="mend that and run the same command again: answered calls are kept. A few odd failures may be "
                "left out with max_failed in the table [validate] of a --config file",
            )

    async def _ask_one(
        self, calls: Sequence[Call], endpoints: Mapping[WeightsName, Endpoint], journal: Journal, in_flight: int
    ) -> None:
        places = asyncio.Semaphore(self._max_in_flight)
        timed = partial(_timed, in_flight=in_flight)

        async def one(call: Call) -> None:
            async with places:
                if self._stopped:
                    return
                try:
                    answer = await journal.answer(call.key, call.request, timed(endpoints[call.weights].complete))
                except InferenceError as error:
                    self.failed[call.key] = str(error)
                    self._stopped = len(self.failed) > self.may_fail
                except SynthError:
                    self._stopped = True
                    raise
                else:
                    self.answered[call.key] = answer
                self.done += 1
                self._on_progress(self.done, self.total)

        tasks = [asyncio.create_task(one(call)) for call in calls]
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError:
            self._stopped = True
            await asyncio.wait(tasks)
            raise
        for task in tasks:
            task.result()


def _timed(
    complete: Callable[[ChatRequest], Awaitable[Completion]], *, in_flight: int
) -> Callable[[ChatRequest], Awaitable[Completion]]:
    """Return `complete` with the time it took, and at which load, in its completions, unless they came with a time."""

    async def timed(request: ChatRequest) -> Completion:
        began = time.perf_counter()
        completion = await complete(request)
        # Rounded as the journal has it, so that an answer is the same now and read again; nought is "not timed".
        took = max(0.0001, round(time.perf_counter() - began, 4))
        return replace(completion, seconds=completion.seconds or took, in_flight=in_flight)

    return timed


def complete_questions(answers: Sequence[Answer]) -> Mapping[str, bool]:
    """Return for each question whether every contender answered it.

    Only such questions are scored: a failed call says nothing of who was asked, and a comparison is fair only
    on the same questions.
    """
    complete: dict[str, bool] = {}
    for answer in answers:
        complete[answer.call.item.id] = complete.get(answer.call.item.id, True) and answer.completion is not None
    return complete
