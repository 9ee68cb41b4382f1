"""The verdict from scores, in numbers and in words."""

import math
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console

from synth.core.errors import ConfigError, RecordError
from synth.core.schemas import check
from tune.evidence import Evidence, Measured, RegressionSet
from tune.load import Load
from tune.metrics.confidence import Bin, ConfidenceQuality, Point
from tune.metrics.refusal import RefusalQuality
from tune.rules import cheaper_in
from tune.scores import Score
from tune.sheet import Row
from tune.table import table
from tune.verdict import Rule, Verdict, judge

GOLDEN = Path(__file__).parent / "golden" / "verdict.json"

SUBJECT: Mapping[str, Any] = {
    "candidate": "first",
    "student": "owner/small",
    "method": "lora",
    "weights": {
        "base": {"model": "owner/small", "revision": "abc"},
        "tuned": {"model": "owner/small+first", "revision": "abc+def"},
    },
    "served_by": "vllm",
    "heldout": {
        "name": "heldout.jsonl",
        "sha256": "0" * 64,
        "items": 48,
        "left_out": 0,
        "places": {"train": 40, "validation": 4, "neither": 4},
    },
}


def scores(
    means: Mapping[str, float], *, documents: int = 12, each: int = 4, spread: float = 0.2, seed: int = 1
) -> list[Score]:
    """Scores around a mean per contender, with an effect of the document that all contenders share."""
    rng = random.Random(seed)
    made = []
    for document in range(documents):
        shared = rng.gauss(0, spread)
        for question in range(each):
            for contender, mean in means.items():
                value = min(1.0, max(0.0, mean + shared + rng.gauss(0, spread / 2)))
                values = {"f1": round(value, 3), "em": float(value > 0.6)}
                made.append(Score(f"{document}-{question}", f"d{document}", contender, values, 3 + question))
    return made


def each_of(held: Sequence[Score], contender: str, **changes: Any) -> list[Score]:  # noqa: ANN401
    """The scores with those of one contender changed."""
    return [replace(score, **changes) if score.contender == contender else score for score in held]


LEAD = {"base": 0.1, "few-shot": 0.2, "tuned": 0.6}


def test_a_clear_lead_over_all_that_must_be_beaten_is_accepted() -> None:
    verdict = judge(scores({"base": 0.1, "few-shot": 0.2, "retrieval": 0.3, "tuned": 0.6}), Rule(), subject=SUBJECT)
    assert verdict.accepted and verdict.findings == ()
    low = verdict.gap("few-shot").low
    assert low is not None and low > 0
    assert verdict.text.startswith("Accept. On 48 held-out items about 12 documents the tuned student scores F1 ")
    assert ", clear of zero." in verdict.text
    assert "Retrieval with the untuned model scores" in verdict.text and "points below the student" in verdict.text
    assert "Not looked at: regression and unsupported." in verdict.text
    assert verdict.decided_by == "beats:few-shot"
    assert verdict.next == "Promote it: `tune promote RUN first`."
    assert [(check.name, check.passed) for check in verdict.checks] == [
        ("enough", True),
        ("beats:base", True),
        ("beats:few-shot", True),
        ("retrieval", True),
        ("regression", None),
        ("unsupported", None),
    ]


def test_a_loss_to_a_contender_that_must_be_beaten_is_a_reject_that_says_so() -> None:
    verdict = judge(scores({"base": 0.1, "few-shot": 0.7, "tuned": 0.4}), Rule())
    assert not verdict.accepted and verdict.decided_by == "beats:few-shot"
    assert verdict.text.startswith("Reject. On 48")
    assert "minus few-shot prompts is -" in verdict.text and ": the student is worse." in verdict.text
    assert verdict.check("beats:base").passed


def test_a_lead_within_the_noise_is_a_reject() -> None:
    verdict = judge(scores({"base": 0.4, "few-shot": 0.1, "tuned": 0.405}, spread=0.3), Rule())
    gap = verdict.gap("base")
    assert gap.low is not None and gap.high is not None and gap.low <= 0 <= gap.high
    assert not verdict.accepted
    assert "minus the untuned model is" in verdict.text and "minus few-shot prompts is" not in verdict.text


def test_the_margin_is_what_the_lower_bound_has_to_clear() -> None:
    held = scores(LEAD)
    low = judge(held, Rule()).gap("few-shot").low
    assert low is not None
    assert judge(held, Rule(margin=low - 0.5)).accepted
    verdict = judge(held, Rule(margin=low))
    assert not verdict.accepted
    assert f"which does not clear the margin of {low:g} points" in verdict.text


@pytest.mark.parametrize(("documents", "each"), [(3, 20), (12, 1), (1, 40)])
def test_too_little_evidence_is_a_reject_however_large_the_lead(documents: int, each: int) -> None:
    held = scores({"base": 0.0, "few-shot": 0.0, "tuned": 0.9}, documents=documents, each=each)
    verdict = judge(held, Rule())
    assert not verdict.accepted and verdict.decided_by == "enough"
    assert verdict.text.startswith("Reject: not enough evidence. ")
    assert "the rule asks for at least 30 about 10." in verdict.text
    assert verdict.findings[0].cause == "too few items"
    assert verdict.next == "Gather more held-out questions: at least 30 about 10 documents are asked for."
    if documents == 1:
        assert "with fewer than two documents there is no interval" in verdict.text
        assert verdict.gap("base").low is None and verdict.check("beats:base").passed is False


def test_identical_answers_are_no_difference_and_no_accept() -> None:
    held = scores({"base": 0.5})
    held += [replace(score, contender=name) for name in ("few-shot", "tuned") for score in held]
    verdict = judge(held, Rule())
    gap = verdict.gap("base")
    assert (gap.points, gap.low, gap.high, gap.p_value, gap.p_holm) == (0.0, 0.0, 0.0, 1.0, 1.0)
    assert not verdict.accepted and ": the student is not better." in verdict.text


@pytest.mark.parametrize("nothing", [{"em": 1.0}, {"f1": math.nan, "em": 1.0}, {"f1": math.inf, "em": 1.0}])
@pytest.mark.parametrize("contender", ["tuned", "base"])
def test_a_value_that_is_missing_or_no_number_never_passes(nothing: Mapping[str, float], contender: str) -> None:
    held = scores({"base": 0.0, "few-shot": 0.0, "tuned": 0.9})
    assert judge(held, Rule()).accepted
    place = next(n for n, score in enumerate(held) if score.contender == contender)
    held[place] = replace(held[place], values=nothing)
    verdict = judge(held, Rule())
    assert not verdict.accepted and verdict.check("beats:base").passed is False
    assert "F1 could not be measured for 1 of 48 items." in verdict.text
    assert verdict.findings[0].cause == "not measured"
    check(verdict.to_json() | {"subject": SUBJECT}, "verdict", where="verdict.json")


def with_retrieval(tuned: float, retrieval: float, tokens: Mapping[str, int], seconds: float = 1.0) -> Verdict:
    """The verdict beside retrieval, with the tokens of prompts and the median latency of the tuned student."""
    held = scores({"base": 0.05, "few-shot": 0.05, "retrieval": retrieval, "tuned": tuned}, spread=0.05)
    held = [replace(score, prompt_tokens=tokens.get(score.contender, 0)) for score in held]

    def measure(contender: str, answered: Sequence[Score]) -> Measured:
        return Measured(latency=Load(8, seconds if contender == "tuned" else 1.0, 2.0, len(answered)))

    return judge(held, Rule(), evidence=Evidence(measure=measure))


CHEAP, DEAR = {"tuned": 20, "retrieval": 300}, {"tuned": 300, "retrieval": 300}


def test_retrieval_may_be_a_little_better_where_it_is_dearer() -> None:
    verdict = with_retrieval(0.50, 0.51, CHEAP)
    assert verdict.accepted
    assert "at most 5 points worse, and cheaper (20 against 300 tokens an answer)." in verdict.check("retrieval").said


def test_a_student_that_is_no_better_and_no_cheaper_than_retrieval_is_rejected() -> None:
    verdict = with_retrieval(0.50, 0.51, DEAR)
    assert not verdict.accepted and verdict.decided_by == "retrieval"
    assert "neither better nor cheaper nor faster" in verdict.text
    assert verdict.findings[0].cause == "not cheaper" and verdict.next == "Use retrieval: tuning gains nothing here."
    faster = with_retrieval(0.50, 0.51, DEAR, seconds=0.5)
    assert faster.accepted and "0.50 s against 1.00 s, the median" in faster.check("retrieval").said
    assert with_retrieval(0.60, 0.40, DEAR).accepted


def test_costs_that_are_not_known_are_not_lower() -> None:
    assert not with_retrieval(0.50, 0.51, {}).accepted


def test_a_student_far_behind_retrieval_is_rejected_however_cheap() -> None:
    verdict = with_retrieval(0.40, 0.60, CHEAP)
    assert not verdict.accepted
    assert "it is worse by more than 5 points" in verdict.text
    assert verdict.findings[0].cause == "knowledge did not enter" and verdict.findings[0].certainty == "clear"


def test_money_counts_before_tokens() -> None:
    def row(name: str, tokens: float, cost: float | None) -> Row:
        return Row(name, 1, {}, None, 0, 1.0, 0, tokens, 0.0, Measured(cost_per_thousand=cost))

    assert cheaper_in(row("tuned", 10, 2.0), row("retrieval", 90, 1.0)) == ()
    assert cheaper_in(row("tuned", 90, 1.0), row("retrieval", 10, 2.0)) == ("1 against 2 for 1,000 answers",)
    assert cheaper_in(row("tuned", 10, None), row("retrieval", 90, 1.0)) == ("10 against 90 tokens an answer",)


def test_a_student_that_forgot_is_rejected() -> None:
    other = scores({"base": 0.7, "tuned": 0.4}, documents=20)
    same = scores({"base": 0.7}, documents=20)
    same += [replace(score, contender="tuned") for score in same]
    evidence = Evidence(regression=[RegressionSet("arithmetic", other, "f1"), RegressionSet("manners", same, "em")])
    verdict = judge(scores(LEAD), Rule(), evidence=evidence)
    assert not verdict.accepted and verdict.decided_by == "regression:arithmetic"
    assert "it has forgotten, and a loss of 5 points is not ruled out." in verdict.text
    assert verdict.check("regression:manners").passed
    assert verdict.findings[0].cause == "forgetting" and "--replay" in verdict.next
    assert [held.name for held in verdict.regressions] == ["arithmetic", "manners"]
    assert judge(scores(LEAD), Rule(regression_margin=60.0), evidence=evidence).accepted


def test_a_regression_set_too_small_to_rule_out_a_loss_is_a_reject() -> None:
    other = scores({"base": 0.5, "tuned": 0.5}, documents=12, each=3, spread=0.3)
    verdict = judge(scores(LEAD), Rule(), evidence=Evidence(regression=[RegressionSet("few", other, "f1")]))
    assert not verdict.accepted and "cannot be ruled out" in verdict.text


def test_equal_answers_to_a_handful_of_other_questions_rule_nothing_out() -> None:
    other = scores({"base": 0.5, "tuned": 0.5}, documents=2, each=1)
    verdict = judge(scores(LEAD), Rule(), evidence=Evidence(regression=[RegressionSet("few", other, "f1")]))
    assert not verdict.accepted and verdict.decided_by == "regression:few"
    assert "few has 2 items about 2 documents, too few to rule a loss out" in verdict.text
    assert verdict.findings[0].cause == "too few items" and "few" in verdict.next
    lost = scores({"base": 0.9, "tuned": 0.05}, documents=25, each=1)
    shown = judge(scores(LEAD), Rule(), evidence=Evidence(regression=[RegressionSet("few", lost, "f1")]))
    assert not shown.accepted and "it has forgotten" in shown.text and shown.findings[0].cause == "forgetting"


def test_a_student_whose_answers_no_passage_could_support_makes_nothing_up() -> None:
    held = [
        replace(score, supported=None if score.contender == "tuned" else False)
        for score in scores(LEAD, documents=20, each=10)
    ]
    verdict = judge(held, Rule())
    assert verdict.accepted and verdict.check("unsupported").passed is None
    other_way = [replace(score, supported=None if score.supported is False else False) for score in held]
    made_up = judge(other_way, Rule())
    assert not made_up.accepted and made_up.findings[0].cause == "makes things up"
    sound = [replace(score, supported=None if score.supported is None else True) for score in other_way]
    assert judge(sound, Rule()).accepted and judge(sound, Rule()).check("unsupported").passed


def with_support(base: float, tuned: float) -> list[Score]:
    """Scores whose answers are unsupported in a share of the items, evenly over the documents."""
    held, shares = [], {"base": base, "few-shot": base, "tuned": tuned}
    for place, score in enumerate(scores(LEAD, documents=20, each=10)):
        held.append(replace(score, supported=place // 3 % 10 >= 10 * shares[score.contender]))
    return held


def test_a_rise_of_unsupported_answers_is_a_reject() -> None:
    verdict = judge(with_support(0.2, 0.4), Rule())
    assert not verdict.accepted and verdict.decided_by == "unsupported"
    assert (
        "40.0 % of the tuned student's, 20.0 % of the untuned model's" in verdict.text
        and "a rise is shown" in verdict.text
    )
    assert verdict.findings[0].cause == "makes things up"
    assert judge(with_support(0.4, 0.2), Rule()).accepted
    assert judge(with_support(0.2, 0.2), Rule()).accepted
    low = verdict.gap("base", "unsupported").low
    assert low is not None and judge(with_support(0.2, 0.4), Rule(unsupported_margin=low)).accepted
    assert not judge(with_support(0.2, 0.4), Rule(unsupported_margin=low - 0.1)).accepted


def test_a_refusal_makes_nothing_up() -> None:
    held = each_of(with_support(0.2, 0.4), "tuned", refused=True, supported=None)
    verdict = judge(held, Rule())
    row = verdict.clean.row("tuned")
    assert row is not None and (row.unsupported, row.looked_up) == (0.0, 200)
    assert verdict.check("unsupported").passed


def test_items_that_stand_in_the_dataset_do_not_decide() -> None:
    means = {"base": 0.4, "few-shot": 0.1, "tuned": 0.4}
    seen = [replace(s, item_id=f"seen-{s.item_id}") for s in scores({**means, "tuned": 0.9}, documents=12, each=8)]
    fresh = scores(means, documents=12, each=4)
    evidence = Evidence(clean_ids=frozenset(score.item_id for score in fresh))
    verdict = judge([*seen, *fresh], Rule(), evidence=evidence)
    assert (verdict.all.items, verdict.clean.items, verdict.items) == (144, 48, 48)
    low = verdict.all.gap("base", "f1")
    assert low is not None and low.low is not None and low.low > 0
    assert not verdict.accepted and verdict.decided_by == "beats:base"
    assert "96 items of 144 overlap with the dataset and do not decide." in verdict.text
    assert verdict.findings[0].cause == "contaminated" and "synth filter" in verdict.next
    assert verdict.gap("base") == judge(fresh, Rule()).gap("base")


def test_a_held_out_set_that_stands_in_the_dataset_whole_decides_nothing() -> None:
    verdict = judge(scores(LEAD), Rule(), evidence=Evidence(clean_ids=frozenset()))
    assert not verdict.accepted and (verdict.all.items, verdict.clean.items) == (48, 0)
    assert verdict.decided_by == "enough" and verdict.findings[0].cause == "contaminated"
    value = verdict.to_json() | {"subject": SUBJECT}
    check(value, "verdict", where="verdict.json")
    assert Verdict.from_json(value) == replace(verdict, subject=SUBJECT)


def test_a_better_contender_that_need_not_be_beaten_is_named_in_an_accept() -> None:
    verdict = judge(scores({"base": 0.1, "few-shot": 0.1, "tuned": 0.4, "tuned-retrieval": 0.8}), Rule())
    assert verdict.accepted
    assert "points above the student" in verdict.text
    assert verdict.text.endswith("where its longer prompts can be afforded, it gives the better answers.")


def test_a_loss_in_exact_match_is_named_though_f1_decides() -> None:
    held = [
        Score(f"q{n}", f"d{n % 12}", contender, dict(zip(("f1", "em"), values, strict=True)), words=2)
        for n in range(48)
        for contender, values in {"base": (0.3, 0.3), "tuned": (0.6 + n / 1000, 0.0)}.items()
    ]
    verdict = judge(held, Rule(must_beat=("base",)))
    assert verdict.accepted
    assert "In exact match the student is 30.0 points below the untuned model" in verdict.text


def test_the_task_names_the_metric_that_decides_and_the_rule_may_name_another() -> None:
    held = scores(LEAD)
    assert judge(held, Rule()).metric == "f1"
    verdict = judge(held, Rule(metric="em"))
    assert verdict.metric == "em" and list(verdict.metrics) == ["em", "f1"]
    assert "the tuned student scores EM " in verdict.text
    labels = [replace(score, values={"correct": score.values["em"]}) for score in held]
    assert "scores accuracy" in judge(labels, Rule(), evidence=Evidence(task="labels")).text
    with pytest.raises(ConfigError, match="no answer has a value of 'rouge_l'"):
        judge(held, Rule(), evidence=Evidence(task="free"))
    with pytest.raises(ConfigError, match="known: em, f1"):
        judge(held, Rule(metric="f2"))


def test_exact_metrics_carry_mcnemars_test_and_p_values_are_corrected_for_the_number_of_contenders() -> None:
    verdict = judge(scores({"base": 0.45, "few-shot": 0.5, "retrieval": 0.5, "tuned": 0.6}), Rule())
    gap = verdict.gap("base", "em")
    held = {
        (s.item_id, s.contender): s.values["em"]
        for s in scores({"base": 0.45, "few-shot": 0.5, "retrieval": 0.5, "tuned": 0.6})
    }
    only = [key for key, _ in held if held[key, "tuned"] > held[key, "base"]]
    assert gap.mcnemar is not None and gap.mcnemar.only_student == len({*only})
    assert verdict.gap("base").mcnemar is None
    found = sorted((gap for gap in verdict.clean.gaps if gap.metric == "f1"), key=lambda gap: gap.p_value or 0.0)
    assert found[0].p_value is not None
    assert found[0].p_holm == pytest.approx(min(1.0, 3 * found[0].p_value), abs=2e-6)
    assert found[-1].p_holm is not None and found[-1].p_value is not None and found[-1].p_holm >= found[-1].p_value


def test_answers_cut_off_are_a_warning() -> None:
    held = scores(LEAD)
    assert judge(held, Rule()).warnings == ()
    cut = each_of(held, "base", cut_off=True)
    assert judge(cut, Rule()).warnings == ("48 of 48 answers of the untuned model were cut off at max_tokens.",)


def test_the_order_of_the_answers_does_not_matter() -> None:
    held = scores(LEAD)
    by_contender = sorted(held, key=lambda s: (["base", "few-shot", "tuned"].index(s.contender), s.values["f1"]))
    assert judge(by_contender, Rule()) == judge(held, Rule())


def test_missing_contenders_and_unequal_items_are_refused() -> None:
    held = scores(LEAD)
    with pytest.raises(ConfigError, match="no scores of 'few-shot'"):
        judge([s for s in held if s.contender != "few-shot"], Rule())
    with pytest.raises(ConfigError, match="no scores of 'tuned'"):
        judge([s for s in held if s.contender != "tuned"], Rule())
    with pytest.raises(ConfigError, match="different items"):
        judge(held[1:], Rule())


def test_a_verdict_says_what_its_set_can_show() -> None:
    held = scores({"base": 0.4, "few-shot": 0.1, "tuned": 0.405}, spread=0.3)
    verdict = judge(held, Rule(), evidence=Evidence(target=3.0))
    reach, error = verdict.reach, verdict.gap("base").standard_error
    assert reach is not None and error is not None and reach.detectable is not None and reach.items_needed is not None
    assert (reach.items, reach.documents, reach.target) == (48, 12, 3.0)
    assert 2.8 * error < reach.detectable < 3.3 * error and reach.items_needed > 48
    assert reach.said in verdict.text and "48 items" in reach.said


def full() -> Verdict:
    """A verdict with everything in it."""
    means = {"base": 0.05, "few-shot": 0.2, "retrieval": 0.62, "tuned": 0.5, "teacher": 0.8, "candidate:second": 0.4}
    tokens = {"retrieval": 300}
    held = [
        replace(score, prompt_tokens=tokens.get(score.contender, 20), completion_tokens=5, supported=n // 5 % 3 > 0)
        for n, score in enumerate(scores(means))
    ]

    def measure(contender: str, answered: Sequence[Score]) -> Measured:
        return Measured(
            latency=Load(8, 0.25, 0.75, len(answered)),
            cost_per_thousand=0.5,
            refusals=RefusalQuality(24, 4, 2, 0.5, 1.0, 0.0),
            confidence=ConfidenceQuality(
                "f1",
                24,
                0.75,
                0.125,
                (Bin(0.5, 0.6, 24, 0.5625, 0.5),),
                (Point(0.5, 0.75, 0.625), Point(1.0, 0.5, 0.0)),
            ),
            labels={"qwk": -0.25},
            trimmed=1,
        )

    evidence = Evidence(
        clean_ids=frozenset(score.item_id for score in held if not score.item_id.startswith("11-")),
        measure=measure,
        regression=[RegressionSet("manners", scores({"base": 0.5, "tuned": 0.45}), "f1")],
        training={"train_loss": 0.1, "validation_loss": 3.0},
        target=2.0,
    )
    return judge(held, Rule(resamples=1000), evidence=evidence, subject=SUBJECT, warnings=["A doubt."])


def test_verdict_json_is_the_golden_file_and_reads_back() -> None:
    verdict = full()
    value = verdict.to_json()
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    check(value, "verdict", where="verdict.json")
    assert value == orjson.loads(GOLDEN.read_bytes())
    assert Verdict.from_json(orjson.loads(orjson.dumps(value))) == verdict


def test_a_verdict_of_an_earlier_version_is_refused_by_the_schema() -> None:
    with pytest.raises(RecordError, match="version"):
        check(full().to_json() | {"version": 1}, "verdict", where="verdict.json")


def printed(verdict: Verdict, width: int = 200) -> str:
    console = Console(width=width)
    with console.capture() as shown:
        console.print(table(verdict))
    return shown.get()


def test_the_table_shows_every_contender_and_the_interval() -> None:
    verdict = judge(scores(LEAD), Rule())
    text = printed(verdict, 120)
    gap = verdict.gap("base")
    assert gap.low is not None
    assert f"{gap.points:.1f} ({gap.low:.1f} to " in text
    first = [line.split()[0] for line in text.splitlines() if line[:1].strip()]
    assert first == 2 * ["contender", *LEAD]
    # What was not measured has no column.
    assert not any(heading in text for heading in ("unsupported", "tokens", "p50", "cost", "refused", "cut off"))


def test_the_tables_of_all_and_of_clean_items_stand_one_below_the_other() -> None:
    text = printed(full())
    assert text.index("all 48 items") < text.index("44 clean items, which decide")
    for heading in ("unsupported", "rightly", "kappa"):
        assert text.count(heading) == 2, heading
    for heading in ("tokens in", "p50", "cost of 1,000", "8 calls in flight"):
        assert text.count(heading) == 1, heading
    assert max(map(len, text.splitlines())) < 110
    assert "candidate:second" in text


def test_a_verdict_is_a_data_frame() -> None:
    verdict = full()
    frame = verdict.to_pandas()
    assert list(frame["table"]) == ["all"] * 6 + ["clean"] * 6
    tuned = frame[(frame["table"] == "clean") & (frame["contender"] == "tuned")].iloc[0]
    row = verdict.clean.row("tuned")
    assert row is not None and tuned["f1"] == row.values["f1"] and tuned["p95"] == 0.75
    base = frame[(frame["table"] == "clean") & (frame["contender"] == "base")].iloc[0]
    assert (base["difference"], base["low"]) == (verdict.gap("base").points, verdict.gap("base").low)
