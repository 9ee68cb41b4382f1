"""Shards and their merge: the same bytes as a run without shards, or a refusal that names the shard."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from synth import ChatRequest, GenerateConfig, InferenceError, RunError, ScriptedTeacher
from synth.core.jsonl import read_lines
from synth.core.runs import Run
from synth.filter import run_filter
from synth.filtering.config import FilterConfig
from synth.merge import merge_runs
from tests.conftest import CHECKOUT, Command
from tests.stub_endpoint import stub_endpoint
from tests.test_generate import big_folder, pair, run_it

LOOSE = FilterConfig(rule=("form >= 0", "groundedness >= 0", "relevance >= 0", "facts >= 0", "answer_type >= 0"))
JOINED = ("passages.jsonl", "records.jsonl", "quarantine.jsonl")


def odd(request: ChatRequest) -> str | Exception:
    """Answer like `pair`, and with junk or not at all about some passages."""
    text = str(request.schema)
    return "no JSON" if "Part 7 " in text or "Part 30 " in text else pair(request)


def mixed_folder(path: Path, documents: int = 40) -> Path:
    folder = big_folder(path, documents)
    (folder / "photo.png").touch()
    (folder / "twin.md").write_text((folder / "d003.md").read_text())
    return folder


async def shards_of(tmp_path: Path, folder: Path, count: int = 3, **settings: object) -> list[Run]:
    runs = []
    for index in range(count):
        config = GenerateConfig(shard=f"{index}/{count}", **settings)  # type: ignore[arg-type]
        await run_it(tmp_path / f"shard-{index}", folder, ScriptedTeacher(odd), config)
        runs.append(Run.open(tmp_path / f"shard-{index}"))
    return runs


async def test_three_merged_shards_are_byte_for_byte_the_run_without_shards(tmp_path: Path) -> None:
    folder = mixed_folder(tmp_path / "docs")
    whole = await run_it(tmp_path / "whole", folder, ScriptedTeacher(odd))
    runs = await shards_of(tmp_path, folder)
    assert all(len(list(read_lines(run.records_path))) > 5 for run in runs)
    summary = merge_runs([runs[2], runs[0], runs[1]], tmp_path / "merged")
    for name in JOINED:
        assert (tmp_path / "merged" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    merged, alone = (Run.open(tmp_path / name).stages()["generate"] for name in ("merged", "whole"))
    assert merged.counts == alone.counts and merged.usage == alone.usage and merged.outputs == alone.outputs
    assert merged.config == alone.config and merged.packages == alone.packages
    assert [name for name in merged.inputs if name.startswith("shard:")] == ["shard:0/3", "shard:1/3", "shard:2/3"]
    assert (summary.records, summary.quarantined, summary.current) == (whole.records, whole.quarantined, False)
    assert summary.quarantined == 5 and summary.passages_duplicate == 1


async def test_a_merged_run_goes_on_from_the_journals_of_its_shards(tmp_path: Path) -> None:
    folder = mixed_folder(tmp_path / "docs")
    merge_runs(await shards_of(tmp_path, folder), tmp_path / "merged")
    before = (tmp_path / "merged" / "records.jsonl").read_bytes()
    idle = ScriptedTeacher(odd)
    summary = await run_it(tmp_path / "merged", folder, idle)
    assert not idle.requests and summary.calls_replayed > 70
    assert (tmp_path / "merged" / "records.jsonl").read_bytes() == before


async def test_the_filter_finds_twins_that_lie_in_different_shards(tmp_path: Path) -> None:
    def same(request: ChatRequest) -> str:
        assert request.schema is not None
        sentence = request.schema["properties"]["evidence"]["enum"][0]
        return json.dumps({"evidence": sentence, "question": "What does the part weigh?", "answer": "some grams"})

    folder = big_folder(tmp_path / "docs", 12)
    runs = []
    for index in range(2):
        await run_it(tmp_path / f"s{index}", folder, ScriptedTeacher(same), GenerateConfig(shard=f"{index}/2"))
        runs.append(Run.open(tmp_path / f"s{index}"))
    alone = [run_filter(run, LOOSE).kept for run in runs]
    # The shards were filtered: their decisions and scores must not reach the merged run.
    merge_runs(runs, tmp_path / "merged")
    merged = Run.open(tmp_path / "merged")
    assert all(row["decision"] is None and not row["scores"].get("form") for _, row in read_lines(merged.records_path))
    assert alone == [1, 1] and run_filter(merged, LOOSE).kept == 1


async def test_equal_records_keep_the_ids_of_a_run_without_shards(tmp_path: Path) -> None:
    (tmp_path / "first.py").write_text(
        "from synth import Record\n"
        "class First:\n"
        "    name = 'first'\n"
        "    def prepare(self, passages):\n"
        "        self.first = passages[0]\n"
        "    async def generate(self, passage, teacher):\n"
        "        own = Record.create(passage, 'What is it?', 'A thing', generator='first')\n"
        "        return [own, Record.create(self.first, 'What is first?', 'This', generator='first')]\n"
    )
    folder, generator = big_folder(tmp_path / "docs", 9), (f"{tmp_path}/first.py:First",)
    await run_it(tmp_path / "whole", folder, ScriptedTeacher(pair), GenerateConfig(generator=generator))
    runs = await shards_of(tmp_path, folder, generator=generator)
    merge_runs(runs, tmp_path / "merged")
    assert (tmp_path / "merged" / "records.jsonl").read_bytes() == (tmp_path / "whole" / "records.jsonl").read_bytes()


async def test_records_about_other_passages_or_none_are_the_same_in_perhaps_another_order(tmp_path: Path) -> None:
    (tmp_path / "free.py").write_text(
        "from dataclasses import replace\n"
        "from synth import Record\n"
        "class Free:\n"
        "    name = 'free'\n"
        "    def prepare(self, passages):\n"
        "        self.all = list(passages)\n"
        "    async def generate(self, passage, teacher):\n"
        "        ids = [p.id for p in self.all]\n"
        "        later = self.all[min(ids.index(passage.id) + 5, len(ids) - 1)]\n"
        "        own = Record.create(passage, 'What is it?', passage.id, generator='free')\n"
        "        ahead = Record.create(later, 'What is next?', passage.id, generator='free')\n"
        "        none = Record.create(passage, 'What is none?', passage.id, generator='free')\n"
        "        return [own, ahead, replace(none, passage_id='chapter 1')]\n"
    )
    folder, generator = big_folder(tmp_path / "docs", 20), (f"{tmp_path}/free.py:Free",)
    await run_it(tmp_path / "whole", folder, ScriptedTeacher(pair), GenerateConfig(generator=generator))
    merge_runs(await shards_of(tmp_path, folder, generator=generator), tmp_path / "merged")
    merged, whole = (
        sorted((tmp_path / name / "records.jsonl").read_text().splitlines()) for name in ("merged", "whole")
    )
    assert merged == whole and len(whole) == 60


async def test_a_shard_that_is_being_written_is_refused_by_name(tmp_path: Path) -> None:
    runs = await shards_of(tmp_path, mixed_folder(tmp_path / "docs"))
    with runs[1].lock(), pytest.raises(RunError, match=r"shard-1: another process is writing this run"):
        merge_runs(runs, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    merge_runs(runs, tmp_path / "merged")


async def test_a_shard_without_a_passage_finishes_and_merges(tmp_path: Path, manuals: Path) -> None:
    await run_it(tmp_path / "whole", manuals, ScriptedTeacher(odd))
    runs = await shards_of(tmp_path, manuals, 8)
    assert 0 in [run.stages()["generate"].counts["units"] for run in runs]
    merge_runs(runs, tmp_path / "merged")
    assert (tmp_path / "merged" / "records.jsonl").read_bytes() == (tmp_path / "whole" / "records.jsonl").read_bytes()


async def test_merging_again_changes_nothing_and_a_killed_merge_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    runs = await shards_of(tmp_path, mixed_folder(tmp_path / "docs"))
    left = tmp_path / ".merged.merging"
    (left / "journal").mkdir(parents=True)
    (left / "journal" / "000001.jsonl").write_text("half a li")
    (left / "records.jsonl").write_text("{}\n")
    merge_runs(runs, tmp_path / "merged")
    assert not left.exists()
    before = {path: path.read_bytes() for path in (tmp_path / "merged").rglob("*.json*")}
    assert merge_runs(runs, tmp_path / "merged").current
    assert before == {path: path.read_bytes() for path in (tmp_path / "merged").rglob("*.json*")}
    run_filter(Run.open(tmp_path / "merged"), LOOSE)
    assert merge_runs(runs, tmp_path / "merged").current
    assert "filter" in Run.open(tmp_path / "merged").stages()


def drop_a_record(run: Run) -> None:
    run.records_path.write_bytes(b"".join(run.records_path.read_bytes().splitlines(keepends=True)[1:]))


def edit(name: str) -> Callable[[Run], None]:
    def change(run: Run) -> None:
        with (run.path / name).open("a") as file:
            file.write("{}\n")

    return change


def unfinish(run: Run) -> None:
    run.start_stage("generate")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (drop_a_record, r"shard 1/3 \(.*\): records\.jsonl was changed"),
        (edit("quarantine.jsonl"), r"shard 1/3 \(.*\): quarantine\.jsonl was changed"),
        (unfinish, r"shard-1: the shard is not finished; run its `synth generate` command again"),
    ],
)
async def test_a_harmed_shard_is_refused_by_name(tmp_path: Path, harm: Callable[[Run], None], message: str) -> None:
    runs = await shards_of(tmp_path, mixed_folder(tmp_path / "docs"))
    harm(runs[1])
    with pytest.raises(RunError, match=message):
        merge_runs(runs, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


async def test_missing_doubled_and_foreign_shards_are_refused_by_name(tmp_path: Path) -> None:
    folder = mixed_folder(tmp_path / "docs")
    runs = await shards_of(tmp_path, folder)
    out = tmp_path / "merged"
    with pytest.raises(RunError, match=r"2 of 3 shards are missing: 0/3, 2/3; run `synth generate … --shard 0/3`"):
        merge_runs(runs[1:2], out)
    shutil.copytree(runs[0].path, tmp_path / "copy")
    with pytest.raises(RunError, match=r"shard 0/3 \(.*copy\): is there twice, also as .*shard-0"):
        merge_runs([*runs, Run.open(tmp_path / "copy")], out)
    with pytest.raises(RunError, match="cannot take the place of a shard"):
        merge_runs(runs, runs[0].path)

    async def other(name: str, docs: Path = folder, **settings: object) -> Run:
        await run_it(tmp_path / name, docs, ScriptedTeacher(odd), GenerateConfig(**settings))  # type: ignore[arg-type]
        return Run.open(tmp_path / name)

    with pytest.raises(RunError, match=r"unsharded: this run is no shard"):
        merge_runs([*runs[:2], await other("unsharded")], out)
    with pytest.raises(RunError, match=r"is one of 4 shards, and shard 0/3 .* one of 3"):
        merge_runs([*runs[:2], await other("four", shard="2/4")], out)
    with pytest.raises(RunError, match=r"shard 2/3 \(.*warm\): temperature is 0\.1, and 0\.7 in shard 0/3"):
        merge_runs([*runs[:2], await other("warm", shard="2/3", temperature=0.1)], out)
    grown = tmp_path / "grown"
    shutil.copytree(folder, grown)
    (grown / "new.md").write_text("A new page costs nine pounds.\n")
    with pytest.raises(RunError, match=r"shard 2/3 \(.*new\): the documents differ from those of shard 0/3"):
        merge_runs([*runs[:2], await other("new", grown, shard="2/3")], out)
    assert not out.exists()


async def test_a_shard_that_a_cap_or_a_failed_call_left_short_is_merged_only_when_told(tmp_path: Path) -> None:
    folder = mixed_folder(tmp_path / "docs")
    runs = await shards_of(tmp_path, folder)
    capped = GenerateConfig(shard="1/3", max_calls=9)
    await run_it(tmp_path / "capped", folder, ScriptedTeacher(odd), capped)
    few = [runs[0], Run.open(tmp_path / "capped"), runs[2]]
    with pytest.raises(RunError, match=r"shard 1/3 \(.*capped\): a cap left \d+ units.*--allow-partial"):
        merge_runs(few, tmp_path / "few")

    def fails(request: ChatRequest) -> str | Exception:
        return InferenceError("too long") if "Part 5 " in str(request.schema) else odd(request)

    for index in range(3):
        config = GenerateConfig(shard=f"{index}/3")
        summary = await run_it(tmp_path / f"f{index}", folder, ScriptedTeacher(fails), config)
        if summary.calls_failed:
            runs[index] = Run.open(tmp_path / f"f{index}")
    with pytest.raises(RunError, match=r"2 calls got no answer; run its command again, or merge"):
        merge_runs(runs, tmp_path / "failed")
    summary = merge_runs(few, tmp_path / "few", allow_partial=True)
    assert summary.units_left > 0
    healed = await run_it(tmp_path / "few", folder, ScriptedTeacher(odd))
    await run_it(tmp_path / "whole", folder, ScriptedTeacher(odd))
    assert healed.units_left == 0
    assert (tmp_path / "few" / "records.jsonl").read_bytes() == (tmp_path / "whole" / "records.jsonl").read_bytes()


async def test_a_folder_with_something_else_in_it_is_not_merged_over(tmp_path: Path) -> None:
    folder = mixed_folder(tmp_path / "docs")
    runs = await shards_of(tmp_path, folder)
    await run_it(tmp_path / "other", folder, ScriptedTeacher(odd))
    with pytest.raises(RunError, match="there is a run here already, of other things"):
        merge_runs(runs, tmp_path / "other")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").touch()
    with pytest.raises(RunError, match="no run here"):
        merge_runs(runs, tmp_path / "thesis")


def test_the_command_merges_and_filters_or_says_what_is_wrong(tmp_path: Path, command: Command) -> None:
    folder = big_folder(tmp_path / "docs", 20)
    with stub_endpoint() as stub:
        for index in range(2):
            done = command(
                "synth", "generate", folder, "--teacher", stub.url, "--run", f"s{index}", "--shard", f"{index}/2"
            )
            assert done.returncode == 0 and "synth merge" in done.stdout, done.stderr
    done = command("synth", "merge", "s1", "--run", "m")
    assert done.returncode == 1 and "1 of 2 shards are missing: 0/2" in done.stderr and "Traceback" not in done.stderr
    done = command("synth", "merge", "s1", "s0", "--run", "m", "--no-filter")
    assert done.returncode == 0 and "Next: synth filter m" in done.stdout, done.stderr
    done = command("synth", "merge", "s1", "s0", "--run", "m", "--rule", "relevance >= 0", "--num-records", 5, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["generate"]["current"] and result["filter"]["kept"] == 5


def test_a_full_disk_leaves_no_merged_run(tmp_path: Path, command: Command) -> None:
    folder = big_folder(tmp_path / "docs", 30)
    with stub_endpoint() as stub:
        for index in range(2):
            command("synth", "generate", folder, "--teacher", stub.url, "--run", f"s{index}", "--shard", f"{index}/2")

    def few_bytes() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    full = subprocess.run(
        [sys.executable, "-m", "synth.cli", "merge", "s0", "s1", "--run", "m"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=few_bytes,
    )
    assert full.returncode == 1 and "cannot be written" in full.stderr and "Traceback" not in full.stderr
    assert not list(tmp_path.glob("*m*/records.jsonl")) and not (tmp_path / "m").exists()
    done = command("synth", "merge", "s0", "s1", "--run", "m", "--no-filter", "--json")
    assert json.loads(done.stdout)["generate"]["records"] == 60
