"""Specs, options, modifiers, templates without Python and prompt/parse pairs: found, or refused before any call."""

import importlib
import inspect
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from synth import (
    ChatRequest,
    ConfigError,
    Example,
    Message,
    Passage,
    Record,
    ReplyError,
    Sampling,
    ScriptedTeacher,
    generator,
)
from synth.generators.base import Generator
from synth.generators.digest import generator_digest
from synth.generators.find import BUILT_IN, MODIFIERS, find_generator, find_generators, split_spec
from synth.generators.qa import QA
from tests.scripted_replies import schema_reply

EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "generators"
TEXT = "The Brevo kettle holds 1.7 litres. Descale it every six weeks. The red light means that the tank is empty."
PASSAGE = Passage("kettle.md", TEXT, 0, len(TEXT), ("Kettle",))
GRADING = {"grading": {"rubric": str(EXAMPLES / "rubric.md")}}


def find(spec: str, options: Mapping[str, Mapping[str, Any]] = GRADING) -> Generator:
    return find_generator(spec, options)


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("modifiers", ["", *(f"+{name}" for name in MODIFIERS), "+evolve+persona"])
def test_every_built_in_generator_is_found_with_every_modifier_and_named_by_its_spec(name: str, modifiers: str) -> None:
    assert find(name + modifiers).name == name + modifiers


def test_built_in_names_need_no_installed_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synth.generators.find.entry_points", lambda group: [])
    assert isinstance(find("qa"), QA)


def test_options_reach_the_constructor_under_the_name_that_the_spec_uses() -> None:
    found = find_generator("qa", {"qa": {"pairs_per_passage": 4, "question_types": ["reason"]}})
    assert isinstance(found, QA)
    assert (found.pairs_per_passage, found.question_types, found.evidence) == (4, ("reason",), "enum")


def test_options_for_all_go_to_those_that_take_them_and_own_options_win() -> None:
    everyone = {"*": {"evidence": "index", "examples": [("A question?", "An answer.")]}}
    found = find_generator("qa", everyone)
    assert isinstance(found, QA)
    assert found.evidence == "index" and found.examples == (Example("A question?", "An answer."),)
    own = find_generator("qa", {**everyone, "qa": {"evidence": "free"}})
    assert isinstance(own, QA) and own.evidence == "free"
    assert find_generator("unanswerable+persona", everyone).name == "unanswerable+persona"


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("qa", {"qa": {"pairs_per_pasage": 4}}, "no option is called 'pairs_per_pasage'.*did you mean pairs_per_pass"),
        ("qa", {"qa": {"pairs_per_passage": "many"}}, "pairs_per_passage.*valid integer.*'many'"),
        ("qa", {"qa": {"evidence": "enums"}}, "evidence.*'enum', 'index' or 'free'"),
        ("qa", {"qa": {"question_types": "reason"}}, "question_types"),
        ("qa", {"*": {"examples": [("only a question",)]}}, "examples"),
        ("qa+persona", {"persona": {"people": []}}, "no option is called 'people'"),
        ("qa+persona", {"persona": {"inner": 1}}, "no option is called 'inner'"),
        ("qa+persona", {"persona": {"personas": "no_such_file.txt"}}, "personas cannot be read"),
        ("grading", {}, "no rubric"),
        ("grading", {"grading": {"rubric": "no_such.md"}}, "no such rubric"),
        ("grading", {"grading": {"rubric": "Be kind\nand fair."}}, "labels"),
        ("conversation", {"conversation": {"turns": 1}}, "turns is from 2 to 8"),
    ],
)
def test_a_wrong_option_fails_before_any_call(
    spec: str, options: Mapping[str, Mapping[str, Any]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        find_generator(spec, options)


def test_options_under_a_name_that_nothing_has_are_an_error_and_those_of_others_are_not() -> None:
    assert [g.name for g in find_generators(["qa"], {"multi-hop": {"pairs_per_passage": 2}})] == ["qa"]
    with pytest.raises(ConfigError, match="options are given for 'multi_hop'; did you mean multi-hop"):
        find_generators(["qa"], {"multi_hop": {"pairs_per_passage": 2}})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("multihop", "no generator is called 'multihop'; did you mean multi-hop"),
        ("qa+personna", "no modifier is called 'personna'; did you mean persona"),
        ("persona", "'persona' is a modifier; write qa\\+persona"),
        ("qa+reasoning", "'reasoning' is a generator; it stands first"),
        ("no/such/template.md", "no such file"),
    ],
)
def test_an_unknown_name_fails_with_what_was_meant(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find(spec)


def test_a_plus_in_a_path_is_no_modifier(tmp_path: Path) -> None:
    path = tmp_path / "c++ notes" / "mine.py"
    path.parent.mkdir()
    path.write_text("class G:\n    name = 'g'\n    async def generate(self, passage, teacher):\n        return []\n")
    assert split_spec(f"{path}:G+persona") == (f"{path}:G", ("persona",))
    assert find(f"{path}:G+persona").name == "g+persona"


async def test_a_modifier_of_your_own_is_found_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "class Twice:\n"
        "    name = 'twice'\n"
        "    def __init__(self, inner, *, times: int = 2):\n"
        "        self.inner, self.times, self.name = inner, times, inner.name + '+twice'\n"
        "    async def generate(self, passage, teacher):\n"
        "        return [r for _ in range(self.times) for r in await self.inner.generate(passage, teacher)]\n"
    )
    spec = f"qa+{tmp_path}/mine.py:Twice"
    found = find_generator(spec, {"Twice": {"times": 3}, "qa": {"pairs_per_passage": 1}})
    assert found.name == "qa+twice"
    assert len(await found.generate(PASSAGE, ScriptedTeacher(schema_reply))) == 3


def test_generators_and_modifiers_of_an_installed_package_are_found_by_their_entry_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_package.py").write_text(
        "class Theirs:\n"
        "    name = 'theirs'\n"
        "    async def generate(self, passage, teacher):\n"
        "        return []\n"
        "class Loud(Theirs):\n"
        "    def __init__(self, inner):\n"
        "        self.name = inner.name + '+loud'\n"
    )
    info = tmp_path / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[synth.generators]\ntheirs = their_package:Theirs\nbroken = their_package:Nothing\n"
        "[synth.modifiers]\nloud = their_package:Loud\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert find("theirs").name == "theirs"
    assert find("qa+loud").name == "qa+loud"
    with pytest.raises(ConfigError, match="did you mean theirs"):
        find("their")
    with pytest.raises(ConfigError, match="broken: cannot be imported"):
        find("broken")


def test_a_decorated_pair_is_found_by_its_name_and_a_class_without_one_is_refused_at_once() -> None:
    @generator
    class Riddle:
        name = "riddle"

        def prompt(self, passage: Passage) -> str:
            return passage.text

        def parse(self, passage: Passage, reply: str) -> list[Record]:
            return []

    assert find("riddle+persona").name == "riddle+persona"
    with pytest.raises(ConfigError, match="no `name`"):

        @generator
        class Nameless:
            async def generate(self, passage: Passage, teacher: ScriptedTeacher) -> list[Record]:
                return []


def test_the_settings_of_the_page_are_settings_and_its_table_has_every_option() -> None:
    page = (EXAMPLES.parent.parent / "docs" / "generators.md").read_text()
    settings = tomllib.loads(re.findall(r"```toml\n(.*?)```", page, re.DOTALL)[0])["generate"]
    settings["options"]["grading"]["rubric"] = str(EXAMPLES / settings["options"]["grading"]["rubric"])
    assert [g.name for g in find_generators(settings["generator"], settings["options"])] == settings["generator"]
    rows = dict(re.findall(r"^\| `([\w-]+)` \| ((?:`\w+`.*)) \|$", page, re.MULTILINE))
    for name, home in {**BUILT_IN, **MODIFIERS}.items():
        module, _, attribute = home.partition(":")
        taken = list(inspect.signature(getattr(importlib.import_module(module), attribute)).parameters)
        assert re.findall(r"`(\w+)`", rows[name]) == [option for option in taken if option != "inner"], name


def test_the_digest_of_a_generator_changes_with_its_options_its_code_and_its_files(tmp_path: Path) -> None:
    rubric, code, template = tmp_path / "rubric.md", tmp_path / "mine.py", tmp_path / "mine.md"
    source = "class G:\n    name = 'g'\n    async def generate(self, passage, teacher):\n        return []\n"

    def digests() -> list[str]:
        options = {"grading": {"rubric": str(rubric)}}
        return [generator_digest(find_generator(s, options)) for s in ("grading+persona", f"{code}:G", str(template))]

    rubric.write_text("- **A**: all\n- **B**: some\n")
    code.write_text(source)
    template.write_text("---\nschema: qa\n---\n{{ passage | fence }}")
    first = digests()
    assert digests() == first
    rubric.write_text("- **A**: all\n- **C**: some\n")
    code.write_text(source + "# edited\n")
    template.write_text("---\nschema: qa\n---\nRead {{ passage | fence }}")
    assert not set(digests()) & set(first)
    assert generator_digest(find("qa")) != generator_digest(find("qa", {"qa": {"pairs_per_passage": 2}}))


# Templates without Python


async def test_the_example_template_makes_records_with_evidence_and_no_python() -> None:
    found = find(str(EXAMPLES / "glossary.md"))
    sentence = "Descale it every six weeks."

    def reply(request: ChatRequest) -> str:
        assert request.schema is not None
        assert sentence in request.schema["properties"]["entries"]["items"]["properties"]["quote"]["enum"]
        entry = {"quote": sentence, "term": "descaling", "question": "What is descaling?", "meaning": "a chore"}
        return json.dumps({"entries": [entry, {**entry, "question": "How often?"}]})

    teacher = ScriptedTeacher(reply)
    made = [r for r in await found.generate(PASSAGE, teacher) if isinstance(r, Record)]
    assert [(r.question, r.answer, r.generator, r.kind) for r in made] == [
        ("What is descaling?", "a chore", "glossary", "qa"),
        ("How often?", "a chore", "glossary", "qa"),
    ]
    assert all(r.evidence and r.evidence.start == TEXT.index(sentence) for r in made)
    assert "from: Kettle" in teacher.requests[0].messages[1].content


async def test_a_template_numbers_its_sentences_where_it_is_told_to() -> None:
    found = find_generator(str(EXAMPLES / "glossary.md"), {"*": {"evidence": "index"}})
    teacher = ScriptedTeacher(schema_reply)
    (record,) = await found.generate(PASSAGE, teacher)
    assert isinstance(record, Record) and record.evidence
    assert record.evidence.text == "The Brevo kettle holds 1.7 litres."
    assert "2. Descale it every six weeks." in teacher.requests[0].messages[-1].content


def test_a_template_finds_its_schema_by_name_and_beside_itself(tmp_path: Path) -> None:
    (tmp_path / "named.md").write_text("---\nschema: qa\n---\n{{ passage | fence }}")
    (tmp_path / "mine.json").write_text(
        json.dumps(
            {
                "type": "object",
                "properties": {"q": {"type": "string"}, "a": {"type": "string"}},
                "required": ["q", "a"],
            }
        )
    )
    (tmp_path / "beside.md").write_text(
        "---\nschema: mine.json\nrecord: {question: q, answer: a}\n---\n{{ passage | fence }}"
    )
    assert find(str(tmp_path / "named.md")).name == "named"
    assert find(str(tmp_path / "beside.md")).name == "beside"


@pytest.mark.parametrize(
    ("front", "body", "message"),
    [
        ("schema: qa\nitmes: x", "x", "'itmes'; did you mean items"),
        ("kind: qa", "x", "no 'schema'"),
        ("schema: qaa", "x", "no schemas resource"),
        ("schema: no.json", "x", "no file 'no.json' beside"),
        ("schema: {type: objekt}", "x", "not a valid JSON Schema"),
        ("schema: qa\nrecord: {question: ask}", "x", "no field 'ask'"),
        ("schema: qa\nrecord: {questoin: question}", "x", "'record' has 'questoin'; did you mean question"),
        ("schema: qa\nitems: pairs", "x", "no field 'pairs'"),
        ("schema: {type: object, properties: {question: {}, answer: {}}}", "x", "does not require 'question'"),
        ("schema: qa", "{{ passge }}", "'passge' is undefined.*values given.*passage"),
        ("schema: qa", "{% if %}", "not a valid template"),
        ("schema: qa\nsystem: [a]", "x", "'system' of the front matter is no text"),
    ],
)
def test_a_wrong_template_fails_before_any_call(tmp_path: Path, front: str, body: str, message: str) -> None:
    path = tmp_path / "mine.md"
    path.write_text(f"---\n{front}\n---\n{body}")
    with pytest.raises(ConfigError, match=message):
        find(str(path))


# prompt/parse pairs


async def test_the_example_pair_makes_records_of_one_call() -> None:
    found = find(f"{EXAMPLES / 'true_or_false.py'}:TrueOrFalse")
    good, bad = "The Brevo kettle holds 1.7 litres.", "Descale it every six weeks."
    reply = {
        "statements": [
            {"quote": good, "statement": "The Brevo kettle holds 1.7 litres.", "true": True},
            {"quote": bad, "statement": "The Brevo kettle is descaled daily.", "true": False},
        ]
    }
    teacher = ScriptedTeacher([json.dumps(reply)])
    made = await found.generate(PASSAGE, teacher)
    assert [r.answer for r in made if isinstance(r, Record)] == [f"True. {good}", f"False. {bad}"]
    assert teacher.requests[0].sampling.max_tokens == 400


async def test_a_reply_that_parse_can_make_nothing_of_is_quarantined_with_its_text() -> None:
    found = find(f"{EXAMPLES / 'true_or_false.py'}:TrueOrFalse")
    one = {"quote": "x", "statement": "y", "true": True}
    raw = json.dumps({"statements": [one, one]})
    with pytest.raises(ReplyError, match="all true or all false") as failed:
        await found.generate(PASSAGE, ScriptedTeacher([raw]))
    assert failed.value.raw == raw


async def test_a_pair_without_a_schema_gets_the_text_and_may_send_several_messages(tmp_path: Path) -> None:
    class Plain:
        name = "plain"
        sampling = Sampling(temperature=0)

        def prompt(self, passage: Passage) -> Sequence[Message]:
            return [Message("system", "Be brief."), Message("user", passage.text)]

        def parse(self, passage: Passage, reply: str) -> list[Record]:
            return [Record.create(passage, "What does it say?", reply, generator=self.name)]

    from synth.generators.find import check_generator

    teacher = ScriptedTeacher(["It says a lot."])
    (record,) = await check_generator(Plain, "plain").generate(PASSAGE, teacher)
    assert isinstance(record, Record) and record.answer == "It says a lot."
    assert teacher.requests[0].schema is None and teacher.requests[0].sampling.temperature == 0
    assert [m.role for m in teacher.requests[0].messages] == ["system", "user"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def prompt(self): ...\n    def parse(self, passage, reply): ...", r"`prompt` takes other.*\(passage\)"),
        ("def prompt(self, passage): ...\n    def parse(self, reply): ...", r"`parse` takes other.*\(passage, reply\)"),
        ("async def prompt(self, passage): ...\n    def parse(self, passage, reply): ...", "`prompt` is no plain"),
        ("def prompt(self, passage): ...", "has no `async def generate.*`prompt.*`parse"),
    ],
)
def test_a_wrong_pair_fails_before_any_call(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(f"class G:\n    name = 'g'\n    {source}\n")
    with pytest.raises(ConfigError, match=message):
        find(f"{tmp_path}/mine.py:G")


async def test_a_parse_that_gives_something_else_than_records_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "class G:\n    name = 'g'\n    def prompt(self, passage): return 'x'\n    def parse(self, passage, reply): return ['no']\n"
    )
    with pytest.raises(ConfigError, match="gave a str, not a Record"):
        await find(f"{tmp_path}/mine.py:G").generate(PASSAGE, ScriptedTeacher(["x"]))
