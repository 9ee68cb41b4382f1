"""A teacher that is opened only when it is needed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from synth import ChatRequest, Endpoint, InferenceError, Interrupted, Message, ScriptedTeacher
from synth.inference.lazy import LazyEndpoint

ASK = ChatRequest((Message("user", "Ask."),))


class Opening:
    """Counts how often it is opened and closed."""

    def __init__(self, *, pause: float = 0.0, failure: InferenceError | None = None) -> None:
        self.opened = self.closed = 0
        self.pause, self.failure = pause, failure

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Endpoint]:
        self.opened += 1
        await asyncio.sleep(self.pause)
        if self.failure:
            raise self.failure
        try:
            yield ScriptedTeacher(lambda _: "a")
        finally:
            self.closed += 1


def lazily(opening: Opening, stop: asyncio.Event | None = None) -> LazyEndpoint:
    return LazyEndpoint(opening(), model="m", revision="", stop=stop or asyncio.Event())


async def test_what_asks_nothing_opens_nothing() -> None:
    opening = Opening()
    async with lazily(opening) as endpoint:
        assert endpoint.model == "m" and endpoint.stats().endpoints == 0
    assert (opening.opened, opening.closed) == (0, 0)


async def test_many_at_once_open_it_once_and_the_end_closes_it() -> None:
    opening = Opening(pause=0.01)
    async with lazily(opening) as endpoint:
        answers = await asyncio.gather(*(endpoint.complete(ASK) for _ in range(5)))
    assert [a.text for a in answers] == ["a"] * 5 and (opening.opened, opening.closed) == (1, 1)


async def test_a_teacher_that_does_not_open_says_so_to_everyone_and_keeps_the_reason() -> None:
    opening = Opening(failure=InferenceError("the vLLM server did not start"))
    async with lazily(opening) as endpoint:
        results = await asyncio.gather(*(endpoint.complete(ASK) for _ in range(3)), return_exceptions=True)
        assert [str(r) for r in results] == ["the vLLM server did not start"] * 3
        assert endpoint.failure is opening.failure
    assert opening.closed == 0


async def test_a_stop_calls_the_opening_off() -> None:
    stop, opening = asyncio.Event(), Opening(pause=60)
    async with lazily(opening, stop) as endpoint:
        asking = asyncio.create_task(endpoint.complete(ASK))
        await asyncio.sleep(0.01)
        stop.set()
        with pytest.raises(Interrupted, match="while the teacher was starting"):
            await asking
    assert opening.closed == 0
