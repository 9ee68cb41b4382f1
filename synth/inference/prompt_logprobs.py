"""How probable a served model finds given tokens: vLLM's `prompt_logprobs` on /v1/completions."""

import asyncio
import math
import threading
from collections.abc import Sequence
from typing import Any

import aiohttp
import orjson

from synth.core.errors import InferenceError
from synth.inference.address import Address
from synth.inference.replies import RETRIED, message_of, quote, retry_after
from synth.inference.tries import Tries, TryAgainError, spread


class PromptLogprobs:
    """Reads token sequences with a model that a vLLM server serves; the server batches them.

    Args:
        base_url: the endpoint up to `/v1`.
        served: the model's name at the endpoint.
        api_key: sent as a bearer token.
        max_in_flight: how many sequences are asked about at once.
        retries: how often one is tried again after the first time.
        timeout: seconds for one try.

    Raises:
        ConfigError: `base_url` is not an http(s) URL.
    """

    def __init__(
        self,
        base_url: str,
        served: str,
        *,
        api_key: str | None = None,
        max_in_flight: int = 64,
        retries: int = 5,
        timeout: float = 600,
    ) -> None:
        self._address, self._served = Address(base_url, api_key), served
        self._max_in_flight, self._retries, self._timeout = max_in_flight, retries, timeout

    def losses(self, sequences: Sequence[tuple[Sequence[int], int]]) -> list[float]:
        """Return the mean negative log probability (nats) of the last so many tokens of each sequence.

        Raises:
            InferenceError: the endpoint does not answer, refuses a sequence, or gives no prompt log probabilities.
        """
        return [math.fsum(-value for value in read) / len(read) for read in self.logprobs(sequences)]

    def logprobs(self, sequences: Sequence[tuple[Sequence[int], int]]) -> list[list[float]]:
        """Return the log probability (nats) of each of the last so many tokens of each sequence.

        Raises:
            InferenceError: as `losses`.
        """
        found: list[list[list[float]] | BaseException] = []

        def work() -> None:
            try:
                found.append(asyncio.run(self._all(sequences)))
            except BaseException as error:
                found.append(error)

        # A thread has a loop of its own, whether or not the caller is in one.
        thread = threading.Thread(target=work, name="prompt-logprobs")
        thread.start()
        thread.join()
        [outcome] = found
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def _all(self, sequences: Sequence[tuple[Sequence[int], int]]) -> list[list[float]]:
        room = asyncio.Semaphore(self._max_in_flight)
        async with self._address.session(aiohttp.ClientTimeout(total=self._timeout)) as session:

            async def one(tokens: Sequence[int], counted: int) -> list[float]:
                async with room:
                    return await self._read(session, tokens, counted)

            asked = [asyncio.ensure_future(one(tokens, counted)) for tokens, counted in sequences]
            try:
                return list(await asyncio.gather(*asked))
            finally:
                for task in asked:
                    task.cancel()
                await asyncio.gather(*asked, return_exceptions=True)

    async def _read(self, session: aiohttp.ClientSession, tokens: Sequence[int], counted: int) -> list[float]:
        body = orjson.dumps(
            {"model": self._served, "prompt": list(tokens), "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
        )
        tries = Tries(self._retries, self._timeout)
        while True:
            try:
                reply = await self._post(session, body)
                break
            except TryAgainError as failure:
                wait = tries.failed(failure, self._address.shown)
                await asyncio.sleep(failure.wait if failure.wait is not None else spread(wait))
        return _logprobs(reply, tokens, counted, self._address.shown)

    async def _post(self, session: aiohttp.ClientSession, body: bytes) -> bytes:
        try:
            async with session.post(self._address.completions, data=body, allow_redirects=False) as response:
                data, status = await response.read(), response.status
                wait = retry_after(response.headers.get("Retry-After"))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TryAgainError(f"no reply came ({type(error).__name__})") from error
        if status == 200:
            return data
        message = self._address.clean(message_of(data))
        if status in RETRIED:
            raise TryAgainError(f"the endpoint answers {status}", message, status, wait)
        raise InferenceError(
            f"the endpoint refuses to read a text ({status}: {quote(message)})",
            where=self._address.shown,
            fix="prompt log probabilities need a vLLM server; without one, name the student's folder or hub id",
        )


def _logprobs(reply: bytes, tokens: Sequence[int], counted: int, where: str) -> list[float]:
    try:
        rows: list[Any] = orjson.loads(reply)["choices"][0]["prompt_logprobs"]
        return [float(rows[i][str(tokens[i])]["logprob"]) for i in range(len(tokens) - counted, len(tokens))]
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError) as error:
        raise InferenceError(
            "the endpoint gives no prompt log probabilities", where=where, fix="they need a vLLM server"
        ) from error
