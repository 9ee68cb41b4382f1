"""The table [sft.trainer]: what reaches SFTConfig, and what is refused with the word to use instead."""

import importlib.util
from pathlib import Path

import pytest

from synth.core.errors import ConfigError
from tests.runs_for_tests import filtered_run, tiny_student
from tests.trainings import config
from tune.building import build_trainer
from tune.data import open_dataset
from tune.preflight import examine
from tune.quiet import quiet
from tune.setup import settle
from tune.sft import train
from tune.student import open_student
from tune.trainer import Places, StudentTrainer
from tune.watch import Watch


def built(folder: Path, *, report_to: tuple[str, ...] = (), **table: object) -> StudentTrainer:
    settings = config(tiny_student(folder / "tiny"), trainer=table, report_to=report_to)
    opened = open_student(settings.student)
    found = examine(open_dataset(filtered_run(folder / "run"), settings), opened, settings)
    with quiet(folder / "log"):
        return build_trainer(
            opened,
            settings,
            {"train": found.train, "validation": found.validation},
            setup=settle(settings, opened, found.train),
            places=Places(folder / "checkpoints", folder / "tensorboard", "seal"),
            watch=Watch(None, 60),
        )


def test_the_table_reaches_trl_unchanged(tmp_path: Path) -> None:
    arguments = built(tmp_path, adam_beta2=0.95, neftune_noise_alpha=5, loss_type="dft").args
    assert (arguments.adam_beta2, arguments.neftune_noise_alpha, arguments.loss_type) == (0.95, 5, "dft")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"adam_beta": 0.9}, r"SFTConfig has no 'adam_beta' \(did you mean .*adam_beta1"),
        ({"learning_rate": 1e-3}, r"'learning_rate' is set with 'learning_rate' in \[sft\]"),
        ({"per_device_train_batch_size": 2, "bf16": True}, r"set with 'batch_size' in \[sft\]; 'bf16' is set with"),
        ({"output_dir": "x"}, "'output_dir' is not to be set: checkpoints lie in the run"),
        ({"trust_remote_code": True}, "code of a model never runs here"),
        ({"optim": "no_such_optimizer"}, r"\[sft\]: SFTConfig refuses the settings \(.*no_such_optimizer"),
    ],
)
def test_what_is_unknown_or_said_elsewhere_is_refused(tmp_path: Path, table: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        built(tmp_path, **table)


@pytest.mark.parametrize("table", [{"lr_scheduler_kwargs": {"x": 1}}, {"neftune_noise_alpha": "abc"}])
def test_a_value_that_is_only_looked_at_when_training_begins_is_a_plain_error(
    tmp_path: Path, table: dict[str, object]
) -> None:
    settings = config(tiny_student(tmp_path / "tiny"), trainer=table)
    with pytest.raises(ConfigError, match=r"\[sft\.trainer\]: the training does not begin"):
        train(filtered_run(tmp_path / "run"), settings)


@pytest.mark.parametrize(
    ("tracker", "said"), [("neptun", "neptun is not supported"), ("wandb", "requires wandb to be installed")]
)
def test_a_tracker_that_is_unknown_or_not_installed_is_refused(tmp_path: Path, tracker: str, said: str) -> None:
    if importlib.util.find_spec("wandb") and tracker == "wandb":
        pytest.skip("wandb is installed here")
    with pytest.raises(ConfigError, match=said):
        built(tmp_path, report_to=(tracker,))


def test_no_setting_that_is_refused_is_a_name_that_trl_does_not_know() -> None:
    import dataclasses

    from trl import SFTConfig

    from tune.trainer_table import KEPT, SAID_ELSEWHERE

    known = {field.name for field in dataclasses.fields(SFTConfig)}
    assert {*KEPT, *SAID_ELSEWHERE} <= known
    assert {"learning_rate", "output_dir"} <= {*KEPT, *SAID_ELSEWHERE}
