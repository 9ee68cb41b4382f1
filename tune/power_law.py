"""A power law through the scores of students of several sizes, and how far it can be trusted.

score(n) = a − b·n^−c, in points, with n records: a is where the curve ends, b and c how it gets there. Learning curves
of many models have that form (Hestness et al., "Deep Learning Scaling is Predictable, Empirically", 2017; Rosenfeld et
al., "A Constructive Prediction of the Generalization Error Across Scales", 2020). Three or four sizes do not pin three
numbers down, so nothing is said from the best curve alone: the held-out documents are resampled, the students'
scatter around the curve is added, and each time the curve is fitted anew.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

TOP = 100.0
"""No score is higher, in points."""

FURTHEST = 10.0
"""The law is followed to so many times the largest size, and no further."""

LEAST_SIZES = 3
"""With fewer sizes every law of three numbers fits."""

# Exponents that are looked at: under the first the curve is a logarithm, over the last it is a step.
_LOWEST, _HIGHEST, _TRIED = 0.02, 4.0, 121


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """score(n) = a − b·n^−c, in points (0 to 100): 0 ≤ a ≤ 100, b ≥ 0, c > 0, so it never falls."""

    a: float
    b: float
    c: float

    def at(self, rows: float) -> float:
        """Return the score at a number of records."""
        return self.a - self.b * math.pow(rows, -self.c)

    def rows_for(self, score: float) -> float | None:
        """Return the number of records that gives a score, None where the law stays below it."""
        if score >= self.a or self.b <= 0:
            return None
        try:
            return float((self.b / (self.a - score)) ** (1 / self.c))
        except OverflowError:
            return None


@dataclass(frozen=True, slots=True)
class Bounded:
    """A number with its interval; None is beyond reach: more than `FURTHEST` times the largest size."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the law says beyond the largest size.

    `doubled` is the gain of twice as many records, in points. `more_rows` is how many more records bring `gain`
    points. `scatter` is the standard deviation of the students around the law, in points; None with three sizes,
    where nothing is left to tell it from.
    """

    law: PowerLaw
    rows: int
    gain: float
    confidence: float
    doubled: Bounded
    more_rows: Bounded
    scatter: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the part of curve.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build the forecast from curve.json."""
        return cls(
            PowerLaw(**data["law"]),
            data["rows"],
            data["gain"],
            data["confidence"],
            Bounded(**data["doubled"]),
            Bounded(**data["more_rows"]),
            data["scatter"],
        )


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do next: "more" records, "stop", or "unknown" where the fit cannot tell; `said` is that in words."""

    what: Literal["more", "stop", "unknown"]
    said: str


def fit(rows: Sequence[float], scores: Sequence[float]) -> PowerLaw:
    """Return the law nearest to the scores, by least squares within its bounds.

    Args:
        rows: the sizes, above 0, at least two of them different.
        scores: the score of each, in points from 0 to 100.

    Raises:
        ValueError: fewer than two sizes, or a number that is none.
    """
    from scipy import optimize  # takes a second to load

    sizes, points = _checked(rows, scores)
    top = float(sizes.max())
    a, b, c = (float(part[0]) for part in _profiled(sizes / top, points[None, :]))
    start, scaled = np.array([a, b, c]), sizes / top

    def missed(law: "Numbers") -> "Numbers":
        return np.asarray(law[0] - law[1] * scaled ** -law[2] - points, dtype=np.float64)

    # The grid's best is near; what is left is to move between two of its exponents.
    bounds = ([0.0, 0.0, _LOWEST], [TOP, np.inf, _HIGHEST])
    inside = np.clip(start, [1e-9, 1e-9, _LOWEST * 1.0001], [TOP - 1e-9, np.inf, _HIGHEST * 0.9999])
    found = optimize.least_squares(missed, inside, bounds=bounds, xtol=1e-15, ftol=1e-15, gtol=1e-15, max_nfev=2000).x
    best = found if (missed(found) ** 2).sum() < (missed(start) ** 2).sum() else start
    return PowerLaw(float(best[0]), float(best[1] * top ** best[2]), float(best[2]))


def forecast(
    rows: Sequence[int],
    values: Sequence[Sequence[float]],
    documents: Sequence[str],
    *,
    gain: float = 2.0,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Forecast:
    """Return what the law through these students says of more records, with intervals.

    The intervals hold two errors: that other held-out documents could have been asked about (documents are resampled,
    the same ones for all students), and that the students lie beside the law (normal noise of their scatter is added,
    where there are more than three sizes). They do not hold that the law may be another one further out.

    Args:
        rows: the sizes, smallest first, all different.
        values: for each size the scores of the items, from 0 to 1, items in the same order.
        documents: the document of each item.
        gain: how many points more are asked for.
        confidence: the level of the intervals.
        resamples: how often documents are drawn anew.
        seed: of the random numbers.

    Raises:
        ValueError: fewer than three sizes or two documents, or lengths that differ.
    """
    if len(rows) < LEAST_SIZES:
        raise ValueError(f"{len(rows)} sizes do not make a curve")
    sums, counts = _by_document(values, documents)
    if len(counts) < 2:
        raise ValueError("one document cannot be resampled")
    means = TOP * sums.sum(axis=0) / counts.sum()
    law = fit(rows, means.tolist())
    sizes = np.array(rows, dtype=np.float64)
    missed = means - np.array([law.at(n) for n in rows])
    free = len(rows) - 3
    scatter = math.sqrt(float((missed**2).sum()) / free) if free else None

    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=resamples).astype(np.float64)
    again = TOP * (drawn @ sums) / (drawn @ counts)[:, None]
    if scatter:
        again = again + rng.normal(0.0, scatter, again.shape)
    again = np.clip(again, 0.0, TOP)
    a, b, c = _profiled(sizes / sizes[-1], again)  # b in units of the largest size: the loss that is left there
    doubled = b * (1 - 2.0**-c)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        needed = np.where(b > gain, (b / np.maximum(b - gain, 1e-300)) ** (1 / c), np.inf)
    needed = np.where(needed <= FURTHEST, needed, np.inf)
    tail = (1 - confidence) / 2
    top = float(sizes[-1])
    wanted = law.rows_for(law.at(top) + gain)
    if wanted is not None and wanted > FURTHEST * top:
        wanted = None
    low, high = (float(q) for q in np.quantile(doubled, [tail, 1 - tail]))
    # No interpolation: between a number and infinity there is none.
    least, most = (float(q) for q in np.quantile(needed, [tail, 1 - tail], method="inverted_cdf"))
    return Forecast(
        law=law,
        rows=int(top),
        gain=gain,
        confidence=confidence,
        doubled=Bounded(law.at(2 * top) - law.at(top), low, high),
        more_rows=Bounded(None if wanted is None else wanted - top, _more(least, top), _more(most, top)),
        scatter=scatter,
    )


def advise(found: Forecast) -> Advice:
    """Return what the forecast says is worth doing.

    "more": in all but the uncertain tail of the resamples the gain is reached within `FURTHEST` times the records.
    "stop": it is not, and twice as many records surely bring less than the gain. Else nothing can be said.
    """
    level = f"{found.confidence:.0%}".replace("%", " %")
    more, doubled = found.more_rows, found.doubled
    gain = f"+{found.gain:g} {'point' if found.gain == 1 else 'points'}"
    shown = f"{_points(doubled.value)} points ({level} interval {_points(doubled.low)} to {_points(doubled.high)})"
    if more.value is not None and more.low is not None and more.high is not None:
        return Advice(
            "more",
            f"About {_round(more.value)} more records for {gain} ({level} interval {_round(more.low)} to "
            f"{_round(more.high)}), if the curve goes on as it did and they are about further documents.",
        )
    if doubled.high is not None and doubled.high < found.gain:
        return Advice("stop", f"Flat: stop. Twice as many records would bring {shown}, less than {gain}.")
    return Advice(
        "unknown",
        f"The fit cannot tell: twice as many records would bring {shown}, and {gain} may take "
        f"{'about ' + _round(more.low) + ' more records' if more.low is not None else 'more records than it can see'} "
        "or never come. More held-out questions or more sizes narrow that down.",
    )


def _checked(rows: Sequence[float], scores: Sequence[float]) -> tuple["Numbers", "Numbers"]:
    sizes, points = np.asarray(rows, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if sizes.shape != points.shape or len(set(sizes.tolist())) < 2:
        raise ValueError("a curve needs two sizes with a score each")
    if not (np.isfinite(sizes).all() and np.isfinite(points).all() and (sizes > 0).all()):
        raise ValueError("sizes are above 0, and scores are numbers")
    return sizes, points


def _profiled(scaled: "Numbers", points: "Numbers") -> tuple["Numbers", "Numbers", "Numbers"]:
    """Return a, b and c of the best law for each row of `points`; `scaled` are sizes over the largest one.

    With c fixed, a and b are a straight line's, and its bounds are two more lines: so every exponent of a grid is
    solved exactly, and no search can end in a hole. b is that at the largest size.
    """
    exponents = np.geomspace(_LOWEST, _HIGHEST, _TRIED)
    best = np.full(len(points), np.inf)
    found = np.zeros((3, len(points)))
    mean = points.mean(axis=1)
    for c in exponents:
        x = scaled**-c
        middle = x.mean()
        spread = ((x - middle) ** 2).sum()
        b = -(points @ (x - middle)) / spread
        a = mean + b * middle
        capped = ((TOP - points) @ x) / (x @ x)
        a = np.where(b <= 0, mean, np.where(a > TOP, TOP, a))
        b = np.where(b <= 0, 0.0, np.where(mean + b * middle > TOP, capped, b))
        missed = ((a[:, None] - b[:, None] * x - points) ** 2).sum(axis=1)
        better = missed < best
        best = np.where(better, missed, best)
        found = np.where(better, np.stack([a, b, np.full(len(points), c)]), found)
    return found[0], found[1], found[2]


def _by_document(values: Sequence[Sequence[float]], documents: Sequence[str]) -> tuple["Numbers", "Numbers"]:
    """Return the sums of each document for each size, and the number of its items."""
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] != len(documents):
        raise ValueError("every size needs a score for every item")
    if not np.isfinite(table).all():
        raise ValueError("a score is not a number")
    names = sorted(set(documents))
    place = {name: k for k, name in enumerate(names)}
    index = np.array([place[name] for name in documents])
    sums = np.stack([np.bincount(index, weights=row, minlength=len(names)) for row in table], axis=1)
    counts = np.bincount(index, minlength=len(names)).astype(np.float64)
    return np.asarray(sums, dtype=np.float64), counts


def _more(times: float, top: float) -> float | None:
    return None if math.isinf(times) else (times - 1) * top


def _points(value: float | None) -> str:
    return "?" if value is None else f"{value:.1f}"


def _round(rows: float | None) -> str:
    """Return a number of records in two digits."""
    if rows is None:
        return "?"
    whole = math.ceil(rows)
    digits = max(0, len(str(whole)) - 2)
    return f"{max(1, round(whole, -digits)):,}"
