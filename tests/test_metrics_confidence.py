import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.metrics.confidence import ConfidenceQuality, confidence_quality
from tune.scores import Score


def scores(pairs: list[tuple[float | None, float]]) -> list[Score]:
    return [Score(str(i), "d", "tuned", values={"em": value}, confidence=sure) for i, (sure, value) in enumerate(pairs)]


def quality(pairs: list[tuple[float | None, float]]) -> ConfidenceQuality:
    found = confidence_quality(scores(pairs), "em")
    assert found is not None
    return found


def test_figures_are_those_computed_by_hand() -> None:
    found = quality([(0.95, 1.0), (0.95, 0.0), (0.35, 0.0), (0.32, 1.0), (None, 1.0)])
    assert found.answers == 4
    # Pairs of right and wrong: 0.95 and 0.95 a half, 0.95 and 0.35 in order, 0.32 twice not.
    assert found.roc_auc == 1.5 / 4
    assert [(held.low, held.high, held.answers) for held in found.bins] == [(0.3, 0.4, 2), (0.9, 1.0, 2)]
    assert found.calibration_error == pytest.approx((2 * abs(0.335 - 0.5) + 2 * abs(0.95 - 0.5)) / 4)
    assert [(point.coverage, point.quality, point.threshold) for point in found.abstention] == [
        (0.5, 0.5, 0.95),
        (0.75, pytest.approx(1 / 3), 0.35),
        (1.0, 0.5, 0.32),
    ]


def test_a_model_that_knows_what_it_knows_is_calibrated_and_gains_by_abstaining() -> None:
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.01, 1, size=20_000)
    right = (rng.uniform(size=len(sure)) < sure).astype(float)
    found = quality(list(zip(sure.tolist(), right.tolist(), strict=True)))
    assert found.calibration_error < 0.02
    assert found.roc_auc == pytest.approx(5 / 6, abs=0.02)
    qualities = [point.quality for point in found.abstention]
    assert len(qualities) == 20 and qualities == sorted(qualities, reverse=True) and qualities[0] > 0.95
    always = quality([(1.0, value) for value in right.tolist()])
    assert always.calibration_error == pytest.approx(1 - right.mean())
    assert always.roc_auc == 0.5 and len(always.abstention) == 1


def test_where_nothing_can_be_told_there_is_none() -> None:
    assert confidence_quality([], "em") is None
    assert confidence_quality(scores([(None, 1.0)]), "em") is None
    assert confidence_quality(scores([(0.5, 1.0)]), "f1") is None
    assert quality([(0.5, 1.0), (0.9, 1.0)]).roc_auc is None


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=50))
def test_the_curve_ends_with_all_items_and_every_figure_is_within_bounds(pairs: list[tuple[float, float]]) -> None:
    found = quality([*pairs])
    last = found.abstention[-1]
    assert last.coverage == 1.0 and last.threshold == min(sure for sure, _ in pairs)
    assert last.quality == pytest.approx(sum(value for _, value in pairs) / len(pairs))
    assert sum(held.answers for held in found.bins) == len(pairs)
    assert 0 <= found.calibration_error <= 1
    for point in found.abstention:
        kept = [value for sure, value in pairs if sure >= point.threshold]
        assert point.coverage == len(kept) / len(pairs)
        assert point.quality == pytest.approx(sum(kept) / len(kept))
