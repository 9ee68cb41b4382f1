"""Which rules to have, and with what bounds, so that together they keep a chosen share of the human pairs.

All rules share one quantile: each bound is the value below which that share of the human pairs lies. The joint share
that they keep falls as the quantile rises, so the largest quantile that still keeps enough is found by halving.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from synth.calibration.columns import Columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

# A rule more has to reject this much more of the spoiled pairs, on average over the corruptions.
_LEAST_GAIN = 0.02
_HALVINGS = 20


@dataclass(frozen=True, slots=True)
class Bounds:
    """A bound a score, `score >= bound`, and the quantile of the human pairs that gave them."""

    values: Mapping[str, float]
    quantile: float


class Chooser:
    """Bounds over the human pairs of some rows, and what they do to the spoiled ones."""

    def __init__(self, columns: Columns, corruptions: Sequence[str], forms: Sequence[str], among: "Mask") -> None:
        self._columns, self._forms, self._among = columns, forms, among
        self._human = [np.flatnonzero(columns.human & (columns.forms == form) & among) for form in forms]
        self._spoiled = {
            corruption: np.flatnonzero((columns.labels == corruption) & among) for corruption in corruptions
        }

    def bound(self, score: str, quantile: float) -> float | None:
        """Return the largest bound that at least `1 - quantile` of the human pairs reach, in each form; None for none.

        A pair without the score passes. A bound that rejects nothing at all is none.
        """
        values = self._columns.scores[score]
        bounds = []
        for rows in self._human:
            column = values[rows]
            ordered = np.sort(np.where(np.isfinite(column), column, np.inf))
            if len(ordered):
                bounds.append(float(ordered[min(int(quantile * len(ordered) + 1e-9), len(ordered) - 1)]))
        lowest = min(bounds, default=np.inf)
        known = values[np.isfinite(values)]
        return None if not np.isfinite(lowest) or not len(known) or lowest <= known.min() else lowest

    def bounds(self, scores: Sequence[str], quantile: float) -> Bounds:
        """Return the bounds of all `scores` at one quantile."""
        found = {score: self.bound(score, quantile) for score in scores}
        return Bounds({score: bound for score, bound in found.items() if bound is not None}, quantile)

    def kept(self, bounds: Bounds) -> float | None:
        """Return the share of human pairs that all bounds keep, in the form where it is least; None without pairs."""
        shares = [float(self._passes(bounds, rows).mean()) for rows in self._human if len(rows)]
        return min(shares, default=None)

    def rejected(self, bounds: Bounds) -> dict[str, float]:
        """Return the share of each corruption's pairs that the bounds reject, where it has any."""
        return {
            corruption: float(1 - self._passes(bounds, rows).mean())
            for corruption, rows in self._spoiled.items()
            if len(rows)
        }

    def _passes(self, bounds: Bounds, rows: "NDArray[np.int64]") -> "Mask":
        passes = np.ones(len(rows), dtype=bool)
        for score, bound in bounds.values.items():
            column = self._columns.scores[score][rows]
            passes &= ~(column < bound)  # NaN is below nothing
        return passes

    def joint(self, scores: Sequence[str], keep: float, also: Callable[[Bounds], bool] = lambda bounds: True) -> Bounds:
        """Return the tightest bounds at one quantile that together keep the share `keep`, and that `also` accepts."""
        best, low, high = Bounds({}, 0.0), 0.0, 1.0 - keep
        for step in range(_HALVINGS):
            quantile = high if step == 0 else (low + high) / 2
            found = self.bounds(scores, quantile)
            kept = self.kept(found)
            if kept is not None and kept >= keep and also(found):
                best, low = found, quantile
                if step == 0:
                    break
            else:
                high = quantile
        return best

    def choose(self, scores: Sequence[str], keep: float) -> tuple[str, ...]:
        """Return the scores to have rules on: one after another, the one that adds most to what is rejected."""
        chosen: tuple[str, ...] = ()
        reached = 0.0
        while True:
            gains = [
                (self._mean_rejected(self.joint((*chosen, score), keep)), score)
                for score in scores
                if score not in chosen
            ]
            best, score = max(gains, default=(0.0, ""), key=lambda gain: (gain[0], gain[1]))
            if best - reached < _LEAST_GAIN:
                return chosen
            chosen, reached = (*chosen, score), best

    def _mean_rejected(self, bounds: Bounds) -> float:
        shares = self.rejected(bounds)
        return sum(shares.values()) / len(shares) if shares else 0.0
