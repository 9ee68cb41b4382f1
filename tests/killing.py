"""`python -m tests.killing FOLDER KILLS SEED`: a generate job on a scripted server, killed at random moments.

Each attempt is a forked child that runs the stage; the parent kills it with SIGKILL after a random time, again
and again until an attempt ends by itself. Then the files are compared with those of a run that nobody killed,
and a new job begins, until there were so many kills. Prints one JSON object for tests/test_survival.py.
"""

import asyncio
import json
import multiprocessing
import os
import random
import signal
import sys
import time
import urllib.request
from multiprocessing.connection import Connection
from pathlib import Path

from synth import GenerateConfig, Run, run_generate
from synth.inference.client import Client
from tests.stub_endpoint import stub_endpoint

IN_FLIGHT = 8
PASSAGES = 20
SENTENCES = 4
FILES = ("passages.jsonl", "records.jsonl", "quarantine.jsonl")


def serve(pipe: Connection) -> None:
    """Run the stub until the parent is gone; say how often it was asked whenever the parent wants to know."""

    def reply(body: dict[str, object]) -> str:
        # A reply that depends on the request alone; one in seven is of no use, twice.
        schema = body["response_format"]["json_schema"]["schema"]  # type: ignore[index]
        sentence = schema["properties"]["evidence"]["enum"][0]
        if sum(sentence.encode()) % 7 == 0:
            return "no JSON at all"
        return json.dumps(
            {"evidence": sentence, "question": f"What of {body['seed']}?", "answer": sentence.split()[-1]}
        )

    with stub_endpoint(reply, delay=0.004) as stub:
        pipe.send(stub.url)
        while pipe.recv():
            pipe.send(len(stub.bodies))


def documents(folder: Path) -> Path:
    """Write the documents."""
    folder.mkdir(parents=True)
    for i in range(PASSAGES):
        lines = [f"Part {i}-{j} of the pump weighs {i + j} grams." for j in range(SENTENCES)]
        (folder / f"d{i:02}.md").write_text(f"# Part {i}\n\n{' '.join(lines)}\n")
    return folder


async def job(run: Path, manuals: Path, url: str) -> None:
    """Run the stage once."""
    client = Client(url, "stub", max_in_flight=IN_FLIGHT)
    await run_generate(
        Run.create(run), [manuals], GenerateConfig(), client, teacher_name="stub", max_in_flight=IN_FLIGHT
    )


def attempt(run: Path, manuals: Path, url: str, patience: float) -> bool:
    """Run the stage in a child; return whether it was killed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            asyncio.run(job(run, manuals, url))
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
    manuals = documents(folder / "docs")
    began = time.monotonic()
    assert not attempt(folder / "whole", manuals, url, 600)
    whole = time.monotonic() - began
    expected = {name: (folder / "whole" / name).read_bytes() for name in FILES}
    needed = asked()
    kills, jobs, repeated, most = 0, 0, 0, 0
    while kills < wanted:
        before, own, run = asked(), 0, folder / f"run{jobs}"
        while attempt(run, manuals, url, rng.uniform(0, whole)):
            own += 1
        extra = asked() - before - needed
        assert extra <= own * IN_FLIGHT, f"{extra} calls repeated after {own} kills"
        for name in FILES:
            assert (run / name).read_bytes() == expected[name], f"{run / name} differs after {own} kills"
        kills, jobs, repeated, most = kills + own, jobs + 1, repeated + extra, max(most, own)
    here.send(False)
    sys.stdout.write(
        json.dumps({"kills": kills, "jobs": jobs, "calls": needed, "repeated": repeated, "most_kills": most}) + "\n"
    )


if __name__ == "__main__":
    main()
