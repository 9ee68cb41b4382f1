"""Who answers: the saved candidate and its untuned model, served by a vLLM that we start or by a server that runs.

A service is what is up at the same time. The untuned model and the candidate take turns, adapters included.
An adapter could share a server with its base, but vLLM's CPU build (0.32) adds the adapter to the base's calls
as well (vllm pull request 48421): the untuned model would look like the tuned one. Most calls go to the untuned
model, and without an adapter in the engine they are faster too.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass
from pathlib import Path

from synth.core.calls import Endpoint
from synth.core.errors import ConfigError, RunError, did_you_mean
from synth.core.fingerprint import fingerprint
from synth.inference.client import Client, served_models
from synth.inference.endpoints import api_key
from synth.inference.weights import weights_revision
from tune.adapter import is_adapter, unservable
from tune.candidate import Candidate
from tune.contenders import WeightsName
from tune.exporting.report import check_made_of

Open = Callable[[], AbstractAsyncContextManager[Mapping[WeightsName, Endpoint]]]


@dataclass(frozen=True, slots=True)
class Weights:
    """What answers, as it stands in content keys: other weights have another name or revision."""

    model: str
    revision: str

    def to_json(self) -> dict[str, str]:
        """Return the entry of verdict.json."""
        return {"model": self.model, "revision": self.revision}


@dataclass(frozen=True, slots=True)
class Running:
    """A started service: `open` its endpoints, `check` raises InferenceError where its engine is dead."""

    open: Open
    check: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Service:
    """Weights that are up together. They are known before anything starts; `start` stops at the block's end."""

    weights: Mapping[WeightsName, Weights]
    start: Callable[[], AbstractContextManager[Running]]


def given(endpoints: Mapping[WeightsName, Endpoint]) -> list[Service]:
    """Return a service of endpoints that the caller has opened, for tests and for Python users."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Mapping[WeightsName, Endpoint]]:
        yield endpoints

    @contextmanager
    def start() -> Iterator[Running]:
        yield Running(opened, lambda: None)

    weights = {name: Weights(endpoint.model, endpoint.revision) for name, endpoint in endpoints.items()}
    return [Service(weights, start)]


def at_server(
    url: str, served: Mapping[WeightsName, str], candidate: Candidate, *, max_in_flight: int
) -> list[Service]:
    """Return the service of a server that runs already.

    What it has loaded cannot be seen from here, so its answers are journaled apart from those of a server
    that we start, and apart from those of another address.

    Args:
        url: up to `/v1`.
        served: the names of the untuned and the tuned model there.
        candidate: what is said to be served.
        max_in_flight: how many calls run at once.
    """
    place = fingerprint({"url": url, "candidate": weights_revision(candidate.folder)})[3:19]
    weights = {name: Weights(model, f"{candidate.revision}@{place}") for name, model in served.items()}

    @contextmanager
    def start() -> Iterator[Running]:
        names = asyncio.run(served_models(url, api_key()))
        for which, name in served.items():
            if names and name not in names:
                raise ConfigError(
                    f"the server does not serve {name!r}", where=f"--server-{which}", fix=did_you_mean(name, names)
                )
        yield Running(_clients(url, served, weights, max_in_flight, api_key()), lambda: None)

    return [Service(weights, start)]


def by_vllm(
    candidate: Candidate,
    *,
    log_path: Path,
    max_in_flight: int,
    merged: Path | None = None,
    args: Sequence[str] = (),
    on_progress: Callable[[str], None] | None = None,
) -> list[Service]:
    """Return the services that serve the saved candidate and its untuned model through vLLM.

    Both are asked through the chat template that was saved with the candidate.

    Args:
        candidate: what is served.
        log_path: where the servers' output goes.
        max_in_flight: how many calls run at once.
        merged: what `tune export --merge` made of the candidate, to be served in its place.
        args: passed through to vLLM.
        on_progress: told what a starting server does.

    Raises:
        ConfigError: the merged folder was made of other weights.
        RunError: vLLM cannot serve the candidate's adapter.
    """
    adapter = is_adapter(candidate.folder)
    if merged is not None:
        merged = merged.expanduser()
        check_made_of(merged, candidate)
    elif adapter and (why := unservable(candidate.folder)) is not None:
        raise RunError(
            f"vLLM does not serve this adapter beside its base: it has {why}",
            where=str(candidate.folder),
            fix=f"merge it with `tune export {candidate.folder} --merge --to FOLDER`, then judge that with "
            "--merged FOLDER",
        )
    template = ["--chat-template", str(candidate.chat_template)] if candidate.chat_template else []
    local = isinstance(candidate.student, Path)
    commit = ["--revision", candidate.revision] if candidate.revision and not local else []
    own = weights_revision(candidate.folder)
    base = Weights(candidate.student_name, candidate.revision)

    def service(
        model: str | Path,
        weights: Mapping[WeightsName, Weights],
        served: Mapping[WeightsName, str],
        adapters: Mapping[str, Path],
        extra: Sequence[str],
    ) -> Service:
        @contextmanager
        def start() -> Iterator[Running]:
            from synth.inference.server import VLLMServer  # needed only where a server is started

            with VLLMServer(
                model,
                log_path=log_path,
                served="model",
                adapters=adapters,
                args=[*template, *extra, *args],
                on_progress=on_progress,
            ) as server:
                yield Running(_clients(server.base_url, served, weights, max_in_flight, server.api_key), server.check)

        return Service(weights, start)

    tuned_name = f"{candidate.student_name}+{candidate.name}"
    if merged is not None:
        last = service(merged, {"tuned": Weights(tuned_name, weights_revision(merged))}, {"tuned": "model"}, {}, [])
    elif adapter:
        tuned = Weights(tuned_name, f"{candidate.revision}+{own}")
        last = service(candidate.student, {"tuned": tuned}, {"tuned": "tuned"}, {"tuned": candidate.folder}, commit)
    else:
        last = service(candidate.folder, {"tuned": Weights(tuned_name, own)}, {"tuned": "model"}, {}, [])
    return [service(candidate.student, {"base": base}, {"base": "model"}, {}, commit), last]


def _clients(
    url: str,
    served: Mapping[WeightsName, str],
    weights: Mapping[WeightsName, Weights],
    max_in_flight: int,
    key: str | None,
) -> Open:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Mapping[WeightsName, Endpoint]]:
        async with AsyncExitStack() as stack:
            endpoints: dict[WeightsName, Endpoint] = {}
            for which, name in served.items():
                client = Client(
                    url,
                    name,
                    model=weights[which].model,
                    revision=weights[which].revision,
                    api_key=key,
                    max_in_flight=max_in_flight,
                )
                endpoints[which] = await stack.enter_async_context(client)
            yield endpoints

    return opened
