"""`evolve`: questions made harder, step by step, and still answered by the passage.

After Evol-Instruct (Xu et al. 2023, "WizardLM", section 3.2): an operation of in-depth evolving rewrites a
question, and what fails the elimination step falls back to what it was made from. A modifier: it takes the
records of another generator.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from synth.core.calls import Completion, Sampling, Teacher
from synth.core.errors import InferenceError
from synth.core.prompts import load_template
from synth.core.records import Message, Passage, Record
from synth.core.schemas import load_schema
from synth.core.sentences import split_sentences
from synth.generators.base import Generator, ReplyError, ask_json, came_from, pick, prepare, renamed
from synth.generators.evidence import MIN_WORDS, Choice, EvidenceMode, with_choice
from synth.generators.lexical import content_words, numbers, same_words

WAYS = ("constrain", "deepen", "concretize", "reason")
# Their answers are no plain statement of a sentence, so a harder question does not simply take its place.
_LEFT_ALONE = frozenset({"grading", "instruction", "reasoning", "unanswerable"})
_TALK = ("given question", "old question", "new question", "harder question", "rewritten", "the passage", "evolve")
_SORRY = ("sorry", "cannot answer", "can't answer", "unable to", "does not say", "not mentioned", "no information")


class Evolve:
    """Asks for a harder question in the place of each record's, checks it, and else keeps the record as it was.

    Records whose answer is no statement of the passage (marks, rewrites, traces, refusals) and records without
    evidence are handed on as they are.

    Args:
        inner: the generator whose records evolve.
        rounds: how many times each is made harder.
        ways: the operations, in turn; a word of prompts/evolve.md or words of your own.
        evidence: how the reply names its sentence.
    """

    name = "evolve"

    def __init__(
        self, inner: Generator, *, rounds: int = 1, ways: Sequence[str] = WAYS, evidence: EvidenceMode = "enum"
    ) -> None:
        if rounds < 1 or not ways:
            raise ValueError("it takes a round and a way at least")
        self.inner, self.rounds, self.ways, self.evidence = inner, rounds, tuple(ways), evidence
        self.name = f"{inner.name}+evolve"

    def prepare(self, passages: Sequence[Passage]) -> None:
        """Let the inner generator see the passages."""
        prepare(self.inner, passages)

    async def generate(self, passage: Passage, teacher: Teacher) -> list[Record | ReplyError]:
        """Return the inner generator's records, harder where that worked.

        Raises:
            ReplyError: as the inner generator does.
        """
        made = list(await self.inner.generate(passage, teacher))
        return list(await asyncio.gather(*(self._item(passage, i, item, teacher) for i, item in enumerate(made))))

    async def _item(
        self, passage: Passage, place: int, item: Record | ReplyError, teacher: Teacher
    ) -> Record | ReplyError:
        if not isinstance(item, Record):
            return item
        record = renamed(item, self.name)
        if record.evidence is None or record.kind in _LEFT_ALONE or record.shows_context:
            return record
        for number in range(self.rounds):
            way = self.ways[(pick(passage, "evolve") + place + number) % len(self.ways)]
            record = await self._harder(passage, record, way, teacher)
        return record

    async def _harder(self, passage: Passage, record: Record, way: str, teacher: Teacher) -> Record:
        """Return the record with a harder question and its answer, or the record itself where that came to nothing."""
        template = load_template("evolve")
        sentences = [s for s in split_sentences(record.context) if len(s.text.split()) >= MIN_WORDS]
        choice = Choice.of(sentences, self.evidence)
        asked = "\n".join(f"{m.role}: {m.content}" for m in (*record.prompt, *record.completion) if m.role != "system")
        messages = template.messages(
            context=record.context,
            headings=passage.headings,
            asked=asked,
            sentences=choice.offered,
            mode=choice.mode,
            way=way,
        )
        schema = with_choice(load_schema("evolve"), ["evidence"], choice)
        listener = _Listener(teacher)
        try:
            reply, completion = await ask_json(listener, messages, schema)
            quoted = choice.sentence(reply["evidence"], record.context)
            if eliminated(record, reply, quoted):
                return _with_calls(record, listener.heard, template.sha256)
        except InferenceError:
            # What it was made from is good; that this failed costs the call and no more.
            return _with_calls(record, listener.heard, template.sha256)
        question, answer = reply["question"].strip(), reply["answer"].strip()
        kept = [e.text for e in (*([record.evidence] if record.evidence else []), *record.more_evidence)]
        fresh = Record.create(
            passage,
            question,
            answer,
            generator=self.name,
            kind=record.kind,
            context=record.context,
            evidence=quoted,
            # A question that needed two places still does.
            more_evidence=[text for text in kept if text != quoted] if record.more_evidence else (),
            prompt=[*record.prompt[:-1], Message("user", question)],
            # The inner record's scores, the teacher's confidence among them, are about other words.
            scores={"confidence": completion.confidence(after='"question"')} if record.scores else None,
            provenance=record.provenance,
        )
        return _with_calls(fresh, listener.heard, template.sha256)


class _Listener:
    """A teacher that remembers what it answered, so that no call is missing in the provenance."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self.heard: list[Completion] = []

    async def chat(
        self,
        messages: Sequence[Message],
        *,
        schema: Mapping[str, Any] | None = None,
        sampling: Sampling | None = None,
    ) -> Completion:
        """Ask the teacher and remember the completion."""
        self.heard.append(await self._teacher.chat(messages, schema=schema, sampling=sampling))
        return self.heard[-1]


def _with_calls(record: Record, calls: Sequence[Completion], prompt_sha256: str) -> Record:
    """Return the record with more calls in its provenance.

    One whose generator left the provenance to the runtime gets all calls from there.
    """
    own = record.provenance
    if not own.call_keys or not calls:
        return record
    more = came_from(prompt_sha256, *calls)
    named = renamed(record, record.generator, prompt_sha256)
    return replace(
        named,
        provenance=replace(
            named.provenance,
            call_keys=(*own.call_keys, *more.call_keys),
            prompt_tokens=own.prompt_tokens + more.prompt_tokens,
            completion_tokens=own.completion_tokens + more.completion_tokens,
        ),
    )


def eliminated(record: Record, reply: dict[str, Any], quoted: str) -> str | None:
    """Return why an evolved pair does not take the place of its record, or None.

    The elimination step of the paper (no gain, a refusal, nothing said, words of the prompt copied), and two
    of ours: numbers that the context does not have, and an answer with no word of its evidence.
    """
    question, answer = reply["question"].strip(), reply["answer"].strip()
    if not content_words(question) or not any(c.isalnum() for c in answer):
        return "nothing is said"
    if same_words(question) == same_words(record.question):
        return "the question is the same"
    if content_words(question) <= content_words(record.question) and same_words(answer) == same_words(record.answer):
        return "nothing is gained"
    talk, own = f"{question} {answer}".lower(), record.context.lower()
    if any(phrase in talk and phrase not in own for phrase in _TALK):
        return "it talks about the task"
    if any(phrase in answer.lower() and phrase not in own for phrase in _SORRY):
        return "it refuses"
    if numbers(answer) - numbers(record.context) - numbers(question):
        return "the answer has a number from nowhere"
    if not (content_words(answer) & content_words(quoted)) and content_words(answer):
        return "the answer has no word of its evidence"
    return None
