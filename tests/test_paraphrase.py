import importlib.util
import json

import numpy as np
import pytest

from synth.core.embedding import Embedder, load_embedder
from synth.core.heldout import HeldoutItem
from synth.filters.paraphrase import Closeness, RewordedIndex, asks, contradict, semantic_leaks
from tests.conftest import CHECKOUT

needs_wordllama = pytest.mark.skipif(
    importlib.util.find_spec("wordllama") is None, reason="wordllama is not installed (the extra `semantic`)"
)


@pytest.fixture(scope="module")
def model() -> Embedder:
    return load_embedder("wordllama")


def unit(*rows: list[float]) -> np.ndarray:
    table = np.array(rows, dtype=np.float32)
    return table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-9)


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("By whom was it built?", "who"),
        ("What is the number of rooms?", "count"),
        ("How soon does it dry?", "length"),
        ("In which year did it end?", "when"),
        ("Does it float?", "whether"),
        ("Which oil is it?", "what"),
    ],
)
def test_a_question_asks_for_a_sort_of_thing(question: str, kind: str) -> None:
    assert asks(question) == kind


def test_numbers_and_names_that_contradict_part_two_questions() -> None:
    assert contradict("How heavy is the lamp of 1990?", "How heavy is the lamp of 1991?")
    assert contradict("When was Marie in Paris?", "When was Marie in Rome?")
    assert not contradict("Marie Curie discovered what?", "What did Marie Curie discover?")
    assert not contradict("What is open on Sundays?", "On a Sunday, what is open?")


@needs_wordllama
def test_planted_paraphrases_are_found_and_other_questions_are_not(model: Embedder) -> None:
    """The rates of docs/decontamination.md, which a change of the rule must not make worse."""
    lines = (CHECKOUT / "bench" / "paraphrases.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    items = [HeldoutItem(f"h{i}", row["question"], (row["answer"],), "d") for i, row in enumerate(rows)]
    index = RewordedIndex(items, model)
    hits = index.find([row["paraphrase"] for row in rows], [row["paraphrase_answer"] for row in rows])
    wrong = index.find([row["other"] for row in rows], [row["other_answer"] for row in rows])
    assert sum(hits.get(i, (-1, 0.0))[0] == i for i in range(len(rows))) >= 0.95 * len(rows) >= 95
    assert len(wrong) <= 0.09 * len(rows)


@needs_wordllama
def test_the_answers_tell_one_question_from_another(model: Embedder) -> None:
    index = RewordedIndex([HeldoutItem("h", "When was the bridge built?", ("in 1884",), "d")], model)
    asked = ["The bridge dates from what year?", "Who built the bridge?", "The bridge dates from what year?"]
    assert list(index.find(asked, ["1884", "a monk", "1790"])) == [0]
    assert index.find(["When was the bridge built?"], ["long ago"]) == {0: (0, 1.0)}
    strict = RewordedIndex(
        [HeldoutItem("h", "When was the bridge built?", ("1884",), "d")], model, Closeness(2, 2, 2, 2)
    )
    assert strict.find(asked, ["1884", "a monk", "1884"]) == {}


def test_a_row_names_the_nearest_item_and_of_equals_the_first() -> None:
    held = unit([1, 0], [0, 1], [0, 1], [0.6, 0.8])
    rows = unit([0, 1], [1, 0.1], [-1, 0], [0, 0])
    assert semantic_leaks(rows, held, 0.9) == {0: (1, 1.0), 1: (0, 0.995)}
    assert semantic_leaks(rows, held[:0], 0.9) == {}
    second = semantic_leaks(rows, held, 0.5, agree=lambda row, item, cosine: (row, item) == (0, 3))
    assert second == {0: (3, 0.8)}
    assert semantic_leaks(rows, held, 0.5, agree=lambda row, item, cosine: item == 3, nearest=2) == {1: (3, 0.6766)}
