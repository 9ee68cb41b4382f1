from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synth.core.heldout import HeldoutItem
from synth.core.records import Message, Passage, Record
from synth.filters.decontamination import HeldoutIndex

# How fast a busy machine is says nothing about the code.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


PASSAGE = (
    "Before pulling out the fan, unplug the Cobbin and wait four minutes for the heater plate to cool down again fully."
)
LONG = "How many minutes should one wait before the heater plate may be touched?"
SHORT = "What colour is the light?"


def record(question: str, answer: str = "four", prompt: Sequence[Message] | None = None) -> Record:
    return Record.create(Passage("d", PASSAGE, 0, len(PASSAGE)), question, answer, generator="test", prompt=prompt)


def index(*questions: str) -> HeldoutIndex:
    return HeldoutIndex(
        HeldoutItem(id=f"h{i}", question=q, answers=("x",), document_id="d") for i, q in enumerate(questions)
    )


def found(index: HeldoutIndex, pair: Record) -> str | None:
    """Return the id of the item that the pair leaks."""
    leak = index.find(pair)
    return leak and leak.item_id


@pytest.mark.parametrize(
    "question",
    [
        LONG,
        LONG.upper().replace("?", " ?!"),
        f"Please answer briefly: {LONG}",
        "How many minutes should one wait before the heater plate can be used?",
        "How many minutes should you wait before the heater plate may be touched?",
    ],
)
def test_a_long_question_is_found_whole_by_eight_words_or_but_for_one(question: str) -> None:
    assert found(index("Who?", LONG), record(question)) == "h1"


@pytest.mark.parametrize(
    ("question", "leaks"),
    [
        (SHORT, True),
        ("what COLOUR is a light", True),
        ("What is the colour of the light?", True),
        ("So, what colour is the light then?", True),
        ("What colour is the door?", False),
        ("What colour is the light of the left door?", True),  # the whole question stands in it
        ("What colour is the left light?", False),
        ("How heavy is the light?", False),
        ("What is it?", False),
    ],
)
def test_a_short_question_is_found_whole_or_but_for_one_word(question: str, leaks: bool) -> None:
    assert found(index(SHORT), record(question)) == ("h0" if leaks else None)


def test_another_number_is_another_question() -> None:
    assert found(index("How heavy is the A-2?"), record("How heavy is the A-3?")) is None


def test_a_question_of_a_word_or_two_has_to_be_a_sentence_of_its_own() -> None:
    assert found(index("How much?"), record("How much does it cost?")) is None
    assert found(index("How much?"), record("The lamp costs a bit. How much?")) == "h0"


def test_a_question_in_the_answer_or_in_an_earlier_turn_is_found() -> None:
    assert found(index(LONG), record("What would a customer ask?", f"They ask: {LONG}")) == "h0"
    turns = [Message("user", LONG), Message("assistant", "Four."), Message("user", "Why?")]
    assert found(index(LONG), record("", prompt=turns)) == "h0"


def test_words_that_the_passage_has_itself_are_no_leak() -> None:
    heldout = "When you unplug the Cobbin and wait four minutes for the heater plate to cool, what comes next?"
    quoting = record("What should you do before pulling out the fan?", PASSAGE[29:])
    assert found(index(heldout), quoting) is None
    assert found(index(heldout), record(heldout)) == "h0"


def test_of_several_the_first_in_the_file_is_named() -> None:
    assert found(index(SHORT, LONG, LONG), record(LONG)) == "h1"


def test_an_empty_set_finds_nothing() -> None:
    assert found(index(), record(LONG)) is None


WORDS = st.lists(
    st.sampled_from(["what", "is", "the", "lamp", "red", "blue", "of", "a", "kettle", "cost", "40", "not", "who"]),
    min_size=3,
    max_size=14,
)


@UNHURRIED
@given(WORDS, WORDS, WORDS, st.booleans())
def test_a_planted_question_is_always_found(
    question: list[str], before: list[str], after: list[str], answered: bool
) -> None:
    planted = " ".join([*before, *question, *after])
    pair = record("Something else?", planted) if answered else record(planted + "?")
    assert found(index("Where on earth is Zanzibar?", " ".join(question) + "?"), pair) == "h1"
