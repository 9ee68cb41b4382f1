"""The `prompt`/`parse` pair: a generator for one call a passage, with nothing of the call in it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from synth.core.calls import Sampling, Teacher
from synth.core.errors import ConfigError
from synth.core.records import Message, Passage, Record
from synth.generators.base import ReplyError, ask_json


@runtime_checkable
class Pair(Protocol):
    """What to ask about a passage, and what to make of the reply.

    Optional attributes: `schema` (a JSON Schema; then `reply` is the parsed JSON, else the text) and `sampling`
    (a `Sampling`), or `max_tokens` alone.
    """

    name: str

    def prompt(self, passage: Passage) -> str | Sequence[Message]:
        """Return the user message, or all messages."""
        ...

    def parse(self, passage: Passage, reply: Any) -> Iterable[Record]:  # noqa: ANN401  (JSON or text)
        """Return the records that a reply holds. A ReplyError or a ValueError says that it is of no use."""
        ...


class PairGenerator:
    """Asks what a pair's `prompt` says and hands the reply to its `parse`."""

    def __init__(self, pair: Pair) -> None:
        self.name = pair.name
        self.pair = pair
        self.schema: Mapping[str, Any] | None = getattr(pair, "schema", None)
        sampling: Sampling | None = getattr(pair, "sampling", None)
        max_tokens: int | None = getattr(pair, "max_tokens", None)
        self.sampling, self.max_tokens = sampling, max_tokens

    async def generate(self, passage: Passage, teacher: Teacher) -> list[Record]:
        """Make the one call and parse its reply.

        Raises:
            ReplyError: the reply does not follow the schema, was cut off, or `parse` can make nothing of it.
            ConfigError: `parse` gave something else than records.
        """
        sampling = self.sampling
        if self.max_tokens is not None:
            # The rest of the sampling is the run's, where the pair has none of its own.
            sampling = replace(sampling or getattr(teacher, "sampling", Sampling()), max_tokens=self.max_tokens)
        asked = self.pair.prompt(passage)
        messages = [Message("user", asked)] if isinstance(asked, str) else list(asked)
        reply: Any
        if self.schema is not None:
            reply, completion = await ask_json(teacher, messages, self.schema, sampling=sampling)
        else:
            completion = await teacher.chat(messages, sampling=sampling)
            if completion.finish_reason == "length":
                raise ReplyError("the reply was cut off at max_tokens", completion.text, fix="raise max_tokens")
            reply = completion.text
        try:
            records = list(self.pair.parse(passage, reply))
        except (ValueError, LookupError) as error:
            raise ReplyError(f"`parse` gave up: {type(error).__name__}: {error}", completion.text) from error
        for record in records:
            if not isinstance(record, Record):
                raise ConfigError(
                    f"`parse` gave a {type(record).__name__}, not a Record",
                    where=f"generator {self.name}",
                    fix="make records with Record.create(passage, question, answer, generator=self.name)",
                )
        return records
