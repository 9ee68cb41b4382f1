"""Evidence by construction: the sentences that a reply may rest on, in the schema of the call itself.

Three modes. `enum` lists the sentences in the schema, so that the decoder cannot invent one. `index` numbers
them and asks for the number: as safe, and shorter to write. `free` asks for a quotation and looks it up.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from synth.core.prompts import harmless
from synth.core.records import Passage
from synth.core.schemas import without_notes
from synth.core.sentences import Sentence, split_sentences
from synth.generators.base import ReplyError
from synth.generators.examples import Example, shown_examples

EvidenceMode = Literal["enum", "index", "free"]

# A shorter run of words is a heading or a label rather than a sentence that could back an answer.
MIN_WORDS = 3
# A server compiles the schema of every call. At these bounds an enumeration costs it 0.17 s of one core, measured with
# bench/schema_compile.py, and twice that at twice the size; beyond them sentences are numbered (0.05 s at any size).
MAX_ENUM_SENTENCES = 64
MAX_ENUM_CHARS = 8_000


@dataclass(frozen=True, slots=True)
class Choice:
    """The sentences that one call may rest on, and how the reply names one.

    `offered` are the sentences as a prompt shows them, `found` as the passage has them, in step.
    """

    offered: tuple[str, ...]
    found: tuple[str, ...]
    mode: EvidenceMode

    @classmethod
    def of(cls, sentences: Iterable[Sentence], mode: EvidenceMode) -> Self:
        """Offer `sentences`, each once; an enumeration that would be too large becomes an index."""
        # Line ends inside a sentence are only space: a model should not have to copy them.
        shown: dict[str, str] = {}
        for sentence in sentences:
            shown.setdefault(" ".join(harmless(sentence.text).split()), sentence.text)
        if mode == "enum" and (len(shown) > MAX_ENUM_SENTENCES or sum(map(len, shown)) > MAX_ENUM_CHARS):
            mode = "index"
        return cls(tuple(shown), tuple(shown.values()), mode)

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the field that names a sentence."""
        if self.mode == "enum":
            return {"type": "string", "enum": list(self.offered)}
        if self.mode == "index":
            return {"type": "integer", "minimum": 1, "maximum": len(self.offered)}
        # No maxLength: compiling it costs seconds with a large vocabulary, and what is too long is found nowhere.
        return {"type": "string", "minLength": 1}

    def sentence(self, named: Any, text: str) -> str:  # noqa: ANN401  (what the schema allows)
        """Return the quotation that a reply names, as `text` (the passage) has it, character for character.

        Raises:
            ReplyError: a free quotation is not in the passage, white space and the case of its words apart.
        """
        if self.mode == "index":
            return self.found[int(named) - 1]
        if self.mode == "enum":
            return self.found[self.offered.index(named)]
        if named in self.offered:
            return self.found[self.offered.index(named)]
        words = [re.escape(word) for word in named.strip().strip("\"'“”").split()]
        match = re.search(r"\s+".join(words), text, re.IGNORECASE) if words else None
        if match is None:
            raise ReplyError("the evidence is not in the passage", str(named))
        return match.group()


def about(passage: Passage, choice: Choice | None = None, examples: Sequence[Example] = ()) -> dict[str, object]:
    """Return the values that the templates of the built-in generators share."""
    sentences = {} if choice is None else {"sentences": choice.offered, "mode": choice.mode}
    return {
        "passage": passage.text,
        "headings": passage.headings,
        "examples": shown_examples(examples, passage.id),
        **sentences,
    }


def sentences_of(passage: Passage) -> list[Sentence]:
    """Return the sentences of a passage that can back an answer."""
    return [s for s in split_sentences(passage.text) if len(s.text.split()) >= MIN_WORDS]


def with_choice(schema: Mapping[str, Any], path: Sequence[str], choice: Choice) -> dict[str, Any]:
    """Return `schema` with the field at `path` (names of properties, arrays walked through) as the choice's schema.

    A schema without that field comes back as it is, without the notes for people.
    """
    return without_notes(_replaced(schema, path, choice.schema()))


def _replaced(schema: Mapping[str, Any], path: Sequence[str], field: dict[str, Any]) -> dict[str, Any]:
    if schema.get("type") == "array" and isinstance(schema.get("items"), Mapping):
        return {**schema, "items": _replaced(schema["items"], path, field)}
    properties = schema.get("properties", {})
    if not path or path[0] not in properties:
        return dict(schema)
    inner = field if len(path) == 1 else _replaced(properties[path[0]], path[1:], field)
    return {**schema, "properties": {**properties, path[0]: inner}}
