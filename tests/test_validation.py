"""What a validation draws on beside the questions: other kinds of sets, other contenders, prices, the Python call."""

from pathlib import Path
from typing import Any

import pytest

import tune
from synth.core.calls import ChatRequest, Completion, Usage
from synth.core.errors import ConfigError, RecordError
from synth.core.jsonl import digest_file, read_lines, write_jsonl
from synth.core.runs import Run
from synth.inference.scripted import ScriptedTeacher
from tests.test_validate import DOCUMENTS, EACH, add_candidate, answers, judged, make_run, right, wrong
from tune.contenders import WeightsName
from tune.verdict import Verdict


def asked(run: Run, heldout: Path, *, base: Any, tuned: Any, **settings: Any) -> Verdict:  # noqa: ANN401
    """Validate through the public call, with scripted weights."""
    endpoints: dict[WeightsName, Any] = {
        "base": ScriptedTeacher(base, model="small"),
        "tuned": ScriptedTeacher(tuned, model="small+first"),
        "teacher": ScriptedTeacher(right, model="large"),
        "candidate:older": ScriptedTeacher(base, model="small+older"),
    }
    return tune.validate(run.path, heldout, endpoints=endpoints, resamples=1000, **settings)


def labelled(path: Path) -> Path:
    """A set of grades, 1 to 3, three items about each of twelve documents."""
    rows = [
        {"id": f"{d}-{n}", "text": f"Essay {n} of class {d}: quality {1 + n}.", "label": 1 + n, "document_id": f"c{d}"}
        for d in range(DOCUMENTS)
        for n in range(3)
    ]
    write_jsonl(path, rows)
    return path


def test_every_contender_stands_in_the_table_with_what_its_answers_take(tmp_path: Path) -> None:
    run, heldout = make_run(tmp_path)
    add_candidate(run, "older", tmp_path / "small", digest_file(run.train_path), finished="2025-01-01T00:00:00Z")
    names = ["base", "few-shot", "retrieval", "tuned", "tuned-retrieval", "teacher", "candidate:older"]

    def spoken(request: ChatRequest) -> Completion:
        return Completion(right(request), usage=Usage(len(request.messages[-1].content), 2), logprobs=(("a", -0.1),))

    verdict = asked(
        run,
        heldout,
        base=wrong,
        tuned=spoken,
        contenders=names,
        teacher="bundled",
        candidate="first",
        price_prompt=1.0,
        price_completion=2.0,
    )
    assert [row.contender for row in verdict.rows] == names
    tuned = verdict.clean.row("tuned")
    assert tuned is not None and tuned.values["f1"] == 100 and tuned.measured.cost_per_thousand is not None
    prompts = [len(row["question"]) for row in answers(run) if row["contender"] == "tuned"]
    # Prompt tokens at 1 and two tokens of an answer at 2 a million, of a thousand answers.
    assert tuned.measured.cost_per_thousand == pytest.approx((sum(prompts) / len(prompts) + 4) / 1000)
    assert tuned.measured.latency is not None and tuned.measured.latency.calls == DOCUMENTS * EACH
    assert tuned.measured.confidence is not None
    assert verdict.gap("candidate:older").points > 0
    frame = verdict.to_pandas()
    assert list(frame[frame["table"] == "clean"]["contender"]) == names
    folder = run.answers_path("first")
    assert sorted(path.stem for path in (folder / "answers").iterdir()) == sorted(n.replace(":", "-") for n in names)
    assert "tuned-retrieval" in (folder / "summary.md").read_text()


def test_a_set_of_grades_is_judged_by_labels(tmp_path: Path) -> None:
    run, _ = make_run(tmp_path)
    heldout = labelled(tmp_path / "grades.jsonl")

    def grade(request: ChatRequest) -> str:
        return f"Grade: {request.messages[-1].content.rstrip('.').split()[-1]}"

    verdict = asked(run, heldout, base=lambda _: "2", tuned=grade, contenders=["base", "tuned"], must_beat=["base"])
    assert verdict.metric == "correct" and verdict.accepted
    rows = {row.contender: row for row in verdict.rows}
    assert (rows["base"].values["correct"], rows["tuned"].values["correct"]) == (pytest.approx(100 / 3, abs=1e-3), 100)
    assert (rows["base"].measured.labels["qwk"], rows["tuned"].measured.labels["qwk"]) == (0, 1)
    told = next(row for row in answers(run) if row["contender"] == "base")
    assert (told["label"], told["wanted"]) == ("2", "1") and "1, 2, 3" in told["prompt"][-1]["content"]


def test_what_was_forgotten_on_another_set_rejects(tmp_path: Path) -> None:
    run, heldout = make_run(tmp_path)
    general = tmp_path / "general.jsonl"
    rows = [
        {"question": f"Name colour {n} of {d}", "answers": ["red"], "document_id": f"g{d}"}
        for d in range(DOCUMENTS)
        for n in range(EACH)
    ]
    write_jsonl(general, rows)

    def base(request: ChatRequest) -> str:
        return "red" if "colour" in request.messages[-1].content else wrong(request)

    def forgot(request: ChatRequest) -> str:
        return "grams" if "colour" in request.messages[-1].content else right(request)

    kept = asked(run, heldout, base=base, tuned=lambda r: base(r) if "colour" in str(r.messages) else right(r))
    assert kept.accepted
    verdict = asked(run, heldout, base=base, tuned=forgot, regression=[general])
    assert not verdict.accepted and verdict.decided_by == "regression:general.jsonl"
    assert verdict.regressions[0].gap.points == -100
    assert verdict.subject["regression"] == [
        {"name": "general.jsonl", "sha256": digest_file(general).sha256, "items": DOCUMENTS * EACH}
    ]
    # Its answers decide nothing else and stand in no contender's file.
    assert all("colour" not in row["question"] for row in answers(run))


def test_on_another_set_base_and_student_are_told_the_same(tmp_path: Path) -> None:
    run, heldout = make_run(tmp_path)
    grades = labelled(tmp_path / "grades.jsonl")

    def grading(say: Any) -> Any:  # noqa: ANN401
        """Grade where the labels are told, else answer the held-out question."""

        def reply(request: ChatRequest) -> str:
            text = request.messages[-1].content
            if "Essay" not in text:
                return str(say(request))
            return text.partition("quality ")[2][:1] if "1, 2, 3" in text else "an essay"

        return reply

    verdict = asked(run, heldout, base=grading(wrong), tuned=grading(right), regression=[grades])
    assert verdict.accepted and verdict.regressions[0].gap.points == 0
    assert verdict.regressions[0].tuned == 100


OWN = """
def stops(answer, item):
    return float(answer.endswith("grams"))


def never(answer, item):
    return None
"""


def test_a_metric_of_the_users_own_decides_by_its_name_or_by_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, heldout = make_run(tmp_path)
    (tmp_path / "own_metric.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    replies: Any = {"base": lambda _: "no", "tuned": right}
    for settings in (
        {"metric": "own_metric:stops"},
        {"metrics": "own_metric:stops", "metric": "own_metric:stops"},
        {"metrics": "own_metric:stops", "metric": "stops"},
    ):
        verdict = asked(run, heldout, **replies, **settings)
        assert verdict.metric == "stops" and verdict.accepted
        digest = digest_file(tmp_path / "own_metric.py").sha256
        assert run.stages()["validate:first"].config["own_metrics"] == {"own_metric:stops": digest}
    silent: Any = {"base": ScriptedTeacher(lambda _: "no"), "tuned": ScriptedTeacher(right)}
    with pytest.raises(ConfigError, match="no judge is named"):
        tune.validate(run.path, heldout, endpoints=silent, metric="judge")
    with pytest.raises(ConfigError, match="did you mean f1"):
        tune.validate(run.path, heldout, endpoints=silent, metric="f11")
    assert not silent["tuned"].requests
    with pytest.raises(ConfigError, match="'never' gives no number for any answer"):
        asked(run, heldout, **replies, metric="own_metric:never")
    # What failed has withdrawn nothing.
    assert tune.read_verdict(run, "first").metric == "stops"


def test_what_can_be_measured_of_nobody_is_left_out_and_counted(tmp_path: Path) -> None:
    run, _ = make_run(tmp_path)
    rows: list[dict[str, Any]] = [
        {"id": f"{d}-{n}", "question": f"What of {n} in {d}?", "reference": f"word {n}", "document_id": f"c{d}"}
        for d in range(DOCUMENTS)
        for n in range(EACH)
    ]
    rows[5]["reference"] = "—"
    write_jsonl(tmp_path / "free.jsonl", rows)
    verdict = asked(
        run,
        tmp_path / "free.jsonl",
        base=lambda _: "nothing",
        tuned=lambda request: f"word {request.messages[-1].content.split()[2]}",
        contenders=["base", "tuned"],
    )
    assert verdict.accepted and verdict.items == len(rows) - 1
    assert any("gives no number for any answer to them: 1 question." in said for said in verdict.warnings)
    # Few-shot was not asked, and the verdict says so.
    assert verdict.check("beats:few-shot").passed is None and "Not looked at: few-shot" in verdict.text


def test_unanswerable_items_want_a_refusal_and_the_untuned_model_is_told_it_may(tmp_path: Path) -> None:
    run, heldout = make_run(tmp_path)
    rows = [row for _, row in read_lines(heldout)]
    rows += [
        {"id": f"u{d}", "question": f"Who likes gadget {d}?", "answers": [], "document_id": f"gadget{d}.md"}
        for d in range(DOCUMENTS)
    ]
    write_jsonl(heldout, rows)

    def careful(request: ChatRequest) -> str:
        return "I do not know." if "likes" in request.messages[-1].content else right(request)

    verdict = asked(
        run, heldout, base=lambda _: "10 grams", tuned=careful, contenders=["base", "tuned"], must_beat="base"
    )
    student, untuned = verdict.clean.row("tuned"), verdict.clean.row("base")
    assert student is not None and untuned is not None
    assert student.measured.refusals is not None and untuned.measured.refusals is not None
    assert (student.measured.refusals.recall, student.measured.refusals.false_rate) == (1, 0)
    assert (untuned.measured.refusals.recall, untuned.measured.refusals.precision) == (0, None)
    told = next(row for row in answers(run) if row["contender"] == "base")
    assert "I do not know." in told["prompt"][-1]["content"]


def test_a_teacher_has_to_be_named_and_a_wrong_set_names_its_line(tmp_path: Path) -> None:
    run, heldout = make_run(tmp_path)
    with pytest.raises(ConfigError, match='the contender "teacher" needs to know who it is'):
        tune.validate(run, heldout, contenders=["base", "tuned", "teacher"], must_beat=["base"])
    with pytest.raises(ConfigError, match="settings are given beside a config"):
        tune.validate(run, heldout, config=tune.ValidateConfig(heldout=heldout))
    broken = tmp_path / "broken.jsonl"
    broken.write_bytes(heldout.read_bytes() + b'{"question": "half')
    with pytest.raises(RecordError, match=r"broken\.jsonl:37"):
        judged(run, broken)
