"""What an answer is measured by: SQuAD's exact match and F1 (synth/core/squad.py), and the mean over answers."""

from collections.abc import Iterable

from synth.core.squad import exact_match, f1, normalize

__all__ = ["exact_match", "f1", "mean", "normalize"]


def mean(values: Iterable[float]) -> float:
    """Return the arithmetic mean, 0.0 of nothing."""
    held = list(values)
    return sum(held) / len(held) if held else 0.0
