"""Shards: which passages one of several independent jobs asks about."""

from dataclasses import dataclass
from typing import Self

from synth.core.records import Passage


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `index` of `count`, counted from 0 as Kubernetes and most schedulers do.

    The split is a hash of what the teacher is shown, so equal passages fall into the same shard and are
    asked about once, and a shard does not depend on the order or the number of the documents.
    """

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "2/8".

        Raises:
            ValueError: it is not of that form, or the index is not below the count.
        """
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal()):
            raise ValueError(f"{text!r} is no shard; write I/N, such as 0/8 for the first of eight")
        if int(index) >= int(count):
            raise ValueError(f"there is no shard {text}: {count} shards count from 0 to {int(count) - 1}")
        return cls(int(index), int(count))

    def holds(self, passage: Passage) -> bool:
        """Whether the passage belongs to this shard."""
        return self.count == 1 or shard_of(passage, self.count) == self.index

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def shard_of(passage: Passage, count: int) -> int:
    """Return the index of the shard, of so many, that a passage belongs to."""
    return int(passage.shown_id, 16) % count
