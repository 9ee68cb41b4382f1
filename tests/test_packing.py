"""Rows that share a sequence: the same loss and the same gradients as rows of their own."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from synth.core.errors import ConfigError
from tests.runs_for_tests import filtered_run, row, tiny_student
from tests.trainings import config, report_of
from tune.building import build_trainer
from tune.config import TuneConfig
from tune.data import open_dataset
from tune.preflight import examine
from tune.quiet import quiet
from tune.rows import Rendered
from tune.setup import Setup, settle, steps_per_epoch
from tune.sft import train
from tune.student import open_student
from tune.trainer import Places, StudentTrainer
from tune.watch import Watch


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_student(tmp_path_factory.mktemp("models") / "tiny")


def built(folder: Path, settings: TuneConfig) -> tuple[StudentTrainer, Setup, Sequence[Rendered]]:
    """Return a trainer on rows of many lengths."""
    rows = [row(i, answer="It holds water. " * (1 + i * 7 % 23)) for i in range(60)]
    opened = open_student(settings.student)
    found = examine(open_dataset(filtered_run(folder / "run", rows, []), settings), opened, settings)
    found.raise_if_faulty()
    setup = settle(settings, opened, found.train)
    with quiet(folder / "log"):
        trainer = build_trainer(
            opened,
            settings,
            {"train": found.train, "validation": ()},
            setup=setup,
            places=Places(folder / "checkpoints", folder / "tensorboard", "seal"),
            watch=Watch(None, 60),
        )
    return trainer, setup, found.train


def test_all_rows_are_packed_together_and_not_a_thousand_at_a_time(student: Path, tmp_path: Path) -> None:
    opened = open_student(str(student))
    run = filtered_run(tmp_path / "run", [row(i) for i in range(1020)], [])
    found = examine(open_dataset(run, config(student)), opened, config(student))
    first, rest = (sum(r.tokens for r in part) for part in (found.train[:1000], found.train[1000:]))
    length = (first - 10) // 20  # The first thousand rows fill 20 sequences and 10 places of another one.
    assert rest < length - 300
    settings = config(student, packing=True, packing_length=length)
    with quiet(tmp_path / "log"):
        trainer = build_trainer(
            opened,
            settings,
            {"train": found.train, "validation": ()},
            setup=settle(settings, opened, found.train),
            places=Places(tmp_path / "checkpoints", tmp_path / "tensorboard", "seal"),
            watch=Watch(None, 60),
        )
    assert sum(map(len, trainer.train_dataset["input_ids"])) == first + rest
    assert len(trainer.train_dataset) == 21, "apart, the first thousand take 21 and the others one more"


def loss_and_gradients(trainer: StudentTrainer) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the summed loss of an epoch, and its gradients by weight."""
    trainer.model.eval()  # No dropout.
    total = 0.0
    for batch in trainer.get_train_dataloader():
        loss = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=1)
        loss.backward()
        total += loss.item()
    return total, {n: w.grad for n, w in trainer.model.named_parameters() if w.grad is not None}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_rows_have_the_loss_and_the_gradients_of_rows_apart(
    student: Path, tmp_path: Path, attention: str
) -> None:
    alone, _, rows = built(tmp_path / "alone", config(student, method="full", attention=attention, packing=False))
    packed, setup, _ = built(
        tmp_path / "packed", config(student, method="full", attention=attention, packing=True, packing_length=300)
    )
    assert setup.packed == 300 and len(packed.train_dataset) < len(alone.train_dataset) / 2
    assert sum(map(len, packed.train_dataset["input_ids"])) == sum(r.tokens for r in rows)
    (loss, gradients), (packed_loss, packed_gradients) = loss_and_gradients(alone), loss_and_gradients(packed)
    assert packed_loss == pytest.approx(loss, rel=1e-5)
    assert gradients.keys() == packed_gradients.keys() and len(gradients) > 10
    for name, gradient in gradients.items():
        assert torch.allclose(packed_gradients[name], gradient, rtol=1e-3, atol=1e-3 * gradient.abs().max()), name


def test_a_step_of_packed_sequences_sees_about_as_many_rows(student: Path, tmp_path: Path) -> None:
    settings = config(student, packing=True)
    _, setup, rows = built(tmp_path, settings)
    assert setup.packed is not None
    a_step = setup.packed * setup.batch_size * setup.accumulation
    wanted = settings.batch_size * settings.gradient_accumulation * sum(r.tokens for r in rows) / len(rows)
    assert 0.6 * wanted < a_step < 1.6 * wanted
    assert steps_per_epoch(60, Setup(**{**setup.to_json(), "batch_size": 4, "accumulation": 2})) == 8


def test_a_packed_training_says_how_full_its_sequences_are(student: Path, tmp_path: Path) -> None:
    rows = [row(i, answer="It holds water. " * (1 + i * 7 % 23)) for i in range(120)]
    run = filtered_run(tmp_path / "run", rows)
    result = train(run, config(student, packing=True, packing_length=512, epochs=1))
    report = report_of(result)
    assert report["rows"]["train"] == 120 and report["tokens"]["seen"] == report["tokens"]["train"]
    assert report["packing"]["sequences"] < 60 and 0.9 < report["packing"]["efficiency"] <= 1
    assert report["setup"]["packed"] == 512 and report["dropped"] == report["cut"] == []


def test_a_packing_length_that_a_row_does_not_fit_is_refused(student: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--packing-length: a row has \d+ tokens and would not fit a sequence of 16"):
        built(tmp_path / "short", config(student, packing=True, packing_length=16))
    with pytest.raises(ConfigError, match="--packing-length: nothing is packed here; add --packing"):
        built(tmp_path / "none", config(student, packing=False, packing_length=512))
