"""Shards of one job, and the preview that leaves nothing."""

import json
from pathlib import Path

import pytest

from synth import ConfigError, GenerateConfig, ScriptedTeacher
from synth.core.config import build
from synth.core.records import Passage
from synth.generation.shards import Shard
from tests.conftest import Command
from tests.stub_endpoint import stub_endpoint
from tests.test_generate import big_folder, lines, pair, run_it


async def test_shards_ask_about_every_passage_once_and_all_see_the_same_passages(tmp_path: Path) -> None:
    folder = big_folder(tmp_path / "docs", 40)
    (folder / "copy.md").write_bytes((folder / "d003.md").read_bytes())
    asked: list[str] = []
    for index in range(3):
        teacher = ScriptedTeacher(pair)
        summary = await run_it(tmp_path / f"s{index}", folder, teacher, GenerateConfig(shard=f"{index}/3"))
        assert summary.passages == 41 and 0 < summary.units < 40
        asked += [request.messages[-1].content for request in teacher.requests]
    assert len(asked) == len(set(asked)) == 80
    files = {(tmp_path / f"s{index}" / "passages.jsonl").read_bytes() for index in range(3)}
    assert len(files) == 1


def test_a_shard_depends_on_what_is_shown_alone() -> None:
    first, second = Passage("a.md", "The lamp.", 0, 9, ("Lamp",)), Passage("b/c.md", "The lamp.", 50, 59, ("Lamp",))
    assert [Shard(i, 5).holds(first) for i in range(5)] == [Shard(i, 5).holds(second) for i in range(5)]
    assert sum(Shard(i, 5).holds(first) for i in range(5)) == 1


@pytest.mark.parametrize("text", ["3/3", "1", "a/b", "-1/3", "1/0", "1/3/5"])
def test_a_shard_that_is_none_is_an_error_that_says_how_to_write_one(text: str) -> None:
    with pytest.raises(ConfigError, match=r"no shard"):
        build(GenerateConfig, {"shard": text})


def test_a_shard_cannot_know_how_many_records_the_others_accept() -> None:
    with pytest.raises(ConfigError, match="a shard has no num_records"):
        build(GenerateConfig, {"shard": "0/2", "num_records": 5})


async def test_max_passages_asks_about_a_seeded_few(tmp_path: Path) -> None:
    folder = big_folder(tmp_path / "docs", 40)
    chosen = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        summary = await run_it(
            tmp_path / name, folder, ScriptedTeacher(pair), GenerateConfig(max_passages=5, seed=seed)
        )
        assert summary.units == 5 and summary.passages == 40
        chosen.append({row["document_id"] for row in lines(tmp_path / name / "records.jsonl")})
    assert chosen[0] == chosen[1] != chosen[2] and len(chosen[0]) == 5


def test_a_preview_shows_prompts_replies_and_decisions_and_writes_no_run(tmp_path: Path, command: Command) -> None:
    folder = big_folder(tmp_path / "docs", 8)
    with stub_endpoint() as stub:
        done = command("synth", "generate", folder, "--teacher", stub.url, "--preview", 2)
        assert len(stub.bodies) == 4
        data = command("synth", "generate", folder, "--teacher", stub.url, "--preview", 2, "--json")
    assert done.returncode == 0, done.stderr
    assert "<passage>" in done.stdout and '{"evidence"' in done.stdout and "No run was written" in done.stdout
    assert "record (qa, qa): keep" in done.stdout or "record (qa, qa): reject" in done.stdout
    assert not (tmp_path / "runs").exists()
    found = json.loads(data.stdout)
    assert len(found["calls"]) == 4 == len(found["records"]) and all(r["decision"] for r in found["records"])


def test_a_preview_of_a_teacher_that_writes_junk_shows_the_junk(tmp_path: Path, command: Command) -> None:
    folder = big_folder(tmp_path / "docs", 3)
    with stub_endpoint(lambda body: "Sure! Here is your pair.") as stub:
        done = command("synth", "generate", folder, "--teacher", stub.url, "--preview", 1)
    assert done.returncode == 0, done.stderr
    assert "Sure! Here is your pair." in done.stdout and "the reply is not JSON" in done.stdout
