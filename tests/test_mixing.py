"""Splits, folds, subsets, shares and orders follow from names and the seed, whatever the order of the rows."""

from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from synth.core.errors import ConfigError, RecordError
from tune.mixing import (
    draw,
    fold_documents,
    ordered_by,
    replayed_rows,
    shares_of_rows,
    spread_into,
    subset,
    validating_documents,
)
from tune.rows import Row


def rows_of(sizes: Sequence[int], prefix: str = "d") -> list[Row]:
    """Return rows about documents of these sizes."""
    return [
        Row(f"{prefix}{d}-{n}", f"{prefix}{d}.md", f"question {n}", f"answer {n}")
        for d, size in enumerate(sizes)
        for n in range(size)
    ]


def ids(rows: Sequence[Row]) -> set[str]:
    return {row.id for row in rows}


SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=40)
SEEDS = st.integers(0, 5)


@given(sizes=SIZES, share=st.floats(0.01, 0.95), seed=SEEDS)
def test_a_split_leaves_rows_on_both_sides_and_is_as_near_as_its_largest_document_allows(
    sizes: list[int], share: float, seed: int
) -> None:
    rows = rows_of(sizes)
    chosen = validating_documents(rows, share, seed)
    held = sum(row.document_id in chosen for row in rows)
    if len(sizes) == 1:
        assert chosen == frozenset()
        return
    assert 0 < len(chosen) < len(sizes)
    off = abs(held - share * len(rows))
    assert off <= max(max(sizes), 0.25 * share * len(rows))


@given(sizes=SIZES, share=st.floats(0, 0.95), seed=SEEDS, shuffle=st.randoms(use_true_random=False))
def test_a_split_and_a_subset_do_not_depend_on_the_order_of_the_rows(
    sizes: list[int], share: float, seed: int, shuffle: Random
) -> None:
    rows = rows_of(sizes)
    other = rows.copy()
    shuffle.shuffle(other)
    assert validating_documents(rows, share, seed) == validating_documents(other, share, seed)
    assert ids(subset(rows, share, seed)) == ids(subset(other, share, seed))
    assert ids(draw(rows, 7, seed, "mix")) == ids(draw(other, 7, seed, "mix"))


def test_documents_that_are_added_move_none_of_many_to_the_other_side() -> None:
    before = rows_of([3] * 300)
    after = [*before, *rows_of([3] * 60, "new")]
    old, new = (validating_documents(rows, 0.2, 0) for rows in (before, after))
    assert old == {name for name in new if not name.startswith("new")}
    assert validating_documents(before, 0.2, 1) != old


@pytest.mark.parametrize(("documents", "share", "validating"), [(2, 0.2, 1), (5, 0.2, 1), (10, 0.1, 1), (10, 0.2, 2)])
def test_few_documents_are_split_as_near_to_the_share_as_they_can_be(
    documents: int, share: float, validating: int
) -> None:
    for seed in range(20):
        assert len(validating_documents(rows_of([4] * documents), share, seed)) == validating


def test_a_share_of_nought_validates_on_nothing() -> None:
    assert validating_documents(rows_of([1, 1, 1]), 0, 0) == frozenset()


@given(sizes=st.lists(st.integers(1, 30), min_size=2, max_size=40), folds=st.integers(2, 8), seed=SEEDS)
def test_every_row_validates_in_exactly_one_fold_and_the_folds_are_balanced(
    sizes: list[int], folds: int, seed: int
) -> None:
    assume(len(sizes) >= folds)
    rows = rows_of(sizes)
    parts = fold_documents(rows, folds, seed)
    assert len(parts) == folds and all(parts)
    assert sum(map(len, parts)) == len(frozenset().union(*parts)) == len(sizes)
    held = [sum(row.document_id in part for row in rows) for part in parts]
    assert sum(held) == len(rows)
    # Whoever is dealt a document had the fewest rows, so no fold is ahead by more than one document.
    assert max(held) - min(held) <= max(sizes)
    assert parts == fold_documents(rows[::-1], folds, seed)


def test_more_folds_than_documents_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"4 folds need as many documents, and the rows are about 3; ask for 3 folds"):
        fold_documents(rows_of([9, 9, 9]), 4, 0)


@given(sizes=SIZES, one=st.floats(0.01, 1), other=st.floats(0.01, 1), seed=SEEDS)
def test_a_smaller_subset_is_a_part_of_a_larger_one_and_both_are_of_whole_documents(
    sizes: list[int], one: float, other: float, seed: int
) -> None:
    rows = rows_of(sizes)
    small, large = (subset(rows, share, seed) for share in sorted((one, other)))
    assert small and ids(small) <= ids(large)
    whole = Counter(row.document_id for row in rows)
    assert all(whole[name] == number for name, number in Counter(r.document_id for r in large).items())
    assert subset(rows, 1.0, seed) == tuple(rows)
    assert abs(len(large) - max(one, other) * len(rows)) <= max(sizes)


@given(
    sources=st.lists(st.tuples(st.integers(1, 500), st.floats(0.05, 10)), min_size=1, max_size=5),
)
def test_a_mix_has_the_wanted_shares_and_uses_up_the_source_that_runs_out_first(
    sources: list[tuple[int, float]],
) -> None:
    available, weights = [rows for rows, _ in sources], [weight for _, weight in sources]
    taken = shares_of_rows(available, weights)
    assert all(1 <= number <= rows for number, rows in zip(taken, available, strict=True))
    assert any(number == rows for number, rows in zip(taken, available, strict=True))
    whole = min(rows * sum(weights) / weight for rows, weight in sources)
    for number, weight in zip(taken, weights, strict=True):
        assert abs(number - max(1, whole * weight / sum(weights))) <= 0.5 + 1e-6


@given(size=st.integers(1, 60), few=st.integers(0, 60), many=st.integers(0, 60), seed=SEEDS)
def test_fewer_drawn_rows_are_a_part_of_more_and_keep_their_order(size: int, few: int, many: int, seed: int) -> None:
    rows = rows_of([1] * size)
    small, large = (draw(rows, number, seed, "mix") for number in sorted((few, many)))
    assert ids(small) <= ids(large) and len(large) == min(size, max(few, many))
    assert [row for row in rows if row in large] == list(large)


def test_other_seeds_draw_other_rows() -> None:
    rows = rows_of([1] * 50)
    assert draw(rows, 10, 0, "mix") != draw(rows, 10, 1, "mix")


@pytest.mark.parametrize(("rows", "share", "added"), [(90, 0.1, 10), (100, 0.5, 100), (3, 0.01, 1)])
def test_replayed_rows_are_a_share_of_all(rows: int, share: float, added: int) -> None:
    assert replayed_rows(rows, share) == added


def scored(*scores: float | None) -> list[Row]:
    return [Row(f"r{n}", "d.md", "q", "a", scores={"groundedness": score}) for n, score in enumerate(scores)]


def test_a_curriculum_goes_from_the_lowest_score_to_the_highest_or_back() -> None:
    rows = scored(0.5, 0.1, 0.9)
    assert [row.id for row in ordered_by(rows, "groundedness", 0)] == ["r1", "r0", "r2"]
    assert [row.id for row in ordered_by(rows, "-groundedness", 0)] == ["r2", "r0", "r1"]


def test_rows_of_one_score_stand_in_an_order_that_the_seed_decides() -> None:
    rows = scored(*[0.5] * 20)
    first = ordered_by(rows, "groundedness", 0)
    assert first == ordered_by(rows[::-1], "groundedness", 0) != ordered_by(rows, "groundedness", 1)


def test_rows_without_the_score_are_named_with_the_near_match() -> None:
    with pytest.raises(RecordError, match=r"2 of 2 rows have no score 'groundednes': r0, r1; did you mean groundednes"):
        ordered_by(scored(0.5, 0.1), "-groundednes", 0)
    with pytest.raises(RecordError, match=r"1 of 2 rows have no score 'groundedness': r1; take a score that all rows"):
        ordered_by(scored(0.5, None), "groundedness", 0)


@given(size=st.integers(1, 50), more=st.integers(1, 50))
def test_rows_are_spread_evenly_into_an_order_that_stays(size: int, more: int) -> None:
    rows, added = rows_of([1] * size), rows_of([1] * more, "replay")
    mixed = spread_into(rows, added)
    assert [row for row in mixed if row.document_id.startswith("d")] == rows
    assert [row for row in mixed if not row.document_id.startswith("d")] == added
    met = 0
    for seen, row in enumerate(mixed, 1):
        met += row.document_id.startswith("replay")
        assert abs(met - more * seen / len(mixed)) <= 1.0 + 1e-9
