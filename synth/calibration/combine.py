"""One score made of several: a logistic regression that tells human pairs from spoiled ones."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from synth.calibration.columns import Columns
from synth.calibration.extras import need
from synth.filters.rules_file import Combined, Term

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

# A score that fewer of the rows have is left out: its neutral value would stand for most of them.
_LEAST_APPLIES = 0.2


def combine(columns: Columns, names: Sequence[str], corruptions: Sequence[str], among: "Mask") -> Combined | None:
    """Fit a logistic regression (scikit-learn, L2) on the rows `among`; None where no score helps.

    Human rows weigh as much as all spoiled ones, and each corruption as much as every other. A missing score counts
    as the mean of the human ones: it says nothing, and a rule would let it pass. A score whose weight comes out
    negative is left out and the rest is fitted again: every score is meant so that more is better, and a negative
    weight would only trim another that says nearly the same.
    """
    linear = need("sklearn.linear_model", "the combined score")
    rows = among & (columns.human | np.isin(columns.labels, list(corruptions)))
    human = columns.human[rows]
    if not human.any() or human.all():
        return None
    weights = _weights(columns.labels[rows], human)
    matrix, neutral = {}, {}
    for name in sorted(names):
        values = columns.scores[name][rows]
        known = np.isfinite(values)
        if known.mean() < _LEAST_APPLIES or not (known & human).any():
            continue
        neutral[name] = round(float(values[known & human].mean()), 4)
        filled = np.where(known, values, neutral[name])
        if np.ptp(filled) > 0:
            matrix[name] = filled
    used = list(matrix)
    while used:
        stacked = np.column_stack([matrix[name] for name in used])
        spread = stacked.std(axis=0)
        model = linear.LogisticRegression(C=1.0, max_iter=1000)
        model.fit(stacked / spread, human, sample_weight=weights)
        found = model.coef_[0] / spread
        kept = [name for name, weight in zip(used, found, strict=True) if weight > 0]
        if len(kept) == len(used):
            terms = [Term(n, round(float(w), 4), neutral[n]) for n, w in zip(used, found, strict=True)]
            return Combined(round(float(model.intercept_[0]), 4), tuple(term for term in terms if term.weight > 0))
        used = kept
    return None


def _weights(labels: "NDArray[np.str_]", human: "NDArray[np.bool_]") -> "Floats":
    """Return a weight a row: human and spoiled rows are even, and so are the corruptions among themselves."""
    names, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    share = 1.0 / (counts[places] * np.where(human, 1, max(1, len(names) - 1)))
    result: Floats = share * len(labels) / 2
    return result


def combined_column(columns: Columns, combined: Combined) -> "Floats":
    """Return the combined score of every row, to the digits that `Combined.value` gives."""
    total = np.full(len(columns.labels), combined.bias)
    for term in combined.terms:
        values = columns.scores[term.score]
        total += term.weight * np.where(np.isfinite(values), values, term.neutral)
    result: Floats = np.round(1.0 / (1.0 + np.exp(-np.clip(total, -60, 60))), 4)
    return result
