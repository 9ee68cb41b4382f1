"""What supports an answer; on human data the two rates that say what the measure is worth."""

import os
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from synth.core.heldout import HeldoutItem, load_heldout
from synth.core.records import Passage
from tune.metrics.support import Support

KETTLE = "The kettle holds 1.7 litres. Descale it every six weeks with citric acid. It weighs 1,200 grams."
GARDEN = "The garden opens at eight. Dogs are not allowed on the lawn, and the gardener locks the gate."


def passage(text: str, document: str = "text") -> Passage:
    return Passage(document, text, 0, len(text))


def item(question: str, context: str = "") -> HeldoutItem:
    return HeldoutItem("i", question, (), "d", context)


HOW_OFTEN = item("How often must the kettle be descaled?")


@pytest.mark.parametrize(
    ("answer", "supported"),
    [
        ("every six weeks", True),
        ("Every 6 weeks.", True),
        ("every ten weeks", False),
        ("The kettle must be descaled every six weeks, with citric acid.", True),
        ("The kettle must be descaled every seven weeks, with citric acid.", False),
        ("with vinegar", False),
        ("It weighs 1200 grams", True),
        ("1.70 litres", True),
        ("17 litres", False),
        ("The butler descales the kettle.", False),
        # A word of another passage does not help: all of it has to stand in one.
        ("The gardener descales it with citric acid.", False),
    ],
)
def test_an_answer_is_supported_by_its_numbers_and_content_words_in_one_passage(answer: str, supported: bool) -> None:
    assert Support([passage(KETTLE), passage(GARDEN)]).supported(HOW_OFTEN, answer) is supported


def test_what_says_nothing_is_neither_supported_nor_not() -> None:
    support = Support([passage(KETTLE)])
    for answer in ("Yes.", "No", "I do not have that information.", "", "…"):
        assert support.supported(HOW_OFTEN, answer) is None
    assert Support().supported(HOW_OFTEN, "every six weeks") is None
    assert Support([passage(GARDEN)]).supported(item("Who?"), "the gardener") is None


def test_words_of_the_question_support_nothing_unless_the_answer_chooses_between_them() -> None:
    asked = item("Does the garden open at eight or at nine, and who locks the gate?")
    support = Support([passage(GARDEN)])
    assert support.supported(asked, "eight") is True
    assert support.supported(asked, "nine") is False
    assert support.supported(asked, "The porter locks the gate.") is False
    # Nine words that the passage has, all of them the question's, do not make up for the one that it has not.
    wordy = item("Who locks the gate of the garden, where the dogs are not allowed on the lawn, and opens it at eight?")
    told = "The {} locks the gate of the garden where dogs are not allowed on the lawn and opens it at eight."
    assert support.supported(wordy, told.format("gardener")) is True
    assert support.supported(wordy, told.format("butcher")) is False


def test_the_own_passage_comes_first_and_is_looked_in_without_a_run() -> None:
    own = item("What is allowed?", GARDEN)
    support = Support([passage(KETTLE), passage("What is allowed is not always good.")])
    assert support.passages_for(own) == (GARDEN, "What is allowed is not always good.")
    assert support.passages_for(own, "not always good")[0] == "What is allowed is not always good."
    assert Support().supported(own, "dogs on the lawn") is True


def test_of_the_own_document_more_is_looked_in() -> None:
    texts = [
        f"Part {place} of the house is made of {stuff}." for place, stuff in enumerate(["brick", "oak", "tin", "lead"])
    ]
    asked = HeldoutItem("i", "What is the best part of the house?", (), "house.md")
    for name, found in (("house.md", 4), ("other.md", 3)):
        support = Support([passage(text, name) for text in texts])
        assert len(support.passages_for(asked)) == found
        assert support.supported(asked, "lead") is (found == 4)
    # Even a question that shares no word with it is about its document.
    support = Support([passage(KETTLE, "house.md"), passage(GARDEN, "other.md")])
    assert support.supported(HeldoutItem("j", "When?", (), "house.md"), "every six weeks") is True
    assert support.passages_for(HeldoutItem("j", "When?", (), "house.md", GARDEN)) == (GARDEN,)


def test_a_script_without_spaces_is_looked_for_as_it_is() -> None:
    asked = item("水壺多久除垢一次？", "水壺應每六週除垢一次。")
    assert Support().supported(asked, "每六週") is True
    assert Support().supported(asked, "每七週") is False


def test_passages_without_words_and_questions_without_words_find_nothing() -> None:
    assert Support([passage("…")]).passages_for(HOW_OFTEN) == ()
    assert Support([passage(KETTLE)]).passages_for(item("?")) == ()


@pytest.mark.shared
def test_human_answers_are_supported_and_those_of_other_questions_are_not() -> None:
    items = load_heldout(Path(os.environ["SYNTH_SHARED_DATA"]) / "xquad.en.json").items
    texts = dict.fromkeys((one.document_id, one.context) for one in items)
    known = Support([passage(text, document) for document, text in texts])
    unknown = Support([passage(text) for _, text in texts])
    rng = random.Random(0)
    others = [rng.choice([a for a in items if a.document_id != one.document_id]).answers[0] for one in items]
    answers = [one.answers[0] for one in items]
    bare = [replace(one, context="") for one in items]
    # Its own passage is known; its document is; nothing is.
    for among, support, human, made_up in (
        (items, known, 0.998, 0.03),
        (bare, known, 0.998, 0.04),
        (bare, unknown, 0.97, 0.03),
    ):
        told = [_rate(support, among, said) for said in (answers, others)]
        assert told[0] >= human and told[1] <= made_up, told


def _rate(support: Support, items: Sequence[HeldoutItem], answers: Sequence[str]) -> float:
    """Return the share of answers that are supported, of those that say something."""
    told = [support.supported(one, answer) for one, answer in zip(items, answers, strict=True)]
    return sum(map(bool, told)) / sum(one is not None for one in told)
