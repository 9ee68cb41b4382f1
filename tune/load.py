"""What an answer costs: how long a caller waits at a stated load, and the money for a thousand answers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from synth.core.errors import ConfigError
from tune.scores import Score

_MILLION, _THOUSAND, _HOUR = 1e6, 1000, 3600


@dataclass(frozen=True, slots=True)
class Load:
    """How long answers took while `in_flight` calls were on the way at once, in seconds.

    `p50` and `p95` are percentiles of the time from sending a call to its reply, interpolated, over `calls` answers.
    A call that waits for a place in the server's queue waits within that time.
    """

    in_flight: int
    p50: float
    p95: float
    calls: int

    def to_json(self) -> dict[str, Any]:
        """Return the entry of verdict.json."""
        return {"in_flight": self.in_flight, "p50": self.p50, "p95": self.p95, "calls": self.calls}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build it from the entry of verdict.json."""
        return cls(data["in_flight"], data["p50"], data["p95"], data["calls"])


@dataclass(frozen=True, slots=True)
class Price:
    """What answers cost: `prompt` and `completion` in money for a million tokens, or `hourly` for the machine.

    Raises:
        ConfigError: both kinds or none, half of the tokens' price, or a number below nought.
    """

    prompt: float | None = None
    completion: float | None = None
    hourly: float | None = None

    def __post_init__(self) -> None:
        tokens = (self.prompt, self.completion)
        given = [number for number in (*tokens, self.hourly) if number is not None]
        if any(not math.isfinite(number) or number < 0 for number in given):
            raise ConfigError("a price has to be a number from nought upwards", where="price")
        whole = tokens.count(None) == (0 if self.hourly is None else 2)
        if not whole:
            raise ConfigError(
                "a price is either of prompt and completion tokens or of a machine's hour",
                where="price",
                fix="give both token prices, or the hourly price alone",
            )


def measured_load(scores: Sequence[Score]) -> Load | None:
    """Return one contender's load, None where none of its answers was timed.

    A validation that was stopped and run again may have timed answers at several loads: those of the load that most
    of them have count, of two the higher one.
    """
    in_flight, seconds = _usual(scores)
    if not seconds:
        return None
    import numpy as np

    p50, p95 = np.percentile(seconds, [50, 95])
    return Load(in_flight, round(float(p50), 4), round(float(p95), 4), len(seconds))


def cost_per_thousand(scores: Sequence[Score], price: Price | None) -> float | None:
    """Return what a thousand answers of one contender cost, None where no price is given or nothing was measured.

    With an hourly price a machine is paid for the time in which it answers so many calls at once: the seconds of the
    calls of its usual load (`measured_load`), divided by the calls in flight (Little 1961). The last calls, when fewer
    are on the way, make the true time a little longer.
    """
    if price is None or not scores:
        return None
    if price.hourly is not None:
        in_flight, seconds = _usual(scores)
        return _THOUSAND * price.hourly * math.fsum(seconds) / in_flight / _HOUR / len(seconds) if seconds else None
    assert price.prompt is not None and price.completion is not None
    counted = [score for score in scores if score.prompt_tokens]  # some endpoints say nothing of tokens
    if not counted:
        return None
    paid = math.fsum(s.prompt_tokens * price.prompt + s.completion_tokens * price.completion for s in counted)
    return _THOUSAND * paid / _MILLION / len(counted)


def _usual(scores: Sequence[Score]) -> tuple[int, list[float]]:
    """Return the load that most answers were timed at, of two the higher one, and the seconds of these answers."""
    held: dict[int, list[float]] = {}
    for score in scores:
        if score.seconds is not None and score.in_flight:
            held.setdefault(score.in_flight, []).append(score.seconds)
    if not held:
        return 0, []
    load = max(held, key=lambda one: (len(held[one]), one))
    return min(load, len(held[load])), held[load]
