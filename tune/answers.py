"""Asking every contender every question: each answer journaled, failures counted, never scored."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synth.core.calls import ChatRequest, Completion, Sampling
from synth.core.errors import InferenceError, SynthError
from synth.core.heldout import HeldoutItem
from synth.inference.journal import Journal
from tune.contenders import Contender, WeightsName
from tune.metrics import exact_match, f1
from tune.scores import Score
from tune.serving import Running, Service


@dataclass(frozen=True, slots=True)
class Call:
    """One question put to one contender. `key` is the content key: equal calls are asked once."""

    item: HeldoutItem
    contender: str
    weights: WeightsName
    request: ChatRequest
    key: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a call: a completion, or the reason why there is none."""

    call: Call
    completion: Completion | None
    error: str | None = None

    def score(self) -> Score | None:
        """Return the answer's score, None where there is no answer."""
        if self.completion is None:
            return None
        item, text = self.call.item, self.completion.text
        return Score(
            item_id=item.id,
            document_id=item.document_id,
            contender=self.call.contender,
            values={"f1": f1(text, item.answers), "em": exact_match(text, item.answers)},
            words=len(text.split()),
            cut_off=self.completion.finish_reason == "length",
        )

    def to_json(self) -> dict[str, Any]:
        """Return the line of answers.jsonl; `call` is the key of the line in the journal."""
        score = self.score()
        return {
            "id": self.call.item.id,
            "document_id": self.call.item.document_id,
            "contender": self.call.contender,
            "question": self.call.item.question,
            "prompt": [message.to_json() for message in self.call.request.messages],
            "answer": self.completion.text if self.completion else None,
            "references": list(self.call.item.answers),
            "em": score.values["em"] if score else None,
            "f1": score.values["f1"] if score else None,
            "finish_reason": self.completion.finish_reason if self.completion else None,
            "error": self.error,
            "call": self.call.key,
        }


def make_calls(
    items: Sequence[HeldoutItem],
    contenders: Sequence[Contender],
    services: Sequence[Service],
    *,
    max_tokens: int,
) -> list[Call]:
    """Return every call, contender by contender, questions in file order. Greedy: temperature 0, no schema."""
    weights = {name: held for service in services for name, held in service.weights.items()}
    sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=max_tokens)
    calls = []
    for contender in contenders:
        who = weights[contender.weights]
        for item in items:
            request = ChatRequest(contender.ask(item.question), sampling)
            key = request.key(who.model, who.revision)
            calls.append(Call(item, contender.name, contender.weights, request, key))
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
    unique = {call.key: call for call in calls}
    found = asyncio.run(_journaled(journal, list(unique)))
    asking = _Asking(len(unique), len(found), int(max_failed * len(unique)), max_in_flight, on_progress)
    on_progress(asking.done, asking.total)
    for service in services:
        missing = [call for call in unique.values() if call.weights in service.weights and call.key not in found]
        if missing:
            with service.start() as running:
                asyncio.run(asking.ask(missing, running, journal))
    found.update(asking.answered)
    return [Answer(call, found.get(call.key), asking.failed.get(call.key)) for call in calls]


async def _journaled(folder: Path, keys: Sequence[str]) -> dict[str, Completion]:
    async with Journal(folder) as journal:
        return {key: completion for key in keys if (completion := journal.get(key)) is not None}


class _Asking:
    """Calls of one validation: what is done, what failed, and how much of that is too much."""

    def __init__(
        self, total: int, done: int, may_fail: int, max_in_flight: int, on_progress: Callable[[int, int], None]
    ) -> None:
        self.total, self.done, self.may_fail = total, done, may_fail
        self.answered: dict[str, Completion] = {}
        self.failed: dict[str, str] = {}
        self._max_in_flight, self._on_progress = max_in_flight, on_progress
        self._stopped = False

    async def ask(self, calls: Sequence[Call], running: Running, folder: Path) -> None:
        """Ask, many at a time, until all is answered or too much has failed."""
        places = asyncio.Semaphore(self._max_in_flight)
        async with Journal(folder) as journal, running.open() as endpoints:

            async def one(call: Call) -> None:
                async with places:
                    if self._stopped:
                        return
                    try:
                        answer = await journal.answer(call.key, call.request, endpoints[call.weights].complete)
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
        if len(self.failed) > self.may_fail:
            running.check()
            raise InferenceError(
                f"{_many(len(self.failed))} failed, so there is no verdict; the first reason: "
                f"{next(iter(self.failed.values()))}",
                fix="mend that and run the same command again: answered calls are kept. A few odd failures may be "
                "left out with --max-failed",
            )


def _many(calls: int) -> str:
    return "1 call" if calls == 1 else f"{calls} calls"


def complete_questions(answers: Sequence[Answer]) -> Mapping[str, bool]:
    """Return for each question whether every contender answered it.

    Only such questions are scored: a failed call says nothing of who was asked, and a comparison is fair only
    on the same questions.
    """
    complete: dict[str, bool] = {}
    for answer in answers:
        complete[answer.call.item.id] = complete.get(answer.call.item.id, True) and answer.completion is not None
    return complete
