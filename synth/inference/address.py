"""Where an endpoint is, what it is sent to be let in, and how both may be shown: without any secret."""

import base64
import ipaddress
import re
import urllib.parse
import urllib.request

import aiohttp
import yarl

from synth.core.errors import ConfigError

_LONG_NAME = 12


class Address:
    """The URLs of an endpoint and its key.

    Args:
        base_url: the endpoint up to `/v1`; `user:password@` in it is sent as basic authentication.
        api_key: sent as a bearer token, in place of a user and password.

    Attributes:
        chat: where chat completions are asked for.
        completions: where plain completions are.
        models: where the list of models is.
        metrics: where vLLM shows its metrics.
        shown: the endpoint as it may stand in an error or a log.

    Raises:
        ConfigError: `base_url` is not an http(s) URL.
    """

    def __init__(self, base_url: str, api_key: str | None) -> None:
        try:
            url = yarl.URL(base_url.strip())
        except ValueError:
            url = yarl.URL()
        if url.scheme not in {"http", "https"} or not url.host:
            # The text is not quoted: a key pasted in the wrong place must not come back in an error.
            raise ConfigError("the endpoint is no http:// or https:// URL", fix="such as http://localhost:8000/v1")
        # Encoded once: as part of the URL aiohttp would take them out and encode them for every call.
        self._headers = {"Content-Type": "application/json"}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"
        elif url.user is not None or url.password is not None:
            basic = base64.b64encode(f"{url.user or ''}:{url.password or ''}".encode()).decode()
            self._headers["Authorization"] = f"Basic {basic}"
        base = url.with_user(None).with_path(url.path.rstrip("/"), keep_query=True)
        self.chat = base.joinpath("chat", "completions").with_query(base.query)
        self.completions = base.joinpath("completions").with_query(base.query)
        self.models = base.joinpath("models").with_query(base.query)
        above = re.sub(r"/v\d+(beta)?$", "", base.path)
        self.metrics = base.with_path(f"{above}/metrics", keep_query=True)
        self.shown = str(base.with_query(None).with_fragment(None))
        self._url = base
        sent = self._headers.get("Authorization", "").partition(" ")[2]
        # A short name before a password ("me") is no secret, and would tear holes into every error.
        user = url.user if url.password is None or len(url.user or "") >= _LONG_NAME else None
        plain = [s for s in (api_key, sent, user, url.password, *url.query.values()) if s]
        raw = [s for s in (url.raw_password, url.raw_user if user else None) if s]
        encoded = [form(s, safe="") for s in plain for form in (urllib.parse.quote, urllib.parse.quote_plus)]
        # The longest first: one may hold another.
        self._secrets = sorted({*plain, *raw, *encoded}, key=len, reverse=True)

    def session(self, limits: aiohttp.ClientTimeout) -> aiohttp.ClientSession:
        """Return a new session for this endpoint; it sends JSON and the key, and keeps no cookies."""
        # vLLM closes idle connections after 5 s; ours go first, so that no request meets a closing one.
        # The limiter bounds the connections.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4)
        return aiohttp.ClientSession(
            connector=connector,
            headers=self._headers,
            timeout=limits,
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=self._proxy(),
        )

    def clean(self, text: str) -> str:
        """Return a text from outside without the secrets that it may echo."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _proxy(self) -> str | None:
        """Return the proxy that the environment names for this host, found once and not for every call."""
        host = self._url.host or ""
        if _is_loopback(host) or urllib.request.proxy_bypass(host):
            return None
        return urllib.request.getproxies().get(self._url.scheme)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
