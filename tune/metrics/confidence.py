"""Does a model know when it is right? Its confidence in an answer against how good the answer is.

Confidence is the mean probability of the answer's tokens (geometric: exp of the mean log probability).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tune.scores import Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# From here on an answer counts as right, for metrics that are not 0 or 1 alone.
RIGHT = 0.5
BINS = 10
_POINTS = 20


@dataclass(frozen=True, slots=True)
class Bin:
    """The answers whose confidence is above `low` and at most `high`: their number and two means."""

    low: float
    high: float
    answers: int
    confidence: float
    quality: float


@dataclass(frozen=True, slots=True)
class Point:
    """What comes of answering only where confidence is at least `threshold`.

    `coverage` is the share of items that are answered then, `quality` the mean of the metric over these.
    """

    coverage: float
    quality: float
    threshold: float


@dataclass(frozen=True, slots=True)
class ConfidenceQuality:
    """What the confidence of one contender is worth.

    Attributes:
        metric: the measure of how good an answer is.
        answers: how many had a confidence and the metric.
        roc_auc: the chance that a right answer (the metric is at least 0.5) has a higher confidence than a wrong one,
            ties a half; None where all are right, or all wrong.
        calibration_error: the expected calibration error: the mean over answers of how far a bin's mean confidence is
            from its mean quality (Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML
            2017, section 2), over ten bins of equal width.
        bins: those that hold an answer, from low to high.
        abstention: from few answers to all; at most twenty points.
    """

    metric: str
    answers: int
    roc_auc: float | None
    calibration_error: float
    bins: tuple[Bin, ...]
    abstention: tuple[Point, ...]


def confidence_quality(scores: Sequence[Score], metric: str) -> ConfidenceQuality | None:
    """Return what confidence is worth against `metric`, or None where no answer has both.

    Args:
        scores: of one contender. Refusals count like other answers.
        metric: a name in `Score.values`.
    """
    import numpy as np

    known = [(s.confidence, s.values[metric]) for s in scores if s.confidence is not None and metric in s.values]
    if not known:
        return None
    confidence, quality = np.array(known, dtype=np.float64).T
    bins = _bins(confidence, quality)
    return ConfidenceQuality(
        metric,
        len(known),
        _roc_auc(confidence, quality >= RIGHT),
        sum(held.answers * abs(held.confidence - held.quality) for held in bins) / len(known),
        bins,
        _abstention(confidence, quality),
    )


def _roc_auc(confidence: "Floats", right: "NDArray[np.bool_]") -> float | None:
    if right.all() or not right.any():
        return None
    from sklearn.metrics import roc_auc_score  # takes a second to load

    return float(roc_auc_score(right, confidence))


def _bins(confidence: "Floats", quality: "Floats") -> tuple[Bin, ...]:
    import numpy as np

    places = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    found = []
    for place in range(BINS):
        among = places == place
        if among.any():
            means = float(confidence[among].mean()), float(quality[among].mean())
            found.append(Bin(place / BINS, (place + 1) / BINS, int(among.sum()), *means))
    return tuple(found)


def _abstention(confidence: "Floats", quality: "Floats") -> tuple[Point, ...]:
    """Return the curve at some twenty of its steps; answers of equal confidence are given or withheld together."""
    import numpy as np

    order = np.argsort(-confidence, kind="stable")
    ranked, means = confidence[order], np.cumsum(quality[order]) / np.arange(1, len(order) + 1)
    steps = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # noqa: FBT003
    wanted = np.ceil(len(order) * np.arange(1, _POINTS + 1) / _POINTS).astype(int) - 1
    chosen = np.unique(steps[np.searchsorted(steps, wanted)])
    return tuple(Point((int(at) + 1) / len(order), min(1.0, float(means[at])), float(ranked[at])) for at in chosen)
