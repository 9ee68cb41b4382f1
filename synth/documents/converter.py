"""The parent's side of parsing: one child process, kept from file to file, killed when it takes too long.

Requests and replies are JSON lines over pipes. A file that kills its parser, or hangs it, costs itself and a new child.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import orjson

from synth.core.errors import DocumentError
from synth.documents.limits import Limits

_READ_BYTES = 1024 * 1024
# To start the process and load a parser; a slow disk is not the file's fault, so the file's own time begins after it.
_LOAD_SECONDS = 120.0


class Converter:
    """Parses files in a process of their own, under `limits`. Close it, or use it in a `with` block."""

    def __init__(self, limits: Limits, *, network: bool = False) -> None:
        self._limits, self._network = limits, network
        self._child: subprocess.Popen[bytes] | None = None
        self._unread = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def convert(self, path: str, kind: str, **more: str | None) -> Iterator[dict[str, Any]]:
        """Yield the replies about one file (see `worker.py`): its documents.

        Raises:
            DocumentError: the file cannot be parsed, or not within the limits.
        """
        request = {
            "path": path,
            "kind": kind,
            "memory_bytes": self._limits.memory_bytes,
            "seconds": self._limits.seconds,
            "max_text_bytes": self._limits.max_text_bytes,
            "part_chars": self._limits.part_chars,
            **more,
        }
        finished = False
        try:
            # ASCII alone: the name of a file need not be UTF-8, and its odd bytes travel as escapes.
            self._send(json.dumps(request, ensure_ascii=True).encode() + b"\n")
            seconds = _LOAD_SECONDS
            while True:
                reply = self._receive(seconds)
                seconds = self._limits.seconds
                if "ready" in reply:
                    continue
                if "failed" in reply or "done" in reply:
                    finished = not reply.get("retire")
                    if "failed" in reply:
                        raise DocumentError(reply["failed"])
                    return
                yield reply
        finally:
            if not finished:
                self.close()

    def close(self) -> None:
        """End the child. A later `convert` starts another."""
        child, self._child = self._child, None
        self._unread.clear()
        if child is None:
            return
        with contextlib.suppress(OSError):
            child.kill()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        child.wait()

    def _send(self, line: bytes) -> None:
        for attempt in (1, 2):
            child = self._running()
            assert child.stdin is not None
            try:
                child.stdin.write(line)
                child.stdin.flush()
                return
            except OSError:  # it died between two files
                self.close()
                if attempt == 2:
                    raise DocumentError(
                        "the parser's process does not start; see whether `python` still runs"
                    ) from None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            # Wherever this process finds its modules, the child does; where it stands does not matter.
            environment = {
                **os.environ,
                "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path),  # noqa: PTH100
                # Each arena maps 64 MiB at once, which would count against the limit of memory.
                "MALLOC_ARENA_MAX": "2",
                "TOKENIZERS_PARALLELISM": "false",
            }
            command = [sys.executable, "-P", "-m", "synth.documents.worker", *(["--network"] if self._network else [])]
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                # Ctrl-C is for the parent, which may want to finish; the child ends when its stdin does.
                start_new_session=True,
                cwd="/" if os.name == "posix" else None,
            )
        return self._child

    def _receive(self, seconds: float) -> dict[str, Any]:
        assert self._child is not None and self._child.stdout is not None
        descriptor = self._child.stdout.fileno()
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(descriptor, select.POLLIN | select.POLLHUP)
        searched = 0
        while (end := self._unread.find(b"\n", searched)) < 0:
            searched = len(self._unread)
            if searched > 8 * self._limits.part_chars + 65_536:
                raise DocumentError("the parser gave more than was asked for")
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise DocumentError(f"parsing took longer than {seconds:g} seconds")
            data = os.read(descriptor, _READ_BYTES)
            if not data:
                raise DocumentError(self._last_words())
            self._unread += data
        line = bytes(self._unread[:end])
        del self._unread[: end + 1]
        reply: dict[str, Any] = orjson.loads(line)
        return reply

    def _last_words(self) -> str:
        assert self._child is not None
        code = self._child.wait()
        memory = f"it had {self._limits.memory_bytes >> 20:,} MiB of memory to work with"
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"the parser ended on {signal.Signals(-code).name}; {memory}"
        return f"the parser ended with exit code {code}; {memory}"
