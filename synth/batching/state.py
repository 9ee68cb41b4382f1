"""What is out: which requests were written in which round, and which came back with an error."""

from collections import Counter
from pathlib import Path
from typing import Any

from synth.batching.output_files import NO_ID, OutputLine
from synth.batching.request_files import keys_of, slot
from synth.core.jsonl import read_lines, write_jsonl


class BatchState:
    """Which requests were written in which round, and which came back with an error."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "failures.jsonl"
        # The round in which a request was last written, and how often those that were written more than once.
        self._exported: dict[bytes, int] = {}
        self._times: Counter[bytes] = Counter()
        self._failures: dict[str, list[dict[str, Any]]] = {}
        found = sorted(path for path in folder.glob("round-*") if path.name[6:].isdecimal())
        self.rounds = max((int(path.name[6:]) for path in found), default=0)
        for path in found:
            for file in sorted(path.glob("requests-*.jsonl")):
                for written in map(slot, keys_of(file)):
                    if written in self._exported:
                        self._times[written] = (self._times[written] or 1) + 1
                    self._exported[written] = int(path.name[6:])
        if self._path.exists():
            for _, row in read_lines(self._path):
                self._failures.setdefault(row["custom_id"], []).append(row)

    def was_exported(self, key: str) -> bool:
        """Whether the key is that of a request of any round."""
        return slot(key) in self._exported

    def is_out(self, key: str) -> bool:
        """Whether a copy of the request was written that has come back neither with an answer nor with an error."""
        written, rows = slot(key), self._failures.get(key, [])
        since = self._exported.get(written, 0) > max((row["round"] for row in rows), default=0)
        return since or self._times[written] > len(rows)

    def tries(self, key: str) -> int:
        """How many errors came back for the request."""
        return len(self._failures.get(key, ()))

    def reason(self, key: str) -> str:
        """Why the last of them."""
        return str(self._failures[key][-1]["reason"])

    def failed(self, line: OutputLine) -> bool:
        """Note an error; return whether it is a new one."""
        rows = self._failures.setdefault(line.key, [])
        if any(row["id"] == line.id for row in rows):
            return False
        if rows and line.id.startswith(NO_ID) and not self.is_out(line.key):
            return False  # a copy of the file
        rows.append({"custom_id": line.key, "id": line.id, "round": self.rounds, "reason": line.reason})
        return True

    def save(self) -> None:
        """Write what is known of errors."""
        rows = [row for rows in self._failures.values() for row in rows]
        if rows:
            write_jsonl(self._path, rows)
