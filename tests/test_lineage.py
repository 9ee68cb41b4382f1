"""Going on from a candidate, folds, and students of other data: whole trainings, end to end."""

import json
import statistics
from pathlib import Path

import pytest
from safetensors.torch import load_file

from synth.core.errors import ConfigError, RunError
from synth.core.jsonl import write_jsonl
from synth.core.runs import Run
from tests.runs_for_tests import filtered_run, row, tiny_student
from tests.trainings import config, report_of
from tune.candidate import find_candidate
from tune.config import TuneConfig
from tune.folds import train_folds
from tune.sft import StudentResult, train


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_student(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def first(student: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, StudentResult]:
    run = filtered_run(tmp_path_factory.mktemp("first") / "run")
    return run, train(run, config(student, candidate="first", rank=4, alpha=8, rslora=True))


def test_an_adapter_is_trained_further_with_its_lineage(
    first: tuple[Run, StudentResult], student: Path, tmp_path: Path
) -> None:
    home, before = first
    run = filtered_run(tmp_path / "later", [row(i, question=f"And what of number {i}?") for i in range(12)])
    quick = {"threads": 1, "epochs": 2, "batch_size": 4, "learning_rate": 2e-3}
    result = train(run, TuneConfig(**{"from": str(before.path), "candidate": "second", **quick}))
    report = report_of(result)
    assert [parent["candidate"] for parent in report["lineage"]] == ["first"]
    trained_on = home.stages()["filter"].outputs["dataset/train.jsonl"].sha256
    assert report["lineage"][0]["data"]["dataset/train.jsonl"] == trained_on
    settings = json.loads((result.path / "adapter_config.json").read_bytes())
    assert (settings["r"], settings["lora_alpha"], settings["use_rslora"]) == (4, 8, True)
    # It began where the first one ended: closer to it than to an adapter that starts anew.
    old, new = (load_file(r.path / "adapter_model.safetensors") for r in (before, result))
    assert old.keys() == new.keys()
    moved = sum((new[n] - old[n]).norm() ** 2 for n in old) ** 0.5
    assert 0 < moved < 0.5 * sum(old[n].norm() ** 2 for n in old) ** 0.5
    assert "- first of run, tuned on" in (result.path / "README.md").read_text()
    third = train(run, TuneConfig(**{"from": "second", **quick, "seed": 5}))
    assert [parent["candidate"] for parent in report_of(third)["lineage"]] == ["second", "first"]


def test_full_weights_are_trained_further(student: Path, tmp_path: Path) -> None:
    run = filtered_run(tmp_path / "run")
    before = train(run, config(student, method="full", candidate="first", epochs=1))
    after = train(run, TuneConfig(**{"from": "first", "threads": 1, "epochs": 1, "candidate": "second"}))
    report = report_of(after)
    assert report["method"] == "full" and report["student"] == "tiny"
    # Its first loss is that of the trained weights, not of the student.
    assert report["history"]["train"][0]["loss"] < report_of(before)["history"]["train"][0]["loss"] - 0.5


def test_what_contradicts_the_parent_is_refused(first: tuple[Run, StudentResult], student: Path) -> None:
    run, _ = first
    with pytest.raises(ConfigError, match="--rank: the candidate to go on from has rank 4, not 8; leave it out"):
        train(run, TuneConfig(**{"from": "first", "rank": 8}))
    with pytest.raises(ConfigError, match="--method: the candidate to go on from has method lora, not full"):
        train(run, TuneConfig(**{"from": "first", "method": "full"}))
    with pytest.raises(RunError, match="no finished candidate is called 'frist'; did you mean first?"):
        train(run, TuneConfig(**{"from": "frist"}))


def test_folds_train_a_student_each_and_give_mean_and_spread(student: Path, tmp_path: Path) -> None:
    rows = [row(i, f"doc-{i % 6}.md") for i in range(18)]
    run = filtered_run(tmp_path / "run", rows[:12], rows[12:])
    # Documents must not stand on both sides of the split that the filter made.
    run = filtered_run(tmp_path / "apart", [r for r in rows if r["document_id"] < "doc-4"], [])
    folds = train_folds(run, config(student, epochs=1, folds=3))
    assert len(folds.students) == 3 and len({s.candidate.partition("-fold")[0] for s in folds.students}) == 1
    losses = [s.validation_loss for s in folds.students]
    assert None not in losses and folds.mean == statistics.fmean(losses) and folds.spread == statistics.stdev(losses)
    counts = [run.stages()[f"sft:{s.candidate}"].counts for s in folds.students]
    assert sum(c["validation"] for c in counts) == 12 and all(c["train"] + c["validation"] == 12 for c in counts)
    name = folds.students[0].candidate.partition("-fold")[0]
    written = json.loads((run.path / "students" / f"{name}-folds.json").read_bytes())
    assert written["mean_validation_loss"] == folds.mean and len(written["folds"]) == 3
    again = train_folds(run, config(student, epochs=1, folds=3))
    assert not any(s.trained for s in again.students) and again.mean == folds.mean
    # A student of a fold is judged only where it is named.
    whole = train(run, config(student, epochs=1, candidate="whole"))
    train(run, config(student, epochs=1, folds=3, fold=2, seed=9))
    assert find_candidate(run).name == whole.candidate
    with pytest.raises(ConfigError, match="several folds are trained by"):
        train(run, config(student, folds=3))


def test_a_student_of_a_file_is_trained_in_a_run_of_its_own(student: Path, tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    write_jsonl(data, [{"messages": row(i)["prompt"] + row(i)["completion"]} for i in range(30)])
    general = tmp_path / "general.jsonl"
    write_jsonl(general, [{"prompt": f"Say {i}.", "completion": f" {i}, gladly."} for i in range(40)])
    run = Run.create(tmp_path / "mine")
    result = train(run, config(student, data=str(data), replay=str(general), replay_share=0.25, epochs=1))
    report = report_of(result)
    own = report["rows"]["train"] * 0.75
    assert report["rows"]["validation"] > 0 and own + report["rows"]["validation"] == 30
    assert {"pairs.jsonl"} <= {name.rpartition("/")[2].rpartition(":")[2] for name in report["dataset"]}
    assert find_candidate(run).name == result.candidate
    assert str(tmp_path) not in (result.path / "training.json").read_text()


def test_what_it_cost_is_time_times_price(student: Path, tmp_path: Path) -> None:
    result = train(filtered_run(tmp_path / "run"), config(student, epochs=1, hourly_price=3600))
    report = report_of(result)
    assert report["cost"] == pytest.approx(report["seconds"], abs=1e-3) and report["cost"] > 0
    assert [*report["startup"]] == ["imports", "dataset", "preflight", "trainer", "proof", "first_step"]
    assert all(seconds >= 0 for seconds in report["startup"].values())
