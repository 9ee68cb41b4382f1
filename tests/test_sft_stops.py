"""How a training ends before its end: Ctrl-C, a full disk, a loss that explodes or falls no more."""

import json
import math
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from synth.core.errors import RunError
from tests.runs_for_tests import filtered_run, row, tiny_student
from tests.trainings import config, report_of, train_in_a_process, weights
from tune.checkpoints import best_weights, keep_best, last_complete
from tune.sft import StudentResult, train


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_student(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def whole(student: Path, tmp_path_factory: pytest.TempPathFactory) -> StudentResult:
    """One training of full weights without a stop."""
    return train(filtered_run(tmp_path_factory.mktemp("whole") / "run"), config(student, method="full"))


@pytest.mark.parametrize("signal", ["SIGINT", "SIGTERM"])
def test_a_signal_saves_the_step_that_runs_and_exits_130_and_the_next_call_goes_on(
    student: Path, whole: StudentResult, tmp_path: Path, signal: str
) -> None:
    run = filtered_run(tmp_path / "run")
    settings = config(student, method="full")  # No checkpoint is due for years.
    ended = train_in_a_process(run, settings, 3, f"os.kill(os.getpid(), signal.{signal})")
    assert ended.returncode == 130, ended.stderr
    assert "stopped after step 4 of 6; the checkpoint is saved; run the same command again" in ended.stderr
    resumed = train(run, settings)
    assert resumed.resumed_from == 4 and weights(resumed) == weights(whole)
    assert report_of(resumed)["history"] == report_of(whole)["history"]


def test_a_full_disk_leaves_the_last_good_checkpoint(student: Path, whole: StudentResult, tmp_path: Path) -> None:
    """The kernel refuses files over 1 MiB from step 3 on, as a disk that is full would."""
    run = filtered_run(tmp_path / "run")
    settings = config(student, method="full", save_every=0)
    limit = "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))"
    ended = train_in_a_process(run, settings, 3, limit)
    assert ended.returncode == 1, ended.stderr
    assert "the checkpoint after step 3 cannot be written" in ended.stderr
    assert "the checkpoint after step 2 is whole" in ended.stderr and "free some space" in ended.stderr
    assert "Traceback" not in ended.stderr
    resumed = train(run, config(student, method="full"))
    assert resumed.resumed_from == 2 and weights(resumed) == weights(whole)


def test_a_loss_that_explodes_stops_the_training_with_advice(student: Path, tmp_path: Path) -> None:
    settings = config(student, method="full", learning_rate=3.0, epochs=30, max_grad_norm=1e9, early_stopping=0)
    with pytest.raises(RunError, match=r"the loss explodes: it began at .* lower --learning-rate"):
        train(filtered_run(tmp_path / "run"), settings)


@pytest.fixture(scope="module")
def overfitted(student: Path, tmp_path_factory: pytest.TempPathFactory) -> StudentResult:
    """A training whose validation loss turns up."""
    run = filtered_run(tmp_path_factory.mktemp("overfitted") / "run")
    return train(run, config(student, learning_rate=2e-2, epochs=40, early_stopping=3))


def test_a_validation_loss_that_falls_no_more_ends_the_training(overfitted: StudentResult) -> None:
    report = report_of(overfitted)
    losses = [point["loss"] for point in report["history"]["validation"]]
    lowest = losses.index(min(losses))
    assert report["stopped_early"] and len(losses) == lowest + 1 + 3 < 40
    assert overfitted.kept_step == report["history"]["validation"][lowest]["step"] < overfitted.steps
    assert overfitted.validation_loss == min(losses)
    assert any("stopped early" in note for note in overfitted.notes)
    assert any("its weights were kept" in note for note in overfitted.notes)


def test_the_candidate_has_the_weights_of_the_lowest_validation_loss(overfitted: StudentResult, student: Path) -> None:
    """Loaded again, the adapter has the loss that the report gives."""
    tokenizer = AutoTokenizer.from_pretrained(overfitted.path)
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32), str(overfitted.path)
    ).eval()
    total, count = 0.0, 0
    for number in range(20, 23):
        turns = row(number)
        whole = tokenizer.apply_chat_template(turns["prompt"] + turns["completion"], return_dict=True)["input_ids"]
        asked = tokenizer.apply_chat_template(turns["prompt"], add_generation_prompt=True, return_dict=True)[
            "input_ids"
        ]
        ids = torch.tensor([whole])
        with torch.no_grad():
            logs = model(ids).logits[0, :-1].log_softmax(-1)
        told = logs.gather(1, ids[0, 1:, None])[len(asked) - 1 :]
        total, count = total - told.sum().item(), count + len(told)
    assert total / count == pytest.approx(overfitted.validation_loss, rel=1e-4)


def test_the_last_weights_are_kept_where_asked(overfitted: StudentResult, student: Path, tmp_path: Path) -> None:
    settings = config(student, learning_rate=2e-2, epochs=40, early_stopping=3, keep="last")
    result = train(filtered_run(tmp_path / "run"), settings)
    losses = [point["loss"] for point in report_of(result)["history"]["validation"]]
    assert result.kept_step == result.steps == overfitted.steps
    assert result.validation_loss == losses[-1] > min(losses) == overfitted.validation_loss
    assert weights(result) != weights(overfitted)


def test_killed_after_its_best_step_a_training_still_ships_the_best_weights(
    overfitted: StudentResult, student: Path, tmp_path: Path
) -> None:
    run = filtered_run(tmp_path / "run")
    settings = config(student, learning_rate=2e-2, epochs=40, early_stopping=3, save_every=0)
    killed = train_in_a_process(run, settings, overfitted.kept_step + 3, "os.kill(os.getpid(), signal.SIGKILL)")
    assert killed.returncode == -9
    resumed = train(run, settings)
    assert resumed.resumed_from == overfitted.kept_step + 2
    assert resumed.kept_step == overfitted.kept_step and weights(resumed) == weights(overfitted)


def test_best_weights_are_whole_or_not_there(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "w").write_bytes(b"weights")

    # The last checkpoint was written when step 2 was the best: who goes on from it needs those weights.
    for step, spare in ((2, None), (4, 2), (10, 2)):
        keep_best(tmp_path, step, "mine", write, spare=spare)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best-10", "best-2"]
    found = best_weights(tmp_path, 10, "mine")
    assert found is not None and [path.name for path in found.weights()] == ["w"]
    assert best_weights(tmp_path, 10, "other") is None and best_weights(tmp_path, 4, "mine") is None
    (tmp_path / "best-10" / "w").write_bytes(b"wei")
    assert best_weights(tmp_path, 10, "mine") is None
    assert last_complete(tmp_path, "mine") is None


def test_a_resumed_training_hides_no_point_of_tensorboard_twice(student: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = filtered_run(tmp_path / "run")
    train_in_a_process(run, config(student, save_every=0), 4, "os.kill(os.getpid(), signal.SIGKILL)")
    result = train(run, config(student))
    written = EventAccumulator(str(run.path / "logs" / "tensorboard" / result.candidate)).Reload()
    losses = written.Scalars("train/loss")
    assert [point.step for point in losses] == [1, 2, 3, 4, 5, 6]
    told = [point["loss"] for point in json.loads((result.path / "training.json").read_bytes())["history"]["train"]]
    assert all(math.isclose(point.value, loss, rel_tol=1e-6) for point, loss in zip(losses, told, strict=True))
    assert written.Scalars("eval/loss") and written.Scalars("train/learning_rate")
