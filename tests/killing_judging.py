"""`python -m tests.killing_judging FOLDER KILLS SEED`: a model judges records on a scripted server and is killed.

Prints one JSON object for tests/test_judging.py; see kill_loop.py.
"""

import json
import re
import sys
from pathlib import Path

from synth import Passage, Record
from synth.filtering.judging import judge_records
from synth.filters.model_scorers import model_scorers
from synth.inference.client import Client
from synth.inference.journal import Journal
from tests.kill_loop import kill_again_and_again
from tests.scripted_replies import smallest

IN_FLIGHT = 8
RECORDS = 40


def reply(body: dict[str, object]) -> str:
    """Return a reply that depends on the request alone; about every fifth record the judge says nothing of use."""
    number = int(re.search(r"What of (\d+)", json.dumps(body["messages"])).group(1))  # type: ignore[union-attr]
    schema = body["response_format"]["json_schema"]["schema"]  # type: ignore[index]
    if number % 5 == 0 and "reason" in schema["properties"]:
        return "no JSON at all"
    value = smallest(schema, "reply")
    return json.dumps({k: 1 + body["seed"] % 5 if type(v) is int else v for k, v in value.items()})  # type: ignore[operator]


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


if __name__ == "__main__":
    found = kill_again_and_again(job, reply, lambda run: (run / "results.txt").read_text(), IN_FLIGHT)
    sys.stdout.write(json.dumps({**found.counts(), "failed": found.expected.count("Failure(")}) + "\n")
