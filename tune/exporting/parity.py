"""Whether an exported model answers as the candidate it was made of: both are served, asked the same, and compared.

Two things are compared, on prompts that are fixed by the run. Greedy replies show what users would see. They can part
at two tokens that are equally likely, and then say little more; so each token of the candidate's replies, the stop
token included, is also looked up in both models: how probable it is after the same tokens.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import aiohttp
import orjson

from synth.core.errors import InferenceError
from synth.core.jsonl import read_lines
from synth.core.records import Message
from synth.core.runs import Run
from synth.inference.address import Address
from synth.inference.prompt_logprobs import PromptLogprobs
from synth.inference.replies import message_of, quote

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPTS = 16
MAX_TOKENS = 64

_IN_FLIGHT = 8
_TIMEOUT = 600.0

# Asked where a run has no rows to take prompts from.
_GENERAL = (
    "What can you help me with?",
    "Write one sentence about the sea.",
    "Name three colours.",
    "How many days has a week?",
)

Sequences = Sequence[tuple[Sequence[int], int]]
"""Token ids, and how many at the end are looked up."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A greedy reply: its text, the ids of prompt and reply, and the log probability of each token of the reply."""

    text: str
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The most that log probabilities (nats) of tokens may differ, on average and for one token."""

    mean: float
    largest: float


@dataclass(frozen=True, slots=True)
class Difference:
    """The first reply that differs: its prompt, and what either said from the first character that is not the same."""

    prompt: str
    at: int
    candidate: str
    exported: str


@dataclass(frozen=True, slots=True)
class Parity:
    """How far an exported model is from its candidate.

    `identical` of `prompts` greedy replies are the same text. Log probabilities are of the `tokens` tokens of the
    candidate's replies, and differ by so many nats. `candidate_by` and `exported_by` say what computed either.
    """

    prompts: int
    identical: int
    first_difference: Difference | None
    tokens: int
    mean: float
    largest: float
    tolerance: Tolerance | None
    candidate_by: str
    exported_by: str

    @property
    def passed(self) -> bool:
        """Whether the difference is within the tolerance; where there is none, any is."""
        bound = self.tolerance
        return bound is None or (self.mean <= bound.mean and self.largest <= bound.largest)

    def to_json(self) -> dict[str, Any]:
        """Return the entry of export.json."""
        return {**asdict(self), "passed": self.passed}

    def __str__(self) -> str:
        bound = self.tolerance
        limit = "" if bound is None else f" (at most {bound.mean:g} and {bound.largest:g} are allowed)"
        return (
            f"{self.identical} of {self.prompts} greedy replies identical; log probabilities of {self.tokens} tokens "
            f"differ by {self.mean:.4f} nats on average and {self.largest:.4f} at most{limit}"
        )


class Speaker(Protocol):
    """A model that is up and writes replies."""

    def replies(self, prompts: Sequence[Sequence[Message]]) -> list[Reply]:
        """Return the greedy reply to each prompt."""
        ...


class Reader(Speaker, Protocol):
    """A model that also says how probable it finds given tokens."""

    def logprobs(self, sequences: Sequences) -> list[list[float]]:
        """Return the log probability of each of the last so many tokens of each sequence."""
        ...


@dataclass(frozen=True, slots=True)
class ServedReader:
    """A model behind a vLLM server.

    The log probabilities of an adapter's replies come with the replies. To ask for those of given tokens kills an
    engine that serves an adapter on a CPU (vLLM 0.32, lora/ops/torch_ops: `subscript b has size …`).
    """

    url: str
    served: str
    api_key: str | None = None

    def replies(self, prompts: Sequence[Sequence[Message]]) -> list[Reply]:
        """Return the greedy reply to each prompt.

        Raises:
            InferenceError: the server does not answer, or is not vLLM's.
        """
        return asyncio.run(self._replies(prompts))

    def logprobs(self, sequences: Sequences) -> list[list[float]]:
        """Return the log probability of each of the last so many tokens of each sequence.

        Raises:
            InferenceError: the server does not answer, or is not vLLM's.
        """
        reader = PromptLogprobs(self.url, self.served, api_key=self.api_key, max_in_flight=_IN_FLIGHT)
        return reader.logprobs(sequences)

    async def _replies(self, prompts: Sequence[Sequence[Message]]) -> list[Reply]:
        address = Address(self.url, self.api_key)
        room = asyncio.Semaphore(_IN_FLIGHT)
        async with address.session(aiohttp.ClientTimeout(total=_TIMEOUT)) as session:

            async def one(prompt: Sequence[Message]) -> Reply:
                body = orjson.dumps(
                    {
                        "model": self.served,
                        "messages": [message.to_json() for message in prompt],
                        "temperature": 0,
                        "max_tokens": MAX_TOKENS,
                        "logprobs": True,
                        "return_token_ids": True,
                    }
                )
                try:
                    async with room, session.post(address.chat, data=body, allow_redirects=False) as response:
                        return _reply(response.status, await response.read(), address.shown)
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    raise InferenceError(f"no reply came ({type(error).__name__})", where=address.shown) from error

            return await asyncio.gather(*map(one, prompts))


def _reply(status: int, body: bytes, where: str) -> Reply:
    try:
        data = orjson.loads(body)
        choice = data["choices"][0]
        return Reply(
            choice["message"]["content"] or "",
            tuple(data["prompt_token_ids"]),
            tuple(choice["token_ids"]),
            tuple(entry["logprob"] for entry in choice["logprobs"]["content"]),
        )
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError) as error:
        raise InferenceError(
            f"the server answers {status} and no reply with its tokens: {quote(message_of(body))}",
            where=where,
            fix="the check needs vLLM 0.32 or later; --no-parity leaves it out",
        ) from error


def fixed_prompts(run: Run, length: Callable[[Sequence[Message]], int], context: int | None) -> list[list[Message]]:
    """Return prompts spread evenly over the validation rows, else over the training rows, else general ones.

    Prompts that leave no room for a reply are passed over.

    Args:
        run: whose rows are taken.
        length: a prompt's tokens.
        context: how many tokens the model reads, or None where it does not say.
    """
    found: list[list[Message]] = []
    for path in (run.validation_path, run.train_path):
        rows = [row for _, row in read_lines(path)] if path.is_file() else []
        asked = [[Message.from_json(turn) for turn in row["prompt"]] for row in rows if isinstance(row["prompt"], list)]
        found = [p for p in asked if context is None or length(p) + MAX_TOKENS <= context]
        if found:
            break
    found = found or [[Message("user", text)] for text in _GENERAL]
    return [found[i * len(found) // PROMPTS] for i in range(PROMPTS)] if len(found) > PROMPTS else found


def rendered(tokenizer: "PreTrainedTokenizerBase", prompt: Sequence[Message]) -> list[int]:
    """Return a prompt's tokens, up to where the reply begins."""
    turns = [message.to_json() for message in prompt]
    ids: list[int] = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    return ids


def ask(speaker: Speaker, prompts: Sequence[Sequence[Message]]) -> list[Reply]:
    """Return the candidate's replies.

    Raises:
        InferenceError: it does not answer, or says nothing at all.
    """
    replies = speaker.replies(prompts)
    if not any(reply.tokens for reply in replies):
        raise InferenceError("the candidate replied with nothing to every prompt, so nothing can be compared")
    return replies


def compare(
    prompts: Sequence[Sequence[Message]],
    mine: Sequence[Reply],
    exported: Reader,
    *,
    candidate_by: str,
    exported_by: str,
    tolerance: Tolerance | None,
) -> Parity:
    """Ask the exported model the same, and return how far it is from the candidate's replies.

    Raises:
        InferenceError: it does not answer, or the same prompt becomes other tokens.
    """
    others = exported.replies(prompts)
    if any(a.prompt != b.prompt for a, b in zip(mine, others, strict=True)):
        raise InferenceError(
            "the exported model reads the same prompt as other tokens, so its tokenizer or chat template is another",
            fix="report this",
        )
    spoken = [reply for reply in mine if reply.tokens]
    looked_up = exported.logprobs([((*reply.prompt, *reply.tokens), len(reply.tokens)) for reply in spoken])
    gaps = [
        abs(a - b)
        for reply, found in zip(spoken, looked_up, strict=True)
        for a, b in zip(reply.logprobs, found, strict=True)
    ]
    pairs = [(prompt, a.text, b.text) for prompt, a, b in zip(prompts, mine, others, strict=True)]
    return Parity(
        prompts=len(pairs),
        identical=sum(a == b for _, a, b in pairs),
        first_difference=next((_difference(*pair) for pair in pairs if pair[1] != pair[2]), None),
        tokens=len(gaps),
        mean=math.fsum(gaps) / len(gaps),
        largest=max(gaps),
        tolerance=tolerance,
        candidate_by=candidate_by,
        exported_by=exported_by,
    )


def _difference(prompt: Sequence[Message], mine: str, other: str) -> Difference:
    shorter = min(len(mine), len(other))
    at = next((i for i in range(shorter) if mine[i] != other[i]), shorter)
    return Difference(prompt[-1].content[:200], at, mine[at : at + 80], other[at : at + 80])


T = TypeVar("T")


def served_by_vllm(
    model: str | Path,
    use: Callable[[ServedReader], T],
    *,
    log_path: Path,
    adapter: Path | None = None,
    args: Sequence[str] = (),
    on_progress: Callable[[str], None] | None = None,
) -> T:
    """Serve a model, or an adapter beside it, with vLLM, and return what `use` makes of it while it is up.

    Raises:
        InferenceError: vLLM is missing or does not get ready.
    """
    from synth.inference.server import VLLMServer  # needed only where a server is started

    adapters = {} if adapter is None else {"tuned": adapter}
    with VLLMServer(model, log_path=log_path, adapters=adapters, args=args, on_progress=on_progress) as server:
        return use(ServedReader(server.base_url, "model" if adapter is None else "tuned", server.api_key))
