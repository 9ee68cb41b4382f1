"""Models in the filter stage: who is asked about what, what stays in the journal, and what a stop leaves."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from synth.core.errors import ConfigError, InferenceError
from synth.core.record_file import read_records
from synth.core.records import Record
from synth.core.resources import resource
from synth.filter import run_filter
from synth.filtering.config import FilterConfig
from synth.filtering.explain import explain
from tests.stub_endpoint import stub_endpoint
from tests.test_filter_stage import a_run, flawed, sound


def reader(body: dict[str, Any]) -> str:
    """Read the price in the passage, but know nothing of series 3; as a judge, like only even prices."""
    text = body["messages"][-1]["content"]
    names = body.get("response_format", {}).get("json_schema", {}).get("schema", {}).get("properties", {})
    price = int(re.findall(r"costs (\d+) pounds", text)[0]) if "costs" in text else 0
    if "found" in names:
        known = "series 3" not in text
        return json.dumps({"found": known, "answer": f"{price} pounds" if known else ""})
    if "reason" in names:
        marks = {name: 5 if price % 20 == 0 else 1 for name in names if name not in {"reason", "self_contained"}}
        return json.dumps({"reason": f"the price is {price}", **marks, "self_contained": True})
    return "40 pounds"


def decided(run_path: Path) -> dict[str, Record]:
    return {r.id: r for r in read_records(run_path / "records.jsonl")}


def test_only_what_other_rules_accept_is_shown_and_no_answer_is_asked_for_twice(tmp_path: Path) -> None:
    records = [*(sound(i) for i in range(10)), *flawed()]
    run = a_run(tmp_path, records)
    with stub_endpoint(reader) as stub:
        config = FilterConfig(judge=stub.url, rule=("round_trip >= 0.5", "judge >= 0.5"))
        summary = run_filter(run, config)
        asked = len(stub.bodies)
        assert asked == 2 * 10
        again = run_filter(run, FilterConfig(judge=stub.url, rule=("round_trip >= 0.5", "judge >= 0")))
        assert len(stub.bodies) == asked
    found = decided(run.path)
    unread = found[records[3].id]
    assert unread.scores["round_trip"] == 0.0 and unread.decision is not None
    assert unread.decision.reasons[0].startswith("round_trip:0, not >= 0.5")
    assert found[records[0].id].scores["round_trip"] == 1.0
    assert {j.scorer for j in found[records[0].id].judgements} == {"round_trip", "judge"}
    assert "the price is 40" in str(found[records[0].id].judgements)
    assert all("round_trip" not in found[r.id].scores for r in flawed())
    assert summary.total == again.total == 13
    assert summary.kept == 13 - sum(count for _, count in summary.funnel)
    assert dict(summary.funnel)["judge"] > 0 and "judge" not in dict(again.funnel)


def test_scores_of_a_model_can_be_ruled_on_later_without_it(tmp_path: Path) -> None:
    run = a_run(tmp_path, [sound(i) for i in range(10)])
    with pytest.raises(ConfigError, match=r"no score is called 'judge' in these records; .*--judge"):
        run_filter(run, FilterConfig(rule=("judge >= 0.9",)))
    with stub_endpoint(reader) as stub:
        loose = run_filter(run, FilterConfig(judge=stub.url, rule=("judge >= 0",)))
    assert loose.kept == 10
    strict = run_filter(run, FilterConfig(rule=("judge >= 0.9",)))
    assert 0 < strict.kept < 10
    assert all(r.judgements for r in read_records(run.records_path))


def test_a_story_has_the_judges_calls_and_words(tmp_path: Path) -> None:
    run = a_run(tmp_path, [sound(i) for i in range(4)])
    with stub_endpoint(reader) as stub:
        run_filter(run, FilterConfig(judge=stub.url, rule=("judge >= 0",), votes=3))
    story = explain(run, sound(2).id)
    assert len(story.calls) == 3 and "the price is" in story.calls[0]["response"]["text"]
    assert story.record.scores["judge_agreement"] == 1.0


def test_a_judge_that_is_gone_changes_nothing_and_a_model_without_a_rule_is_an_error(tmp_path: Path) -> None:
    run = a_run(tmp_path, [sound(i) for i in range(4)])
    before = run.records_path.read_bytes()
    with pytest.raises(InferenceError):
        run_filter(run, FilterConfig(judge="http://127.0.0.1:9/v1", rule=("judge >= 0.5",)))
    assert run.records_path.read_bytes() == before and "filter" not in run.stages()
    with pytest.raises(ConfigError, match="no rule names a score that a model gives"):
        run_filter(run, FilterConfig(judge="http://127.0.0.1:9/v1"))


def test_what_the_student_knows_already_is_marked(tmp_path: Path) -> None:
    run = a_run(tmp_path, [sound(i) for i in range(10)])
    with stub_endpoint(reader) as stub:
        config = FilterConfig(judge=stub.url, rule=("closed_book <= 0.8",))
        summary = run_filter(run, config)
    found = decided(run.path)
    assert found[sound(0).id].scores["closed_book"] == 1.0
    assert dict(summary.funnel)["closed_book"] == 2


def test_the_students_loss_is_measured_by_the_bundled_student(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    run = a_run(tmp_path, [sound(i) for i in range(6)])
    student = str(resource("demo", "models") / "student")
    run_filter(run, FilterConfig(student=student, rule=("ifd <= 9", "answer_loss >= 0")))
    found = decided(run.path)
    assert all(0 < (r.scores["answer_loss"] or 0) < 20 and (r.scores["ifd"] or 0) > 0 for r in found.values())


JOB = """
import sys
from pathlib import Path
from synth.core.runs import Run
from synth.core.entry import run_app
from synth.filter import run_filter
from synth.filtering.config import FilterConfig
rules = ("round_trip >= 0.5", "judge >= 0.5")
run_app(lambda: run_filter(Run.open(Path(sys.argv[1])), FilterConfig(judge=sys.argv[2], rule=rules)), "job")
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_stopped_while_judging_and_run_again_few_calls_are_repeated(tmp_path: Path, number: signal.Signals) -> None:
    records = [sound(i) for i in range(150)]
    (tmp_path / "b").mkdir()
    run, whole = a_run(tmp_path, records), a_run(tmp_path / "b", records)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or "." for p in sys.path)}
    with stub_endpoint(reader, delay=0.05) as stub:
        command = [sys.executable, "-c", JOB, str(run.path), stub.url]
        child = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        while len(stub.bodies) < 120 and child.poll() is None:
            time.sleep(0.01)
        child.send_signal(number)
        errors = child.communicate()[1]
        assert child.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL), errors
        subprocess.run(command, env=environment, check=True, capture_output=True)
        repeated = len(stub.bodies) - 300
        assert repeated <= (0 if number == signal.SIGINT else 64)
        config = FilterConfig(judge=stub.url, rule=("round_trip >= 0.5", "judge >= 0.5"))
        run_filter(whole, config)
    for name in ("records.jsonl", "dataset/train.jsonl", "dataset/validation.jsonl"):
        assert (run.path / name).read_bytes() == (whole.path / name).read_bytes()
