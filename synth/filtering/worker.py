"""python -m synth.filtering.worker: one worker process; see `workers.py`, which starts it and talks to it alone."""

import gc
import os
import pickle
import signal
import sys
from collections.abc import Callable

from synth.core.errors import RunError, SynthError
from synth.filtering.workers import receive, send


def main() -> None:
    """Get ready, then answer item after item until the parent is gone."""
    # Ctrl-C reaches the whole group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # What a user's scorer prints must not end up between the replies.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # Nothing that scoring makes refers to itself, and looking for what does took a tenth of the time.
    gc.disable()
    prepared, failure = None, None
    try:
        prepare, argument, work = pickle.loads(receive(requests))
        try:
            prepared = prepare(argument)
        except SynthError as error:
            failure = error
        while True:
            item = pickle.loads(receive(requests))
            send(replies, _reply(work, prepared, item, failure))
    except (EOFError, BrokenPipeError):
        # Nothing is left to do, and nobody to tell.
        os._exit(0)


def _reply(
    work: Callable[[object, object], object], prepared: object, item: object, failure: SynthError | None
) -> bytes:
    try:
        if failure is not None:
            raise failure
        return pickle.dumps((True, work(prepared, item)), protocol=pickle.HIGHEST_PROTOCOL)
    except SynthError as error:
        return pickle.dumps((False, error))
    except Exception as error:  # of a user's scorer, or a fault of ours: the parent says it
        return pickle.dumps((False, RunError(f"the filter failed ({type(error).__name__}: {error})")))


if __name__ == "__main__":
    main()
