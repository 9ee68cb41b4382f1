"""A model that marks answers: a metric of last resort, for what references alone cannot tell.

It may be used once it has passed calibration against people's marks (judge_calibration.py). It sees the question, the
references and the item's own passage, never who answered, and marks one answer at a time: there is no first place to
favour. Its replies are journaled like a teacher's.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from synth.core.asking import ReplyError, ask_json
from synth.core.calls import Endpoint, Sampling
from synth.core.prompts import load_template
from synth.core.schemas import load_schema, without_notes
from synth.inference.endpoints import find_model, open_endpoint
from synth.inference.journal import Journal
from synth.inference.lazy import LazyEndpoint
from synth.inference.teacher import JournaledTeacher
from tune.metrics.base import Reply

TEMPLATE = "validate-judge"
LOWEST, HIGHEST = 1, 5
_SAMPLING = Sampling(temperature=0.0, top_p=1.0, max_tokens=512)
_MAX_IN_FLIGHT = 64

Opening = Callable[[], AbstractAsyncContextManager[Endpoint]]


@dataclass(frozen=True, slots=True)
class Judge:
    """A model's mark of an answer, 1 to 5, as a metric from 0 to 1.

    Attributes:
        opening: opens the endpoint that answers.
        journal: the folder of answered calls; made where it is not there.
        max_in_flight: how many calls run at once.
    """

    opening: Opening
    journal: Path
    max_in_flight: int = _MAX_IN_FLIGHT
    name = "judge"
    words = "the judge's mark"

    def score(self, replies: Sequence[Reply]) -> list[float | None]:
        """Return a number from 0 (mark 1) to 1 (mark 5) for each answer; None where the reply twice was no mark.

        Not to be called from a running event loop.

        Raises:
            InferenceError: a call got no answer; what was answered is kept.
        """
        marks = asyncio.run(self.marks(replies)) if replies else []
        return [None if mark is None else (mark - LOWEST) / (HIGHEST - LOWEST) for mark in marks]

    async def marks(self, replies: Sequence[Reply]) -> list[int | None]:
        """Return the marks; equal answers to equal questions are marked once.

        Raises:
            InferenceError: as `score`.
        """
        asked = {_shown(reply): reply for reply in replies}
        places = asyncio.Semaphore(self.max_in_flight)
        found: dict[object, int | None] = {}
        async with self.opening() as endpoint, Journal(self.journal) as journal:

            async def one(shown: object, reply: Reply) -> None:
                async with places:
                    found[shown] = await _mark(reply, JournaledTeacher(endpoint, journal, seed=0, sampling=_SAMPLING))

            tasks = [asyncio.create_task(one(shown, reply)) for shown, reply in asked.items()]
            try:
                await asyncio.gather(*tasks)
            finally:
                # At the first error no further call is begun; those in flight end with the journal.
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        return [found[_shown(reply)] for reply in replies]


def judge_model(spec: str, folder: Path, *, say: Callable[[str], None] = lambda text: None) -> Judge:
    """Return a judge that is the model `spec`. Nothing is started before a call that the journal does not answer.

    Args:
        spec: a URL, a folder, a hub id, or "bundled".
        folder: where the journal and the log of a server are kept.
        say: gets short texts about starts and restarts.
    """
    return Judge(lambda: _opened(spec, folder, say), folder / "journal")


@asynccontextmanager
async def _opened(spec: str, folder: Path, say: Callable[[str], None]) -> AsyncIterator[Endpoint]:
    source = await find_model(spec, role="teacher")
    folder.mkdir(parents=True, exist_ok=True)
    opening = open_endpoint(source, log_path=folder / "judge.log", on_progress=say)
    async with LazyEndpoint(opening, model=source.name, revision=source.seen, stop=asyncio.Event()) as endpoint:
        yield endpoint


def _shown(reply: Reply) -> tuple[object, ...]:
    """Return all that the judge sees of a reply."""
    return (reply.item.question, reply.item.answers, reply.item.context, reply.item.unanswerable, reply.text)


async def _mark(reply: Reply, model: JournaledTeacher) -> int | None:
    item = reply.item
    messages = load_template(TEMPLATE).messages(
        question=item.question,
        references=item.answers,
        context=item.context,
        unanswerable=item.unanswerable,
        answer=reply.text,
    )
    try:
        value, _ = await ask_json(model, messages, without_notes(load_schema(TEMPLATE)))
    except ReplyError:
        return None
    return int(value["mark"])
