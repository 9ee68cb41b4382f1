"""`python -m tests.killing_judging FOLDER KILLS SEED`: a model judges records on a scripted server and is killed.

As tests/killing.py does for the generate stage: each attempt is a forked child, killed with SIGKILL after a random
time, until one ends by itself; its results are compared with those of an attempt that nobody killed, and the calls
with what can have been in flight. Prints one JSON object for tests/test_judging.py.
"""

import asyncio
import json
import multiprocessing
import os
import random
import re
import signal
import sys
import time
import urllib.request
from multiprocessing.connection import Connection
from pathlib import Path

from synth import Passage, Record
from synth.filtering.judging import judge_records
from synth.filters.model_scorers import model_scorers
from synth.inference.client import Client
from synth.inference.journal import Journal
from tests.scripted_replies import smallest
from tests.stub_endpoint import stub_endpoint

IN_FLIGHT = 8
RECORDS = 40


def serve(pipe: Connection) -> None:
    """Run the stub until the parent is gone; say how often it was asked whenever the parent wants to know."""

    def reply(body: dict[str, object]) -> str:
        # A reply that depends on the request alone; about every fifth record the judge never says a thing of use.
        number = int(re.search(r"What of (\d+)", json.dumps(body["messages"])).group(1))  # type: ignore[union-attr]
        schema = body["response_format"]["json_schema"]["schema"]  # type: ignore[index]
        if number % 5 == 0 and "reason" in schema["properties"]:
            return "no JSON at all"
        value = smallest(schema, "reply")
        return json.dumps({k: 1 + body["seed"] % 5 if type(v) is int else v for k, v in value.items()})  # type: ignore[operator]

    with stub_endpoint(reply, delay=0.004) as stub:
        pipe.send(stub.url)
        while pipe.recv():
            pipe.send(len(stub.bodies))


def records() -> list[Record]:
    """Return the records, four to a passage."""
    made = []
    for i in range(RECORDS):
        text = f"Part {i // 4} of the pump weighs {i // 4} grams."
        made.append(
            Record.create(Passage("pump.md", text, 0, len(text)), f"What of {i}?", f"{i // 4} grams", generator="qa")
        )
    return made


async def job(folder: Path, url: str) -> None:
    """Judge the records, and write the results when all are there."""
    lines = []
    async with Client(url, "stub", max_in_flight=IN_FLIGHT) as client, Journal(folder / "journal") as journal:
        scorers = model_scorers(["round_trip", "judge"], votes=3)
        judging = judge_records(enumerate(records()), scorers, client, journal, max_in_flight=IN_FLIGHT)
        async for judged in judging:
            assert not judged.left
            lines.append(repr(judged))
    (folder / "results.txt").write_text("\n".join(lines))


def attempt(folder: Path, url: str, patience: float) -> bool:
    """Judge in a child; return whether it was killed."""
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


def main() -> None:
    """Kill, resume, compare."""
    folder, wanted, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    rng = random.Random(seed)
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    server.start()
    url = here.recv()

    def asked() -> int:
        here.send(True)
        return int(here.recv())

    urllib.request.urlopen(f"{url}/models", timeout=10).close()
    began = time.monotonic()
    assert not attempt(folder / "whole", url, 600)
    whole = time.monotonic() - began
    expected = (folder / "whole" / "results.txt").read_text()
    needed = asked()
    kills, jobs, repeated = 0, 0, 0
    while kills < wanted:
        before, own, run = asked(), 0, folder / f"run{jobs}"
        while attempt(run, url, rng.uniform(0, whole)):
            own += 1
        extra = asked() - before - needed
        assert extra <= own * IN_FLIGHT, f"{extra} calls repeated after {own} kills"
        assert (run / "results.txt").read_text() == expected, f"{run} differs after {own} kills"
        kills, jobs, repeated = kills + own, jobs + 1, repeated + extra
    here.send(False)
    failed = expected.count("Failure(")
    sys.stdout.write(
        json.dumps({"kills": kills, "jobs": jobs, "calls": needed, "repeated": repeated, "failed": failed}) + "\n"
    )


if __name__ == "__main__":
    main()
