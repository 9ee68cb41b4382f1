"""What a generator is, and the one thing most of them do: ask for JSON and check it."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from jsonschema import Draft202012Validator

from synth.core.calls import Completion, Sampling, Teacher
from synth.core.errors import ConfigError, InferenceError
from synth.core.records import Message, Passage, Record
from synth.core.schemas import first_fault


@runtime_checkable
class Generator(Protocol):
    """Writes records about a passage. Control flow is plain Python; the runtime owns the rest.

    The runtime calls `generate` once a passage and round, many at a time, and journals every
    `teacher.chat`, so a generator must ask the same things in the same order for the same passage.
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


class ReplyError(InferenceError):
    """A reply came and is of no use. `raw` is its text, kept in quarantine.jsonl; `call_keys` name the calls."""

    def __init__(self, what: str, raw: str, *, fix: str | None = None, call_keys: Sequence[str] = ()) -> None:
        super().__init__(what, fix=fix)
        self.raw = raw
        self.call_keys = tuple(call_keys)


def check_generator(candidate: object, spec: str) -> Generator:
    """Return `candidate` as a generator, or say what it lacks before any call is made.

    Raises:
        ConfigError: no name, no async `generate`, or other parameters than (passage, teacher).
    """
    if inspect.isclass(candidate):
        try:
            candidate = candidate()
        except TypeError as error:
            raise ConfigError(f"cannot be made without arguments ({error})", where=f"generator {spec}") from error
    method = getattr(candidate, "generate", None)
    if method is None or not inspect.iscoroutinefunction(method):
        raise ConfigError(
            "has no `async def generate(self, passage, teacher)`",
            where=f"generator {spec}",
            fix="see docs/generators.md",
        )
    if not isinstance(getattr(candidate, "name", None), str):
        raise ConfigError("has no `name`", where=f"generator {spec}", fix='add `name = "…"` to the class')
    try:
        inspect.signature(method).bind(None, None)
    except TypeError as error:
        raise ConfigError(
            f"`generate` takes other arguments than (passage, teacher): {error}", where=f"generator {spec}"
        ) from error
    assert isinstance(candidate, Generator)
    return candidate


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
    checker = Draft202012Validator(dict(schema))
    completion = await teacher.chat(messages, schema=schema, sampling=sampling)
    fault = _fault(completion, checker)
    if fault is None:
        return completion.json(), completion
    if completion.finish_reason != "length":
        repair = Message(
            "user",
            f"{messages[-1].content}\n\nYour last reply was of no use: {fault}. Reply with the JSON alone.",
        )
        completion = await teacher.chat([*messages[:-1], repair], schema=schema, sampling=sampling)
        fault = _fault(completion, checker)
        if fault is None:
            return completion.json(), completion
    raise ReplyError(fault, completion.text, call_keys=(completion.key,))


def _fault(completion: Completion, checker: Draft202012Validator) -> str | None:
    try:
        value = completion.json()
    except InferenceError as error:
        return error.what
    return first_fault(value, checker)


def prepare(generator: Generator, passages: Sequence[Passage]) -> None:
    """Show a generator all passages of the run before it is asked for the first, where it wants that.

    A generator that has `def prepare(self, passages)` gets a sequence that is read from disk as asked for.
    """
    own = getattr(generator, "prepare", None)
    if own is not None:
        own(passages)
