"""Several endpoints that serve the same model, used as one."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import fields
from types import TracebackType
from typing import Self

from synth.core.calls import ChatRequest, Completion, EndpointStats
from synth.core.errors import ConfigError, RefusedError
from synth.inference.client import Client
from synth.inference.replies import EndpointError
from synth.inference.tries import Tries, TryAgainError, spread

_FIRST_ASIDE = 1.0
_LONGEST_ASIDE = 60.0
# So many failures in a row, and no fewer than a quarter of the calls in flight: one bad call is no bad endpoint.
_FAILURES_IN_A_ROW = 3
_SHARE_IN_FLIGHT = 4


class Pool:
    """An `Endpoint` over several; use it as an async context manager, which opens its clients.

    Each call goes to the endpoint with the least load for what it can take. One where nobody listens, or that
    fails at least three calls in a row, and a quarter of those in flight, in a way of its own (broken
    connections, no reply in time, its own faults), is set aside, for longer each time; then one call tries it
    again. The calls it failed go to the others at once. So it is with one that takes no call of ours at all (a
    wrong key, a model it does not have) while another may. Where all are set aside, calls wait for the first to
    be tried again, and each such wait counts as a try.

    Args:
        clients: the endpoints, not yet open.
        retries: how often a call is tried again after the first time; a try that another endpoint takes
            over does not count, up to one for each endpoint.
        longest_wait: the longest Retry-After in seconds that is waited for.

    Raises:
        ConfigError: no endpoint, or two that serve different models.
    """

    def __init__(self, clients: Sequence[Client], *, retries: int = 5, longest_wait: float = 600) -> None:
        if not clients:
            raise ConfigError("there is no endpoint", fix="name at least one URL")
        for client in clients:
            if (client.model, client.revision) != (clients[0].model, clients[0].revision):
                raise ConfigError(
                    f"the endpoints serve different models: {clients[0].model!r} and {client.model!r}",
                    where=client.shown,
                    fix="name endpoints of one model",
                )
        self._members = [_Member(client) for client in clients]
        self._retries_allowed, self._longest_wait = retries, longest_wait
        self._retries = self._answered = self._turn = 0
        self._shown = ", ".join(client.shown for client in clients)
        self._probe_ended = asyncio.Event()
        self._stack = AsyncExitStack()

    def __repr__(self) -> str:
        return f"Pool({[m.client for m in self._members]})"

    @property
    def model(self) -> str:
        """The name that stands in content keys and provenance."""
        return self._members[0].client.model

    @property
    def revision(self) -> str:
        """The revision of the weights, or an empty string."""
        return self._members[0].client.revision

    def stats(self) -> EndpointStats:
        """Return how the endpoints do together at this moment."""
        each = [member.client.stats() for member in self._members]
        total = {f.name: sum(getattr(stats, f.name) for stats in each) for f in fields(EndpointStats)}
        up = sum(not member.aside for member in self._members)
        return EndpointStats(**{**total, "endpoints_up": up, "retries": self._retries})

    async def __aenter__(self) -> Self:
        """Open the clients."""
        for member in self._members:
            await self._stack.enter_async_context(member.client)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the clients."""
        await self._stack.aclose()

    async def complete(self, request: ChatRequest) -> Completion:
        """Answer one request.

        Raises:
            RefusedError: an endpoint refuses the request.
            InferenceError: no answer came after all retries, or no endpoint takes our calls.
        """
        tries: Tries | None = None
        failed: _Member | None = None
        sent = passed_on = 0
        answered = self._answered
        while True:
            member = self._choose(avoid=failed)
            if member is None:
                if any(m.probed for m in self._members):
                    await self._probe_ended.wait()
                    continue
                first = self._first_back()
                if first.shut is not None:
                    raise _again(first.shut)
                if tries is None:
                    tries = Tries(self._retries_allowed, self._longest_wait)
                assert first.failure is not None  # it set the endpoint aside
                tries.failed(first.failure, self._shown)
                await asyncio.sleep(spread(max(0.05, first.until - time.monotonic())))
                continue
            self._retries += sent > 0
            sent += 1
            probing = member.aside
            if probing:
                member.probed = True
            try:
                completion = await member.client.attempt(request)
            except TryAgainError as failure:
                failed = member
                member.failed(failure, self._longest_wait)
                another = self._another(member)
                if member.away and (not another or self._too_far(failure)):
                    continue  # to another, or to wait for the first that comes back
                if (failure.unwell or member.aside) and passed_on < len(self._members) and another:
                    passed_on += 1
                    continue
                if tries is None:
                    tries = Tries(self._retries_allowed, self._longest_wait)
                pause = tries.failed(failure, self._shown, progress=self._answered > answered)
                answered = self._answered
                await asyncio.sleep(pause)
            except EndpointError as refusal:
                failed = member
                member.shut_us_out(refusal)
                if all(m.shut is not None for m in self._members):
                    raise
            except RefusedError:
                member.well()
                raise
            else:
                member.well()
                self._answered += 1
                return completion
            finally:
                if probing:
                    member.probed = False
                    self._probe_ended.set()
                    self._probe_ended = asyncio.Event()

    def _choose(self, avoid: "_Member | None") -> "_Member | None":
        """Return the endpoint with the least load; None where all are set aside for now.

        `avoid` failed the call before: one that fails at once would otherwise look like the least loaded.
        """
        self._turn += 1
        chosen, least = None, (True, float("inf"))
        for place in range(len(self._members)):
            member = self._members[(place + self._turn) % len(self._members)]
            if not member.open:
                continue
            client = member.client
            load = (member is avoid or client.held_back > 0, (client.in_flight + 1) / client.limit)
            if load < least:
                chosen, least = member, load
        return chosen

    def _another(self, member: "_Member") -> bool:
        return any(other.open and other is not member for other in self._members)

    def _too_far(self, failure: TryAgainError) -> bool:
        return failure.wait is not None and failure.wait > self._longest_wait

    def _first_back(self) -> "_Member":
        """Return the endpoint that is tried again first, one that takes our calls if there is any."""
        return min(self._members, key=lambda member: (member.shut is not None, member.until))


def _again(error: EndpointError) -> EndpointError:
    """Return the error for another call: one that is raised twice would carry both tracebacks."""
    return EndpointError(error.what, where=error.where, fix=error.fix)


class _Member:
    """One endpoint of a pool, and whether it is set aside."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.aside = False
        self.probed = False
        self.until = 0.0
        self.shut: EndpointError | None = None
        self.failure: TryAgainError | None = None
        self._failures = 0
        self._pause = _FIRST_ASIDE

    @property
    def open(self) -> bool:
        """Whether a call may go there; one at a time while it is being tried again."""
        return not self.aside or (not self.probed and time.monotonic() >= self.until)

    @property
    def away(self) -> bool:
        """Whether it is set aside and its time has not come."""
        return self.aside and time.monotonic() < self.until

    def well(self) -> None:
        """Take note of an answer."""
        self.aside, self.shut, self._failures, self._pause = False, None, 0, _FIRST_ASIDE

    def shut_us_out(self, refusal: EndpointError) -> None:
        """Take note that no call of ours is taken, and set the endpoint aside: a key or a model may still come."""
        self.shut = refusal
        if not self.away:
            self._set_aside()

    def failed(self, failure: TryAgainError, longest_wait: float) -> None:
        """Take note of a failed try, and set the endpoint aside where that is called for."""
        now = time.monotonic()
        self.failure, self.shut = failure, None
        if failure.wait is not None and failure.wait > longest_wait:
            self.aside, self.until = True, now + failure.wait
            return
        if not failure.unwell:
            return
        self._failures += 1
        if self.aside and now < self.until:  # of the calls that were in flight when it was set aside
            return
        if failure.refused or self._failures >= max(_FAILURES_IN_A_ROW, self.client.in_flight // _SHARE_IN_FLIGHT):
            self._set_aside()

    def _set_aside(self) -> None:
        self.aside, self.until = True, time.monotonic() + spread(self._pause)
        self._pause = min(_LONGEST_ASIDE, 2 * self._pause)
