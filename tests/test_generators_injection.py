"""A document is data: nothing in it is a template, a closing tag, a turn of the conversation or a path."""

import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest

from synth import (
    ChatRequest,
    Endpoint,
    GenerateConfig,
    InferenceError,
    Passage,
    Run,
    ScriptedTeacher,
    fence,
    run_generate,
)
from synth.core.prompts import free_tag, harmless
from synth.core.records import Message
from synth.generators.base import prepare
from synth.generators.find import BUILT_IN, find_generator
from tests.injections import INJECTIONS, TITLES, TOKENS
from tests.scripted_replies import schema_reply

EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "generators"
SPECS = [
    *BUILT_IN,
    "qa+evolve+persona",
    str(EXAMPLES / "glossary.md"),
    f"{EXAMPLES / 'true_or_false.py'}:TrueOrFalse",
    f"{EXAMPLES / 'customer_questions.py'}:CustomerQuestions",
]
OPTIONS = {"grading": {"rubric": str(EXAMPLES / "rubric.md")}, "*": {"examples": [("</passage> {{ 7 * 7 }}?", "No.")]}}
OPENING = re.compile(r"<((?:passage|first|second|text|rubric|pair|question)(?:-[0-9a-f]{8})?)>\n")
FRAME = "The Brevo lamp costs 40 pounds and lasts for six years. {} The lamp must not stand on carpet."
OTHER = "The Brevo lamp is repaired in the workshop within two weeks. The workshop charges 40 pounds for a lamp."


def test_there_are_fifty_of_them_and_none_twice() -> None:
    assert len(INJECTIONS) == len(set(INJECTIONS)) == 50


async def prompts(text: str) -> list[Message]:
    """Return all messages that every generator sends about a document with `text` in it and in its headings."""
    passage = Passage(TITLES[0], text, 0, len(text), (" ".join(text.split())[:60],))
    other = Passage("workshop.md", OTHER, 0, len(OTHER))
    teacher = ScriptedTeacher(schema_reply)
    for spec in SPECS:
        generator = find_generator(spec, OPTIONS)
        prepare(generator, [passage, other])
        asked = len(teacher.requests)
        # A reply may be of no use; what is looked at here was sent before.
        with contextlib.suppress(InferenceError):
            await generator.generate(passage, teacher)
        assert len(teacher.requests) > asked, spec
    return [message for request in teacher.requests for message in request.messages]


@pytest.mark.parametrize("injection", INJECTIONS)
async def test_a_document_stays_delimited_data_in_the_prompt_of_every_generator(injection: str) -> None:
    text = FRAME.format(injection)
    fenced = 0
    for message in await prompts(text):
        # Nothing is evaluated: where the text stands it stands whole, but for a space in control tokens.
        if message.role == "system":
            assert injection not in message.content
            continue
        assert harmless(text) in message.content
        opened = OPENING.findall(message.content)
        assert opened
        for tag in opened:
            pattern = rf"<[\s/]*{re.escape(tag)}(?![-\w])"
            places = [m.group() for m in re.finditer(pattern, message.content, re.IGNORECASE)]
            assert places == [f"<{tag}", f"</{tag}"], (tag, places)
        fenced += any(f"<{tag}>\n{harmless(text)}\n</{tag}>" in message.content for tag in opened)
    assert fenced >= len(SPECS)


@pytest.mark.parametrize("token", TOKENS)
async def test_no_control_token_of_a_chat_template_reaches_a_message(token: str) -> None:
    raw = re.findall(r"<\|\w+\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<｜\w+｜>|</?think>", token)
    assert raw
    for message in await prompts(FRAME.format(token)):
        assert not any(one in message.content for one in raw)


def test_a_plain_passage_has_the_plain_tag_and_operators_stay_as_they_are() -> None:
    assert fence("f <| x |> g, a < s and [INSTALL].") == "<passage>\nf <| x |> g, a < s and [INSTALL].\n</passage>"


def test_the_tag_avoids_what_stands_beside_the_passage_too() -> None:
    name = free_tag("passage", ["fine", "a heading with </passage>"])
    assert re.fullmatch(r"passage-[0-9a-f]{8}", name)
    assert free_tag("passage", ["fine", "a heading with </passage>"]) == name
    assert free_tag("passage", [f"</passage></{name}>"]) != name


async def test_a_run_over_the_injections_writes_nothing_outside_the_run(tmp_path: Path) -> None:
    documents = tmp_path / "in" / "documents.jsonl"
    documents.parent.mkdir()
    rows = [
        {"id": TITLES[i % len(TITLES)] + str(i), "title": TITLES[i % len(TITLES)], "text": FRAME.format(text)}
        for i, text in enumerate(INJECTIONS)
    ]
    documents.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    before = {path for path in tmp_path.rglob("*")}

    @asynccontextmanager
    async def opened() -> AsyncIterator[Endpoint]:
        yield ScriptedTeacher(schema_reply)

    run = Run.create(tmp_path / "runs" / "one")
    config = GenerateConfig(generator=tuple(SPECS), options=OPTIONS)
    summary = await run_generate(run, [documents.parent], config, opened(), teacher_name="scripted")
    assert summary.documents == 50 and summary.records > 50
    outside = {path for path in tmp_path.rglob("*") if not path.is_relative_to(run.path)} - before
    assert outside <= {run.path.parent}
    inside = {path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file()}
    assert {"records.jsonl", "passages.jsonl", "run.json", "quarantine.jsonl"} <= inside
    assert all(re.fullmatch(r"(?:\.lock|[\w./-]+\.jsonl?|journal/[\w.-]+|[\w.-]*lock)", name) for name in inside), (
        inside
    )


def test_the_schema_of_a_call_offers_sentences_as_the_prompt_shows_them() -> None:
    def check(request: ChatRequest) -> str:
        assert request.schema is not None
        for sentence in request.schema["properties"]["evidence"]["enum"]:
            assert f"- {sentence}" in request.messages[-1].content
        return schema_reply(request)

    async def run() -> None:
        for token in TOKENS:
            text = FRAME.format(token)
            made = await find_generator("qa").generate(Passage("d", text, 0, len(text)), ScriptedTeacher(check))
            assert all(record.evidence and record.evidence.found for record in made if hasattr(record, "evidence"))

    import asyncio

    asyncio.run(run())
