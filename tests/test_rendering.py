"""Rows become the very ids and labels that TRL would make, or a fault that says why not."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pytest
import trl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM
from trl import SFTConfig, SFTTrainer

from synth.core.records import Message
from synth.core.resources import resource
from tests.runs_for_tests import CHATML, tiny_student
from tune.quiet import quiet
from tune.rendering import Fault, one_answer_each, render
from tune.rows import IGNORED, Rendered, Row
from tune.student import Student, open_student

USER, ASSISTANT, SYSTEM = (partial(Message, role) for role in ("user", "assistant", "system"))


def chat(name: str, *turns: Message, asked: int | None = None) -> Row:
    """Return a row whose completion is its last turn, or what comes after the first `asked` turns."""
    edge = len(turns) - 1 if asked is None else asked
    return Row(name, name, turns[:edge], turns[edge:])


CHATS = [
    chat("one", USER("How much water does the kettle hold?"), ASSISTANT("It holds 1.7 litres.")),
    chat("system", SYSTEM("Be short."), USER("What does the red light mean?"), ASSISTANT("The tank is empty.")),
    chat("history", USER("Hi"), ASSISTANT("Hello"), USER("And the lamp?"), ASSISTANT("It costs 40 pounds.")),
    chat("odd", USER("  ¿Cuánto?\n\n\t日本語 🙂  "), ASSISTANT("\n 40\u200b £ \n")),
    chat("spelt", USER("What is <|im_end|>?"), ASSISTANT("A token.")),
]
PLAIN = [
    Row("plain", "plain", "Question: how much?\nAnswer:", " 1.7 litres"),
    Row("ended", "ended", "Question: how much?\nAnswer:", " 1.7 litres<|im_end|>"),
]
TEXTS = [Row("text", "text", "", "The kettle holds 1.7 litres of water."), Row("text2", "text2", "", "It is red.")]


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Student]:
    """The bundled tokenizer with its own template, with ChatML, and with the plain one."""
    folder = tmp_path_factory.mktemp("students")
    return {
        "own": open_student("bundled"),
        "chatml": open_student(str(tiny_student(folder / "chatml"))),
        "plain": open_student(str(tiny_student(folder / "none", template=None))),
    }


def prepared_by_trl(student: Student, rows: list[dict[str, Any]], tmp_path: Path) -> list[dict[str, Any]]:
    """Let TRL prepare the rows in its own way, from their texts."""
    with quiet(tmp_path / "log"):
        trainer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(resource("demo", "models") / "student"),
            args=SFTConfig(
                output_dir=str(tmp_path / "out"), max_length=None, report_to="none", bf16=False, use_cpu=True
            ),
            processing_class=student.tokenizer,
            train_dataset=datasets.Dataset.from_list(rows),
        )
    return list(trainer.train_dataset)


def ready(row: Rendered | Fault) -> Rendered:
    assert isinstance(row, Rendered), row
    return row


@pytest.mark.parametrize("template", ["own", "chatml", "plain"])
@pytest.mark.parametrize("rows", [CHATS, PLAIN], ids=["turns", "text"])
def test_ids_and_labels_are_those_of_trl(
    students: dict[str, Student], rows: list[Row], template: str, tmp_path: Path
) -> None:
    student = students[template]
    theirs = prepared_by_trl(student, [row.to_json() for row in rows], tmp_path)
    for ours, made in zip(map(ready, render(rows, student.tokenizer)), theirs, strict=True):
        assert (ours.row.id, list(ours.ids), list(ours.labels)) == (made["id"], made["input_ids"], made["labels"])
        assert 0 < ours.labelled == ours.tokens - ours.prompt_tokens < ours.tokens


def test_text_without_a_prompt_is_labelled_whole_as_trl_does(students: dict[str, Student], tmp_path: Path) -> None:
    student = students["own"]
    theirs = prepared_by_trl(student, [{"text": row.completion} for row in TEXTS], tmp_path)
    for ours, made in zip(map(ready, render(TEXTS, student.tokenizer)), theirs, strict=True):
        assert list(ours.ids) == list(ours.labels) == made["input_ids"] == made["labels"]
        assert ours.ids[-1] == student.tokenizer.eos_token_id and ours.prompt_tokens == 0


@pytest.mark.parametrize("template", ["own", "chatml", "plain"])
def test_every_assistant_turn_of_a_completion_is_labelled_and_no_user_turn(
    students: dict[str, Student], template: str
) -> None:
    tokenizer = students[template].tokenizer
    row = chat("many", USER("Hi"), ASSISTANT("Hello"), USER("And the lamp?"), ASSISTANT("It costs 40 pounds."), asked=1)
    [ours] = map(ready, render([row], tokenizer))
    stretches: list[list[int]] = [[]]
    for label in ours.labels:
        if label != IGNORED:
            stretches[-1].append(label)
        elif stretches[-1]:
            stretches.append([])
    read = [tokenizer.decode(part).strip() for part in stretches if part]
    assert read == ["Hello<|im_end|>", "It costs 40 pounds.<|im_end|>"]
    assert all(label in (IGNORED, token) for label, token in zip(ours.labels, ours.ids, strict=True))


def test_rows_keep_their_order_across_formats_and_batches(students: dict[str, Student]) -> None:
    rows = [
        Row(f"{i}", f"{i}", "", f"Text {i}.") if i % 3 == 0 else chat(f"{i}", USER(f"Ask {i}"), ASSISTANT(f"Say {i}"))
        for i in range(600)
    ]
    done = render(rows, students["own"].tokenizer)
    assert [one.row.id for one in done] == [row.id for row in rows]
    alone = render([rows[599]], students["own"].tokenizer)
    assert done[599] == alone[0] and isinstance(done[599], Rendered)


NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
EATS_SYSTEM = CHATML.replace("for m in messages", "for m in messages if m['role'] != 'system'")
# As some do for a last answer alone: a block before it, which is gone as soon as another turn follows.
THINKS = CHATML.replace(
    "m['content']", "('<think></think>' if loop.last and m['role'] == 'assistant' else '') + m['content']"
)
TRIMS = CHATML.replace("m['content']", "m['content'] | trim")
FORGETS_THOUGHTS = CHATML.replace("m['content']", "m['content'].split('</think>')[-1]")
OTHER_HEADER = CHATML.replace("{{ '<|im_start|>assistant\\n' }}", "{{ '<|im_start|>assistant\\nSure: ' }}")
DIVIDES = CHATML.replace("m['content']", "m['content'][1 // (m['content'] | length - 2):]")


@pytest.mark.parametrize(
    ("template", "kind", "row", "said"),
    [
        (NO_SYSTEM + CHATML, "refused", CHATS[1], r"refuses it \(System role not supported\)"),
        (DIVIDES, "refused", chat("x", USER("Hi"), ASSISTANT("Hello")), "refuses it"),
        (EATS_SYSTEM, "eaten", CHATS[1], r"leaves out the system turn \('Be short.'\)"),
        (OTHER_HEADER, "prefix", CHATS[0], "writes the prompt alone otherwise than before its completion"),
        (THINKS, "prefix", chat("y", *CHATS[2].prompt, ASSISTANT("Bye"), asked=1), "writes the prompt alone otherwise"),
    ],
)
def test_a_template_that_cannot_write_a_row_is_a_fault(
    tmp_path: Path, template: str, kind: str, row: Row, said: str
) -> None:
    tokenizer = open_student(str(tiny_student(tmp_path / "student", template=template))).tokenizer
    fine = chat("fine", USER("How much does it hold?"), ASSISTANT("It holds 1.7 litres."))
    [fault, other] = render([row, fine], tokenizer)
    assert isinstance(fault, Fault) and (fault.row, fault.kind) == (row, kind)
    assert re.search(said, fault.message) and "--chat-template plain" in fault.fix
    # A fault of one row is no fault of the next, unless the template writes no row twice alike.
    assert isinstance(other, Fault) is (template == OTHER_HEADER)


def test_a_conversation_becomes_a_row_for_each_answer_as_it_will_be_asked_for() -> None:
    row = chat("many", SYSTEM("Be short."), USER("Hi"), ASSISTANT("Hello"), USER("And?"), ASSISTANT("Bye"), asked=2)
    first, second = one_answer_each(row)
    assert (first.id, [t.content for t in first.prompt], first.completion) == (
        "many#1",
        ["Be short.", "Hi"],
        (ASSISTANT("Hello"),),
    )
    assert (second.id, second.document_id, len(second.prompt), second.completion) == (
        "many#2",
        "many",
        4,
        (ASSISTANT("Bye"),),
    )
    assert one_answer_each(CHATS[2]) == (CHATS[2],) and one_answer_each(PLAIN[0]) == (PLAIN[0],)


# How families of models write conversations, from the templates that TRL ships; the tokenizer is the bundled one, so
# this is about texts. Of "many" the completion has two answers.
FAMILIES = {
    "qwen2_5": {},
    "qwen3": {"many": "prefix"},
    "qwen3_instruct_2507": {},
    "llama3_2": {},
    "gemma": {"system": "refused"},
    "gemma3": {},
    "phi3_5": {"many": "prefix"},
    "gptoss": {"many": "prefix"},
    "smolvlm": {"one": "eaten", "system": "eaten", "history": "eaten", "many": "eaten"},
    "deepseekv3": {"one": "prefix", "system": "prefix", "history": "prefix", "many": "prefix"},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_templates_of_well_known_families_write_the_rows_or_say_why_not(family: str) -> None:
    tokenizer = open_student("bundled").tokenizer
    tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / f"{family}.jinja").read_text()
    many = chat("many", USER("Hi"), ASSISTANT("Hello"), USER("And the lamp?"), ASSISTANT("Forty pounds."), asked=1)
    done = render([*CHATS[:3], many], tokenizer)
    assert {one.row.id: one.kind for one in done if isinstance(one, Fault)} == FAMILIES[family]
    if FAMILIES[family] == {"many": "prefix"}:
        assert all(isinstance(one, Rendered) for one in render(one_answer_each(many), tokenizer))


@pytest.mark.parametrize("template", [TRIMS, FORGETS_THOUGHTS])
def test_a_template_that_only_trims_or_forgets_thoughts_eats_nothing(tmp_path: Path, template: str) -> None:
    tokenizer = open_student(str(tiny_student(tmp_path / "student", template=template))).tokenizer
    turns = (USER("  Hi \n"), ASSISTANT("<think>Greet.</think>Hello"), USER("Bye"), ASSISTANT("See you."))
    assert [type(one) for one in render([chat("x", *turns)], tokenizer)] == [Rendered]


def test_a_prompt_that_melts_into_its_completion_is_a_fault(students: dict[str, Student]) -> None:
    tokenizer = students["own"].tokenizer
    # The bundled tokenizer has " the" as one token, which the prompt alone would not end in.
    assert len(tokenizer(" the")["input_ids"]) == 1
    [fault] = render([Row("melt", "melt", "It is in t", "he kettle.")], tokenizer)
    assert isinstance(fault, Fault) and fault.kind == "prefix" and "melts into" in fault.message


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), min_size=2, max_size=6))
def test_any_text_is_written_as_at_inference_and_labelled_to_its_end(
    students: dict[str, Student], texts: list[str]
) -> None:
    tokenizer = students["own"].tokenizer
    turns = [Message("assistant" if i % 2 else "user", text) for i, text in enumerate(texts[: len(texts) // 2 * 2])]
    [ours] = map(ready, render([chat("any", *turns)], tokenizer))
    data = [turn.to_json() for turn in turns]
    asked = tokenizer.apply_chat_template(data[:-1], add_generation_prompt=True)["input_ids"]
    whole = tokenizer.apply_chat_template(data)["input_ids"]
    assert list(ours.ids) == whole and ours.prompt_tokens == len(asked) and list(ours.ids[: len(asked)]) == asked
    assert list(ours.labels) == [IGNORED] * len(asked) + whole[len(asked) :]


def test_half_a_character_is_a_fault_of_its_row_alone(students: dict[str, Student]) -> None:
    broken = [chat("turns", USER("Hi \ud83d"), ASSISTANT("Hello")), Row("text", "text", "", "It is \udc00.")]
    for row in broken:
        [fault, fine] = render([row, CHATS[0]], students["own"].tokenizer)
        assert isinstance(fault, Fault) and "half a character" in fault.message and isinstance(fine, Rendered)
        assert fault.message.isascii()
