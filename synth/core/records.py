"""The values that flow through a run: document, passage, record.

All are frozen; a stage that changes one makes a new one. `to_json` and `from_json` are the file
format (schemas/record.schema.json), and reading what was written gives the same value back.
"""

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

from synth.core.fingerprint import canonical_json


def content_id(*parts: object) -> str:
    """Return a 16-digit hexadecimal id that depends on the content alone."""
    return hashlib.sha256(canonical_json(list(parts))).hexdigest()[:16]


def folded(text: str) -> str:
    """Return a text in one Unicode form (NFC), without its case and with single spaces.

    Two texts of which this is equal say the same.
    """
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation, as chat endpoints and TRL have it."""

    role: str
    content: str

    def to_json(self) -> dict[str, str]:
        """Return the turn as `{"role", "content"}`."""
        return {"role": self.role, "content": self.content}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build the turn from `{"role", "content"}`."""
        return cls(data["role"], data["content"])


@dataclass(frozen=True, slots=True)
class Document:
    """A user's document as text (Markdown where the source had structure).

    `id` is the path below the folder that the user named, with `/` between parts.
    """

    id: str
    text: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk of a document: `document.text[start:end] == text` (offsets in characters)."""

    document_id: str
    text: str
    start: int
    end: int
    headings: tuple[str, ...] = ()
    id: str = field(init=False, repr=False, compare=False)
    """An id from the content: the same text at the same place has the same id."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", content_id(self.document_id, self.start, self.end, self.text))

    @property
    def shown_id(self) -> str:
        """An id of what a teacher is shown: equal for equal text under equal headings, wherever it stands."""
        return content_id(self.text, list(self.headings))

    def to_json(self) -> dict[str, Any]:
        """Return the line of passages.jsonl."""
        return {
            "id": self.id,
            "document_id": self.document_id,
            "text": self.text,
            "start": self.start,
            "end": self.end,
            "headings": list(self.headings),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build a passage from a line of passages.jsonl."""
        return cls(data["document_id"], data["text"], data["start"], data["end"], tuple(data.get("headings", ())))


@dataclass(frozen=True, slots=True)
class Evidence:
    """A quotation from the context: `context[start:end] == text` when it was found there.

    A quotation that is not in the context has `start == end == -1`.
    """

    text: str
    start: int = -1
    end: int = -1

    @classmethod
    def locate(cls, text: str, context: str) -> Self:
        """Find `text` in `context`; offsets stay -1 where it is not there verbatim."""
        start = context.find(text) if text else -1
        return cls(text, start, start + len(text)) if start >= 0 else cls(text)

    def to_json(self) -> dict[str, Any]:
        """Return the quotation as `{"text", "start", "end"}`."""
        return {"text": self.text, "start": self.start, "end": self.end}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build the quotation from `{"text", "start", "end"}`."""
        return cls(data["text"], data["start"], data["end"])

    @property
    def found(self) -> bool:
        """Whether the quotation stands in the context, character for character."""
        return self.start >= 0


@dataclass(frozen=True, slots=True)
class Decision:
    """Keep, or reject with every reason (not only the first)."""

    keep: bool
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a record came from: enough to find the call that wrote it and what that cost (in tokens)."""

    teacher: str
    prompt_sha256: str
    call_keys: tuple[str, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a model said when it was asked to score a record: who asked, which model, its calls and its words."""

    scorer: str
    model: str
    call_keys: tuple[str, ...] = ()
    remark: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the judgement as `{"scorer", "model", "call_keys", "remark"}`."""
        keys = list(self.call_keys)
        return {"scorer": self.scorer, "model": self.model, "call_keys": keys, "remark": self.remark}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build the judgement from `{"scorer", "model", "call_keys", "remark"}`."""
        return cls(data["scorer"], data["model"], tuple(data["call_keys"]), data["remark"])


@dataclass(frozen=True, slots=True)
class Record:
    """A generated pair with its scores and its decision.

    `prompt` ends with a user turn, `completion` holds the assistant's; `context` is the text that the
    teacher saw. `more_evidence` are further quotations that the answer needs beside `evidence`. A score is
    None where its scorer does not apply; `judgements` say where the scores that a model gave come from;
    `decision` is None before the filter ran.
    """

    id: str
    prompt: tuple[Message, ...]
    completion: tuple[Message, ...]
    context: str
    document_id: str
    passage_id: str
    generator: str
    kind: str = "qa"
    evidence: Evidence | None = None
    scores: Mapping[str, float | None] = field(default_factory=dict)
    decision: Decision | None = None
    provenance: Provenance = Provenance("", "")
    more_evidence: tuple[Evidence, ...] = ()
    judgements: tuple[Judgement, ...] = ()

    @property
    def question(self) -> str:
        """The last user turn."""
        for turn in reversed(self.prompt):
            if turn.role == "user":
                return turn.content
        return ""

    @property
    def answer(self) -> str:
        """The last assistant turn."""
        return self.completion[-1].content if self.completion else ""

    @property
    def source(self) -> str:
        """What the answer has to rest on: all its evidence or, where it names none, the whole context."""
        if self.evidence is None:
            return self.context
        return "\n".join(quoted.text for quoted in (self.evidence, *self.more_evidence))

    @property
    def shows_context(self) -> bool:
        """Whether the user's turn holds the context itself, as in "Summarise this: …"."""
        # Nearly every question is shorter than its context, and need not be searched.
        asked = self.question
        return 0 < len(self.context) <= len(asked) and self.context in asked

    @classmethod
    def create(
        cls,
        passage: Passage,
        question: str,
        answer: str,
        *,
        generator: str,
        kind: str = "qa",
        evidence: str | None = None,
        more_evidence: Sequence[str] = (),
        context: str | None = None,
        prompt: Sequence[Message] | None = None,
        scores: Mapping[str, float | None] | None = None,
        provenance: Provenance | None = None,
    ) -> Self:
        """Make a record about `passage`, undecided, with an id from its content.

        Args:
            passage: what the teacher read.
            question: the user's turn. A longer `prompt` replaces it.
            answer: the assistant's turn.
            generator: the name of the generator.
            kind: a word for the kind of record, such as "qa".
            evidence: a quotation from the passage that supports the answer.
            more_evidence: further quotations that it needs.
            context: what the teacher read, where that was more than the passage.
            prompt: earlier turns and the last user turn, for conversations.
            scores: what the generator itself knows of the record's worth, for rules to use.
            provenance: the teacher's calls; the runtime fills it in where a generator leaves it out.
        """
        source = provenance or Provenance("", "")
        turns = tuple(prompt) if prompt is not None else (Message("user", question),)
        completion = (Message("assistant", answer),)
        text = passage.text if context is None else context
        return cls(
            id=content_id(
                generator,
                passage.id,
                [m.to_json() for m in turns],
                [m.to_json() for m in completion],
                list(source.call_keys),
            ),
            prompt=turns,
            completion=completion,
            context=text,
            document_id=passage.document_id,
            passage_id=passage.id,
            generator=generator,
            kind=kind,
            evidence=None if evidence is None else Evidence.locate(evidence, text),
            scores={} if scores is None else {k: None if v is None else round(v, 4) for k, v in scores.items()},
            provenance=source,
            more_evidence=tuple(Evidence.locate(quoted, text) for quoted in more_evidence),
        )

    def with_scores(self, scores: Mapping[str, float | None]) -> "Record":
        """Return the record with these scores beside those it has."""
        return self._with("scores", {**self.scores, **scores})

    def decided(self, decision: Decision) -> "Record":
        """Return the record with this decision."""
        return self._with("decision", decision)

    def _with(self, name: str, value: object) -> "Record":
        """Return a copy with another value of one field; half the time of `dataclasses.replace`."""
        copied = object.__new__(Record)
        for other, slot in _SLOTS.items():
            slot.__set__(copied, value if other == name else slot.__get__(self))
        return copied

    def to_json(self) -> dict[str, Any]:
        """Return the line of records.jsonl (schemas/record.schema.json)."""
        return {
            "id": self.id,
            "prompt": [{"role": m.role, "content": m.content} for m in self.prompt],
            "completion": [{"role": m.role, "content": m.content} for m in self.completion],
            "context": self.context,
            "kind": self.kind,
            "document_id": self.document_id,
            "passage_id": self.passage_id,
            "generator": self.generator,
            "evidence": None if self.evidence is None else self.evidence.to_json(),
            # Left out where there is none, as it mostly is: older readers know no such key.
            **({"more_evidence": [e.to_json() for e in self.more_evidence]} if self.more_evidence else {}),
            "scores": dict(self.scores),
            **({"judgements": [j.to_json() for j in self.judgements]} if self.judgements else {}),
            "decision": None
            if self.decision is None
            else {"keep": self.decision.keep, "reasons": list(self.decision.reasons)},
            "provenance": {
                "teacher": self.provenance.teacher,
                "prompt_sha256": self.provenance.prompt_sha256,
                "call_keys": list(self.provenance.call_keys),
                "usage": {
                    "prompt_tokens": self.provenance.prompt_tokens,
                    "completion_tokens": self.provenance.completion_tokens,
                },
            },
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build a record from a line of records.jsonl that its schema accepts."""
        evidence, decision, source = data.get("evidence"), data.get("decision"), data["provenance"]
        usage, more, judgements = source["usage"], data.get("more_evidence"), data.get("judgements")
        # Slot by slot, as `__init__` of a frozen class does in nearly twice the time: this runs for every line.
        record = object.__new__(cls)
        _set_id(record, data["id"])
        _set_prompt(record, tuple([Message(m["role"], m["content"]) for m in data["prompt"]]))
        _set_completion(record, tuple([Message(m["role"], m["content"]) for m in data["completion"]]))
        _set_context(record, data["context"])
        _set_document_id(record, data["document_id"])
        _set_passage_id(record, data["passage_id"])
        _set_generator(record, data["generator"])
        _set_kind(record, data["kind"])
        _set_evidence(record, None if evidence is None else Evidence.from_json(evidence))
        _set_scores(record, dict(data["scores"]))
        _set_decision(record, None if decision is None else Decision(decision["keep"], tuple(decision["reasons"])))
        keys, tokens = tuple(source["call_keys"]), (usage["prompt_tokens"], usage["completion_tokens"])
        _set_provenance(record, Provenance(source["teacher"], source["prompt_sha256"], keys, *tokens))
        _set_more_evidence(record, tuple(map(Evidence.from_json, more)) if more else ())
        _set_judgements(record, tuple(map(Judgement.from_json, judgements)) if judgements else ())
        return record


_SLOTS: Mapping[str, Any] = {one.name: getattr(Record, one.name) for one in fields(Record)}
(
    _set_id,
    _set_prompt,
    _set_completion,
    _set_context,
    _set_document_id,
    _set_passage_id,
    _set_generator,
    _set_kind,
    _set_evidence,
    _set_scores,
    _set_decision,
    _set_provenance,
    _set_more_evidence,
    _set_judgements,
) = (slot.__set__ for slot in _SLOTS.values())
