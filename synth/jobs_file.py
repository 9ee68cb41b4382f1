"""The file of `synth jobs`: YAML with `jobs`, a list, and `defaults`, which stand in for what a job leaves out.

All faults of the file are found before the first job starts. Paths mean what they mean as flags: they
begin where the user stands.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from synth.core.config import build, read_config
from synth.core.errors import ConfigError, SynthError, did_you_mean
from synth.core.resources import BUNDLED, resource
from synth.documents.readers import check_source
from synth.filtering.config import FilterConfig
from synth.generate import GenerateConfig
from synth.generators.find import find_generator
from synth.job import (
    Job,
    check_job,
    joined_options,
    source_of,
)

_M = TypeVar("_M", bound=BaseModel)


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


_Texts = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class JobEntry(BaseModel):
    """One entry of `jobs`, in the words of `synth generate`. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str | None = None
    """What the job is called; the name of the run's folder unless given."""
    documents: _Texts = Field(min_length=1)
    """Files, folders and hub datasets: one, or a list."""
    run: str
    """The run's folder."""
    teacher: _Texts = Field(min_length=1)
    """A hub id, a folder, or the URLs of endpoints that serve the same model."""
    teacher_model: str | None = None
    """With a URL: the model's name there."""
    heldout: str | tuple[str, ...] = ()
    """Human questions that must not leak into the dataset."""
    vllm_args: _Texts = ()
    """Passed through to the vLLM server."""
    max_in_flight: int = Field(64, ge=1)
    """How many calls run at once, at most."""
    timeout: float = Field(600, gt=0)
    """The longest that one try of a call may take, in seconds."""
    retries: int = Field(5, ge=0)
    """How often a failed call is tried again."""
    stall_seconds: float = Field(180, gt=0)
    """How long our own server may make no progress before it is started again."""
    tokenizer: str | None = None
    """With a URL and passage_tokens: whose tokens are counted."""
    no_filter: bool = False
    """Stop before the filter."""
    generator: _Texts | None = None
    """The generators; the same as `generator` in `generate`."""
    generate: Mapping[str, Any] = Field(default_factory=dict)
    """Settings of the generate stage."""
    filter: Mapping[str, Any] = Field(default_factory=dict)
    """Settings of the filter."""


@dataclass(frozen=True, slots=True)
class NamedJob:
    """A job and what it is called in the file."""

    name: str
    job: Job
    judged_by: FilterConfig


async def read_jobs(path: Path, only: Sequence[str] = ()) -> list[NamedJob]:
    """Read a file of jobs and check all that can be checked before a call is made.

    Args:
        path: the YAML file.
        only: the names of the jobs to do; all unless given. The others are checked as well.

    Raises:
        ConfigError: names every fault of the file, with the job's name.
    """
    given = _read_yaml(path)
    faults = _unknown(given, ("jobs", "defaults"), "the file")
    defaults, entries = given.get("defaults") or {}, given.get("jobs")
    if not isinstance(entries, list) or not entries:
        faults.append("there is no list `jobs`")
        entries = []
    if isinstance(defaults, dict):
        defaults = _known_defaults(defaults, faults)
    else:
        faults.append("`defaults` is no mapping of settings")
        defaults = {}
    jobs: list[NamedJob] = []
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            faults.append(f"job {number} is no mapping of settings")
            continue
        reading = _Reading(_label(entry, number), faults)
        named = reading.job(defaults, entry)
        if named is not None:
            await reading.check(named)
            jobs.append(named)
    given_entries = [entry for entry in entries if isinstance(entry, dict)]
    # A run is one folder however it is spelled, and also where the defaults name it.
    runs = [run for entry in given_entries if isinstance(run := {**defaults, **entry}.get("run"), str)]
    folders = [Path(run).resolve() for run in runs]
    faults += [
        f"several jobs have the run {run!r}"
        for index, run in enumerate(runs)
        if folders.index(folders[index]) == index and folders.count(folders[index]) > 1
    ]
    labels = [_label(entry, number) for number, entry in enumerate(given_entries, 1)]
    faults += [f"several jobs have the name {label!r}" for label in dict.fromkeys(labels) if labels.count(label) > 1]
    if faults:
        raise ConfigError("".join(f"\n  {fault}" for fault in dict.fromkeys(faults)), where=str(path))
    known = [job.name for job in jobs]
    for name in only:
        if name not in known:
            raise ConfigError(f"no job is called {name!r}", where="--only", fix=did_you_mean(name, known))
    return [job for job in jobs if not only or job.name in only]


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", where=str(path)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        words = " ".join(str(error).split())
        raise ConfigError(f"not valid YAML ({words})", where=str(path)) from error
    if not isinstance(value, dict):
        raise ConfigError("is no mapping with a list `jobs`", where=str(path), fix="see docs/many-machines.md")
    return value


def _unknown(given: Mapping[Any, Any], known: Iterable[str], where: str) -> list[str]:
    names = tuple(known)
    return [
        f"{where}: unknown setting {str(name)!r} ({did_you_mean(str(name), names)})"
        for name in given
        if name not in names
    ]


def _known_defaults(defaults: Mapping[str, Any], faults: list[str]) -> dict[str, Any]:
    """Return the defaults without unknown keys, which are faults of their own and not of every job."""
    faults += _unknown(defaults, JobEntry.model_fields, "defaults")
    known = {key: value for key, value in defaults.items() if key in JobEntry.model_fields}
    for name, model in (("generate", GenerateConfig), ("filter", FilterConfig)):
        table = known.get(name)
        if isinstance(table, dict):
            faults += _unknown(table, model.model_fields, f"defaults, {name}")
            known[name] = {key: value for key, value in table.items() if key in model.model_fields}
    return known


def _label(entry: Mapping[str, Any], number: int) -> str:
    name = entry.get("name") or (Path(entry["run"]).name if isinstance(entry.get("run"), str) else None)
    return str(name) if name else f"number {number}"


class _Reading:
    """Reads one entry; each fault is noted with the job's name and does not keep the others from being found."""

    def __init__(self, label: str, faults: list[str]) -> None:
        self._label, self._faults = label, faults

    def job(self, defaults: Mapping[str, Any], given: Mapping[str, Any]) -> NamedJob | None:
        tables = _tables(defaults, given)
        entry = self._build(JobEntry, {**defaults, **given, **tables})
        bundled: Mapping[str, Mapping[str, Any]] = {}
        if entry is not None and entry.teacher == (BUNDLED,):
            bundled = read_config(resource("demo", "demo.toml"))
        flags = {"generator": None if entry is None else entry.generator}
        settings, rules = tables.get("generate", {}), tables.get("filter", {})
        generate = self._build(GenerateConfig, bundled.get("generate", {}), settings, flags, table="generate")
        shared = {"num_records": settings.get("num_records"), "seed": settings.get("seed")} if generate else {}
        judged_by = self._build(FilterConfig, bundled.get("filter", {}), shared, rules, table="filter")
        if entry is None or generate is None or judged_by is None:
            return None
        job = Job(
            documents=entry.documents,
            run=Path(entry.run),
            generate=generate,
            rules=judged_by,
            # A shard is filtered after its merge, when its twins in the other shards are known.
            filter=not (entry.no_filter or generate.shard),
            teacher=entry.teacher,
            teacher_model=entry.teacher_model,
            tokenizer=entry.tokenizer,
            heldout=tuple(map(Path, [entry.heldout] if isinstance(entry.heldout, str) else entry.heldout)),
            max_in_flight=entry.max_in_flight,
            timeout=entry.timeout,
            retries=entry.retries,
            stall_seconds=entry.stall_seconds,
            vllm_args=entry.vllm_args,
        )
        return NamedJob(self._label, job, judged_by)

    async def check(self, named: NamedJob) -> None:
        job = named.job
        with self._noted():
            check_job(job)
        for source in job.documents:
            with self._noted():
                check_source(source)
        for spec in job.generate.generator:
            with self._noted():
                find_generator(spec, job.generate.generator_options())
        if not any(spec.startswith(("http://", "https://")) for spec in job.teacher):
            # A model that we start is looked up without asking anyone; an endpoint may come up later.
            with self._noted():
                await source_of(job)

    def _build(self, model: type[_M], *layers: Mapping[str, Any], table: str = "") -> _M | None:
        where = f"job {self._label}" + (f", {table}" if table else "")
        try:
            return build(model, *layers, where=where)
        except ConfigError as error:
            self._faults.append(str(error))
            return None

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except SynthError as error:
            self._faults.append(f"job {self._label}: {error}")


def _tables(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Join `generate` and `filter` of the defaults and of a job, key by key, options by generator as well."""
    joined: dict[str, Any] = {}
    for name in ("generate", "filter"):
        layers = [layer[name] for layer in (defaults, given) if layer.get(name) is not None]
        if not all(isinstance(layer, dict) for layer in layers):
            continue
        joined[name] = {key: value for layer in layers for key, value in layer.items()}
        options = [layer["options"] for layer in layers if isinstance(layer.get("options"), dict)]
        if len(options) > 1 and all(isinstance(table, dict) for layer in options for table in layer.values()):
            joined[name]["options"] = joined_options(*options)
    # A job's own list of generators, wherever it stands, comes before that of the defaults.
    own = given.get("generate") or {}
    if "generator" in own and "generator" not in given:
        joined["generator"] = None
    return joined
