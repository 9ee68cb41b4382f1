"""The whole chain as `synth demo` runs it: the real engine, the real trainer, the bundled models and handbook."""

import json
from pathlib import Path

import pytest

from synth.core.jsonl import read_lines
from synth.core.resources import resource
from tests.conftest import Command


@pytest.mark.vllm
def test_the_demo_ends_with_a_dataset_a_student_and_a_verdict(tmp_path: Path, command: Command) -> None:
    pytest.importorskip("trl", reason="TRL is not installed: pip install .[tune]")
    done = command("synth", "demo", "--run", "runs/demo", "--records", 24, timeout=3000)
    assert done.returncode == 0, done.stdout + done.stderr
    run = tmp_path / "runs" / "demo"

    records = [row for _, row in read_lines(run / "records.jsonl")]
    kept = [row for row in records if row["decision"]["keep"]]
    train = [row for _, row in read_lines(run / "dataset" / "train.jsonl")]
    validation = [row for _, row in read_lines(run / "dataset" / "validation.jsonl")]
    assert len(kept) == 24 and len(train) + len(validation) == len(kept)
    assert not {row["document_id"] for row in train} & {row["document_id"] for row in validation}
    assert all(row["context"][row["evidence"]["start"] :].startswith(row["evidence"]["text"]) for row in records)

    stages = json.loads((run / "run.json").read_text())["stages"]
    (candidate,) = (name.removeprefix("sft:") for name in stages if name.startswith("sft:"))
    folder = run / "students" / candidate
    assert (folder / "model.safetensors").is_file() and (folder / "README.md").is_file()
    assert not list(run.rglob("*.pt")) and not list(run.rglob("*.bin"))

    verdict = json.loads((run / "validation" / candidate / "verdict.json").read_text())
    files = (run / "validation" / candidate / "answers").iterdir()
    answers = [row for path in files for _, row in read_lines(path)]
    questions = sum(1 for _ in read_lines(resource("demo", "heldout.jsonl")))
    names = ["base", "few-shot", "retrieval", "tuned", "tuned-retrieval", "teacher"]
    assert len(answers) == len(names) * questions
    # Whether the tiny student earns an accept is a measurement, not a condition; that the words follow the numbers is.
    assert [row["contender"] for row in verdict["tables"]["clean"]["rows"]] == names
    assert verdict["accepted"] == all(check["passed"] is not False for check in verdict["checks"])
    assert verdict["text"].startswith("Accept" if verdict["accepted"] else "Reject")
    assert verdict["text"] in " ".join(done.stdout.split())
    assert (run / "validation" / candidate / "summary.md").read_text().count(verdict["text"]) == 1

    again = command("synth", "demo", "--run", "runs/demo", "--records", 24, timeout=600)
    assert again.returncode == 0 and "nothing was asked again" in again.stdout
