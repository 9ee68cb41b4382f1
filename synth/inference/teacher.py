"""What a generator asks through: each call is numbered, seeded, and answered from the journal if it can be."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from synth.core.calls import ChatRequest, Completion, Endpoint, Sampling, Usage, call_key
from synth.core.errors import InferenceError, RefusedError, SynthError
from synth.core.fingerprint import canonical_json
from synth.core.records import Message
from synth.inference.journal import Journal

CALLS_PER_ROUND = 1_000_000


class Admission(Protocol):
    """What says whether a call may be made now."""

    async def admit(self) -> None:
        """Return when one more call may be made.

        Raises:
            RunError: no more may be made.
        """
        ...

    def settle(self, usage: Usage | None) -> None:
        """Count an admitted call that ended; None where no answer came."""
        ...


class JournaledTeacher:
    """A `Teacher` whose answered calls are never paid for again.

    Make one per passage, generator and round. Requests that are equal within it get the indices 0, 1, 2 …
    in the order of asking; round r starts at r × 1,000,000, so a later round asks anew and never meets
    an earlier one's key. Where the sampling has no seed, one is derived from the run's seed and the
    request, so the replies do not depend on the order in which they came.

    Args:
        endpoint: what answers.
        journal: where answers are looked up and kept.
        seed: the run's seed.
        sampling: used where a call names none.
        round: counts the passes over the same passages, from 0.
        gate: asked before each call that the journal does not answer, or None.

    Attributes:
        replayed: how many answers came from the journal.
        failed: how many calls got no answer.
        declined: how many the endpoint refuses for good, such as a prompt that is too long.
        last_failure: why the last of these got no answer.
        ended: why a call was not made or its answer could not be kept: the run is to end. It stands here even
            where the generator caught it.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        journal: Journal,
        *,
        seed: int,
        sampling: Sampling,
        round: int = 0,
        gate: Admission | None = None,
    ) -> None:
        self.replayed = self.failed = self.declined = 0
        self.last_failure: InferenceError | None = None
        self.ended: SynthError | None = None
        self._endpoint, self._journal, self._gate = endpoint, journal, gate
        self._waiting = 0
        self._none_waits = asyncio.Event()
        self._seed, self._sampling, self._round = seed, sampling, round
        self._asked: Counter[tuple[str, int | None]] = Counter()
        self._messages: list[tuple[Message, ...]] = []
        self._answers: list[Completion | None] = []

    @property
    def sampling(self) -> Sampling:
        """What is used where a call names no sampling."""
        return self._sampling

    @property
    def calls(self) -> list[Completion]:
        """Every completion it gave, in the order of asking."""
        return [answer for answer in self._answers if answer is not None]

    @property
    def prompt_sha256(self) -> str:
        """SHA-256 over the messages of all calls, in the order of asking."""
        asked = [[m.to_json() for m in messages] for messages in self._messages]
        return hashlib.sha256(canonical_json(asked)).hexdigest()

    async def chat(
        self,
        messages: Sequence[Message],
        *,
        schema: Mapping[str, Any] | None = None,
        sampling: Sampling | None = None,
    ) -> Completion:
        """Ask the model, or give the journal's answer; calls may run at the same time.

        Raises:
            InferenceError: no answer came, after all retries.
            RunError: the answer cannot be written to the journal, or a cap of the run is reached.
        """
        request, key = self._numbered(tuple(messages), schema, sampling or self._sampling)
        place = len(self._answers)
        self._answers.append(None)
        self._messages.append(request.messages)
        completion = self._journal.get(key)
        if completion is not None:
            self.replayed += 1
        else:
            completion = await self._answer(key, request)
        self._answers[place] = completion
        return completion

    async def settled(self) -> None:
        """Return when none of its calls is in flight: they are paid for, so their answers should be kept."""
        while self._waiting:
            self._none_waits.clear()
            await self._none_waits.wait()

    async def _answer(self, key: str, request: ChatRequest) -> Completion:
        self._waiting += 1
        # Somebody else's call in flight is theirs to count.
        shared = self._journal.asks(key)
        try:
            if self._gate is None:
                completion = await self._journal.answer(key, request, self._endpoint.complete)
            else:
                call = _Call(self._endpoint, self._gate)
                completion = await self._journal.answer(key, request, call.ask, call.end)
            self.replayed += shared
            return completion
        except RefusedError as error:
            self.declined += 1
            self.last_failure = error
            raise
        except InferenceError as error:
            self.failed += 1
            self.last_failure = error
            raise
        except SynthError as error:
            self.ended = error
            raise
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._none_waits.set()

    def _numbered(
        self, messages: tuple[Message, ...], schema: Mapping[str, Any] | None, sampling: Sampling
    ) -> tuple[ChatRequest, str]:
        """Return the request with its index, and with a seed where it had none, and its key."""
        content = ChatRequest(messages, sampling, schema).content(self._endpoint.model, self._endpoint.revision)
        # Requests that differ in the seed alone are numbered apart, as those are that differ in anything else.
        asked = (content, sampling.seed)
        index = self._round * CALLS_PER_ROUND + self._asked[asked]
        self._asked[asked] += 1
        if sampling.seed is None:
            seed = derived_seed(self._seed, content, index)
            sampling = Sampling(sampling.temperature, sampling.top_p, sampling.max_tokens, seed, sampling.logprobs)
        return ChatRequest(messages, sampling, schema, index), call_key(content, index, sampling.seed)


class _Call:
    """One call through the gate, which it leaves only when its answer is on disk: until then a kill would lose it."""

    __slots__ = ("_admitted", "_endpoint", "_gate", "_usage")

    def __init__(self, endpoint: Endpoint, gate: Admission) -> None:
        self._endpoint, self._gate = endpoint, gate
        self._admitted = False
        self._usage: Usage | None = None

    async def ask(self, request: ChatRequest) -> Completion:
        await self._gate.admit()
        self._admitted = True
        completion = await self._endpoint.complete(request)
        self._usage = completion.usage
        return completion

    def end(self) -> None:
        if self._admitted:
            self._gate.settle(self._usage)


def derived_seed(run_seed: int, content: str, index: int) -> int:
    """Return the seed of one call, in [0, 2³¹): a hash of the run's seed and of the request without its seed."""
    digest = hashlib.sha256(f"{run_seed} {content} {index}".encode()).digest()
    return int.from_bytes(digest[:4]) & 0x7FFF_FFFF
