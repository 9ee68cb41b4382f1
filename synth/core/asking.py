"""Asking a model for JSON: the reply checked against its schema, and asked for once more where it fails."""

from collections.abc import Mapping, Sequence
from typing import Any

from synth.core.calls import Completion, Sampling, Teacher
from synth.core.errors import InferenceError
from synth.core.records import Message
from synth.core.schemas import fault_of


class ReplyError(InferenceError):
    """A reply came and is of no use. `raw` is its text, kept beside the reason; `call_keys` name the calls."""

    def __init__(self, what: str, raw: str, *, fix: str | None = None, call_keys: Sequence[str] = ()) -> None:
        super().__init__(what, fix=fix)
        self.raw = raw
        self.call_keys = tuple(call_keys)


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
