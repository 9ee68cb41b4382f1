"""Batch: the calls of a run as files for a batch service, and the service's files back into the run.

A round is the generate stage with an endpoint that makes no call. What the journal does not answer is
written to a request file on the way out, and looked up in the output files on the way back; everything
else (prompts, seeds, schemas, checks, order) is the online path itself. A generator whose second call
needs the answer to its first takes two rounds.

    RUN/batch/job.json           documents and settings, so that later rounds need none
    RUN/batch/round-0001/        requests-00001-of-00002.jsonl, …
    RUN/batch/failures.jsonl     requests that came back with an error, and how often
    RUN/batch/waiting.jsonl      answers that no unit has asked for yet
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence, Set
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synth.batching.job import BatchJob, no_batch, the_job
from synth.batching.output_files import OutputLine, Outputs
from synth.batching.request_files import BYTES_PER_FILE, REQUESTS_PER_FILE, RequestWriter, copy_round, slot
from synth.batching.state import BatchState
from synth.core.calls import ChatRequest, Completion, Endpoint
from synth.core.errors import RefusedError, RunError
from synth.core.jsonl import write_jsonl
from synth.core.runs import Run
from synth.generate import GenerateSummary, Progress, UnitsLeft, run_generate
from synth.generation.gate import CallRefused
from synth.inference.journal import Journal
from synth.inference.payload import chat_body
from synth.inference.replies import quote

__all__ = [
    "BYTES_PER_FILE",
    "REQUESTS_PER_FILE",
    "BatchJob",
    "CollectSummary",
    "ExportSummary",
    "collect_batch",
    "export_batch",
]


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What an export wrote.

    `requests` stand in `files`; `outstanding` were written in an earlier round and have no output yet.
    `finished` is the stage's summary where every call is answered, and nothing was written.
    """

    round: int | None
    requests: int
    files: tuple[Path, ...]
    outstanding: int
    finished: GenerateSummary | None = None


@dataclass(frozen=True, slots=True)
class CollectSummary:
    """What became of the lines of output files: lines = answered + waiting + repeated + failed + unknown + unreadable.

    `answered` went into the journal; `waiting` answer calls that no unit has asked for yet; `repeated` were
    collected before, or are errors of requests that have an answer; `failed` are errors, sent again in the
    next round; `unknown` have a custom_id of no request of this run. `problems` quotes the last three kinds
    with their places. `next_round` requests are needed now; `outstanding` ones have no output yet. `finished`
    is the stage's summary where none is left.
    """

    lines: int
    answered: int
    waiting: int
    repeated: int
    failed: int
    unknown: int
    unreadable: int
    problems: tuple[str, ...]
    next_round: int
    outstanding: int
    finished: GenerateSummary | None = None


async def export_batch(
    run: Run,
    job: BatchJob | None = None,
    *,
    again: bool = False,
    requests_per_file: int = REQUESTS_PER_FILE,
    bytes_per_file: int = BYTES_PER_FILE,
    out: Path | None = None,
    stop: asyncio.Event | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> ExportSummary:
    """Write the calls that have no answer as files of a new round; where none is left, finish the stage.

    Args:
        run: the run; it needs a `job` the first time and none afterwards.
        job: what to ask.
        again: write also the requests of earlier rounds that have no output, which may then be paid twice.
        requests_per_file: the most requests of one file.
        bytes_per_file: the most bytes of one file.
        out: a folder that gets a copy of the round's folder.
        stop: set to stop; nothing is written.
        on_progress: called as `run_generate` does.

    Raises:
        ConfigError: the first export has no job, a later one another, or a setting does not fit batches.
        RunError: every call that is left is in an earlier round and has no output yet.
        Interrupted: `stop` was set.
    """
    with _locked(run) as folder:
        job = the_job(folder, job)
        state = BatchState(folder)
        with RequestWriter(folder / ".round.part", requests_per_file, bytes_per_file) as writer:

            def ask(key: str, request: ChatRequest) -> None:
                if again or not state.is_out(key):
                    writer.write(key, chat_body(request, job.teacher, logprobs=job.logprobs))
                else:
                    outstanding.add(slot(key))

            outstanding: set[bytes] = set()
            with Outputs(folder / "waiting.jsonl") as answers:
                finished = await _replay(run, job, _BatchEndpoint(job, answers, state, ask), stop, on_progress)
            if finished is not None:
                return ExportSummary(None, 0, (), 0, finished)
            if not writer.requests:
                raise RunError(
                    f"all {len(outstanding)} calls that are left are in round {state.rounds} and have no output yet",
                    where=str(folder),
                    fix=f"`synth batch collect {run.path} FILES`, or export with --again if their output is lost",
                )
            number = state.rounds + 1
            files = writer.finish(folder / f"round-{number:04d}")
        if out is not None:
            copy_round(files, out / files[0].parent.name)
        return ExportSummary(number, writer.requests, files, len(outstanding))


async def collect_batch(
    run: Run,
    files: Sequence[Path],
    *,
    stop: asyncio.Event | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> CollectSummary:
    """Take the output files of a batch service into the run; collecting a file twice changes nothing.

    Each reply is read and checked as one that came over HTTP. Where no call is left, the generate stage
    is finished and the run is what the online path would have made of the same replies.

    Args:
        run: a run that `export_batch` was called for.
        files: output files, and error files where the service writes errors apart; of any round, in any order.
        stop: set to stop; what was taken until then is in the journal.
        on_progress: called as `run_generate` does.

    Raises:
        RunError: there is no batch here, a file cannot be read, or no line of them belongs to this run.
        Interrupted: `stop` was set.
    """
    if not (run.path / "batch").is_dir():
        raise no_batch(run.path)
    with _locked(run) as folder:
        job = the_job(folder, None)
        state = BatchState(folder)
        needed, outstanding = set[bytes](), set[bytes]()
        waiting_path = folder / "waiting.jsonl"
        with Outputs(waiting_path, files) as answers:
            counts = _Counts()
            bad = list(answers.bad())
            answered = await _answered(run, {line.key for line in bad}, answers)
            for line in bad:
                counts.take(line, state, answered)
            state.save()

            def ask(key: str, request: ChatRequest) -> None:
                (outstanding if state.is_out(key) else needed).add(slot(key))

            finished = await _replay(run, job, _BatchEndpoint(job, answers, state, ask), stop, on_progress)
            waiting = [line async for line in _waiting(run, answers, state, counts)]
            lines = answers.lines
            counts.repeated += answers.doubled
            taken = lines - counts.total
            if lines and not taken and counts.unknown + counts.unreadable == lines:
                raise RunError(
                    f"none of {lines} lines belongs to this run; {counts.problems[0]}",
                    where=", ".join(map(str, files)),
                    fix="collect the output of the files that `synth batch export` wrote for it",
                )
            if waiting or waiting_path.exists():
                write_jsonl(waiting_path, waiting)
        return CollectSummary(
            lines=lines,
            answered=taken,
            waiting=counts.waiting,
            repeated=counts.repeated,
            failed=counts.failed,
            unknown=counts.unknown,
            unreadable=counts.unreadable,
            problems=tuple(counts.problems),
            next_round=len(needed),
            outstanding=len(outstanding),
            finished=finished,
        )


async def _replay(
    run: Run,
    job: BatchJob,
    endpoint: "_BatchEndpoint",
    stop: asyncio.Event | None,
    on_progress: Callable[[Progress], None],
) -> GenerateSummary | None:
    """Run the generate stage against what is there; None where calls are left."""

    @asynccontextmanager
    async def opening() -> AsyncIterator[Endpoint]:
        yield endpoint

    try:
        return await run_generate(
            run,
            job.documents,
            job.generate,
            opening(),
            teacher_name=job.teacher,
            teacher_revision=job.revision,
            tokenizer=job.tokenizer,
            finish_partly=False,
            stop=stop,
            on_progress=on_progress,
        )
    except UnitsLeft:
        return None


class _BatchEndpoint:
    """Answers from output files; what they do not answer is told to `ask`, and the unit is left for later."""

    def __init__(
        self, job: BatchJob, answers: Outputs, state: BatchState, ask: Callable[[str, ChatRequest], None]
    ) -> None:
        self._job, self._answers, self._state, self._ask = job, answers, state, ask

    @property
    def model(self) -> str:
        """The model's name at the service."""
        return self._job.teacher

    @property
    def revision(self) -> str:
        """The revision that the user named, or an empty string."""
        return self._job.revision

    async def complete(self, request: ChatRequest) -> Completion:
        """Return the answer that was collected.

        Raises:
            RefusedError: the request came back with an error as often as it may.
            CallRefused: there is no answer yet.
        """
        key = request.key(self.model, self.revision)
        completion = self._answers.take(key)
        if completion is not None:
            return completion
        tried = self._state.tries(key)
        if tried >= self._job.tries:
            raise RefusedError(f"no answer in {tried} tries; the last error: {self._state.reason(key)}")
        self._ask(key, request)
        raise CallRefused("the batch has no answer for this call yet")


@dataclass(slots=True)
class _Counts:
    waiting: int = 0
    repeated: int = 0
    failed: int = 0
    unknown: int = 0
    unreadable: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.waiting + self.repeated + self.failed + self.unknown + self.unreadable

    def take(self, line: OutputLine, state: BatchState, answered: Set[str]) -> None:
        """Count a line that is not good; an error of a request that another copy answered is none."""
        if not line.key:
            self.unreadable += 1
            self.problems.append(f"{line.where}: {line.reason}")
        elif not state.was_exported(line.key):
            self.stranger(line)
        elif line.key not in answered and state.failed(line):
            self.failed += 1
            self.problems.append(f"{line.where}: {line.reason}")
        else:
            self.repeated += 1

    def stranger(self, line: OutputLine) -> None:
        """Count a line that belongs to no request of the run."""
        self.unknown += line.counts
        self.problems.append(f"{line.where}: custom_id {quote(line.key)[:80]!r} is of no request of this run")


async def _answered(run: Run, keys: Set[str], answers: Outputs) -> set[str]:
    """Return which of the requests have an answer, in the journal or in the files."""
    if not keys:
        return set()
    with run.lock():
        async with Journal(run.journal_path) as journal:
            return {key for key in keys if key and (answers.holds(key) or journal.get(key) is not None)}


async def _waiting(run: Run, answers: Outputs, state: BatchState, counts: _Counts) -> AsyncIterator[Any]:
    """Count the good lines that no unit asked for, and yield those that answer a request of this run."""
    if not answers.left:
        return
    with run.lock():
        async with Journal(run.journal_path) as journal:
            for line, row in answers.unused():
                if journal.get(line.key) is not None:
                    counts.repeated += line.counts
                elif state.was_exported(line.key):
                    counts.waiting += line.counts
                    yield row
                else:
                    counts.stranger(line)


@contextmanager
def _locked(run: Run) -> Iterator[Path]:
    """Give the batch's folder while no other process exports or collects."""
    folder = run.path / "batch"
    folder.mkdir(exist_ok=True)
    with Run(folder).lock():
        yield folder
