"""Paired differences, clustered by document."""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.intervals import FAR, NEAR, Found, Kind, Metric, measure, promised
from tune.statistics import McNemar, holm, interval_of_mean, mcnemar, paired_difference

SIMULATIONS = 200


def test_the_mean_is_over_questions_and_the_error_is_the_cluster_robust_one() -> None:
    found = paired_difference([1.0, 2.0, 3.0, 0.0], ["a", "a", "b", "c"])
    assert (found.mean, found.questions, found.documents) == (1.5, 4, 3)
    # Residual sums by document: a 3 - 2·1.5 = 0, b 1.5, c -1.5.
    assert found.standard_error == pytest.approx(math.sqrt(3 / 2 * (1.5**2 + 1.5**2)) / 4)


def test_the_sign_flip_test_is_exact_for_few_documents() -> None:
    # All three documents favour the first: of 8 sign patterns 2 are as extreme.
    assert paired_difference([1.0, 1.0, 2.0], ["a", "b", "c"]).p_value == pytest.approx(0.25)


@pytest.mark.parametrize("resamples", [100, 2000])
def test_half_of_the_patterns_that_tie_count_as_more_extreme(resamples: int) -> None:
    # Ten documents, seven for and three against: 1024 patterns, all enumerated where 2,000 may be drawn. Those with
    # eight or more of one sign are more extreme (112), those with seven tie (240, the observed one and its mirror
    # among them), so (112 + 2 + 238 / 2) / 1024.
    differences = [1.0] * 7 + [-1.0] * 3
    found = paired_difference(differences, [f"d{n}" for n in range(10)], resamples=resamples)
    assert found.p_value == pytest.approx(233 / 1024, abs=1e-12 if resamples == 2000 else 0.12)


def test_the_interval_is_that_of_the_means_of_parts_of_the_documents() -> None:
    # Eight documents of one question: 256 patterns. The observed one and its mirror have no two parts, so the second
    # lowest of the lower means (each stands there twice: a part, and the same part as the rest) has passed 2.5 %.
    values = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0]
    found = interval_of_mean(values, [f"d{n}" for n in range(8)], confidence=1 - 5 / 256)
    # Patterns counted up to the middle of the lowest mean's two: 2 + 1 = 3; of the next: 2 + 2 + 1 = 5.
    assert found.low == pytest.approx(1.5)
    # The two highest means: of the last document alone (128), and of the last two (96).
    assert found.high == pytest.approx(96.0)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_the_interval_leaves_out_zero_exactly_where_the_test_rejects(data: st.DataObject) -> None:
    documents = data.draw(st.integers(6, 16))
    differences = data.draw(st.lists(st.sampled_from([-1.0, -0.25, 0.0, 0.5, 1.0]), min_size=documents, max_size=60))
    shift = data.draw(st.sampled_from([-0.3, 0.0, 0.2]))
    found = paired_difference(
        [difference + shift for difference in differences],
        [f"d{n % documents}" for n in range(len(differences))],
        resamples=500,
    )
    assert found.p_value is not None and found.low is not None and found.high is not None
    if abs(found.p_value - 0.05) > 1e-9 and found.standard_error:
        assert (found.low > 1e-9 or found.high < -1e-9) == (found.p_value < 0.05)


def test_bounds_between_the_few_means_of_few_documents_agree_with_the_test() -> None:
    # Seven documents, six against: 4 of 128 patterns are as extreme (p .031). The upper bound lies below zero.
    found = paired_difference([-1.0] * 6 + [0.5], [f"d{n}" for n in range(7)])
    assert found.p_value == pytest.approx(4 / 128)
    assert found.low == -1.0
    # The highest means of a part: of the last alone (.5), then with one of six others (-.25), where p passes .05.
    assert found.high == pytest.approx(-0.25, abs=0.01)


def test_with_too_few_documents_for_any_pattern_of_signs_the_interval_is_that_of_t() -> None:
    found = paired_difference([1.0, 2.0, 4.0, 5.0], ["a", "b", "c", "d"])
    assert found.standard_error is not None
    assert found.low == pytest.approx(3.0 - 3.182446 * found.standard_error, abs=1e-5)
    assert found.high == pytest.approx(3.0 + 3.182446 * found.standard_error, abs=1e-5)
    assert found.p_value == pytest.approx(2 / 16)


def test_contenders_that_answer_alike_differ_by_nothing() -> None:
    found = paired_difference([0.0] * 12, [f"d{n % 4}" for n in range(12)])
    assert (found.mean, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_one_document_gives_no_interval() -> None:
    found = paired_difference([1.0, 2.0], ["a", "a"])
    assert (found.mean, found.low, found.high, found.standard_error, found.p_value) == (1.5, *[None] * 4)


def test_the_order_of_the_questions_does_not_matter() -> None:
    rng = random.Random(3)
    pairs = [(rng.gauss(1, 3), f"d{rng.randrange(9)}") for _ in range(50)]
    found = paired_difference(*zip(*pairs, strict=True), resamples=1000)
    rng.shuffle(pairs)
    assert paired_difference(*zip(*pairs, strict=True), resamples=1000) == found


def test_lengths_that_differ_and_no_question_are_refused() -> None:
    with pytest.raises(ValueError, match="2 numbers for 1 documents"):
        paired_difference([1.0, 2.0], ["a"])
    with pytest.raises(ValueError, match="no question"):
        paired_difference([], [])


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused_with_its_document(number: float) -> None:
    with pytest.raises(ValueError, match="'b' has -?(nan|inf)"):
        paired_difference([1.0, number, 2.0], ["a", "b", "c"])
    with pytest.raises(ValueError, match="'b' has -?(nan|inf)"):
        interval_of_mean([1.0, number, 2.0], ["a", "b", "c"])


def test_a_mean_has_the_interval_of_a_difference_to_nothing() -> None:
    rng = random.Random(8)
    values, names = [rng.random() for _ in range(80)], [f"d{n % 15}" for n in range(80)]
    mean, difference = interval_of_mean(values, names), paired_difference(values, names)
    assert (mean.mean, mean.low, mean.high) == (difference.mean, difference.low, difference.high)
    assert (mean.questions, mean.documents, mean.standard_error) == (80, 15, difference.standard_error)
    assert mean.low is not None and mean.high is not None and 0.2 < mean.low < mean.mean < mean.high < 0.8


def test_holm_multiplies_the_least_by_the_number_and_never_falls() -> None:
    # 3 · 0.01; 2 · 0.04; then 0.045 alone, which may not be below the one before.
    assert holm({"a": 0.04, "b": 0.01, "c": 0.045}) == pytest.approx({"a": 0.08, "b": 0.03, "c": 0.08})
    assert holm({"a": 0.7, "b": 0.6}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_holm_leaves_out_what_was_not_tested_and_keeps_the_order_of_names() -> None:
    adjusted = holm({"retrieval": None, "few-shot": 0.03, "base": 0.01})
    assert list(adjusted.items()) == [("retrieval", None), ("few-shot", 0.03), ("base", 0.02)]


@pytest.mark.parametrize("p", [math.nan, -0.1, 1.1, math.inf])
def test_holm_refuses_what_is_no_p_value(p: float) -> None:
    with pytest.raises(ValueError, match="p-value of 'base'"):
        holm({"few-shot": 0.5, "base": p})


def test_mcnemar_looks_at_the_questions_that_one_of_them_got_right() -> None:
    first, second = [1.0] * 9 + [0.0] + [1.0] * 20, [0.0] * 9 + [1.0] + [1.0] * 20
    # Of ten fair coins one or fewer, on either side: 2 · 11 / 1024.
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (9, 1)
    assert found.p_value == pytest.approx(22 / 1024)
    assert mcnemar(second, first) == McNemar(1, 9, found.p_value)


def test_mcnemar_finds_nothing_where_the_answers_are_alike() -> None:
    assert mcnemar([1.0, 0.0, 1.0], [1.0, 0.0, 1.0]) == McNemar(0, 0, 1.0)


@pytest.mark.parametrize("value", [math.nan, 0.5, 2.0])
def test_mcnemar_refuses_what_is_neither_right_nor_wrong(value: float) -> None:
    with pytest.raises(ValueError, match="right .1. and wrong .0."):
        mcnemar([1.0, value], [1.0, 0.0])


def test_mcnemar_refuses_no_questions_and_different_ones() -> None:
    with pytest.raises(ValueError, match="2 answers of the first for 1"):
        mcnemar([1.0, 0.0], [1.0])
    with pytest.raises(ValueError, match="no question"):
        mcnemar([], [])


@pytest.mark.parametrize("documents", [8, 25])
def test_clustered_intervals_hold_the_truth_as_often_as_they_say_and_unclustered_ones_do_not(
    documents: int,
) -> None:
    rng = np.random.default_rng(7)
    truth, clustered, unclustered, false_alarms = 4.0, 0, 0, 0
    for simulation in range(SIMULATIONS):
        differences: list[float] = []
        names: list[str] = []
        for document in range(documents):
            size = int(rng.integers(2, 9))
            differences += list(truth + rng.normal(0, 10) + rng.normal(0, 10, size))
            names += [f"d{document}"] * size
        found = paired_difference(differences, names, resamples=1000, seed=simulation)
        naive = paired_difference(differences, [str(n) for n in range(len(names))], resamples=1000, seed=simulation)
        assert found.low is not None and found.high is not None
        assert naive.low is not None and naive.high is not None
        clustered += found.low <= truth <= found.high
        unclustered += naive.low <= truth <= naive.high
        shifted = paired_difference([d - truth for d in differences], names, resamples=1000, seed=simulation)
        false_alarms += shifted.p_value is not None and shifted.p_value <= 0.05
    # 95 % of 200 is 190; the binomial spread (three standard errors) is 9.
    assert 178 <= clustered <= 200
    assert unclustered <= 165
    assert false_alarms <= 22


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["em", "f1"])
def test_intervals_and_tests_are_right_as_often_as_the_documentation_says(metric: Metric) -> None:
    simulations = 4000
    # One standard error of a share of 95 (or 5) %; a single kind may be off by three of them, all kinds together hardly.
    error = 100 * math.sqrt(0.95 * 0.05 / simulations)
    kinds = [kind for kind in promised() if kind.metric == metric]
    alike = {kind: measure(kind, simulations, seed=1) for kind in kinds}
    differing = {kind: measure(kind, simulations, seed=1) for k in kinds for kind in _differing(k)}

    assert _outside(alike, lambda found: found.rejected, 4 - 3 * error, 6 + 3 * error) == {}
    assert _outside(alike | differing, lambda found: found.holds, 94 - 3 * error, 96 + 3 * error) == {}
    together = error / math.sqrt(len(kinds))
    assert 4 - 3 * together <= fmean(found.rejected for found in alike.values()) <= 6 + 3 * together
    for held in (alike, differing):
        assert 94 - 3 * together <= fmean(found.holds for found in held.values()) <= 96 + 3 * together
    # What the clusters are for: without them the intervals hold far less than they say.
    assert all(found.questions < 90 for kind, found in alike.items() if kind.hidden > 0.3)


def _differing(kind: Kind) -> tuple[Kind, Kind]:
    return replace(kind, second=NEAR), replace(kind, second=FAR)


def _outside(held: dict[Kind, Found], figure: Callable[[Found], float], low: float, high: float) -> dict[Kind, float]:
    return {kind: figure(found) for kind, found in held.items() if not low <= figure(found) <= high}
