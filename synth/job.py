"""One job: documents, a teacher and settings in; records and, unless told otherwise, a dataset out.

`synth generate` runs one, `synth jobs` a list of them, `synth generate --preview` a small one that leaves nothing.
"""

import asyncio
import gc
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synth.core.calls import Endpoint
from synth.core.config import build
from synth.core.errors import ConfigError, Interrupted, RunError
from synth.core.heldout import HeldoutSet, load_heldout
from synth.core.records import Record
from synth.core.resources import BUNDLED
from synth.core.runs import Run
from synth.filter import decide, filter_run
from synth.filtering.config import FilterConfig
from synth.filtering.ledger import FilterSummary, step
from synth.filtering.plan import GENERATED, Plan
from synth.filtering.portion import judge_alone
from synth.generate import GenerateConfig, GenerateSummary, run_generate
from synth.inference.endpoints import ModelSource, find_teacher, open_endpoint
from synth.live import LiveView


@dataclass(frozen=True, slots=True)
class Job:
    """What to do. `rules` say what the filter accepts, also where `filter` is false and the job stops before it.

    `tokenizer` None means the teacher's own.

    `timeout` bounds one try of a call and `stall_seconds` how long a server of ours may make no progress before
    it is started again, both in seconds; `retries` says how often a failed call is tried again.
    """

    documents: tuple[str, ...]
    run: Path
    generate: GenerateConfig
    rules: FilterConfig = field(default_factory=lambda: build(FilterConfig))
    filter: bool = True
    teacher: tuple[str, ...] = (BUNDLED,)
    teacher_model: str | None = None
    tokenizer: str | None = None
    heldout: tuple[Path, ...] = ()
    max_in_flight: int = 64
    timeout: float = 600
    retries: int = 5
    stall_seconds: float = 180
    vllm_args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JobResult:
    """What became of a job."""

    run: Run
    generate: GenerateSummary
    filter: FilterSummary | None


def check_job(job: Job) -> list[HeldoutSet]:
    """Read the held-out files and the rules now: a fault in either should not show after hours of calls.

    Raises:
        ConfigError: a rule is wrong.
        RecordError: a line of a held-out file is wrong.
    """
    sealed = [load_heldout(path) for path in job.heldout]
    decide([], job.rules, sealed)
    return sealed


def check_flags(job: Job) -> None:
    """Refuse what the user wrote where it would do nothing.

    Raises:
        ConfigError: a model's name without an endpoint, or arguments for vLLM with one.
    """
    remote = any(spec.startswith(("http://", "https://")) for spec in job.teacher)
    if job.teacher_model is not None and not remote:
        raise ConfigError(
            "a model's name is for an endpoint", where="--teacher-model", fix="name the model with --teacher"
        )
    if job.vllm_args and remote:
        raise ConfigError(
            "these are for a server that synth starts", where="--vllm-arg", fix="set them at the endpoint"
        )


def settings_of(job: Job) -> GenerateConfig:
    """Return the settings of the generate stage, with log probabilities where a rule needs the score they give."""
    needs = any(rule.score in GENERATED for rule in job.rules.rules_in_force())
    return job.generate.model_copy(update={"logprobs": True}) if needs else job.generate


def judge_of(config: FilterConfig) -> Callable[[Sequence[Record]], list[str | None]]:
    """Return a function that says why the rules reject each record, or None; duplicates and leaks come later."""
    plan = Plan.of(config.model_copy(update={"scores": "ruled"}))

    def judge(records: Sequence[Record]) -> list[str | None]:
        return [step(one.reasons[0]) if one.reasons else None for one in judge_alone(records, plan)]

    return judge


async def run_job(
    job: Job,
    view: LiveView,
    stop: asyncio.Event,
    *,
    source: ModelSource | None = None,
    teacher: AbstractAsyncContextManager[Endpoint] | None = None,
) -> JobResult:
    """Generate and filter.

    Args:
        job: what to do.
        view: where progress is shown.
        stop: set to drain and raise Interrupted.
        source: the teacher, where it is known already.
        teacher: an endpoint of it that is shared with other jobs; one is opened unless given.

    Raises:
        SynthError: as `run_generate` and `run_filter` do.
        RunError: fewer records than `num_records` were kept; they are in the dataset.
    """
    sealed = check_job(job)
    config = job.rules
    source = source or await source_of(job)
    run = Run.create(job.run)
    teacher = teacher or open_teacher(job, source, run.log_path("teacher"), view.say)

    def accept(records: Sequence[Record]) -> int:
        return sum(r.decision is not None and r.decision.keep for r in decide(records, config, sealed))

    summary = await run_generate(
        run,
        job.documents,
        settings_of(job),
        teacher,
        teacher_name=source.name,
        teacher_revision=source.revision,
        tokenizer=job.tokenizer or source.weights,
        max_in_flight=job.max_in_flight * max(1, len(source.urls)),
        accept=accept,
        heldout=[one.digest for one in sealed],
        stop=stop,
        on_progress=view.update,
    )
    filtered = None
    if job.filter:
        if stop.is_set():
            raise Interrupted(
                "stopped before the filter", fix=f"run the same command again, or `synth filter {run.path}`"
            )
        view.say("filtering")
        filtered = await filter_run(run, job.rules, job.heldout, stop=stop, say=view.say)
    return JobResult(run, summary, filtered)


async def source_of(job: Job) -> ModelSource:
    """Find out what the job's teacher is, without starting anything.

    Raises:
        ConfigError: it is no model and no URL, or the endpoint does not serve it.
        InferenceError: nobody answers at the URL.
    """
    return await find_teacher(job.teacher, served=job.teacher_model)


def open_teacher(
    job: Job, source: ModelSource, log_path: Path, say: Callable[[str], None]
) -> AbstractAsyncContextManager[Endpoint]:
    """Return the job's teacher, to be opened."""
    return open_endpoint(
        source,
        log_path=log_path,
        max_in_flight=job.max_in_flight,
        timeout=job.timeout,
        retries=job.retries,
        stall_seconds=job.stall_seconds,
        server_args=job.vllm_args,
        on_progress=say,
    )


def check_number(job: Job, result: JobResult) -> None:
    """Raise where fewer records were kept than asked for.

    Raises:
        RunError: what was kept is in the dataset.
    """
    wanted = job.generate.num_records
    if result.filter is None and wanted is not None and result.generate.wanting:
        raise RunError(
            f"fewer than the {wanted} records asked for were accepted; what came is in records.jsonl",
            where=str(result.run.path),
            fix="add documents, raise --max-rounds or the cap, or loosen a rule",
        )
    if result.filter is not None and wanted is not None and result.filter.kept < wanted:
        capped = f"; {result.generate.capped} was reached" if result.generate.capped else ""
        raise RunError(
            f"kept {result.filter.kept} of the {wanted} records asked for{capped}; they are in the dataset",
            where=str(result.run.path),
            fix="add documents, raise --max-rounds or the cap, or loosen a rule",
        )


def calm_collector() -> None:
    """Make Python's garbage collector look less often, for a process that does nothing but generate.

    A stage makes many objects that live as long as their call and few cycles. Looking through all of
    them again and again took a third of the time (bench/stage.py); counting references frees nearly everything.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def parse_options(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read `NAME.KEY=VALUE` settings of generators; the value is TOML, or else plain text.

    Raises:
        ConfigError: a text is not of that form.
    """
    options: dict[str, dict[str, Any]] = {}
    for text in texts:
        target, equals, value = text.partition("=")
        name, dot, key = target.rpartition(".")
        if not (equals and dot and name and key):
            raise ConfigError(
                f"{text!r} is no option", where="--option", fix="write NAME.KEY=VALUE: qa.pairs_per_passage=4"
            )
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed = value
        options.setdefault(name, {})[key] = parsed
    return options


def joined_options(*layers: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Join the options of a config file and of flags; later layers win, key by key."""
    joined: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for name, table in layer.items():
            joined[name] = {**joined.get(name, {}), **table}
    return joined
