"""Preflight looks at every row before a step is taken, and says all that is wrong at once."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

from synth.core.errors import ConfigError, RecordError
from synth.core.heldout import load_heldout
from synth.core.records import Message
from tests.runs_for_tests import CHATML, tiny_student
from tune.config import TuneConfig
from tune.findings import Check, Preflight
from tune.preflight import examine
from tune.rows import IGNORED, Dataset, Row
from tune.student import Student, open_student

USER, ASSISTANT, SYSTEM = (partial(Message, role) for role in ("user", "assistant", "system"))


def chat(name: str, question: str = "", answer: str = "It holds 1.7 litres.", document: str = "") -> Row:
    asked = USER(question or f"How much water does kettle {name} hold?")
    return Row(name, document or f"{name}.md", (asked,), (ASSISTANT(answer),))


def dataset(*train: Row, validation: tuple[Row, ...] = ()) -> Dataset:
    return Dataset(train or (chat("a"), chat("b")), validation, {})


def check(preflight: Preflight, name: str) -> Check:
    [found] = [check for check in preflight.checks if check.name == name]
    return found


@pytest.fixture(scope="module")
def student() -> Student:
    return open_student("bundled")


def with_template(folder: Path, template: str | None, **tokenizer: Any) -> Student:  # noqa: ANN401
    path = tiny_student(folder / "student", template=template)
    settings = json.loads((path / "tokenizer_config.json").read_bytes())
    (path / "tokenizer_config.json").write_text(json.dumps({**settings, **tokenizer}))
    return open_student(str(path))


def test_a_dataset_without_faults_passes_with_every_row_whole(student: Student) -> None:
    rows = dataset(chat("a"), chat("b"), validation=(chat("c"),))
    found = examine(rows, student, TuneConfig())
    assert not found.faults() and not found.notes()
    found.raise_if_faulty()
    assert [one.row for one in found.train] == list(rows.train)
    assert [one.row for one in found.validation] == list(rows.validation)
    assert (found.stop_token, found.stop_id, found.max_length) == ("<|im_end|>", 2, 2048)
    totals = found.totals["train"]
    assert (totals.rows, totals.tokens) == (2, sum(len(one.ids) for one in found.train))
    assert totals.labelled == sum(label != IGNORED for one in found.train for label in one.labels)
    assert totals.longest == max(one.tokens for one in found.train)
    assert json.loads(json.dumps(found.to_json()))["totals"]["validation"]["rows"] == 1
    assert len({check.name for check in found.checks}) == len(found.checks)


def test_all_faults_are_told_in_one_error_with_their_rows_and_fixes(student: Student) -> None:
    rows = dataset(
        chat("empty", answer=" \n "),
        chat("stops", answer="It holds<|im_end|> water."),
        chat("long", answer="water " * 60),
        chat("twice", answer="Done.<|im_end|>"),
        validation=(chat("same", document="long.md"),),
    )
    found = examine(rows, student, TuneConfig(max_length=64))
    named = {fault.name: fault.ids for fault in found.faults()}
    assert named == {
        "completions": ("empty",),
        "length": ("long",),
        "stop token inside": ("stops",),
        "doubled special tokens": ("twice",),
        "documents apart": ("same",),
    }
    with pytest.raises(RecordError) as error:
        found.raise_if_faulty()
    text = str(error.value)
    assert text.startswith("5 faults, and nothing was trained:\n  1. ")
    for fault in found.faults():
        assert fault.said in text and fault.fix and fault.fix in text
    assert re.search(r"longer than 64 tokens: 1 row: long \(\d+ tokens\); raise --max-length", text)


def test_a_single_fault_is_one_line(student: Student) -> None:
    found = examine(dataset(chat("a"), chat("b", answer=" ")), student, TuneConfig())
    with pytest.raises(RecordError, match=r"^1 row: b: the completion is empty; reject it in the filter"):
        found.raise_if_faulty()


def test_many_rows_are_counted_and_five_named(student: Student) -> None:
    found = examine(dataset(*(chat(f"r{i}", answer=" ") for i in range(9))), student, TuneConfig())
    one = check(found, "completions")
    assert one.rows == 9 and one.ids == ("r0", "r1", "r2", "r3", "r4")
    assert "9 rows: r0, r1, r2, r3, r4 and 4 more: the completion is empty" in one.said


NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"


@pytest.mark.parametrize(
    ("template", "name", "said"),
    [
        (NO_SYSTEM + CHATML, "rendering", r"1 row: s: the student's chat template refuses it \(System role not"),
        (CHATML.replace("for m in messages", "for m in messages if m['role'] != 'system'"),
         "every turn is written", r"1 row: s: .* leaves out the system turn \('Be short.'\)"),
        (CHATML.replace("{{ '<|im_start|>assistant\\n' }}", "{{ '<|im_start|>assistant\\n<think>' }}"),
         "same prompt at inference", r"2 rows: s, a: .* otherwise than before its completion"),
        (CHATML.replace("m['content'] + '<|im_end|>\\n'", "m['content'] + '\\n'"),
         "stop token", r"2 rows: s, a: the last labelled token is .* stops only on '<\|im_end\|>'"),
        (CHATML.replace("'<|im_end|>\\n' }}", "'<|im_end|><|im_end|>\\n' }}"),
         "doubled special tokens", r"2 rows: s, a: a special token .* twice in a row"),
    ],
)  # fmt: skip
def test_what_a_template_does_wrong_is_named(tmp_path: Path, template: str, name: str, said: str) -> None:
    student = with_template(tmp_path, template)
    system = Row("s", "s", (SYSTEM("Be short."), USER("How much does it hold?")), (ASSISTANT("It holds 1.7 litres."),))
    found = examine(dataset(system, chat("a")), student, TuneConfig())
    assert [fault.name for fault in found.faults()] == [name]
    assert re.search(said, found.faults()[0].said) and "--chat-template plain" in found.faults()[0].fix


# As some do for the last answer alone: a block before it, which is gone as soon as another turn follows.
THINKS = CHATML.replace(
    "m['content']", "('<think></think>' if loop.last and m['role'] == 'assistant' else '') + m['content']"
)


def test_a_conversation_that_cannot_be_one_row_is_trained_as_one_row_an_answer(tmp_path: Path) -> None:
    student = with_template(tmp_path, THINKS)
    talk = Row("talk", "d", (USER("Hi"),), (ASSISTANT("Hello"), USER("And?"), ASSISTANT("Bye")))
    found = examine(dataset(chat("a"), talk, chat("b")), student, TuneConfig())
    assert not found.faults() and [one.row.id for one in found.train] == ["a", "talk#1", "talk#2", "b"]
    note = check(found, "conversations")
    assert (note.status, note.ids) == ("note", ("talk",)) and "1 row: talk: made into 2 rows" in note.said
    learnt = [student.tokenizer.decode([t for t in one.labels if t != IGNORED]) for one in found.train[1:3]]
    assert learnt == [f"<think></think>{answer}<|im_end|>\n" for answer in ("Hello", "Bye")]
    own = examine(dataset(talk), open_student("bundled"), TuneConfig())
    assert [one.row.id for one in own.train] == ["talk"] and not own.notes()


def test_a_template_without_an_assistant_turn_masks_all_labels(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m['content'] + '<|im_end|>' if m['role'] == 'user' else '' }}{% endfor %}"
    found = examine(dataset(), with_template(tmp_path, template), TuneConfig())
    # It is found as the turn that is left out, before labels are made.
    assert [fault.name for fault in found.faults()] == ["every turn is written"]
    assert "leaves out the assistant turn" in found.faults()[0].said and found.train == ()


@pytest.mark.parametrize(("on_overflow", "kept"), [("error", 3), ("drop", 1), ("truncate", 2)])
def test_rows_over_the_length_stop_or_go_or_are_cut_and_are_always_named(
    student: Student,
    on_overflow: Literal["error", "drop", "truncate"],
    kept: int,
) -> None:
    lengthy = chat("lengthy", question="water " * 200)
    rows = dataset(chat("short"), chat("talks", answer="water " * 60), lengthy)
    found = examine(rows, student, TuneConfig(max_length=64, on_overflow=on_overflow))
    whole = {one.row.id: one for one in examine(rows, student, TuneConfig()).train}
    one = check(found, "length")
    assert len(found.train) == kept and all(row.tokens <= 64 for row in found.train) is (on_overflow != "error")
    assert bool(found.faults()) is (on_overflow == "error")
    if on_overflow == "error":
        assert one.status == "error" and one.ids == ("talks", "lengthy")
    elif on_overflow == "drop":
        assert [(row.id, row.split, row.tokens) for row in found.dropped] == [
            (name, "train", whole[name].tokens) for name in ("talks", "lengthy")
        ]
        assert "rows longer than 64 tokens, left out: 2" in one.said and one.status == "note"
    else:
        assert [row.id for row in found.dropped] == ["lengthy"] and [row.id for row in found.cut] == ["talks"]
        cut = found.train[1]
        assert (cut.ids, cut.labels) == (whole["talks"].ids[:64], whole["talks"].labels[:64])
        assert cut.cut == whole["talks"].tokens - 64
        assert "cut: 1, left out since no answer was left: 1" in one.said
        stop = check(found, "stop token")
        assert stop.status == "note" and stop.rows == 1 and "the ends of 1 cut rows" in stop.said


def test_a_row_that_is_cut_in_a_question_still_has_to_end_its_answers(tmp_path: Path) -> None:
    turns = (ASSISTANT("Hello"), USER("water " * 60), ASSISTANT("Bye"))
    rows = dataset(chat("a"), Row("talk", "d", (USER("Hi"),), turns))
    config = TuneConfig(max_length=64, on_overflow="truncate")
    found = examine(rows, open_student("bundled"), config)
    assert not found.faults() and found.train[1].cut and found.train[1].labels[-1] == IGNORED
    endless = with_template(tmp_path, CHATML.replace("m['content'] + '<|im_end|>\\n'", "m['content'] + '\\n'"))
    assert check(examine(rows, endless, config), "stop token").ids == ("a", "talk")


def test_nothing_left_to_train_on_is_an_error(student: Student) -> None:
    found = examine(dataset(), student, TuneConfig(max_length=8, on_overflow="drop"))
    with pytest.raises(RecordError, match="all 2 rows are longer than 8 tokens; raise --max-length"):
        found.raise_if_faulty()


def test_a_length_beyond_the_students_context_is_refused(student: Student) -> None:
    with pytest.raises(ConfigError, match="--max-length: student reads 2048 tokens, not 4096"):
        examine(dataset(), student, TuneConfig(max_length=4096))


def test_a_student_without_a_limit_counts_no_row_as_too_long(student: Student) -> None:
    found = examine(dataset(), replace(student, context=None), TuneConfig())
    assert found.max_length is None and check(found, "length").status == "note"


def test_padding_that_ends_replies_is_a_note_since_it_hides_nothing(tmp_path: Path) -> None:
    equal = with_template(tmp_path, CHATML, pad_token="<|im_end|>")
    assert equal.tokenizer.pad_token_id == equal.tokenizer.eos_token_id
    found = examine(dataset(), equal, TuneConfig())
    assert not found.faults()
    assert "pads and ends replies too; labels are made before padding" in check(found, "padding").said
    assert all(one.labels[one.prompt_tokens :] == one.ids[one.prompt_tokens :] for one in found.train)
    (tmp_path / "none").mkdir()
    none = examine(dataset(), with_template(tmp_path / "none", CHATML, pad_token=None), TuneConfig())
    assert "has no padding token, so TRL pads with <|im_end|>" in check(none, "padding").said


def test_a_vocabulary_beyond_the_embeddings_is_an_error_where_a_row_needs_it(student: Student) -> None:
    config = student.config.to_dict()

    def sized(size: int) -> Preflight:
        fewer = type(student.config)(**{**config, "vocab_size": size})
        return examine(dataset(), replace(student, config=fewer), TuneConfig())

    tokens = {token for one in sized(2048).train for token in one.ids}
    assert check(sized(2048), "vocabulary").status == "ok"
    padded = check(sized(2112), "vocabulary")
    assert padded.status == "note" and "2112 embeddings for 2048 tokens" in padded.said
    unused = check(sized(max(tokens) + 1), "vocabulary")
    assert unused.status == "note" and "no row holds the others" in unused.said
    lacking = check(sized(max(tokens)), "vocabulary")
    assert lacking.status == "error" and f"beyond the student's {max(tokens)} embeddings" in lacking.said
    assert lacking.rows >= 1


def test_validation_rows_that_are_trained_on_are_told_apart(student: Student) -> None:
    train = (chat("a", "How much?", "40 pounds."), chat("b", "How often?", "Weekly."))
    same = chat("c", " how MUCH? ", "40  pounds.")
    alike = chat("d", "How often?", "Every six weeks.")
    found = examine(dataset(*train, validation=(same, alike)), student, TuneConfig())
    assert check(found, "documents apart").status == "ok"
    texts = check(found, "texts apart")
    assert texts.status == "error" and texts.ids == ("c",) and "--validation-share" in texts.fix
    only_alike = check(examine(dataset(*train, validation=(alike,)), student, TuneConfig()), "texts apart")
    assert only_alike.status == "note" and only_alike.ids == ("d",)


def test_held_out_questions_among_the_rows_are_an_error_and_their_documents_a_note(
    student: Student, tmp_path: Path
) -> None:
    lines = [
        {"id": "h1", "question": "How MUCH water does kettle a hold?", "answer": "1.7", "document_id": "a.md"},
        {"id": "h2", "question": "Who may open the back?", "answer": "a fitter", "document_id": "other.md"},
        {"id": "h3", "question": "How often is it cleaned?", "answer": "weekly", "document_id": "third.md"},
    ]
    (tmp_path / "heldout.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    heldout = load_heldout(tmp_path / "heldout.jsonl")
    plain = Row("plain", "plain.md", "Text: none.\nQuestion: How often is it cleaned?\nAnswer:", " weekly")
    found = examine(dataset(chat("a"), plain), student, TuneConfig(), heldout=heldout)
    questions = check(found, "held-out questions")
    assert (
        questions.status == "error" and questions.ids == ("h1", "h3") and "2 of 3 held-out questions" in questions.said
    )
    assert check(found, "held-out documents").ids == ("h1",)
    validated = examine(dataset(chat("b"), validation=(chat("a"),)), student, TuneConfig(), heldout=heldout)
    assert check(validated, "held-out questions").status == "note"
    clean = examine(dataset(chat("b"), chat("c")), student, TuneConfig(), heldout=heldout)
    assert check(clean, "held-out questions").status == "ok"


def test_a_student_without_a_template_gets_the_plain_one_by_name(tmp_path: Path) -> None:
    student = with_template(tmp_path, None)
    found = examine(dataset(), student, TuneConfig())
    assert check(found, "chat template").said == (
        "chat template: the plain one, saved with the student, since student has none of its own"
    )
    asked = check(examine(dataset(), student, TuneConfig(chat_template="plain")), "chat template")
    assert asked.said == "chat template: the plain one, saved with the student"


def test_a_turn_that_spells_a_special_token_is_a_note(student: Student) -> None:
    found = examine(dataset(chat("a", question="What is <|im_start|>?"), chat("b")), student, TuneConfig())
    spelt = check(found, "special tokens in texts")
    assert (spelt.status, spelt.ids) == ("note", ("a",)) and "<|im_start|>" in spelt.said


@pytest.mark.parametrize("make", [lambda i: chat(f"\x1b[31m{i}\u202e", answer=" ")])
def test_hostile_ids_reach_no_terminal(student: Student, make: Callable[[int], Row]) -> None:
    found = examine(dataset(make(0)), student, TuneConfig())
    with pytest.raises(RecordError) as error:
        found.raise_if_faulty()
    assert "\x1b" not in str(error.value) and "\u202e" not in str(error.value) and r"\x1b[31m0" in str(error.value)
