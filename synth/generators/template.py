"""A generator that is one text file: a template whose front matter names the reply's schema. No Python."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from jsonschema import Draft202012Validator, SchemaError

from synth.core.calls import Completion, Teacher
from synth.core.errors import ConfigError, InferenceError, did_you_mean
from synth.core.prompts import PromptTemplate, read_template
from synth.core.records import Passage, Record
from synth.core.schemas import load_schema
from synth.generators.base import ReplyError, as_reply_error, ask_json, came_from
from synth.generators.evidence import Choice, EvidenceMode, sentences_of, with_choice
from synth.generators.examples import Example, copies_example, shown_examples


class TemplateGenerator:
    """Renders a template for each passage, asks once, and reads the pairs out of the reply.

    Args:
        path: the template. Its front matter has `schema`, and may have `kind`, `system`, `items` and `record`.
        evidence: how the reply names a sentence, where the schema has a field for it.
        examples: a user's pairs, shown where the template shows `examples`.

    Raises:
        ConfigError: the template or its schema is wrong, or they do not fit together.
    """

    def __init__(self, path: Path, *, evidence: EvidenceMode = "enum", examples: Sequence[Example] = ()) -> None:
        self.template = read_template(path)
        self.name = path.stem
        self.evidence, self.examples = evidence, tuple(examples)
        self.schema = _schema_of(self.template, path)
        self.items = tuple(self.template.items.split(".")) if self.template.items else ()
        self.fields = {"question": "question", "answer": "answer", "evidence": "evidence", **self.template.record}
        self._check(path)

    async def generate(self, passage: Passage, teacher: Teacher) -> list[Record | ReplyError]:
        """Ask once and return a record for each pair of the reply.

        Raises:
            ReplyError: the reply does not follow the schema or was cut off.
        """
        sentences = sentences_of(passage)
        if not sentences:
            return []
        choice = Choice.of(sentences, self.evidence)
        messages = self.template.messages(**self._values(passage, choice))
        schema = with_choice(self.schema, [*self.items, self.fields["evidence"]], choice)
        reply, completion = await ask_json(teacher, messages, schema)
        for name in self.items:
            reply = reply[name]
        pairs = reply if isinstance(reply, list) else [reply]
        return [self._record(passage, pair, choice, completion) for pair in pairs]

    def _record(
        self, passage: Passage, pair: Mapping[str, Any], choice: Choice, completion: Completion
    ) -> Record | ReplyError:
        question, answer = str(pair[self.fields["question"]]).strip(), str(pair[self.fields["answer"]]).strip()
        if copies_example(question, self.examples):
            return ReplyError("the question copies an example", completion.text)
        named = pair.get(self.fields["evidence"])
        try:
            evidence = None if named is None else choice.sentence(named, passage.text)
        except InferenceError as error:
            return as_reply_error(error)
        return Record.create(
            passage,
            question,
            answer,
            generator=self.name,
            kind=self.template.kind,
            evidence=evidence,
            provenance=came_from(self.template.sha256, completion),
        )

    def _values(self, passage: Passage, choice: Choice) -> dict[str, object]:
        return {
            "passage": passage.text,
            "headings": passage.headings,
            "title": passage.headings[0] if passage.headings else passage.document_id,
            "document_id": passage.document_id,
            "sentences": choice.offered,
            "mode": choice.mode,
            "examples": shown_examples(self.examples, passage.id),
        }

    def _check(self, path: Path) -> None:
        """Find what would fail at the first passage: fields that the reply will not have, values nobody gives."""
        schema: Mapping[str, Any] = self.schema
        for name in self.items:
            schema = _property(schema, name, path)
        if self.items and schema.get("type") == "array":
            schema = schema.get("items", {})
        for part in ("question", "answer", *(["evidence"] if "evidence" in self.template.record else [])):
            _property(schema, self.fields[part], path)
            if part != "evidence" and self.fields[part] not in schema.get("required", ()):
                raise ConfigError(f"the schema does not require {self.fields[part]!r}", where=str(path))
        text = "A passage of one sentence."
        sample = Passage("document.md", text, 0, len(text), ("Heading",))
        self.template.messages(**self._values(sample, Choice.of(sentences_of(sample), self.evidence)))


def _property(schema: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    properties: Mapping[str, Any] = schema.get("properties", {})
    if name not in properties:
        raise ConfigError(
            f"the schema has no field {name!r} there",
            where=str(path),
            fix=f"{did_you_mean(name, properties)} `items` and `record` of the front matter say where the pairs are",
        )
    found: Mapping[str, Any] = properties[name]
    return found


def _schema_of(template: PromptTemplate, path: Path) -> Mapping[str, Any]:
    """Return the schema that the front matter holds or names: a file beside the template, or a name in schemas/."""
    named = template.schema
    if named is None:
        raise ConfigError("the front matter has no 'schema'", where=str(path), fix="name one, or write it there")
    if isinstance(named, str):
        beside = path.parent / named
        if beside.suffix == ".json" and beside.is_file():
            try:
                named = orjson.loads(beside.read_bytes())
            except orjson.JSONDecodeError as error:
                raise ConfigError(f"not JSON ({error})", where=str(beside)) from error
        elif named.endswith(".json"):
            raise ConfigError(f"there is no file {named!r} beside the template", where=str(path))
        else:
            named = load_schema(named)
    try:
        Draft202012Validator.check_schema(named)
    except SchemaError as error:
        raise ConfigError(f"not a valid JSON Schema ({error.message})", where=str(path)) from error
    assert isinstance(named, Mapping)
    return named
