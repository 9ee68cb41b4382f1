"""What each contender is asked."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.core.errors import ConfigError, RunError
from synth.core.heldout import HeldoutItem
from synth.core.records import Message, Passage
from tune.budget import Budget
from tune.contenders import choose_examples, make_contenders, prompt_digests

PASSAGES = [
    Passage("kettle.md", "The Brevo kettle holds 1.7 litres.", 0, 34),
    Passage("lamp.md", "The Orla lamp costs 40 pounds.", 0, 30),
    Passage("kettle.md", "Descale the Brevo kettle every six weeks.", 35, 76),
]


def row(number: int, document: str, *turns: tuple[str, str]) -> dict[str, Any]:
    prompt = turns or (("user", f"Question {number}?"),)
    return {
        "id": f"{number:016x}",
        "document_id": document,
        "prompt": [{"role": role, "content": content} for role, content in prompt],
        "completion": [{"role": "assistant", "content": f"Answer {number}"}],
    }


ROWS = [row(number, f"d{number % 3}") for number in range(9)]


def item(question: str, context: str = "") -> HeldoutItem:
    return HeldoutItem("1", question, ("yes",), "d", context)


def asked(
    name: str,
    question: str,
    rows: list[dict[str, Any]] = ROWS,
    context: str = "",
    **more: Any,  # noqa: ANN401
) -> tuple[Message, ...]:
    (contender,) = make_contenders([name], rows=rows, passages=PASSAGES, **more)
    return contender.ask(item(question, context))


@pytest.mark.parametrize("name", ["base", "tuned"])
def test_base_and_tuned_are_asked_the_question_alone(name: str) -> None:
    assert asked(name, "How big is it?") == (Message("user", "How big is it?"),)


def test_retrieval_puts_the_best_passages_before_the_question() -> None:
    assert asked("retrieval", "How often do I descale the Brevo kettle?") == (
        Message(
            "user",
            "Answer the question from the text.\n\n"
            "Text: Descale the Brevo kettle every six weeks.\n\nThe Brevo kettle holds 1.7 litres.\n\n"
            "Question: How often do I descale the Brevo kettle?",
        ),
    )


def test_retrieval_leaves_out_passages_that_share_no_word() -> None:
    (message,) = asked("retrieval", "What is the price of the Orla?")
    assert message.content == (
        "Answer the question from the text.\n\nText: The Orla lamp costs 40 pounds.\n\n"
        "Question: What is the price of the Orla?"
    )


@pytest.mark.parametrize("question", ["Warranty?", "Is it?", "?"])
def test_retrieval_that_finds_nothing_asks_the_question_alone(question: str) -> None:
    assert asked("retrieval", question) == (Message("user", question),)


def test_text_that_looks_like_a_template_is_only_text() -> None:
    passages = [Passage("d", "The {{ secret }} kettle {% for %}", 0, 33)]
    (contender,) = make_contenders(["retrieval"], rows=ROWS, passages=passages)
    (message,) = contender.ask(item("What {{ 7 * 7 }} kettle?"))
    assert "Text: The {{ secret }} kettle {% for %}" in message.content
    assert message.content.endswith("Question: What {{ 7 * 7 }} kettle?")


def test_few_shot_prompts_are_question_and_answer_turns_before_the_question() -> None:
    messages = asked("few-shot", "How big is it?")
    assert [m.role for m in messages] == ["user", "assistant"] * 4 + ["user"]
    assert messages[-1].content == "How big is it?"
    numbers = {m.content.split()[-1].rstrip("?") for m in messages[:-1]}
    assert len(numbers) == 4  # each answer stands under its own question


def test_examples_are_spread_over_documents_whatever_the_order_of_the_rows() -> None:
    examples = choose_examples(ROWS, 3)
    documents = {int(e.question.split()[-1].rstrip("?")) % 3 for e in examples}
    assert documents == {0, 1, 2}
    assert choose_examples(ROWS[::-1], 3) == examples
    assert set(choose_examples(ROWS, 4)) > set(examples)
    assert len(choose_examples(ROWS, 50)) == len(ROWS)


def test_later_turns_of_conversations_are_no_examples() -> None:
    talk = row(1, "d", ("user", "Hello"), ("assistant", "Hello"), ("user", "And then?"))
    single = row(2, "d", ("system", "Be brief."), ("user", "Why?"))
    assert [e.question for e in choose_examples([talk, single], 4)] == ["Why?"]
    with pytest.raises(RunError, match="leave few-shot out"):
        choose_examples([talk], 4)


def test_a_student_trained_under_a_system_message_is_asked_under_it() -> None:
    rows = [row(n, "d", ("system", "Be brief."), ("user", f"Question {n}?")) for n in range(3)]
    assert asked("tuned", "Why?", rows) == (Message("system", "Be brief."), Message("user", "Why?"))
    assert asked("base", "Why?", rows) == (Message("user", "Why?"),)
    assert asked("tuned-retrieval", "Orla lamp?", rows)[0] == Message("system", "Be brief.")
    assert asked("tuned", "Why?", [*rows, *ROWS]) == (Message("user", "Why?"),)


def test_retrieval_without_passages_says_so() -> None:
    with pytest.raises(RunError, match="no passage to look in"):
        make_contenders(["retrieval"], rows=ROWS, passages=[])


def test_only_the_templates_in_use_are_part_of_the_settings() -> None:
    assert list(prompt_digests(["base", "tuned"])) == ["answer"]
    assert list(prompt_digests(["tuned-retrieval", "tuned"])) == ["answer-with-context"]
    assert list(prompt_digests(["retrieval"])) == ["answer", "answer-with-context"]
    assert list(prompt_digests(["teacher", "tuned"], LABELS)) == ["label"]
    assert list(prompt_digests(["candidate:first", "tuned"])) == []


def test_the_teacher_reads_the_items_own_context_and_else_looks_the_question_up() -> None:
    (own,) = asked("teacher", "Orla lamp?", context="The Orla lamp was made in 1961.")
    assert "Text: The Orla lamp was made in 1961.\n\nQuestion: Orla lamp?" in own.content
    (found,) = asked("teacher", "Orla lamp?")
    assert "Text: The Orla lamp costs 40 pounds.\n\nQuestion: Orla lamp?" in found.content
    (contender,) = make_contenders(["teacher"], rows=[], passages=[])
    assert contender.weights == "teacher"
    assert contender.ask(item("Orla?")) == (Message("user", "Orla?"),)
    assert "1961" in contender.ask(item("Orla?", "Made in 1961."))[-1].content


def test_an_earlier_candidate_is_asked_as_the_student_is() -> None:
    rows = [row(n, "d", ("system", "Be brief."), ("user", f"Question {n}?")) for n in range(3)]
    tuned, earlier = make_contenders(["tuned", "candidate:first"], rows=rows, passages=[])
    assert (earlier.name, earlier.weights) == ("candidate:first", "candidate:first")
    assert (
        earlier.ask(item("Why?"))
        == tuned.ask(item("Why?"))
        == (Message("system", "Be brief."), Message("user", "Why?"))
    )


@pytest.mark.parametrize(("name", "fix"), [("fewshot", "did you mean few-shot"), ("candidate:", "candidate:NAME")])
def test_an_unknown_contender_is_named_with_its_near_matches(name: str, fix: str) -> None:
    with pytest.raises(ConfigError, match=fix):
        make_contenders([name], rows=ROWS, passages=PASSAGES)


LABELS = ("poor", "good")


def test_all_but_the_tuned_students_are_told_the_labels() -> None:
    told = "\n\nReply with one of these labels and nothing else: poor, good"
    rows = [{**row(0, "d"), "completion": [{"role": "assistant", "content": "Good"}]}]
    assert asked("base", "Kettle?", labels=LABELS) == (Message("user", f"Kettle?{told}"),)
    assert asked("retrieval", "Orla?", labels=LABELS) == (
        Message("user", f"Text: The Orla lamp costs 40 pounds.\n\nOrla?{told}"),
    )
    assert asked("teacher", "Why?", context="So.", labels=LABELS) == (Message("user", f"Text: So.\n\nWhy?{told}"),)
    assert asked("few-shot", "Why?", rows, labels=LABELS) == (
        Message("user", f"Question 0?{told}"),
        Message("assistant", "good"),
        Message("user", f"Why?{told}"),
    )
    assert asked("tuned", "Why?", labels=LABELS) == (Message("user", "Why?"),)
    assert "poor" not in asked("tuned-retrieval", "Orla?", labels=LABELS)[-1].content


def test_examples_of_a_label_set_are_rows_with_a_label_spread_over_the_labels() -> None:
    def marked(number: int, answer: str) -> dict[str, Any]:
        return {**row(number, "d"), "completion": [{"role": "assistant", "content": answer}]}

    rows = [marked(n, "good\n\nIt names the part.") for n in range(6)] + [marked(7, "Poor "), *ROWS]
    assert sorted(e.answer for e in choose_examples(rows, 2, LABELS)) == ["good", "poor"]
    assert len(choose_examples(rows, 50, LABELS)) == 7
    with pytest.raises(RunError, match="no row's answer is one of the labels poor, good"):
        choose_examples(ROWS, 2, LABELS)


def test_where_items_have_no_answer_the_untuned_are_told_what_to_say_then() -> None:
    for name in ("base", "few-shot", "retrieval", "teacher"):
        assert asked(name, "Orla?", may_refuse=True)[-1].content.count("reply: I do not know.") == 1
        assert "I do not know" not in asked(name, "Orla?")[-1].content
    assert asked("tuned", "Orla?", may_refuse=True) == (Message("user", "Orla?"),)


def test_a_question_is_never_its_own_example() -> None:
    messages = asked("few-shot", "question  4?", examples=9)
    assert [m.role for m in messages] == ["user", "assistant"] * 8 + ["user"]
    assert not any(m.content == "Answer 4" for m in messages)


def words(messages: Sequence[Message]) -> int:
    return sum(len(message.content.split()) for message in messages)


def test_few_shot_gives_up_its_last_examples_until_the_prompt_fits() -> None:
    (contender,) = make_contenders(["few-shot"], rows=ROWS, passages=PASSAGES)
    whole = contender.ask(item("How big is it?"))
    assert words(whole) == 4 * 4 + 4
    found = contender.prompt(item("How big is it?"), Budget(15, words))
    assert found.messages == (*whole[:4], whole[-1])
    assert (found.left_out, found.parts, found.unit, found.error) == (2, 4, "examples", None)


def test_retrieval_gives_up_the_last_sentences_of_its_last_passage() -> None:
    long = Passage("a", "The lamp is red. The lamp is tall. The lamp is old.", 0, 51)
    (contender,) = make_contenders(["retrieval"], rows=ROWS, passages=[long, Passage("b", "Lamp lamp lamp.", 0, 15)])
    whole = contender.ask(item("Which lamp?"))
    text = contender.prompt(item("Which lamp?"), Budget(words(whole) - 5, words)).messages[-1].content
    assert text.endswith("Text: Lamp lamp lamp.\n\nThe lamp is red.\n\nQuestion: Which lamp?")
    alone = contender.prompt(item("Which lamp?"), Budget(10, words))
    assert alone.messages == (Message("user", "Which lamp?"),) and alone.left_out == alone.parts == 4


def test_a_question_that_does_not_fit_alone_says_so() -> None:
    for contender in make_contenders(["base", "few-shot", "retrieval", "tuned"], rows=ROWS, passages=PASSAGES):
        found = contender.prompt(item("How big is the Orla lamp?"), Budget(5, words))
        assert found.error == "the question alone has 6 tokens, and a prompt may have 5"


@settings(deadline=None)
@given(st.integers(0, 120), st.sampled_from(["base", "few-shot", "retrieval", "teacher", "tuned-retrieval"]))
def test_no_prompt_exceeds_its_budget_and_none_is_shorter_than_it_has_to_be(tokens: int, name: str) -> None:
    (contender,) = make_contenders([name], rows=ROWS, passages=PASSAGES)
    asked_item = item("How often do I descale the Brevo kettle, and what costs the Orla lamp?")
    found, parts = contender.prompt(asked_item, Budget(tokens, words)), contender.parts(asked_item)
    assert (words(found.messages) <= tokens) == (found.error is None)
    kept = found.parts - found.left_out
    assert found.messages == parts.make(kept)
    if kept < parts.total:
        assert words(parts.make(kept + 1)) > tokens
