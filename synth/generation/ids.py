"""Ids that are a record's own, also where two records are equal."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from synth.core.records import Record, content_id


class DistinctIds:
    """Gives a record that is equal to an earlier one, call and all, an id of its own; drops none."""

    def __init__(self) -> None:
        # Numbers, not texts: a million ids are a third of the size.
        self._seen: set[int] = set()
        self._repeats: Counter[int] = Counter()

    def own(self, record: Record) -> Record:
        """Return the record, with another id where its own has been given out."""
        number = int(record.id, 16)
        if number not in self._seen:
            self._seen.add(number)
            return record
        self._repeats[number] += 1
        return self.own(replace(record, id=_repeated(record.id, self._repeats[number])))


def as_made(records: Iterator[Record]) -> Iterator[Record]:
    """Undo `DistinctIds`: yield records that went through it, in order, with the ids that they were made with."""
    # What the next record equal to an earlier one would be called, and what it is.
    expected: dict[int, tuple[int, int]] = {}
    for record in records:
        number = int(record.id, 16)
        made, repeat = expected.pop(number, (number, 0))
        following = _repeated(f"{made:016x}", repeat + 1)
        expected[int(following, 16)] = (made, repeat + 1)
        yield record if made == number else replace(record, id=f"{made:016x}")


def _repeated(record_id: str, repeat: int) -> str:
    return content_id(record_id, repeat)
