"""A student is opened or refused in plain words, and labels are proven on TRL's own batches."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from trl import SFTConfig, SFTTrainer

from synth.core.errors import ConfigError, RecordError
from tests.runs_for_tests import CHATML, filtered_run, row, tiny_student
from tune.config import TuneConfig
from tune.data import Measured, measure, read_dataset
from tune.preflight import check_labels
from tune.student import PLAIN_TEMPLATE, Student, open_student
from tune.trainer import StudentTrainer, Watch, build_trainer, quiet


def prepared(tmp_path: Path, student: Student, train: list[dict[str, Any]]) -> tuple[StudentTrainer, list[Measured]]:
    rows = measure(read_dataset(filtered_run(tmp_path / "run", train, [])).train, student.tokenizer)
    with quiet(tmp_path / "log"):
        trainer = build_trainer(
            student,
            TuneConfig(batch_size=2),
            {"train": rows, "validation": []},
            precision="fp32",
            checkpoints=tmp_path / "checkpoints",
            seal="",
            watch=Watch(None, 60),
        )
    return trainer, rows


def test_every_row_is_masked_up_to_its_answer_and_labelled_through_the_stop_token(tmp_path: Path) -> None:
    student = open_student(str(tiny_student(tmp_path / "student")))
    trainer, rows = prepared(tmp_path, student, [row(i) for i in range(6)])
    labels = check_labels(trainer.train_dataset, trainer.data_collator, rows, student)
    assert (labels.rows, labels.stop_token, labels.stop_id) == (6, "<|im_end|>", student.tokenizer.eos_token_id)
    assert labels.tokens == sum(m.tokens for m in rows)
    # The same by another way: what is labelled in a batch of TRL's reads as the answer and its stop token.
    batch = trainer.data_collator([dict(trainer.train_dataset[i]) for i in range(6)])
    for m, line in zip(rows, batch["labels"].tolist(), strict=True):
        read = student.tokenizer.decode([token for token in line if token != -100])
        assert read == f"{m.row.completion[0].content}<|im_end|>\n"
    assert labels.labelled == int((batch["labels"] != -100).sum())


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        (CHATML.replace("m['content'] + '<|im_end|>\\n'", "m['content'] + '\\n'"), "would never learn to stop"),
        (
            "{% for m in messages if m['role'] == 'user' %}{{ m['content'] + '<|im_end|>' }}{% endfor %}",
            "all its labels are masked",
        ),
    ],
)
def test_a_template_that_teaches_no_stop_fails_before_training(tmp_path: Path, template: str, fault: str) -> None:
    student = open_student(str(tiny_student(tmp_path / "student", template=template)))
    trainer, rows = prepared(tmp_path, student, [row(0), row(1)])
    with pytest.raises(RecordError, match=f"row row-000: .*{fault}.*--chat-template plain"):
        check_labels(trainer.train_dataset, trainer.data_collator, rows, student)


def test_an_answer_that_spells_the_stop_token_is_refused(tmp_path: Path) -> None:
    student = open_student(str(tiny_student(tmp_path / "student")))
    trainer, rows = prepared(tmp_path, student, [row(0), row(1, answer="It holds<|im_end|> water.")])
    with pytest.raises(RecordError, match="row row-001: .*stop token in the middle"):
        check_labels(trainer.train_dataset, trainer.data_collator, rows, student)


def spoil_cut(example: dict[str, Any]) -> dict[str, Any]:
    return {"input_ids": example["input_ids"][:-2], "labels": example["labels"][:-2]}


def spoil_prompt(example: dict[str, Any]) -> dict[str, Any]:
    return {"labels": example["input_ids"]}


def spoil_answer(example: dict[str, Any]) -> dict[str, Any]:
    return {"labels": [*example["labels"][:-3], -100, *example["labels"][-2:]]}


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (spoil_cut, "TRL would train on"),
        (spoil_prompt, "learn to write questions"),
        (spoil_answer, "part of the completion is masked"),
    ],
)
def test_batches_that_are_not_the_rows_are_refused(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], dict[str, Any]], fault: str
) -> None:
    student = open_student(str(tiny_student(tmp_path / "student")))
    trainer, rows = prepared(tmp_path, student, [row(0), row(1)])
    with quiet(tmp_path / "log"):
        spoiled = trainer.train_dataset.map(spoil)
    with pytest.raises(RecordError, match=f"row row-000: .*{fault}"):
        check_labels(spoiled, trainer.data_collator, rows, student)
    with pytest.raises(RecordError, match="TRL kept 1 of 2 rows"):
        check_labels(trainer.train_dataset.select([0]), trainer.data_collator, rows, student)
    with pytest.raises(RecordError, match="row row-000: TRL put another row in its place"):
        check_labels(trainer.train_dataset.select([1, 0]), trainer.data_collator, rows, student)


def test_trl_alone_would_have_cut_the_row_that_preflight_keeps_whole(tmp_path: Path) -> None:
    """The pain this project guards against, shown on TRL's own trainer with its usual kind of limit."""
    student = open_student(str(tiny_student(tmp_path / "student")))
    trainer, rows = prepared(tmp_path, student, [row(0), row(1)])
    with quiet(tmp_path / "log"):
        cutting = SFTTrainer(
            model=trainer.model.get_base_model(),
            args=SFTConfig(
                output_dir=str(tmp_path / "out"),
                max_length=rows[0].tokens - 2,
                report_to="none",
                bf16=False,
                use_cpu=True,
            ),
            processing_class=student.tokenizer,
            train_dataset=trainer.train_dataset.select_columns(["id", "prompt", "completion"]),
        )
    with pytest.raises(RecordError, match="TRL would train on"):
        check_labels(cutting.train_dataset, cutting.data_collator, rows, student)


def test_a_base_model_without_a_template_gets_the_plain_one(tmp_path: Path) -> None:
    student = open_student(str(tiny_student(tmp_path / "student", template=None)))
    assert (student.template, student.tokenizer.chat_template) == ("plain", PLAIN_TEMPLATE)
    trainer, rows = prepared(tmp_path, student, [row(0), row(1)])
    assert check_labels(trainer.train_dataset, trainer.data_collator, rows, student).stop_token == "<|im_end|>"


def test_the_plain_template_ends_turns_with_the_students_own_token(tmp_path: Path) -> None:
    folder = tiny_student(tmp_path / "student")
    settings = json.loads((folder / "tokenizer_config.json").read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "eos_token": "<|endoftext|>"}))
    (folder / "generation_config.json").unlink()
    own, plain = open_student(str(folder)), open_student(str(folder), template="plain")
    assert own.template == "own" and plain.stop_ids == {plain.tokenizer.convert_tokens_to_ids("<|endoftext|>")}
    # With its own template the turn ends in <|im_end|>, on which this base never stops: the well-known trap.
    trainer, rows = prepared(tmp_path, own, [row(0), row(1)])
    with pytest.raises(RecordError, match=r"'<\|im_end\|>', and the student stops only on '<\|endoftext\|>'"):
        check_labels(trainer.train_dataset, trainer.data_collator, rows, own)
    (tmp_path / "plain").mkdir()
    trainer, rows = prepared(tmp_path / "plain", plain, [row(0), row(1)])
    assert check_labels(trainer.train_dataset, trainer.data_collator, rows, plain).stop_token == "<|endoftext|>"


def test_a_students_name_is_no_path_and_its_revision_follows_its_files(tmp_path: Path) -> None:
    folder = tiny_student(tmp_path / "my-student")
    before = open_student(str(folder))
    context = json.loads((folder / "config.json").read_text())["max_position_embeddings"]
    assert (before.name, before.local, before.context) == ("my-student", True, context)
    (folder / "chat_template.jinja").write_text(CHATML + " ")
    assert open_student(str(folder)).revision != before.revision


def test_a_folder_that_is_not_there_names_its_near_matches(tmp_path: Path) -> None:
    tiny_student(tmp_path / "student")
    with pytest.raises(ConfigError, match=r"no such model folder; did you mean student\?"):
        open_student(str(tmp_path / "studnet"))


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config\.json"):
        open_student(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="this is an adapter; name the model it was trained for"):
        open_student(str(tmp_path))


def test_a_hub_student_that_is_neither_cached_nor_reachable_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="some-org/some-model-1b: .*`hf download some-org/some-model-1b`"):
        open_student("some-org/some-model-1b")


def test_a_model_with_code_of_its_own_is_refused(tmp_path: Path) -> None:
    folder = tiny_student(tmp_path / "student")
    config = json.loads((folder / "config.json").read_bytes())
    strange = {**config, "model_type": "strange", "auto_map": {"AutoConfig": "strange.StrangeConfig"}}
    (folder / "config.json").write_text(json.dumps(strange))
    (folder / "strange.py").write_text("raise SystemExit('this ran')\n")
    with pytest.raises(ConfigError, match="Python code of its own, which is never run here"):
        open_student(str(folder))


def test_a_tokenizer_without_an_end_of_sequence_token_is_refused(tmp_path: Path) -> None:
    folder = tiny_student(tmp_path / "student")
    settings = json.loads((folder / "tokenizer_config.json").read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "eos_token": None}))
    with pytest.raises(ConfigError, match="could never stop"):
        open_student(str(folder))
