"""What every metric sees of an answer, and what it promises."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from synth.core.heldout import HeldoutItem


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with the item that it answers. `refused` says whether it says that it cannot answer.

    `passages` are texts that may support it, the likeliest first: the item's own passage and the run's best for it.
    """

    item: HeldoutItem
    text: str
    refused: bool = False
    passages: tuple[str, ...] = ()


class Metric(Protocol):
    """A measure of single answers, higher is better. A user's own is an object or a function like `score` (find.py)."""

    @property
    def name(self) -> str:
        """The name in files and on the command line: f1."""
        ...

    @property
    def words(self) -> str:
        """The name as people read it: F1."""
        ...

    def score(self, replies: Sequence[Reply]) -> list[float | None]:
        """Return a number from 0 to 1 for each answer, None where it cannot be measured."""
        ...
