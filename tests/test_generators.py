import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from synth import ChatRequest, ConfigError, Passage, Record, ReplyError, ScriptedTeacher, generator
from synth.core.sentences import split_sentences
from synth.generators.find import find_generator
from synth.generators.qa import QA, deal

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
TEXT = (
    "The Brevo kettle holds 1.7 litres. Never fill the Brevo kettle with milk.\nThe red\nlight means that it is empty."
)
PASSAGE = Passage("kettle.md", TEXT, 0, len(TEXT), ("Kettle",))


def reply_with_first_sentence(request: ChatRequest) -> str:
    assert request.schema is not None
    sentence = request.schema["properties"]["evidence"]["enum"][0]
    return json.dumps(
        {"evidence": sentence, "question": f"What about {sentence.split()[1]}?", "answer": sentence.split()[-1]}
    )


async def test_qa_spreads_its_pairs_over_the_sentences_and_quotes_them_verbatim() -> None:
    teacher = ScriptedTeacher(reply_with_first_sentence)
    records = await QA().generate(PASSAGE, teacher)
    evidence = [r.evidence for r in records if isinstance(r, Record)]
    assert [e.text for e in evidence if e] == [s.text for s in split_sentences(TEXT)]
    assert all(e and PASSAGE.text[e.start : e.end] == e.text for e in evidence)
    assert len(teacher.requests) == 3


async def test_qa_puts_the_passage_before_what_varies_so_that_its_calls_share_a_prefix() -> None:
    teacher = ScriptedTeacher(reply_with_first_sentence)
    await QA().generate(PASSAGE, teacher)
    first, second = (request.messages[-1].content for request in teacher.requests[:2])
    shared = first[: next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)]
    assert TEXT in shared and first != second


async def test_qa_treats_the_text_of_a_document_as_data_not_as_a_template() -> None:
    text = "The code {{ 7 * 7 }} and {% raw %} opens the door of the shed."
    teacher = ScriptedTeacher(reply_with_first_sentence)
    await QA().generate(Passage("d.md", text, 0, len(text)), teacher)
    assert text in teacher.requests[0].messages[-1].content


async def test_one_reply_of_no_use_costs_one_pair_and_keeps_its_raw_text() -> None:
    def reply(request: ChatRequest) -> str:
        return "nonsense" if "milk" in str(request.schema) else reply_with_first_sentence(request)

    made = await QA().generate(PASSAGE, ScriptedTeacher(reply))
    assert [type(item) for item in made] == [Record, ReplyError, Record]
    assert isinstance(made[1], ReplyError) and made[1].raw == "nonsense" and "not JSON" in made[1].what


async def test_a_reply_that_breaks_the_schema_is_asked_for_once_more_with_the_fault_named() -> None:
    replies: list[str] = []

    def reply(request: ChatRequest) -> str:
        replies.append(request.messages[-1].content)
        return (
            '{"evidence": "made up", "question": "Q?", "answer": "a"}'
            if len(replies) == 1
            else reply_with_first_sentence(request)
        )

    made = await QA(pairs_per_passage=1).generate(PASSAGE, ScriptedTeacher(reply))
    assert isinstance(made[0], Record) and len(replies) == 2
    assert TEXT in replies[1] and "of no use: 'evidence'" in replies[1]


@pytest.mark.parametrize(("sentences", "shares"), [(0, 6), (1, 6), (5, 6), (6, 6), (13, 6), (3, 1)])
def test_dealing_loses_no_sentence_and_makes_no_empty_share(sentences: int, shares: int) -> None:
    items = split_sentences(" ".join(f"Number {i} is here." for i in range(sentences)))
    dealt = deal(items, shares)
    assert [s for share in dealt for s in share] == items
    assert all(dealt) and len(dealt) == min(sentences, shares)


async def test_the_example_generator_makes_two_dependent_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLES.parent)
    example = find_generator("examples/generators/customer_questions.py:CustomerQuestions")

    def reply(request: ChatRequest) -> str:
        asked = request.messages[-1].content
        if "List up to five facts" in asked:
            return json.dumps({"facts": [{"quote": "The Brevo kettle holds 1.7 litres.", "fact": "1.7 litres"}]})
        assert "its answer is: 1.7 litres" in asked
        return '{"question": "how much fits in my Brevo?"}'

    made: Sequence[object] = await example.generate(PASSAGE, ScriptedTeacher(reply))
    (record,) = made
    assert isinstance(record, Record) and record.evidence is not None
    assert (record.question, record.answer, record.evidence.start) == ("how much fits in my Brevo?", "1.7 litres", 0)


def test_a_decorated_class_is_found_by_its_name() -> None:
    @generator
    class Haiku:
        name = "haiku"

        async def generate(self, passage: Passage, teacher: ScriptedTeacher) -> list[Record]:
            return []

    assert isinstance(find_generator("haiku"), Haiku)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("class G:\n    name = 'g'\n    async def generate(self, passage): ...", "other arguments"),
        ("class G:\n    name = 'g'\n    def generate(self, passage, teacher): ...", "no `async def generate"),
        ("class G:\n    async def generate(self, passage, teacher): ...", "no `name`"),
        (
            "class G:\n    name = 'g'\n    def __init__(self, x): ...\n    async def generate(self, passage, teacher): ...",
            "without arguments.*'x'",
        ),
        (
            "class H:\n    name = 'g'\n    async def generate(self, passage, teacher): ...",
            "no 'G'.*did you mean|known: H",
        ),
        ("import no_such_module_at_all", "cannot be imported"),
    ],
)
def test_a_wrong_generator_fails_before_any_call(tmp_path: Path, source: str, message: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(source)
    with pytest.raises(ConfigError, match=message):
        find_generator(f"{path}:G")


@pytest.mark.parametrize("spec", ["qaa", "no_such_module:G", "no_such_file.py:G"])
def test_an_unknown_generator_is_an_error_that_helps(spec: str) -> None:
    with pytest.raises(ConfigError, match="did you mean qa|cannot be imported|no such file"):
        find_generator(spec)
