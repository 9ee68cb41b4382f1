import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synth.core.records import Passage, Record
from synth.filters.groundedness import EVIDENCE, FACTS, GROUNDEDNESS, RELEVANCE, measures
from synth.filters.words import names, numbers, stem

# How fast a busy machine is says nothing about the code.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


PASSAGE = (
    "The Quillan 3 printer holds ink for about 6,000 pages. Replacement reservoirs carry the part number QR-77 and are"
    " sold by Petra Lindqvist.\nThe yellow cable carries 24 volts, and a full charge takes three hours."
)


def record(question: str, answer: str, evidence: str | None = None, document: str = "manual.md") -> Record:
    passage = Passage(document, PASSAGE, 0, len(PASSAGE))
    return Record.create(passage, question, answer, generator="test", evidence=evidence)


@pytest.mark.parametrize(
    ("evidence", "score"),
    [
        ("The Quillan 3 printer holds ink for about 6,000 pages.", 1.0),
        ("sold by Petra Lindqvist. The yellow  cable", 1.0),
        ("The Quillan 3 printer holds ink for about 600 pages.", 0.0),
        ("he Quillan 3 printer holds", 0.0),
        ("", 0.0),
        (None, None),
    ],
)
def test_evidence_stands_in_the_passage_word_for_word_apart_from_white_space(
    evidence: str | None, score: float | None
) -> None:
    assert EVIDENCE.score([record("What?", "ink", evidence)]) == [score]


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("about 6,000 pages", 1.0),
        ("ABOUT 6,000 PAGES.", 1.0),
        ("a printer", 1.0),
        ("pa", 0.0),
        ("Yes", None),
        ("the moon", 0.0),
        ("about 6,000 sheets", 0.5),
        ("The Quillan 3 holds enough ink for about 6,000 pages.", 6 / 7),
    ],
)
def test_groundedness_is_the_share_of_the_answer_that_the_evidence_holds(answer: str, score: float | None) -> None:
    evidence = "The Quillan 3 printer holds ink for about 6,000 pages."
    (found,) = GROUNDEDNESS.score([record("How long does the ink last?", answer, evidence)])
    assert found == (None if score is None else pytest.approx(score))


def test_without_evidence_the_whole_passage_counts() -> None:
    assert GROUNDEDNESS.score([record("Who sells reservoirs?", "Petra Lindqvist")]) == [1.0]


@pytest.mark.parametrize(
    ("question", "answer", "faults"),
    [
        ("Who sells the QR-77?", "Petra Lindqvist", []),
        ("Who sells the QR-78?", "Petra Lindqvist", ["name qr-78 of the question", "number 78 of the question"]),
        ("Who sells the reservoir?", "It is Petra Lindgren", ["name lindgren of the answer"]),
        ("How many pages does the ink last?", "6000", []),
        ("How many pages does the ink last?", "9,000", ["number 9000 of the answer"]),
        ("How long does a full charge take?", "3 hours", []),
        ("How much does the cable carry?", "24 watts", ["unit w of 24"]),
        ("How much does the cable carry?", "24 V", []),
        ("Which one is sold by Petra Lindqvist?", "The reservoir", []),
    ],
)
def test_numbers_units_and_names_have_to_be_those_of_the_passage(question: str, answer: str, faults: list[str]) -> None:
    assert sorted(FACTS.explain(record(question, answer))) == faults


def test_a_name_may_come_from_the_name_of_the_document() -> None:
    question = "What does the cable of the Stenna carry?"
    assert FACTS.score([record(question, "24 volts")]) == [0.0]
    assert FACTS.score([record(question, "24 volts", document="manuals/stenna-cable.md")]) == [1.0]


def test_relevance_is_the_share_of_the_question_that_the_source_holds() -> None:
    evidence = "The yellow cable carries 24 volts, and a full charge takes three hours."
    near, around, alien = (
        record("What does the yellow cable carry?", "24 volts", evidence),
        record("What does the printer cable carry?", "24 volts", evidence),
        record("What do purple elephants like?", "24 volts", evidence),
    )
    assert RELEVANCE.score([near, around, alien]) == [1.0, pytest.approx(2.5 / 3), 0.0]


def test_words_that_only_make_a_question_are_not_asked_of_the_passage() -> None:
    assert RELEVANCE.score([record("What kind of cable is it called?", "yellow")]) == [1.0]


@pytest.mark.parametrize(
    "forms",
    [
        "carry carries carried carrying",
        "close closes closed closing",
        "stop stops stopped stopping",
        "fill fills filled filling",
        "keep keeps kept keeping",
        "battery batteries",
        "box boxes",
        "use uses used using",
        "press presses pressed pressing",
    ],
)
def test_forms_of_one_word_have_one_stem(forms: str) -> None:
    assert len({stem(form) for form in forms.split()}) == 1


def test_numbers_and_names_are_read_in_all_their_forms() -> None:
    assert numbers("6,000 pages, 3.8 kg, six rooms, 7:30, one") == {"6000", "3.8", "6", "7:30"}
    assert names("The lamp by Ilse Varga has part QR-77. It is good.") == {"ilse", "varga", "qr-77"}
    assert names("What Is The Capital Of France?") == frozenset()
    assert measures("24 volts or €5") == {("24", "v"), ("5", "€")}


@UNHURRIED
@given(st.text(max_size=60), st.text(max_size=60), st.one_of(st.none(), st.text(max_size=60)))
def test_any_text_gets_a_score_from_0_to_1(question: str, answer: str, evidence: str | None) -> None:
    for scorer in (EVIDENCE, GROUNDEDNESS, FACTS, RELEVANCE):
        (score,) = scorer.score([record(question, answer, evidence)])
        assert score is None or 0 <= score <= 1
