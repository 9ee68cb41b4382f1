import pytest

from synth.core.records import Passage, Record
from synth.filters.span_use import SPAN_USE


def faults(evidence: str, question: str, answer: str) -> list[str]:
    passage = Passage("d.md", evidence, 0, len(evidence))
    return SPAN_USE.explain(Record.create(passage, question, answer, generator="qa", evidence=evidence))


@pytest.mark.parametrize(
    ("evidence", "question", "answer", "fault"),
    [
        ("Strong vibration suggests a broken cushion.", "What suggests a broken cushion?", "Strong vibration suggests", "used_twice"),
        ("Turn the switch to the arrow and run the roller backwards for five seconds.", "How long should you turn the switch to the arrow?", "five seconds", "far_answer"),
        ("Push the switch and wait until the roller makes 38 turns a minute.", "How long should you push the switch?", "38 turns", "other_measure"),
        ("A return label costs 3.90 pounds, which is waived for faulty goods.", "When is a return label costs?", "3.90 pounds", "no_predicate"),
        ("One heater warms up to 14 square metres of glazing.", "How much glazing?", "up to 14 square metres", "no_verb"),
    ],
)  # fmt: skip
def test_a_pair_that_does_not_share_its_sentence_well_has_a_named_fault(
    evidence: str, question: str, answer: str, fault: str
) -> None:
    assert fault in faults(evidence, question, answer)


@pytest.mark.parametrize(
    ("evidence", "question", "answer"),
    [
        ("Harden young plants for nine days in the shade.", "How long should you harden young plants?", "nine days"),
        ("The return period runs until 15 February.", "When does the return period run?", "until 15 February"),
        ("Cut the grass to 8 centimetres with a mower.", "How should you cut the grass?", "with a mower"),
        ("The warranty is void when the seal is broken.", "When is the warranty void?", "when the seal is broken"),
        ("The Kelm is the battery that powers both machines.", "What is the Kelm?", "the battery"),
        ("Refunds are paid within six days of the check.", "When are refunds paid?", "within six days of the check"),
    ],
)
def test_a_right_pair_has_none(evidence: str, question: str, answer: str) -> None:
    assert faults(evidence, question, answer) == []


def test_what_is_no_question_about_a_quotation_has_no_score() -> None:
    passage = Passage("d.md", "It is blue.", 0, 11)
    assert SPAN_USE.score([Record.create(passage, "Describe the lamp.", "blue", generator="qa")]) == [None]
