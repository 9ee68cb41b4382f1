"""What could go wrong without a word: settings that a parent hands down, secrets, checkpoints that do not belong."""

import json
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from synth.core.errors import ConfigError, RunError
from synth.core.resources import resource
from synth.core.runs import StageEntry
from tests.runs_for_tests import filtered_run, row, tiny_student
from tests.test_trainer_table import built
from tests.trainings import config, report_of, train_in_a_process, weights
from tune.candidate import Candidate
from tune.card import _shown
from tune.cli_sft import _settings
from tune.config import TuneConfig
from tune.folds import train_folds
from tune.lineage import Parent, continued
from tune.sft import train
from tune.trainer_table import check_trainer_table
from tune.watch import Watch


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_student(tmp_path_factory.mktemp("models") / "tiny")


def test_the_bundled_students_settings_are_for_its_own_candidates_alone(tmp_path: Path) -> None:
    run = filtered_run(tmp_path / "run")
    run.finish_stage("sft:mine", StageEntry(config={"student": "org/model-4b"}))
    run.finish_stage("sft:demo", StageEntry(config={"student": "bundled"}))
    plain = TuneConfig()
    of_hub = _settings({"from": "mine"}, None, run.path)
    assert (of_hub.peak_learning_rate, of_hub.batch_size, of_hub.keep) == (2e-4, plain.batch_size, plain.keep)
    of_demo = _settings({"from": "demo"}, None, run.path)
    assert (of_demo.peak_learning_rate, of_demo.keep) == (2e-3, "last")
    # An adapter's shape is the parent's; it must not look as if the user had set it.
    assert "rank" not in of_demo.model_fields_set


def test_a_parent_of_the_hub_hands_its_commit_down(tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text(json.dumps({"method": "full", "hyperparameters": {}}))
    candidate = Candidate("c", tmp_path, "full", "org/model", "org/model", "0123abc", {}, plain_template=False)
    parent = Parent(candidate, "", ())
    assert continued(TuneConfig(), parent, frozenset()).revision == "0123abc"
    given = TuneConfig(revision="v2")
    assert continued(given, parent, frozenset({"revision"})).revision == "v2"


def test_an_adapter_goes_on_with_the_dropout_that_is_set(student: Path, tmp_path: Path) -> None:
    run = filtered_run(tmp_path / "run")
    train(run, config(student, candidate="first", epochs=1, dropout=0.3))
    settings = TuneConfig.model_validate({"from": "first", "threads": 1, "epochs": 1, "dropout": 0.1})
    later = train(run, settings)
    assert json.loads((later.path / "adapter_config.json").read_bytes())["lora_dropout"] == 0.1
    assert report_of(later)["hyperparameters"]["dropout"] == 0.1


def test_a_token_in_the_trainers_table_is_refused_before_it_is_written(student: Path, tmp_path: Path) -> None:
    run = filtered_run(tmp_path / "run")
    with pytest.raises(ConfigError, match="'hub_token' is not to be set"):
        train(run, config(student, trainer={"hub_token": "hf_" + "a" * 30}))
    assert "hf_aaa" not in (run.path / "run.json").read_text()
    with pytest.raises(ConfigError, match="'enable_jit_checkpoint' is not to be set"):
        check_trainer_table({"enable_jit_checkpoint": True}, ["enable_jit_checkpoint"])


def test_what_is_missing_or_damaged_is_said_without_a_traceback(student: Path, tmp_path: Path) -> None:
    run = filtered_run(tmp_path / "run")
    with pytest.raises(ConfigError, match="clearml"):
        train(run, config(student, report_to=("clearml",)))
    with pytest.raises(ConfigError, match="--attention: transformers knows no attention 'nosuch'; take sdpa"):
        train(run, config(student, attention="nosuch"))
    broken = tiny_student(tmp_path / "broken")
    half = broken / "model.safetensors"
    half.write_bytes(half.read_bytes()[:100_000])
    with pytest.raises(ConfigError, match=r"broken: the model cannot be opened \(.*; mend or copy the folder again"):
        train(run, config(broken))


def test_dora_beside_rows_of_noughts_is_refused_before_a_step(tmp_path: Path) -> None:
    bundled = resource("demo", "models") / "student"
    with pytest.raises(ConfigError, match=r"--dora: \d+ rows of the student's weights are all noughts"):
        train(filtered_run(tmp_path / "run"), config(bundled, dora=True))


def test_ctrl_c_at_the_step_that_ends_early_ends_the_training(student: Path, tmp_path: Path) -> None:
    """The candidate is that of a training which nobody stopped, though a checkpoint was due at that step too."""
    settings = config(student, learning_rate=2e-2, epochs=40, early_stopping=1, save_every=0)
    whole = train(filtered_run(tmp_path / "whole"), settings)
    assert report_of(whole)["stopped_early"]
    run = filtered_run(tmp_path / "run")
    ended = train_in_a_process(run, settings, whole.steps - 1, "os.kill(os.getpid(), signal.SIGINT)")
    assert ended.returncode == 0, ended.stderr
    result = train(run, settings)
    assert not result.trained and result.steps == whole.steps and weights(result) == weights(whole)


def test_no_checkpoint_is_written_where_nothing_is_left_to_train(tmp_path: Path) -> None:
    watch, arguments = Watch(None, 0, early_stopping=1), TrainingArguments(str(tmp_path), eval_strategy="steps")
    last, before = (TrainerState(global_step=step, max_steps=5) for step in (5, 4))
    watch.ask_to_stop()
    assert watch.on_step_end(arguments, before, TrainerControl()).should_save
    assert not watch.on_step_end(arguments, last, TrainerControl()).should_save
    before.log_history = [{"step": 2, "eval_loss": 1.0}, {"step": 4, "eval_loss": 1.1}]
    early = watch.on_evaluate(arguments, before, TrainerControl(should_save=True))
    assert early.should_training_stop and not early.should_save


def test_easy_rows_at_the_beginning_are_no_explosion_later() -> None:
    watch = Watch(None, 60)

    def told(losses: list[float]) -> None:
        state = TrainerState(log_history=[{"step": n, "loss": loss} for n, loss in enumerate(losses, 1)])
        watch.on_log(None, state, TrainerControl(), logs={"loss": losses[-1]})

    told([0.2, 1.6, 1.7, 1.8])
    with pytest.raises(RunError, match=r"began at 0\.20 and was at least 6\.00"):
        told([0.2, 6.0, 7.0, 8.0])


def test_checkpoints_that_cannot_be_gone_on_from_are_not_deleted_in_silence(student: Path, tmp_path: Path) -> None:
    run, kill = filtered_run(tmp_path / "run"), "os.kill(os.getpid(), signal.SIGKILL)"
    settings = config(student, candidate="one", save_every=0)
    train_in_a_process(run, settings, 4, kill)
    sealed = run.path / "students" / ".one.part" / "checkpoints" / "checkpoint-3" / "complete.json"
    value = json.loads(sealed.read_bytes())
    fingerprint = value["identity"].partition(" ")[0]
    sealed.write_text(json.dumps({**value, "identity": f"{fingerprint} bf16 1 4096 1 2"}))  # As a GPU would.
    with pytest.raises(RunError, match="begun in another arithmetic, packing or number of processes"):
        train(run, settings)
    assert sealed.exists()
    other = train(run, config(student, candidate="one", epochs=1))
    assert any(note.startswith("deleted: 2 checkpoints of one") for note in other.notes)


def test_best_weights_that_are_gone_are_an_error(tmp_path: Path) -> None:
    trainer = built(tmp_path)
    trainer.state.global_step = 4
    trainer.state.log_history = [{"step": 2, "eval_loss": 1.0}, {"step": 4, "eval_loss": 2.0}]
    with pytest.raises(RunError, match="the weights after step 2, .* are missing or damaged; .*--keep last"):
        trainer.best()
    trainer.state.log_history[1]["eval_loss"] = 0.5
    assert trainer.best() is None


def test_a_fold_whose_rows_are_all_left_out_is_named(student: Path, tmp_path: Path) -> None:
    rows = [*(row(i, f"short-{i % 2}.md") for i in range(6)), row(6, "long.md", answer="water " * 200)]
    with pytest.raises(RunError, match=r"-fold\dof3 had no row to validate on"):
        train_folds(
            filtered_run(tmp_path / "run", rows, []),
            config(student, epochs=1, folds=3, max_length=64, on_overflow="drop"),
        )


def test_a_pattern_does_not_break_the_cards_table() -> None:
    assert _shown(r".*(q|v)_proj") == r".*(q\|v)_proj"
