"""One request to a model: what is asked, what comes back, and the two seams around it.

`Endpoint` is the transport (an HTTP client, or the scripted teacher in tests): one request in, one
completion out. `Teacher` is what a generator sees: chat, with everything else taken care of.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import orjson

from synth.core.errors import InferenceError
from synth.core.fingerprint import canonical_json
from synth.core.records import Message

# Raise it when the meaning of a request changes, so that no old answer passes for one to the new request.
CALL_KEY_VERSION = 2


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters in the field's terms.

    `max_tokens` bounds the completion. `seed` None leaves it to the runtime, which derives one from the
    run's seed and the call, so that equal calls in other runs differ and the same run repeats. `logprobs` asks
    for the log probability of each token, where the endpoint gives it.
    """

    temperature: float = 0.7
    top_p: float = 0.95
    max_tokens: int = 512
    seed: int | None = None
    logprobs: bool = False


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request as it goes over the wire, apart from the model's name.

    `schema` is a JSON Schema that the reply has to follow; `index` tells apart calls that are otherwise
    equal (a generator that asks the same thing twice wants two answers).
    """

    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    schema: Mapping[str, Any] | None = None
    index: int = 0

    def key(self, model: str, revision: str = "") -> str:
        """Return the content key: equal for equal model, revision, messages, sampling, schema and index."""
        return call_key(self.content(model, revision), self.index, self.sampling.seed)

    def content(self, model: str, revision: str = "") -> str:
        """Return a hash of all that the key depends on, apart from the index and the seed."""
        sampling = self.sampling
        # Written out and in canonical order: `asdict` and the sorting cost more than the hash.
        content = {
            "messages": [{"content": m.content, "role": m.role} for m in self.messages],
            "model": model,
            "revision": revision,
            "sampling": [sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.logprobs],
            "schema": self.schema,
            "version": CALL_KEY_VERSION,
        }
        if self.schema is None:
            return hashlib.sha256(orjson.dumps(content)).hexdigest()
        return hashlib.sha256(canonical_json(content)).hexdigest()


def call_key(content: str, index: int, seed: int | None) -> str:
    """Return the key of a call from `ChatRequest.content`, its index and its seed."""
    return hashlib.sha256(f"{content} {index} {seed}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's reply. `finish_reason` is "stop", or "length" where `max_tokens` cut it off.

    A reply of "length" without text is one that was cut off before the answer began: a reasoning model's, most likely.

    `logprobs` has each token's text and its log probability (natural, before sampling settings and schema); it is
    empty where the endpoint was not asked for it. `reasoning` is what a reasoning model thought before its
    answer; `text` and `logprobs` are the answer alone. `seconds` is what the call took, 0 where nobody timed it,
    while so many calls were `in_flight` at most.
    """

    text: str
    finish_reason: str = "stop"
    usage: Usage = Usage()
    key: str = ""
    logprobs: tuple[tuple[str, float], ...] = ()
    reasoning: str = ""
    seconds: float = 0.0
    in_flight: int = 0

    def json(self) -> Any:  # noqa: ANN401  (whatever JSON the schema asked for)
        """Return the reply parsed as JSON.

        Raises:
            InferenceError: the reply was cut off or is not JSON; the error quotes how it begins.
        """
        if self.finish_reason == "length" and not self.text.strip():
            raise InferenceError(
                "the model used all of max_tokens before it began its answer",
                fix="raise max_tokens, or switch its thinking off",
            )
        if self.finish_reason == "length":
            raise InferenceError("the reply was cut off at max_tokens", fix="raise max_tokens")
        try:
            return orjson.loads(self.text)
        except orjson.JSONDecodeError as error:
            raise InferenceError(f"the reply is not JSON: {self.text[:80]!r}") from error

    def confidence(self, after: str = "") -> float | None:
        """Return the model's mean probability a token, in (0, 1], of what it wrote after the text `after`.

        The mean is geometric: exp of the mean log probability. None where no log probabilities came, or
        where nothing stands after `after`, or one is no number.
        """
        written, counted = "", []
        for token, logprob in self.logprobs:
            if after in written:
                counted.append(logprob)
            written += token
        mean = sum(counted) / len(counted) if counted else math.nan
        return math.exp(mean) if math.isfinite(mean) else None

    def to_json(self) -> dict[str, Any]:
        """Return the response part of a journal line."""
        usage = {"prompt_tokens": self.usage.prompt_tokens, "completion_tokens": self.usage.completion_tokens}
        response: dict[str, Any] = {"text": self.text, "finish_reason": self.finish_reason, "usage": usage}
        if self.logprobs:
            response["logprobs"] = [[token, round(value, 3)] for token, value in self.logprobs]
        if self.reasoning:
            response["reasoning"] = self.reasoning
        if self.seconds:
            response["seconds"] = round(self.seconds, 4)
        if self.in_flight:
            response["in_flight"] = self.in_flight
        return response

    @classmethod
    def from_json(cls, data: Mapping[str, Any], key: str) -> Self:
        """Build a completion from the response part of a journal line."""
        logprobs = tuple((token, value) for token, value in data.get("logprobs", ()))
        usage, reasoning = Usage(**data["usage"]), data.get("reasoning", "")
        timed = data.get("seconds", 0.0), data.get("in_flight", 0)
        return cls(data["text"], data["finish_reason"], usage, key, logprobs, reasoning, *timed)


@dataclass(frozen=True, slots=True)
class EndpointStats:
    """How an endpoint does at this moment, for a live view; the counters begin with the endpoint.

    `in_flight` calls are being answered and `limit` may be; `waiting` calls stand in the servers' own queues.
    `endpoints_up` of `endpoints` take calls. `prefix_cache_hits` of `prefix_cache_queries` prompt tokens came
    from the servers' caches. What a server does not tell is 0.
    """

    in_flight: int = 0
    limit: int = 0
    endpoints: int = 1
    endpoints_up: int = 1
    restarts: int = 0
    retries: int = 0
    prefix_cache_hits: int = 0
    prefix_cache_queries: int = 0
    waiting: int = 0


class Endpoint(Protocol):
    """Something that answers requests: `model` and `revision` say what answers."""

    @property
    def model(self) -> str:
        """The name that stands in content keys and provenance; the same weights have the same name."""
        ...

    @property
    def revision(self) -> str:
        """A revision of the weights, or an empty string."""
        ...

    async def complete(self, request: ChatRequest) -> Completion:
        """Answer one request.

        Raises:
            InferenceError: no answer came, after all retries.
        """
        ...


class Teacher(Protocol):
    """What a generator sees of the model: one method."""

    async def chat(
        self,
        messages: Sequence[Message],
        *,
        schema: Mapping[str, Any] | None = None,
        sampling: Sampling | None = None,
    ) -> Completion:
        """Ask the model; an answered call is never paid for again.

        Raises:
            InferenceError: no answer came, after all retries.
        """
        ...
