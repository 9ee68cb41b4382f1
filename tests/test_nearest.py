import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.core.heldout import HeldoutItem
from tune.nearest import Distance, asked_by, nearest_rows, question_distance, words_of


def row(name: str, question: str) -> dict[str, Any]:
    return {"id": name, "prompt": [{"role": "system", "content": "kettle"}, {"role": "user", "content": question}]}


ROWS = [
    row("a", "How much water does the kettle hold?"),
    row("b", "What does the red light of the kettle mean?"),
    row("c", "What does the lamp cost?"),
]


def test_the_nearest_rows_come_nearest_first() -> None:
    found = nearest_rows(["How much water does the kettle hold", "What does a lamp cost?", "zebra"], ROWS)
    assert [[near.row_id for near in one] for one in found] == [["a", "b", "c"], ["c", "b", "a"], []]
    assert found[0][0].similarity == 1.0 and found[0][0].text == "How much water does the kettle hold?"
    assert 1 > found[1][0].similarity > found[1][1].similarity > found[1][2].similarity > 0
    assert [[near.row_id for near in one] for one in nearest_rows(["What does a lamp cost?"], ROWS, k=1)] == [["c"]]


def test_of_equally_near_rows_the_first_in_the_file_is_named() -> None:
    rows = [row(str(n), "What does the lamp cost?") for n in range(20)]
    assert [near.row_id for near in nearest_rows(["What does the lamp cost?"], rows)[0]] == ["0", "1", "2"]


def test_words_that_no_row_has_make_a_question_the_farther() -> None:
    plain, strange = nearest_rows(["What does the lamp cost?", "What does the lamp cost in zloty outside?"], ROWS, k=1)
    assert strange[0].similarity < plain[0].similarity == 1.0


def test_characters_are_words_where_a_script_has_no_spaces() -> None:
    assert words_of("水壶 holds 1.7 Ä") == ["水", "壶", "holds", "1", "7", "ä"]
    assert words_of("prüfe ﬁve １２") == words_of("pru\u0308fe five 12") == ["prüfe", "five", "12"]
    rows = [row("a", "这个水壶能装多少水?"), row("b", "灯多少钱?")]
    assert nearest_rows(["水壶装多少?"], rows)[0][0].row_id == "a"


def test_without_rows_or_words_nothing_is_near() -> None:
    assert nearest_rows(["What?"], []) == nearest_rows(["What?"], [row("a", "?!")]) == [[]]
    assert nearest_rows([], ROWS) == []
    with pytest.raises(ValueError, match="k is 0"):
        nearest_rows(["What?"], ROWS, k=0)


def test_a_row_asks_what_the_user_says_last() -> None:
    turns = [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "1"}]
    assert asked_by({"prompt": [*turns, {"role": "user", "content": "Two?"}]}) == "Two?"
    assert (asked_by({"prompt": "Plain text"}), asked_by({"prompt": []})) == ("Plain text", "")


def test_the_distance_is_a_median_beside_that_of_generated_questions() -> None:
    items = [HeldoutItem(str(n), question, (), "d") for n, question in enumerate(["zebra crossing", "gnu", "yak?"])]
    own = [row("v", "How much water does the kettle hold?"), row("w", "What does the lamp cost?")]
    assert question_distance(items, ROWS, own) == Distance(1.0, 0.0)
    assert question_distance(items, ROWS, []) == Distance(1.0, None)
    assert question_distance(items, [], own) == Distance(None, None)
    asked = [HeldoutItem(str(n), "What does the lamp cost?", (), "d") for n in range(3)]
    assert question_distance([*items[:2], *asked], ROWS, own).heldout_median == 0.0


def cosine(one: str, other: str, texts: list[str]) -> float:
    """TF-IDF by hand: (1 + ln count) × (ln((1 + n) / (1 + texts with it)) + 1), for words and pairs of words."""

    def terms(text: str) -> Counter[str]:
        words = text.split()
        return Counter([*words, *map(" ".join, zip(words, words[1:], strict=False))])

    held = [terms(text) for text in texts]

    def weights(text: str) -> dict[str, float]:
        return {
            term: (1 + math.log(count)) * (math.log((1 + len(held)) / (1 + sum(term in h for h in held))) + 1)
            for term, count in terms(text).items()
        }

    first, second = weights(one), weights(other)
    product = sum(weight * second.get(term, 0.0) for term, weight in first.items())
    return product / math.sqrt(sum(w * w for w in first.values()) * sum(w * w for w in second.values()))


TEXT = st.lists(st.sampled_from(["kettle", "lamp", "red", "what", "is"]), min_size=1, max_size=6).map(" ".join)


@settings(deadline=None, max_examples=50)
@given(st.lists(TEXT, min_size=1, max_size=8), st.lists(TEXT, min_size=1, max_size=4))
def test_similarities_are_those_worked_out_by_hand(asked: list[str], questions: list[str]) -> None:
    found = nearest_rows(questions, [row(str(n), text) for n, text in enumerate(asked)], k=2)
    for question, near in zip(questions, found, strict=True):
        expected = sorted((cosine(question, text, [*asked, *questions]) for text in asked), reverse=True)
        expected = [value for value in expected if value > 0][:2]
        assert [one.similarity for one in near] == pytest.approx(expected, abs=2e-4)
