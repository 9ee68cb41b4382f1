"""ROC AUC with an interval that knows about documents.

AUC is the chance that a human pair scores above a spoiled one, ties counting a half. Pairs about one document rise and
fall together, so the interval comes from drawing whole documents (a cluster bootstrap: Cameron, Gelbach and Miller,
"Bootstrap-Based Improvements for Inference with Clustered Errors", 2008), not pairs. AUC is a sum over pairs of
documents, so the sums are taken once and each draw of documents only weighs them anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

CONFIDENCE = 0.95
# More documents than these are joined to groups: an interval hardly changes, and its cost grows with the square.
_MOST_GROUPS = 200


@dataclass(frozen=True, slots=True)
class Auc:
    """An AUC with its 95 % interval; the interval is None where there are fewer than two documents."""

    value: float
    low: float | None
    high: float | None


def auc(positive: "Floats", negative: "Floats") -> float:
    """Return the share of pairs of a positive and a negative score in which the positive one is higher, ties a half.

    Raises:
        ValueError: there is no positive or no negative score.
    """
    if not len(positive) or not len(negative):
        raise ValueError("AUC needs a positive and a negative score")
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left") + np.searchsorted(ordered, positive, "right")
    return float(below.sum()) / (2.0 * len(positive) * len(negative))


def clustered_auc(
    positive: "Floats",
    negative: "Floats",
    positive_documents: Sequence[str],
    negative_documents: Sequence[str],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Auc:
    """Return the AUC with a percentile interval over draws of whole documents; equal input gives equal output.

    Raises:
        ValueError: there is no positive or no negative score.
    """
    value = auc(positive, negative)
    names = sorted({*positive_documents, *negative_documents})
    if len(names) < 2:
        return Auc(value, None, None)
    groups = min(len(names), _MOST_GROUPS)
    of_name = {name: i % groups for i, name in enumerate(names)}
    of_positive = np.array([of_name[d] for d in positive_documents])
    of_negative = np.array([of_name[d] for d in negative_documents])
    wins = _wins(positive, negative, of_positive, of_negative, groups)
    drawn = np.random.default_rng(seed).multinomial(groups, [1 / groups] * groups, size=resamples).astype(float)
    pairs = (drawn @ np.bincount(of_positive, minlength=groups)) * (drawn @ np.bincount(of_negative, minlength=groups))
    won = ((drawn @ wins) * drawn).sum(axis=1)
    found = won[pairs > 0] / pairs[pairs > 0]
    if not len(found):
        return Auc(value, None, None)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return Auc(value, float(low), float(high))


def _wins(
    positive: "Floats",
    negative: "Floats",
    of_positive: "NDArray[np.int64]",
    of_negative: "NDArray[np.int64]",
    groups: int,
) -> "Floats":
    """Return how often the positives of each group (rows) beat the negatives of each (columns), ties a half."""
    values, places = np.unique(np.concatenate([positive, negative]), return_inverse=True)
    size = len(values)
    highs, lows = places[: len(positive)], places[len(positive) :]
    has = np.bincount(lows * groups + of_negative, minlength=size * groups).reshape(size, groups).astype(float)
    below = np.cumsum(has, axis=0) - has / 2
    result = np.zeros((groups, groups))
    np.add.at(result, of_positive, below[highs])
    return result


def curve(positive: "Floats", negative: "Floats") -> tuple["Floats", "Floats"]:
    """Return the ROC curve: for each bound, the share of spoiled pairs that pass and the share of human pairs that do.

    Both run from 0 to 1, as the bound falls.
    """
    bounds = np.unique(np.concatenate([positive, negative]))[::-1]
    passed = [1.0 - np.searchsorted(np.sort(scores), bounds, "left") / len(scores) for scores in (negative, positive)]
    return np.concatenate([[0.0], passed[0]]), np.concatenate([[0.0], passed[1]])
