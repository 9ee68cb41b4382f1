"""How small a difference a held-out set can show, before a question is asked and after.

"Can be seen" means: a true difference of that size is found, at 5 % two-sided, four times in five. It is the
minimum detectable effect of Bloom ("Minimum Detectable Effects", 1995): the standard error times the quantiles of t
for 97.5 % and 80 %, with one degree of freedom less than there are documents.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tune.phrases import counted

if TYPE_CHECKING:
    from tune.statistics import Difference

# Of a question's difference between two contenders, in points: as when one question in six is right for one of
# them only.
SPREAD = 40.0
# How alike the differences of two questions about one document are, as an intra-class correlation.
CORRELATION = 0.1
# The difference that people ask about, in points.
TARGET = 5.0
# More items than this are as good as out of reach; the search for a number ends there.
_MOST_ITEMS = 10_000_000


@dataclass(frozen=True, slots=True)
class Power:
    """What differences a held-out set can show.

    Attributes:
        items: questions.
        documents: that they are about.
        detectable: the least difference, in points, that can be seen; None where the set cannot tell
            (fewer than two documents, or answers that differ nowhere).
        target: the difference in points that one would like to see.
        items_needed: questions that it takes to see `target`, with as many a document as now; None as above, or
            where it would take more than ten million.
    """

    items: int
    documents: int
    detectable: float | None
    target: float
    items_needed: int | None

    @property
    def enough(self) -> bool:
        """Whether `target` can be seen."""
        return self.detectable is not None and self.detectable <= self.target

    def said(self) -> str:
        """Say it in a sentence or two."""
        items = counted(self.items, "item")
        if self.documents < 2:
            return f"With {items} about {counted(self.documents, 'document')} no difference can be told from chance."
        if self.detectable is None:
            return f"With {items} nothing can be said: the answers compared differ by the same on every one."
        if self.detectable > 100:
            about = counted(self.documents, "document")
            seen = f"With {items} about {about} not even a difference of 100 points can be relied on to be seen"
        else:
            seen = f"With {items} a difference under {_points(self.detectable)} cannot be seen"
        if self.enough:
            return f"{seen}; that is enough to see {_points(self.target, exact=True)}."
        if self.items_needed is None:
            return f"{seen}; to see {_points(self.target, exact=True)} it takes more than {_MOST_ITEMS:,}."
        return f"{seen}; to see {_points(self.target, exact=True)} it takes about {_rounded_up(self.items_needed)}."


def plan(
    items: int,
    documents: int,
    *,
    spread: float = SPREAD,
    correlation: float = CORRELATION,
    target: float = TARGET,
) -> Power:
    """Return what a held-out set will be able to show, before any answer.

    It assumes documents of equal size; unequal ones show less. What `spread` and `correlation` really are is known
    after the answers: then `found` says it better.

    Args:
        items: questions, at least one.
        documents: that they are about, from one to `items`.
        spread: the standard deviation of a question's difference between two contenders, in points.
        correlation: the intra-class correlation of the differences within a document, 0 to 1.
        target: the difference in points that one would like to see, above 0.

    Raises:
        ValueError: a number is outside of its range.
    """
    if not 1 <= documents <= items:
        raise ValueError(f"{items} items cannot be about {documents} documents")
    if not (math.isfinite(spread) and spread > 0 and 0 <= correlation <= 1):
        raise ValueError(f"a spread of {spread} with a correlation of {correlation} is outside of its range")
    # The variance of a mean over clusters of equal size (Kish, "Survey Sampling", 1965).
    inflation = 1 + (items / documents - 1) * correlation
    return _power(items, documents, spread * math.sqrt(inflation / items), target)


def found(difference: "Difference", target: float = TARGET) -> Power:
    """Return what a held-out set was able to show, from the cluster-robust error of a difference in points.

    Raises:
        ValueError: the target is not above 0.
    """
    return _power(difference.questions, difference.documents, difference.standard_error, target)


def _power(items: int, documents: int, error: float | None, target: float) -> Power:
    if not (math.isfinite(target) and target > 0):
        raise ValueError(f"a difference of {target} points is no target; it has to be above 0")
    if error is None or error == 0 or documents < 2:
        return Power(items, documents, None, target, None)
    detectable = _factor(documents) * error
    return Power(items, documents, detectable, target, _items_needed(items, documents, error, target))


def _items_needed(items: int, documents: int, error: float, target: float) -> int | None:
    """Return the least number of items, as many a document as now, whose detectable difference is `target`."""
    each = items / documents

    def detects(clusters: int) -> bool:
        return _factor(clusters) * error * math.sqrt(documents / clusters) <= target

    low, high = 1, 2
    while not detects(high):
        low, high = high, 2 * high
        if high * each > _MOST_ITEMS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if detects(middle) else (middle, high)
    return math.ceil(high * each)


def _factor(documents: int) -> float:
    from scipy import stats  # takes a second to load, which `tune --help` should not wait for

    return float(stats.t.ppf(0.975, documents - 1) + stats.t.ppf(0.8, documents - 1))


def _points(value: float, *, exact: bool = False) -> str:
    """Return a number of points; unless exact, rounded up to two digits, or to a whole number from 10 on."""
    step = 0.1 if value < 10 else 1.0
    number = f"{value if exact else math.ceil(round(value / step, 6)) * step:g}"
    return f"{number} point" + ("" if number == "1" else "s")


def _rounded_up(items: int) -> str:
    """Return a count to two digits, never rounded down."""
    step = 10 ** max(0, len(str(items)) - 2)
    return f"{math.ceil(items / step) * step:,}"
