"""From the name of a model (a URL, a folder, a hub id, "bundled") to an endpoint that answers."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from synth.core.calls import Endpoint, EndpointStats
from synth.core.errors import ConfigError, did_you_mean
from synth.core.fingerprint import fingerprint
from synth.core.resources import BUNDLED, resource
from synth.inference.address import Address
from synth.inference.client import Client, served_models
from synth.inference.pool import Pool
from synth.inference.server import VLLMServer
from synth.inference.supervised import SupervisedServer
from synth.inference.weights import model_name, weights_revision

# Of an endpoint that others share nothing is known; from here the limit doubles every round trip.
_HOSTED_START = 64


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model that can be asked: its name and revision for the manifest, and how to reach it.

    Either `urls` (endpoints that run) with the name `served` there, or `weights` (a folder or a hub id)
    for a server that we start.
    """

    name: str
    revision: str
    urls: tuple[str, ...] = ()
    served: str = "model"
    weights: str | Path | None = None

    @property
    def url(self) -> str | None:
        """The first of `urls`, or None."""
        return self.urls[0] if self.urls else None

    @property
    def seen(self) -> str:
        """The revision; of endpoints, whose weights cannot be seen, one of the address.

        It tells the answers of one from those of another.
        """
        return f"@{fingerprint({'url': self.url})[3:19]}" if self.urls else self.revision


class OpenEndpoint(Endpoint, Protocol):
    """An `Endpoint` that also says how it does."""

    def stats(self) -> EndpointStats:
        """Return how the endpoint does at this moment."""
        ...


def bundled_model(role: str) -> Path:
    """Return the folder of the bundled "teacher" or "student"."""
    return resource("demo", "models") / role


def api_key() -> str | None:
    """Return the key for endpoints from SYNTH_API_KEY or OPENAI_API_KEY; it goes to no file and no log."""
    return os.environ.get("SYNTH_API_KEY") or os.environ.get("OPENAI_API_KEY")


async def find_model(spec: str, *, role: str, served: str | None = None) -> ModelSource:
    """Find out what `spec` means, without starting anything.

    Args:
        spec: a URL (`http://host:port/v1`), a folder, a hub id, or "bundled".
        role: which bundled model is meant: "teacher" or "student".
        served: with a URL, the model's name there; without it the endpoint has to serve just one.

    Raises:
        ConfigError: a folder that is not there, or a name that the endpoint does not serve.
        InferenceError: nobody answers at the URL.
    """
    if _is_url(spec):
        served = _only(spec, await served_models(spec, api_key()), served)
        return ModelSource(served, "", urls=(spec,), served=served)
    weights: str | Path = bundled_model(role) if spec == BUNDLED else spec
    if isinstance(weights, Path) or Path(weights).is_dir():
        weights = Path(weights)
        # vLLM would say so after a minute, in its own words.
        if (weights / "adapter_config.json").is_file() and not (weights / "config.json").is_file():
            raise ConfigError(
                "the folder holds an adapter, and no whole model",
                where=f"--{role} {spec}",
                fix=f"merge it into its model first: `tune export {spec} --merge --to FOLDER`, then name that folder",
            )
    elif spec.count("/") != 1 or spec.startswith((".", "/", "~")):
        raise ConfigError(
            f"{spec!r} is no folder, no hub id (owner/name) and no URL",
            where=f"--{role}",
            fix="see `synth generate --help`",
        )
    return ModelSource(model_name(weights), weights_revision(weights), weights=weights)


async def find_teacher(specs: Sequence[str], *, served: str | None = None) -> ModelSource:
    """Find out what the teacher is: one model to start, or one or many endpoints that serve the same model.

    Args:
        specs: one folder, hub id or "bundled", or any number of URLs.
        served: with URLs, the model's name there; without it each has to serve just one.

    Raises:
        ConfigError: no spec, several models to start, both kinds at once, or endpoints of different models.
        InferenceError: nobody answers at a URL.
    """
    specs = list(dict.fromkeys(spec.strip().rstrip("/") if _is_url(spec) else spec for spec in specs))
    if not specs:
        raise ConfigError("no teacher is named", where="--teacher", fix="a URL, a folder, a hub id or 'bundled'")
    if len(specs) == 1:
        return await find_model(specs[0], role="teacher", served=served)
    local = [spec for spec in specs if not _is_url(spec)]
    if local:
        raise ConfigError(
            f"several teachers are named, and {local[0]!r} is no URL",
            where="--teacher",
            fix="name one model, or URLs alone: several endpoints of one model are used as one",
        )
    listed = await asyncio.gather(*(served_models(spec, api_key()) for spec in specs))
    names = [_only(spec, models, served) for spec, models in zip(specs, listed, strict=True)]
    for spec, name in zip(specs, names, strict=True):
        if name != names[0]:
            raise ConfigError(
                f"the endpoints serve different models: {names[0]!r} and {name!r}",
                where=Address(spec, None).shown,
                fix="name endpoints of one model, under one name (vLLM: --served-model-name)",
            )
    return ModelSource(names[0], "", urls=tuple(specs), served=names[0])


def _is_url(spec: str) -> bool:
    # Of any scheme, however it is written: what is taken for a URL is never quoted whole, for it may hold a password.
    return re.match(r"\s*[a-z][a-z0-9+.-]*://", spec, re.I) is not None


def _only(spec: str, names: Sequence[str], served: str | None) -> str:
    """Return the name of the model to ask for at an endpoint that serves `names`."""
    if served is None and len(names) == 1:
        return names[0]
    if served is None or (names and served not in names):
        what = f"the endpoint does not serve {served!r}" if served else "the endpoint serves several models"
        raise ConfigError(
            what, where=Address(spec, None).shown, fix=f"--teacher-model NAME: {did_you_mean(served or '', names)}"
        )
    return served


@asynccontextmanager
async def open_endpoint(
    source: ModelSource,
    *,
    log_path: Path,
    max_in_flight: int = 64,
    min_in_flight: int = 1,
    retries: int = 5,
    connect_timeout: float = 10,
    timeout: float = 600,
    stall_timeout: float = 120,
    stall_seconds: float = 180,
    restarts: int = 3,
    logprobs: bool = False,
    server_args: Sequence[str] = (),
    on_progress: Callable[[str], None] | None = None,
) -> AsyncIterator[OpenEndpoint]:
    """Open an endpoint on `source`; a server that was started for it is watched, and stopped at the end.

    Args:
        source: what `find_model` or `find_teacher` found.
        log_path: where the output of a server that we start is appended.
        max_in_flight: how many calls run at once at most, at each endpoint.
        min_in_flight: how many may run at once however loaded an endpoint is.
        retries: how often a call is tried again after the first time.
        connect_timeout: seconds to open a connection.
        timeout: seconds for one try of a call.
        stall_timeout: seconds without a byte once a reply has begun.
        stall_seconds: seconds without progress after which our own server is started again.
        restarts: how often it is started again without an answered call in between.
        logprobs: whether to ask for the log probability of each token; dropped where an endpoint refuses it.
        server_args: passed through to vLLM.
        on_progress: gets short texts about starts and restarts.

    Raises:
        InferenceError: the server does not get ready; the error quotes its log.
    """
    if source.urls:
        clients = [
            Client(
                url,
                source.served,
                model=source.name,
                revision=source.revision,
                api_key=api_key(),
                max_in_flight=max_in_flight,
                min_in_flight=min_in_flight,
                start_in_flight=_HOSTED_START,
                retries=retries,
                connect_timeout=connect_timeout,
                timeout=timeout,
                stall_timeout=stall_timeout,
                logprobs=logprobs,
            )
            for url in source.urls
        ]
        one = clients[0] if len(clients) == 1 else Pool(clients, retries=retries, longest_wait=timeout)
        async with one as endpoint:
            yield endpoint
        return
    assert source.weights is not None
    server = VLLMServer(
        source.weights, log_path=log_path, served=source.served, args=server_args, on_progress=on_progress
    )
    async with SupervisedServer(
        server,
        model=source.name,
        revision=source.revision,
        max_in_flight=max_in_flight,
        min_in_flight=min_in_flight,
        retries=retries,
        timeout=timeout,
        stall_timeout=stall_timeout,
        stall_seconds=stall_seconds,
        restarts=restarts,
        logprobs=logprobs,
        on_progress=on_progress,
    ) as supervised:
        yield supervised
