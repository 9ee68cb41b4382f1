"""Why a candidate was rejected: each cause from the evidence that shows it, and none without it."""

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tune.blame import Finding
from tune.evidence import Evidence
from tune.nearest import Distance
from tune.rules import Rule
from tune.scores import Score
from tune.verdict import Verdict, judge

POOR = {"base": 0.30, "few-shot": 0.30, "tuned": 0.30}
GOOD_FIT = {"train_loss": 0.4, "validation_loss": 0.5}


def rejected(
    means: Mapping[str, float],
    *,
    documents: int = 20,
    each: int = 4,
    **evidence: Any,  # noqa: ANN401
) -> Verdict:
    """The verdict on scores around these means, a little apart by item; a reject."""
    rng = random.Random(3)
    held = [
        Score(
            f"{document}-{item}",
            f"d{document}",
            contender,
            {"f1": min(1.0, max(0.0, mean + rng.gauss(0, 0.05)))},
            words=3,
        )
        for document in range(documents)
        for item in range(each)
        for contender, mean in means.items()
    ]
    verdict = judge(held, Rule(resamples=1000), evidence=Evidence(**evidence))
    assert not verdict.accepted
    return verdict


def found(verdict: Verdict, cause: str) -> Finding | None:
    return next((finding for finding in verdict.findings if finding.cause == cause), None)


def history(*losses: float) -> dict[str, Any]:
    points = [{"step": 10.0 * n, "loss": loss} for n, loss in enumerate(losses, 1)]
    return {"train": [{"step": 1.0, "loss": 4.0}], "validation": points}


def test_nothing_is_blamed_without_a_sign() -> None:
    # The student is a little worse: no number of items would help, and nothing is known of its making.
    verdict = rejected({"base": 0.4, "few-shot": 0.4, "tuned": 0.3})
    assert [finding.cause for finding in verdict.findings] == ["unknown"]
    assert "tune explain" in verdict.next


def test_a_high_training_loss_is_a_student_that_did_not_learn() -> None:
    finding = found(
        rejected(POOR, training={"train_loss": 2.9, "validation_loss": 3.0, "history": history(3.0)}), "not learned"
    )
    assert finding is not None and finding.certainty == "clear"
    assert "ended at 2.90, from 4.00 at the start" in finding.said
    assert all(flag in finding.advice for flag in ("--learning-rate", "--rank", "--epochs"))
    fell = found(
        rejected(POOR, training={"train_loss": 1.2, "validation_loss": 1.3, "history": history(1.3)}), "not learned"
    )
    assert fell is not None and fell.certainty == "likely"
    assert found(rejected(POOR, training=GOOD_FIT), "not learned") is None


def test_a_validation_loss_that_turned_up_is_overfitting_the_surer_the_later_the_weights_were_kept() -> None:
    kept_last = {"train_loss": 0.5, "validation_loss": 1.3, "history": history(1.2, 1.0, 1.3)}
    finding = found(rejected(POOR, training=kept_last), "overfit")
    assert finding is not None and finding.certainty == "clear"
    assert "least at step 20 (1.00) and 1.30 at the end" in finding.said and "--keep best" in finding.advice
    kept_best = kept_last | {"validation_loss": 1.0}
    finding = found(rejected(POOR, training=kept_best), "overfit")
    assert finding is not None and finding.certainty == "possible"
    steady = kept_last | {"history": history(1.5, 1.4, 1.3)}
    assert found(rejected(POOR, training=steady), "overfit") is None


def test_rows_known_by_heart_are_overfitting() -> None:
    finding = found(
        rejected(POOR, training={"train_loss": 0.07, "validation_loss": 5.0, "history": history(5.0)}), "overfit"
    )
    assert finding is not None and finding.certainty == "likely" and "by heart" in finding.said
    assert "--num-records" in finding.advice


@pytest.mark.parametrize(
    ("training", "distance", "certainty"),
    [
        (GOOD_FIT, Distance(0.8, 0.4), "clear"),
        (GOOD_FIT, Distance(0.55, 0.4), "likely"),
        (GOOD_FIT, None, "possible"),
        (None, Distance(0.8, 0.4), "possible"),
        (None, Distance(0.45, 0.4), None),
        ({"train_loss": 0.1, "validation_loss": 4.0}, None, None),
        ({"train_loss": 0.1, "validation_loss": None}, None, None),
    ],
)
def test_good_on_its_own_questions_and_bad_on_the_users_is_another_kind_of_question(
    training: Mapping[str, Any] | None, distance: Distance | None, certainty: str | None
) -> None:
    finding = found(rejected(POOR, training=training, distance=distance), "other questions")
    assert (finding.certainty if finding else None) == certainty
    if finding and distance:
        assert f"{distance.heldout_median:.2f} (median, 0 to 1)" in finding.said
        assert f"own validation questions {distance.own_median:.2f}." in finding.said


def test_retrieval_far_ahead_is_knowledge_that_did_not_enter() -> None:
    finding = found(rejected(POOR | {"retrieval": 0.6}), "knowledge did not enter")
    assert (
        finding is not None and finding.certainty == "clear" and "Use retrieval, or make more pairs" in finding.advice
    )
    both = found(rejected(POOR | {"retrieval": 0.6, "tuned-retrieval": 0.7}), "knowledge did not enter")
    assert both is not None and both.advice.startswith("Use the tuned student with retrieval: it scores 69.5")
    assert found(rejected(POOR | {"retrieval": 0.32}), "knowledge did not enter") is None


def test_a_teacher_that_does_poorly_with_the_passage_is_blamed() -> None:
    finding = found(rejected(POOR | {"teacher": 0.35}), "teacher")
    assert finding is not None and finding.certainty == "likely" and "under 50 its pairs teach little" in finding.said
    reached = found(rejected(POOR | {"teacher": 0.2}), "teacher")
    assert reached is not None and reached.certainty == "clear" and "no more than the student" in reached.said
    assert found(rejected(POOR | {"teacher": 0.9}), "teacher") is None


def test_a_lead_that_only_more_items_could_show_says_how_many() -> None:
    rng = random.Random(5)
    held = []
    for item in range(40):
        for contender, mean in {"base": 0.4, "few-shot": 0.1, "tuned": 0.47}.items():
            held.append(Score(f"i{item}", f"d{item}", contender, {"f1": min(1.0, max(0.0, rng.gauss(mean, 0.2)))}))
    verdict = judge(held, Rule(resamples=1000))
    gap = verdict.gap("base")
    assert gap.points > 0 and gap.low is not None and gap.low < 0 and gap.standard_error is not None
    finding = found(verdict, "too few items")
    assert finding is not None
    needed = finding.numbers["items_needed"]
    assert needed is not None and needed > 40
    # At that many items the error is such that a lead of this size is seen four times in five: 2.8 errors.
    assert gap.points / (gap.standard_error * (40 / needed) ** 0.5) == pytest.approx(2.82, rel=0.05)


def test_cut_off_answers_are_a_cause() -> None:
    held = [
        Score(f"i{n}", f"d{n % 12}", contender, {"f1": 0.3}, cut_off=contender == "tuned" and n < 20)
        for n in range(48)
        for contender in ("base", "tuned")
    ]
    verdict = judge(held, Rule(must_beat=("base",), resamples=1000))
    finding = found(verdict, "cut off")
    assert finding is not None and "20 of 48" in finding.said and "--max-tokens" in finding.advice
    whole = judge([replace(score, cut_off=False) for score in held], Rule(must_beat=("base",), resamples=1000))
    assert found(whole, "cut off") is None


def test_the_surest_cause_comes_first_and_is_the_advice() -> None:
    verdict = rejected(
        POOR | {"retrieval": 0.7}, training={"train_loss": 1.2, "validation_loss": 1.3, "history": history(1.3)}
    )
    order = [finding.certainty for finding in verdict.findings]
    assert order == sorted(order, key=["clear", "likely", "possible"].index)
    assert verdict.findings[0].cause == "knowledge did not enter" and verdict.next == verdict.findings[0].advice
    assert found(verdict, "not learned") is not None


def test_training_is_not_blamed_for_too_few_items() -> None:
    verdict = rejected({"base": 0.1, "few-shot": 0.1, "tuned": 0.9}, documents=3, training={"train_loss": 5.0})
    assert [finding.cause for finding in verdict.findings] == ["too few items"]
