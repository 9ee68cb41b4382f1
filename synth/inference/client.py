"""The HTTP client for every OpenAI-compatible chat endpoint, hosted or started by us."""

import asyncio
import ipaddress
import random
import time
from types import TracebackType
from typing import Any, NoReturn, Self

import aiohttp
import orjson
import yarl

from synth.core.calls import ChatRequest, Completion
from synth.core.errors import ConfigError, InferenceError, did_you_mean
from synth.inference.replies import (
    RETRIED,
    UnusableReplyError,
    completion_of,
    has_version,
    message_of,
    quote,
    refusal_of,
    retry_after,
)

MAX_BODY_BYTES = 64 * 1024 * 1024

_FIRST_BACKOFF = 0.5
_LONGEST_BACKOFF = 30.0


class Client:
    """An `Endpoint` over HTTP; use it as an async context manager.

    Failed calls are tried again with exponential backoff and full jitter (Brooker, "Exponential Backoff
    And Jitter", AWS 2015), or when the server's Retry-After says; a Retry-After holds back every call of
    this client, since they share the limit. Nothing is logged and no error shows the key.

    Args:
        base_url: the endpoint up to `/v1`; `user:password@` in it is sent as basic authentication.
        served: the model's name at the endpoint.
        model: the name in content keys and provenance; `served` unless given.
        revision: the revision of the weights in content keys.
        api_key: sent as a bearer token.
        max_in_flight: how many calls run at once; waiting for a retry counts as running.
        retries: how often a call is tried again after the first time.
        connect_timeout: seconds to open a connection.
        timeout: seconds for one try, from sending to the last byte; also the longest Retry-After obeyed.
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
        retries: int = 5,
        connect_timeout: float = 10,
        timeout: float = 600,
        logprobs: bool = False,
    ) -> None:
        self._logprobs = logprobs
        self._address = _Address(base_url, api_key)
        self._served = served
        self._model = served if model is None else model
        self._revision = revision
        self._retries = retries
        self._timeout = timeout
        self._limits = aiohttp.ClientTimeout(total=timeout, sock_connect=connect_timeout)
        self._in_flight = asyncio.Semaphore(max_in_flight)
        self._not_before = 0.0
        self._jitter = random.Random()  # our own: the user's seeded random stays as it is
        self._session: aiohttp.ClientSession | None = None

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

    async def __aenter__(self) -> Self:
        """Open the connection pool; nothing is sent yet."""
        self._session = self._address.session(self._limits)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def complete(self, request: ChatRequest) -> Completion:
        """Answer one request.

        Raises:
            InferenceError: no answer came after all retries, or the endpoint refuses the request.
        """
        payload = orjson.dumps(self._payload(request))
        key = request.key(self._model, self._revision)
        async with self._in_flight:
            for attempt in range(self._retries + 1):
                await self._wait_turn()
                try:
                    return await self._try(payload, key)
                except _TryAgainError as failure:
                    if attempt == self._retries:
                        raise self._given_up(failure, attempt + 1) from failure.__cause__
                    await self._back_off(failure, attempt)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _payload(self, request: ChatRequest) -> dict[str, Any]:
        sampling = request.sampling
        payload: dict[str, Any] = {
            "model": self._served,
            "messages": [m.to_json() for m in request.messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
        }
        if sampling.seed is not None:
            payload["seed"] = sampling.seed
        if self._logprobs:
            payload["logprobs"] = True
        if request.schema is not None:
            payload["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "reply", "strict": True, "schema": request.schema},
            }
        return payload

    async def _try(self, payload: bytes, key: str) -> Completion:
        """Send once.

        Raises:
            _TryAgainError: it failed in a way that may pass.
            InferenceError: it failed for good.
        """
        if self._session is None:
            raise InferenceError("the client is not open", fix="use it in `async with Client(…) as client`")
        address = self._address
        try:
            async with self._session.post(
                address.chat, data=payload, headers={"Content-Type": "application/json"}, allow_redirects=False
            ) as response:
                body = await _read(response, address.shown)
                status, wait = response.status, retry_after(response.headers.get("Retry-After"))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            _raise_transport(error, address)
        if status in RETRIED:
            raise _TryAgainError(f"the endpoint answers {status}", address.clean(message_of(body)), status, wait)
        if status != 200:
            await self._refuse(status, address.clean(message_of(body)))
        try:
            return completion_of(body, key)
        except UnusableReplyError as error:
            # `from None`: the cause quotes the reply before it was cleaned.
            raise _TryAgainError(address.clean(error.what), fix=error.fix) from None
        except InferenceError as error:
            raise InferenceError(address.clean(error.what), where=address.shown, fix=error.fix) from None

    async def _refuse(self, status: int, message: str) -> NoReturn:
        listed = ""
        if status == 404 and has_version(self._address.shown):
            assert self._session is not None
            try:
                names = await _list_models(self._session, self._address)
                listed = did_you_mean(self._served, names)
            except InferenceError:
                listed = ""  # the first error is the one to report
        raise refusal_of(status, message, where=self._address.shown, served=self._served, listed=listed)

    async def _wait_turn(self) -> None:
        while (wait := self._not_before - time.monotonic()) > 0:
            # A little jitter, so that the calls held back together do not come back together.
            await asyncio.sleep(wait + self._jitter.uniform(0, 0.25 * min(wait, 4)))

    async def _back_off(self, failure: "_TryAgainError", attempt: int) -> None:
        if failure.wait is not None:
            if failure.wait > self._timeout:
                raise InferenceError(
                    f"{failure.what} and asks to come back in {failure.wait:.0f} s{failure.quoted}",
                    where=self._address.shown,
                    fix="run the same command again then: answered calls are not repeated",
                ) from failure
            self._not_before = max(self._not_before, time.monotonic() + failure.wait)
            return
        await asyncio.sleep(self._jitter.uniform(0, min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2**attempt)))

    def _given_up(self, failure: "_TryAgainError", tries: int) -> InferenceError:
        fix = failure.fix
        if failure.status == 429:
            fix = "lower max_in_flight, or wait and run the same command again: answered calls are not repeated"
        elif failure.status is not None and failure.status >= 500:
            fix = "the server is up but its engine may be dead: look at its log and restart it"
        times = "once" if tries == 1 else f"{tries} times"
        return InferenceError(f"{failure.what}{failure.quoted} (tried {times})", where=self._address.shown, fix=fix)


async def served_models(base_url: str, api_key: str | None = None) -> list[str]:
    """Return the names of the models that an endpoint serves; empty where it keeps no list.

    Raises:
        ConfigError: `base_url` is not an http(s) URL.
        InferenceError: nobody answers there, or what answers is no such endpoint.
    """
    address = _Address(base_url, api_key)
    async with address.session(aiohttp.ClientTimeout(total=30, sock_connect=10)) as session:
        return await _list_models(session, address)


async def _list_models(session: aiohttp.ClientSession, address: "_Address") -> list[str]:
    try:
        async with session.get(address.models, allow_redirects=False) as response:
            body = await _read(response, address.shown)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        try:
            _raise_transport(error, address)
        except _TryAgainError as failure:
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


class _TryAgainError(Exception):
    """One try failed in a way that may pass."""

    def __init__(
        self,
        what: str,
        message: str = "",
        status: int | None = None,
        wait: float | None = None,
        fix: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what, self.status, self.wait, self.fix = what, status, wait, fix
        self.quoted = f" ({quote(message)})" if message else ""


class _Address:
    """The URLs of an endpoint and its key, and how both may be shown: without any secret."""

    def __init__(self, base_url: str, api_key: str | None) -> None:
        try:
            url = yarl.URL(base_url.strip())
        except ValueError:
            url = yarl.URL()
        if url.scheme not in {"http", "https"} or not url.host:
            # The text is not quoted: a key pasted in the wrong place must not come back in an error.
            raise ConfigError("the endpoint is no http:// or https:// URL", fix="such as http://localhost:8000/v1")
        base = url.with_path(url.path.rstrip("/"), keep_query=True)
        if api_key is not None:
            base = base.with_user(None)  # one Authorization header: the key's
        self.chat = base.joinpath("chat", "completions").with_query(base.query)
        self.models = base.joinpath("models").with_query(base.query)
        self.shown = str(base.with_user(None).with_query(None).with_fragment(None))
        self._host = url.host
        self._secrets = [s for s in (api_key, url.password, *url.query.values()) if s]
        self._key = api_key

    def session(self, limits: aiohttp.ClientTimeout) -> aiohttp.ClientSession:
        headers = {} if self._key is None else {"Authorization": f"Bearer {self._key}"}
        # vLLM closes idle connections after 5 s; ours go first, so that no request meets a closing one.
        # The semaphore bounds the connections.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4)
        return aiohttp.ClientSession(
            connector=connector, headers=headers, timeout=limits, trust_env=not _is_loopback(self._host)
        )

    def clean(self, text: str) -> str:
        """Return a text from outside without the secrets that it may echo."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _read(response: aiohttp.ClientResponse, where: str) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise InferenceError(f"the reply is longer than {MAX_BODY_BYTES >> 20} MiB", where=where)
    return bytes(body)


def _raise_transport(error: Exception, address: _Address) -> NoReturn:
    """Raise what a failure below HTTP means: _TryAgainError, or InferenceError where trying is no use."""
    reason = address.clean(str(error))
    if isinstance(error, TimeoutError):
        raise _TryAgainError("no reply came in time", fix="raise the timeout, or look at the server's log") from error
    if isinstance(error, aiohttp.ClientSSLError | aiohttp.ClientConnectorCertificateError):
        raise InferenceError(
            f"the connection is not secure ({reason})",
            where=address.shown,
            fix="mend the server's certificate, or set SSL_CERT_FILE to your authority's",
        ) from error
    if isinstance(error, aiohttp.ClientConnectorError):
        raise _TryAgainError(
            f"nobody answers ({reason})", fix="start the server, or check the host and the port"
        ) from error
    raise _TryAgainError(f"the connection broke ({reason or type(error).__name__})") from error
