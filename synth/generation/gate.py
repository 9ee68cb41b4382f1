"""The gate before every call: how many run at once, the caps on calls, tokens, money and time, and the stop."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from synth.core.calls import Usage
from synth.core.errors import ConfigError, RunError, SynthError
from synth.generation.config import GenerateConfig, Price


class CallRefused(RunError):
    """A call was not made because the run is to end: a cap is reached, or the user stopped it."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Calls answered and their tokens."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Gate:
    """Admits calls while there is room and the caps allow it.

    The cap on calls is exact. Tokens and money of a call are known when it is answered; until then a call
    in flight counts as the mean of those before it, so near the cap fewer calls run at once and the
    overshoot is at most what one reply is longer than the mean.

    Args:
        config: the caps.
        teacher: the name to look up in the price table.
        max_in_flight: how many admitted calls may be unsettled at once.
        spent: what earlier attempts at the run have spent.
        began: when the time of the deadline began, by `clock`; now unless given.
        stop: when it is set no call is admitted any more; those in flight go on.
        clock: seconds, for tests.

    Raises:
        ConfigError: `max_cost` without a price for the teacher.
    """

    def __init__(
        self,
        config: GenerateConfig,
        teacher: str,
        *,
        max_in_flight: int,
        spent: Spent = Spent(),
        stop: asyncio.Event | None = None,
        began: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._price: Price | None = price_of(config, teacher)
        self._calls, self._prompt, self._completion = spent.calls, spent.prompt_tokens, spent.completion_tokens
        self._max_calls, self._max_tokens, self._max_cost = config.max_calls, config.max_tokens_total, config.max_cost
        self._longest = config.max_tokens
        self._clock = clock
        self._end = None if config.deadline is None else (clock() if began is None else began) + config.deadline
        self._stop = stop or asyncio.Event()
        self._max_in_flight, self._places_taken = max_in_flight, 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._settled = asyncio.Event()
        self._capped = (self._max_calls, self._max_tokens, self._max_cost) != (None, None, None)
        self._cap: str | None = None
        self._failure: SynthError | None = None
        self.in_flight = 0

    @property
    def cap(self) -> str | None:
        """The name of the cap that is reached, or None."""
        if self._cap is None and self._end is not None and self._clock() >= self._end:
            self._cap = "deadline"
        return self._cap

    @property
    def shut_down(self) -> bool:
        """Whether the user stopped the run or `shut` ended it; a cap does not count."""
        return self._stop.is_set() or self._failure is not None

    @property
    def cost(self) -> float | None:
        """What the run's calls have cost so far; None without a price."""
        return None if self._price is None else self._price.of(self._prompt, self._completion)

    def shut(self, failure: SynthError) -> None:
        """Admit no call any more; each that asks gets `failure`."""
        self._failure = failure

    async def admit(self) -> None:
        """Return when one more call may be made; `settle` has to follow.

        Raises:
            CallRefused: a cap is reached or the run is stopped.
            SynthError: what `shut` was given.
        """
        if self._places_taken < self._max_in_flight:
            self._places_taken += 1
        else:
            # Whoever leaves hands the place on, so the count stays as it is.
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._leave()
                raise
        try:
            await self._pass()
        except BaseException:
            self._leave()
            raise
        self.in_flight += 1

    def settle(self, usage: Usage | None) -> None:
        """Count an admitted call that ended; None where no answer came."""
        self.in_flight -= 1
        self._leave()
        if usage is not None:
            self._calls += 1
            self._prompt += usage.prompt_tokens
            self._completion += usage.completion_tokens
        if self._capped:
            settled, self._settled = self._settled, asyncio.Event()
            settled.set()

    def _leave(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._places_taken -= 1

    async def _pass(self) -> None:
        while True:
            if self._failure is not None:
                raise self._failure
            if self._stop.is_set():
                raise CallRefused("the run was stopped")
            if self.cap is not None:
                raise CallRefused(f"{self.cap} is reached")
            if not self._capped or self._over(self.in_flight + 1) is None:
                return
            if (cap := self._over(1)) is not None or not self.in_flight:
                self._cap = cap or self._over(self.in_flight + 1)
            else:
                # Those in flight may turn out shorter than the mean.
                await self._settled.wait()

    def _over(self, more: int) -> str | None:
        """Return the cap that so many more calls of mean size would pass."""
        known = max(1, self._calls)
        prompt = self._prompt + more * self._prompt / known
        completion = self._completion + more * (self._completion / known if self._calls else self._longest)
        if self._max_calls is not None and self._calls + more > self._max_calls:
            return "max_calls"
        if self._max_tokens is not None and prompt + completion > self._max_tokens:
            return "max_tokens_total"
        if (
            self._max_cost is not None
            and self._price is not None
            and self._price.of(prompt, completion) > self._max_cost
        ):
            return "max_cost"
        return None


def price_of(config: GenerateConfig, teacher: str) -> Price | None:
    """Return the teacher's price.

    Raises:
        ConfigError: there is a `max_cost` and no price.
    """
    price = config.price.get(teacher)
    if price is None and config.max_cost is not None:
        raise ConfigError(
            f"max_cost needs a price for {teacher!r}",
            where="[generate.price]",
            fix=f'[generate.price."{teacher}"] with `input` and `output` per million tokens, in the file of --config',
        )
    return price
