"""An endpoint that is opened at the first call that needs it: what the journal answers starts no server."""

import asyncio
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

from synth.core.calls import ChatRequest, Completion, Endpoint, EndpointStats
from synth.core.errors import InferenceError, Interrupted, SynthError


class LazyEndpoint:
    """Opens `opening` once, however many ask at the same time; use it as an async context manager.

    Args:
        opening: gives the endpoint, and closes it in the end.
        model: the name that stands in content keys.
        revision: the revision of the weights, or an empty string.
        stop: when it is set while the endpoint is being opened, the opening is called off.

    Attributes:
        failure: why it could not be opened, or None.
    """

    def __init__(
        self, opening: AbstractAsyncContextManager[Endpoint], *, model: str, revision: str, stop: asyncio.Event
    ) -> None:
        self.failure: SynthError | None = None
        self._opening, self._model, self._revision, self._stop = opening, model, revision, stop
        self._task: asyncio.Task[Endpoint] | None = None
        self._endpoint: Endpoint | None = None

    @property
    def model(self) -> str:
        """The name that stands in content keys and provenance."""
        return self._model

    @property
    def revision(self) -> str:
        """A revision of the weights, or an empty string."""
        return self._revision

    def stats(self) -> EndpointStats:
        """Return the numbers of the endpoint behind it; zeros before it is open."""
        stats = getattr(self._endpoint, "stats", None)
        return stats() if stats is not None else EndpointStats(endpoints=0, endpoints_up=0)

    async def __aenter__(self) -> Self:
        """Open nothing yet."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Close the endpoint if it was opened; it sees the error that ended the block."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._endpoint is None:
            return None
        return await self._opening.__aexit__(kind, error, trace)

    async def complete(self, request: ChatRequest) -> Completion:
        """Answer one request.

        Raises:
            InferenceError: no answer came, or the endpoint cannot be opened.
            Interrupted: `stop` was set before the endpoint was open.
        """
        if self._endpoint is None:
            if self._task is None:
                self._task = asyncio.create_task(self._open())
            await asyncio.shield(self._task)
        assert self._endpoint is not None
        return await self._endpoint.complete(request)

    async def _open(self) -> Endpoint:
        entering = asyncio.ensure_future(self._opening.__aenter__())
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({entering, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not entering.done():
                raise Interrupted("stopped while the teacher was starting", fix="run the same command again")
            self._endpoint = await entering
        except SynthError as error:
            self.failure = error
            raise
        except Exception as error:
            self.failure = InferenceError(f"the teacher cannot be opened ({type(error).__name__}: {error})")
            raise self.failure from error
        finally:
            stopping.cancel()
            if not entering.done():
                entering.cancel()
                await asyncio.gather(entering, return_exceptions=True)
        return self._endpoint
