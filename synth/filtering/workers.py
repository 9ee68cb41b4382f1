"""Worker processes for the part of the filter that looks at one record alone.

Each is a Python of its own (`python -m synth.filtering.worker`) and takes pickled work over its pipes from its
parent alone. `multiprocessing` would import the user's main module again in each of them, and would leave them
behind where the parent is killed; these end with their pipe.
"""

import contextlib
import os
import pickle
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from synth.core.errors import RunError, SynthError

_SIZE = 8


class Workers:
    """Does `work` on many items in `count` processes; use it as a context manager.

    Args:
        prepare: called once in each process with `argument`; what it returns is the first argument of `work`.
        argument: what the processes need to know; it is pickled.
        work: a function of a module, called with what `prepare` made and an item.
        count: how many processes.
    """

    def __init__(
        self, prepare: Callable[[Any], Any], argument: object, work: Callable[[Any, Any], Any], *, count: int
    ) -> None:
        self._greeting = pickle.dumps((prepare, argument, work))
        self._count = count
        self._free: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        self._all: list[_Process] = []
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="filter")

    def __enter__(self) -> Self:
        """Start the processes; they get ready while the first items are read.

        Raises:
            RunError: the system does not let them start.
        """
        try:
            for _ in range(self._count):
                process = _Process(self._greeting)
                self._all.append(process)
                self._free.put(process)
        except OSError as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise RunError(
                f"{self._count} processes cannot be started ({error.strerror or error})",
                where=sys.executable,
                fix="use --processes with a smaller number, such as 1",
            ) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the processes, whatever they are doing."""
        for process in self._all:
            process.end()
        self._threads.shutdown(cancel_futures=True)

    def map(self, items: Iterable[Any]) -> Iterator[Any]:
        """Yield the results in the order of `items`, of which only a few are read ahead.

        Raises:
            SynthError: what the work raised.
            RunError: a process died.
        """
        ahead: deque[Future[Any]] = deque()
        for item in items:
            ahead.append(self._threads.submit(self._ask, item))
            if len(ahead) > 2 * self._count:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    def _ask(self, item: object) -> object:
        process = self._free.get()
        try:
            return process.ask(item)
        finally:
            self._free.put(process)


class _Process:
    def __init__(self, greeting: bytes) -> None:
        self._greeting = greeting
        # The modules that the parent can import the child has to find too: a user's scorer is one of them.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}  # noqa: PTH109
        self._child = subprocess.Popen(
            # -P: what lies in the current folder is imported by its parent's leave alone, and shadows nothing.
            [sys.executable, "-P", "-m", "synth.filtering.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )

    def ask(self, item: object) -> object:
        assert self._child.stdin is not None and self._child.stdout is not None
        try:
            if self._greeting:
                send(self._child.stdin, self._greeting)
                self._greeting = b""
            send(self._child.stdin, pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL))
            good, result = pickle.loads(receive(self._child.stdout))
        except (OSError, EOFError, ValueError) as error:
            raise RunError(
                f"a process of the filter ended by itself (exit code {self._child.wait()})",
                fix="run the same command again; if it ran out of memory, use --processes 1",
            ) from error
        if not good:
            assert isinstance(result, SynthError)
            raise result
        return result

    def end(self) -> None:
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what was not sent yet
                    pipe.close()


def send(pipe: Any, data: bytes) -> None:  # noqa: ANN401  (a raw or a buffered binary stream)
    """Write a message with its size in front.

    Raises:
        OSError: the other side is gone.
    """
    pipe.write(len(data).to_bytes(_SIZE))
    pipe.write(data)
    pipe.flush()


def receive(pipe: Any) -> bytes:  # noqa: ANN401  (a buffered binary stream)
    """Read a message.

    Raises:
        EOFError: the other side is gone.
    """
    head = pipe.read(_SIZE)
    if len(head) < _SIZE:
        raise EOFError
    size = int.from_bytes(head)
    data: bytes = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return data
