"""How many calls an endpoint gets at once: as many as it can use, found while it works.

Additive increase, multiplicative decrease (Chiu and Jain, "Analysis of the Increase and Decrease Algorithms for
Congestion Avoidance in Computer Networks", 1989), with TCP's slow start and one decrease a round trip (Jacobson,
"Congestion Avoidance and Control", SIGCOMM 1988). Applied to calls in flight as in Netflix's concurrency-limits
("Performance Under Load", 2018), with one difference: an engine that batches gets slower a call the more it does, and
does more for it. So latency alone is no sign of too much load here; the engine's own queue is, where it shows one,
and elsewhere latency counts only when the answers a second fall with it (Little, "A Proof for the Queuing Formula
L = λW", 1961).
"""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable

# As in CUBIC TCP (RFC 9438, sections 4.6 and 4.2): half would leave an endpoint idle for long, and near the point
# of the last overload it is worth going slowly.
_CUT = 0.7
_NEAR = 0.15
_CAREFUL = 0.25
_CLIMB_ROUNDS = 50  # round trips from nothing to the upper bound
_WINDOW = 32
_SLOW = 3.0
_NO_BETTER = 0.9
_WORSE = 0.8
_FORGET = 0.002
_SMALL_QUEUE = 8
_LONG_QUEUE = 2
_BATCH_KEPT = 0.98


class Limiter:
    """Lets calls in up to a limit that follows what the endpoint can take.

    The limit falls on overload (429, 503, a timeout), at most once a round trip; on a long queue in the engine;
    and, where the engine shows no queue, when calls take three times as long as they did and fewer of them end.
    It rises while it is used: by one a success until the first sign of overload, then by a fixed amount a round
    trip, and by less where the last overload was.

    Args:
        most: the upper bound.
        least: the lower bound.
        start: the limit at the beginning; `most` unless given.
        clock: the time in seconds.
    """

    def __init__(
        self, most: int, *, least: int = 1, start: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = max(1, most)
        self._least = min(max(1, least), self._most)
        self._limit = float(min(self._most, max(self._least, self._most if start is None else start)))
        self._slots = int(self._limit)
        self._step = max(1.0, self._most / _CLIMB_ROUNDS)
        self._clock = clock
        self._running = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._climbing = True
        self._held = False
        self._metered = False
        self._batch = 0.0
        self._cut_at = -math.inf
        self._too_much = math.inf
        self._calls, self._seconds, self._load, self._window_at = 0, 0.0, 0, clock()
        self._quickest = math.inf
        self._best_rate, self._best_load = 0.0, 0.0

    @property
    def limit(self) -> int:
        """How many calls may run now."""
        return self._slots

    @property
    def in_flight(self) -> int:
        """How many calls run now."""
        return self._running

    @property
    def queued(self) -> int:
        """How many calls wait here to be let in."""
        return len(self._waiters)

    def try_enter(self) -> bool:
        """Let a call in if there is room and nobody was here before."""
        if self._running >= self._slots or self._waiters:
            return False
        self._running += 1
        return True

    async def enter(self) -> None:
        """Return when the call may run; calls are let in in the order in which they came."""
        if self.try_enter():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # let in a moment before
                self.leave()
            else:
                with contextlib.suppress(ValueError):  # passed over already
                    self._waiters.remove(turn)
            raise

    def leave(self) -> None:
        """End a call that says nothing about the load."""
        self._running -= 1
        self._let_in()

    def succeeded(self, began: float) -> None:
        """End a call that was let in at `began` and answered."""
        running = self._running
        if not self._metered and began >= self._cut_at:
            self._calls += 1
            self._seconds += self._clock() - began
            self._load += running
            if self._calls >= _WINDOW:
                self._end_window()
        if self._limit < self._most and not self._held and 2 * running >= self._slots:
            self._set(self._limit + (1.0 if self._climbing else self._rise() / self._limit))
        self._running = running - 1
        if self._waiters:
            self._let_in()

    def overloaded(self, began: float) -> None:
        """End a call that was let in at `began` and refused for too much load, or not answered in time."""
        if began >= self._cut_at:
            self._cut(min(self._limit, self._running))
        self._running -= 1
        self._let_in()

    def observe(self, running: float, waiting: float) -> None:
        """Take what the engine says of its queue: calls that run in its batch, and calls that wait for that.

        A queue as long as the largest batch of late is kept: calls of equal length end together, and then the
        engine needs a whole batch at once.
        """
        self._metered = True
        self._batch = max(running, _BATCH_KEPT * self._batch)
        enough = max(_SMALL_QUEUE, self._batch)
        self._held = waiting > enough
        if running and waiting > _LONG_QUEUE * enough:
            self._climbing = False
            target = max(2 * enough, self._running - (waiting - enough))
            self._set(min(self._limit, max(self._limit * _CUT, target)))
        elif not self._held and self._running >= self._slots:
            self._set(self._limit + max(_SMALL_QUEUE, enough - waiting))
        self._let_in()

    def observe_no_more(self) -> None:
        """Go by the calls alone from now on: the engine does not say more of its queue."""
        if self._metered:
            self._metered = self._held = False
            self._begin_window(self._clock())

    def _end_window(self) -> None:
        """Judge latency and rate over the last calls."""
        now = self._clock()
        latency, load, took = self._seconds / self._calls, self._load / self._calls, now - self._window_at
        self._begin_window(now)
        if latency <= 0 or took <= 0:
            return
        rate = _WINDOW / took
        self._quickest = min(self._quickest * (1 + _FORGET), latency)
        slow = latency > _SLOW * self._quickest
        # With fewer calls in flight than at the best rate, a lower rate is no word about the endpoint.
        self._held = slow and rate < _NO_BETTER * self._best_rate and load >= self._best_load
        if slow and rate < _WORSE * self._best_rate and load > self._best_load:
            self._cut(self._limit)
        if rate >= self._best_rate:
            self._best_rate, self._best_load = rate, load
        else:
            self._best_rate *= 1 - _FORGET

    def _begin_window(self, now: float) -> None:
        self._calls, self._seconds, self._load, self._window_at = 0, 0.0, 0, now

    def _rise(self) -> float:
        """Return what the limit rises by in a round trip: little near the limit that was too much last time."""
        near = abs(self._limit - self._too_much) <= max(1.0, _NEAR * self._too_much)
        return min(self._step, _CAREFUL) if near else self._step

    def _cut(self, from_limit: float) -> None:
        self._climbing = False
        self._too_much = from_limit
        self._cut_at = self._clock()
        self._begin_window(self._cut_at)
        self._set(from_limit * _CUT)

    def _set(self, limit: float) -> None:
        self._limit = min(float(self._most), max(float(self._least), limit))
        self._slots = int(self._limit)

    def _let_in(self) -> None:
        while self._waiters and self._running < self._slots:
            turn = self._waiters.popleft()
            if not turn.done():
                self._running += 1
                turn.set_result(None)
