"""How sure a difference between two contenders is: paired by question, clustered by document.

Both contenders answered the same questions, so the difference is taken question by question; that
removes what makes a question easy or hard for everyone. Questions about one document rise and fall
together, so the documents are resampled, not the questions: treating questions as independent gives
intervals that are too narrow, and false alarms.

SciPy does the resampling. `scipy.stats.bootstrap` knows no clusters by name, but handed each document's
sum of differences and number of questions as paired samples, with their ratio as the statistic, it draws
whole documents: a cluster bootstrap
(Cameron, Gelbach and Miller, "Bootstrap-Based Improvements for Inference with Clustered Errors", 2008).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Rows of the resampling matrices held at once: bounds memory at 500 × documents numbers.
_BATCH = 500


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


def paired_difference(
    differences: Sequence[float],
    documents: Sequence[str],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Return the mean difference with an interval clustered by document and a sign-flip p-value.

    The interval is the percentile interval of the cluster bootstrap, at the expanded level of Hesterberg,
    "What Teachers Should Know About the Bootstrap" (2015): with few documents the plain one is
    too narrow. The test flips the sign of whole documents (all sign patterns where there are at most
    `resamples`, else as many random ones).

    Equal input gives equal output, whatever the order of the questions.

    Args:
        differences: one number a question, first contender minus second.
        documents: the document of each question.
        confidence: the level of the interval, 0 to 1.
        resamples: how many samples the bootstrap and the test draw.
        seed: of the random numbers.

    Raises:
        ValueError: the lengths differ, or there is no question.
    """
    from scipy import stats  # takes a second to load, which `tune --help` should not wait for

    sums, sizes = _by_document(differences, documents)
    mean = math.fsum(sums) / sizes.sum()
    base = Difference(float(mean), int(sizes.sum()), len(sums))
    if base.documents < 2:
        return base
    level = _expanded(confidence, base.documents)
    interval = stats.bootstrap(
        (sums, sizes),
        _ratio,
        paired=True,
        vectorized=True,
        method="percentile",
        confidence_level=level,
        n_resamples=resamples,
        batch=_BATCH,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    test = stats.permutation_test(
        (sums,),
        _total,
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=_BATCH,
        rng=np.random.default_rng(seed),
    )
    return Difference(
        base.mean,
        base.questions,
        base.documents,
        low=float(interval.low),
        high=float(interval.high),
        standard_error=_standard_error(sums, sizes, base.mean),
        p_value=float(test.pvalue),
    )


def _by_document(
    differences: Sequence[float], documents: Sequence[str]
) -> tuple["NDArray[np.float64]", "NDArray[np.float64]"]:
    """Return each document's sum and count, documents in sorted order, sums exact in any order of questions."""
    if len(differences) != len(documents):
        raise ValueError(f"{len(differences)} differences for {len(documents)} documents")
    if not differences:
        raise ValueError("there is no question")
    groups: dict[str, list[float]] = {}
    for difference, document in zip(differences, documents, strict=True):
        groups.setdefault(document, []).append(difference)
    names = sorted(groups)
    return (
        np.array([math.fsum(groups[name]) for name in names]),
        np.array([float(len(groups[name])) for name in names]),
    )


def _expanded(confidence: float, clusters: int) -> float:
    """Return the level whose normal quantile is the wanted t quantile, the bootstrap's missing n/(n-1) put back."""
    from scipy import stats

    t = stats.t.ppf(0.5 + confidence / 2, clusters - 1)
    return float(2 * stats.norm.cdf(math.sqrt(clusters / (clusters - 1)) * t) - 1)


def _standard_error(sums: "NDArray[np.float64]", sizes: "NDArray[np.float64]", mean: float) -> float:
    """Return the cluster-robust (CR1) standard error of a mean, Liang and Zeger (1986)."""
    clusters = len(sums)
    residuals = sums - mean * sizes
    return float(math.sqrt(clusters / (clusters - 1) * (residuals**2).sum()) / sizes.sum())


def _ratio(sums: Any, sizes: Any, axis: int) -> Any:  # noqa: ANN401  (arrays of any shape)
    return sums.sum(axis=axis) / sizes.sum(axis=axis)


def _total(sums: Any, axis: int) -> Any:  # noqa: ANN401  (arrays of any shape)
    return sums.sum(axis=axis)
