"""TRL's own batches hold every row once, whole and labelled as preflight showed it; anything else is refused."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pytest
from transformers import AutoModelForCausalLM
from trl import SFTConfig, SFTTrainer

from synth.core.errors import RecordError
from synth.core.records import Message
from synth.core.resources import resource
from tune.config import TuneConfig
from tune.findings import Preflight
from tune.preflight import examine
from tune.proof import prove
from tune.quiet import quiet
from tune.rows import IGNORED, Dataset, Row
from tune.student import open_student

USER, ASSISTANT = (partial(Message, role) for role in ("user", "assistant"))
LENGTH = 96


def rows(count: int) -> tuple[Row, ...]:
    made: list[Row] = []
    for i in range(count):
        asked, told = USER(f"How much water does kettle {i} hold?"), ASSISTANT("It holds water. " * (1 + i % 5))
        turns = (told, USER("And what else?"), ASSISTANT("Nothing.")) if i % 7 == 0 else (told,)
        plain = Row(f"r{i}", f"d{i}", "" if i % 2 else f"Kettle {i}:", " It is red." * (1 + i % 3))
        made.append(plain if i % 3 == 0 else Row(f"r{i}", f"d{i}", (asked,), turns))
    return tuple(made)


@pytest.fixture(scope="module")
def preflight() -> Preflight:
    twice = (Row("same1", "d", "", "It is red."), Row("same2", "d", "", "It is red."))
    return examine(Dataset((*rows(40), *twice), (), {}), open_student("bundled"), TuneConfig())


def trainer_of(preflight: Preflight, folder: Path, *, packed: bool, length: int | None = None) -> SFTTrainer:
    table = datasets.Dataset.from_list(
        [{"id": one.row.id, "input_ids": list(one.ids), "labels": list(one.labels)} for one in preflight.train]
    )
    with quiet(folder / "log"):
        return SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(resource("demo", "models") / "student"),
            args=SFTConfig(
                output_dir=str(folder / "out"),
                max_length=length,
                packing=packed,
                report_to="none",
                bf16=False,
                use_cpu=True,
            ),
            processing_class=open_student("bundled").tokenizer,
            train_dataset=table,
        )


@pytest.fixture(scope="module")
def unpacked(preflight: Preflight, tmp_path_factory: pytest.TempPathFactory) -> SFTTrainer:
    return trainer_of(preflight, tmp_path_factory.mktemp("unpacked"), packed=False)


@pytest.fixture(scope="module")
def packed(preflight: Preflight, tmp_path_factory: pytest.TempPathFactory) -> SFTTrainer:
    return trainer_of(preflight, tmp_path_factory.mktemp("packed"), packed=True, length=LENGTH)


def test_unpacked_batches_hold_every_row_whole(preflight: Preflight, unpacked: SFTTrainer) -> None:
    proof = prove(unpacked.train_dataset, unpacked.data_collator, preflight.train, packed=False)
    totals = preflight.totals["train"]
    assert (proof.rows, proof.sequences, proof.tokens) == (42, 42, totals.tokens)
    # The labels counted by another way, in TRL's batch of all rows.
    batch = unpacked.data_collator(list(unpacked.train_dataset))
    assert proof.labelled == int((batch["labels"] != IGNORED).sum()) == totals.labelled


def test_packed_batches_hold_every_row_whole_in_fewer_sequences(preflight: Preflight, packed: SFTTrainer) -> None:
    proof = prove(packed.train_dataset, packed.data_collator, preflight.train, packed=True, length=LENGTH)
    assert proof.tokens == preflight.totals["train"].tokens == sum(map(len, packed.train_dataset["input_ids"]))
    assert proof.sequences == len(packed.train_dataset) < proof.rows == 42
    assert proof.longest <= LENGTH
    assert proof.efficiency == proof.tokens / (proof.sequences * LENGTH) > 0.9


def cut(example: dict[str, Any]) -> dict[str, Any]:
    return {"input_ids": example["input_ids"][:-2], "labels": example["labels"][:-2]}


def unmask(example: dict[str, Any]) -> dict[str, Any]:
    return {"labels": example["input_ids"]}


def mask(example: dict[str, Any]) -> dict[str, Any]:
    return {"labels": [*example["labels"][:-2], IGNORED, example["labels"][-1]]}


def other(example: dict[str, Any]) -> dict[str, Any]:
    return {"input_ids": [example["input_ids"][0], 7, *example["input_ids"][2:]]}


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (cut, r"row r0: TRL would train on \d+ of its \d+ tokens"),
        (unmask, "row r0: tokens of the prompt are labelled, the student would learn to write questions"),
        (mask, "row r0: a part of the completion is masked"),
        (other, "row r0: TRL would train on other tokens"),
    ],
)
def test_unpacked_batches_that_are_not_the_rows_are_refused(
    preflight: Preflight, unpacked: SFTTrainer, tmp_path: Path, spoil: Callable[..., dict[str, Any]], fault: str
) -> None:
    with quiet(tmp_path / "log"):
        spoiled = unpacked.train_dataset.map(spoil)
    with pytest.raises(RecordError, match=fault):
        prove(spoiled, unpacked.data_collator, preflight.train, packed=False)


def test_rows_that_vanish_or_change_places_are_refused(preflight: Preflight, unpacked: SFTTrainer) -> None:
    table = unpacked.train_dataset
    with pytest.raises(RecordError, match="TRL kept 41 of 42 rows"):
        prove(table.select(range(41)), unpacked.data_collator, preflight.train, packed=False)
    with pytest.raises(RecordError, match="row r0: TRL put another row in its place"):
        prove(table.select([1, 0, *range(2, 42)]), unpacked.data_collator, preflight.train, packed=False)


@pytest.mark.parametrize("spoil", [unmask, mask, other])
def test_packed_sequences_that_are_not_the_rows_are_refused(
    preflight: Preflight, packed: SFTTrainer, tmp_path: Path, spoil: Callable[..., dict[str, Any]]
) -> None:
    with quiet(tmp_path / "log"):
        spoiled = packed.train_dataset.map(spoil)
    with pytest.raises(RecordError, match=r"packing lost, cut or relabelled \d+ rows: .* that no row is like"):
        prove(spoiled, packed.data_collator, preflight.train, packed=True)


def test_what_packing_cuts_in_silence_or_leaves_out_is_named(
    preflight: Preflight, packed: SFTTrainer, tmp_path: Path
) -> None:
    longest = max(preflight.train, key=lambda row: row.tokens)
    short = trainer_of(preflight, tmp_path, packed=True, length=longest.tokens - 1)
    with pytest.raises(RecordError, match=f"relabelled .*{longest.row.id}.*--packing-length must hold the longest one"):
        prove(short.train_dataset, short.data_collator, preflight.train, packed=True)
    table = packed.train_dataset
    with pytest.raises(RecordError, match=r"packing lost, cut or relabelled \d+ rows?: "):
        prove(table.select(range(1, len(table))), packed.data_collator, preflight.train, packed=True)
    with pytest.raises(RecordError, match=r"packing added \d+ rows?"):
        prove(table.select([*range(len(table)), 0]), packed.data_collator, preflight.train, packed=True)


def test_packed_rows_that_would_read_each_other_are_refused(preflight: Preflight, packed: SFTTrainer) -> None:
    def run_on(examples: list[dict[str, Any]]) -> dict[str, Any]:
        return packed.data_collator([{**one, "seq_lengths": [sum(one["seq_lengths"])]} for one in examples])

    with pytest.raises(RecordError, match="rows that share a packed sequence would read each other"):
        prove(packed.train_dataset, run_on, preflight.train, packed=True)
