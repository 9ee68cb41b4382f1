"""The HTTP client for every OpenAI-compatible chat endpoint, hosted or started by us."""

import asyncio
import contextlib
import enum
import hashlib
import time
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, NoReturn, Self

import aiohttp
import orjson

from synth.core.calls import ChatRequest, Completion, EndpointStats
from synth.core.errors import InferenceError, did_you_mean
from synth.inference.address import Address
from synth.inference.limiter import Limiter
from synth.inference.metrics import EngineMetrics, parse_metrics
from synth.inference.payload import chat_body
from synth.inference.replies import (
    RETRIED,
    EndpointError,
    UnusableReplyError,
    completion_of,
    has_version,
    lacks_format,
    lacks_logprobs,
    message_of,
    quote,
    refusal_of,
    retry_after,
    unfenced,
)
from synth.inference.tries import Tries, TryAgainError, spread

MAX_BODY_BYTES = 64 * 1024 * 1024

_FIRST_METRICS = 0.5
_METRICS_EVERY = 2.0
_NO_SUCH_PAGE = frozenset({*range(300, 400), 401, 403, 404, 405, 410})
_SILENT = 3
_METRICS_LIMITS = aiohttp.ClientTimeout(total=5)
_OVERLOADED = frozenset({429, 503})
_REFUSED_SCHEMAS = 2


class _Form(enum.IntEnum):
    """How a schema is asked for; a later form needs less of the endpoint."""

    JSON_SCHEMA = 0
    JSON_OBJECT = 1
    WORDS = 2


class Client:
    """An `Endpoint` over HTTP; use it as an async context manager.

    Failed calls are tried again (`Tries`). A Retry-After holds back every call of this client, since they share
    the limit. How many calls run at once follows what the endpoint can take (`Limiter`). Where it refuses
    `response_format` with a JSON schema, it is asked for a JSON object, then for nothing, and the schema stands
    in the last message; so it is for that schema, and for all once two were refused and none accepted. Where it
    refuses log probabilities, they are not asked for. Nothing is logged and no error shows the key.

    Args:
        base_url: the endpoint up to `/v1`; `user:password@` in it is sent as basic authentication.
        served: the model's name at the endpoint.
        model: the name in content keys and provenance; `served` unless given.
        revision: the revision of the weights in content keys.
        api_key: sent as a bearer token.
        max_in_flight: how many calls run at once at most.
        min_in_flight: how many may run at once however loaded the endpoint says it is.
        start_in_flight: how many may run at once at the beginning; `max_in_flight` unless given.
        retries: how often a call is tried again after the first time.
        connect_timeout: seconds to open a connection.
        timeout: seconds for one try, from sending to the last byte; also the longest Retry-After obeyed. It
            bounds a reply that comes in drips.
        stall_timeout: seconds without a byte once a reply has begun. It says nothing about the wait for the first
            byte: a reply that is not streamed has none until it is complete, so only `timeout` can bound that.
        logprobs: whether to ask for the log probability of each token; some hosted models refuse that.

    Raises:
        ConfigError: `base_url` is not an http(s) URL.
    """

    def __init__(
        self,
        base_url: str,
        served: str,
        *,
        model: str | None = None,
        revision: str = "",
        api_key: str | None = None,
        max_in_flight: int = 64,
        min_in_flight: int = 1,
        start_in_flight: int | None = None,
        retries: int = 5,
        connect_timeout: float = 10,
        timeout: float = 600,
        stall_timeout: float = 120,
        logprobs: bool = False,
    ) -> None:
        self._address = Address(base_url, api_key)
        self._served = served
        self._model = served if model is None else model
        self._revision = revision
        self._retries_allowed = retries
        self._timeout = timeout
        self._stall_timeout = stall_timeout
        self._limits = aiohttp.ClientTimeout(total=timeout, sock_connect=connect_timeout)
        self._limiter = Limiter(max_in_flight, least=min_in_flight, start=start_in_flight)
        self._logprobs, self._lacks_logprobs = logprobs, False
        self._form, self._form_works = _Form.JSON_SCHEMA, False
        self._forms: dict[bytes, _Form] = {}  # of schemas that were refused in the form for all
        self._not_before = 0.0
        self._answered = self._retries = 0
        self._metrics: EngineMetrics | None = None
        self._polling: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._waits: set[asyncio.Timeout] = set()

    def __repr__(self) -> str:
        return f"Client({self._address.shown!r}, {self._served!r})"

    @property
    def model(self) -> str:
        """The name that stands in content keys and provenance."""
        return self._model

    @property
    def revision(self) -> str:
        """The revision of the weights, or an empty string."""
        return self._revision

    @property
    def served(self) -> str:
        """The model's name at the endpoint."""
        return self._served

    @property
    def shown(self) -> str:
        """The endpoint's URL without its secrets."""
        return self._address.shown

    @property
    def answered(self) -> int:
        """How many calls have been answered."""
        return self._answered

    @property
    def in_flight(self) -> int:
        """How many calls are being answered or wait here to be sent."""
        return self._limiter.in_flight + self._limiter.queued

    @property
    def limit(self) -> int:
        """How many calls may run at once now."""
        return self._limiter.limit

    @property
    def held_back(self) -> float:
        """The seconds for which the endpoint has asked us to wait; 0 where it has not."""
        return max(0.0, self._not_before - time.monotonic())

    def stats(self) -> EndpointStats:
        """Return how the endpoint does at this moment."""
        metrics = self._metrics or EngineMetrics()
        return EndpointStats(
            in_flight=self._limiter.in_flight,
            limit=self._limiter.limit,
            retries=self._retries,
            prefix_cache_hits=int(metrics.prefix_cache_hits),
            prefix_cache_queries=int(metrics.prefix_cache_queries),
            waiting=int(metrics.waiting),
        )

    async def __aenter__(self) -> Self:
        """Open the connection pool and begin to watch the endpoint's metrics, where it has any."""
        self._session, self._closed = self._address.session(self._limits), False
        self._polling = asyncio.create_task(self._poll())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections; calls in flight fail."""
        polling, self._polling = self._polling, None
        if polling is not None:
            polling.cancel()
            await asyncio.wait([polling])
        session, self._session, self._closed = self._session, None, True
        if session is not None:
            await session.close()
        for wait in self._waits:
            wait.reschedule(asyncio.get_running_loop().time())

    async def complete(self, request: ChatRequest) -> Completion:
        """Answer one request; the completion's key is left to the caller.

        Raises:
            InferenceError: no answer came after all retries, or the endpoint refuses the request.
        """
        tries: Tries | None = None
        answered = self._answered
        while True:
            try:
                return await self.attempt(request)
            except TryAgainError as failure:
                if tries is None:
                    tries = Tries(self._retries_allowed, self._timeout)
                pause = tries.failed(failure, self._address.shown, progress=self._answered > answered)
                answered = self._answered
            self._retries += 1
            await asyncio.sleep(pause)

    async def attempt(self, request: ChatRequest) -> Completion:
        """Send one request once, as soon as the limiter lets it in.

        Raises:
            TryAgainError: it failed in a way that may pass.
            InferenceError: it failed for good.
        """
        limiter = self._limiter
        if not limiter.try_enter():
            await limiter.enter()
        began = time.monotonic()
        try:
            if self._not_before > began:
                await self._wait_turn()
                began = time.monotonic()
            completion = await self._ask(request)
        except TryAgainError as failure:
            if failure.wait is not None and failure.wait <= self._timeout:
                self._not_before = max(self._not_before, time.monotonic() + failure.wait)
            if failure.status in _OVERLOADED or isinstance(failure.__cause__, TimeoutError):
                limiter.overloaded(began)
            else:
                limiter.leave()
            raise
        except BaseException:
            limiter.leave()
            raise
        limiter.succeeded(began)
        self._answered += 1
        return completion

    async def read_metrics(self) -> EngineMetrics | None:
        """Return what the engine says of itself now; None where it does not answer or says nothing.

        Raises:
            LookupError: the endpoint has no such page, or one that is not vLLM's.
        """
        session = self._session
        if session is None:
            return None
        try:
            async with session.get(self._address.metrics, timeout=_METRICS_LIMITS, allow_redirects=False) as response:
                page = await _read(response, self._address.shown, self._stall_timeout, self._waits)
        except (aiohttp.ClientError, TimeoutError, OSError, InferenceError):
            return None
        if response.status not in {200, *_NO_SUCH_PAGE}:
            return None
        metrics = parse_metrics(page) if response.status == 200 else None
        if metrics is None:
            raise LookupError(f"no metrics of vLLM at {self._address.shown}")
        self._metrics = metrics
        return metrics

    async def _poll(self) -> None:
        pause, silent = _FIRST_METRICS, 0
        while True:
            await asyncio.sleep(pause)
            pause = _METRICS_EVERY
            if not self._limiter.in_flight:
                continue
            try:
                metrics = await self.read_metrics()
            except LookupError:
                self._limiter.observe_no_more()
                return
            silent = 0 if metrics is not None else silent + 1
            if metrics is not None:
                self._limiter.observe(metrics.running, metrics.waiting)
            elif silent == _SILENT:  # what it said last holds no longer
                self._limiter.observe_no_more()

    def _payload(self, request: ChatRequest, form: _Form, logprobs: bool) -> bytes:
        payload, schema = chat_body(request, self._served, logprobs=logprobs), request.schema
        if not logprobs:
            payload.pop("logprobs", None)
        if schema is not None and form is not _Form.JSON_SCHEMA:
            del payload["response_format"]
            if form is _Form.JSON_OBJECT:
                payload["response_format"] = {"type": "json_object"}
            if payload["messages"]:
                payload["messages"][-1]["content"] += _schema_in_words(schema)
        return orjson.dumps(payload)

    async def _ask(self, request: ChatRequest) -> Completion:
        """Send once, and again at once where the endpoint lacks a part of what was asked for."""
        address = self._address
        form = self._form_for(request.schema)
        logprobs = (self._logprobs or request.sampling.logprobs) and not self._lacks_logprobs
        while True:
            status, wait, body = await self._post(self._payload(request, form, logprobs))
            if status == 200:
                break
            message = address.clean(message_of(body))
            if status in RETRIED:
                raise TryAgainError(f"the endpoint answers {status}", message, status, wait)
            if logprobs and lacks_logprobs(status, message):
                logprobs, self._lacks_logprobs = False, True
            elif request.schema is not None and form < _Form.WORDS and lacks_format(status, message):
                form = _Form(form + 1)
                self._ask_for_less(request.schema, form)
            else:
                await self._refuse(status, message)
        try:
            completion = completion_of(body, clean=address.clean)
        except UnusableReplyError as error:
            # `from None`: the cause quotes the reply before it was cleaned.
            raise TryAgainError(error.what, fix=error.fix) from None
        except InferenceError as error:
            raise type(error)(error.what, where=address.shown, fix=error.fix) from None
        if request.schema is None:
            return completion
        if form is self._form:
            self._form_works = True
        return completion if form is _Form.JSON_SCHEMA else _without_fence(completion)

    def _form_for(self, schema: Mapping[str, Any] | None) -> _Form:
        if schema is None or not self._forms:
            return self._form
        return max(self._form, self._forms.get(_digest(schema), self._form))

    def _ask_for_less(self, schema: Mapping[str, Any], form: _Form) -> None:
        """Remember that a schema was refused in a better form than `form`, and conclude for all where that is due.

        A single refusal may be about the one schema: an endpoint that has JSON Schema does not take every keyword.
        """
        self._forms[_digest(schema)] = form
        if self._form_works or form <= self._form:
            return
        if sum(other >= form for other in self._forms.values()) >= _REFUSED_SCHEMAS:
            self._form = form
            self._forms = {digest: other for digest, other in self._forms.items() if other > form}

    async def _post(self, payload: bytes) -> tuple[int, float | None, bytes]:
        session = self._session
        if session is None:
            if self._closed:
                raise TryAgainError("the connection was closed", sent=False)
            raise InferenceError("the client is not open", fix="use it in `async with Client(…) as client`")
        try:
            async with session.post(self._address.chat, data=payload, allow_redirects=False) as response:
                body = await _read(response, self._address.shown, self._stall_timeout, self._waits)
                status = response.status
                return status, None if status == 200 else retry_after(response.headers.get("Retry-After")), body
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if self._session is not session:
                raise TryAgainError("the connection was closed") from error
            _raise_transport(error, self._address)

    async def _refuse(self, status: int, message: str) -> NoReturn:
        listed = ""
        if status == 404 and has_version(self._address.shown):
            assert self._session is not None
            with contextlib.suppress(InferenceError):  # the first error is the one to report
                listed = did_you_mean(self._served, await _list_models(self._session, self._address))
        raise refusal_of(status, message, where=self._address.shown, served=self._served, listed=listed)

    async def _wait_turn(self) -> None:
        while (wait := self._not_before - time.monotonic()) > 0:
            await asyncio.sleep(spread(wait))


async def served_models(base_url: str, api_key: str | None = None) -> list[str]:
    """Return the names of the models that an endpoint serves; empty where it keeps no list.

    Raises:
        ConfigError: `base_url` is not an http(s) URL.
        InferenceError: nobody answers there, or what answers is no such endpoint.
    """
    address = Address(base_url, api_key)
    async with address.session(aiohttp.ClientTimeout(total=30, sock_connect=10)) as session:
        return await _list_models(session, address)


async def _list_models(session: aiohttp.ClientSession, address: Address) -> list[str]:
    try:
        async with session.get(address.models, allow_redirects=False) as response:
            body = await _read(response, address.shown, 30)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        try:
            _raise_transport(error, address)
        except TryAgainError as failure:
            raise InferenceError(failure.what, where=address.shown, fix=failure.fix) from error
    if response.status in {404, 405, 501} and has_version(address.shown):
        return []
    message = address.clean(message_of(body))
    if response.status != 200:
        raise refusal_of(response.status, message, where=address.shown, served="", listed="")
    try:
        return [str(entry["id"]) for entry in orjson.loads(body)["data"]]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise InferenceError(
            f"the reply is no list of models: {quote(message)}",
            where=address.shown,
            fix="check that the URL is an OpenAI-compatible endpoint and ends in /v1",
        ) from error


async def _read(
    response: aiohttp.ClientResponse, where: str, stall_timeout: float, waits: set[asyncio.Timeout] | None = None
) -> bytes:
    """Return the body; most come in one piece and are not copied.

    While it waits for a part, the wait stands in `waits`: who closes the session has to end it, for aiohttp
    (3.14) wakes those that wait for a reply to begin and not those that wait in the middle of one.
    """
    content, parts, length = response.content, [], 0
    while not content.at_eof():
        if content.is_eof():
            part = await content.readany()
        else:
            async with asyncio.timeout(stall_timeout) as wait:
                if waits is not None:
                    waits.add(wait)
                try:
                    part = await content.readany()
                finally:
                    if waits is not None:
                        waits.discard(wait)
        parts.append(part)
        length += len(part)
        if length > MAX_BODY_BYTES:
            raise InferenceError(f"the reply is longer than {MAX_BODY_BYTES >> 20} MiB", where=where)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _raise_transport(error: Exception, address: Address) -> NoReturn:
    """Raise what a failure below HTTP means: TryAgainError, or InferenceError where trying is no use."""
    reason = address.clean(str(error))
    if isinstance(error, aiohttp.ClientSSLError | aiohttp.ClientConnectorCertificateError):
        raise EndpointError(
            f"the connection is not secure ({reason})",
            where=address.shown,
            fix="mend the server's certificate, or set SSL_CERT_FILE to your authority's",
        ) from error
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        raise TryAgainError(
            f"nobody answers ({reason})", fix="start the server, or check the host and the port", refused=True
        ) from error
    if isinstance(error, TimeoutError):
        raise TryAgainError("no reply came in time", fix="raise the timeout, or look at the server's log") from error
    raise TryAgainError(f"the connection broke ({reason or type(error).__name__})") from error


def _schema_in_words(schema: Mapping[str, Any]) -> str:
    return (
        "\n\nAnswer with one JSON value and nothing else. It has to follow this JSON Schema:\n"
        + orjson.dumps(schema, option=orjson.OPT_NON_STR_KEYS).decode()
    )


def _digest(schema: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(orjson.dumps(schema, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SORT_KEYS)).digest()


def _without_fence(completion: Completion) -> Completion:
    inside = unfenced(completion.text)
    return completion if inside == completion.text else replace(completion, text=inside)
