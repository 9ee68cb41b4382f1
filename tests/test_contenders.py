"""What each contender is asked."""

from typing import Any

import pytest

from synth.core.errors import RunError
from synth.core.heldout import HeldoutItem
from synth.core.records import Message, Passage
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
    **settings: Any,  # noqa: ANN401
) -> tuple[Message, ...]:
    (contender,) = make_contenders([name], rows=rows, passages=PASSAGES, **settings)
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
