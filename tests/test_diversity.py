import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.filters import diversity
from synth.filters.decontamination import atoms
from synth.filters.diversity import DistinctCounter, effective_number, topic_spread

SENTENCES = st.lists(
    st.lists(st.sampled_from(["red", "blue", "lamp", "the", "is", "kettle"]), max_size=6).map(" ".join)
)


@given(SENTENCES, st.integers(1, 5))
def test_distinct_n_counts_different_ngrams_within_texts(texts: list[str], batch: int) -> None:
    counter = DistinctCounter()
    for start in range(0, len(texts), batch):
        counter.add(texts[start : start + batch])
    for length in (1, 2, 3):
        grams = [words[i : i + length] for words in map(atoms, texts) for i in range(len(words) - length + 1)]
        wanted = len(set(grams)) / len(grams) if grams else None
        assert counter.distinct(length) == (wanted if wanted is None else pytest.approx(wanted))


def test_past_what_is_held_the_count_is_a_close_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"a{i % 20_000} b{i % 7}" for i in range(40_000)]
    exact = DistinctCounter()
    exact.add(texts)
    monkeypatch.setattr(diversity, "_HELD", 4096)
    rough, turned = DistinctCounter(), DistinctCounter()
    rough.add(texts)
    turned.add(texts[::-1])
    for length in (1, 2):
        assert rough.distinct(length) == pytest.approx(exact.distinct(length), rel=0.1)
        assert rough.distinct(length) == turned.distinct(length)


def topics(sizes: list[int]) -> np.ndarray:
    rng = np.random.default_rng(0)
    rows = np.vstack([np.repeat(np.eye(len(sizes), 16)[i : i + 1], size, axis=0) for i, size in enumerate(sizes)])
    rows = (rows + 0.02 * rng.standard_normal(rows.shape)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_even_topics_count_fully_and_a_lopsided_corpus_less() -> None:
    even = topic_spread(topics([50, 50, 50, 50]), topics=4)
    assert even is not None and even.effective == pytest.approx(4) and even.entropy == pytest.approx(math.log(4))
    lopsided = topic_spread(topics([140, 20, 20, 20]), topics=4)
    assert lopsided is not None and lopsided.effective == pytest.approx(2.56, abs=0.01)
    assert even.to_json() == {"topics": 4, "entropy": 1.3863, "effective_topics": 4.0, "largest_share": 0.25}


def test_a_record_has_the_share_of_its_topic_and_none_without_words() -> None:
    rows = np.vstack([topics([30, 10]), np.zeros((1, 16), dtype=np.float32)])
    spread = topic_spread(rows, topics=2)
    assert spread is not None
    assert spread.topic_share() == [0.75] * 30 + [0.25] * 10 + [None]
    again = topic_spread(rows, topics=2)
    assert again is not None and np.array_equal(again.topics, spread.topics)


def test_a_corpus_all_alike_is_one_topic_and_an_empty_one_has_none() -> None:
    alike = topic_spread(np.repeat(topics([1]), 50, axis=0))
    assert alike is not None and alike.effective == pytest.approx(1)
    assert topic_spread(np.zeros((9, 16), dtype=np.float32)) is None
    assert effective_number(np.zeros((9, 16), dtype=np.float32)) is None


def test_the_effective_number_counts_directions() -> None:
    assert effective_number(np.repeat(np.eye(5, dtype=np.float32), 4, axis=0)) == pytest.approx(5)
    assert effective_number(np.repeat(np.eye(5, dtype=np.float32)[:1], 4, axis=0)) == pytest.approx(1)
