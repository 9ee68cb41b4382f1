"""Caps: on calls, tokens, money and time."""

import asyncio
import json
import time
from functools import partial
from pathlib import Path

import pytest

from synth import ChatRequest, Completion, ConfigError, GenerateConfig, RunError, ScriptedTeacher, Usage
from synth.core.config import build
from synth.generation.gate import CallRefused, Gate, Spent
from tests.test_generate import big_folder, lines, pair, run_it


class Counting(ScriptedTeacher):
    """Takes a moment for each reply and counts how many it writes at once."""

    def __init__(self) -> None:
        super().__init__(pair)
        self.now = self.most = 0

    async def complete(self, request: ChatRequest) -> Completion:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.001)
        self.now -= 1
        return await super().complete(request)


async def test_no_more_calls_than_the_cap_are_made_and_a_higher_cap_goes_on_from_there(tmp_path: Path) -> None:
    folder = big_folder(tmp_path / "docs", 50)
    teacher = Counting()
    summary = await run_it(tmp_path / "run", folder, teacher, GenerateConfig(max_calls=31))
    assert len(teacher.requests) == 31 and summary.capped == "max_calls"
    assert summary.units_left >= 50 - 31 and 0 < summary.records <= 31
    more = Counting()
    summary = await run_it(tmp_path / "run", folder, more, GenerateConfig(max_calls=60))
    assert len(more.requests) == 29 and summary.calls_replayed <= 31
    rest = Counting()
    summary = await run_it(tmp_path / "run", folder, rest)
    assert len(rest.requests) == 40 and summary.records == 100 and summary.capped is None and summary.units_left == 0


async def test_tokens_of_earlier_attempts_count_and_the_cap_is_passed_by_no_more_than_a_reply(tmp_path: Path) -> None:
    folder = big_folder(tmp_path / "docs", 50)
    teacher = Counting()
    summary = await run_it(tmp_path / "run", folder, teacher, GenerateConfig(max_tokens_total=3000))
    spent = sum(sum(len(m.content.split()) for m in r.messages) + 12 for r in teacher.requests)
    assert summary.capped == "max_tokens_total" and 2000 < spent < 3300
    idle = Counting()
    again = await run_it(tmp_path / "run", folder, idle, GenerateConfig(max_tokens_total=3000))
    assert not idle.requests and again.capped == "max_tokens_total" and again.records == summary.records


async def test_money_is_counted_by_the_price_table_and_needs_one(tmp_path: Path) -> None:
    folder = big_folder(tmp_path / "docs", 50)
    with pytest.raises(ConfigError, match=r"max_cost needs a price for 'scripted'.*\[generate.price.\"scripted\"\]"):
        await run_it(tmp_path / "run", folder, Counting(), GenerateConfig(max_cost=1))
    settings = {"max_cost": 0.004, "max_tokens": 50, "price": {"scripted": {"input": 1.0, "output": 10.0}}}
    summary = await run_it(tmp_path / "run", folder, Counting(), build(GenerateConfig, settings))
    assert summary.capped == "max_cost" and summary.cost is not None and 0.003 < summary.cost < 0.0045
    assert summary.cost == pytest.approx((summary.prompt_tokens + 10 * summary.completion_tokens) / 1e6, rel=0.5)


async def test_a_deadline_ends_the_run_in_order_and_the_next_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = big_folder(tmp_path / "docs", 200)
    teacher = ScriptedTeacher(pair)

    def clock() -> float:
        """An hour is over with the hundredth call."""
        return time.monotonic() + 3600 * (len(teacher.requests) >= 100)

    monkeypatch.setattr("synth.generate.Gate", partial(Gate, clock=clock))
    summary = await run_it(tmp_path / "run", folder, teacher, GenerateConfig(deadline=3600))
    assert summary.capped == "deadline" and 0 < summary.records < 400 and len(teacher.requests) < 400
    monkeypatch.undo()
    rest = ScriptedTeacher(pair)
    summary = await run_it(tmp_path / "run", folder, rest, GenerateConfig(deadline=3600))
    assert summary.records == 400 and len(rest.requests) + len(teacher.requests) == 400


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("15m", 900), ("1.5h", 5400), ("2d", 172800), (7, 7)])
def test_a_deadline_is_written_as_people_do(text: object, seconds: float) -> None:
    assert build(GenerateConfig, {"deadline": text}).deadline == seconds


@pytest.mark.parametrize("text", ["soon", "-5", "0", "5 weeks"])
def test_a_deadline_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="deadline"):
        build(GenerateConfig, {"deadline": text})


async def test_the_teacher_never_has_more_calls_than_it_may(tmp_path: Path) -> None:
    teacher = Counting()
    gate = Gate(GenerateConfig(), "m", max_in_flight=3)

    async def call() -> None:
        await gate.admit()
        await teacher.complete(request())
        gate.settle(Usage(1, 1))

    def request() -> ChatRequest:
        schema = {"properties": {"evidence": {"enum": ["The lamp costs 40 pounds."]}}}
        return ChatRequest((), schema=schema)

    await asyncio.gather(*(call() for _ in range(20)))
    assert teacher.most == 3 and gate.in_flight == 0


async def test_calls_that_wait_for_room_are_let_go_when_the_run_is_stopped() -> None:
    stop = asyncio.Event()
    gate = Gate(GenerateConfig(), "m", max_in_flight=1, stop=stop)
    await gate.admit()
    waiting = [asyncio.create_task(gate.admit()) for _ in range(3)]
    await asyncio.sleep(0)
    stop.set()
    gate.settle(None)
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [CallRefused] * 3


async def test_near_a_cap_calls_wait_for_those_in_flight_that_may_turn_out_short() -> None:
    gate = Gate(GenerateConfig(max_tokens_total=1000), "m", max_in_flight=8, spent=Spent(1, 100, 100))
    for _ in range(4):
        await gate.admit()
    fifth = asyncio.create_task(gate.admit())
    await asyncio.sleep(0.01)
    assert not fifth.done()
    gate.settle(Usage(10, 10))
    await fifth
    for _ in range(4):
        gate.settle(Usage(100, 100))
    with pytest.raises(CallRefused, match="max_tokens_total"):
        await asyncio.gather(gate.admit(), gate.admit())


async def test_a_cap_that_leaves_no_record_is_an_error_that_names_it(tmp_path: Path, manuals: Path) -> None:
    with pytest.raises(RunError, match="max_calls was reached before a record came"):
        await run_it(tmp_path / "run", manuals, ScriptedTeacher(lambda _: "junk"), GenerateConfig(max_calls=2))


async def test_the_counts_of_a_run_add_up(tmp_path: Path) -> None:
    folder = big_folder(tmp_path / "docs", 12)
    (folder / "copy.md").write_bytes((folder / "d003.md").read_bytes())
    (folder / "photo.png").touch()
    (folder / "empty.md").write_text("# Only a heading\n")
    asked: list[str] = []

    def reply(request: ChatRequest) -> str | Exception:
        sentence = str(request.schema and request.schema["properties"]["evidence"]["enum"][0])
        asked.append(sentence)
        if "Part 5 weighs" in sentence:
            return "junk"  # twice: the call and its repair
        if "Part 6 weighs" in sentence and asked.count(sentence) == 1:
            return json.dumps({"evidence": sentence})  # repaired the second time
        return pair(request)

    summary = await run_it(tmp_path / "run", folder, ScriptedTeacher(reply))
    assert summary.documents + summary.documents_quarantined == 15 and summary.documents_quarantined == 2
    assert summary.passages == 13 and summary.passages_duplicate == 1 and summary.units == 12
    answers = summary.calls + summary.calls_replayed
    assert answers == len(asked) == summary.calls_used + summary.calls_quarantined + summary.calls_between
    assert (summary.calls_used, summary.calls_quarantined, summary.calls_between) == (23, 1, 2)
    assert summary.records == len(lines(tmp_path / "run" / "records.jsonl")) == 23
    assert summary.quarantined == len(lines(tmp_path / "run" / "quarantine.jsonl")) == 3
    twins = [row for row in lines(tmp_path / "run" / "passages.jsonl") if row["duplicate_of"]]
    assert [row["document_id"] for row in twins] == ["d003.md"], "copy.md comes first in the order of names"
