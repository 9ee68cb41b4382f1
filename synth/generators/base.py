"""What a generator is, and what most of them do: ask for JSON, and say which calls a record came from."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from synth.core.asking import ReplyError, ask_json
from synth.core.calls import Completion, Teacher
from synth.core.errors import InferenceError
from synth.core.records import Passage, Provenance, Record, content_id

__all__ = [
    "Generator",
    "Preparing",
    "ReplyError",
    "as_reply_error",
    "ask_json",
    "came_from",
    "pick",
    "prepare",
    "renamed",
]


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


def as_reply_error(error: InferenceError) -> ReplyError:
    """Return an error as the line of quarantine.jsonl that stands in the place of a record."""
    return error if isinstance(error, ReplyError) else ReplyError(str(error), "")
