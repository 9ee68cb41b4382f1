"""Starts and watches the processes of a training on this machine: accelerate's launcher, without its tracebacks.

accelerate hands over to torchrun's agent. Two of its habits would cost a checkpoint: it kills its processes 30 seconds
after the first signal, and it ends with a traceback of its own under whatever the training said. Here signals are
passed on, the training takes the time that it needs to save, and its exit code is the result.
"""

import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import psutil

INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Ended:
    """How a training in several processes ended: the exit code, and which process failed first, if one did."""

    code: int
    process: int | None = None


def run(flags: Sequence[str]) -> Ended:
    """Run `accelerate launch` with these flags in this process, and return how the training ended."""
    # The signals that its agent takes: not those that are passed on below.
    os.environ["PET_SIGNALS_TO_HANDLE"] = "SIGQUIT"
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # The agent would log each signal and each exit code, beside what the user is told.
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    arguments = launch_command_parser().parse_args(list(flags))
    with _signals_passed_on():
        try:
            launch_command(arguments)
        except ChildFailedError as failed:
            process, failure = failed.get_first_failure()
            return Ended(_code(failure.exitcode), process)
        except SignalException:
            return Ended(INTERRUPTED)
    return Ended(0)


def _code(code: int) -> int:
    """Return the exit code of a training for that of a process: negative ones are signals."""
    if -code in (signal.SIGINT, signal.SIGTERM):
        return INTERRUPTED
    return code if code > 0 else 1


@contextmanager
def _signals_passed_on() -> Iterator[None]:
    """Pass SIGINT and SIGTERM on to the processes of the training: no Ctrl-C reaches them, in sessions of their own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in psutil.Process().children():
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
