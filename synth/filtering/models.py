"""The models' part of the filter: what a rule wants to know that only a model can say.

Only records that the other rules accept are shown to a model. Its calls are in the run's journal, so filtering again
asks nothing twice, and starts no server where the journal has all the answers.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from synth.core.errors import ConfigError, InferenceError, Interrupted
from synth.core.records import Judgement, Record
from synth.core.runs import Run
from synth.filtering.config import FilterConfig
from synth.filtering.judging import JudgedRecord, JudgingTally, judge_records, judging_settings
from synth.filtering.late import VIEW_SCORES, Late
from synth.filters.model_base import ModelScorer
from synth.filters.model_scorers import MODEL_SCORES, STUDENT_SCORES, model_scorers
from synth.filters.student_view import StudentView
from synth.inference.endpoints import find_model, open_endpoint
from synth.inference.journal import Journal
from synth.inference.lazy import LazyEndpoint
from synth.inference.weights import weights_revision

# So many records before a student at a time: enough for its batches, few enough to hold.
_PORTION = 512

Rows = Callable[[], Iterable[tuple[int, Record]]]
"""Gives the records to ask about, each with its row, as often as it is called."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What models made of all records that were shown to them: by row, and how many scores a model failed to give."""

    late: dict[int, Late]
    calls: int = 0
    replayed: int = 0
    failures: int = 0


def models_settings(config: FilterConfig, wanted: frozenset[str]) -> dict[str, Any]:
    """Return as JSON what the scores `wanted` depend on beside the records and the names of the models.

    Raises:
        ConfigError: a rubric is wrong.
    """
    weights = {}
    for spec in (config.judge, config.student):
        if spec is not None and Path(spec).is_dir():
            weights[spec] = weights_revision(Path(spec))
    return {**judging_settings(_scorers(config, wanted), model="", seed=config.seed), "weights": weights}


def _scorers(config: FilterConfig, wanted: frozenset[str]) -> list[ModelScorer]:
    rubric = None if config.rubric is None else Path(config.rubric)
    return model_scorers(wanted & MODEL_SCORES, votes=config.votes, rubric=rubric)


async def ask_models(
    run: Run,
    config: FilterConfig,
    wanted: frozenset[str],
    rows: Rows,
    *,
    stop: asyncio.Event,
    say: Callable[[str], None],
) -> Asked:
    """Ask for the scores `wanted` of the records that `rows` gives.

    Raises:
        ConfigError: a model is none, or a rubric is wrong.
        InferenceError: a model cannot be started, or is gone.
        Interrupted: `stop` was set; what was answered is in the journal.
    """
    late: dict[int, Late] = {}
    calls = replayed = failures = 0
    scorers = _scorers(config, wanted)
    students = [one for one in scorers if config.student is not None and set(one.scores) & STUDENT_SCORES]
    judges = [one for one in scorers if one not in students]
    for spec, own in ((config.judge, judges), (config.student, students)):
        if spec is None or not own:
            continue
        role = "teacher" if own is judges else "student"
        tally = await _ask(run, spec, role, own, rows, late, stop=stop, say=say, seed=config.seed)
        calls, replayed = calls + tally.calls, replayed + tally.replayed
        failures += tally.failures.total()
    if config.student is not None and wanted & VIEW_SCORES:
        source = await find_model(config.student, role="student")
        if source.weights is None:
            raise ConfigError(
                "a student at an endpoint cannot be asked for its loss", where="--student", fix="name its weights"
            )
        say(f"asking {source.name} for the loss of each answer")
        view = StudentView(source.weights)
        for portion in _portions(rows(), _PORTION):
            found = view.score([record for _, record in portion])
            for (row, _), given in zip(portion, found, strict=True):
                judgement = Judgement(view.name, source.name, (), given.remark)
                _merge(late, row, JudgedRecord(row, given.scores, (judgement,)))
            if stop.is_set():
                raise Interrupted("stopped while the student read the records", fix="run the same command again")
    return Asked(late, calls, replayed, failures)


async def _ask(
    run: Run,
    spec: str,
    role: str,
    scorers: Sequence[ModelScorer],
    rows: Rows,
    late: dict[int, Late],
    *,
    stop: asyncio.Event,
    say: Callable[[str], None],
    seed: int,
) -> JudgingTally:
    try:
        source = await find_model(spec, role=role)
    except ConfigError as error:
        flag = "--judge" if role == "teacher" else "--student"
        raise ConfigError(
            error.what, where=flag if error.where == f"--{role}" else error.where, fix=error.fix
        ) from error
    opening = open_endpoint(source, log_path=run.log_path("judge"), on_progress=say)
    counts = JudgingTally()

    def progress(tally: JudgingTally) -> None:
        nonlocal counts
        counts = tally
        if tally.records % 100 == 0:
            say(f"{tally.records} records before {source.name}, {tally.calls} calls, {tally.replayed} from the journal")

    lazy = LazyEndpoint(opening, model=source.name, revision=source.revision, stop=stop)
    async with lazy as endpoint, Journal(run.journal_path) as journal:
        judged = judge_records(rows(), scorers, endpoint, journal, seed=seed, stop=stop, on_progress=progress)
        async for one in judged:
            _merge(late, one.place, one)
    if counts.failed or counts.left:
        raise InferenceError(
            f"{counts.failed + counts.left} calls about records got no answer; nothing was decided",
            where=source.name,
            fix="run the same command again: answered calls come from the journal",
        )
    return counts


def _merge(late: dict[int, Late], row: int, given: JudgedRecord) -> None:
    known = late.get(row, Late())
    late[row] = Late(
        {**known.scores, **given.scores},
        (*known.judgements, *given.judgements),
        (*known.failed, *(failure.scorer for failure in given.failures)),
    )


def _portions(rows: Iterable[tuple[int, Record]], size: int) -> Iterator[list[tuple[int, Record]]]:
    unread = iter(rows)
    while portion := list(islice(unread, size)):
        yield portion
