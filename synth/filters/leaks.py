"""What decontamination found: a leak of one held-out item, and the counts of clean and dirty for the report."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

Part = Literal["question", "answer", "passage"]
How = Literal["exact", "ngram", "reworded", "semantic"]


@dataclass(frozen=True, slots=True)
class Leak:
    """What a record (or a passage) has of which held-out item.

    `part` is where in the record it stands, `how` in what form, `detail` says how much of it for a person.
    """

    item_id: str
    file: str
    part: Part
    how: How
    detail: str = ""

    def __str__(self) -> str:
        return self.item_id


@dataclass(frozen=True, slots=True)
class FileLeaks:
    """What of one held-out file was found: `items` in all and those `leaked`, and the records by how and by where.

    A record that leaks items of two files counts for both. `in_passages` are the items whose question stands in a
    passage that no prompt shows: reported, and no leak into training.
    """

    file: str
    items: int
    leaked: int
    records: int
    by_how: Mapping[str, int]
    by_part: Mapping[str, int]
    in_passages: int = 0

    @property
    def clean(self) -> int:
        """The items that no record leaks."""
        return self.items - self.leaked

    def to_json(self) -> dict[str, Any]:
        """Return the counts for a manifest or a report."""
        return {
            "file": self.file,
            "items": self.items,
            "clean": self.clean,
            "leaked": self.leaked,
            "records": self.records,
            "by_how": dict(self.by_how),
            "by_part": dict(self.by_part),
            "in_passages": self.in_passages,
        }


@dataclass(frozen=True, slots=True)
class LeakReport:
    """Clean and dirty: records checked, records that leak something, and the counts of each held-out file."""

    records: int
    dirty: int
    files: tuple[FileLeaks, ...]

    @property
    def clean(self) -> int:
        """The records that leak nothing."""
        return self.records - self.dirty

    @classmethod
    def of(
        cls,
        files: Sequence[str],
        records: int,
        leaks: Mapping[int, Sequence[Leak]],
        passages: Iterable[Leak] = (),
    ) -> Self:
        """Count what was found.

        Args:
            files: the held-out file of each item, as `HeldoutIndex.files` has it.
            records: how many records were looked up.
            leaks: the leaks of each record that has any, by any key.
            passages: what `passage_leak` found.
        """
        sizes = Counter(files)
        stated = list(passages)
        counted = []
        for file in dict.fromkeys(files):
            by_record = [[leak for leak in found if leak.file == file] for found in leaks.values()]
            firsts = [found[0] for found in by_record if found]
            counted.append(
                FileLeaks(
                    file=file,
                    items=sizes[file],
                    leaked=len({leak.item_id for found in by_record for leak in found}),
                    records=len(firsts),
                    by_how=dict(sorted(Counter(leak.how for leak in firsts).items())),
                    by_part=dict(sorted(Counter(leak.part for leak in firsts).items())),
                    in_passages=len({leak.item_id for leak in stated if leak.file == file}),
                )
            )
        return cls(records, sum(bool(found) for found in leaks.values()), tuple(counted))

    def to_json(self) -> dict[str, Any]:
        """Return the report for a manifest."""
        return {
            "records": self.records,
            "clean": self.clean,
            "dirty": self.dirty,
            "files": [file.to_json() for file in self.files],
        }
