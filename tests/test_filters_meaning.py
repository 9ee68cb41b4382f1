"""Negation, answer types, and questions that do not fit: what a count of words cannot see."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synth.core.records import Passage, Record
from synth.filters.answer_type import ANSWER_TYPE
from synth.filters.negation import NEGATION
from synth.filters.question_fit import QUESTION_FIT

# How fast a busy machine is says nothing about the code.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def record(evidence: str | None, question: str, answer: str, passage: str = "") -> Record:
    text = f"{passage} {evidence or ''}".strip()
    return Record.create(Passage("d", text, 0, len(text)), question, answer, generator="test", evidence=evidence)


@pytest.mark.parametrize(
    ("evidence", "question", "answer", "faults"),
    [
        ("Do not place it on carpet.", "Where do you place the scale?", "on carpet", ["lost"]),
        ("Do not place it on carpet.", "What should you not place on carpet?", "the scale", []),
        ("Do not place it on carpet.", "Where must the scale never stand?", "on carpet", []),
        ("Never shake the reservoir.", "What should you shake?", "the reservoir", ["lost"]),
        ("Opened software cannot be returned.", "What can be returned?", "Opened software", ["lost"]),
        ("Opened software cannot be returned.", "What is non-returnable?", "Opened software", []),
        ("Wearing them in rain is not covered.", "What is covered?", "Wearing them in rain", ["lost"]),
        ("Tighten the nut by hand, not with a wrench.", "How do you tighten the nut?", "by hand", []),
        ("Tighten the nut by hand, not with a wrench.", "How do you tighten the nut?", "with a wrench", ["lost"]),
        ("Avoid bleach on the tray.", "What can you use on the tray?", "bleach", ["lost"]),
        ("Press Mute to stop the sound.", "What should you not press?", "Mute", ["added"]),
        ("Be there no later than 35 minutes before.", "When should you be there?", "35 minutes before", []),
        ("The gate does not open without a badge.", "What opens the gate?", "a badge", []),
        ("The gate does not open without a badge.", "How does the gate open?", "without a badge", ["lost"]),
        ("Do not open it until the light is off.", "When may the lid be opened?", "when the light is off", []),
        ("Pets are not allowed, but birds are welcome.", "What is welcome?", "birds", []),
        ("Is the lid hot? It is cool.", "Is the lid hot?", "No, it is cool.", []),
    ],
)
def test_a_negation_is_kept(evidence: str, question: str, answer: str, faults: list[str]) -> None:
    assert NEGATION.explain(record(evidence, question, answer)) == faults


def test_without_evidence_the_sentence_of_the_answer_is_read() -> None:
    passage = "The oven is hot. Never wash the oven with bleach."
    assert NEGATION.explain(record(None, "What do you wash the oven with?", "bleach", passage)) == ["lost"]
    assert NEGATION.explain(record(None, "What must not touch the oven?", "bleach", passage)) == []


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("How many people sleep in the tent?", "the porch"),
        ("How much does it weigh?", "the base"),
        ("How often is it cleaned?", "the filter"),
        ("How often does the membership cost?", "18 dollars a month"),
        ("How long does the charge last?", "behind the lid"),
        ("How long should you push it?", "38 turns a minute"),
        ("Who founded the clinic?", "in 1987"),
        ("Who signs the card?", "40 seconds"),
        ("Where is the key?", "40 seconds"),
        ("Where do the scraps go?", "once the core is warm"),
        ("When does it close?", "behind the lid"),
        ("When does it close?", "the lid"),
        ("Why is it sealed?", "24 volts"),
        ("How do you clean it?", "24 volts"),
        ("What year was it founded?", "the clinic"),
        ("How heavy is the tent?", "the tent"),
    ],
)
def test_an_answer_of_another_type_is_rejected(question: str, answer: str) -> None:
    assert ANSWER_TYPE.score([record(None, question, answer, "text")]) == [0.0]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("How many people sleep in the tent?", "four"),
        ("How many are left?", "none of them"),
        ("How much does it cost?", "It is free."),
        ("How often is it cleaned?", "once a month"),
        ("How often is it cleaned?", "after every use"),
        ("How long does the charge last?", "nine hours"),
        ("How long is the cable?", "3.5 m"),
        ("How long can it stay outside?", "until the first frost"),
        ("How long may you stay?", "two hours a day"),
        ("Who founded the clinic?", "Dr. Ilse Varga"),
        ("Where is the key?", "under the battery cover"),
        ("Where does breakfast take place?", "Fern Room"),
        ("When does it close?", "at noon on Fridays"),
        ("When does it beep?", "If the door is open"),
        ("When was it founded?", "1987"),
        ("Why is it sealed?", "Because ink dries"),
        ("Why is it sealed?", "to keep the ink wet"),
        ("How do you clean it?", "with citric acid"),
        ("Can you wash it?", "behind the lid"),
        ("What is it?", "24 volts"),
    ],
)
def test_an_answer_that_may_fit_passes(question: str, answer: str) -> None:
    assert ANSWER_TYPE.score([record(None, question, answer, "text")]) == [1.0]


def test_a_quantity_or_a_name_is_not_cut_in_two() -> None:
    turns = "Turn the handle five times each day."
    assert ANSWER_TYPE.explain(record(turns, "How often should you turn it?", "times each day")) == [
        "cut after a number"
    ]
    assert ANSWER_TYPE.explain(record(turns, "How often should you turn it?", "five times each day")) == []
    badge = "Lost badges are reported to Petra Lindqvist."
    assert ANSWER_TYPE.explain(record(badge, "Who hears of lost badges?", "Petra")) == ["cut inside a name"]
    assert ANSWER_TYPE.explain(record(badge, "Which Lindqvist hears of lost badges?", "Petra")) == []


@pytest.mark.parametrize(
    ("evidence", "question", "answer", "fault"),
    [
        ("Standard delivery costs 4 pounds and is free above 60 pounds.", "What above 60 pounds?", "Standard delivery costs 4 pounds", "no_verb"),
        ("Every letter by hand gets a reply.", "What should you every letter by hand?", "gets a reply", "no_verb"),
        ("Our desk accepts unopened goods.", "What do our desk?", "accepts unopened goods", "no_verb"),
        ("Citrus peel slows the microbes.", "What does citrus peel slows?", "the microbes", "uninflected"),
        ("The cushion can be replaced at home.", "Where can the cushion?", "at home", "lost_verb"),
        ("The power has been reduced.", "What is been reduced?", "The power", "two_verbs"),
        ("Liquid irritates the skin and must be washed off.", "How long must liquid irritates the skin?", "off", "two_verbs"),
        ("Lunch is cooked by the course leader, Hamish.", "What is cooked by the course?", "Lunch", "loose_end"),
        ("If the lamp is red, the core has passed 72 degrees.", "What should you do if the lamp is red?", "the core", "no_action"),
        ("All lessons start at ten.", "What do lessons lessons start?", "at ten", "repeats"),
        ("The dock is best placed in the shade.", "Where is best placed in the shade?", "in the shade", "nothing_new"),
        ("The museum turns off lamps, as light can hurt the animals.", "What can hurt the animals?", "The museum", "other_subject"),
        ("Water expands as it freezes and splits the housing.", "What does water expand?", "the housing", "other_object"),
        ("The guest who waits is given a room.", "What is the guest who waits?", "a room", "other_predicate"),
        ("A Glimrow that flickers should be turned a little.", "Where should a Glimrow that flickers be turned?", "a little", "no_place"),
        ("Red blinking is caused by twine, a cone or grass.", "How is red blinking caused?", "twine", "no_manner"),
        ("Between April and June the time can rise.", "What can rise?", "Between April", "cut_answer"),
        ("Two pale lights mean that it is ready.", "What do you see?", "Two pale", "cut_answer"),
        ("White means ready, and the light goes out after ten minutes.", "What does white mean?", "the light goes", "other_clause"),
        ("The kettle holds two litres.", "What does the kettle hold?", "three litres", "not_quoted"),
        ("The kettle holds two litres.", "does the kettle what hold?", "two litres", "no_opening"),
        ("A rattling pump has nearly always swallowed a snail.", "What does a rattling pump have?", "nearly always swallowed a snail", "uninflected"),
        ("The fuse sits behind the cap.", "What should the fuse sits behind?", "the cap", "uninflected"),
        ("It is a warmed and insulated composter.", "What is it called?", "a warmed", "cut_answer"),
    ],
)  # fmt: skip
def test_a_question_that_lost_its_thread_is_found(evidence: str, question: str, answer: str, fault: str) -> None:
    assert fault in QUESTION_FIT.explain(record(evidence, question, answer))


@pytest.mark.parametrize(
    ("evidence", "question", "answer"),
    [
        ("The Orla lamp costs 40 pounds.", "How much does the Orla lamp cost?", "40 pounds"),
        ("A green tick means that the reading is stable.", "What does a green tick mean?", "that the reading is stable"),
        ("Lockers are emptied every Sunday night.", "What are emptied every Sunday night?", "Lockers"),
        ("Lockers are emptied every Sunday night.", "When are lockers emptied?", "every Sunday night"),
        ("The factory setting is level 3.", "What is the factory setting?", "level 3"),
        ("The library lends out telescopes for two weeks.", "What does the library lend out?", "telescopes"),
        ("The emergency key is hidden under the battery cover.", "Where is the emergency key hidden?", "under the battery cover"),
        ("Tighten the gland nut by hand, not with a wrench.", "How should you tighten the gland nut?", "by hand"),
        ("Homes with a softener should choose level 1.", "What should homes with a softener do?", "choose level 1"),
        ("If the freezer beeps, close the door firmly.", "What should you do if the freezer beeps?", "close the door firmly"),
        ("The bar, part HD-550, is sold for 46 pounds.", "What is sold for 46 pounds?", "The bar"),
        ("Parcels above 20 kilograms are delivered by two people.", "Who are parcels above 20 kilograms delivered by?", "two people"),
        ("Dr. Ilse Varga founded the Norrim clinic in 1987.", "Who founded the Norrim clinic?", "Dr. Ilse Varga"),
        ("Slide the battery into the rear grip until it clicks.", "What should you slide the battery into?", "the rear grip"),
    ],
)  # fmt: skip
def test_a_question_that_can_be_laid_back_on_its_sentence_passes(evidence: str, question: str, answer: str) -> None:
    assert QUESTION_FIT.explain(record(evidence, question, answer)) == []


@UNHURRIED
@given(st.one_of(st.none(), st.text(max_size=60)), st.text(max_size=60), st.text(max_size=60))
def test_any_text_gets_a_score(evidence: str | None, question: str, answer: str) -> None:
    for scorer in (NEGATION, ANSWER_TYPE, QUESTION_FIT):
        assert scorer.score([record(evidence, question, answer, "Some text.")])[0] in (None, 0.0, 1.0)


WORDS = st.lists(
    st.sampled_from(["what", "who", "where", "how", "many", "much", "do", "does", "is", "can", "should", "you", "the", "a", "lamp", "lamps", "costs", "not", "and", "3", "Orla", "by"]),
    max_size=8,
).map(" ".join)  # fmt: skip


@UNHURRIED
@given(WORDS, WORDS, WORDS)
def test_any_order_of_english_words_gets_a_score(evidence: str, question: str, answer: str) -> None:
    for scorer in (NEGATION, ANSWER_TYPE, QUESTION_FIT):
        assert scorer.score([record(evidence, question + "?", answer)])[0] in (None, 0.0, 1.0)
