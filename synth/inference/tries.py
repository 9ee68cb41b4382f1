"""Trying again: how a failed try is told apart from a failed call, and how long the pauses are."""

import random
import time
from collections.abc import Callable

from synth.core.errors import InferenceError
from synth.inference.replies import quote

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
# Many services count in windows of a minute: one of them may be full twice.
_BUSY_PATIENCE = 120.0
_LONGEST_BUSY = 20
_BUSY = frozenset({429, 503})
_jitter = random.Random()  # our own: the user's seeded random stays as it is


class TryAgainError(Exception):
    """One try failed in a way that may pass.

    Attributes:
        what: the fault in plain words.
        quoted: the server's own words in brackets, or an empty string.
        status: the HTTP status, or None where none came.
        wait: the seconds that the server asks us to wait, or None.
        fix: what the user can do where it does not pass.
        refused: nobody listens at the address: no other call will get through either.
        sent: whether the request may have reached the endpoint.
    """

    def __init__(
        self,
        what: str,
        message: str = "",
        status: int | None = None,
        wait: float | None = None,
        fix: str | None = None,
        *,
        refused: bool = False,
        sent: bool = True,
    ) -> None:
        super().__init__(what)
        self.what, self.status, self.wait, self.fix = what, status, wait, fix
        self.refused, self.sent = refused, sent
        self.quoted = f" ({quote(message)})" if message else ""

    @property
    def busy(self) -> bool:
        """Whether the endpoint is well but has too much to do."""
        return self.status in _BUSY

    @property
    def unwell(self) -> bool:
        """Whether the failure speaks against the endpoint itself: no connection, no reply in time, its own fault."""
        return self.status is None or (self.status >= 500 and not self.busy)


class Tries:
    """Counts the failed tries of one call.

    Pauses grow exponentially with full jitter (Brooker, "Exponential Backoff And Jitter", AWS 2015). A call that
    is refused for too much load waits for its turn, and is not a failed one: it ends when the retries are used up
    and for two minutes (or `longest_wait`, if that is shorter) the endpoint has answered no call at all, or after
    twenty times that in any case. With no retries it ends at once.

    Args:
        retries: how often a call is tried again after the first time.
        longest_wait: the longest wait in seconds that a server may ask for.
        clock: the time in seconds.
    """

    def __init__(self, retries: int, longest_wait: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._retries, self._longest_wait, self._clock = retries, longest_wait, clock
        self._patience = min(_BUSY_PATIENCE, longest_wait)
        self._made = self._failed = self._busy = 0
        self._busy_since: float | None = None
        self._quiet_since = 0.0

    def failed(self, failure: TryAgainError, where: str, *, progress: bool = False) -> float:
        """Count a failed try and return the seconds to wait before the next; 0 where the server named a time.

        Args:
            failure: how it failed.
            where: the endpoint, as it may be shown.
            progress: other calls were answered since this call's last failure.

        Raises:
            InferenceError: this was the last try, or the server asks for too long a wait.
        """
        self._made += 1
        if self._used_up(failure, progress):
            raise self._given_up(failure, where) from failure.__cause__
        if failure.wait is not None:
            if failure.wait > self._longest_wait:
                raise InferenceError(
                    f"{failure.what} and asks to come back in {failure.wait:.0f} s{failure.quoted}",
                    where=where,
                    fix="run the same command again then: answered calls are not repeated",
                ) from failure
            return 0.0
        doublings = min(30, max(0, self._failed + self._busy - 1))
        return _jitter.uniform(0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0**doublings))

    def _used_up(self, failure: TryAgainError, progress: bool) -> bool:
        if not failure.busy:
            self._failed += 1
            return self._failed > self._retries
        now = self._clock()
        if self._busy_since is None:
            self._busy_since = self._quiet_since = now
        if progress:
            self._quiet_since = now
        else:
            self._busy += 1
        if self._retries == 0 or now - self._busy_since > _LONGEST_BUSY * self._patience:
            return True
        return self._busy > self._retries and now - self._quiet_since > self._patience

    def _given_up(self, failure: TryAgainError, where: str) -> InferenceError:
        fix = failure.fix
        if failure.status == 429:
            fix = "lower max_in_flight, or wait and run the same command again: answered calls are not repeated"
        elif failure.status is not None and failure.status >= 500:
            fix = "the server is up but its engine may be dead: look at its log and restart it"
        times = "once" if self._made == 1 else f"{self._made} times"
        return InferenceError(f"{failure.what}{failure.quoted} (tried {times})", where=where, fix=fix)


def spread(seconds: float) -> float:
    """Return a wait with a little jitter, so that calls held back together do not come back together."""
    return seconds + _jitter.uniform(0, 0.25 * min(seconds, 4))
