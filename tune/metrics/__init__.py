"""What an answer is measured by. `find_metrics` says by which metrics, `score_all` (scoring.py) measures."""

from collections.abc import Iterable

from synth.core.squad import exact_match, f1, normalize

__all__ = ["exact_match", "f1", "mean", "normalize"]


def mean(values: Iterable[float]) -> float:
    """Return the arithmetic mean, 0.0 of nothing."""
    held = list(values)
    return sum(held) / len(held) if held else 0.0
