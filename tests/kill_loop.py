"""A job on a scripted server, killed with SIGKILL at random moments until it ends by itself, again and again.

Each attempt is a forked child. After every job the files are compared with those of a run that nobody killed, and the
calls with what can have been in flight.
"""

import asyncio
import multiprocessing
import os
import random
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Generic, TypeVar

from tests.stub_endpoint import Reply, stub_endpoint

T = TypeVar("T")
Job = Callable[[Path, str], Coroutine[Any, Any, None]]
"""What is killed: given its folder and the server's URL."""


@dataclass(frozen=True, slots=True)
class Killed(Generic[T]):
    """What came of it; `most_kills` is how often one job was killed, `expected` what each job left behind."""

    kills: int
    jobs: int
    calls: int
    repeated: int
    most_kills: int
    expected: T

    def counts(self) -> dict[str, int]:
        """Return the counts."""
        return {name: value for name, value in asdict(self).items() if name != "expected"}


def kill_again_and_again(job: Job, reply: Reply, contents: Callable[[Path], T], in_flight: int) -> Killed[T]:
    """Kill jobs as the command line says: FOLDER KILLS SEED.

    Args:
        job: does all of it, or the rest.
        reply: the server's replies.
        contents: what a job leaves in its folder.
        in_flight: how many calls run at once, and so may be repeated after a kill.
    """
    folder, wanted, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    rng = random.Random(seed)
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there, reply), daemon=True)
    server.start()
    url = here.recv()

    def asked() -> int:
        here.send(True)
        return int(here.recv())

    urllib.request.urlopen(f"{url}/models", timeout=10).close()
    began = time.monotonic()
    assert not attempt(job, folder / "whole", url, 600)
    whole = time.monotonic() - began
    expected = contents(folder / "whole")
    needed = asked()
    kills, jobs, repeated, most = 0, 0, 0, 0
    while kills < wanted:
        before, own, run = asked(), 0, folder / f"run{jobs}"
        while attempt(job, run, url, rng.uniform(0, whole)):
            own += 1
        extra = asked() - before - needed
        assert extra <= own * in_flight, f"{extra} calls repeated after {own} kills"
        assert contents(run) == expected, f"{run} differs after {own} kills"
        kills, jobs, repeated, most = kills + own, jobs + 1, repeated + extra, max(most, own)
    here.send(False)
    return Killed(kills, jobs, needed, repeated, most, expected)


def serve(pipe: Connection, reply: Reply) -> None:
    """Run the stub until the parent is gone; say how often it was asked whenever the parent wants to know."""
    with stub_endpoint(reply, delay=0.004) as stub:
        pipe.send(stub.url)
        while pipe.recv():
            pipe.send(len(stub.bodies))


def attempt(job: Job, folder: Path, url: str, patience: float) -> bool:
    """Do the job in a child; return whether it was killed."""
    folder.mkdir(exist_ok=True, parents=True)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            asyncio.run(job(folder, url))
            code = 0
        finally:
            os._exit(code)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            if status:
                raise RuntimeError(f"an attempt ended with status {status}")
            return False
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)
