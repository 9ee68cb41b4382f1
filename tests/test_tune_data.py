"""The dataset's rows are read, measured and refused with their ids; none is cut."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from synth.core.errors import RecordError, RunError
from synth.core.jsonl import write_jsonl
from synth.core.runs import Run, StageEntry
from tests.runs_for_tests import CHATML, filtered_run, row, tiny_student
from tune.data import measure, read_dataset, within


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_student(tmp_path_factory.mktemp("tokenizer") / "student"))


def test_rows_come_back_as_the_filter_wrote_them(tmp_path: Path) -> None:
    dataset = read_dataset(filtered_run(tmp_path / "run"))
    assert [r.id for r in dataset.train] == [f"row-{i:03d}" for i in range(12)]
    assert {r.document_id for r in dataset.validation} == {"lamp.txt"}
    assert {name: digest.rows for name, digest in dataset.inputs.items()} == {
        "dataset/train.jsonl": 12,
        "dataset/validation.jsonl": 3,
    }


def test_a_run_without_a_filter_stage_names_the_command_that_makes_one(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    with pytest.raises(RunError, match="run `synth filter .*run` first"):
        read_dataset(run)


def test_a_file_edited_by_hand_is_refused(tmp_path: Path) -> None:
    run = filtered_run(tmp_path / "run")
    run.train_path.write_text(run.train_path.read_text().replace("1.7", "2.7"))
    with pytest.raises(RunError, match=r"train\.jsonl: the file is not the one that the filter wrote"):
        read_dataset(run)


def test_a_missing_validation_file_is_refused_unless_the_filter_wrote_none(tmp_path: Path) -> None:
    run = filtered_run(tmp_path / "run")
    run.validation_path.unlink()
    with pytest.raises(RunError, match=r"validation\.jsonl"):
        read_dataset(run)
    entry = run.stages()["filter"]
    kept = {name: d for name, d in entry.outputs.items() if "validation" not in name}
    run.finish_stage("filter", StageEntry(config={}, outputs=kept))
    assert read_dataset(run).validation == ()


def test_no_row_to_train_on_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no row to train on"):
        read_dataset(filtered_run(tmp_path / "run", train=[]))


def test_a_document_on_both_sides_of_the_split_is_named(tmp_path: Path) -> None:
    run = filtered_run(tmp_path / "run", validation=[row(1, "kettle.md")])
    with pytest.raises(RunError, match=r"1 document: kettle\.md stand"):
        read_dataset(run)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"completion": [{"role": "assistant", "content": "  \n"}]}, "row row-001: the completion is empty"),
        ({"completion": []}, "row row-001: the completion is not one assistant turn"),
        ({"completion": [{"role": "user", "content": "x"}]}, "row row-001: the completion is not one assistant turn"),
        ({"prompt": []}, "row row-001: the prompt is empty"),
        ({"prompt": [{"role": "user"}]}, "not a row with id, document_id, prompt and completion"),
        ({"prompt": [{"role": "user", "content": 7}]}, "row row-001: the prompt is empty"),
    ],
)
def test_a_row_that_would_teach_nothing_is_refused_with_its_line(
    tmp_path: Path, change: dict[str, object], fault: str
) -> None:
    run = filtered_run(tmp_path / "run", train=[row(0), {**row(1), **change}])
    with pytest.raises(RecordError, match=rf"train\.jsonl:2: {fault}"):
        read_dataset(run)


def test_a_line_that_is_no_object_is_refused(tmp_path: Path) -> None:
    run = filtered_run(tmp_path / "run")
    digest = write_jsonl(run.train_path, ["text"])
    run.finish_stage("filter", StageEntry(config={}, outputs={"dataset/train.jsonl": digest}))
    run.validation_path.unlink()
    with pytest.raises(RecordError, match="not a row"):
        read_dataset(run)


def test_lengths_are_those_of_the_rendered_template(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    rows = read_dataset(filtered_run(tmp_path / "run")).train
    for measured in measure(rows, tokenizer):
        asked, told = measured.row.prompt[0].content, measured.row.completion[0].content
        prompt = f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n"
        assert measured.prompt_tokens == len(tokenizer(prompt)["input_ids"])
        assert measured.tokens == len(tokenizer(f"{prompt}{told}<|im_end|>\n")["input_ids"])


def test_rows_over_the_limit_are_named_or_set_apart_and_never_cut(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    rows = measure(read_dataset(filtered_run(tmp_path / "run")).train, tokenizer)
    limit = sorted(m.tokens for m in rows)[-3]
    fits, longer = within(rows, limit, drop=True)
    assert sorted(m.row.id for m in (*fits, *longer)) == sorted(m.row.id for m in rows)
    assert longer and all(m.tokens <= limit for m in fits) and all(m.tokens > limit for m in longer)
    with pytest.raises(RecordError, match=f"{longer[0].row.id} \\({longer[0].tokens} tokens\\).*--on-overflow drop"):
        within(rows, limit, drop=False)
    assert within(rows, None, drop=False) == (rows, [])


def test_many_long_rows_are_counted_after_the_first_five(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    rows = measure(read_dataset(filtered_run(tmp_path / "run")).train, tokenizer)
    with pytest.raises(RecordError, match="12 rows: row-000 .*row-004 .* and 7 more"):
        within(rows, 2, drop=False)


def test_a_row_that_the_template_refuses_is_named(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    run = filtered_run(
        tmp_path / "run",
        train=[{**row(0), "prompt": [{"role": "system", "content": "Be brief."}, *row(0)["prompt"]]}],
        validation=[],
    )
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + CHATML
    tokenizer.chat_template, own = refuses, tokenizer.chat_template
    try:
        with pytest.raises(RecordError, match=r"row row-000: .*refuses it \(no system turn\); .*--chat-template plain"):
            measure(read_dataset(run).train, tokenizer)
    finally:
        tokenizer.chat_template = own


def test_a_prompt_that_reads_otherwise_before_its_completion_is_refused(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    rows = read_dataset(filtered_run(tmp_path / "run")).train
    thinks = CHATML.replace("assistant\\n", "assistant\\n<think>")
    tokenizer.chat_template, own = thinks, tokenizer.chat_template
    try:
        with pytest.raises(RecordError, match="row row-000: .*otherwise than before its completion"):
            measure(rows, tokenizer)
    finally:
        tokenizer.chat_template = own
