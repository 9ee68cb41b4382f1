"""What a generator is, and what most of them do: ask for JSON, check it, and say which calls a record came from."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from synth.core.calls import Completion, Sampling, Teacher
from synth.core.errors import InferenceError
from synth.core.records import Message, Passage, Provenance, Record, content_id
from synth.core.schemas import fault_of


@runtime_checkable
class Generator(Protocol):
    """Writes records about a passage. Control flow is plain Python; the runtime owns the rest.

    The runtime calls `generate` once a passage and round, many at a time, and journals every
    `teacher.chat`, so a generator must ask the same things in the same order for the same passage.
    A generator that needs to know all passages first (to find related ones) has a method
    `prepare(self, passages: Sequence[Passage]) -> None` as well; it is called once, before the first passage.
    """

    name: str

    async def generate(self, passage: Passage, teacher: Teacher) -> Sequence["Record | ReplyError"]:
        """Return the records about `passage`; an empty list is fine.

        A generator that makes several calls may return a `ReplyError` in the place of each that came to
        nothing, and keep the records of the others. The runtime writes it to quarantine.jsonl.

        Raises:
            ReplyError: nothing came of the passage; written to quarantine.jsonl as well.
        """
        ...


@runtime_checkable
class Preparing(Protocol):
    """A generator that looks at all passages of a run before the first call."""

    def prepare(self, passages: Sequence[Passage]) -> None:
        """Take note of the passages; they may be read from disk at each access."""
        ...


class ReplyError(InferenceError):
    """A reply came and is of no use. `raw` is its text, kept in quarantine.jsonl; `call_keys` name the calls."""

    def __init__(self, what: str, raw: str, *, fix: str | None = None, call_keys: Sequence[str] = ()) -> None:
        super().__init__(what, fix=fix)
        self.raw = raw
        self.call_keys = tuple(call_keys)


def prepare(generator: Generator, passages: Sequence[Passage]) -> None:
    """Let a generator see all passages of the run, where it wants to; others are left alone."""
    if isinstance(generator, Preparing):
        generator.prepare(passages)


def pick(passage: Passage, salt: str = "") -> int:
    """Return a large number that depends on the passage alone: what a generator varies, it varies by this."""
    return int(content_id(salt, passage.id) if salt else passage.id, 16)


def came_from(prompt_sha256: str, *completions: Completion) -> Provenance:
    """Return the provenance of a record that came of these completions."""
    return Provenance(
        teacher="",
        prompt_sha256=prompt_sha256,
        call_keys=tuple(completion.key for completion in completions),
        prompt_tokens=sum(completion.usage.prompt_tokens for completion in completions),
        completion_tokens=sum(completion.usage.completion_tokens for completion in completions),
    )


def renamed(record: Record, name: str, *more_prompts: str) -> Record:
    """Return the record as one of the generator `name`, with an id of its own.

    Args:
        record: what the inner generator made.
        name: the name of the whole chain, such as "qa+persona".
        more_prompts: the hashes of templates that had a part in it beside the inner generator's.
    """
    source = record.provenance
    if more_prompts and source.prompt_sha256:
        digest = hashlib.sha256(" ".join([source.prompt_sha256, *more_prompts]).encode()).hexdigest()
        source = replace(source, prompt_sha256=digest)
    return replace(record, id=content_id(name, record.id), generator=name, provenance=source)


async def ask_json(
    teacher: Teacher,
    messages: Sequence[Message],
    schema: Mapping[str, Any],
    *,
    sampling: Sampling | None = None,
) -> tuple[Any, Completion]:
    """Ask for a reply that follows `schema` and return it parsed, with the completion that held it.

    The endpoint constrains decoding to the schema where it can; the reply is checked all the same, and
    one that fails is asked for once more with the fault named. A reply cut off at `max_tokens` is not:
    it would be cut off again.

    Raises:
        ReplyError: the reply was cut off, or neither reply follows the schema.
    """
    completion = await teacher.chat(messages, schema=schema, sampling=sampling)
    fault = _fault(completion, schema)
    if fault is None:
        return completion.json(), completion
    if completion.finish_reason != "length":
        repair = Message(
            "user",
            f"{messages[-1].content}\n\nYour last reply was of no use: {fault}. Reply with the JSON alone.",
        )
        completion = await teacher.chat([*messages[:-1], repair], schema=schema, sampling=sampling)
        fault = _fault(completion, schema)
        if fault is None:
            return completion.json(), completion
    raise ReplyError(fault, completion.text, call_keys=(completion.key,))


def _fault(completion: Completion, schema: Mapping[str, Any]) -> str | None:
    try:
        value = completion.json()
    except InferenceError as error:
        return error.what
    return fault_of(value, schema)


def as_reply_error(error: InferenceError) -> ReplyError:
    """Return an error as the line of quarantine.jsonl that stands in the place of a record."""
    return error if isinstance(error, ReplyError) else ReplyError(str(error), "")
