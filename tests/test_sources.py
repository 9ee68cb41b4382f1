"""Rows of other makers: every format read as its maker meant it, every wrong row named with its line, none left out."""

import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synth.core.errors import ConfigError, RecordError, RunError
from synth.core.records import Message
from synth.export import ExportConfig, run_export
from tests.conftest import CHECKOUT
from tests.dataset_hub import dataset_hub, hub_environment
from tests.export_runs import decided_run, pair
from tune.data import read_dataset
from tune.formats import to_row
from tune.rows import Row
from tune.sources import Source, open_source, same_on_both_sides, with_unique_ids

USER, ANSWER = {"role": "user", "content": "How much?"}, {"role": "assistant", "content": "40 pounds."}


def lines(path: Path, rows: Sequence[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def asked(row: Row) -> list[str]:
    assert not isinstance(row.prompt, str)
    return [f"{m.role}: {m.content}" for m in row.prompt]


def told(row: Row) -> list[str]:
    assert not isinstance(row.completion, str)
    return [f"{m.role}: {m.content}" for m in row.completion]


@pytest.mark.parametrize(
    ("value", "prompt", "completion"),
    [
        ({"messages": [USER, ANSWER]}, ["user: How much?"], ["assistant: 40 pounds."]),
        ({"prompt": [USER], "completion": [ANSWER]}, ["user: How much?"], ["assistant: 40 pounds."]),
        (
            {"messages": [USER, ANSWER, {"role": "user", "content": "And now?"}, ANSWER]},
            ["user: How much?"],
            ["assistant: 40 pounds.", "user: And now?", "assistant: 40 pounds."],
        ),
        (
            {
                "conversations": [
                    {"from": "system", "value": "Be brief."},
                    {"from": "human", "value": "How much?"},
                    {"from": "gpt", "value": "40."},
                ]
            },
            ["system: Be brief.", "user: How much?"],
            ["assistant: 40."],
        ),
        (
            {"system": "Be brief.", "conversations": [{"from": "human", "value": "How much?"}, ANSWER]},
            ["system: Be brief.", "user: How much?"],
            ["assistant: 40 pounds."],
        ),
        (
            {"instruction": "Add.", "input": "2 and 3", "output": "5"},
            ["user: Add.\n\n2 and 3"],
            ["assistant: 5"],
        ),
        (
            {"instruction": "And two?", "output": "80", "system": "Be brief.", "history": [["How much?", "40"]]},
            ["system: Be brief.", "user: How much?"],
            ["assistant: 40", "user: And two?", "assistant: 80"],
        ),
        ({"instruction": "Greet.", "input": "", "output": "Hello"}, ["user: Greet."], ["assistant: Hello"]),
        ({"instruction": "Greet.", "output": "Hello", "text": "### whole"}, ["user: Greet."], ["assistant: Hello"]),
        ({"prompt": "a", "prompt_id": "x", "messages": [USER, ANSWER]}, ["user: How much?"], ["assistant: 40 pounds."]),
    ],
)
def test_a_conversation_of_any_maker_is_split_before_its_first_answer(
    value: dict[str, Any], prompt: list[str], completion: list[str]
) -> None:
    row = to_row(value, "x.jsonl")
    assert (asked(row), told(row), row.source) == (prompt, completion, "x.jsonl")


@pytest.mark.parametrize(
    ("value", "prompt", "completion"),
    [
        ({"prompt": "How much? ", "completion": " 40"}, "How much? ", " 40"),
        ({"text": "The lamp costs 40 pounds."}, "", "The lamp costs 40 pounds."),
        ({"text": "The lamp.", "prompt": None, "messages": None}, "", "The lamp."),
    ],
)
def test_plain_text_stays_plain_text(value: dict[str, Any], prompt: str, completion: str) -> None:
    row = to_row(value, "x")
    assert (row.prompt, row.completion, row.conversational) == (prompt, completion, False)


def test_a_row_keeps_its_names_and_scores_and_else_gets_names_from_its_content() -> None:
    row = to_row({"id": 7, "document_id": "kettle.md", "text": "x", "scores": {"a": 1, "b": None, "c": "good"}}, "x")
    assert (row.id, row.document_id, row.scores) == ("7", "kettle.md", {"a": 1.0, "b": None})
    one, other = (to_row({"prompt": "How  MUCH?", "completion": told}, "x") for told in ("40", "41"))
    assert one.id != other.id and one.document_id == other.document_id
    assert one.document_id == to_row({"prompt": "how much?", "completion": "42"}, "x").document_id
    assert len({to_row({"text": text}, "x").document_id for text in ("one", "two")}) == 2


TURN = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "a preference pair .*; name the column 'completion'"),
        (
            {"question": "a", "answer": "b"},
            "columns are answer, question; rename 'answer' to 'completion' and 'question'",
        ),
        ({"promt": "a", "completion": "b"}, "columns are completion, promt; rename 'promt' to 'prompt'"),
        ({"prompt": "a", "completion": None}, "'completion' is null"),
        ({"prompt": " ", "completion": "b"}, "the prompt is empty; to learn every token"),
        ({"prompt": "a", "completion": "\n"}, "the completion is empty"),
        ({"prompt": [TURN], "completion": "b"}, "the prompt is a list and the completion is text"),
        ({"prompt": [], "completion": [ANSWER]}, "the prompt is empty"),
        ({"prompt": [TURN, ANSWER], "completion": [ANSWER]}, "the prompt ends with an assistant turn"),
        ({"prompt": [TURN], "completion": []}, "the completion is empty; start it with an assistant turn"),
        ({"prompt": [TURN], "completion": [TURN]}, "the completion starts with a user turn"),
        ({"messages": [ANSWER]}, "the prompt is empty"),
        ({"messages": [TURN]}, "the conversation has no assistant turn"),
        ({"messages": []}, "the conversation has no assistant turn"),
        ({"messages": [TURN, ANSWER, TURN]}, "the conversation ends with a user turn"),
        ({"messages": [TURN, {"role": "assistant", "content": " "}]}, "the completion is empty"),
        ({"messages": [TURN, {"role": "assistant", "content": ""}, TURN, ANSWER]}, "an assistant turn is empty"),
        ({"messages": "hello"}, "'messages' is not a list of turns but text"),
        ({"messages": [TURN, "hello"]}, "turn 2 of 'messages' is not an object but text"),
        ({"messages": [{"content": "x"}]}, "turn 1 of 'messages' has no role"),
        ({"messages": [{"role": "asistant", "content": "x"}]}, "unknown role 'asistant'; did you mean assistant"),
        ({"messages": [TURN, {"role": "tool", "content": "x"}]}, r"turn 2 of 'messages' is of a tool \(tool\)"),
        ({"messages": [TURN, {"role": "assistant", "tool_calls": [{}]}]}, "has 'tool_calls': tools are not trained on"),
        (
            {"messages": [TURN, {**ANSWER, "reasoning_content": "Hm."}]},
            "has 'reasoning_content': put it in the content",
        ),
        ({"messages": [TURN, {**ANSWER, "weight": 0}]}, "turn 2 of 'messages' has weight 0"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "is not text but a list; only text"),
        ({"messages": [{"role": "user", "content": None}]}, "is not text but null"),
        ({"messages": [TURN, ANSWER], "tools": [{"name": "f"}]}, "the row has 'tools': tools are not trained on"),
        ({"messages": [TURN, ANSWER], "images": ["x.png"]}, "the row has 'images': only text is trained on"),
        ({"text": "a", "history": [["c", "d"]]}, "the row has 'history'"),
        ({"instruction": "a", "output": "b", "history": ["c"]}, "entry 1 of 'history' is not a question and an answer"),
        ({"text": "  "}, "the text is empty"),
        ({"text": 7}, "the text is not text but a number"),
        ({}, "of no known format: its columns are none"),
        ([1], "not an object but a list"),
        (True, "not an object but true or false"),
    ],
)
def test_a_row_that_cannot_be_trained_on_says_why(value: object, fault: str) -> None:
    with pytest.raises(RecordError, match=fault):
        to_row(value, "x")


def test_empty_columns_of_tools_and_images_do_not_count() -> None:
    assert to_row({"text": "x", "tools": [], "images": None, "chat_template_kwargs": {}}, "x").completion == "x"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
COLUMN = st.sampled_from(["messages", "conversations", "prompt", "completion", "instruction", "output", "text", "id"])
TURNS = st.lists(
    st.fixed_dictionaries(
        {}, optional={"role": JSON | st.sampled_from(["user", "assistant"]), "content": JSON, "from": JSON}
    ),
    max_size=3,
)


@given(value=st.dictionaries(COLUMN, JSON | TURNS, max_size=4) | JSON)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_json_is_a_row_with_something_to_learn_or_a_plain_error(value: object) -> None:
    try:
        row = to_row(value, "x")
    except RecordError as error:
        assert error.what and error.fix
        return
    if isinstance(row.completion, str):
        assert row.completion.strip() and isinstance(row.prompt, str)
    else:
        assert row.completion[0].role == row.completion[-1].role == "assistant"
        assert all(m.content.strip() for m in row.completion if m.role == "assistant") and row.prompt
    assert row.id and row.document_id


def test_every_wrong_row_of_a_file_is_counted_and_the_first_five_are_named(tmp_path: Path) -> None:
    good = {"text": "fine"}
    path = lines(tmp_path / "x.jsonl", [good, *[{"text": ""}] * 3, good, *[{"a": 1}] * 4])
    with pytest.raises(RecordError) as caught:
        open_source(str(path), flag="--data")
    said = str(caught.value)
    assert said.startswith(f"{path}: 7 of 9 rows cannot be trained on. Line 2: the text is empty; 3: ")
    assert "; 7: of no known format" in said and "8: " not in said and "; and 2 more; remove the row" in said


def test_one_wrong_row_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a"}\n\n{"text": "torn')
    with pytest.raises(RecordError, match=r"x\.jsonl:3: not valid JSON .*; mend or remove the line"):
        open_source(str(path), flag="--data")


def test_a_file_is_a_source_without_a_split_and_its_digest_counts_its_rows(tmp_path: Path) -> None:
    path = lines(tmp_path / "x.jsonl", [{"text": "a"}, {"text": "b"}])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    source = open_source(str(path), flag="--data")
    assert [row.completion for row in source.train] == ["a", "b"] and source.validation is None
    (name, digest), *rest = source.inputs.items()
    assert (name, digest.rows, rest) == ("x.jsonl", 2, [])
    assert digest.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_array_and_a_parquet_file_give_the_rows_of_the_lines(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"id": f"r{n}", "messages": [USER, ANSWER], "weight": n} for n in range(2500)]
    (tmp_path / "x.json").write_text(json.dumps(rows))
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet")
    lines(tmp_path / "lines.json", rows)
    lines(tmp_path / "x.jsonl", rows)
    found = {name: open_source(str(tmp_path / name), flag="--data") for name in ("x.json", "x.parquet", "lines.json")}
    wanted = open_source(str(tmp_path / "x.jsonl"), flag="--data").train
    for name, source in found.items():
        assert [(r.id, r.prompt, r.completion) for r in source.train] == [
            (r.id, r.prompt, r.completion) for r in wanted
        ]
        assert [d.rows for d in source.inputs.values()] == [2500], name


@pytest.mark.parametrize("name", ["x.json", "x.parquet", "x.jsonl"])
def test_files_of_other_content_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"[\x00\xff rubbish")
    with pytest.raises((RecordError, RunError), match=r"x\.(json|parquet|jsonl)(:1)?: (not valid JSON|cannot be read)"):
        open_source(str(tmp_path / name), flag="--data")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("\n")
    with pytest.raises(RecordError, match=r"x\.jsonl: there is no row"):
        open_source(str(tmp_path / "x.jsonl"), flag="--data")


def test_a_folder_with_a_validation_file_keeps_its_split(tmp_path: Path) -> None:
    lines(tmp_path / "mine" / "train.jsonl", [{"text": "a"}])
    lines(tmp_path / "mine" / "validation.jsonl", [{"text": "b"}])
    source = open_source(str(tmp_path / "mine"), flag="--data")
    assert source.validation is not None and [row.completion for row in source.validation] == ["b"]
    assert sorted(source.inputs) == ["mine/train.jsonl", "mine/validation.jsonl"]
    assert open_source(str(tmp_path / "mine"), flag="--replay", training_only=True).validation is None


@pytest.mark.parametrize("name", ["messages", "prompt-completion", "sharegpt", "alpaca", "parquet"])
def test_what_synth_export_writes_is_read_as_the_rows_it_was_made_of(tmp_path: Path, name: str) -> None:
    turns = [Message("system", "Be brief."), Message("user", "How much is the lamp?")]
    run = decided_run(tmp_path / "run", [pair(n, prompt=turns if n % 2 else None) for n in range(12)])
    summary = run_export(run, ExportConfig.model_validate({"format": name}))
    read, made = open_source(str(summary.folder), flag="--data"), read_dataset(run)
    for rows, wanted in ((read.train, made.train), (read.validation or (), made.validation)):
        assert [(row.prompt, row.completion) for row in rows] == [(row.prompt, row.completion) for row in wanted]
    assert len(read.train) == 9


def test_shards_as_the_hub_has_them_are_one_source(tmp_path: Path) -> None:
    for number in range(2):
        lines(tmp_path / "mine" / "data" / f"train-0000{number}-of-00002.jsonl", [{"text": f"a{number}"}])
    lines(tmp_path / "mine" / "training-notes.jsonl", [{"no": "row"}])
    source = open_source(str(tmp_path / "mine"), flag="--data")
    assert [row.completion for row in source.train] == ["a0", "a1"] and len(source.inputs) == 2


def test_questions_on_both_sides_are_told_with_their_ids() -> None:
    def row(name: str, question: str) -> Row:
        return Row(name, name, (Message("user", question),), (Message("assistant", "x"),))

    source = Source("x", (row("a", "How much?"), row("b", "Why?")), (row("c", " how MUCH? "), row("d", "When?")), {})
    assert same_on_both_sides(source) == "1 validation row asks what a training row asks: c ('how MUCH?') as a"


def test_ids_that_stood_before_get_a_number() -> None:
    rows = tuple(Row(name, "d", "q", "a") for name in ("1", "1", "1#2", "1"))
    sources, renamed = with_unique_ids([Source("x", rows, None, {}), Source("y", rows[:1], rows[:1], {})])
    names = [row.id for source in sources for row in source.rows]
    assert names == ["1", "1#2", "1#2#2", "1#3", "1#4", "1#5"] and renamed == 5


@pytest.mark.parametrize("name", ["runs/manuls", "x.jsonl", "nothing", "/no/such/place", "a/b/c"])
def test_a_source_that_is_not_there_is_told_from_a_name_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "manuals").mkdir(parents=True)
    fix = "did you mean manuals" if name.startswith("runs") else "a dataset of the hub is owner/name"
    with pytest.raises(ConfigError, match=f"--mix {name}: there is no such file, folder or run; .*{fix}"):
        open_source(name, flag="--mix")


def test_a_folder_without_rows_says_what_it_should_hold(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no run\.json and no train\.jsonl"):
        open_source(str(tmp_path), flag="--data")


COMMIT = "ab" * 20


def hub_files() -> dict[str, bytes]:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def file(split: str, number: int) -> bytes:
        rows = [{"messages": [{**USER, "content": f"{split} {n}?"}, ANSWER], "other": n} for n in range(number)]
        buffer = io.BytesIO()
        parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
        return buffer.getvalue()

    splits = {"train": 10, "validation": 4, "test": 3}
    named = {f"data/{name}-00000-of-00001.parquet": file(name, number) for name, number in splits.items()}
    return {"README.md": b"---\nlicense: mit\n---\n", **named}


@pytest.fixture
def hub() -> Iterator[str]:
    """Serve the dataset me/lamps, and return the hub's address."""
    with dataset_hub("me/lamps", hub_files(), COMMIT) as address:
        yield address


ASK = """
import json, sys
from synth.core.errors import SynthError
from tune.sources import open_source
for spec in sys.argv[1:]:
    try:
        source = open_source(spec, flag="--data")
    except SynthError as error:
        print(json.dumps(f"{type(error).__name__}: {error}"))
        continue
    validation = None if source.validation is None else len(source.validation)
    inputs = {name: digest.rows for name, digest in source.inputs.items()}
    first = source.train[0].prompt[0].content
    shas = [digest.sha256 for digest in source.inputs.values()]
    print(json.dumps([len(source.train), validation, inputs, list(source.notes), first, shas]))
"""


def ask(hub: str, home: Path, *specs: str, **more: str) -> list[Any]:
    environment = {**hub_environment(hub, home), **more}
    done = subprocess.run(
        [sys.executable, "-c", ASK, *specs],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_dataset_of_the_hub_is_read_with_its_split_and_names_its_commit(tmp_path: Path, hub: str) -> None:
    pytest.importorskip("datasets")
    whole, part, prefixed, *refused = ask(
        hub, tmp_path, "me/lamps", "me/lamps@test[:2]", "hub:me/lamps:default", "me/lamps@tset", "me/nothing"
    )
    inputs, notes = {"me/lamps/train": 10, "me/lamps/validation": 4}, [f"me/lamps: commit {COMMIT[:12]} of the hub"]
    assert whole[:5] == [10, 4, inputs, notes, "train 0?"]
    assert part[:3] == [2, None, {"me/lamps@test[:2]": 2}] and part[4] == "test 0?"
    assert prefixed[0] == 10 and prefixed[5] == whole[5]
    assert refused[0].startswith("ConfigError: --data me/lamps: the dataset cannot be loaded (Unknown split")
    assert refused[1].startswith("ConfigError: --data me/nothing: the dataset cannot be loaded (Dataset 'me")
    # Without a network, what was loaded before has the same digest, and what was not is a plain error.
    again, unknown = ask("http://127.0.0.1:9", tmp_path, "me/lamps", "me/other", HF_HUB_OFFLINE="1")
    assert (again[:3], again[5]) == (whole[:3], whole[5])
    assert unknown.startswith("ConfigError: --data me/other: the dataset cannot be loaded")


def test_reading_rows_loads_no_heavy_library(tmp_path: Path) -> None:
    path = lines(tmp_path / "x.jsonl", [{"text": "a"}])
    code = (
        "import sys; from tune.data import open_dataset; from tune.sources import open_source; "
        f"open_source({str(path)!r}, flag='--data'); "
        "print(sorted({'torch', 'transformers', 'trl', 'datasets', 'pyarrow'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
