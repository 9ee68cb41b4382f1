"""Request files: one call a line, in the form of OpenAI's batch service, below its limits."""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import orjson

from synth.core.errors import RunError
from synth.core.jsonl import sync_folder

# The limits of OpenAI's batch service for one file: 50,000 requests and 200 MB.
REQUESTS_PER_FILE = 50_000
BYTES_PER_FILE = 200_000_000

_URL = "/v1/chat/completions"
# A line of ours begins so; the key is read from there, which is far cheaper than parsing the prompt behind it.
_HEAD = b'{"custom_id":"'


class RequestWriter:
    """Writes requests to numbered files below the limits; they get their names when all are written."""

    def __init__(self, folder: Path, requests_per_file: int, bytes_per_file: int) -> None:
        self.requests = 0
        self._folder, self._most, self._most_bytes = folder, requests_per_file, bytes_per_file
        self._written: set[bytes] = set()
        self._files: list[Path] = []
        self._file: IO[bytes] | None = None
        self._in_file = self._bytes = 0

    def __enter__(self) -> "RequestWriter":
        shutil.rmtree(self._folder, ignore_errors=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def write(self, key: str, body: Mapping[str, Any]) -> None:
        """Write a request, once for each key."""
        if slot(key) in self._written:
            return
        self._written.add(slot(key))
        row = {"custom_id": key, "method": "POST", "url": _URL, "body": body}
        line = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)
        if len(line) > self._most_bytes:
            raise RunError(
                f"one request has {len(line)} bytes, and a file takes {self._most_bytes}",
                fix="make the passages smaller",
            )
        try:
            if self._file is None or self._in_file == self._most or self._bytes + len(line) > self._most_bytes:
                self._next()
            assert self._file is not None
            self._file.write(line)
        except OSError as error:
            raise self._unwritable(error) from error
        self._in_file += 1
        self._bytes += len(line)
        self.requests += 1

    def finish(self, folder: Path) -> tuple[Path, ...]:
        """Name the files and put their folder in its place, whole."""
        try:
            self._close()
            names = [f"requests-{i:05d}-of-{len(self._files):05d}.jsonl" for i in range(1, len(self._files) + 1)]
            for path, name in zip(self._files, names, strict=True):
                path.rename(self._folder / name)
            sync_folder(self._folder)
            self._folder.rename(folder)
            sync_folder(folder.parent)
        except OSError as error:
            raise self._unwritable(error) from error
        return tuple(folder / name for name in names)

    def _next(self) -> None:
        self._close()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._files.append(self._folder / f"{len(self._files) + 1}.part")
        self._file = self._files[-1].open("wb")
        self._in_file = self._bytes = 0

    def _close(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def _unwritable(self, error: OSError) -> RunError:
        return RunError(
            f"the requests cannot be written ({error.strerror or error})",
            where=str(self._folder.parent),
            fix="free some disk space or mend the permissions, then export again",
        )


def keys_of(path: Path) -> Iterator[str]:
    """Yield the keys of a request file."""
    with path.open("rb") as file:
        for line in file:
            if line.startswith(_HEAD):
                yield line[len(_HEAD) : line.index(b'"', len(_HEAD))].decode()


def slot(key: str) -> bytes:
    """Return 16 bytes that stand for a key: requests are many."""
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


def copy_round(files: Sequence[Path], folder: Path) -> None:
    """Copy the files of a round.

    Raises:
        RunError: the copy cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in files:
            shutil.copyfile(path, folder / path.name)
    except OSError as error:
        raise RunError(
            f"the copy cannot be written ({error.strerror or error})",
            where=str(folder),
            fix=f"the files are in {files[0].parent}",
        ) from error
