"""Output files: which request a line answers, and what is wrong with it; the answers stay on disk."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson

from synth.batching.request_files import slot
from synth.core.calls import Completion
from synth.core.errors import InferenceError, RunError
from synth.core.jsonl import MAX_LINE_BYTES
from synth.inference.replies import completion_of, message_of, quote

NO_ID = "without-id-"
"""How the id of a line begins that has none of its own."""


@dataclass(slots=True)
class OutputLine:
    """One line of an output file: whose it is, where it stands, and what is wrong with it ("" for a good one).

    `counts` is 0 for lines of waiting.jsonl, which were counted when they were first read.
    """

    key: str
    id: str
    where: str
    reason: str
    place: tuple[int, int, int]
    counts: int


class Outputs:
    """The lines of output files: good ones as places in the files, the others with what is wrong.

    Args:
        waiting: answers that were collected before; read first where the file is there, and not counted again.
        paths: the output files.
    """

    def __init__(self, waiting: Path, paths: Sequence[Path] = ()) -> None:
        self.lines = self.doubled = 0
        self._collected = int(waiting.exists())
        self._paths = [*[waiting][: self._collected], *paths]
        self._files: list[IO[bytes]] = []
        self._good: dict[bytes, tuple[int, int, int]] = {}
        self._bad: list[OutputLine] = []

    def __enter__(self) -> "Outputs":
        try:
            for path in self._paths:
                self._files.append(path.open("rb"))
        except OSError as error:
            self.__exit__()
            raise RunError(f"cannot be read ({error.strerror})", where=str(path)) from error
        for number in range(len(self._paths)):
            for line in self._read(number):
                place = slot(line.key)
                if line.reason:
                    self._bad.append(line)
                elif place in self._good:
                    self.doubled += line.counts
                else:
                    self._good[place] = line.place
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def bad(self) -> Iterator[OutputLine]:
        """Yield the lines that hold no answer."""
        yield from self._bad

    def holds(self, key: str) -> bool:
        """Whether there is a good line under a key that nobody took yet."""
        return slot(key) in self._good

    def take(self, key: str) -> Completion | None:
        """Return the answer under a key, or None; what is taken is used."""
        place = self._good.pop(slot(key), None)
        return None if place is None else completion_of(orjson.dumps(self._row(place)["response"]["body"]), key)

    @property
    def left(self) -> int:
        """How many good lines nobody took yet."""
        return len(self._good)

    def unused(self) -> Iterator[tuple[OutputLine, Any]]:
        """Yield the good lines that nobody took, and their values."""
        for place in self._good.values():
            row = self._row(place)
            yield self._line(place, orjson.dumps(row)), row

    def _row(self, place: tuple[int, int, int]) -> Any:  # noqa: ANN401  (any JSON)
        file = self._files[place[0]]
        file.seek(place[1])
        return orjson.loads(file.readline())

    def _read(self, number: int) -> Iterator[OutputLine]:
        file, offset, row = self._files[number], 0, 0
        while text := file.readline(MAX_LINE_BYTES):
            row += 1
            if text.strip():
                line = self._line((number, offset, row), text)
                self.lines += line.counts
                yield line
            offset += len(text)

    def _line(self, place: tuple[int, int, int], text: bytes) -> OutputLine:
        path = self._paths[place[0]]
        where = f"{path}:{place[2]}"
        counts = int(place[0] >= self._collected)
        try:
            data = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            return OutputLine("", "", where, f"the line is torn or not JSON ({error})", place, counts)
        key = data.get("custom_id") if isinstance(data, dict) else None
        if not isinstance(key, str) or not key:
            return OutputLine("", "", where, "the line has no custom_id", place, counts)
        own = data.get("id")
        return OutputLine(key, str(own) if own else self._id_of(place, text), where, _fault(data, key), place, counts)

    def _id_of(self, place: tuple[int, int, int], text: bytes) -> str:
        """Return an id for a line without one, which another round may bring word for word, even under one name."""
        written = os.fstat(self._files[place[0]].fileno()).st_mtime_ns
        return f"{NO_ID}{hashlib.sha256(b'%d %b' % (written, text)).hexdigest()[:16]}"


def _fault(data: Mapping[str, Any], key: str) -> str:
    """Return why a line of output holds no answer, or an empty text."""
    response, error = data.get("response"), data.get("error")
    response = response if isinstance(response, dict) else {}
    status, body = response.get("status_code"), response.get("body")
    if status == 200 and not error:
        try:
            completion_of(orjson.dumps(body), key)
        except InferenceError as fault:
            return str(fault)
        return ""
    words = message_of(orjson.dumps(error or body or ""))
    return f"the service answers {status or 'nothing'}" + (f" ({quote(words)})" if words else "")
