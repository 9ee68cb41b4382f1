"""From the name of a model (a URL, a folder, a hub id, "bundled") to an endpoint that answers."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from synth.core.calls import Endpoint
from synth.core.errors import ConfigError, InferenceError, did_you_mean
from synth.core.resources import resource
from synth.inference.client import Client, served_models
from synth.inference.server import VLLMServer
from synth.inference.weights import model_name, weights_revision

BUNDLED = "bundled"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model that can be asked: its name and revision for the manifest, and how to reach it.

    Either `url` (an endpoint that runs) with the name `served` there, or `weights` (a folder or a hub id)
    for a server that we start.
    """

    name: str
    revision: str
    url: str | None = None
    served: str = "model"
    weights: str | Path | None = None


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
    if spec.startswith(("http://", "https://")):
        names = await served_models(spec, api_key())
        if served is None and len(names) == 1:
            served = names[0]
        if served is None or (names and served not in names):
            what = f"the endpoint does not serve {served!r}" if served else "the endpoint serves several models"
            raise ConfigError(what, where=spec, fix=f"--teacher-model NAME: {did_you_mean(served or '', names)}")
        return ModelSource(served, "", url=spec, served=served)
    weights: str | Path = bundled_model(role) if spec == BUNDLED else spec
    if isinstance(weights, Path) or Path(weights).is_dir():
        weights = Path(weights)
    elif spec.count("/") != 1 or spec.startswith((".", "/", "~")):
        raise ConfigError(
            f"{spec!r} is no folder, no hub id (owner/name) and no URL",
            where=f"--{role}",
            fix="see `synth generate --help`",
        )
    return ModelSource(model_name(weights), weights_revision(weights), weights=weights)


@asynccontextmanager
async def open_endpoint(
    source: ModelSource,
    *,
    log_path: Path,
    max_in_flight: int = 64,
    server_args: Sequence[str] = (),
    on_progress: Callable[[str], None] | None = None,
) -> AsyncIterator[Endpoint]:
    """Open an endpoint on `source`; a server that was started for it is stopped at the end.

    Raises:
        InferenceError: the server does not get ready; the error quotes its log.
    """
    if source.url is not None:
        async with Client(
            source.url,
            source.served,
            model=source.name,
            revision=source.revision,
            api_key=api_key(),
            max_in_flight=max_in_flight,
        ) as client:
            yield client
        return
    assert source.weights is not None
    server = VLLMServer(
        source.weights, log_path=log_path, served=source.served, args=server_args, on_progress=on_progress
    )
    try:
        await asyncio.to_thread(server.__enter__)
        async with Client(
            server.base_url,
            server.served,
            model=source.name,
            revision=source.revision,
            max_in_flight=max_in_flight,
            logprobs=True,
        ) as client:
            try:
                yield client
            except InferenceError:
                # Where the engine behind it is dead, its log says more than the failed call does.
                await asyncio.to_thread(server.check)
                raise
    finally:
        await asyncio.to_thread(server.__exit__, None, None, None)
