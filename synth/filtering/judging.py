"""Records before a model: many at a time, every answered call in the journal, results in the order of the records.

Records stream through: memory holds those in work and no more. A kill loses at most the calls in flight; running
again asks for those alone. A call without a reply of use is counted and named, and its scores are None.
"""

import asyncio
import contextlib
import math
import traceback
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from synth.core.asking import ReplyError
from synth.core.calls import Endpoint, Sampling
from synth.core.errors import ConfigError, InferenceError, Interrupted, RunError, SynthError
from synth.core.records import Judgement, Record
from synth.filters.model_base import ModelScorer, ModelScores
from synth.generation.config import GenerateConfig
from synth.generation.gate import CallRefused, Gate
from synth.generation.units import FAILURES_IN_A_ROW, REFUSALS_IN_A_ROW, in_order
from synth.inference.journal import Journal
from synth.inference.lazy import LazyEndpoint
from synth.inference.teacher import JournaledTeacher

# Raise it when the same replies come to mean other scores.
JUDGING_VERSION = 1

# Marks are to be repeatable; votes differ by their order, not by chance alone.
SAMPLING = Sampling(temperature=0.0, top_p=1.0, max_tokens=512)

# So many records for each call in flight are begun before the first of them is done.
_AHEAD = 2


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a scorer has no scores for a record; `raw` is the reply that was of no use, or empty.

    `crashed`: it is the scorer that is broken, not the model.
    """

    scorer: str
    reason: str
    raw: str = ""
    crashed: bool = False


@dataclass(frozen=True, slots=True)
class JudgedRecord:
    """What the models made of one record.

    `place` is the number that it came with. `scores` has every score of every scorer, None where one does not apply
    or failed; `failures` tells the two apart. `left`: a cap or a stop ended the work on it, and it has no scores.
    """

    place: int
    scores: Mapping[str, float | None]
    judgements: tuple[Judgement, ...] = ()
    failures: tuple[Failure, ...] = ()
    left: bool = False

    def applied_to(self, record: Record) -> Record:
        """Return the record with these scores and judgements; those of the same names and scorers are replaced."""
        mine = {judgement.scorer for judgement in self.judgements}
        others = tuple(judgement for judgement in record.judgements if judgement.scorer not in mine)
        return replace(record, scores={**record.scores, **self.scores}, judgements=(*others, *self.judgements))


@dataclass(slots=True)
class JudgingTally:
    """Counts so far; `records` = those with results + `left`.

    `calls` were answered now, `replayed` came from the journal, `failed` got no answer, `declined` are refused for
    good. `failures` counts, by scorer, the records for which it has no scores although it applies.
    """

    records: int = 0
    left: int = 0
    calls: int = 0
    replayed: int = 0
    failed: int = 0
    declined: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    failures: Counter[str] = field(default_factory=Counter)


async def judge_records(
    records: Iterable[tuple[int, Record]],
    scorers: Sequence[ModelScorer],
    endpoint: Endpoint,
    journal: Journal,
    *,
    seed: int = 0,
    sampling: Sampling = SAMPLING,
    max_in_flight: int = 64,
    stop: asyncio.Event | None = None,
    gate: Gate | None = None,
    on_progress: Callable[[JudgingTally], None] = lambda _: None,
) -> AsyncGenerator[JudgedRecord]:
    """Yield what the scorers make of each record, in the order of `records`, whatever order replies come in.

    The calls about one record follow one another, and records are begun in their order: give those of one passage
    one after the other, and a server with a prefix cache reads the passage once.

    Args:
        records: each with a number of the caller's. Read as they are needed; at most 2 × `max_in_flight` are held.
        scorers: asked in this order.
        endpoint: what answers; its model and revision stand in the journal's keys.
        journal: open, and this process's alone (the run's lock sees to that).
        seed: each call's own is derived from it.
        sampling: for calls that name none.
        max_in_flight: how many calls run at once.
        stop: when it is set no call is made any more; those in flight are finished and journaled.
        gate: admits the calls, for caps; made from `max_in_flight` and `stop` unless given.
        on_progress: told the counts after each record.

    Raises:
        Interrupted: `stop` was set before the last record was done; all before it were yielded.
        InferenceError: so many records in a row got no answer that the endpoint has to be gone.
        ConfigError: two scorers share a name or a score.
        RunError: the journal cannot be written, or a scorer fails on every record.
    """
    _check_names(scorers)
    stop = stop or asyncio.Event()
    gate = gate or Gate(GenerateConfig.model_validate({}), endpoint.model, max_in_flight=max_in_flight, stop=stop)
    tally = JudgingTally()
    judging = _Judging(scorers, endpoint, journal, seed, sampling, gate, tally)
    unread = _Unread(records)
    results = in_order(unread, judging.judge, ahead=_AHEAD * max_in_flight, stopped=lambda: gate.shut_down)
    async with contextlib.aclosing(results):
        async for judged in results:
            tally.records += 1
            tally.left += judged.left
            tally.failures.update(failure.scorer for failure in judged.failures)
            on_progress(tally)
            yield judged
    if stop.is_set() and (tally.left or unread.more):
        raise Interrupted("stopped while a model judged the records", fix="run the same command again to go on")


def judging_settings(
    scorers: Sequence[ModelScorer], *, model: str, revision: str = "", seed: int = 0, sampling: Sampling = SAMPLING
) -> dict[str, Any]:
    """Return as JSON what the scores depend on beside the records: where it is equal, old scores are as good as new."""
    return {
        "judging_version": JUDGING_VERSION,
        "model": model,
        "revision": revision,
        "seed": seed,
        "sampling": asdict(sampling),
        "scorers": {scorer.name: dict(getattr(scorer, "settings", {})) for scorer in scorers},
    }


class _Judging:
    """The work on one record, and the watch over all."""

    def __init__(
        self,
        scorers: Sequence[ModelScorer],
        endpoint: Endpoint,
        journal: Journal,
        seed: int,
        sampling: Sampling,
        gate: Gate,
        tally: JudgingTally,
    ) -> None:
        self._scorers, self._endpoint, self._journal = scorers, endpoint, journal
        self._seed, self._sampling, self._gate, self._tally = seed, sampling, gate, tally
        self._failed_in_a_row = 0
        self._answered = False

    async def judge(self, item: tuple[int, Record]) -> JudgedRecord:
        """Ask every scorer about one record."""
        place, record = item
        scores: dict[str, float | None] = {}
        judgements: list[Judgement] = []
        failures: list[Failure] = []
        for scorer in self._scorers:
            # One for each scorer: what another asked does not change the numbers of its calls.
            teacher = JournaledTeacher(
                self._endpoint, self._journal, seed=self._seed, sampling=self._sampling, gate=self._gate
            )
            outcome = await self._ask(scorer, record, teacher)
            self._count(teacher)
            if teacher.ended is not None:
                if not isinstance(teacher.ended, CallRefused):
                    raise teacher.ended
                return JudgedRecord(place, {}, left=True)
            if isinstance(self._endpoint, LazyEndpoint) and self._endpoint.failure is not None:
                self._gate.shut(self._endpoint.failure)
                raise self._endpoint.failure
            self._watch(teacher, outcome)
            keys = tuple(call.key for call in teacher.calls)
            if isinstance(outcome, Failure):
                failures.append(outcome)
                outcome = ModelScores(dict.fromkeys(scorer.scores), f"failed: {outcome.reason}", keys)
            scores.update(outcome.scores)
            if keys:
                judged_by = self._endpoint.model
                judgements.append(Judgement(scorer.name, judged_by, outcome.call_keys or keys, outcome.remark))
        return JudgedRecord(place, scores, tuple(judgements), tuple(failures))

    async def _ask(self, scorer: ModelScorer, record: Record, teacher: JournaledTeacher) -> ModelScores | Failure:
        try:
            outcome: ModelScores | Failure = _checked(await scorer.score(record, teacher), scorer)
        except ReplyError as error:
            outcome = Failure(scorer.name, str(error), error.raw)
        except InferenceError as error:
            outcome = Failure(scorer.name, str(error))
        except ConfigError:
            raise
        except SynthError as error:
            if teacher.ended is None:
                raise
            outcome = Failure(scorer.name, str(error))
        except Exception as error:
            # A user's scorer may fail on one odd record; that is one score less, not the end.
            outcome = Failure(scorer.name, _in_words(error), crashed=True)
        # What is in flight is paid for, so its answers are kept.
        await teacher.settled()
        return outcome

    def _count(self, teacher: JournaledTeacher) -> None:
        calls, tally = teacher.calls, self._tally
        tally.calls += len(calls) - teacher.replayed
        tally.replayed += teacher.replayed
        tally.failed += teacher.failed
        tally.declined += teacher.declined
        tally.prompt_tokens += sum(call.usage.prompt_tokens for call in calls)
        tally.completion_tokens += sum(call.usage.completion_tokens for call in calls)

    def _watch(self, teacher: JournaledTeacher, outcome: ModelScores | Failure) -> None:
        """Stop when the endpoint is gone or a scorer fails on everything it meets; a reply of no use is neither."""
        self._answered = self._answered or bool(teacher.calls)
        crashed = isinstance(outcome, Failure) and outcome.crashed
        declined = teacher.declined and not self._answered
        if not (crashed or teacher.failed or declined):
            if teacher.calls:
                self._failed_in_a_row = 0
            return
        self._failed_in_a_row += 1
        if self._failed_in_a_row < (FAILURES_IN_A_ROW if crashed or teacher.failed else REFUSALS_IN_A_ROW):
            return
        again = "then run the same command again: nothing answered is lost"
        count = self._failed_in_a_row
        if isinstance(outcome, Failure) and crashed:
            reason = f"{count} records in a row were not scored; the last reason: {outcome.reason}"
            failure: SynthError = RunError(reason, where=f"scorer {outcome.scorer}", fix=f"mend the scorer, {again}")
        else:
            reason = f"{count} records in a row got no answer; the last reason: {teacher.last_failure}"
            failure = InferenceError(reason, fix=f"see that the model runs, {again}")
        self._gate.shut(failure)
        raise failure


class _Unread:
    """The records as they are read; `more` says whether some may be left."""

    def __init__(self, records: Iterable[tuple[int, Record]]) -> None:
        self.more = True
        self._records = records

    def __iter__(self) -> Iterator[tuple[int, Record]]:
        yield from self._records
        self.more = False


def _check_names(scorers: Sequence[ModelScorer]) -> None:
    for what, names in (
        ("scorers", [scorer.name for scorer in scorers]),
        ("scores", [name for scorer in scorers for name in scorer.scores]),
    ):
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        if twice:
            raise ConfigError(f"two {what} share the name {twice[0]!r}", fix="rename one")


def _checked(outcome: ModelScores, scorer: ModelScorer) -> ModelScores:
    """Return the scores rounded, those not named None."""
    unknown = sorted(outcome.scores.keys() - set(scorer.scores))
    if unknown:
        raise ValueError(f"it gave a score {unknown[0]!r} that its `scores` does not name")
    values = {name: outcome.scores.get(name) for name in scorer.scores}
    for name, value in values.items():
        if value is not None and not math.isfinite(value):
            raise ValueError(f"its score {name!r} is {value}")
    rounded = {name: None if value is None else round(float(value), 4) for name, value in values.items()}
    return replace(outcome, scores=rounded)


def _in_words(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({frame.filename.rpartition('/')[2]}:{frame.lineno})"
