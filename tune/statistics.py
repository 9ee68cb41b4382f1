"""How sure a number about a contender is: paired by question, clustered by document.

Both contenders answered the same questions, so a difference is taken question by question; that removes
what makes a question easy or hard for everyone. Questions about one document rise and fall together, so
whole documents are resampled, not questions: treating questions as independent gives intervals that are
too narrow, and false alarms.

Test and interval are one method. The test flips the sign of whole documents. The interval holds every value
that the test would not reject, so that a bound clears zero exactly when the p-value is below the level. It
replaced the percentile interval of the cluster bootstrap, which was too narrow where there are about 20 documents
of unequal size: docs/statistics.md has the simulations of both.

NumPy does the resampling, not SciPy, whose permutation test gives no interval and counts ties in full.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

# Numbers of a resampling matrix held at once: bounds memory at a few times 16 MB.
_BATCH = 2_000_000
# Statistics that differ by less, relatively, are a tie: sums in another order differ in their last digits.
_TIE = 1e-9
# Where the interval is open at a bound, the bound is moved in by this part of its distance to the farthest mean.
_HAIR = 1e-3


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean of paired differences with what is known of its error, in the unit of the differences.

    `low` and `high` bound the confidence interval. `standard_error` is the cluster-robust one, an
    independent check: about a quarter of the interval's width at 95 %. `p_value` is of a two-sided
    sign-flip test. All four are None where there are fewer than two documents.
    """

    mean: float
    questions: int
    documents: int
    low: float | None = None
    high: float | None = None
    standard_error: float | None = None
    p_value: float | None = None


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of one contender's values with its interval, in their unit; None as in `Difference`."""

    mean: float
    questions: int
    documents: int
    low: float | None = None
    high: float | None = None
    standard_error: float | None = None


@dataclass(frozen=True, slots=True)
class McNemar:
    """Questions that only one of two contenders got right, and the exact two-sided p-value of their split."""

    only_first: int
    only_second: int
    p_value: float


def paired_difference(
    differences: Sequence[float],
    documents: Sequence[str],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Return the mean difference with an interval clustered by document and a sign-flip p-value.

    The test flips the sign of whole documents: all sign patterns where there are at most `resamples`, else as many
    random ones, the observed one counted among them (Phipson and Smyth 2010). Of the other patterns that tie
    with the observed one half are counted as more extreme (mid-p, Lancaster 1961): exact match takes few values,
    and a test that counted all would reject too seldom. A mean of exactly zero has the p-value 1.

    The interval is that of `interval_of_mean`: it leaves out zero where the p-value is below 1 - `confidence`.

    Equal input gives equal output, whatever the order of the questions.

    Args:
        differences: one finite number a question, first contender minus second.
        documents: the document of each question.
        confidence: the level of the interval, 0 to 1.
        resamples: how many sign patterns are drawn at most.
        seed: of the random numbers.

    Raises:
        ValueError: the lengths differ, there is no question, or a number is not finite.
    """
    found, p_value = _examine(differences, documents, confidence, resamples, seed)
    return Difference(
        found.mean, found.questions, found.documents, found.low, found.high, found.standard_error, p_value
    )


def interval_of_mean(
    values: Sequence[float],
    documents: Sequence[str],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Mean:
    """Return the mean of values with an interval clustered by document.

    The documents are parted in two at random, many times. The lower bound is a quantile of the lower of the two parts'
    means, the upper bound one of the higher: that is the sign-flip test turned round (Hartigan, "Using
    Subsample Values as Typical Values", 1969), exact where documents scatter alike to both sides. Ties count as in
    the test; a bound that the test rejects itself is moved in by a hair. With so few documents that no pattern of
    signs can reach the level (5 at 95 %), it is the t interval of the cluster-robust error. Values that
    are all alike give an interval of no width: no resampling can tell what was not seen.

    Args:
        values: one finite number a question.
        documents: the document of each question.
        confidence: the level of the interval, 0 to 1.
        resamples: how many partings are drawn at most.
        seed: of the random numbers.

    Raises:
        ValueError: the lengths differ, there is no question, or a number is not finite.
    """
    return _examine(values, documents, confidence, resamples, seed)[0]


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return p-values adjusted for being several, by Holm, "A Simple Sequentially Rejective Test Procedure" (1979).

    Rejecting where the adjusted value is at most 0.05 keeps the chance of even one false alarm among them at 5 %,
    however they depend on each other. None stays None and is not counted: nothing was tested there.

    Raises:
        ValueError: a p-value is not a number from 0 to 1.
    """
    for name, p in p_values.items():
        if p is not None and not 0 <= p <= 1:  # NaN is no number of any range
            raise ValueError(f"the p-value of {name!r} is {p}, not a number from 0 to 1")
    adjusted = dict(p_values)
    known = sorted((p, name) for name, p in p_values.items() if p is not None)
    least = 0.0
    for rank, (p, name) in enumerate(known):
        least = max(least, min(1.0, (len(known) - rank) * p))
        adjusted[name] = least
    return adjusted


def mcnemar(first: Sequence[float], second: Sequence[float]) -> McNemar:
    """Return the exact test of McNemar (1947) on two contenders' right (1) and wrong (0) answers to the same questions.

    Only questions that one of them got right count; under the null each is as likely to be the first's as the
    second's. It takes questions for independent, so it raises false alarms where those about one document rise
    and fall together: `paired_difference` is the test to decide by.

    Raises:
        ValueError: the lengths differ, there is no question, or a value is neither 0 nor 1.
    """
    from scipy import stats  # takes a second to load, which `tune --help` should not wait for

    if len(first) != len(second):
        raise ValueError(f"{len(first)} answers of the first for {len(second)} of the second")
    if not first:
        raise ValueError("there is no question")
    for value in (*first, *second):
        if value not in (0, 1):
            raise ValueError(f"McNemar's test is about right (1) and wrong (0) answers; here is {value}")
    only_first = sum(a > b for a, b in zip(first, second, strict=True))
    only_second = sum(a < b for a, b in zip(first, second, strict=True))
    p_value = stats.binomtest(only_first, only_first + only_second).pvalue if only_first + only_second else 1.0
    return McNemar(only_first, only_second, float(p_value))


@dataclass(frozen=True, slots=True)
class _Partings:
    """What random partings of the documents in two give: the total of one part, and the means of both.

    `own` patterns of signs are the observed one or its mirror image, which leave one part empty; they are not among
    the rows, but count among the `patterns`.
    """

    parts: "Numbers"
    lower: "Numbers"
    higher: "Numbers"
    own: int
    patterns: int

    def p_value(self, sums: "Numbers") -> float:
        """Return the two-sided p-value of a mean of zero."""
        total, scale = float(sums.sum()), float(np.abs(sums).sum())
        if abs(total) <= _TIE * scale:
            return 1.0
        excess = np.abs(total - 2 * self.parts) - abs(total)
        above = int((excess > _TIE * scale).sum())
        tied = int((np.abs(excess) <= _TIE * scale).sum())
        return (self.own + above + tied / 2) / self.patterns

    def bounds(self, level: float) -> tuple[float, float] | None:
        """Return the values between which the test does not reject at `level`; None where it never can."""
        if self.own / self.patterns >= level:
            return None
        return self._bound(self.lower, level), 0.0 - self._bound(-self.higher, level)

    def _bound(self, lower: "Numbers", level: float) -> float:
        """Return the least value that the test does not reject, or one a hair above a value that it does."""
        scale = float(np.abs(lower).max()) or 1.0
        distinct, counts = np.unique(np.round(lower / scale, 9), return_counts=True)
        # The p-value of a value between this mean and the next.
        beyond = (self.own + np.cumsum(counts)) / self.patterns
        place = int(np.searchsorted(beyond, level - _TIE))
        bound = float(distinct[place]) * scale + 0.0  # never -0.0
        if beyond[place] - counts[place] / 2 / self.patterns >= level - _TIE or place + 1 == len(distinct):
            return bound
        gap = float(distinct[place + 1]) * scale - bound
        return bound + min(gap / 2, _HAIR * (float(distinct[-1]) * scale - bound))


def _examine(
    values: Sequence[float], documents: Sequence[str], confidence: float, resamples: int, seed: int
) -> tuple[Mean, float | None]:
    sums, sizes = _by_document(values, documents)
    questions, clusters = int(sizes.sum()), len(sums)
    mean = math.fsum(sums) / questions
    if clusters < 2:
        return Mean(mean, questions, clusters), None
    error = _standard_error(sums, sizes, mean)
    partings = _partings(sums, sizes, resamples, np.random.default_rng(seed))
    low, high = partings.bounds(1 - confidence) or _t_interval(mean, error, clusters, confidence)
    return Mean(mean, questions, clusters, low, high, error), partings.p_value(sums)


def _by_document(values: Sequence[float], documents: Sequence[str]) -> tuple["Numbers", "Numbers"]:
    """Return each document's sum and count, documents in sorted order, sums exact in any order of questions."""
    if len(values) != len(documents):
        raise ValueError(f"{len(values)} numbers for {len(documents)} documents")
    if not values:
        raise ValueError("there is no question")
    groups: dict[str, list[float]] = {}
    for value, document in zip(values, documents, strict=True):
        if not math.isfinite(value):
            raise ValueError(f"a question about {document!r} has {value}, which is no finite number")
        groups.setdefault(document, []).append(value)
    names = sorted(groups)
    return (
        np.array([math.fsum(groups[name]) for name in names]),
        np.array([float(len(groups[name])) for name in names]),
    )


def _standard_error(sums: "Numbers", sizes: "Numbers", mean: float) -> float:
    """Return the cluster-robust (CR1) standard error of a mean, Liang and Zeger (1986)."""
    clusters = len(sums)
    residuals = sums - mean * sizes
    return float(math.sqrt(clusters / (clusters - 1) * (residuals**2).sum()) / sizes.sum())


def _t_interval(mean: float, error: float, clusters: int, confidence: float) -> tuple[float, float]:
    from scipy import stats

    reach = float(stats.t.ppf(0.5 + confidence / 2, clusters - 1)) * error
    return mean - reach, mean + reach


def _partings(sums: "Numbers", sizes: "Numbers", resamples: int, rng: np.random.Generator) -> _Partings:
    clusters = len(sums)
    every = clusters < 63 and 2**clusters <= resamples
    both = np.stack([sums, sizes], axis=1)
    # One matrix product gives the sums and the sizes of one part; the other part has the rest.
    rows = _every_part(clusters) if every else random_parts(clusters, resamples, rng)
    parts = np.concatenate([part @ both for part in rows])
    total, size = both.sum(axis=0)
    filled = (parts[:, 1] > 0) & (parts[:, 1] < size)
    own = int((~filled).sum()) + (0 if every else 1)
    of_part, sizes_of_part = parts[filled].T
    means = np.stack([of_part / sizes_of_part, (total - of_part) / (size - sizes_of_part)])
    return _Partings(of_part, means.min(axis=0), means.max(axis=0), own, len(parts) + (0 if every else 1))


def _every_part(clusters: int) -> Iterator["Numbers"]:
    start = 0
    for rows in _batches(2**clusters, clusters):
        numbers = np.arange(start, start + rows)[:, None]
        yield ((numbers >> np.arange(clusters)) & 1).astype(np.float64)
        start += rows


def random_parts(clusters: int, resamples: int, rng: np.random.Generator) -> Iterator["Numbers"]:
    """Yield matrices with `resamples` rows in all: 1 where a document is in the one part, 0 where in the other."""
    for rows in _batches(resamples, clusters):
        bits = np.frombuffer(rng.bytes(rows * ((clusters + 7) // 8)), np.uint8).reshape(rows, -1)
        yield np.unpackbits(bits, axis=1, count=clusters).astype(np.float64)


def _batches(rows: int, columns: int) -> Iterator[int]:
    """Yield how many rows to make at a time, `rows` in all."""
    most = max(1, _BATCH // columns)
    for start in range(0, rows, most):
        yield min(most, rows - start)
