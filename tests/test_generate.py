import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from synth import (
    ChatRequest,
    Completion,
    Endpoint,
    GenerateConfig,
    GenerateSummary,
    InferenceError,
    Interrupted,
    Record,
    Run,
    RunError,
    ScriptedTeacher,
    run_generate,
)
from synth.core.jsonl import read_lines
from synth.core.schemas import check


def pair(request: ChatRequest) -> str:
    """Write a pair about the first sentence on offer, worded by the call's own seed."""
    assert request.schema is not None
    sentence = request.schema["properties"]["evidence"]["enum"][0]
    question = f"What of {sentence.split()[1]} in case {request.sampling.seed}?"
    return json.dumps({"evidence": sentence, "question": question, "answer": " ".join(sentence.split()[-2:])})


def opened(teacher: Endpoint) -> AbstractAsyncContextManager[Endpoint]:
    @asynccontextmanager
    async def opening() -> AsyncIterator[Endpoint]:
        yield teacher

    return opening()


async def run_it(
    path: Path,
    manuals: Path,
    teacher: Endpoint,
    config: GenerateConfig | None = None,
    accept: Callable[[Sequence[Record]], int] | None = None,
    stop: asyncio.Event | None = None,
) -> GenerateSummary:
    return await run_generate(
        Run.create(path),
        [manuals],
        config or GenerateConfig(),
        opened(teacher),
        teacher_name="scripted",
        accept=accept,
        stop=stop,
    )


def lines(path: Path) -> list[dict[str, object]]:
    return [row for _, row in read_lines(path)]


def big_folder(path: Path, documents: int) -> Path:
    path.mkdir()
    for i in range(documents):
        (path / f"d{i:03}.md").write_text(f"# Part {i}\n\nPart {i} weighs {i} grams. Part {i} costs {i} pounds.\n")
    return path


async def test_every_document_call_and_record_ends_in_a_file(tmp_path: Path, manuals: Path) -> None:
    (manuals / "photo.png").write_bytes(b"\x89PNG")

    def reply(request: ChatRequest) -> str:
        return "no JSON" if "carpet" in str(request.schema) else pair(request)

    summary = await run_it(tmp_path / "run", manuals, ScriptedTeacher(reply))
    records, refused = lines(tmp_path / "run" / "records.jsonl"), lines(tmp_path / "run" / "quarantine.jsonl")
    assert (summary.documents, summary.passages, summary.records, summary.quarantined) == (2, 3, 4, 2)
    assert len(records) == 4 and {row["document_id"] for row in records} == {"kettle.md", "lamp.txt"}
    assert {row["document_id"] for row in refused} == {"photo.png", "lamp.txt"}
    assert [row.get("raw") for row in refused] == [None, "no JSON"]
    for number, row in enumerate(records, 1):
        check(row, "record", where=f"records.jsonl:{number}")
        assert row["decision"] is None


async def test_the_files_do_not_depend_on_the_order_of_the_replies(tmp_path: Path) -> None:
    folder = big_folder(tmp_path / "docs", 12)

    class Shuffled(ScriptedTeacher):
        def __init__(self, salt: int) -> None:
            super().__init__(pair)
            self.salt = salt

        async def complete(self, request: ChatRequest) -> Completion:
            await asyncio.sleep(hash((self.salt, request.key("m"))) % 7 / 1000)
            return await super().complete(request)

    contents = []
    for salt in (1, 2):
        await run_it(tmp_path / f"run{salt}", folder, Shuffled(salt))
        names = ("passages.jsonl", "records.jsonl", "quarantine.jsonl")
        contents.append([(tmp_path / f"run{salt}" / name).read_bytes() for name in names])
    assert contents[0] == contents[1]


async def test_a_finished_stage_opens_no_teacher_and_a_changed_document_opens_it_again(
    tmp_path: Path, manuals: Path
) -> None:
    await run_it(tmp_path / "run", manuals, ScriptedTeacher(pair))
    idle = ScriptedTeacher(pair)
    summary = await run_it(tmp_path / "run", manuals, idle)
    assert summary.current and not idle.requests
    (manuals / "lamp.txt").write_text("The Orla lamp costs 45 pounds.")
    again = ScriptedTeacher(pair)
    summary = await run_it(tmp_path / "run", manuals, again)
    # The kettle's calls come from the journal; only the new sentence is asked about.
    assert not summary.current and len(again.requests) == 1 and summary.calls_replayed == 3


async def test_another_seed_asks_again_and_gives_other_records(tmp_path: Path, manuals: Path) -> None:
    await run_it(tmp_path / "run", manuals, ScriptedTeacher(pair))
    first = {row["id"] for row in lines(tmp_path / "run" / "records.jsonl")}
    await run_it(tmp_path / "run", manuals, ScriptedTeacher(pair), GenerateConfig(seed=1))
    assert first.isdisjoint(row["id"] for row in lines(tmp_path / "run" / "records.jsonl"))


async def test_num_records_asks_only_until_enough_is_accepted_and_spreads_over_documents(tmp_path: Path) -> None:
    folder = big_folder(tmp_path / "docs", 60)
    teacher = ScriptedTeacher(pair)
    summary = await run_it(tmp_path / "run", folder, teacher, GenerateConfig(num_records=20), accept=len)
    assert 20 <= summary.records < 60 and len(teacher.requests) < 60
    assert len({row["document_id"] for row in lines(tmp_path / "run" / "records.jsonl")}) > 8


async def test_num_records_asks_again_with_new_seeds_and_stops_at_the_bound(tmp_path: Path, manuals: Path) -> None:
    config = GenerateConfig(num_records=1000, max_rounds=3)
    summary = await run_it(tmp_path / "run", manuals, ScriptedTeacher(pair), config, accept=len)
    assert summary.records == 3 * 5
    questions = [row["prompt"][0]["content"] for row in lines(tmp_path / "run" / "records.jsonl")]  # type: ignore[index]
    assert len(set(questions)) == len(questions)


async def test_a_teacher_that_writes_junk_ends_in_an_error_that_names_the_reason(tmp_path: Path, manuals: Path) -> None:
    with pytest.raises(RunError, match=r"none of 3 passages gave a record; most often because the reply is not JSON"):
        await run_it(tmp_path / "run", manuals, ScriptedTeacher(lambda _: "Sure! Here is"))
    assert len(lines(tmp_path / "run" / "quarantine.jsonl")) == 5
    assert "generate" not in Run.open(tmp_path / "run").stages()


async def test_a_teacher_that_is_gone_stops_the_run_and_keeps_what_was_answered(tmp_path: Path) -> None:
    folder = big_folder(tmp_path / "docs", 250)

    def dies(request: ChatRequest) -> str | Exception:
        return pair(request) if len(teacher.requests) <= 20 else InferenceError("connection refused")

    class Remote(ScriptedTeacher):
        async def complete(self, request: ChatRequest) -> Completion:
            await asyncio.sleep(0.001)
            return await super().complete(request)

    teacher = Remote(dies)
    with pytest.raises(InferenceError, match="in a row got no answer.*connection refused"):
        await run_it(tmp_path / "run", folder, teacher)
    assert len(teacher.requests) < 400
    healthy = ScriptedTeacher(pair)
    summary = await run_it(tmp_path / "run", folder, healthy)
    assert summary.records == 500 and len(healthy.requests) == 480 and summary.calls_replayed == 20


async def test_a_stop_drains_what_is_in_flight_and_the_next_run_goes_on(tmp_path: Path) -> None:
    folder = big_folder(tmp_path / "docs", 300)
    stop = asyncio.Event()

    def reply(request: ChatRequest) -> str:
        if len(teacher.requests) == 50:
            stop.set()
        return pair(request)

    teacher = ScriptedTeacher(reply)
    with pytest.raises(Interrupted, match=r"stopped after \d+ of 300") as caught:
        await run_it(tmp_path / "run", folder, teacher, stop=stop)
    assert caught.value.exit_code == 130
    rest = ScriptedTeacher(pair)
    summary = await run_it(tmp_path / "run", folder, rest)
    assert summary.records == 600 and len(teacher.requests) + len(rest.requests) == 600


async def test_no_document_is_an_error_before_a_teacher_is_opened(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "photo.png").touch()
    teacher = ScriptedTeacher(pair)
    with pytest.raises(
        RunError, match=r"no document gave a passage \(1 could not be read; the first reason: no reader"
    ):
        await run_it(tmp_path / "run", tmp_path / "empty", teacher)
    assert not teacher.requests


async def test_equal_records_of_one_generator_keep_ids_of_their_own(tmp_path: Path, manuals: Path) -> None:
    (tmp_path / "twice.py").write_text(
        "from synth import Record\n"
        "class Twice:\n"
        "    name = 'twice'\n"
        "    async def generate(self, passage, teacher):\n"
        "        return [Record.create(passage, 'What is it?', 'A thing', generator='twice') for _ in range(2)]\n"
    )
    config = GenerateConfig(generator=(f"{tmp_path}/twice.py:Twice",))
    summary = await run_it(tmp_path / "run", manuals, ScriptedTeacher(pair), config)
    assert summary.records == 6 == len({row["id"] for row in lines(tmp_path / "run" / "records.jsonl")})


async def test_a_cap_inside_a_task_group_leaves_the_unit_and_a_missing_reply_is_no_crash(
    tmp_path: Path, manuals: Path
) -> None:
    (tmp_path / "group.py").write_text(
        "import asyncio\n"
        "from synth import Message, Record\n"
        "class Group:\n"
        "    name = 'group'\n"
        "    async def generate(self, passage, teacher):\n"
        "        async with asyncio.TaskGroup() as group:\n"
        "            tasks = [group.create_task(teacher.chat([Message('user', passage.text)])) for _ in range(2)]\n"
        "        return [Record.create(passage, 'What?', t.result().text, generator='group') for t in tasks]\n"
    )
    spec = (f"{tmp_path}/group.py:Group",)
    capped = GenerateConfig(generator=spec, max_calls=4)
    summary = await run_it(tmp_path / "capped", manuals, ScriptedTeacher(lambda _: "a reply"), capped)
    assert (summary.records, summary.units_left, summary.quarantined) == (4, 1, 0)

    def fails(request: ChatRequest) -> str | Exception:
        return InferenceError("no route") if "carpet" in request.messages[0].content else "a reply"

    await run_it(tmp_path / "fails", manuals, ScriptedTeacher(fails), GenerateConfig(generator=spec))
    (row,) = lines(tmp_path / "fails" / "quarantine.jsonl")
    assert row["reason"] == "no route"
