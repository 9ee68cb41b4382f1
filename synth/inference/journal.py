"""The journal: every answered call, appended once and on disk before anyone sees the answer.

A folder of JSONL segments, one per process that wrote: `{"key", "request", "response"}` a line. Segments
of earlier processes are only read. What a kill or a power cut can do is tear the last line of the segment
being written; that call was never acknowledged and is simply made again.
"""

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import orjson

from synth.core.calls import ChatRequest, Completion, Usage
from synth.core.errors import RunError
from synth.core.jsonl import MAX_LINE_BYTES, sync_folder

_OPEN_SEGMENTS = 64
_KEY_BYTES = 256


@dataclass(slots=True)
class _Asking:
    """A call in flight and how many wait for it."""

    task: asyncio.Task[Completion]
    waiters: int = 0


class Journal:
    """Answers by content key, in memory only as places in files; use it as an async context manager.

    One process writes a journal at a time (the run's lock sees to that). Lines are written and synced in
    groups: all that arrive during one fsync share the next.

    Args:
        folder: the run's `journal/`; made where it is not there.

    Attributes:
        damaged: the places (`000001.jsonl:12`) of lines that could not be read; their calls are made again.
            A torn last line is what a killed process leaves: it is cut off and does not count.
        tokens: prompt and completion tokens of all calls that were answered before this process.
    """

    def __init__(self, folder: Path) -> None:
        self.damaged: list[str] = []
        self.tokens = (0, 0)
        self._folder = folder
        self._segments: list[Path] = []
        # 16 bytes for the key and one integer for segment and offset keep 10^6 calls under 150 MB.
        self._places: dict[bytes, int] = {}
        self._readers: dict[int, IO[bytes]] = {}
        self._writer: IO[bytes] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._waiting: dict[bytes, tuple[bytes, asyncio.Future[None]]] = {}
        self._writing: dict[bytes, asyncio.Future[None]] = {}
        self._flusher: asyncio.Task[None] | None = None
        self._failure: RunError | None = None
        self._asking: dict[str, _Asking] = {}

    async def __aenter__(self) -> Self:
        """Read the segments that are there.

        Raises:
            RunError: the folder or a segment cannot be read.
        """
        await asyncio.get_running_loop().run_in_executor(self._thread, self._load)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancel the calls still in flight, write what has been answered, and close the files."""
        asking = [entry.task for entry in self._asking.values()]
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        if self._flusher is not None:
            await self._flusher
        self._thread.shutdown()
        for file in (*self._readers.values(), *([self._writer] if self._writer else [])):
            file.close()

    def __len__(self) -> int:
        """Return how many calls are answered."""
        return len(self._places)

    def asks(self, key: str) -> bool:
        """Whether a call under this key is in flight."""
        return key in self._asking

    def get(self, key: str) -> Completion | None:
        """Return the answer of a call, or None where there is none.

        Raises:
            RunError: the segment that held it cannot be read any more.
        """
        place = self._places.get(_slot(key))
        if place is None:
            return None
        number, offset = place >> 48, place & (1 << 48) - 1
        try:
            file = self._reader(number)
            file.seek(offset)
            entry = orjson.loads(file.readline())
            return Completion.from_json(entry["response"], key)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"the journal changed while it was in use ({error})",
                where=str(self._segments[number]),
                fix="run the same command again; a damaged line is skipped then",
            ) from error

    async def append(self, key: str, request: ChatRequest, completion: Completion) -> None:
        """Return once the line is on disk. Of two appends under one key the first wins.

        Raises:
            RunError: it cannot be written (a full disk, say); so says every later append.
        """
        if self._failure is not None:
            raise self._failure
        slot = _slot(key)
        if slot in self._places:
            return
        if slot in self._waiting or slot in self._writing:
            written = self._writing[slot] if slot in self._writing else self._waiting[slot][1]
        else:
            written = asyncio.get_running_loop().create_future()
            self._waiting[slot] = (_line(key, request, completion), written)
            if self._flusher is None or self._flusher.done():
                self._flusher = asyncio.create_task(self._flush())
        # A waiter that is cancelled must not take the line away from the others.
        await asyncio.shield(written)

    async def answer(
        self,
        key: str,
        request: ChatRequest,
        ask: Callable[[ChatRequest], Awaitable[Completion]],
        ended: Callable[[], None] = lambda: None,
    ) -> Completion:
        """Return the journaled answer, or `ask` for it and journal that.

        However many ask for one key at the same time, one call is made. It is cancelled when the last of
        them is; an error of `ask` reaches all of them and nothing is journaled. `ended` is called when the call
        that `ask` made is over: its answer is on disk, or there is none.

        Raises:
            InferenceError: what `ask` raised.
            RunError: the answer cannot be written.
        """
        known = self.get(key)
        if known is not None:
            return known
        entry = self._asking.get(key)
        if entry is None:
            entry = _Asking(asyncio.create_task(self._ask(key, request, ask, ended)))
            self._asking[key] = entry
        entry.waiters += 1
        try:
            return await asyncio.shield(entry.task)
        finally:
            entry.waiters -= 1
            if entry.waiters == 0:
                self._asking.pop(key, None)
                entry.task.cancel()

    async def _ask(
        self,
        key: str,
        request: ChatRequest,
        ask: Callable[[ChatRequest], Awaitable[Completion]],
        ended: Callable[[], None],
    ) -> Completion:
        try:
            given = await ask(request)
            completion = replace(given, key=key)
            await self.append(key, request, completion)
            return completion
        finally:
            ended()

    async def _flush(self) -> None:
        """Write what waits, group after group, until nothing does."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            group, self._waiting = self._waiting, {}
            self._writing = {slot: written for slot, (_, written) in group.items()}
            try:
                if self._failure is not None:
                    raise self._failure
                places = await loop.run_in_executor(self._thread, self._write, [line for line, _ in group.values()])
            except (OSError, RunError) as error:
                self._failure = self._failure or self._cannot_write(error)
                for written in self._writing.values():
                    written.set_exception(self._failure)
                    written.exception()  # a waiter may be gone; the failure is kept for the others
            else:
                self._places.update(zip(group, places, strict=True))
                for written in self._writing.values():
                    written.set_result(None)
            self._writing = {}

    def _write(self, lines: list[bytes]) -> list[int]:
        """Append and sync lines, in the journal's thread; return their places."""
        if self._writer is None:
            last = int(self._segments[-1].stem) if self._segments else 0
            path = self._folder / f"{last + 1:06d}.jsonl"
            self._writer = path.open("xb", buffering=0)
            sync_folder(self._folder)
            self._segments.append(path)
        number, offset = len(self._segments) - 1, self._writer.tell()
        places = []
        for line in lines:
            places.append(number << 48 | offset)
            offset += len(line)
        data = memoryview(b"".join(lines))
        while data:
            data = data[self._writer.write(data) :]
        os.fsync(self._writer.fileno())
        return places

    def _cannot_write(self, error: Exception) -> RunError:
        reason = error.strerror if isinstance(error, OSError) else error
        failure = RunError(
            f"the journal cannot be written ({reason})",
            where=str(self._folder),
            fix="free some disk space or mend the permissions, then run the same command again: "
            "answered calls are not repeated",
        )
        failure.__cause__ = error
        return failure

    def _load(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            found = [p for p in self._folder.glob("*.jsonl") if p.stem.isdecimal()]
            self._segments = sorted(found, key=lambda p: int(p.stem))
            prompt = completion = 0
            for number, path in enumerate(self._segments):
                for row, (offset, line) in enumerate(_whole_lines(path), 1):
                    read = _read_line(line)
                    if read is None:
                        self.damaged.append(f"{path.name}:{row}")
                        continue
                    slot, usage = read
                    if slot not in self._places:
                        self._places[slot] = number << 48 | offset
                        prompt += usage.prompt_tokens
                        completion += usage.completion_tokens
            self.tokens = (prompt, completion)
        except OSError as error:
            raise RunError(
                f"the journal cannot be read ({error.strerror})",
                where=str(self._folder),
                fix="mend the permissions, then run the same command again",
            ) from error

    def _reader(self, number: int) -> IO[bytes]:
        if number not in self._readers:
            if len(self._readers) >= _OPEN_SEGMENTS:
                for file in self._readers.values():
                    file.close()
                self._readers.clear()
            self._readers[number] = self._segments[number].open("rb")
        return self._readers[number]


def read_calls(folder: Path, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the journal's entries (`{"key", "request", "response"}`) under `keys`, as far as they are there.

    It reads all of the journal and keeps nothing else of it. Damaged lines are passed over.

    Raises:
        RunError: a segment cannot be read.
    """
    wanted = {key.encode() for key in keys if key}
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.jsonl")) if wanted else ():
        try:
            with path.open("rb") as file:
                for line in file:
                    if len(found) == len(wanted):
                        return found
                    # A key is the first thing of its line, so few lines are parsed.
                    if any(key in line[:_KEY_BYTES] for key in wanted):
                        # Torn, or no entry of a journal at all.
                        with contextlib.suppress(orjson.JSONDecodeError, TypeError, KeyError, AttributeError):
                            entry = orjson.loads(line)
                            if entry["key"].encode() in wanted:
                                found.setdefault(entry["key"], entry)
        except OSError as error:
            raise RunError(f"the journal cannot be read ({error.strerror})", where=str(path)) from error
    return found


def _slot(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


def _line(key: str, request: ChatRequest, completion: Completion) -> bytes:
    sampling = request.sampling
    entry = {
        "key": key,
        "request": {
            "messages": [m.to_json() for m in request.messages],
            "sampling": {
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "max_tokens": sampling.max_tokens,
                "seed": sampling.seed,
                **({"logprobs": True} if sampling.logprobs else {}),
            },
            "schema": request.schema,
            "index": request.index,
        },
        "response": completion.to_json(),
    }
    return orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)


def _whole_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the offset and the bytes of each line that has its end; an overlong one as no bytes.

    A last line without its end was never acknowledged: it is cut off the file.
    """
    with path.open("rb") as file:
        offset = 0
        while line := file.readline(MAX_LINE_BYTES):
            length, whole = len(line), line
            while not line.endswith(b"\n"):
                line = file.readline(MAX_LINE_BYTES)
                if not line:
                    os.truncate(path, offset)
                    return
                length, whole = length + len(line), b""
            yield offset, whole
            offset += length


def _read_line(line: bytes) -> tuple[bytes, Usage] | None:
    """Return the slot and the tokens of a line that `get` can read, or None for a damaged one."""
    try:
        entry: Any = orjson.loads(line)
        key, response = entry["key"], Completion.from_json(entry["response"], "")
        usage = response.usage
        texts = (key, response.text, response.finish_reason)
        counts = (usage.prompt_tokens, usage.completion_tokens)
        good = all(isinstance(t, str) for t in texts) and all(isinstance(c, int) for c in counts)
    except (ValueError, KeyError, TypeError):
        return None
    return (_slot(key), usage) if good else None
