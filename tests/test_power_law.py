"""The power law through the scores of several sizes, and what is said of more records."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune.power_law import FURTHEST, Forecast, PowerLaw, advise, fit, forecast

SIZES = (100, 250, 500, 1000)


def answers(
    scores: list[float], *, documents: int = 40, each: int = 10, noise: float = 0.0, seed: int = 0
) -> tuple[list[list[float]], list[str]]:
    """Return for each size right and wrong answers whose mean is the score in points, and their documents."""
    rng = np.random.default_rng(seed)
    items = documents * each
    hard = rng.permutation(items) / items
    moved = [score + rng.normal(0, noise) for score in scores]
    return [(hard < score / 100).astype(float).tolist() for score in moved], [f"d{k % documents}" for k in range(items)]


@pytest.mark.parametrize(
    "law", [PowerLaw(60, 200, 0.5), PowerLaw(80, 90, 0.2), PowerLaw(40, 900, 1.0), PowerLaw(99, 130, 0.1)]
)
def test_a_law_is_found_again_from_its_own_points(law: PowerLaw) -> None:
    found = fit(SIZES, [law.at(n) for n in SIZES])
    assert (found.a, found.b, found.c) == pytest.approx((law.a, law.b, law.c), rel=1e-4)


@settings(max_examples=50, deadline=None)
@given(st.floats(20, 95), st.floats(0.1, 1.5), st.floats(1, 19))
def test_a_law_of_three_sizes_is_met_exactly(a: float, c: float, missing: float) -> None:
    law = PowerLaw(a, missing * 100**c, c)
    found = fit((100, 300, 900), [law.at(n) for n in (100, 300, 900)])
    assert [found.at(n) for n in (100, 300, 900)] == pytest.approx([law.at(n) for n in (100, 300, 900)], abs=1e-3)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 100), min_size=4, max_size=4))
def test_a_law_stays_within_its_bounds_whatever_the_scores(scores: list[float]) -> None:
    found = fit(SIZES, scores)
    assert 0 <= found.a <= 100 and found.b >= 0 and found.c > 0
    assert found.at(10**9) >= found.at(100)


def test_the_records_for_a_score_are_those_at_which_the_law_has_it() -> None:
    law = PowerLaw(60, 200, 0.5)
    needed = law.rows_for(50)
    assert needed is not None and law.at(needed) == pytest.approx(50)
    assert law.rows_for(60) is None and PowerLaw(30, 0, 1).rows_for(20) is None


def test_a_steep_curve_says_how_many_more_records_it_takes() -> None:
    law = PowerLaw(80, 400, 0.5)
    values, documents = answers([law.at(n) for n in SIZES], documents=100, each=20)
    found = forecast(SIZES, values, documents)
    wanted = law.rows_for(law.at(1000) + 2)
    assert wanted is not None and found.more_rows.value == pytest.approx(wanted - 1000, rel=0.2)
    assert found.more_rows.low is not None and found.more_rows.high is not None
    assert found.more_rows.low <= wanted - 1000 <= found.more_rows.high
    advice = advise(found)
    assert advice.what == "more" and "more records for +2 points (95 % interval" in advice.said


def test_a_level_curve_says_stop() -> None:
    values, documents = answers([40.0, 40.2, 40.1, 40.2], documents=100, each=20)
    advice = advise(forecast(SIZES, values, documents))
    assert advice.what == "stop" and advice.said.startswith("Flat: stop. Twice as many records would bring 0.")


def test_a_law_that_reaches_the_gain_only_far_away_says_stop() -> None:
    law = PowerLaw(42, 10, 0.2)  # doubling brings 0.3 points, and no number of records brings 3
    values, documents = answers([law.at(n) for n in SIZES], documents=100, each=20)
    assert advise(forecast(SIZES, values, documents, gain=3)).what == "stop"


def test_students_that_scatter_leave_the_question_open() -> None:
    values, documents = answers([30.0, 42.0, 35.0, 41.0], documents=12, each=3)
    found = forecast(SIZES, values, documents)
    assert found.scatter is not None and found.scatter > 2
    advice = advise(found)
    assert advice.what == "unknown" and advice.said.startswith("The fit cannot tell")


def test_few_documents_widen_the_interval() -> None:
    law = PowerLaw(80, 400, 0.5)
    widths = []
    for documents in (10, 200):
        values, names = answers([law.at(n) for n in SIZES], documents=documents, each=10)
        found = forecast(SIZES, values, names)
        assert found.doubled.low is not None and found.doubled.high is not None
        widths.append(found.doubled.high - found.doubled.low)
    assert widths[0] > 1.5 * widths[1]


def test_equal_seeds_give_equal_forecasts_in_any_order_of_items() -> None:
    law = PowerLaw(80, 400, 0.5)
    values, documents = answers([law.at(n) for n in SIZES], noise=1.0)
    turned = [row[::-1] for row in values]
    first, again = forecast(SIZES, values, documents), forecast(SIZES, turned, documents[::-1])
    assert first == again
    assert forecast(SIZES, values, documents, seed=1) != first
    assert Forecast.from_json(first.to_json()) == first


def test_nothing_is_said_of_sizes_further_than_the_law_is_followed() -> None:
    law = PowerLaw(90, 100, 0.03)
    values, documents = answers([law.at(n) for n in SIZES], documents=100, each=20)
    found = forecast(SIZES, values, documents, gain=30)
    assert found.more_rows.value is None and found.more_rows.high is None
    for more in (found.more_rows.low, found.more_rows.high):
        assert more is None or more <= (FURTHEST - 1) * 1000


def test_what_makes_no_curve_is_refused() -> None:
    values, documents = answers([30.0, 40.0, 41.0, 42.0])
    with pytest.raises(ValueError, match="2 sizes do not make a curve"):
        forecast(SIZES[:2], values[:2], documents)
    with pytest.raises(ValueError, match="one document"):
        forecast(SIZES, values, ["d"] * len(documents))
    with pytest.raises(ValueError, match="every item"):
        forecast(SIZES, values, documents[1:])
    with pytest.raises(ValueError, match="not a number"):
        forecast(SIZES, [[math.nan, *row[1:]] for row in values], documents)
    with pytest.raises(ValueError, match="two sizes"):
        fit((100, 100), (1, 2))
    with pytest.raises(ValueError, match="scores are numbers"):
        fit((100, 200), (1, math.nan))


@pytest.mark.slow
def test_the_interval_of_a_doubled_dataset_holds_the_truth_about_as_often_as_it_says() -> None:
    """200 draws of held-out documents and of students that scatter by a point; the law itself is right."""
    law, held = PowerLaw(70, 300, 0.5), 0
    truth = law.at(2000) - law.at(1000)
    for seed in range(200):
        rng = np.random.default_rng(seed)
        hard = rng.normal(0, 0.1, 40).repeat(8)
        luck = rng.random(320)
        values = [
            (luck < (law.at(n) + rng.normal(0, 1)) / 100 + hard).astype(float).tolist()
            for n in (100, 200, 350, 500, 700, 1000)
        ]
        found = forecast((100, 200, 350, 500, 700, 1000), values, [f"d{k // 8}" for k in range(320)])
        assert found.doubled.low is not None and found.doubled.high is not None
        held += found.doubled.low <= truth <= found.doubled.high
    assert held >= 180
