"""A vLLM server of ours as an endpoint: when it dies or stops working it is started again, and no call is lost."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

from synth.core.calls import ChatRequest, Completion, EndpointStats
from synth.core.errors import InferenceError
from synth.inference.client import Client
from synth.inference.server import VLLMServer
from synth.inference.tries import Tries, TryAgainError

_CHECK_EVERY = 5.0
_SUSPECT_AFTER = 2
_DEATHS_A_CALL = 3


class SupervisedServer:
    """An `Endpoint` on a `VLLMServer`; use it as an async context manager, which starts and stops the server.

    The server is started again when it ended, when /health says that its engine is dead, or when calls are in
    flight and for `stall_seconds` no token was read or written (by its metrics) and no call answered. Calls in
    flight are sent again to the new server; new calls wait for it.

    A call that was in flight at two deaths may be their cause: from then on such calls are sent one at a time,
    and one that is in flight at three ends as an error, so that one bad prompt costs three starts and no
    other call.

    Args:
        server: the server, not yet started.
        model: the name in content keys and provenance.
        revision: the revision of the weights in content keys.
        max_in_flight: how many calls run at once at most, and at the beginning: our own server has no rate limit.
        min_in_flight: how many may run at once however long the engine's queue is.
        retries: how often a call that fails while the server is well is tried again.
        timeout: seconds for one try of a call.
        stall_timeout: seconds without a byte once a reply has begun.
        stall_seconds: how long the engine may go without progress. The longest pause of a healthy one has to
            fit in: a long prompt on a CPU, say.
        restarts: how often the server is started again without an answered call in between.
        check_every: seconds between two looks at the server.
        logprobs: whether to ask for the log probability of each token.
        on_progress: gets short texts about restarts; the server has its own for its starts.
    """

    def __init__(
        self,
        server: VLLMServer,
        *,
        model: str,
        revision: str = "",
        max_in_flight: int = 64,
        min_in_flight: int = 1,
        retries: int = 5,
        timeout: float = 600,
        stall_timeout: float = 120,
        stall_seconds: float = 180,
        restarts: int = 3,
        check_every: float = _CHECK_EVERY,
        logprobs: bool = False,
        on_progress: Callable[[str], None] | None = None,
    ) -> None:
        self._server = server
        self._model, self._revision = model, revision
        self._max_in_flight, self._min_in_flight = max_in_flight, min_in_flight
        self._retries_allowed, self._timeout, self._stall_timeout = retries, timeout, stall_timeout
        self._stall_seconds, self._restarts_allowed = stall_seconds, restarts
        self._check_every = check_every
        self._logprobs = logprobs
        self._tell = on_progress or (lambda text: None)
        self._client: Client | None = None
        self._up = asyncio.Event()
        self._generation = self._restarts = self._in_a_row = 0
        self._answered = self._answered_at_start = self._retries = 0
        self._failure: InferenceError | None = None
        self._suspected = asyncio.Event()
        self._looked = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None
        self._starting: asyncio.Future[VLLMServer] | None = None

    @property
    def model(self) -> str:
        """The name that stands in content keys and provenance."""
        return self._model

    @property
    def revision(self) -> str:
        """The revision of the weights, or an empty string."""
        return self._revision

    def stats(self) -> EndpointStats:
        """Return how the server does at this moment; its cache counters begin anew with each start."""
        stats = EndpointStats(limit=self._max_in_flight) if self._client is None else self._client.stats()
        up = int(self._up.is_set() and self._failure is None)
        return replace(stats, endpoints_up=up, restarts=self._restarts, retries=self._retries)

    async def __aenter__(self) -> Self:
        """Start the server.

        Raises:
            InferenceError: it does not get ready; the error says the likely cause and quotes its log.
        """
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        self._watching = asyncio.create_task(self._watch())
        self._watching.add_done_callback(self._let_go)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server; calls in flight fail."""
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.wait([watching])
        await self._stop()

    async def complete(self, request: ChatRequest) -> Completion:
        """Answer one request, by as many servers as it takes.

        Raises:
            InferenceError: no answer came after all retries and restarts, or the server refuses the request.
        """
        tries: Tries | None = None
        deaths, answered = 0, self._answered
        while True:
            client, generation = await self._ready()
            try:
                if deaths < _SUSPECT_AFTER:
                    completion = await client.attempt(request)
                else:
                    async with self._one_at_a_time:
                        client, generation = await self._ready()
                        completion = await client.attempt(request)
            except TryAgainError as failure:
                if failure.unwell and self._runs(generation):
                    await self._look()
                if not self._runs(generation):
                    deaths += failure.sent and not failure.refused
                    self._retries += 1
                    if deaths >= _DEATHS_A_CALL and self._failure is None:
                        raise self._deadly(deaths) from failure
                    continue
                if tries is None:
                    tries = Tries(self._retries_allowed, self._timeout)
                pause = tries.failed(failure, client.shown, progress=self._answered > answered)
                answered = self._answered
                self._retries += 1
                await asyncio.sleep(pause)
            else:
                self._answered += 1
                return completion

    def _runs(self, generation: int) -> bool:
        return generation == self._generation and self._up.is_set() and self._failure is None

    def _deadly(self, deaths: int) -> InferenceError:
        return InferenceError(
            f"the server died or stalled {deaths} times while this call was in flight",
            fix="drop or shorten its passage; the server's log says how it died",
        )

    async def _ready(self) -> tuple[Client, int]:
        """Return the client of the running server, when there is one.

        Raises:
            InferenceError: there will be none.
        """
        while not self._up.is_set():
            await self._up.wait()
        if self._failure is not None:
            raise self._failure
        assert self._client is not None
        return self._client, self._generation

    async def _look(self) -> None:
        """Return when the server has been looked at once more, and started again where that was needed."""
        if self._failure is None:
            self._suspected.set()
            await self._looked.wait()

    async def _watch(self) -> None:
        """Look at the server now and then, or when a call gives reason to, and start it again."""
        tokens, answered, progress = -1.0, -1, time.monotonic()
        while self._failure is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._suspected.wait(), self._check_every)
            self._suspected.clear()
            looked, self._looked = self._looked, asyncio.Event()
            try:
                await asyncio.to_thread(self._server.check)
                client, now = self._client, await self._tokens(tokens)
                if client is None or not client.in_flight or answered != self._answered or now != tokens:
                    tokens, answered, progress = now, self._answered, time.monotonic()
                elif time.monotonic() - progress > self._stall_seconds:
                    raise self._server.failure(
                        f"the vLLM server made no progress for {self._stall_seconds:.0f} s with calls in flight"
                    )
            except InferenceError as failure:
                await self._start_again(failure)
                tokens, answered, progress = -1.0, -1, time.monotonic()
            finally:
                looked.set()

    def _let_go(self, watching: asyncio.Task[None]) -> None:
        """Let every call that waits for the watch find out that it is over, and why."""
        error = None if watching.cancelled() else watching.exception()
        closed = InferenceError("the endpoint is closed" if error is None else _ended(error))
        closed.__cause__ = error
        self._failure = self._failure or closed
        self._up.set()
        self._looked.set()

    async def _tokens(self, before: float) -> float:
        """Return the tokens that the engine has read and written; `before` where it does not say."""
        if self._client is None:
            return before
        try:
            metrics = await self._client.read_metrics()
        except LookupError:
            return before
        return before if metrics is None else metrics.tokens

    async def _start_again(self, failure: InferenceError) -> None:
        self._up.clear()
        while self._failure is None:
            self._in_a_row = 1 if self._answered > self._answered_at_start else self._in_a_row + 1
            self._answered_at_start = self._answered
            if self._in_a_row > self._restarts_allowed:
                self._failure = InferenceError(
                    f"{failure.what} (started again {self._restarts_allowed} times without one answered call)",
                    where=failure.where,
                    fix=failure.fix,
                )
                break
            self._restarts += 1
            self._tell(f"{failure.what}; starting it again ({self._in_a_row} of {self._restarts_allowed})")
            try:
                await self._stop()
                await self._start()
            except InferenceError as error:
                failure = error
            except OSError as error:
                failure = InferenceError(_ended(error), fix="free memory, disk space, processes or open files")
            else:
                return
        await self._stop()
        self._up.set()

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        # Not cancelled with us: the thread goes on, and `_stop` calls it off and waits for it.
        self._starting = loop.run_in_executor(None, self._server.__enter__)
        await asyncio.shield(self._starting)
        self._starting = None
        client = Client(
            self._server.base_url,
            self._server.served,
            model=self._model,
            revision=self._revision,
            api_key=self._server.api_key,
            max_in_flight=self._max_in_flight,
            min_in_flight=self._min_in_flight,
            timeout=self._timeout,
            stall_timeout=self._stall_timeout,
            logprobs=self._logprobs,
        )
        self._client = await client.__aenter__()
        self._generation += 1
        self._up.set()

    async def _stop(self) -> None:
        """Close the client, which fails the calls in flight, and stop the server."""
        client, self._client = self._client, None
        if client is not None:
            await client.__aexit__(None, None, None)
        starting, self._starting = self._starting, None
        await asyncio.to_thread(self._server.__exit__, None, None, None)
        if starting is not None:
            with contextlib.suppress(InferenceError, OSError):  # told to who started it
                await starting
            await asyncio.to_thread(self._server.__exit__, None, None, None)


def _ended(error: BaseException) -> str:
    return f"the vLLM server cannot be watched or started again ({type(error).__name__}: {error})"
