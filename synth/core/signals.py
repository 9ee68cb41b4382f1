"""What Ctrl-C and SIGTERM do to a stage: the first drains what is in flight, the second drops it."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from synth.core.errors import Interrupted


@contextmanager
def signals_as_usual() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM raise KeyboardInterrupt while the block runs, whatever `stop_on_signals` made of them.

    So a block that is told to end by a cluster's scheduler removes its temporary files as one that a person stops.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    terminate = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, terminate)


@contextmanager
def stop_on_signals(say: Callable[[str], None]) -> Iterator[asyncio.Event]:
    """Give an event that the first Ctrl-C or SIGTERM sets; the second drops what is in flight.

    Outside the main thread, which alone gets signals, nothing sets it.

    Raises:
        Interrupted: after the second.
    """
    stop = asyncio.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    dropped = False
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None

    def interrupt() -> None:
        nonlocal dropped
        if stop.is_set():
            dropped = True
            task.cancel()
            return
        stop.set()
        say("Finishing the calls in flight; press Ctrl-C again to drop them.")

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    try:
        yield stop
    except asyncio.CancelledError:
        if not dropped:
            raise
        task.uncancel()
        raise Interrupted(
            "stopped; the calls in flight were dropped",
            fix="run the same command again: answered calls come from the journal",
        ) from None
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
