from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.core.errors import ConfigError
from synth.filters.selection import CAUSES, Bounds, Columns, cover, select, validation_documents


def columns(count: int, seed: int = 0) -> Columns:
    rng = np.random.default_rng(seed)
    documents = rng.integers(0, 6, count)
    return Columns(
        ids=[f"{i:04x}" for i in rng.permutation(count)],
        documents=documents,
        passages=documents * 4 + rng.integers(0, 4, count),
        kinds=rng.integers(0, 3, count),
        quality=rng.integers(0, 5, count) / 4,
        document_names=[f"d{i}" for i in range(6)],
        kind_names=["qa", "list", "howto"],
    )


def moved(table: Columns, places: np.ndarray) -> Columns:
    return Columns(
        ids=[table.ids[i] for i in places],
        documents=table.documents[places],
        passages=table.passages[places],
        kinds=table.kinds[places],
        quality=table.quality[places],
        document_names=table.document_names,
        kind_names=table.kind_names,
    )


BOUNDS = st.builds(
    Bounds,
    st.none() | st.integers(1, 60),
    st.none() | st.integers(1, 5),
    st.none() | st.integers(1, 12),
    st.none() | st.fixed_dictionaries({"list": st.integers(0, 20), "howto": st.floats(0.05, 0.6)}),
)


@settings(deadline=None)
@given(st.integers(1, 150), st.integers(0, 99), BOUNDS, st.integers(0, 3))
def test_every_bound_holds_and_the_order_of_records_decides_nothing(
    count: int, seed: int, bounds: Bounds, shuffle: int
) -> None:
    table = columns(count, seed)
    try:
        causes = select(table, bounds, seed=1)
    except ConfigError:
        assert not set(table.kinds.tolist()) & {0, 1} or bounds.max_per_kind is not None
        return
    left = causes == 0
    assert bounds.num_records is None or left.sum() <= bounds.num_records
    assert (
        bounds.max_per_passage is None or max(Counter(table.passages[left].tolist()).values()) <= bounds.max_per_passage
    )
    assert (
        bounds.max_per_document is None
        or max(Counter(table.documents[left].tolist()).values()) <= bounds.max_per_document
    )
    if bounds.max_per_kind:
        assert (table.kinds[left] == 1).sum() <= bounds.max_per_kind["list"]
        assert (table.kinds[left] == 2).sum() <= bounds.max_per_kind["howto"] * left.sum() + 1e-6
    places = np.random.default_rng(shuffle).permutation(count)
    assert np.array_equal(select(moved(table, places), bounds, seed=1), causes[places])


def test_each_record_that_goes_has_its_cause() -> None:
    table = columns(200)
    causes = select(table, Bounds(20, 3, 10, {"list": 5}))
    assert {CAUSES[i] for i in causes} == set(CAUSES)
    assert (causes == 0).sum() == 20
    assert not select(table, Bounds()).any()


def test_of_a_passage_the_best_stay_and_documents_take_turns() -> None:
    table = columns(200)
    left = select(table, Bounds(max_per_passage=1)) == 0
    for passage in set(table.passages.tolist()):
        of = table.passages == passage
        assert left[of].sum() == 1 and table.quality[of][left[of]][0] == table.quality[of].max()
    spread = select(table, Bounds(num_records=12)) == 0
    assert set(Counter(table.documents[spread].tolist()).values()) == {2}


def test_shares_that_leave_nothing_are_an_error() -> None:
    with pytest.raises(ConfigError, match="add up to less than 1"):
        select(columns(50), Bounds(max_per_kind={"qa": 0.2, "list": 0.2, "howto": 0.2}))


def topics(sizes: list[int], seed: int = 0) -> np.ndarray:
    """Return unit rows in tight topics of the given sizes."""
    rng = np.random.default_rng(seed)
    centres = np.eye(len(sizes), 32, dtype=np.float32)
    rows = np.vstack([np.repeat(centres[i : i + 1], size, axis=0) for i, size in enumerate(sizes)])
    rows += 0.05 * rng.standard_normal(rows.shape).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_coverage_takes_from_every_topic_and_the_better_of_like_rows() -> None:
    sizes = [60, 30, 8, 2]
    rows, owner = topics(sizes), np.repeat(np.arange(4), sizes)
    quality = np.where(np.arange(100) % 2, 1.0, 0.1)
    chosen = cover(rows, quality, 4)
    assert sorted(owner[chosen].tolist()) == [0, 1, 2, 3] and (quality[chosen] == 1).all()
    assert owner[chosen].tolist() == [0, 1, 2, 3]  # the topic that serves most rows first
    assert cover(rows, quality, 100).tolist() == list(range(100))
    assert len(set(cover(rows, np.zeros(100), 10, 1.0).tolist())) == 10


def test_coverage_is_the_greedy_choice() -> None:
    rng = np.random.default_rng(4)
    rows = rng.standard_normal((60, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    quality = rng.random(60)
    weighted = (0.5 + 0.5 * quality / quality.max())[:, None] * np.maximum(rows @ rows.T, 0)
    served, wanted = np.zeros(60), list[int]()
    for _ in range(12):
        gains = np.maximum(weighted - served, 0).sum(axis=1)
        gains[wanted] = -1
        wanted.append(int(gains.argmax()))
        served = np.maximum(served, weighted[wanted[-1]])
    assert cover(rows, quality, 12).tolist() == wanted


def test_coverage_of_many_rows_goes_by_cells_and_still_serves_every_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synth.filters.selection._CELL", 64)
    sizes = [400, 300, 200, 50, 20, 5]
    rows, owner = topics(sizes), np.repeat(np.arange(6), sizes)
    chosen = cover(rows, np.ones(len(rows)), 90)
    assert set(owner[chosen].tolist()) == set(range(6)) and len(set(chosen.tolist())) == 90
    assert cover(rows, np.ones(len(rows)), 90).tolist() == chosen.tolist()
    alike = np.repeat(rows[:1], 500, axis=0)
    assert len(set(cover(alike, np.ones(500), 7).tolist())) == 7


def test_select_by_coverage_needs_vectors_and_hangs_on_no_order() -> None:
    table, rows = columns(100), topics([60, 30, 8, 2])
    with pytest.raises(ConfigError, match="embeddings"):
        select(table, Bounds(10), mode="coverage")
    causes = select(table, Bounds(10, 2), mode="coverage", vectors=rows)
    assert (causes == 0).sum() == 10
    places = np.random.default_rng(1).permutation(100)
    again = select(moved(table, places), Bounds(10, 2), mode="coverage", vectors=rows[places])
    assert np.array_equal(again, causes[places])


def test_a_hundred_thousand_documents_are_split_exactly() -> None:
    counts = {f"d{i}": 10 for i in range(100_000)}
    assert len(validation_documents(counts, 0.2, 0)) == 20_000
    odd = {f"d{i}": 1 + i % 17 for i in range(20_000)}
    assert sum(odd[name] for name in validation_documents(odd, 0.25, 3)) == round(0.25 * sum(odd.values()))
