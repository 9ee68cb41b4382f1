"""Real trainings of the bundled tiny model: adapters and full weights, killed, resumed, repeated."""

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from synth.core.errors import ConfigError, RecordError, RunError
from synth.core.runs import Run
from tests.runs_for_tests import CHATML, filtered_run, row, tiny_student
from tests.trainings import config, train_in_a_process, weights
from tune.checkpoints import last_complete
from tune.config import TuneConfig
from tune.order import EpochSampler
from tune.sft import Progress, StudentResult, train


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_student(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def adapter(student: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, StudentResult, list[Progress]]:
    """One adapter, trained without a stop."""
    run, seen = filtered_run(tmp_path_factory.mktemp("adapter") / "run"), list[Progress]()
    return run, train(run, config(student), on_progress=seen.append), seen


def test_an_adapter_is_written_with_all_that_serving_it_takes(
    adapter: tuple[Run, StudentResult, list[Progress]], student: Path
) -> None:
    run, result, _ = adapter
    assert result.trained and result.steps == 6 and re.fullmatch("lora-[0-9a-f]{8}", result.candidate)
    assert {p.name for p in result.path.iterdir()} >= {
        "adapter_model.safetensors",
        "adapter_config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "training.json",
        "README.md",
    }
    settings = json.loads((result.path / "adapter_config.json").read_bytes())
    assert settings["base_model_name_or_path"] == "tiny" and settings["r"] == 16
    trained = load_file(result.path / "adapter_model.safetensors")
    assert all("lora_" in name for name in trained) and not any("embed" in n or "lm_head" in n for n in trained)
    assert any(tensor.abs().sum() > 0 for name, tensor in trained.items() if "lora_B" in name)
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(student), str(result.path))
    assert loaded.active_adapter == "default"
    text = AutoTokenizer.from_pretrained(result.path).apply_chat_template(
        [{"role": "user", "content": "Hello"}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"


def test_no_file_of_a_candidate_names_a_path_of_this_machine(
    adapter: tuple[Run, StudentResult, list[Progress]], student: Path
) -> None:
    run, result, _ = adapter
    places = [str(student.parent).encode(), str(run.path.parent).encode()]
    for path in result.path.rglob("*"):
        assert not any(place in path.read_bytes() for place in places), path.name


def test_the_stage_entry_comes_last_and_nothing_half_done_is_left(
    adapter: tuple[Run, StudentResult, list[Progress]],
) -> None:
    run, result, _ = adapter
    entry = run.stages()[f"sft:{result.candidate}"]
    assert {*entry.inputs} == {"dataset/train.jsonl", "dataset/validation.jsonl"}
    assert f"students/{result.candidate}/adapter_model.safetensors" in entry.outputs
    assert entry.counts == {"train": 12, "validation": 3, "dropped": 0, "cut": 0, "steps": 6}
    assert [p.name for p in (run.path / "students").iterdir()] == [result.candidate]


def test_the_report_holds_the_losses_of_every_epoch(
    adapter: tuple[Run, StudentResult, list[Progress]],
) -> None:
    run, result, _ = adapter
    report = json.loads((result.path / "training.json").read_bytes())
    assert (report["student"], report["version"], report["method"]) == ("tiny", 2, "lora")
    assert [point["step"] for point in report["history"]["train"]] == [1, 2, 3, 4, 5, 6]
    assert [point["step"] for point in report["history"]["validation"]] == [2, 4, 6]
    losses = [point["loss"] for point in report["history"]["train"]]
    assert losses[-1] < losses[0]
    assert report["train_loss"] == pytest.approx(sum(losses[-2:]) / 2)
    assert report["validation_loss"] == report["history"]["validation"][-1]["loss"]
    assert report["dataset"]["dataset/train.jsonl"] == {
        "sha256": run.stages()["filter"].outputs["dataset/train.jsonl"].sha256,
        "rows": 12,
    }
    assert report["rows"] == {"train": 12, "validation": 3}
    assert report["stop_token"]["text"] == "<|im_end|>" and report["tokens"]["seen"] == 3 * report["tokens"]["train"]


def test_the_card_names_the_teacher_the_data_and_what_is_not_known_yet(
    adapter: tuple[Run, StudentResult, list[Progress]],
) -> None:
    run, result, _ = adapter
    card = (result.path / "README.md").read_text()
    assert "org/teacher-7b" in card and "tune validate" in card and "Not evaluated yet" in card
    assert run.stages()["filter"].outputs["dataset/train.jsonl"].sha256 in card


def test_every_step_is_reported(adapter: tuple[Run, StudentResult, list[Progress]]) -> None:
    _, _, seen = adapter
    # A second time where a validation loss is new.
    assert [(p.step, p.total) for p in seen] == [(step, 6) for step in (1, 2, 2, 3, 4, 4, 5, 6, 6)]
    last = seen[-1]
    assert last.loss is not None and last.validation_loss is not None and last.tokens_per_second > 0
    assert last.learning_rate is not None and last.grad_norm and last.memory > 2**20 and last.seconds_left == 0
    assert last.tokens == 3 * sum(p.tokens for p in seen if p.step == 2) / 2


def test_a_finished_candidate_is_returned_without_training(
    adapter: tuple[Run, StudentResult, list[Progress]], student: Path
) -> None:
    run, result, _ = adapter
    seen: list[Progress] = []
    again = train(run, config(student), on_progress=seen.append)
    assert (
        not seen
        and not again.trained
        and again.notes == (f"{result.candidate} is finished already: nothing was trained",)
    )
    assert (again.candidate, again.train_loss, again.steps) == (result.candidate, result.train_loss, result.steps)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    adapter: tuple[Run, StudentResult, list[Progress]], student: Path, tmp_path: Path
) -> None:
    _, result, _ = adapter
    again = train(filtered_run(tmp_path / "again"), config(student))
    other = train(filtered_run(tmp_path / "other"), config(student, seed=1))
    assert again.candidate == result.candidate and other.candidate != result.candidate
    for name in ("adapter_model.safetensors", "adapter_config.json", "README.md"):
        assert (again.path / name).read_bytes() == (result.path / name).read_bytes(), name
    assert weights(other) != weights(result)


def test_a_killed_training_ends_in_the_bytes_of_one_that_was_not(
    adapter: tuple[Run, StudentResult, list[Progress]], student: Path, tmp_path: Path
) -> None:
    """It dies with a checkpoint from inside an epoch behind it, where order and dropout are hardest to take up."""
    _, whole, _ = adapter
    step = 4
    run = filtered_run(tmp_path / "run")
    saving = config(student, save_every=0)
    killed = train_in_a_process(run, saving, step, "os.kill(os.getpid(), signal.SIGKILL)")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not any(stage.startswith("sft") for stage in run.stages())
    assert not (run.path / "students" / whole.candidate).exists()

    seen: list[Progress] = []
    resumed = train(run, config(student), on_progress=seen.append)
    assert resumed.resumed_from == step - 1 and sorted({p.step for p in seen}) == [*range(step, 7)]
    assert weights(resumed) == weights(whole)
    reports = [json.loads((r.path / "training.json").read_bytes()) for r in (resumed, whole)]
    assert reports[0]["history"] == reports[1]["history"] and reports[0]["train_loss"] == reports[1]["train_loss"]
    assert [p.name for p in (run.path / "students").iterdir()] == [whole.candidate]


def stop_at(step: int) -> Callable[[Progress], None]:
    """Interrupt a training as Ctrl-C does."""

    def stop(progress: Progress) -> None:
        if progress.step == step:
            raise KeyboardInterrupt

    return stop


def test_full_weights_resume_past_a_torn_checkpoint_to_the_same_bytes(student: Path, tmp_path: Path) -> None:
    """The last checkpoint is torn; the one before it is from the end of an epoch."""
    whole = train(filtered_run(tmp_path / "whole"), config(student, method="full"))
    run = filtered_run(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(run, config(student, method="full", save_every=0), on_progress=stop_at(6))
    checkpoints = run.path / "students" / f".{whole.candidate}.part" / "checkpoints"
    assert sorted(p.name for p in checkpoints.glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-5"]
    assert not any(p.name == "training_args.bin" for p in checkpoints.rglob("*"))
    torn = checkpoints / "checkpoint-5" / "optimizer.pt"
    torn.write_bytes(torn.read_bytes()[:-1000])
    resumed = train(run, config(student, method="full"))
    assert resumed.resumed_from == 4 and weights(resumed) == weights(whole)
    assert resumed.notes[0] == "going on from the checkpoint after step 4"


def test_full_weights_keep_the_bases_form_and_stop_tokens(student: Path, tmp_path: Path) -> None:
    result = train(filtered_run(tmp_path / "run"), config(student, method="full", epochs=1, candidate="all-of-it"))
    assert result.candidate == "all-of-it" and result.path == tmp_path / "run" / "students" / "all-of-it"
    before, after = load_file(student / "model.safetensors"), load_file(result.path / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(after[name].dtype == before[name].dtype == torch.bfloat16 for name in before)
    assert any(not torch.equal(after[name], before[name]) for name in before)
    generation = json.loads((result.path / "generation_config.json").read_bytes())
    assert generation["eos_token_id"] == json.loads((student / "generation_config.json").read_bytes())["eos_token_id"]
    model = AutoModelForCausalLM.from_pretrained(result.path)
    assert model.num_parameters() == AutoModelForCausalLM.from_pretrained(student).num_parameters()


def test_a_checkpoint_of_other_settings_or_without_a_seal_is_never_gone_on_from(student: Path, tmp_path: Path) -> None:
    run = filtered_run(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(run, config(student, candidate="one", save_every=0), on_progress=stop_at(4))
    checkpoints = run.path / "students" / ".one.part" / "checkpoints"
    (checkpoints / "checkpoint-3" / "complete.json").unlink()
    seal = json.loads((checkpoints / "checkpoint-2" / "complete.json").read_bytes())["identity"]
    kept = last_complete(checkpoints, seal)
    assert kept is not None and kept.step == 2 and not (checkpoints / "checkpoint-3").exists()
    other = train(run, config(student, candidate="one", seed=5))
    assert other.resumed_from is None and other.steps == 6


def test_a_name_that_is_taken_by_other_settings_is_refused(student: Path, tmp_path: Path) -> None:
    run = filtered_run(tmp_path / "run")
    first = train(run, config(student, epochs=1, candidate="best"))
    with pytest.raises(RunError, match=r"'best' was trained otherwise \(changed: seed\).*another --candidate"):
        train(run, config(student, epochs=1, candidate="best", seed=2))
    (first.path / "tokenizer.json").write_text("{}")
    again = train(run, config(student, epochs=1, candidate="best"))
    assert again.trained and again.notes[0] == "files of best are damaged or missing: training it again"
    assert run.stages().keys() >= {"sft:best"}


def test_a_folder_with_files_of_someone_else_is_left_alone(student: Path, tmp_path: Path) -> None:
    run = filtered_run(tmp_path / "run")
    note = run.student_path("mine") / "notes.txt"
    note.parent.mkdir(parents=True)
    note.write_text("precious")
    with pytest.raises(RunError, match="files that tune sft did not write"):
        train(run, config(student, candidate="mine"))
    assert note.read_text() == "precious"


def test_long_rows_stop_the_command_or_are_dropped_and_named(student: Path, tmp_path: Path) -> None:
    run = filtered_run(tmp_path / "run", train=[*(row(i) for i in range(8)), row(8, answer="water " * 200)])
    with pytest.raises(RecordError, match=r"longer than 64 tokens: 1 row: row-008 \(\d+ tokens\)"):
        train(run, config(student, max_length=64))
    assert not any(stage.startswith("sft") for stage in run.stages())
    result = train(run, config(student, max_length=64, on_overflow="drop", epochs=1))
    assert result.dropped == 1 and "rows longer than 64 tokens, left out: 1" in result.notes[0]
    report = json.loads((result.path / "training.json").read_bytes())
    assert [(d["id"], d["split"]) for d in report["dropped"]] == [("row-008", "train")]
    assert run.stages()[f"sft:{result.candidate}"].counts["dropped"] == 1
    with pytest.raises(RecordError, match="all 9 rows are longer than 8 tokens"):
        train(run, config(student, max_length=8, on_overflow="drop"))
    with pytest.raises(ConfigError, match="--max-length: tiny reads 2048 tokens, not 4096"):
        train(run, config(student, max_length=4096))


def test_a_broken_template_fails_before_a_step_and_leaves_no_stage(tmp_path: Path) -> None:
    broken = CHATML.replace("m['content'] + '<|im_end|>\\n'", "m['content'] + '\\n'")
    run, seen = filtered_run(tmp_path / "run"), list[Progress]()
    with pytest.raises(RecordError, match="would never learn to stop"):
        train(run, config(tiny_student(tmp_path / "student", template=broken)), on_progress=seen.append)
    assert not seen and not any(stage.startswith("sft") for stage in run.stages())


def test_a_base_model_is_trained_with_the_plain_template_and_says_so(tmp_path: Path) -> None:
    base = tiny_student(tmp_path / "base", template=None)
    said: list[str] = []
    result = train(filtered_run(tmp_path / "run", validation=[]), config(base, epochs=1), on_message=said.append)
    assert said[0] == "chat template: the plain one, saved with the student, since base has none of its own"
    assert said[1:] == ["cpu, fp32, sdpa attention; a step is 2 x 4 rows"]
    assert "eos_token" in (result.path / "chat_template.jinja").read_text()
    assert "--chat-template" in (result.path / "README.md").read_text()
    assert result.validation_loss is None


def test_a_training_of_one_step_learns(student: Path, tmp_path: Path) -> None:
    """A warm-up that is rounded up to a whole step would be all of it, at a learning rate of nought."""
    result = train(filtered_run(tmp_path / "run"), config(student, steps=1))
    trained = load_file(result.path / "adapter_model.safetensors")
    assert result.steps == 1 and any(tensor.abs().sum() > 0 for name, tensor in trained.items() if "lora_B" in name)


def test_a_loss_that_is_no_number_stops_the_training(student: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is (nan|inf) at step \d; lower --learning-rate"):
        train(filtered_run(tmp_path / "run"), config(student, method="full", learning_rate=1e30, max_grad_norm=1e30))


def test_nothing_of_the_libraries_reaches_the_terminal(
    student: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(filtered_run(tmp_path / "run"), config(student, epochs=1))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "settings",
    [
        {"rnak": 8},
        {"candidate": "../up"},
        {"candidate": ".hidden"},
        {"epochs": 0},
        {"method": "lora", "dora": 3},
        {"dropout": 1},
    ],
)
def test_settings_that_are_wrong_or_unknown_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TuneConfig(**settings)


def test_the_learning_rate_follows_the_method_and_names_follow_what_decides() -> None:
    assert (TuneConfig().peak_learning_rate, TuneConfig(method="full").peak_learning_rate) == (2e-4, 2e-5)
    assert TuneConfig().settings() == TuneConfig(candidate="x", save_every=3, threads=1, learning_rate=2e-4).settings()
    assert TuneConfig(method="full").settings() == TuneConfig(method="full", rank=4).settings()
    assert all(field.description for field in TuneConfig.model_fields.values())


def test_the_order_of_rows_follows_from_seed_and_epoch_and_holds_every_row_once() -> None:
    lengths = [7, 90, 8, 91, 9, 92, 30]

    def order(epoch: int, *, seed: int = 0, grouped: bool = True) -> list[int]:
        sampler = EpochSampler(lengths, batch_size=2, seed=seed, grouped=grouped)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert all(sorted(order(e, grouped=g)) == [*range(7)] for e in range(20) for g in (True, False))
    assert order(3) == order(3) and order(3, seed=1) != order(3) and len({tuple(order(e)) for e in range(20)}) > 1
    firsts = {lengths[order(epoch)[0]] > 50 for epoch in range(20)}
    assert firsts == {True, False}, "batches of long rows must not always come first"
    pairs = [order(epoch)[i : i + 2] for epoch in range(20) for i in (0, 2, 4)]
    assert sum(abs(lengths[a] - lengths[b]) for a, b in pairs) / len(pairs) < 25
