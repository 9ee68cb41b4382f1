"""How small a difference a held-out set can show."""

import math

import numpy as np
import pytest

from tune.power import found, plan
from tune.statistics import Difference, paired_difference


def test_the_plan_is_the_textbook_formula() -> None:
    # (t.975 + t.8) with 39 degrees of freedom is 2.0227 + 0.8512; an item a document leaves no inflation.
    power = plan(40, 40, spread=31.6, correlation=0.0)
    assert power.detectable == pytest.approx((2.0227 + 0.8512) * 31.6 / math.sqrt(40), rel=1e-4)
    # Ten items a document at a correlation of 0.1: the variance is 1.9 times as large.
    clustered, free = (plan(400, 40, correlation=c) for c in (0.1, 0.0))
    assert clustered.detectable is not None and free.detectable is not None
    assert clustered.detectable == pytest.approx(math.sqrt(1.9) * free.detectable)


def test_the_items_needed_are_the_fewest_that_can_show_the_target() -> None:
    now = plan(40, 20, target=5.0)
    assert now.items_needed is not None and now.items_needed > 40 and not now.enough
    there, short = plan(now.items_needed, now.items_needed // 2), plan(now.items_needed - 2, now.items_needed // 2 - 1)
    assert there.enough and there.items_needed == now.items_needed
    assert not short.enough


def test_it_is_said_in_plain_words() -> None:
    power = plan(40, 40, spread=31.6, correlation=0.0)
    assert (
        power.said() == "With 40 items a difference under 15 points cannot be seen; to see 5 points it takes about 320."
    )
    assert plan(4000, 2000).said() == (
        "With 4,000 items a difference under 1.9 points cannot be seen; that is enough to see 5 points."
    )
    assert plan(30, 1).said() == "With 30 items about 1 document no difference can be told from chance."
    assert plan(30, 2, target=1.0).said().startswith("With 30 items about 2 documents not even a difference of 100")
    assert plan(30, 30, target=0.001).said().endswith("; to see 0.001 points it takes more than 10,000,000.")


def test_after_the_answers_the_measured_error_speaks() -> None:
    power = found(Difference(3.0, 200, 25, -1.0, 7.0, standard_error=2.0, p_value=0.2), 4.0)
    # (t.975 + t.8) with 24 degrees of freedom: 2.0639 + 0.8569.
    assert power.detectable == pytest.approx(2 * (2.0639 + 0.8569), rel=1e-4)
    assert (power.items, power.documents, power.target) == (200, 25, 4.0)
    assert power.items_needed is not None and 200 * (5.84 / 4) ** 2 * 0.9 < power.items_needed < 200 * (5.84 / 4) ** 2


def test_answers_that_are_all_alike_tell_nothing() -> None:
    power = found(paired_difference([0.0] * 40, [f"d{n % 8}" for n in range(40)]))
    assert (power.detectable, power.items_needed, power.enough) == (None, None, False)
    assert power.said() == "With 40 items nothing can be said: the answers compared differ by the same on every one."
    assert found(paired_difference([1.0, 3.0], ["a", "a"])).detectable is None


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="10 items cannot be about 11 documents"):
        plan(10, 11)
    with pytest.raises(ValueError, match="0 items"):
        plan(0, 0)
    for spread, correlation in ((0.0, 0.1), (math.nan, 0.1), (30.0, 1.1), (30.0, math.nan)):
        with pytest.raises(ValueError, match="outside of its range"):
            plan(10, 5, spread=spread, correlation=correlation)
    for target in (0.0, math.nan):
        with pytest.raises(ValueError, match="no target"):
            plan(10, 5, target=target)


def test_a_difference_of_the_detectable_size_is_found_about_four_times_in_five() -> None:
    rng, documents, each = np.random.default_rng(4), 25, 8
    power = plan(documents * each, documents, spread=math.sqrt(40.0**2 / 0.9), correlation=0.1)
    assert power.detectable is not None
    names = [f"d{n}" for n in range(documents) for _ in range(each)]
    seen = 0
    for simulation in range(300):
        own = rng.normal(0, 40 / 3, documents).repeat(each)
        differences = power.detectable + own + rng.normal(0, 40, documents * each)
        difference = paired_difference(list(differences), names, resamples=999, seed=simulation)
        seen += difference.low is not None and difference.low > 0
    # 80 % of 300 is 240; three standard errors are 21.
    assert 219 <= seen <= 261
