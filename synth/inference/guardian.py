"""Runs one server and takes it down with everything it started, however the process that asked for it ends.

    python -I guardian.py SERVER_COMMAND…

The asking process holds the other end of standard input. When a byte comes or that pipe closes (it asked,
it exited, it was killed with SIGKILL), or when this process gets SIGTERM, the server gets SIGINT, then SIGTERM, then
its whole process group SIGKILL. When the server ends by itself, so does this process, with its exit code
(128 + the signal's number where a signal ended it). Only the standard library is used, and no package
is imported, so that the watch costs a few megabytes.

A pipe, not PR_SET_PDEATHSIG alone: that signal follows the thread which started a process and reaches
its direct child only, and vLLM's engine is a grandchild. It stands here as a second line, for the case
that somebody kills this process.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading

PATIENCE = {signal.SIGINT: 10.0, signal.SIGTERM: 5.0}
"""Seconds that the server gets after each signal before the next, harder one."""

_PR_SET_PDEATHSIG = 1


def main(command: list[str]) -> int:
    """Run the server until it ends or is to be stopped; return its exit code."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job has it ignored, and so had the server
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=_die_with_guardian if sys.platform == "linux" else None,  # safe: one thread so far
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # only now: the server would inherit it
    threading.Thread(target=_wait_for_word, args=(stop,), daemon=True).start()
    while not stop.is_set() and server.poll() is None:
        stop.wait(0.2)
    if server.poll() is None:
        _stop(server)
    _kill_group(server.pid)
    code = server.wait()
    return code if code >= 0 else 128 - code


def _die_with_guardian() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait_for_word(stop: threading.Event) -> None:
    os.read(0, 1)
    stop.set()


def _stop(server: "subprocess.Popen[bytes]") -> None:
    for number, patience in PATIENCE.items():
        server.send_signal(number)
        try:
            server.wait(patience)
        except subprocess.TimeoutExpired:
            continue
        return


def _kill_group(group: int) -> None:
    """Kill what is left of the server: the engine's processes outlive a server that was killed."""
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
