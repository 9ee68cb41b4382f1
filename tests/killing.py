"""`python -m tests.killing FOLDER KILLS SEED`: a generate job on a scripted server, killed at random moments.

Prints one JSON object for tests/test_survival.py; see kill_loop.py.
"""

import json
import sys
from pathlib import Path

from synth import GenerateConfig, Run, run_generate
from synth.inference.client import Client
from tests.kill_loop import kill_again_and_again

IN_FLIGHT = 8
PASSAGES = 20
SENTENCES = 4
FILES = ("passages.jsonl", "records.jsonl", "quarantine.jsonl")


def reply(body: dict[str, object]) -> str:
    """Return a reply that depends on the request alone; one in seven is of no use, twice."""
    schema = body["response_format"]["json_schema"]["schema"]  # type: ignore[index]
    sentence = schema["properties"]["evidence"]["enum"][0]
    if sum(sentence.encode()) % 7 == 0:
        return "no JSON at all"
    return json.dumps({"evidence": sentence, "question": f"What of {body['seed']}?", "answer": sentence.split()[-1]})


def documents(folder: Path) -> Path:
    """Write the documents."""
    folder.mkdir(parents=True)
    for i in range(PASSAGES):
        lines = [f"Part {i}-{j} of the pump weighs {i + j} grams." for j in range(SENTENCES)]
        (folder / f"d{i:02}.md").write_text(f"# Part {i}\n\n{' '.join(lines)}\n")
    return folder


async def job(run: Path, url: str) -> None:
    """Run the stage once."""
    client = Client(url, "stub", max_in_flight=IN_FLIGHT)
    manuals = run.parent / "docs"
    await run_generate(
        Run.create(run), [manuals], GenerateConfig(), client, teacher_name="stub", max_in_flight=IN_FLIGHT
    )


if __name__ == "__main__":
    documents(Path(sys.argv[1]) / "docs")
    found = kill_again_and_again(job, reply, lambda run: [(run / name).read_bytes() for name in FILES], IN_FLIGHT)
    sys.stdout.write(json.dumps(found.counts()) + "\n")
