"""Paired differences, clustered by document."""

import math
import random

import numpy as np
import pytest

from tune.statistics import paired_difference

SIMULATIONS = 200


def test_the_mean_is_over_questions_and_the_error_is_the_cluster_robust_one() -> None:
    found = paired_difference([1.0, 2.0, 3.0, 0.0], ["a", "a", "b", "c"])
    assert (found.mean, found.questions, found.documents) == (1.5, 4, 3)
    # Residual sums by document: a 3 - 2·1.5 = 0, b 1.5, c -1.5.
    assert found.standard_error == pytest.approx(math.sqrt(3 / 2 * (1.5**2 + 1.5**2)) / 4)


def test_the_sign_flip_test_is_exact_for_few_documents() -> None:
    # All three documents favour the first: of 8 sign patterns 2 are as extreme.
    assert paired_difference([1.0, 1.0, 2.0], ["a", "b", "c"]).p_value == pytest.approx(0.25)


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
    with pytest.raises(ValueError, match="2 differences for 1 documents"):
        paired_difference([1.0, 2.0], ["a"])
    with pytest.raises(ValueError, match="no question"):
        paired_difference([], [])


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
