"""The export: rows that other tools read, a card that says the truth, files that are whole, and nothing overwritten."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from synth.core.errors import ConfigError, RecordError, RunError
from synth.core.jsonl import read_lines, write_jsonl
from synth.core.records import Message, Record
from synth.core.resources import resource
from synth.core.runs import Run, StageEntry
from synth.export import ExportConfig, ExportSummary, run_export
from synth.filter import FilterConfig, run_filter
from tests.conftest import CHECKOUT, Command
from tests.export_runs import decided_run, pair

FORMATS = ("messages", "prompt-completion", "alpaca", "sharegpt", "parquet")
JSONL = FORMATS[:4]

pytest.importorskip("pyarrow", reason="the extra `documents` is not installed")


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_lines(path)]


def export(run: Run, format: str, out: Path | None = None, **settings: object) -> ExportSummary:
    return run_export(run, ExportConfig.model_validate({"format": format, **settings}), out)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def front_of(folder: Path) -> dict[str, Any]:
    front: dict[str, Any] = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    return front


def conversation(number: int, scores: dict[str, float | None] | None = None) -> Record:
    turns = [
        Message("system", "Be brief."),
        Message("user", f"Is lamp {number} dear?"),
        Message("assistant", "No."),
        Message("user", "How much is it?"),
    ]
    return pair(number, "How much is it?", prompt=turns, scores=scores)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return decided_run(tmp_path / "run")


def test_each_format_writes_its_own_rows(run: Run) -> None:
    asked, told = "What does lamp 0 cost?", "0 pounds."
    user, assistant = {"role": "user", "content": asked}, {"role": "assistant", "content": told}
    first = {name: rows_of(export(run, name).folder / "train.jsonl")[0] for name in JSONL}
    assert first == {
        "messages": {"messages": [user, assistant]},
        "prompt-completion": {"prompt": [user], "completion": [assistant]},
        "alpaca": {"instruction": asked, "input": "", "output": told},
        "sharegpt": {"conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": told}]},
    }


def test_rows_are_those_of_the_dataset_in_its_order_and_splits(run: Run) -> None:
    summary = export(run, "prompt-completion")
    assert summary.rows == {"train": 12, "validation": 4}
    assert summary.folder == run.path / "exports" / "prompt-completion"
    for split, path in (("train", run.train_path), ("validation", run.validation_path)):
        wanted = [{k: row[k] for k in ("prompt", "completion")} for row in rows_of(path)]
        assert rows_of(summary.folder / f"{split}.jsonl") == wanted


def test_one_split_alone_is_exported_when_asked_for(run: Run) -> None:
    both = export(run, "messages")
    assert set(both.files) == {"train.jsonl", "validation.jsonl"}
    one = export(run, "messages", split=("validation",))
    assert one.files == ("validation.jsonl",)
    # The file that this export does not have any more would be loaded with the others.
    assert not (one.folder / "train.jsonl").exists()
    assert [entry["split"] for entry in front_of(one.folder)["configs"][0]["data_files"]] == ["validation"]


def test_system_turns_and_earlier_turns_are_kept_in_every_format(tmp_path: Path) -> None:
    run = decided_run(tmp_path / "run", [pair(0), conversation(1)], validation=())
    assert [m["role"] for m in rows_of(export(run, "messages").folder / "train.jsonl")[1]["messages"]] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    shared = rows_of(export(run, "sharegpt").folder / "train.jsonl")[1]["conversations"]
    assert [turn["from"] for turn in shared] == ["system", "human", "gpt", "human", "gpt"]
    summary = export(run, "alpaca")
    plain, talk = rows_of(summary.folder / "train.jsonl")
    assert plain == {**plain, "system": "", "history": [], "instruction": "What does lamp 0 cost?"}
    assert talk["system"] == "Be brief."
    assert talk["history"] == [["Is lamp 1 dear?", "No."]]
    assert talk["instruction"] == "How much is it?"
    assert summary.with_history == 1
    assert "1 rows are the last turn of a conversation" in (summary.folder / "README.md").read_text()


def test_turns_that_alpaca_cannot_say_are_counted_and_refused(tmp_path: Path) -> None:
    odd = pair(2, prompt=[Message("user", "One."), Message("user", "What does lamp 2 cost?")])
    run = decided_run(tmp_path / "run", [pair(0), odd, replace(odd, id="f" * 16)], validation=())
    with pytest.raises(RunError, match=rf"2 of 3 records have turns that alpaca cannot say \(the first is {odd.id}\)"):
        export(run, "alpaca")
    assert not (run.path / "exports" / "alpaca").exists()
    assert export(run, "sharegpt").rows == {"train": 3}


@pytest.mark.parametrize("format", JSONL)
def test_scores_and_origin_stand_in_jsonl_rows_when_asked_for(run: Run, format: str) -> None:
    row = rows_of(export(run, format, scores=True).folder / "train.jsonl")[1]
    assert {name: row[name] for name in ("document_id", "kind", "generator", "teacher")} == {
        "document_id": "lamps/1.md",
        "kind": "qa",
        "generator": "qa",
        "teacher": "org/teacher-7b",
    }
    assert row["scores"] == {"confidence": None, "groundedness": 0.51}


def test_parquet_has_typed_columns_with_the_scores_as_a_struct(run: Run) -> None:
    import pyarrow.parquet as parquet

    summary = export(run, "parquet")
    assert summary.files == ("data/train-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet")
    table = parquet.read_table(summary.folder / summary.files[0])
    types = {field.name: str(field.type) for field in table.schema}
    assert types["scores"] == "struct<confidence: double, groundedness: double>"
    assert types["id"] == "string"
    assert types["prompt"].startswith("list<") and "role: string" in types["prompt"]
    assert table.num_rows == 12
    assert table.to_pylist()[1]["scores"] == {"confidence": None, "groundedness": 0.51}
    lean = export(run, "parquet", scores=False)
    assert parquet.read_schema(lean.folder / lean.files[0]).names == ["prompt", "completion"]


@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize("format", FORMATS)
def test_datasets_loads_every_export_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, scores: bool
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    datasets = pytest.importorskip("datasets")
    # A first score of None all along would otherwise be guessed to be of no type.
    records = [conversation(0, scores={"a": None}), *(pair(n, scores={"a": None, "id": 1.0}) for n in range(1, 9))]
    summary = export(decided_run(tmp_path / "run", records), format, scores=scores)
    loaded = datasets.load_dataset(str(summary.folder), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == summary.rows
    if scores:
        assert loaded["train"][1]["scores"] == {"a": None, "id": 1.0}
    if format == "alpaca":
        assert loaded["train"][0]["history"] == [["Is lamp 0 dear?", "No."]]


@pytest.mark.parametrize("format", ["messages", "prompt-completion"])
def test_trl_renders_the_rows_with_the_template_of_the_bundled_student(tmp_path: Path, format: str) -> None:
    trl = pytest.importorskip("trl")
    transformers = pytest.importorskip("transformers")
    run = decided_run(tmp_path / "run", [pair(0), pair(1)], validation=())
    rows = rows_of(export(run, format).folder / "train.jsonl")
    tokenizer = transformers.AutoTokenizer.from_pretrained(resource("demo", "models") / "student")
    assert all(trl.is_conversational(row) for row in rows)
    shown = trl.apply_chat_template(rows[1], tokenizer)
    assert "What does lamp 1 cost?" in "".join(shown.values())
    assert "1 pounds." in shown["text" if format == "messages" else "completion"]


def test_the_card_reads_as_the_hub_reads_it_and_says_what_happened(tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    leak = pair(30, keep=False, reasons=("contaminated:q7",))
    records = [*(pair(n, keep=n % 5 != 4) for n in range(20)), leak]
    run = decided_run(tmp_path / "lamps-run", records, heldout=True)
    folder = export(run, "parquet", licence="CC-BY-4.0", language=("en",)).folder
    card = hub.DatasetCard.load(folder / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert card.data.language == ["en"]
    assert card.data.size_categories == ["n<1K"]
    assert card.data.to_dict()["configs"][0]["data_files"][0] == {"split": "train", "path": "data/train-*.parquet"}
    for said in (
        "`org/teacher-7b`, revision `0123abcd`",
        "documents read: 4",
        "passages: 20, of which 16 have rows here",
        "calls answered by the teacher: 20",
        "Of 21 generated records 16 were kept",
        "| `form` | 5 |",
        "- `groundedness >= 0.6`",
        "| `groundedness` | 16 | 0.5900 | 0.51 | 0.55 | 0.6 | 0.63 | 0.67 |",
        "Checked against 7 held-out questions",
        "1 of the generated records matched",
        "no document has rows in both",
        "| validation | 4 | 1 |",
        "not checked",
        'load_dataset("FOLDER")',
        "synth generate DOCS --teacher org/teacher-7b",
    ):
        assert said in card.content, said


def test_the_card_says_what_was_not_done(run: Run) -> None:
    text = (export(run, "messages").folder / "README.md").read_text()
    assert "the filter was given no held-out file" in text
    assert "No licence was stated" in text
    assert front_of(run.path / "exports" / "messages")["license"] == "unknown"


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("GPL-3.0-or-later", {"license": "gpl-3.0"}),
        ("LicenseRef-Acme-1", {"license": "other", "license_name": "licenseref-acme-1"}),
    ],
)
def test_a_licence_goes_on_the_card_as_the_hub_names_it(run: Run, given: str, fields: dict[str, str]) -> None:
    front = front_of(export(run, "messages", licence=given).folder)
    assert {name: front[name] for name in fields} == fields


def test_nothing_of_the_context_and_no_path_of_the_machine_gets_out(tmp_path: Path) -> None:
    local = str(tmp_path / "models" / "my-teacher")
    run = decided_run(tmp_path / "run", [pair(n, teacher=local) for n in range(8)], teacher=local)
    for format in FORMATS:
        folder = export(run, format, scores=True).folder
        whole = b"".join(bytes_of(folder).values())
        assert str(tmp_path).encode() not in whole
        assert b"SECRET CONTEXT" not in whole
    assert {row["teacher"] for row in rows_of(run.path / "exports/messages/train.jsonl")} == {"my-teacher"}
    assert "`my-teacher`" in (run.path / "exports/messages/README.md").read_text()


@pytest.mark.parametrize("format", FORMATS)
def test_running_again_gives_the_same_bytes(tmp_path: Path, run: Run, format: str) -> None:
    once = bytes_of(export(run, format).folder)
    assert bytes_of(export(run, format).folder) == once
    assert bytes_of(export(run, format, tmp_path / "elsewhere").folder) == once


def test_the_runs_own_files_stay_as_they_are(run: Run) -> None:
    before = bytes_of(run.path)
    export(run, "messages")
    after = {name: data for name, data in bytes_of(run.path).items() if not name.startswith("exports/")}
    assert {k: v for k, v in after.items() if k != ".lock"} == before


def test_a_big_split_becomes_numbered_files_of_equal_parts(tmp_path: Path) -> None:
    records = [pair(n, answer=f"{n} " + "x" * 9000, document=f"{n}.md") for n in range(301)]
    run = decided_run(tmp_path / "run", records, validation=("7.md",))
    for format, names in (
        ("messages", [f"train-{n:05d}-of-00003.jsonl" for n in range(3)]),
        ("parquet", [f"data/train-{n:05d}-of-00003.parquet" for n in range(3)]),
    ):
        summary = export(run, format, max_shard_mb=1)
        assert [name for name in summary.files if "train" in name] == names
    sizes = [len(rows_of(run.path / "exports/messages" / f"train-{n:05d}-of-00003.jsonl")) for n in range(3)]
    assert sizes == [100, 100, 100]
    assert front_of(run.path / "exports/messages")["configs"][0]["data_files"] == [
        {"split": "train", "path": "train-*.jsonl"},
        {"split": "validation", "path": "validation.jsonl"},
    ]
    # With bigger files the numbered ones are gone, or they would be loaded twice.
    assert {p.name for p in export(run, "messages").folder.glob("*.jsonl")} == {"train.jsonl", "validation.jsonl"}


def test_a_file_that_no_export_wrote_is_let_be(tmp_path: Path, run: Run) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "README.md").write_text("my notes")
    (out / "other.txt").write_text("mine too")
    with pytest.raises(RunError, match=r"README\.md: the file is there, and no export wrote it; move it away"):
        export(run, "messages", out)
    assert {p.name: p.read_text() for p in out.iterdir()} == {"README.md": "my notes", "other.txt": "mine too"}
    (out / "README.md").unlink()
    export(run, "messages", out)
    export(run, "messages", out)
    assert (out / "other.txt").read_text() == "mine too"


def test_a_card_that_was_edited_by_hand_is_not_overwritten(run: Run) -> None:
    card = export(run, "messages").folder / "README.md"
    card.write_text(card.read_text() + "\nMy own words.\n")
    with pytest.raises(RunError, match="the file was changed by hand"):
        export(run, "messages")
    assert "My own words." in card.read_text()


def test_the_dataset_itself_is_never_taken_for_an_export(run: Run) -> None:
    with pytest.raises(RunError, match="no export wrote it"):
        export(run, "messages", run.path / "dataset")


def test_a_list_of_files_that_points_elsewhere_deletes_nothing(tmp_path: Path, run: Run) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    out = tmp_path / "out"
    out.mkdir()
    files = {"../victim.txt": "", str(victim): ""}
    (out / ".export.json").write_text(json.dumps({"version": 1, "finished": False, "files": files}))
    export(run, "messages", out)
    assert victim.read_text() == "mine"


def test_a_run_whose_filter_is_not_finished_is_refused(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    run.finish_stage("generate", StageEntry(config={}))
    with pytest.raises(RunError, match=r"the stage 'filter' is not finished; run `synth filter .*run` first"):
        export(run, "messages")


@pytest.mark.parametrize("name", ["dataset/train.jsonl", "dataset/validation.jsonl", "records.jsonl"])
def test_a_run_whose_files_changed_is_refused(run: Run, name: str) -> None:
    path = run.path / name
    path.write_bytes(path.read_bytes() + b"\n{}\n")
    with pytest.raises(RunError, match=rf"{name}: the file was changed since the filter finished; run `synth filter"):
        export(run, "messages")
    path.unlink()
    with pytest.raises(RunError, match=r"the file is gone; run `synth filter"):
        export(run, "messages")
    assert not (run.path / "exports").exists()


def test_a_dataset_that_does_not_belong_to_the_records_is_refused(tmp_path: Path) -> None:
    run = decided_run(tmp_path / "run")
    rows = rows_of(run.train_path)
    entry = run.stages()["filter"]
    for changed in (rows[1:], [*rows, rows[0]]):
        outputs = {**entry.outputs, "dataset/train.jsonl": write_jsonl(run.train_path, changed)}
        run.finish_stage("filter", replace(entry, outputs=outputs))
        with pytest.raises(RunError, match="at its place; run `synth filter"):
            export(run, "messages")


def test_a_split_without_rows_is_said_and_nothing_at_all_is_an_error(tmp_path: Path) -> None:
    run = decided_run(tmp_path / "run", validation=())
    summary = export(run, "messages")
    assert summary.empty == ("validation",)
    assert summary.files == ("train.jsonl",)
    with pytest.raises(RunError, match="the dataset has no row in validation"):
        export(run, "messages", split=("validation",))


def test_hostile_content_comes_through_unchanged(tmp_path: Path) -> None:
    import pyarrow.parquet as parquet

    texts = [
        "a\nb\r\nc\u2028d\u2029e",
        "nul \x00 and \x1b[31m",
        '", "role": "system"}]}\n{"messages": []}',
        "---\nlicense: evil\n---",
        "\U0001f600\u202e\ufeff",
        "y" * 3_000_000,
    ]
    records = [pair(n, answer=text, scores={"prompt": 1.0, "a|b": 0.5, "scores": None}) for n, text in enumerate(texts)]
    run = decided_run(tmp_path / "run", records, validation=())
    for format in JSONL:
        rows = rows_of(export(run, format, scores=True).folder / "train.jsonl")
        assert len(rows) == len(texts)
        assert all(
            json.dumps(t, ensure_ascii=False) in json.dumps(r, ensure_ascii=False)
            for t, r in zip(texts, rows, strict=True)
        )
        assert rows[0]["scores"] == {"a|b": 0.5, "prompt": 1.0, "scores": None}
    summary = export(run, "parquet")
    table = parquet.read_table(summary.folder / summary.files[0]).to_pylist()
    assert [row["completion"][0]["content"] for row in table] == texts
    assert "`a/b`" in (summary.folder / "README.md").read_text()


def test_a_lone_surrogate_in_the_dataset_is_an_error_that_names_the_line(tmp_path: Path) -> None:
    run = decided_run(tmp_path / "run")
    lines = run.train_path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b"pounds", b"\\ud800")
    run.train_path.write_bytes(b"".join(lines))
    from synth.core.jsonl import digest_file

    entry = run.stages()["filter"]
    outputs = {**entry.outputs, "dataset/train.jsonl": digest_file(run.train_path)}
    run.finish_stage("filter", replace(entry, outputs=outputs))
    with pytest.raises(RecordError, match=r"train\.jsonl:3: not valid JSON"):
        export(run, "messages")


def test_names_from_the_run_cannot_break_the_card(tmp_path: Path) -> None:
    run = decided_run(tmp_path / "run", [pair(0)], validation=(), teacher="evil`\n---\nlicense: mit\n# Hi | x")
    folder = export(run, "messages", title="a: b # c [x]({y}) - 'q' \"z\"").folder
    assert front_of(folder)["license"] == "unknown"
    text = (folder / "README.md").read_text()
    assert text.count("\n---\n") == 1
    assert "\nlicense: mit" not in text


def test_values_are_masked_in_the_export_and_stay_in_the_run(tmp_path: Path) -> None:
    pytest.importorskip("phonenumbers", reason="the extra `pii` is not installed")
    records = [pair(0, "Whom do I ask?", "Write to jane@example.com."), pair(1)]
    run = decided_run(tmp_path / "run", records, validation=())
    summary = export(run, "messages", mask_pii=True)
    assert summary.masked == 1
    assert rows_of(summary.folder / "train.jsonl")[0]["messages"][1]["content"] == "Write to <EMAIL>."
    assert "are masked, in 1 rows" in (summary.folder / "README.md").read_text()
    assert "jane@example.com" in run.records_path.read_text()
    assert b"jane@" not in b"".join(bytes_of(summary.folder).values())


def test_the_real_filter_and_the_export_agree(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    records = []
    for n in range(30):
        made = pair(n, document=f"{n % 6}.md", scores={})
        records.append({**made.to_json(), "decision": None})
    run.finish_stage("generate", StageEntry(config={"teacher": "org/teacher-7b"}))
    write_jsonl(run.records_path, records)
    filtered = run_filter(run, FilterConfig(near_duplicate=2, rule=("answer_type >= 0", "relevance >= 0")))
    summary = export(run, "messages", scores=True)
    assert sum(summary.rows.values()) == filtered.kept > 0
    assert summary.rows["train"] == filtered.train


def test_settings_that_cannot_be_are_refused(run: Run) -> None:
    with pytest.raises(ConfigError, match="only the format hub has a repo"):
        export(run, "messages", repo="me/lamps")
    for wrong in (
        {"format": "csv"},
        {"format": "messages", "split": ("test",)},
        {"format": "messages", "licence": "a\nb"},
    ):
        with pytest.raises(ValidationError):
            ExportConfig(**wrong)  # type: ignore[arg-type]


def test_without_pyarrow_the_error_names_the_extra(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        ConfigError, match=r"parquet needs pyarrow; install it with `pip install 'synth-tune\[documents\]'`"
    ):
        export(run, "parquet")
    assert export(run, "messages").rows["train"] == 12


def _export_in_child(path: Path, format: str, out: Path) -> None:
    export(Run.open(path), format, out, max_shard_mb=1)


@pytest.mark.parametrize("format", ["messages", "parquet"])
def test_an_export_killed_anywhere_and_run_again_gives_the_same_files(tmp_path: Path, format: str) -> None:
    records = [pair(n, answer=f"{n} " + "word " * 100, document=f"{n % 50}.md") for n in range(6000)]
    run = decided_run(tmp_path / "run", records, validation=("7.md",))
    whole = export(run, format, tmp_path / "whole", max_shard_mb=1).folder
    out = tmp_path / "killed"
    context, killed = multiprocessing.get_context("spawn"), 0
    for delay in (0.0, 0.01, 0.03, 0.06, 0.1):
        child = context.Process(target=_export_in_child, args=(run.path, format, out))
        child.start()
        before = (out / ".export.json").stat().st_mtime_ns if (out / ".export.json").exists() else 0
        deadline = time.monotonic() + 60
        while child.is_alive() and time.monotonic() < deadline:
            if (out / ".export.json").exists() and (out / ".export.json").stat().st_mtime_ns != before:
                break
            time.sleep(0.001)
        time.sleep(delay)
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
        killed += child.exitcode == -signal.SIGKILL
        for path in out.rglob("*.jsonl"):
            assert path.read_bytes() == (whole / path.relative_to(out)).read_bytes()
    assert killed >= 3
    export(run, format, out, max_shard_mb=1)
    assert bytes_of(out) == bytes_of(whole)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from Linux's /proc")
def test_memory_stays_flat(tmp_path: Path) -> None:
    """Four times the rows cost less than 25 MB more, where the text alone grows by 90 MB."""
    code = (
        "import sys; from pathlib import Path; from synth.core.runs import Run\n"
        "from synth.export import ExportConfig, run_export\n"
        "run_export(Run.open(Path(sys.argv[1])), ExportConfig(format='messages'))\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))\n"
    )
    peaks = []
    for count in (3_000, 12_000):
        records = [pair(n, answer=f"{n} " + "word " * 2000) for n in range(count)]
        run = decided_run(tmp_path / f"run-{count}", records)
        done = subprocess.run(
            [sys.executable, "-c", code, str(run.path)], cwd=CHECKOUT, capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 25_000


def test_the_command_writes_says_so_and_gives_json(run: Run, command: Command) -> None:
    done = command("synth", "export", run.path, "--format", "alpaca", "--split", "all")
    assert done.returncode == 0, done.stderr
    assert "12 train rows" in done.stdout
    as_json = command("synth", "export", run.path, "--format", "messages", "--split", "train", "--json")
    told = json.loads(as_json.stdout)["export"]
    assert told["rows"] == {"train": 12}
    assert told["files"] == ["train.jsonl"]
    wrong = command("synth", "export", run.path, "--format", "csv")
    assert wrong.returncode == 2
    assert "'alpaca'" in wrong.stderr
