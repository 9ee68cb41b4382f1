"""What each built-in generator asks, checks and writes; and that the filter keeps its good records."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from synth import (
    ConfigError,
    Example,
    FilterConfig,
    GenerateConfig,
    Passage,
    Record,
    RecordError,
    ReplyError,
    ScriptedTeacher,
    decide,
    load_examples,
)
from synth.core.config import build, read_config
from synth.core.resources import resource
from synth.core.schemas import check
from synth.core.sentences import split_sentences
from synth.generators.base import prepare
from synth.generators.evidence import MAX_ENUM_CHARS, MAX_ENUM_SENTENCES, Choice, sentences_of
from synth.generators.find import find_generator, find_generators
from synth.generators.grading import labels_of
from synth.generators.lexical import agrees, calculations
from synth.generators.qa import DIFFICULTIES, QA, QUESTION_TYPES
from tests.scripted_replies import schema_reply

EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "generators"
KETTLE = "The Brevo kettle holds 1.7 litres. Descale it every six weeks. The red light means that the tank is empty."
HOLDS, DESCALE, LIGHT = (sentence.text for sentence in split_sentences(KETTLE))
DESCALER = "One sachet of Limexa descaler costs 3 pounds. The Brevo kettle needs one sachet of Limexa each time."
COSTS, NEEDS = (sentence.text for sentence in split_sentences(DESCALER))
RUBRIC = str(EXAMPLES / "rubric.md")


def passage(text: str = KETTLE, document: str = "kettle.md", headings: tuple[str, ...] = ("Kettle",)) -> Passage:
    return Passage(document, text, 0, len(text), headings)


async def make(spec: str, reply: object, **options: object) -> Sequence[Record | ReplyError]:
    """Return what a generator makes of the passage about the kettle and one reply, or several."""
    generator = find_generator(spec, {spec.partition("+")[0]: options})
    prepare(generator, [passage(), passage(DESCALER, "descaler.md", ())])
    replies = reply if isinstance(reply, list) else [reply]
    return await generator.generate(passage(), ScriptedTeacher([json.dumps(one) for one in replies]))


async def record_of(spec: str, reply: object, **options: object) -> Record:
    (record,) = await make(spec, reply, **options)
    assert isinstance(record, Record), record
    check(record.to_json(), "record", where="here")
    assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record
    return record


async def fault_of(spec: str, reply: object, **options: object) -> str:
    try:
        made = await make(spec, reply, **options)
    except ReplyError as error:
        return error.what
    (item,) = made
    assert isinstance(item, ReplyError), item
    return item.what


def kept(record: Record) -> tuple[str, ...]:
    """Return the reasons of the general preset against a record; none means that it is kept."""
    (decided,) = decide([record], FilterConfig())
    assert decided.decision is not None
    return decided.decision.reasons


# qa


async def test_qa_asks_for_types_and_difficulties_in_turn_and_passages_start_at_different_places() -> None:
    teacher = ScriptedTeacher(schema_reply)
    for i in range(60):
        await QA(pairs_per_passage=3).generate(passage(f"{KETTLE} Number {i}."), teacher)
    prompts = [request.messages[-1].content for request in teacher.requests]
    asked = Counter(line for p in prompts for line in p.splitlines() if "allow it, the question asks" in line)
    hard = Counter(line for p in prompts for line in p.splitlines() if line.startswith("- Difficulty: "))
    assert len(asked) == len(QUESTION_TYPES) and len(hard) == len(DIFFICULTIES)
    assert min(asked.values()) * 3 > max(asked.values()) and min(hard.values()) * 2 > max(hard.values())


async def test_the_settings_of_the_demo_send_the_prompt_that_the_bundled_teacher_has_learned() -> None:
    config = build(GenerateConfig, read_config(resource("demo", "demo.toml"))["generate"])
    (generator,) = find_generators(config.generator, {"qa": {**config.options["qa"], "pairs_per_passage": 1}})
    teacher = ScriptedTeacher(schema_reply)
    await generator.generate(passage(), teacher)
    (request,) = teacher.requests
    assert request.messages[1].content == (
        f"Read the passage (from: Kettle).\n\n<passage>\n{KETTLE}\n</passage>\n\n"
        "Write one question that a reader of this text could ask, and its answer.\n\n"
        '- Quote the sentence that holds the answer first, word for word, as "evidence".\n'
        "- The question makes sense without the passage: it names what it asks about.\n"
        "- The answer is short and taken from the evidence, with its numbers, units and names.\n"
        '- Keep a "not" or "never" of the evidence in the question or in the answer.\n'
        "- Do not mention the passage, the text or the author.\n\n"
        f"The evidence is one of these sentences:\n- {HOLDS}\n- {DESCALE}\n- {LIGHT}"
    )
    assert list((request.schema or {})["properties"]) == ["evidence", "question", "answer"]


async def test_the_same_passage_is_asked_the_same_things_in_the_same_order() -> None:
    for spec in ("qa+evolve+persona", "multi-hop+persona", "unanswerable", "conversation", "reasoning", "instruction"):
        asked = []
        for _ in range(2):
            teacher = ScriptedTeacher(schema_reply)
            generator = find_generator(spec)
            prepare(generator, [passage(), passage(DESCALER, "descaler.md", ())])
            try:
                await generator.generate(passage(), teacher)
            except ReplyError:
                assert teacher.requests
            asked.append(teacher.requests)
        assert asked[0] == asked[1] and asked[0]


# Evidence


@pytest.mark.parametrize(
    ("mode", "named"), [("enum", DESCALE), ("index", 2), ("free", " descale it every\nsix WEEKS.")]
)
async def test_evidence_comes_back_as_the_passage_has_it_in_every_mode(mode: str, named: object) -> None:
    record = await record_of(
        "qa", {"evidence": named, "question": "How often?", "answer": "six weeks"}, evidence=mode, pairs_per_passage=1
    )
    assert record.evidence and record.evidence.text == DESCALE and record.evidence.start == KETTLE.index(DESCALE)


async def test_a_free_quotation_that_is_not_in_the_passage_is_no_record() -> None:
    reply = {"evidence": "The kettle is red.", "question": "What colour is it?", "answer": "red"}
    assert "not in the passage" in await fault_of("qa", reply, evidence="free", pairs_per_passage=1)


@pytest.mark.parametrize("number", [0, 4, "2", 1.5])
async def test_an_index_that_is_no_number_of_a_sentence_is_refused(number: object) -> None:
    reply = {"evidence": number, "question": "How often?", "answer": "six weeks"}
    assert "evidence" in await fault_of("qa", [reply, reply], evidence="index", pairs_per_passage=1)


@pytest.mark.parametrize(
    "text",
    [
        " ".join(f"Sentence {i} is here." for i in range(MAX_ENUM_SENTENCES + 1)),
        " ".join(f"Sentence {i} has {'many ' * 100}words." for i in range(MAX_ENUM_CHARS // 500 + 1)),
    ],
)
def test_an_enumeration_that_would_be_too_large_becomes_an_index(text: str) -> None:
    choice = Choice.of(sentences_of(passage(text)), "enum")
    assert choice.mode == "index" and choice.schema()["maximum"] == len(choice.offered)


# multi-hop

BOTH = {
    "first_evidence": DESCALE,
    "second_evidence": NEEDS,
    "question": "What does the Brevo kettle need every six weeks?",
    "answer": "one sachet of Limexa",
}


async def test_multi_hop_finds_a_related_passage_and_keeps_both_and_their_sentences_checkable() -> None:
    record = await record_of("multi-hop", BOTH)
    assert record.context == f"{KETTLE}\n\n{DESCALER}"
    assert record.evidence and (record.evidence.text, record.evidence.found) == (DESCALE, True)
    assert [(e.text, e.start) for e in record.more_evidence] == [(NEEDS, record.context.index(NEEDS))]
    assert record.kind == "multi-hop" and kept(record) == ()


async def test_multi_hop_refuses_an_answer_for_which_one_passage_is_enough() -> None:
    reply = {**BOTH, "question": "How often is the Brevo kettle descaled?", "answer": "every six weeks"}
    assert "one of the two" in await fault_of("multi-hop", reply)


async def test_the_filter_rejects_a_multi_hop_record_whose_second_quotation_is_nowhere() -> None:
    record = Record.create(
        passage(),
        "What is it?",
        "one sachet",
        generator="g",
        kind="multi-hop",
        evidence=HOLDS,
        more_evidence=["Made up."],
    )
    assert "evidence:not in the passage" in kept(record)


async def test_multi_hop_takes_no_passage_of_the_same_place_and_no_near_copy() -> None:
    copy = KETTLE.replace("red", "green")
    others = [
        passage("The Brevo kettle has a red light and a tank of 1.7 litres, too."),
        passage(copy, "copy.md"),
        passage("The Orla lamp stands on carpet.", "lamp.md"),
        passage(DESCALER, "kettle.md", ("Descaler",)),
    ]
    generator = find_generator("multi-hop")
    prepare(generator, [passage(), *others])
    teacher = ScriptedTeacher(schema_reply)
    await generator.generate(passage(), teacher)
    (request,) = teacher.requests
    assert DESCALER in request.messages[-1].content
    alone = ScriptedTeacher(schema_reply)
    prepare(generator, [passage(), *others[:3]])
    assert await generator.generate(passage(), alone) == [] and not alone.requests


async def test_multi_hop_reads_passages_one_at_a_time_and_keeps_none_of_their_texts() -> None:
    class OnDisk(Sequence[Passage]):
        reads = 0

        def __len__(self) -> int:
            return 40

        def __getitem__(self, place: Any) -> Any:  # noqa: ANN401  (a slice is never asked for)
            if not 0 <= place < 40:
                raise IndexError
            self.reads += 1
            return passage(f"The Brevo kettle number {place} holds water. It costs {place} pounds.", f"{place}.md")

    passages = OnDisk()
    generator = find_generator("multi-hop+persona")
    prepare(generator, passages)
    assert passages.reads == 40
    teacher = ScriptedTeacher(schema_reply)
    await generator.generate(passages[3], teacher)
    assert len(teacher.requests) == 1 and passages.reads < 40 + 70


async def test_multi_hop_that_has_not_seen_the_passages_says_so() -> None:
    with pytest.raises(ConfigError, match="has not seen the passages"):
        await find_generator("multi-hop").generate(passage(), ScriptedTeacher(schema_reply))


# unanswerable

OPEN = {"missing": "the weight", "question": "How heavy is the Brevo kettle?"}


async def test_unanswerable_writes_a_refusal_of_its_own_kind() -> None:
    record = await record_of("unanswerable", [OPEN, {"answered": False}])
    assert (record.kind, record.answer, record.evidence) == ("unanswerable", "I do not have that information.", None)
    assert len(record.provenance.call_keys) == 2
    assert kept(record) == ()
    assert kept(await record_of("unanswerable", OPEN, verify=False, refusal="I am sorry, the text does not say.")) == ()


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ([{"missing": "how often", "question": "Is it descaled every six weeks?"}], "nearly all words"),
        ([{"missing": "the six weeks", "question": "When does the Brevo kettle need care?"}], "stands in the passage"),
        ([{"missing": "its price", "question": "What is the price of an Orla lamp?"}], "not about the passage"),
        ([OPEN, {"answered": True}], "found an answer"),
    ],
)
async def test_unanswerable_refuses_a_question_that_the_passage_answers(reply: list[Any], message: str) -> None:
    assert message in await fault_of("unanswerable", reply)


def test_two_refused_questions_about_one_passage_are_no_duplicates() -> None:
    asked = ("How heavy is the Brevo kettle?", "How loud is the Brevo kettle?")
    records = [
        Record.create(passage(), q, "I do not have that information.", generator="u", kind="unanswerable")
        for q in asked
    ]
    assert [r.decision and r.decision.keep for r in decide(records, FilterConfig())] == [True, True]


# conversation


def turn(evidence: str, question: str, answer: str) -> dict[str, str]:
    return {"evidence": evidence, "question": question, "answer": answer}


TURNS = [
    turn(HOLDS, "How much does the Brevo kettle hold?", "1.7 litres"),
    turn(LIGHT, "And what does its red light mean?", "that the tank is empty"),
    turn(DESCALE, "How often do I descale it?", "every six weeks"),
]


async def test_conversation_asks_for_the_last_answer_after_all_turns() -> None:
    record = await record_of("conversation", {"turns": TURNS})
    assert [m.role for m in record.prompt] == ["user", "assistant", "user", "assistant", "user"]
    assert record.question == "How often do I descale it?" and record.answer == "every six weeks"
    assert record.evidence and record.evidence.text == DESCALE
    assert {e.text for e in record.more_evidence} == {HOLDS, LIGHT}
    assert kept(record) == ()


async def test_a_conversation_that_asks_twice_is_no_record() -> None:
    assert "twice" in await fault_of("conversation", {"turns": [*TURNS[:2], TURNS[0]]})


async def test_a_conversation_has_as_many_turns_as_asked_and_no_more_than_sentences() -> None:
    for turns, expected in ((2, 2), (8, 3)):
        teacher = ScriptedTeacher(schema_reply)
        await find_generator("conversation", {"conversation": {"turns": turns}}).generate(passage(), teacher)
        bounds = (teacher.requests[0].schema or {})["properties"]["turns"]
        assert (bounds["minItems"], bounds["maxItems"]) == (expected, expected)


# reasoning


def steps(*texts: tuple[str, str]) -> list[dict[str, str]]:
    return [{"evidence": evidence, "step": step} for evidence, step in texts]


TRACE = {
    "question": "How much water do three fillings of the Brevo kettle give?",
    "steps": steps(
        (HOLDS, "The Brevo kettle holds 1.7 litres."), (HOLDS, "Three fillings: 3 × 1.7 litres = 5.1 litres.")
    ),
    "answer": "5.1 litres",
}


async def test_reasoning_writes_its_steps_before_the_answer() -> None:
    record = await record_of("reasoning", TRACE)
    assert record.answer == (
        "1. The Brevo kettle holds 1.7 litres.\n2. Three fillings: 3 × 1.7 litres = 5.1 litres.\n\nAnswer: 5.1 litres"
    )
    assert record.kind == "reasoning" and record.evidence and record.evidence.text == HOLDS
    assert kept(record) == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": steps((HOLDS, "It holds 1.7 litres."), (HOLDS, "3 × 1.7 = 5.4 litres."))}, "step 2 miscalculates"),
        ({"steps": steps((HOLDS, "It holds 1.9 litres."), (HOLDS, "3 × 1.7 = 5.1 litres."))}, "step 1.*nowhere: 1.9"),
        ({"answer": "5.4 litres"}, "answer has a number from nowhere: 5.4"),
        ({"steps": steps((LIGHT, "Fillings are good."), (HOLDS, "3 × 1.7 = 5.1 litres."))}, "step 1 has no word"),
        ({"answer": "banana"}, "does not follow"),
    ],
)
async def test_a_trace_with_a_fault_is_no_record(changes: dict[str, Any], message: str) -> None:
    assert re.search(message, await fault_of("reasoning", {**TRACE, **changes}))


async def test_the_filter_still_rejects_a_number_that_no_step_calculates() -> None:
    record = await record_of("reasoning", TRACE)
    forged = Record.create(
        passage(), record.question, f"{record.answer} of 93", generator="r", kind="reasoning", evidence=HOLDS
    )
    assert "facts:number 93 of the answer" in kept(forged)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("3 × 40 pounds = 120 pounds", True),
        ("2 + 3 * 4 = 14", True),
        ("$1,200 / 12 months = $100", True),
        ("7 / 3 = 2.33", True),
        ("7 / 3 = 2.4", False),
        ("10 - 4 - 3 = 3", True),
        ("10 − 4 = 5", False),
        ("100 / 0 = 0", False),
        ("1000 + 1 = 1002", False),
    ],
)
def test_calculations_are_worked_out_again(text: str, right: bool) -> None:
    ((_, value, said),) = calculations(f"So {text}.")
    assert (value is not None and agrees(value, said)) is right


# instruction


async def test_instruction_shows_the_student_the_passage_below_the_instruction() -> None:
    reply = {
        "instruction": "Sum this text up in 2 sentences for customers of the Berlin shop.",
        "response": "The Brevo kettle holds 1.7 litres and is descaled every six weeks. A red light: the tank is empty.",
    }
    record = await record_of("instruction", reply, pairs_per_passage=1, tasks=["summary"])
    assert record.question == f"{reply['instruction']}\n\n{KETTLE}" and record.answer == reply["response"]
    assert record.kind == "instruction" and kept(record) == ()


@pytest.mark.parametrize(
    ("task", "instruction", "response", "message"),
    [
        ("formal", "Rewrite it.", KETTLE.upper(), "the passage itself"),
        ("summary", "Sum it up.", KETTLE + " And more.", "longer than the passage"),
        ("extract", f"Extract the numbers of: {KETTLE}", "1.7", "repeats the passage"),
    ],
)
async def test_a_response_that_carries_nothing_out_is_no_record(
    task: str, instruction: str, response: str, message: str
) -> None:
    reply = {"instruction": instruction, "response": response}
    assert message in await fault_of("instruction", reply, pairs_per_passage=1, tasks=[task])


async def test_a_made_up_fact_in_a_summary_is_rejected_and_two_tasks_on_a_passage_are_no_duplicates() -> None:
    def of(instruction: str, response: str) -> Record:
        question = f"{instruction}\n\n{KETTLE}"
        return Record.create(passage(), question, response, generator="instruction", kind="instruction")

    bad = of("Sum it up.", "The Brevo kettle holds 2.5 litres. Descale it every six weeks.")
    assert "facts:number 2.5 of the answer" in kept(bad)
    two = [
        of("Sum it up.", "The Brevo kettle holds 1.7 litres and needs descaling every six weeks."),
        of("List the numbers.", "1.7 litres\nsix weeks"),
    ]
    assert [r.decision and r.decision.keep for r in decide(two, FilterConfig())] == [True, True]


# grading

MARK = {
    "evidence": DESCALE,
    "justification": "It says what to do, descale every six weeks, but leaves out the reason and the hazard.",
    "label": "revise",
}


async def test_grading_marks_the_text_with_a_label_of_the_rubric_and_says_why() -> None:
    record = await record_of("grading", MARK, rubric=RUBRIC)
    assert Path(RUBRIC).read_text().strip() in record.question and record.question.endswith(KETTLE)
    assert record.answer == f"revise\n\n{MARK['justification']}"
    assert record.kind == "grading" and kept(record) == ()


async def test_a_label_that_the_rubric_does_not_have_is_refused() -> None:
    assert "label" in await fault_of("grading", [{**MARK, "label": "good"}] * 2, rubric=RUBRIC)


@pytest.mark.parametrize(
    ("rubric", "labels"),
    [
        ("- **A**: all\n- **B**: some\n", ("A", "B")),
        ("## 1 – poor\ntext\n## 2 – good\n", ("1", "2")),
        ("| mark | meaning |\n| --- | --- |\n| yes | all |\n", ("mark", "yes")),
        ("Be kind: it matters.\n", ()),
    ],
)
def test_labels_are_read_from_the_items_of_a_rubric(rubric: str, labels: tuple[str, ...]) -> None:
    assert labels_of(rubric) == labels


# persona and evolve


async def test_persona_is_in_the_system_message_and_in_no_record(tmp_path: Path) -> None:
    people = tmp_path / "people.txt"
    people.write_text("# comment\na zebra keeper\n")
    generator = find_generator("qa+persona", {"persona": {"personas": str(people)}})
    teacher = ScriptedTeacher(schema_reply)
    made = [r for r in await generator.generate(passage(), teacher) if isinstance(r, Record)]
    assert made and all("zebra keeper" in r.messages[0].content for r in teacher.requests)
    assert all(r.messages[0].role == "system" for r in teacher.requests)
    assert not any("zebra" in json.dumps(record.to_json()) for record in made)
    assert {record.generator for record in made} == {"qa+persona"}
    plain = [r for r in await QA().generate(passage(), ScriptedTeacher(schema_reply)) if isinstance(r, Record)]
    assert not {r.id for r in made} & {r.id for r in plain}
    assert made[0].provenance.prompt_sha256 != plain[0].provenance.prompt_sha256


async def test_personas_go_round_from_passage_to_passage() -> None:
    teacher = ScriptedTeacher(schema_reply)
    for i in range(40):
        await find_generator("qa+persona").generate(passage(f"Number {i} is on the kettle."), teacher)
    assert len({request.messages[0].content for request in teacher.requests}) > 10


FIRST = {"evidence": HOLDS, "question": "What does the Brevo kettle hold?", "answer": "1.7 litres"}
HARDER = {
    "evidence": HOLDS,
    "question": "Somebody needs 1.5 litres of hot water at once: is one filling of the Brevo kettle enough?",
    "answer": "Yes, it holds 1.7 litres",
}


async def evolved(*replies: object) -> Record:
    return await record_of("qa+evolve", [FIRST, *replies], pairs_per_passage=1)


async def test_evolve_puts_a_harder_question_in_the_place_of_the_first_and_keeps_all_calls() -> None:
    record = await evolved(HARDER)
    assert (record.question, record.answer, record.generator) == (HARDER["question"], HARDER["answer"], "qa+evolve")
    assert record.evidence and record.evidence.found and len(set(record.provenance.call_keys)) == 2
    assert record.kind == "qa" and record.context == KETTLE


@pytest.mark.parametrize(
    "reply",
    [
        {**HARDER, "question": "what does the Brevo kettle hold?"},
        {**HARDER, "answer": "Sorry, the text does not say."},
        {**HARDER, "answer": "It holds 9 litres"},
        {**HARDER, "answer": "bananas"},
        {**HARDER, "question": "Here is a harder question: what does it hold?"},
        {**HARDER, "question": "?"},
    ],
)
async def test_evolve_falls_back_to_the_record_that_it_was_made_from(reply: dict[str, str]) -> None:
    record = await evolved(reply)
    assert (record.question, record.answer) == (FIRST["question"], FIRST["answer"])
    assert len(record.provenance.call_keys) == 2


async def test_evolve_falls_back_where_no_reply_follows_the_schema_and_counts_those_calls() -> None:
    record = await evolved({"no": 1}, {"no": 2})
    assert record.question == FIRST["question"] and len(record.provenance.call_keys) == 3


async def test_evolve_hands_on_what_has_no_plain_answer() -> None:
    record = await record_of("reasoning+evolve", TRACE)
    assert record.generator == "reasoning+evolve" and record.answer.startswith("1. ")
    talk = await record_of(
        "conversation+evolve", [{"turns": TURNS}, {**HARDER, "evidence": DESCALE, "answer": "six weeks"}]
    )
    assert len(talk.prompt) == 5 and talk.question == HARDER["question"]


# Seed examples

OWN = (Example("my toaster won't pop up, what now?", "Unplug it."), *(Example(f"q {i}?", f"a {i}") for i in range(9)))


async def test_at_most_three_examples_are_shown_as_style_and_their_choice_is_the_passages() -> None:
    seen = set()
    for i in range(10):
        teacher = ScriptedTeacher(schema_reply)
        await QA(pairs_per_passage=1, examples=OWN).generate(passage(f"{KETTLE} Number {i}."), teacher)
        shown = [e for e in OWN if f"Question: {e.question}\n" in teacher.requests[0].messages[-1].content]
        assert len(shown) == 3
        seen.update(shown)
    assert len(seen) > 5


@pytest.mark.parametrize("spec", ["qa", "multi-hop", "unanswerable", "reasoning", "conversation", "instruction"])
async def test_a_question_that_copies_an_example_is_never_a_record(spec: str) -> None:
    copied = "My toaster won't pop up — what now"
    replies: dict[str, Any] = {
        "qa": {**FIRST, "question": copied},
        "multi-hop": {**BOTH, "question": copied},
        "unanswerable": {**OPEN, "question": copied},
        "reasoning": {**TRACE, "question": copied},
        "conversation": {"turns": [TURNS[0], TURNS[1], {**TURNS[2], "question": copied}]},
        "instruction": {"instruction": copied, "response": "Unplug it."},
    }
    one = {} if spec in {"reasoning", "conversation"} else {"pairs_per_passage": 1}
    assert "copies an example" in await fault_of(spec, replies[spec], examples=OWN, **one)


def test_examples_are_read_from_jsonl_csv_and_trls_forms(tmp_path: Path) -> None:
    assert len(load_examples(EXAMPLES / "style.jsonl")) == 2
    table = tmp_path / "own.csv"
    table.write_text('question,answer,note\n"Why, oh why?","Because, ""so"".",x\n')
    assert load_examples(table) == (Example("Why, oh why?", 'Because, "so".'),)
    chat = {"prompt": [{"role": "user", "content": "Hm?"}], "completion": [{"role": "assistant", "content": "Aha."}]}
    lines = tmp_path / "own.jsonl"
    lines.write_text(json.dumps(chat) + '\n\n{"prompt": "Q?", "completion": "A."}\n')
    assert load_examples(lines) == (Example("Hm?", "Aha."), Example("Q?", "A."))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"question": "q", "answer": "a"}\n{"question": "q"}\n', r"a\.jsonl:2: 'answer' is missing"),
        ("a.jsonl", '{"question": "q", "answer": "a"}\n\nnope\n', r"a\.jsonl:3: not JSON"),
        (
            "a.jsonl",
            '{"questoin": "q", "answer": "a"}\n',
            r"a\.jsonl:1: 'question' is missing; did you mean question|questoin",
        ),
        ("a.csv", "question,answer\nq,\n", r"a\.csv:2: 'answer' is empty"),
        ("a.jsonl", "", "there is no example"),
        ("none.jsonl", None, "cannot be read"),
    ],
)
def test_a_wrong_line_of_the_examples_is_named(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(RecordError, match=message):
        load_examples(tmp_path / name)


# Every prompt


@pytest.mark.parametrize(
    "spec", ["qa", "multi-hop", "unanswerable", "conversation", "reasoning", "instruction", "grading"]
)
async def test_the_passage_stands_before_all_that_varies(spec: str) -> None:
    teacher = ScriptedTeacher(schema_reply)
    generator = find_generator(spec, {"grading": {"rubric": RUBRIC}, "*": {"examples": OWN}})
    prepare(generator, [passage(), passage(DESCALER, "descaler.md", ())])
    try:
        await generator.generate(passage(), teacher)
    except ReplyError:
        assert teacher.requests
    for request in teacher.requests:
        assert request.messages[-1].content.index(KETTLE) < 100, request.messages[-1].content
