import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.filters.semantic import facts_hash, pair_vectors, semantic_twins


def corpus(count: int, seed: int, near: float = 0.3) -> np.ndarray:
    """Return unit rows of which about a third lie near another."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, 24)).astype(np.float32)
    copies = rng.integers(0, count, count // 3)
    rows[: len(copies)] = rows[copies] + near * rng.standard_normal((len(copies), 24)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def by_hand(rows: np.ndarray, order: list[int], threshold: float, facts: list[int]) -> set[int]:
    staying: list[int] = []
    for i in order:
        if not any(facts[i] == facts[j] and rows[i] @ rows[j] >= threshold for j in staying):
            staying.append(i)
    return set(order) - set(staying)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 120), st.integers(0, 1000), st.floats(0.5, 0.97), st.integers(1, 3))
def test_the_best_of_each_twins_stays_whatever_the_order_of_rows(
    count: int, seed: int, threshold: float, groups: int
) -> None:
    rows = corpus(count, seed)
    rng = np.random.default_rng(seed)
    order, facts = rng.permutation(count).tolist(), rng.integers(0, groups, count).tolist()
    gone = semantic_twins(rows, order, threshold, facts=facts)
    assert set(gone) == by_hand(rows, order, threshold, facts)
    for row, (twin, cosine) in gone.items():
        assert twin not in gone and order.index(twin) < order.index(row) and facts[twin] == facts[row]
        assert cosine == pytest.approx(float(rows[row] @ rows[twin]), abs=1e-3) and cosine >= threshold - 1e-3
    moved = rng.permutation(count)
    back = np.argsort(moved)
    again = semantic_twins(rows[moved], [int(back[i]) for i in order], threshold, facts=np.array(facts)[moved])
    assert {int(moved[row]) for row in again} == set(gone)


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, order = corpus(600, 3), list(range(600))
    whole = semantic_twins(rows, order, 0.8)
    monkeypatch.setattr("synth.filters.semantic._BLOCK", 37)
    assert semantic_twins(rows, order, 0.8) == whole and 50 < len(whole) < 300


def test_cells_find_nearly_all_that_a_full_search_finds() -> None:
    rows, order = corpus(4000, 5, near=0.15), list(range(4000))
    full, cells = semantic_twins(rows, order, 0.9), semantic_twins(rows, order, 0.9, exact_up_to=0)
    assert len(full) > 500 and len(set(full) & set(cells)) >= 0.98 * len(full)
    assert all(rows[row] @ rows[twin] >= 0.9 - 1e-4 for row, (twin, _) in cells.items())
    assert semantic_twins(rows, order, 0.9, exact_up_to=0) == cells


def test_a_corpus_of_one_row_repeated_keeps_one() -> None:
    rows = np.repeat(corpus(1, 0), 9000, axis=0)
    for bound in (0, 50_000):
        gone = semantic_twins(rows, range(8999, -1, -1), 0.9, exact_up_to=bound)
        assert len(gone) == 8999 and set(gone.values()) == {(8999, 1.0)}


def test_rows_without_words_are_like_none_and_rows_left_out_of_the_order_take_no_part() -> None:
    rows = np.zeros((4, 3), dtype=np.float32)
    rows[2:, 0] = 1
    assert semantic_twins(rows, [0, 1, 2, 3], 0.1) == {3: (2, 1.0)}
    assert semantic_twins(rows, [0, 1, 3], 0.1) == {} == semantic_twins(rows, [], 0.1)


def test_both_is_the_mean_of_two_cosines() -> None:
    questions, answers = corpus(5, 1), corpus(5, 2)
    both = pair_vectors(questions, answers, "both")
    wanted = (questions[0] @ questions[1] + answers[0] @ answers[1]) / 2
    assert both[0] @ both[1] == pytest.approx(wanted, abs=1e-5) and np.linalg.norm(both[0]) == pytest.approx(1)
    assert pair_vectors(questions, answers, "question") is questions
    assert pair_vectors(questions, answers, "answer") is answers


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        ("How heavy is part 4?", "What does part 4 weigh?", True),
        ("How heavy is part 4?", "How heavy is part 9?", False),
        ("When was she in Rome?", "When was she in Paris?", False),
        ("What may be washed?", "What may not be washed?", False),
        ("What isn’t red?", "What is not red?", True),
    ],
)
def test_facts_are_numbers_names_and_negation(first: str, second: str, equal: bool) -> None:
    assert (facts_hash(first) == facts_hash(second)) is equal
    assert 0 <= facts_hash(first, "Yes, 7.") < 2**63 and facts_hash(first, "7") != facts_hash(first, "8")
