"""Scored lines on their way from the first pass to the second, in a file that no reader takes for a result."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from synth.core.errors import RunError


class Spool:
    """A temporary file of lines; use it as a context manager.

    A kill leaves the file behind; the run's lock removes what ends in `.part` when it is next taken.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        """Make the file.

        Raises:
            RunError: the folder cannot be written.
        """
        with self._full_disk():
            self._file = self._path.open("w+b")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Remove the file."""
        with contextlib.suppress(OSError):
            if self._file is not None:
                self._file.close()
            self._path.unlink(missing_ok=True)

    def add(self, lines: Iterable[bytes]) -> None:
        """Append lines, their ends included.

        Raises:
            RunError: the disk is full.
        """
        assert self._file is not None
        with self._full_disk():
            self._file.writelines(lines)

    def lines(self) -> Iterator[bytes]:
        """Yield all lines from the first on.

        Raises:
            RunError: the disk is full, or the file cannot be read.
        """
        assert self._file is not None
        with self._full_disk():
            self._file.flush()
            self._file.seek(0)
            yield from self._file

    @contextlib.contextmanager
    def _full_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(
                f"the scored records cannot be kept ({error.strerror or error})",
                where=str(self._path),
                fix="free as much disk space as records.jsonl takes, then run the same command again",
            ) from error
