"""Streaming JSONL with line numbers in its errors, and writes that are whole or absent.

A file is written beside its place, synced, and renamed over it, so a reader (or the next run after a
crash or a full disk) sees the old file or the new one, never a part. The cost is one fsync of the file
and one of its folder a write; append-only data that cannot pay this belongs in the journal.
"""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson

from synth.core.errors import RecordError, RunError

MAX_LINE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class FileDigest:
    """What a file held when it was written: SHA-256 of its bytes and its number of rows."""

    sha256: str
    rows: int

    def to_json(self) -> dict[str, Any]:
        """Return the entry that stands in the manifest."""
        return {"sha256": self.sha256, "rows": self.rows}


def read_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield `(line number, parsed value)` for each line that is not blank; lines count from 1.

    Raises:
        RecordError: a line is not JSON or longer than 64 MiB; the error names the file and the line.
        RunError: the file is not there or cannot be read.
    """
    for number, line in _raw_lines(path):
        yield number, parse_line(line, where=f"{path}:{number}")


def parse_line(line: bytes, *, where: str) -> Any:  # noqa: ANN401  (any JSON)
    """Return the value of one line.

    Raises:
        RecordError: it is not JSON.
    """
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise RecordError(f"not valid JSON ({error})", where=where, fix="mend or remove the line") from error


def read_blocks(path: Path, size: int) -> Iterator[list[tuple[int, bytes]]]:
    """Yield `(line number, line)` for the lines that are not blank, unparsed, in blocks of about `size` bytes.

    Raises:
        RecordError: a line is longer than 64 MiB.
        RunError: the file is not there or cannot be read.
    """
    block: list[tuple[int, bytes]] = []
    held = 0
    for number, line in _raw_lines(path):
        block.append((number, line))
        held += len(line)
        if held >= size:
            yield block
            block, held = [], 0
    if block:
        yield block


def _raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise RecordError(
                        f"the line is longer than {MAX_LINE_BYTES >> 20} MiB",
                        where=f"{path}:{number}",
                        fix="split the record or remove the line",
                    )
                if not line.isspace():
                    yield number, line
    except OSError as error:
        raise RunError(f"cannot be read ({error.strerror})", where=str(path)) from error


@contextlib.contextmanager
def atomic_writer(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes the place of `path` when the block ends without an error.

    Raises:
        RunError: the disk is full, the folder cannot be written; `path` is as it was.
    """
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
        temporary = ""
        sync_folder(path.parent)
    except OSError as error:
        raise RunError(
            f"cannot be written ({error.strerror or error})",
            where=str(path),
            fix="free some disk space or mend the permissions, then run the same command again",
        ) from error
    finally:
        if temporary:
            with contextlib.suppress(OSError):
                Path(temporary).unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames and new files in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_jsonl(path: Path, rows: Iterable[Any]) -> FileDigest:
    """Write `rows` as JSONL, whole or not at all, and return the file's digest.

    Keys keep their order, so equal rows give equal bytes.
    """
    with line_writer(path) as writer:
        for row in rows:
            writer.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
    return writer.digest


class LineWriter:
    """Writes the lines of a JSONL file and keeps count of them."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._sha256, self._rows = file, hashlib.sha256(), 0

    def write(self, line: bytes) -> None:
        """Write one line, its end included."""
        self._sha256.update(line)
        self._file.write(line)
        self._rows += 1

    @property
    def digest(self) -> FileDigest:
        """The digest of what was written so far."""
        return FileDigest(self._sha256.hexdigest(), self._rows)


@contextlib.contextmanager
def line_writer(path: Path) -> Iterator[LineWriter]:
    """Open a JSONL file that takes the place of `path` when the block ends without an error; see `atomic_writer`."""
    with atomic_writer(path) as file:
        yield LineWriter(file)


def write_json(path: Path, value: object) -> None:
    """Write one JSON value, indented for people, whole or not at all."""
    with atomic_writer(path) as file:
        file.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with atomic_writer(path) as file:
        file.write(text.encode())


def digest_file(path: Path) -> FileDigest:
    """Return SHA-256 and the number of non-blank lines of a file."""
    digest, rows = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            for line in file:
                digest.update(line)
                rows += bool(line.strip())
    except OSError as error:
        raise RunError(f"cannot be read ({error.strerror})", where=str(path)) from error
    return FileDigest(digest.hexdigest(), rows)
