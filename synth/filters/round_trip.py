"""`round_trip`: another reader answers the question from the passage; does it say what the record says?

Roundtrip consistency: Alberti, Andor, Pitler, Devlin and Collins, "Synthetic QA Corpora Generation with
Roundtrip Consistency" (ACL 2019), there with exact match; F1 is kept beside it.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from synth.core.asking import ask_json
from synth.core.calls import Completion, Teacher
from synth.core.errors import ConfigError
from synth.core.prompts import PromptTemplate, load_template, read_template
from synth.core.records import Message, Record
from synth.core.schemas import load_schema, without_notes
from synth.core.squad import exact_match, f1, normalize
from synth.filters.model_base import ModelScores, in_short, not_applicable

# Kinds whose answer is short enough for two readers to say it in the same words.
KINDS = frozenset({"qa", "multi-hop", "unanswerable"})
NO_ANSWER = "no answer"


class RoundTrip:
    """Asks a model the record's question, with the passage, and compares its answer with the record's.

    Gives `round_trip`, the F1 of the two answers (0 to 1, SQuAD's), and `round_trip_em`, 1 where they are equal
    after normalization. A model that finds no answer gives 0; for a record of the kind "unanswerable" that is
    what is right, and gives 1. None for other kinds, later turns of a conversation and records without a passage.

    Args:
        template: a name in prompts/, or a file. It is given `passage`, `passages` (a list of it), `question` and
            `kind`. Without a `schema` in its front matter the reply is the answer as it stands, and "no answer"
            or nothing says that there is none.
        kinds: the kinds of record to score.

    Raises:
        ConfigError: the template cannot be read, or its schema asks for no `answer`.
    """

    name = "round_trip"
    scores: tuple[str, ...] = ("round_trip", "round_trip_em")

    def __init__(self, template: str | Path = "round-trip", *, kinds: Collection[str] = KINDS) -> None:
        self.template = load_template(template) if isinstance(template, str) else read_template(template)
        self.kinds = frozenset(kinds)
        self._schema = _schema_of(self.template)

    @property
    def settings(self) -> dict[str, Any]:
        """What the scores depend on beside the model."""
        return {"template": self.template.sha256, "schema": self._schema, "kinds": sorted(self.kinds)}

    async def score(self, record: Record, model: Teacher) -> ModelScores:
        """Ask, and compare.

        Raises:
            InferenceError: no reply came, or none that can be read.
        """
        if record.kind not in self.kinds or not stands_alone(record) or not record.context or record.shows_context:
            return not_applicable(self)
        messages = self.template.messages(
            passage=record.context, passages=[record.context], question=record.question, kind=record.kind
        )
        answer, completion = await _answer(messages, self._schema, model)
        if record.kind == "unanswerable":
            overlap = equal = float(answer is None)
        else:
            overlap, equal = agreement(answer, record.answer)
        said = "no answer in the passage" if answer is None else f"the reader answers {in_short(answer)!r}"
        return ModelScores({"round_trip": overlap, "round_trip_em": equal}, said, (completion.key,))


def stands_alone(record: Record) -> bool:
    """Whether the question is the only one of its conversation."""
    return sum(message.role == "user" for message in record.prompt) == 1


def agreement(answer: str | None, wanted: str) -> tuple[float, float]:
    """Return F1 and exact match of two answers; both are 0 where there is no answer."""
    return (0.0, 0.0) if answer is None else (f1(answer, [wanted]), exact_match(answer, [wanted]))


def spoken(text: str) -> str | None:
    """Return a reply in plain words, or None where it says that there is no answer."""
    said = text.strip()
    return None if not said or normalize(said) == NO_ANSWER else said


async def _answer(
    messages: Sequence[Message], schema: Mapping[str, Any] | None, model: Teacher
) -> tuple[str | None, Completion]:
    if schema is None:
        completion = await model.chat(messages)
        return spoken(completion.text), completion
    reply, completion = await ask_json(model, messages, schema)
    return (spoken(str(reply["answer"])) if reply.get("found", True) else None), completion


def _schema_of(template: PromptTemplate) -> dict[str, Any] | None:
    if template.schema is None:
        return None
    schema = without_notes(load_schema(template.schema) if isinstance(template.schema, str) else template.schema)
    if "answer" not in schema.get("required", ()):
        raise ConfigError("the schema does not require an 'answer'", where=f"prompts/{template.name}", fix="add it")
    return schema
