"""Hand-computed cases of the SQuAD v1.1 metrics."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune.metrics import exact_match, f1, normalize


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("The  Kettle!", "kettle"),
        ("an apple a day", "apple day"),
        ("1.7 litres", "17 litres"),
        ("semi-annual", "semiannual"),
        ("theatre and anthem", "theatre and anthem"),
        ("a", ""),
        ("  \t\n", ""),
        ("", ""),
        # Punctuation goes first, so what it held apart may become an article.
        ("A.N.", ""),
        # Only string.punctuation goes: other quotation marks and dashes stay.
        ("“Paris”", "“paris”"),
        ("5–6 €", "5–6 €"),
        ("5-6 $", "56"),
    ],
)
def test_normalization_is_that_of_the_squad_program(text: str, normalized: str) -> None:
    assert normalize(text) == normalized


@pytest.mark.parametrize(
    ("answer", "references", "em", "overlap"),
    [
        ("every six weeks", ["Every six weeks."], 1.0, 1.0),
        # Tokens cat, sat of cat, sat, down: precision 1, recall 2/3.
        ("the cat sat", ["cat sat down"], 0.0, 0.8),
        # Multiset: one of three said tokens is shared.
        ("no no no", ["no"], 0.0, 0.5),
        ("no no no", ["no, no"], 0.0, 0.8),
        ("red", ["blue"], 0.0, 0.0),
        ("", ["blue"], 0.0, 0.0),
        # Both empty after normalization: an exact match without a shared token.
        ("The", ["a"], 1.0, 0.0),
        ("", ["the"], 1.0, 0.0),
        ("“Paris”", ["Paris"], 0.0, 0.0),
        # The best reference counts.
        ("forty pounds", ["40", "forty", "£40, or forty pounds"], 0.0, 2 / 3),
        ("forty", ["40", "forty"], 1.0, 1.0),
    ],
)
def test_scores_are_those_computed_by_hand(answer: str, references: list[str], em: float, overlap: float) -> None:
    assert exact_match(answer, references) == em
    assert f1(answer, references) == pytest.approx(overlap)


def test_a_question_without_a_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="reference"):
        f1("anything", [])


@given(st.text(alphabet="ab the.,-é“ ", max_size=30), st.text(alphabet="ab the.,-é“ ", max_size=30))
def test_f1_is_symmetric_and_one_exactly_for_the_same_words(one: str, other: str) -> None:
    score = f1(one, [other])
    assert score == pytest.approx(f1(other, [one]))
    assert 0 <= score <= 1
    same = sorted(normalize(one).split()) == sorted(normalize(other).split())
    assert (score == 1) == (same and normalize(one) != "")
