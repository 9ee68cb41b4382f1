"""Exact match and F1 of short answers, as SQuAD's evaluation programs define them (synth/core/squad.py)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from synth.core.squad import Version, exact_match, f1
from tune.metrics.base import Reply


@dataclass(frozen=True, slots=True)
class ExactMatch:
    """1 where the answer is one of the references, word for word, else 0.

    Attributes:
        version: which program's definition. "1.1" takes every answer as it is written. "2.0" is for sets that have
            unanswerable questions: a refusal counts as the empty answer that the program asks for, unless its words
            are a reference. An unanswerable item is scored as in 2.0 whatever is chosen: a refusal is right.
    """

    version: Version = "1.1"
    name = "em"
    words = "exact match"

    def score(self, replies: Sequence[Reply]) -> list[float | None]:
        """Return 0 or 1 for each answer; None for an item that has no reference and is not unanswerable."""
        return [_scored(exact_match, reply, self.version) for reply in replies]


@dataclass(frozen=True, slots=True)
class F1:
    """The share of words that the answer has in common with the best reference: 2PR / (P + R).

    Attributes:
        version: as in `ExactMatch`.
    """

    version: Version = "1.1"
    name = "f1"
    words = "F1"

    def score(self, replies: Sequence[Reply]) -> list[float | None]:
        """Return a number from 0 to 1 for each answer; None as in `ExactMatch`."""
        return [_scored(f1, reply, self.version) for reply in replies]


def _scored(metric: Callable[..., float], reply: Reply, version: Version) -> float | None:
    item = reply.item
    if item.unanswerable:
        return metric("" if reply.refused else reply.text, (), version="2.0")
    if not item.answers:
        return None
    text = reply.text
    if version == "2.0" and reply.refused and not exact_match(text, item.answers, version="2.0"):
        text = ""
    return metric(text, item.answers, version=version)
