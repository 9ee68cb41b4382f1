"""Units of work: one generator on one passage in one round, many at a time, results in order."""

import asyncio
import traceback
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from synth.core.calls import Sampling
from synth.core.errors import ConfigError, InferenceError, RecordError, RunError, SynthError
from synth.core.record_file import check_record
from synth.core.records import Passage, Provenance, Record, content_id
from synth.generation.gate import CallRefused, Gate
from synth.generators.base import Generator, ReplyError
from synth.inference.journal import Journal
from synth.inference.lazy import LazyEndpoint
from synth.inference.teacher import JournaledTeacher

_Work = TypeVar("_Work")
_Result = TypeVar("_Result")

# So many units in a row without a reply mean that the teacher or the generator is broken, not that a passage is odd.
FAILURES_IN_A_ROW = 16
# That many refusals before the first answer mean that the endpoint takes none of our requests. It is more than are
# usually in flight, since refusals come faster than answers.
REFUSALS_IN_A_ROW = 256


@dataclass(frozen=True, slots=True)
class Unit:
    """One generator, one passage, one round (from 0)."""

    passage: Passage
    generator: Generator
    round: int = 0


@dataclass(frozen=True, slots=True)
class UnitResult:
    """What came of a unit.

    `calls` were answered, `replayed` of them from the journal; `failed` got no answer, `declined` are refused
    for good. Each answered call is one of `used` (a record names it), `refused` (its reply is in quarantine),
    or neither: a first reply that was asked for again, or a step on the way. `left`: a cap or a stop ended
    the unit before it gave anything.
    """

    records: tuple[Record, ...] = ()
    quarantine: tuple[dict[str, Any], ...] = ()
    calls: int = 0
    replayed: int = 0
    failed: int = 0
    declined: int = 0
    used: int = 0
    refused: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    left: bool = False


class BrokenGenerator(RunError):
    """A generator failed on so many passages in a row that it has to be mended."""


class UnitRunner:
    """Runs units against one teacher. A failure is a line of quarantine; a broken teacher ends the run.

    Args:
        endpoint: what answers; its model and revision stand in the keys. Where it cannot be opened, the run ends.
        journal: where answers are looked up and kept.
        sampling: for calls that name none.
        seed: the run's seed.
        gate: admits its calls, and is shut when the teacher is gone.
    """

    def __init__(self, endpoint: LazyEndpoint, journal: Journal, *, sampling: Sampling, seed: int, gate: Gate) -> None:
        self._endpoint, self._journal = endpoint, journal
        self._sampling, self._seed, self._gate = sampling, seed, gate
        self._failures = 0
        self._answered = False

    async def run(self, unit: Unit) -> UnitResult:
        """Return what came of the unit.

        Raises:
            InferenceError: so many units in a row failed that the teacher has to be gone.
            BrokenGenerator: it fails on every passage.
            RunError: the journal cannot be written.
        """
        teacher = JournaledTeacher(
            self._endpoint,
            self._journal,
            seed=self._seed,
            sampling=self._sampling,
            round=unit.round,
            gate=self._gate,
        )
        crash: str | None = None
        checked: list[Record | ReplyError]
        try:
            made = await unit.generator.generate(unit.passage, teacher)
            checked = [_checked(item, unit) for item in made]
        except asyncio.CancelledError as leaked:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Not ours: the generator cancelled something of its own and let that out.
            crash = _in_words(leaked, unit.generator)
            checked = [ReplyError(crash, "")]
        except Exception as raised:
            error = _leaf(raised)
            if isinstance(error, SynthError) and not isinstance(
                error, InferenceError | CallRefused | ConfigError | RecordError
            ):
                if error is raised:
                    raise
                raise error from raised
            if isinstance(error, InferenceError):
                checked = [error if isinstance(error, ReplyError) else ReplyError(str(error), "")]
            else:
                # A user's generator may fail on one odd passage; that is a line in quarantine.jsonl, not the end.
                crash = _in_words(error, unit.generator)
                checked = [ReplyError(crash, "")]
        # What is in flight is paid for, so its answers are kept.
        await teacher.settled()
        if teacher.ended is not None:
            if not isinstance(teacher.ended, CallRefused):
                raise teacher.ended
            return _result(unit, teacher, (), self._endpoint.model, left=True)
        if self._endpoint.failure is not None:
            self._gate.shut(self._endpoint.failure)
            raise self._endpoint.failure
        self._watch(teacher, checked, crash)
        return _result(unit, teacher, checked, self._endpoint.model)

    def _watch(self, teacher: JournaledTeacher, made: Sequence[Record | ReplyError], crash: str | None) -> None:
        """Stop the run when the teacher is gone or a generator fails on everything it meets."""
        self._answered = self._answered or bool(teacher.calls)
        # That a request is refused says something about the request, once another was answered.
        failed = crash or teacher.failed or (teacher.declined and not self._answered)
        if any(isinstance(item, Record) for item in made) or not failed:
            self._failures = 0
            return
        self._failures += 1
        if self._failures < (FAILURES_IN_A_ROW if crash or teacher.failed else REFUSALS_IN_A_ROW):
            return
        if crash:
            failure: SynthError = BrokenGenerator(
                f"{self._failures} passages in a row gave nothing; the last reason: {crash}",
                fix="mend the generator, then run the same command again: nothing answered is lost",
            )
        else:
            failure = InferenceError(
                f"{self._failures} passages in a row got no answer; the last reason: {teacher.last_failure}",
                fix="see that the teacher runs, then run the same command again: nothing answered is lost",
            )
        self._gate.shut(failure)
        raise failure


async def in_order(
    units: Iterable[_Work],
    run: Callable[[_Work], Awaitable[_Result]],
    *,
    ahead: int,
    stopped: Callable[[], bool] = lambda: False,
) -> AsyncGenerator[_Result]:
    """Yield the results in the order of `units`, at most `ahead` of them in work or waiting for their turn.

    When `stopped` says so, no new unit is begun; those in work are finished and yielded.
    """
    window: deque[asyncio.Future[_Result]] = deque()
    pending = iter(units)
    more = True
    try:
        while True:
            while more and len(window) < ahead:
                unit = None if stopped() else next(pending, None)
                if unit is None:
                    more = False
                    break
                window.append(asyncio.ensure_future(run(unit)))
            if not window:
                return
            result = await window[0]
            window.popleft()
            yield result
    finally:
        for task in window:
            task.cancel()
        await asyncio.gather(*window, return_exceptions=True)


def _leaf(error: Exception) -> Exception:
    """Return the error that decides; of a task group's errors: what ends the run, a refused call, a missing reply."""
    if not isinstance(error, ExceptionGroup):
        return error
    leaves = [_leaf(inner) for inner in error.exceptions]
    order = (CallRefused, InferenceError, Exception)
    broken = [leaf for leaf in leaves if isinstance(leaf, SynthError) and not isinstance(leaf, order[:2])]
    return next(iter(broken), None) or next(leaf for kind in order for leaf in leaves if isinstance(leaf, kind))


def _checked(item: object, unit: Unit) -> Record | ReplyError:
    if isinstance(item, Record):
        # A record of the wrong form would only show when a later stage reads the file.
        check_record(item, where=f"a record of generator {unit.generator.name}")
        return item
    if isinstance(item, ReplyError):
        return item
    raise TypeError(f"`generate` returned a {type(item).__name__}, not a Record or a ReplyError")


def _in_words(error: BaseException, generator: Generator) -> str:
    if isinstance(error, SynthError):
        return f"generator {generator.name} failed: {error}"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{frame.filename.rpartition('/')[2]}:{frame.lineno}"
    return f"generator {generator.name} failed: {type(error).__name__}: {error} ({place})"


def _result(
    unit: Unit, teacher: JournaledTeacher, made: Sequence[Record | ReplyError], model: str, *, left: bool = False
) -> UnitResult:
    calls = teacher.calls
    source = Provenance(
        teacher=model,
        # Hashing all prompts is work that only records without a provenance of their own need.
        prompt_sha256=teacher.prompt_sha256 if calls and any(_bare(item) for item in made) else "",
        call_keys=tuple(call.key for call in calls),
        prompt_tokens=sum(call.usage.prompt_tokens for call in calls),
        completion_tokens=sum(call.usage.completion_tokens for call in calls),
    )
    records = tuple(_with_source(item, source) for item in made if isinstance(item, Record))
    errors = [item for item in made if isinstance(item, ReplyError)]
    # A record may name a call of another unit too; that is counted there.
    used = {call.key for call in calls} & {key for record in records for key in record.provenance.call_keys}
    named = {key for error in errors for key in error.call_keys}
    raw = {error.raw for error in errors if error.raw and not error.call_keys}
    refused = {call.key for call in calls if call.key in named or call.text in raw}
    return UnitResult(
        records=records,
        quarantine=tuple(
            {
                "document_id": unit.passage.document_id,
                "passage_id": unit.passage.id,
                "generator": unit.generator.name,
                "reason": error.what,
                "raw": error.raw,
            }
            for error in errors
        ),
        calls=len(calls),
        replayed=teacher.replayed,
        failed=teacher.failed,
        declined=teacher.declined,
        used=len(used),
        refused=len(refused - used),
        prompt_tokens=source.prompt_tokens,
        completion_tokens=source.completion_tokens,
        left=left,
    )


def _bare(item: Record | ReplyError) -> bool:
    return isinstance(item, Record) and not item.provenance.call_keys


def _with_source(record: Record, source: Provenance) -> Record:
    """Fill in what the runtime knows of a record's provenance; what the generator said itself stays."""
    own = record.provenance
    if own.call_keys:
        if own.teacher:
            return record
        named = Provenance(source.teacher, own.prompt_sha256, own.call_keys, own.prompt_tokens, own.completion_tokens)
        return replace(record, provenance=named)
    return replace(
        record,
        id=content_id(record.id, list(source.call_keys)),
        provenance=replace(source, prompt_sha256=own.prompt_sha256 or source.prompt_sha256),
    )
