"""A list of jobs, one after another, with one server for each teacher.

Running the same file again goes on where it stopped; finished jobs start no server.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from synth.core.calls import Endpoint
from synth.core.errors import Interrupted, SynthError
from synth.core.runs import Run
from synth.inference.endpoints import ModelSource
from synth.job import (
    JobResult,
    check_number,
    judge_of,
    open_teacher,
    run_job,
    source_of,
)
from synth.jobs_file import NamedJob
from synth.live import LiveView


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """What became of a job. `result` is there where it was done; `reason` says why it was not."""

    name: str
    run: Path
    state: Literal["done", "failed", "interrupted", "not run"]
    seconds: float = 0.0
    result: JobResult | None = None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the outcome with its counts as JSON values."""
        generate = None if self.result is None else asdict(self.result.generate)
        filtered = None if self.result is None or self.result.filter is None else asdict(self.result.filter)
        return {
            "name": self.name,
            "run": str(self.run),
            "state": self.state,
            "seconds": round(self.seconds, 3),
            "generate": generate,
            "filter": filtered,
            "reason": self.reason or None,
        }


class SharedTeacher(AbstractAsyncContextManager[Endpoint]):
    """An endpoint that stays open from one job to the next; `close` ends it.

    Args:
        opening: makes what opens the endpoint; called again where it was closed after a failure.

    Attributes:
        say: told what the server does; each job has its own view.
    """

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[Endpoint]]) -> None:
        self.opening = opening
        self.say: Callable[[str], None] = lambda _: None
        self._open: AbstractAsyncContextManager[Endpoint] | None = None
        self._endpoint: Endpoint | None = None

    async def __aenter__(self) -> Endpoint:
        """Return the endpoint, opened by the first job that needs it."""
        if self._endpoint is None:
            opening = self.opening()
            self._endpoint = await opening.__aenter__()
            self._open = opening
        return self._endpoint

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Leave it open after a job that was done or stopped; after one that failed the next opens another.

        What ended a job need not say that the teacher is gone as well, and a dead one would fail the next job.
        """
        failed = error is not None and not isinstance(error, Interrupted)
        return await self.close(kind, error, trace) if failed else None

    async def close(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> bool | None:
        """Close the endpoint if it is open."""
        opened, self._open, self._endpoint = self._open, None, None
        return None if opened is None else await opened.__aexit__(kind, error, trace)


async def run_jobs(
    jobs: Sequence[NamedJob],
    stop: asyncio.Event,
    *,
    quiet: bool = False,
    say: Callable[[str], None] = lambda _: None,
    on_done: Callable[[JobOutcome], None] = lambda _: None,
) -> list[JobOutcome]:
    """Do the jobs and return what became of each, in the order of `jobs`.

    Jobs of one teacher follow each other, so that it is started once; teachers come in the order in which
    they are first named. A job that fails is an outcome, and the others go on.

    Args:
        jobs: from `read_jobs`.
        stop: when it is set, the job in work is drained and the rest is not run.
        quiet: show no progress.
        say: told which job begins.
        on_done: told each outcome as it comes.
    """
    outcomes: dict[str, JobOutcome] = {}

    def settle(outcome: JobOutcome) -> None:
        outcomes[outcome.name] = outcome
        on_done(outcome)

    for group in _by_teacher(jobs):
        shared, source = SharedTeacher(_unset), None
        try:
            for named in group:
                if stop.is_set():
                    settle(JobOutcome(named.name, named.job.run, "not run"))
                    continue
                say(f"{named.name}: {', '.join(named.job.documents)} → {named.job.run}")
                began, result, fault = time.monotonic(), None, None
                try:
                    source = source or await source_of(named.job)
                    result = await _do(named, group, source, shared, stop, quiet=quiet)
                    check_number(named.job, result)
                except SynthError as error:
                    fault = error
                settle(_outcome(named, time.monotonic() - began, result, fault))
        finally:
            await shared.close()
    return [outcomes[named.name] for named in jobs]


def _outcome(named: NamedJob, seconds: float, result: JobResult | None, fault: SynthError | None) -> JobOutcome:
    if fault is None:
        return JobOutcome(named.name, named.job.run, "done", seconds, result)
    state: Literal["interrupted", "failed"] = "interrupted" if isinstance(fault, Interrupted) else "failed"
    return JobOutcome(named.name, named.job.run, state, seconds, result, str(fault))


async def _do(
    named: NamedJob,
    group: Sequence[NamedJob],
    source: ModelSource,
    shared: SharedTeacher,
    stop: asyncio.Event,
    *,
    quiet: bool,
) -> JobResult:
    widest = replace(named.job, max_in_flight=max(other.job.max_in_flight for other in group))
    with LiveView(judge_of(named.judged_by), quiet=quiet) as view:
        log_path = Run(named.job.run).log_path("teacher")
        shared.say = view.say
        shared.opening = lambda: open_teacher(widest, source, log_path, lambda text: shared.say(text))
        return await run_job(named.job, view, stop, source=source, teacher=shared)


def _unset() -> AbstractAsyncContextManager[Endpoint]:
    raise AssertionError("each job says how its teacher is opened")


def _by_teacher(jobs: Sequence[NamedJob]) -> list[list[NamedJob]]:
    groups: dict[tuple[object, ...], list[NamedJob]] = {}
    for named in jobs:
        job = named.job
        # All that an open endpoint keeps from the job that opened it, but for max_in_flight: the widest will do.
        opened_with = (job.teacher, job.teacher_model, job.vllm_args, job.timeout, job.retries, job.stall_seconds)
        groups.setdefault(opened_with, []).append(named)
    return list(groups.values())


def check_outcomes(outcomes: Sequence[JobOutcome]) -> None:
    """Raise unless every job was done.

    Raises:
        Interrupted: the user stopped the list.
        SynthError: a job failed; the others were done.
    """
    undone = [outcome for outcome in outcomes if outcome.state != "done"]
    if any(outcome.state in {"interrupted", "not run"} for outcome in undone):
        raise Interrupted(
            f"stopped with {len(undone)} of {len(outcomes)} jobs not done",
            fix="run the same command again: it goes on where it was",
        )
    if undone:
        raise SynthError(
            f"{len(undone)} of {len(outcomes)} jobs failed: {', '.join(outcome.name for outcome in undone)}",
            fix="mend them and run the same command again: finished jobs are passed over",
        )
