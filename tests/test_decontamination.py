import pickle
import string
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synth.core.heldout import HeldoutItem, load_heldout
from synth.core.records import Message, Passage, Record
from synth.filters.decontamination import HeldoutIndex
from synth.filters.leaks import Leak, LeakReport

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


TEXT = st.text(
    st.sampled_from(string.ascii_letters + string.digits + " ,.?!-'\"%äÖßéΣσЖ中文日本のไทย"), min_size=1, max_size=60
)
CHANGES = st.sampled_from(
    [
        str.upper,
        str.lower,
        str.title,
        lambda text: text.replace(" ", "\u00a0\t\n"),
        lambda text: text.replace("'", "’").replace('"', "”"),
        lambda text: text.replace("'", ""),
        lambda text: text.replace(",", ";").replace(".", "…").replace("-", "—"),
        lambda text: f"“{text}”",
        lambda text: "\u200b".join(text),
    ]
)


@UNHURRIED
@given(TEXT, CHANGES, TEXT, TEXT, st.sampled_from(["question", "answer", "turn", "passage"]))
def test_whatever_its_signs_a_planted_question_is_found(
    question: str, change: Callable[[str], str], before: str, after: str, where: str
) -> None:
    held = f"Which of {question} is it?"
    text = f"{before} {change(held)} {after}"
    if where == "turn":
        pair = record("", prompt=[Message("user", text), Message("assistant", "So."), Message("user", "Why?")])
    elif where == "passage":
        pair = Record.create(Passage("d", text, 0, len(text)), f"Summarise:\n{text}", "No.", generator="test")
    else:
        pair = record("Else?", text) if where == "answer" else record(text)
    leak = index(held).find(pair)
    assert leak is not None and (leak.how, leak.part) in {
        ("exact", "question" if where == "turn" else where),
        # Short texts may stand at two places.
        ("exact", "question"),
    }


@UNHURRIED
@given(st.sampled_from(["Why?", "How much?", "WHO ELSE?", "In the U.S.?", "到底?"]), CHANGES, st.booleans())
def test_a_question_of_a_word_or_two_is_found_as_a_sentence(
    held: str, change: Callable[[str], str], answered: bool
) -> None:
    text = f"It costs a bit. {change(held)} Tell me!"
    assert found(index(held), record("Else?", text) if answered else record(text)) == "h0"


def test_a_run_of_eight_words_says_how_long_it_is_and_where() -> None:
    pair = record("How many minutes should one wait before the heater plate can be used?")
    assert index(LONG).find(pair) == Leak("h0", "", "question", "ngram", "10 words in a row")
    answered = record("What else?", "I ask how many minutes should one wait before the heater plate cools.")
    assert index(LONG).find(answered) == Leak("h0", "", "answer", "ngram", "10 words in a row")


ANSWER = "Pull the red lever twice and then count slowly to nine before you let go of it again"


def with_answer(answer: str) -> HeldoutIndex:
    return HeldoutIndex([HeldoutItem("h0", "What then?", (answer,), "d")])


def test_a_long_heldout_answer_is_a_leak_where_the_passage_does_not_have_it() -> None:
    pair = record("What is done first?", f"You {ANSWER.lower()}.")
    assert with_answer(ANSWER).find(pair) == Leak("h0", "", "answer", "exact", "all 18 words of its answer")
    part = record("What is done first?", " ".join(ANSWER.split()[2:16]))
    assert with_answer(ANSWER).find(part) == Leak("h0", "", "answer", "ngram", "13 words of its answer or more")
    quoting = Record.create(Passage("d", f"{ANSWER}.", 0, 9), "What is done first?", ANSWER, generator="test")
    assert with_answer(ANSWER).find(quoting) is None
    assert with_answer("four minutes").find(record("How long?", "four minutes")) is None
    assert with_answer(ANSWER).find(record("What first?", "Pull the red lever twice and then count to ten.")) is None


def test_a_question_in_the_passage_leaks_only_where_the_prompt_shows_it() -> None:
    context = f"Questions that we are asked:\n{LONG}\nFour."
    passage = Passage("d", context, 0, len(context))
    plain = Record.create(passage, "What cools down?", "The heater plate.", generator="test")
    shown = Record.create(passage, f"Summarise this:\n{context}", "It is about waiting.", generator="test")
    held = index(LONG)
    assert held.find(plain) is None
    assert held.find(shown) == Leak("h0", "", "passage", "exact", "all 13 words")
    for _ in range(2):
        assert held.passage_leak(context) == Leak("h0", "", "passage", "exact", "all 13 words")
    assert held.passage_leak(PASSAGE) is None
    assert held.passage_leak(context.replace("One", "You").replace("touched", "used")) is not None


def test_a_short_question_counts_in_a_passage_only_as_a_sentence() -> None:
    held = index("What is it?")
    assert held.passage_leak("We know what is it that cools. No more.") is None
    assert held.passage_leak("First of all: what is it? A lamp.") is not None


def test_all_files_are_searched_and_counted_apart(tmp_path: Path) -> None:
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_text(f"id,question,answer\n1,{LONG},x\n2,Who?,y\n")
    second.write_text(f"id,question,answer\n1,{LONG},x\n2,{SHORT},y\n3,Where is the red lamp kept?,y\n")
    held = HeldoutIndex.of([load_heldout(first), load_heldout(second)])
    pairs = [record(LONG), record("What is the colour of the light?"), record("Something else altogether?")]
    leaks = {i: found for i, pair in enumerate(pairs) if (found := held.leaks(pair))}
    assert [leak.file for leak in leaks[0]] == [str(first), str(second)]
    near = record("How many minutes should one wait before the heater plate can be used?")
    assert [(leak.file, leak.how) for leak in held.leaks(near)] == [(str(first), "ngram"), (str(second), "ngram")]
    report = LeakReport.of(
        held.files, len(pairs), leaks, [leak] if (leak := held.passage_leak(f"FAQ. {SHORT} Red.")) else []
    )
    assert (report.records, report.dirty, report.clean) == (3, 2, 1)
    assert [(f.items, f.leaked, f.clean, f.records, f.in_passages) for f in report.files] == [
        (2, 1, 1, 1, 0),
        (3, 2, 1, 2, 1),
    ]
    assert report.files[1].by_how == {"exact": 1, "reworded": 1}
    assert report.to_json()["files"][0]["by_part"] == {"question": 1}


def test_an_index_travels_to_another_process() -> None:
    held = pickle.loads(pickle.dumps(index(LONG, "Who?")))
    assert found(held, record(LONG)) == "h0"


def test_a_template_of_thousands_is_no_slower_to_look_up() -> None:
    held = index(*(f"What does the spare part number {i} of the old machine cost?" for i in range(3000)))
    asked = "What does the spare part number 2999 of the old machine cost today in the shop?"
    assert [leak.item_id for leak in held.leaks(record(asked))] == ["h2999"]
    assert held.find(record("What does the spare part number x of the old machine cost?")) is None
