"""Scores that look for the pair's place in its passage: alignment, rouge_l, coverage, nearness, polarity."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.core.records import Passage, Record
from synth.filters.base import ShareScorer
from synth.filters.best_alignment import ALIGNMENT, ROUGE_L
from synth.filters.coverage import COVERAGE
from synth.filters.nearness import NEARNESS, SAME_SENTENCE
from synth.filters.passage_index import best_places, common_in_order, index_of
from synth.filters.polarity import POLARITY

ALL = (ALIGNMENT, ROUGE_L, COVERAGE, NEARNESS, SAME_SENTENCE, POLARITY)
MILL = (
    "The mill of Ann Rook was sold in 1874 for 52 crowns. Its wheel has not turned since the flood, and the barn beside "
    "it holds oats. The ferry from Tarnwick crosses the strait in 24 minutes, and dogs are not allowed on its deck."
)


def record(question: str, answer: str, passage: str = MILL, kind: str = "qa") -> Record:
    return Record.create(Passage("d", passage, 0, len(passage)), question, answer, generator="test", kind=kind)


def score(scorer: ShareScorer, question: str, answer: str, passage: str = MILL) -> float | None:
    return scorer.score([record(question, answer, passage)])[0]


@pytest.mark.parametrize(
    ("answer", "low", "high"),
    [
        ("the mill of Ann Rook", 1, 1),
        ("THE MILLS of Ann Rook", 1, 1),
        ("sold in 1911 for 52 crowns", 0.6, 0.8),
        ("crowns 52 for 1874 in sold", 0, 0.5),
        ("a submarine", 0, 0),
    ],
)
def test_alignment_is_the_share_of_the_answer_at_its_best_place(answer: str, low: float, high: float) -> None:
    found = score(ALIGNMENT, "What was sold?", answer)
    assert found is not None and low <= found <= high


def test_words_from_all_over_the_passage_make_rouge_l_but_no_alignment() -> None:
    scattered = "mill wheel barn ferry dogs"
    assert score(ROUGE_L, "What?", scattered) == 1.0
    assert (score(ALIGNMENT, "What?", scattered) or 0) < 0.5


def test_an_answer_with_a_word_left_out_never_reaches_one() -> None:
    assert (score(ALIGNMENT, "Where may dogs be?", "dogs are allowed on its deck") or 0) < 1
    assert score(ALIGNMENT, "Where may dogs not be?", "dogs are not allowed on its deck") == 1


@given(st.lists(st.sampled_from("abcd"), max_size=12), st.lists(st.sampled_from("abcd"), max_size=200))
@settings(deadline=None)
def test_the_common_subsequence_is_as_long_as_the_table_says(short: list[str], long: list[str]) -> None:
    table = [[0] * (len(long) + 1) for _ in range(len(short) + 1)]
    for i, a in enumerate(short):
        for j, b in enumerate(long):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    assert common_in_order(short, long) == table[-1][-1]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("in 1874", 1.0),
        ("in 1911", 0.0),
        ("Ann Rook", 1.0),
        ("Ben Rook", 0.5),
        ("for 52 crowns in 1875", 0.5),
        ("24 minutes", 1.0),
        ("24 hours", 0.5),
        ("the barn", None),
    ],
)
def test_coverage_is_the_share_of_the_answers_facts_in_the_passage(answer: str, expected: float | None) -> None:
    assert score(COVERAGE, "What?", answer) == expected


def test_an_answer_is_nearer_to_its_own_question_than_to_another() -> None:
    right = score(NEARNESS, "How long does the ferry take to cross the strait?", "24 minutes")
    wrong = score(NEARNESS, "How long does the ferry take to cross the strait?", "1874")
    assert right is not None and wrong is not None and right > wrong + 0.2
    assert score(SAME_SENTENCE, "What does the barn hold?", "oats") == 1.0
    assert (score(SAME_SENTENCE, "What does the barn hold?", "1874") or 0) < 0.5
    assert score(NEARNESS, "What does the barn hold?", "submarines") == 0.0
    assert score(NEARNESS, "Does the barn hold oats?", "Yes") is None


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        ("When was the mill sold?", "1874", 1.0),
        ("When wasn't the mill sold?", "1874", 0.0),
        ("What was the mill not sold for?", "52 crowns", 0.0),
        ("Where are dogs not allowed?", "on its deck", 1.0),
        ("Where may dogs be?", "dogs are allowed on its deck", 0.0),
        ("What of the deck?", "dogs are not allowed on its deck", 1.0),
        ("What of the ferry?", "The ferry doesn't cross the strait", 0.0),
        ("Does the ferry cross the strait?", "No", 1.0),
    ],
)
def test_polarity_is_that_of_the_answers_place(question: str, answer: str, expected: float) -> None:
    assert score(POLARITY, question, answer) == expected


def test_polarity_is_silent_on_other_languages() -> None:
    german = "Die Mühle wurde im Jahr 1874 verkauft, und das Rad dreht sich seit der Flut nicht mehr."
    spanish = "El molino se vendió en 1874 y la rueda no gira desde la inundación del valle."
    assert score(POLARITY, "Wann wurde die Mühle nicht verkauft?", "1874", german) is None
    assert score(POLARITY, "¿Cuándo no se vendió?", "1874", spanish) is None


def test_sentences_end_at_stops_and_not_inside_numbers_or_before_small_letters() -> None:
    index = index_of("It costs 3.5 crowns, e.g. today. Then it rises! A line\nof its own.")
    words = dict(zip(index.text.words, index.sentences, strict=True))
    assert words["3.5"] == words["today"] == 0 and words["then"] == 1 and words["line"] == words["own"] == 2


@pytest.mark.parametrize("scorer", ALL, ids=lambda scorer: scorer.name)
@pytest.mark.parametrize(
    ("question", "answer", "passage"),
    [
        ("", "", ""),
        ("?", "...", "!!!"),
        ("What?", "x", ""),
        ("", "", MILL),
        ("Qué?", "﷽ 👩‍👩‍👧 ß İ", "ﬀ İ ß 👩‍👩‍👧 \x00 ﷽"),
        ("not not not", "not", "not " * 50),
        ("the", "the", "the the"),
    ],
)
def test_odd_texts_give_a_share_or_nothing(scorer: ShareScorer, question: str, answer: str, passage: str) -> None:
    found = score(scorer, question, answer, passage)
    assert found is None or 0 <= found <= 1


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=200))
@settings(deadline=None, max_examples=40)
def test_any_text_gives_a_share_or_nothing(question: str, answer: str, passage: str) -> None:
    for scorer in ALL:
        found = score(scorer, question, answer, passage)
        assert found is None or 0 <= found <= 1


def test_a_huge_passage_is_scored_in_its_own_time_and_no_longer() -> None:
    huge = "The mill was sold for nothing and not one of the oats was in the barn. " * 30_000
    index_of(huge)
    started = time.process_time()
    for answer in ("the oats in the mill of the barn " * 20, "not sold", "1874", "the"):
        for scorer in ALL:
            score(scorer, "What was not sold of the mill in the barn?", answer, huge)
    assert time.process_time() - started < 30


def test_the_best_places_are_all_that_hold_the_answer_whole() -> None:
    places = best_places("the barn", "A barn is here. The barn is red. The barns are far.")
    assert [place.start for place in places] == [1, 5, 9] and {place.share for place in places} == {1.0}
