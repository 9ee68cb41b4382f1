"""Records before a model, many at a time: order, resuming, failures, stops."""

import asyncio
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from synth import (
    ChatRequest,
    Completion,
    ConfigError,
    Endpoint,
    GenerateConfig,
    InferenceError,
    Passage,
    Record,
    RunError,
    Sampling,
    Teacher,
)
from synth.core.errors import Interrupted
from synth.core.jsonl import read_lines, write_jsonl
from synth.core.record_file import _plainly_valid, read_records
from synth.core.records import Judgement
from synth.core.schemas import check
from synth.filtering.judging import JudgedRecord, JudgingTally, judge_records, judging_settings
from synth.filters.closed_book import ClosedBook
from synth.filters.judge import Judge
from synth.filters.model_base import ModelScorer, ModelScores
from synth.filters.model_scorers import model_scorers
from synth.filters.round_trip import RoundTrip
from synth.generation.gate import Gate
from synth.inference.client import Client
from synth.inference.journal import Journal
from synth.inference.lazy import LazyEndpoint
from synth.inference.scripted import ScriptedTeacher
from tests.conftest import CHECKOUT


def record(number: int, **given: Any) -> Record:  # noqa: ANN401
    text = f"Part {number} of the pump weighs {number} grams."
    passage = Passage("pump.md", text, 0, len(text))
    return Record.create(passage, f"How much does part {number} weigh?", f"{number} grams", generator="qa", **given)


def number_in(request: ChatRequest) -> int:
    found = re.search(r"part (\d+)", request.messages[-1].content)
    assert found is not None
    return int(found.group(1))


def reply(request: ChatRequest) -> str:
    """A reader who is right about every even part, a judge who gives a mark of the part's number."""
    number = number_in(request)
    if request.schema is None:
        return "no answer"
    if "found" in request.schema["properties"]:
        return json.dumps({"found": True, "answer": f"{number} grams" if number % 2 == 0 else "no idea at all"})
    marks = {name: 1 + number % 5 for name in request.schema["properties"]}
    return json.dumps({**marks, "reason": f"Part {number}.", "self_contained": True})


class Slow:
    """An endpoint that answers after a random time, and knows how many calls it had at once."""

    revision = ""

    def __init__(self, script: Any = reply, *, seed: int = 0) -> None:  # noqa: ANN401
        self.scripted, self.rng = ScriptedTeacher(script), random.Random(seed)
        self.model = self.scripted.model
        self.now = self.most = 0

    async def complete(self, request: ChatRequest) -> Completion:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self.rng.random() / 200)
            return await self.scripted.complete(request)
        finally:
            self.now -= 1

    @property
    def asked(self) -> int:
        return len(self.scripted.requests)


async def judge(
    records: Sequence[Record],
    folder: Path,
    endpoint: Any,  # noqa: ANN401
    scorers: Sequence[ModelScorer] | None = None,
    **given: Any,  # noqa: ANN401
) -> tuple[list[JudgedRecord], JudgingTally]:
    told: list[JudgingTally] = []
    results = []
    async with Journal(folder) as journal:
        chosen = model_scorers(["round_trip", "judge"], votes=3) if scorers is None else scorers
        judging = judge_records(enumerate(records), chosen, endpoint, journal, on_progress=told.append, **given)
        async for judged in judging:
            results.append(judged)
    return results, told[-1] if told else JudgingTally()


RECORDS = [record(i) for i in range(30)]


async def test_the_results_come_in_the_order_of_the_records_whatever_the_order_of_replies(tmp_path: Path) -> None:
    first, tally = await judge(RECORDS, tmp_path / "a", Slow(seed=1), max_in_flight=8)
    other, _ = await judge(RECORDS, tmp_path / "b", Slow(seed=2), max_in_flight=3)
    assert first == other and [judged.place for judged in first] == list(range(30))
    assert first[4].scores == {"round_trip": 1.0, "round_trip_em": 1.0, "judge": 1.0, "judge_agreement": 1.0}
    assert first[1].scores["round_trip"] == 0 and first[0].scores["judge"] == 0
    assert tally.records == 30 and tally.calls == 120 and tally.replayed == tally.failed == 0 and not tally.failures
    assert tally.prompt_tokens > 0 < tally.completion_tokens


async def test_no_more_calls_run_at_once_than_allowed_and_records_are_read_as_they_are_needed(tmp_path: Path) -> None:
    read, endpoint, furthest = 0, Slow(), 0

    def stream() -> Iterator[tuple[int, Record]]:
        nonlocal read
        for place, one in enumerate(RECORDS * 4):
            read += 1
            yield place, one

    async with Journal(tmp_path) as journal:
        done = 0
        async for _ in judge_records(stream(), [Judge()], endpoint, journal, max_in_flight=4):
            done += 1
            furthest = max(furthest, read - done)
    assert done == 120 and 1 < endpoint.most <= 4 and furthest <= 2 * 4


async def test_the_calls_about_a_record_follow_one_another_in_the_order_of_the_records(tmp_path: Path) -> None:
    endpoint = ScriptedTeacher(reply)
    await judge(RECORDS, tmp_path, endpoint, max_in_flight=1)
    asked = [number_in(request) for request in endpoint.requests]
    assert max(abs(a - b) for a, b in zip(asked, sorted(asked), strict=True)) <= 2


async def test_again_over_the_same_journal_nothing_is_asked_and_the_results_are_the_same(tmp_path: Path) -> None:
    first, _ = await judge(RECORDS, tmp_path, Slow())
    silent = ScriptedTeacher([])
    again, tally = await judge(RECORDS, tmp_path, silent)
    assert again == first and not silent.requests and tally.replayed == 120 and tally.calls == 0
    more, tally = await judge(RECORDS, tmp_path, Slow(), model_scorers(["judge"], votes=5))
    assert (tally.replayed, tally.calls) == (90, 60)
    assert all(judged.scores["judge"] is not None for judged in more)


def odd_judge(request: ChatRequest) -> str | Exception:
    """Says nothing of use about part 3, and nothing at all about part 5."""
    if request.schema is not None and "reason" in request.schema["properties"]:
        if number_in(request) == 3:
            return "I would rather not."
        if number_in(request) == 5:
            return InferenceError("the endpoint is away")
    return reply(request)


async def test_a_reply_of_no_use_is_no_score_and_is_counted_and_named(tmp_path: Path) -> None:
    judged, tally = await judge(RECORDS[:8], tmp_path, ScriptedTeacher(odd_judge))
    assert [one.place for one in judged if one.failures] == [3, 5]
    assert judged[3].scores == {"round_trip": 0.0, "round_trip_em": 0.0, "judge": None, "judge_agreement": None}
    [unread], [missing] = judged[3].failures, judged[5].failures
    assert unread.scorer == "judge" and "is not JSON" in unread.reason and unread.raw == "I would rather not."
    assert "the endpoint is away" in missing.reason and not missing.raw
    assert tally.failures == {"judge": 2} and tally.failed == 1
    [_, told] = judged[3].judgements
    assert told.scorer == "judge" and told.remark.startswith("failed: 0 of 3 votes count") and told.call_keys
    # What was answered stays as it was; what got no answer is asked for again.
    again, tally = await judge(RECORDS[:8], tmp_path, ScriptedTeacher(reply))
    assert again[3] == judged[3] and again[5].scores["judge"] == 0 and not again[5].failures
    assert tally.failures == {"judge": 1} and tally.calls == 3


async def test_an_endpoint_that_is_gone_ends_it_and_what_was_answered_is_kept(tmp_path: Path) -> None:
    def gone(request: ChatRequest) -> str | Exception:
        return reply(request) if number_in(request) < 5 else InferenceError("connection refused")

    with pytest.raises(InferenceError, match=r"16 records in a row got no answer.*connection refused.*run the same"):
        await judge([record(i) for i in range(200)], tmp_path, ScriptedTeacher(gone), max_in_flight=4)
    answered = [row for path in tmp_path.iterdir() for _, row in read_lines(path)]
    assert len(answered) == 20


async def test_a_stop_lets_calls_in_flight_end_and_says_that_it_was_stopped(tmp_path: Path) -> None:
    stop, endpoint, seen = asyncio.Event(), Slow(), []
    async with Journal(tmp_path) as journal:
        with pytest.raises(Interrupted, match="run the same command again") as raised:
            async for judged in judge_records(
                enumerate(RECORDS), [Judge(votes=3)], endpoint, journal, max_in_flight=4, stop=stop
            ):
                seen.append(judged)
                if len(seen) == 5:
                    stop.set()
    assert raised.value.exit_code == 130 and 5 <= len(seen) < 20
    answered = [row for path in tmp_path.iterdir() for _, row in read_lines(path)]
    assert endpoint.now == 0 and len(answered) == endpoint.asked < 90
    assert [one.place for one in seen] == list(range(len(seen)))
    assert all(one.left == (not one.scores) for one in seen)
    _, tally = await judge(RECORDS, tmp_path, endpoint, [Judge(votes=3)])
    assert tally.replayed == len(answered) and tally.calls + tally.replayed == 90


async def test_a_stop_after_the_last_record_stops_nothing(tmp_path: Path) -> None:
    stop = asyncio.Event()
    async with Journal(tmp_path) as journal:
        async for judged in judge_records(enumerate(RECORDS), [Judge()], Slow(), journal, stop=stop):
            if judged.place == len(RECORDS) - 1:
                stop.set()


async def test_a_cap_leaves_the_rest_of_the_records_and_goes_on_with_what_the_journal_has(tmp_path: Path) -> None:
    gate = Gate(GenerateConfig(max_calls=10), "scripted", max_in_flight=4)
    judged, tally = await judge(RECORDS, tmp_path, Slow(), [RoundTrip()], gate=gate)
    assert tally.calls == 10 and tally.left == 20 and gate.cap == "max_calls"
    assert sum(one.left for one in judged) == 20 and len(judged) == 30
    rest = Gate(GenerateConfig(max_calls=5), "scripted", max_in_flight=4)
    _, tally = await judge(RECORDS, tmp_path, Slow(), [RoundTrip()], gate=rest)
    assert (tally.replayed, tally.calls, tally.left) == (10, 5, 15)


class Broken:
    """A user's scorer that fails on some records."""

    name, scores = "broken", ("broken",)

    def __init__(self, bad: Sequence[int], value: float = 1.0) -> None:
        self.bad, self.value = bad, value

    async def score(self, record: Record, model: Teacher) -> ModelScores:
        await model.chat(record.prompt)
        if any(f"part {number} " in record.question for number in self.bad):
            raise KeyError("marks")
        return ModelScores({"broken": self.value})


async def test_a_scorer_that_fails_on_one_record_costs_that_score_and_on_all_the_run(tmp_path: Path) -> None:
    judged, tally = await judge(RECORDS, tmp_path / "one", Slow(), [Broken([7])])
    assert [one.place for one in judged if one.failures] == [7] and tally.failures == {"broken": 1}
    assert "KeyError: 'marks' (test_judging.py:" in judged[7].failures[0].reason and judged[8].scores == {"broken": 1.0}
    # It named no calls; the runtime knows them.
    assert all(len(one.judgements[0].call_keys) == 1 for one in judged)
    with pytest.raises(RunError, match=r"scorer broken: \d+ records in a row were not scored.*mend the scorer"):
        await judge(RECORDS, tmp_path / "all", Slow(), [Broken(range(30))])
    judged, _ = await judge(RECORDS[:1], tmp_path / "nan", Slow(), [Broken([], float("nan"))])
    assert "its score 'broken' is nan" in judged[0].failures[0].reason


async def test_an_endpoint_is_opened_by_the_first_call_that_needs_it_and_one_that_cannot_be_says_why(
    tmp_path: Path,
) -> None:
    opened = 0

    @asynccontextmanager
    async def opening(fault: InferenceError | None = None) -> AsyncIterator[Endpoint]:
        nonlocal opened
        opened += 1
        if fault is not None:
            raise fault
        yield Slow()

    def lazy(fault: InferenceError | None = None) -> LazyEndpoint:
        return LazyEndpoint(opening(fault), model="scripted", revision="", stop=asyncio.Event())

    with pytest.raises(InferenceError, match="no such model"):
        async with lazy(InferenceError("no such model")) as endpoint:
            await judge(RECORDS, tmp_path, endpoint)
    async with lazy() as endpoint:
        first, _ = await judge(RECORDS, tmp_path, endpoint)
    assert opened == 2
    async with lazy() as endpoint:
        again, _ = await judge(RECORDS, tmp_path, endpoint)
    assert again == first and opened == 2


async def test_two_scorers_of_one_name_are_refused_before_a_call(tmp_path: Path) -> None:
    endpoint = ScriptedTeacher(reply)
    with pytest.raises(ConfigError, match="two scorers share the name 'judge'"):
        await judge(RECORDS, tmp_path, endpoint, [Judge(), Judge(votes=3)])
    assert not endpoint.requests


async def test_equal_questions_are_asked_once_and_where_nothing_applies_nothing_is_asked(tmp_path: Path) -> None:
    endpoint = Slow()
    judged, _ = await judge([record(2), record(2), record(2, kind="grading")], tmp_path, endpoint, [ClosedBook()])
    assert endpoint.asked == 1 and judged[0].scores == judged[1].scores == {"closed_book": 0.0}
    assert judged[2].scores == {"closed_book": None} and not judged[2].judgements and not judged[2].failures


def test_the_settings_change_with_all_that_the_scores_depend_on(tmp_path: Path) -> None:
    rubric = tmp_path / "rubric.md"
    rubric.write_text("- clear: Plain.")
    template = tmp_path / "round.md"
    template.write_text("{{ passage }} {{ question }}")

    def settings(**given: Any) -> str:  # noqa: ANN401
        scorers = [RoundTrip(template), *model_scorers(["judge"], votes=given.pop("votes", 1), rubric=rubric)]
        return json.dumps(judging_settings(scorers, **{"model": "m", **given}), sort_keys=True)

    first = settings()
    changed = {settings(model="n"), settings(revision="r"), settings(seed=1), settings(votes=3)}
    changed.add(settings(sampling=Sampling(temperature=0.5)))
    rubric.write_text("- clear: Very plain.")
    changed.add(settings())
    rubric.write_text("- clear: Plain.")
    assert settings() == first
    template.write_text("{{ question }} {{ passage }}")
    assert len(changed | {settings(), first}) == 8


# --- records keep what was said


async def test_a_record_keeps_its_judgements_through_its_file_and_a_new_one_takes_the_place_of_the_old(
    tmp_path: Path,
) -> None:
    [judged], _ = await judge(RECORDS[4:5], tmp_path / "journal", ScriptedTeacher(reply))
    kept = judged.applied_to(RECORDS[4])
    assert [one.scorer for one in kept.judgements] == ["round_trip", "judge"] and kept.scores == judged.scores
    assert all(one.model == "scripted" and one.remark for one in kept.judgements)
    assert [len(one.call_keys) for one in kept.judgements] == [1, 3]
    # The pair itself is untouched, and another judge's word replaces this one's alone.
    assert (kept.id, kept.prompt, kept.completion, kept.context) == (
        RECORDS[4].id,
        RECORDS[4].prompt,
        RECORDS[4].completion,
        RECORDS[4].context,
    )
    newer = JudgedRecord(0, {"judge": 0.5}, (Judgement("judge", "other", ("k",), "Meh."),)).applied_to(kept)
    assert [(one.scorer, one.model) for one in newer.judgements] == [("round_trip", "scripted"), ("judge", "other")]
    path = tmp_path / "records.jsonl"
    write_jsonl(path, (one.to_json() for one in (RECORDS[0], kept, newer)))
    assert list(read_records(path)) == [RECORDS[0], kept, newer]


def test_a_line_with_judgements_is_checked_quickly_and_without_them_has_no_such_key() -> None:
    plain = RECORDS[0].to_json()
    assert "judgements" not in plain
    told = JudgedRecord(0, {}, (Judgement("judge", "m", ("k",), "Fine."),)).applied_to(RECORDS[0]).to_json()
    assert _plainly_valid(plain) and _plainly_valid(orjson.loads(orjson.dumps(told)))
    check(told, "record", where="line")
    for fault in ({"scorer": ""}, {"remark": None}, {"call_keys": "k"}, {"more": 1}):
        line = {**told, "judgements": [{**told["judgements"][0], **fault}]}
        assert not _plainly_valid(line)
        with pytest.raises(Exception, match="judgements"):
            check(line, "record", where="line")


# --- kills, and the real engine


def test_killed_40_times_at_random_moments_the_results_are_those_of_an_attempt_that_nobody_killed(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.killing_judging", str(tmp_path / "work"), "40", "7"],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert result["kills"] >= 40 and result["jobs"] > 1 and result["calls"] > 160 and result["failed"] == 8


@pytest.mark.vllm
async def test_the_real_engine_answers_the_round_trip_and_the_judge_as_their_schemas_say(
    engine: Any,  # noqa: ANN401  (the server's type needs the optional extra)
    tmp_path: Path,
) -> None:
    """The bundled teacher has never seen these prompts: what counts is that each reply can be read, or is named."""
    async with Client(engine.base_url, engine.served, model="bundled") as client:
        scorers = model_scorers(["round_trip", "judge"], votes=3)
        judged, tally = await judge(RECORDS[:6], tmp_path, client, scorers)
    assert tally.records == 6 and tally.failed == tally.declined == 0 and tally.calls >= 6
    for one in judged:
        failed = {failure.scorer for failure in one.failures}
        assert all("cut off" in failure.reason for failure in one.failures), one.failures
        for scorer in scorers:
            values = [one.scores[name] for name in scorer.scores]
            assert all(v is None for v in values) if scorer.name in failed else all(0 <= (v or 0) <= 1 for v in values)
    assert any(one.scores["judge"] is not None for one in judged), [one.failures for one in judged]
    assert any(one.scores["round_trip"] is not None for one in judged), [one.failures for one in judged]
    silent = ScriptedTeacher([], model="bundled")
    again, _ = await judge(RECORDS[:6], tmp_path, silent, scorers)
    assert again == judged
