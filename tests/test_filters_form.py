import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synth.core.records import Message, Passage, Record
from synth.filtering.config import FilterConfig
from synth.filtering.plan import scorers_of
from synth.filters.form import FormLimits, form_scorer
from synth.filters.memo import tables, trim_all

# How fast a busy machine is says nothing about the code.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


PASSAGE = "The Orla lamp costs 40 pounds. Its bulb lasts 900 hours. Do not place it on carpet."
FORM = form_scorer(FormLimits())


def record(question: str, answer: str, *, kind: str = "qa", prompt: list[Message] | None = None) -> Record:
    passage = Passage("lamp.md", PASSAGE, 0, len(PASSAGE))
    return Record.create(passage, question, answer, generator="test", kind=kind, prompt=prompt)


@pytest.mark.parametrize(
    ("question", "answer", "fault"),
    [
        ("", "40 pounds", "empty_question"),
        ("What does the Orla lamp cost?", " . ", "empty_answer"),
        ("What does the Orla lamp cost", "40 pounds", "not_a_question"),
        ("The Orla lamp costs what.", "40 pounds", "not_a_question"),
        ("Lamp cost?", "40 pounds", "short_question"),
        ("What " + "does the lamp " * 21 + "cost?", "40 pounds", "long_question"),
        ("What does the Orla lamp cost?", "pound " * 301, "long_answer"),
        ("Does the Orla lamp cost 40 pounds or so now, yes, 40 pounds, and what?", "40 pound", None),
        ("What lamp is called the Orla lamp?", "the Orla lamp", "answer_in_question"),
        ("What is so so so so cheap about the lamp?", "its price", "repetition"),
        ("What does the Orla lamp cost?", "it costs it costs it costs 40 pounds", "repetition"),
        ("What does the Orla lamp cost?", "<think>40</think> pounds", "markup"),
        ("What does the Orla lamp cost?", '40 pounds", "evidence": "The', None),
        ("What does the Orla lamp cost?", '40 pounds"}', "markup"),
        ("What does the Orla lamp cost?", "40 pounds<|im_end|>", "markup"),
        ("What does the Orla lamp cost?", "Answer: 40 pounds", "markup"),
        ("What does the Orla lamp cost?", "40 \ufffd", "encoding"),
        ("What does the Orla cafÃ© cost?", "40 pounds", "encoding"),
        ("According to the text, what does the Orla lamp cost?", "40 pounds", "boilerplate"),
        ("What does the passage say about the lamp?", "40 pounds", "boilerplate"),
        ("What does the Orla lamp cost?", "As an AI, I cannot know.", "boilerplate"),
        ("What is the price mentioned above?", "40 pounds", "boilerplate"),
        ("What does the Orla lamp cost?", "I don't know.", "boilerplate"),
        ("What does the Orla lamp cost?", "There is not enough information to say.", "boilerplate"),
        ("What does the Orla lamp cost?", "40 pounds. I hope this helps!", "boilerplate"),
        ("What does the Orla lamp cost?", "Here is the answer: 40 pounds", "boilerplate"),
        ("What does the Orla lamp cost?", "I am\nsorry, no price is given", "boilerplate"),
        ("What does the Orla lamp cost?", "I CANNOT HELP with that", "boilerplate"),
        ("What does the Orla lamp cost?", "<reasoning>cheap</reasoning> 40 pounds", "markup"),
        ("What does the Orla lamp cost?", "```40 pounds```", "markup"),
        ("What does the Orla lamp cost?", "40\x07 pounds", "encoding"),
        ("How often should they be cleaned?", "40 pounds", "dangling_question"),
        ("What does this mean?", "40 pounds", "dangling_question"),
        ("Where do you place it on carpet?", "there", "dangling_question"),
        ("What does the Orla lamp cost?", "40 pounds and", "fragment_answer"),
        ("What does the Orla lamp cost?", "such", "fragment_answer"),
    ],
)
def test_each_defect_has_its_name(question: str, answer: str, fault: str | None) -> None:
    faults = FORM.explain(record(question, answer))
    assert fault in faults if fault else True
    assert FORM.score([record(question, answer)]) == [float(not faults)]


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What does the Orla lamp cost?", "40 pounds"),
        ("Is the Orla lamp cheap?", "Yes."),
        ("How long does it take to charge the lamp?", "2 hours"),
        ("Is the lamp red or green?", "Green"),
        ("Can the lamp be used when it rains?", "No, it cannot."),
        ("What should members do before they leave?", "Lock the door"),
        ("Which battery does the lamp need?", "An AA battery of type A"),
        ("What is the time of the next train?", "12:30"),
        ("Which text field holds the name?", "The first one on the page"),
        ("Welche Farbe hat die Lampe?", "Grün"),
        ("How much is 3 < 5 worth in the game?", "a < b gives two points"),
        ("“What does the Orla lamp cost?”", "40 pounds"),
    ],
)
def test_sound_pairs_pass(question: str, answer: str) -> None:
    assert FORM.explain(record(question, answer)) == []


def test_a_phrase_that_the_passage_uses_itself_is_no_boilerplate() -> None:
    passage = Passage("d", "Keep the passage clear of boxes at night.", 0, 41)
    pair = Record.create(passage, "What must be clear of boxes at night?", "the passage", generator="test")
    assert FORM.explain(pair) == []


def test_only_pairs_have_to_be_questions_and_later_turns_may_use_pronouns() -> None:
    assert FORM.explain(record("Sum the page up.", "A lamp for 40 pounds.", kind="summary")) == []
    turns = [
        Message("user", "What is the Orla?"),
        Message("assistant", "A lamp."),
        Message("user", "What does it cost?"),
    ]
    assert FORM.explain(record("", "40 pounds", prompt=turns)) == []


@pytest.mark.parametrize(
    "refusal", ["I am sorry, the text does not say.", "I don't know; the passage does not say that."]
)
def test_a_refusal_is_right_where_the_question_cannot_be_answered(refusal: str) -> None:
    assert FORM.explain(record("What does the Orla radio cost?", refusal, kind="unanswerable")) == []
    assert "boilerplate" in FORM.explain(record("What does the Orla radio cost?", refusal))


@pytest.mark.parametrize(
    "answer", ["a " * 200_000, "ab " * 200_000 + "b", "? " * 100_000, "A'*_ " * 100_000, "x" * 500_000]
)
def test_hostile_texts_are_read_in_passing_and_not_kept(answer: str) -> None:
    pair = Record.create(Passage("d", answer + "b", 0, 9), answer + " it?", answer, generator="test", evidence=answer)
    for scorer in scorers_of(FilterConfig()):
        (score,) = scorer.score([pair])  # work that grew with the square of the text would not end
        assert score is None or 0 <= score <= 1
    trim_all()
    assert all(memo.held <= memo.room for memo in tables())


@UNHURRIED
@given(st.text(max_size=80), st.text(max_size=80))
def test_any_text_gets_a_score(question: str, answer: str) -> None:
    assert FORM.score([record(question, answer)]) in ([0.0], [1.0])
