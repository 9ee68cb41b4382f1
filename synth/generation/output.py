"""records.jsonl and quarantine.jsonl while a stage writes them."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import IO, Any

import orjson

from synth.core.jsonl import atomic_writer, digest_file
from synth.core.records import Record
from synth.core.runs import Run
from synth.generation.ids import DistinctIds
from synth.generation.passages import Reading
from synth.generation.tally import Tally
from synth.generation.units import UnitResult

_REASONS = 1000


class OutputFiles:
    """records.jsonl and quarantine.jsonl while they are written, line by line, to take their places at the end."""

    def __init__(self, run: Run, reading: Reading, tally: Tally) -> None:
        self.tally = tally
        self.reasons: Counter[str] = Counter()
        self._run, self._reading = run, reading
        self._records: IO[bytes] | None = None
        self._quarantine: IO[bytes] | None = None
        self._ids = DistinctIds()

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Write while the block runs; both files are whole or as they were."""
        with (
            atomic_writer(self._run.quarantine_path) as self._quarantine,
            atomic_writer(self._run.records_path) as self._records,
        ):
            self._quarantine.writelines(map(_line, self._reading.refused))
            yield

    def fewer_than_before(self) -> bool:
        """Whether the file that is there has more records than were written now."""
        path = self._run.records_path
        return path.is_file() and digest_file(path).rows > self.tally.records

    def write(self, result: UnitResult) -> tuple[Record, ...]:
        """Write what came of a unit and return its records with the ids that they have in the file."""
        assert self._records is not None and self._quarantine is not None
        records = tuple(map(self._ids.own, result.records))
        self._records.writelines(_line(record.to_json()) for record in records)
        self._quarantine.writelines(map(_line, result.quarantine))
        for line in result.quarantine:
            # Reasons quote what was wrong; the first ones say enough, and all of them would fill memory.
            if line["reason"] in self.reasons or len(self.reasons) < _REASONS:
                self.reasons[line["reason"]] += 1
        self.tally.add(result)
        return records


def _line(row: Mapping[str, Any]) -> bytes:
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
