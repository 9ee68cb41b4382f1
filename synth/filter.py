"""The filter stage: records in, scores, decisions and the dataset out.

A record is judged by rules over its scores, then against the held-out sets, then against its twins, and what is left
may be more than was asked for. Every reason is written beside its record; nothing is edited and nothing is dropped,
so running again with other rules costs no teacher call.

The records pass twice, in blocks, and never stand in memory all at once: the first pass says what can be said of
each alone (in several processes), the second writes what the corpus level has decided.
"""

import asyncio
import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import orjson

from synth.core.errors import ConfigError, RunError
from synth.core.heldout import HeldoutSet, load_heldout
from synth.core.jsonl import FileDigest, read_blocks
from synth.core.records import Decision, Record
from synth.core.runs import Run, StageEntry
from synth.core.signals import signals_as_usual, stop_on_signals
from synth.filtering.ablate import Ablation, ablate
from synth.filtering.config import FilterConfig
from synth.filtering.corpus import settle
from synth.filtering.dataset import decided, write_all, write_records
from synth.filtering.ledger import FilterSummary, Ledger, step
from synth.filtering.lines import Scored, Task, prepare, score_block, score_records_alone
from synth.filtering.models import ask_models
from synth.filtering.plan import COMBINED, GENERATED, Plan
from synth.filtering.portion import quality
from synth.filtering.spool import Spool
from synth.filtering.table import Columns, TableBuilder
from synth.filtering.workers import Workers
from synth.filters.base import Scorer, check_names, failed_reasons
from synth.filters.pii import mask_messages

# Raise it when a scorer changes its mind about the same text, so that no old decision passes for current.
FILTER_VERSION = 3

# A block is what one process scores at a time.
_BLOCK_BYTES = 1 << 20
# Below this, starting processes costs more than they save.
_WORTH_PROCESSES = 8 << 20

Heldout = Path | Sequence[Path] | None
Progress = Callable[[str], None]


def decide(
    records: Sequence[Record],
    config: FilterConfig,
    heldout: HeldoutSet | Sequence[HeldoutSet] | None = None,
    *,
    scorers: Sequence[Scorer] = (),
) -> list[Record]:
    """Return the records, in order, with their scores and a decision; the order decides nothing. No model is asked.

    Args:
        records: from records.jsonl; decisions they have are forgotten.
        config: the rules and the bounds.
        heldout: the questions that no pair may ask, or None.
        scorers: more scorers, for rules that name them.

    Raises:
        ConfigError: a rule cannot be read or names an unknown score.
    """
    sets = [] if heldout is None else [heldout] if isinstance(heldout, HeldoutSet) else heldout
    plan = Plan.of(config, sets, scorers=scorers)
    check_rules(plan, {name for record in records for name in record.scores})
    if not records:
        return []
    judged, scored = score_records_alone(records, plan)
    builder = TableBuilder()
    builder.add(scored)
    late = settle(builder.finish(), config)
    found = []
    for row, one in enumerate(judged):
        reasons = (*one.reasons, *((late[row],) if row in late else ()))
        found.append(one.record.decided(Decision(not reasons, reasons)))
    return found


def check_rules(plan: Plan, scores: set[str]) -> None:
    """Check that each rule names a score that the filter gives or that a record has.

    Raises:
        ConfigError: one does not; near matches are named.
    """
    check_names(plan.rules, {*plan.own, *(s.name for s in plan.scorers), *GENERATED, *scores})


def run_filter(
    run: Run,
    config: FilterConfig,
    heldout: Heldout = None,
    *,
    processes: int | None = None,
    say: Progress = lambda text: None,
) -> FilterSummary:
    """Decide on a run's records and write records.jsonl, the dataset and the stage's entry.

    A stage that is current is left as it is. The run is locked meanwhile.

    Args:
        run: a run whose stage "generate" is finished.
        config: the rules and the bounds.
        heldout: the held-out sets that the dataset must not leak; their text goes into no file.
        processes: how many processes score; None takes one a core where there are records enough.
        say: gets short texts about what is going on.

    Raises:
        ConfigError: a rule is wrong.
        RecordError: a line of records.jsonl or of a held-out file is wrong; the error names it.
        RunError: the run is locked, there is nothing to filter, or no record was kept; then the decisions
            stand in records.jsonl and there is no dataset.
    """
    work = filter_run(run, config, heldout, processes=processes, say=say)
    if config.judge is None and config.student is None:
        return _without_waiting(work)
    return asyncio.run(_stoppable(work, say))


def run_ablate(
    run: Run,
    config: FilterConfig,
    heldout: Heldout = None,
    *,
    processes: int | None = None,
    say: Progress = lambda text: None,
) -> tuple[int, list[Ablation]]:
    """Decide once more with each step left out; the run stays as it is.

    Args:
        run: as in `run_filter`.
        config: as in `run_filter`.
        heldout: as in `run_filter`.
        processes: as in `run_filter`.
        say: as in `run_filter`.

    Returns:
        How many records are kept with all steps, and what changes without each.

    Raises:
        SynthError: as `run_filter` does.
    """
    with run.lock(), Filtering.prepare(run, config, heldout) as stage:
        stage.first_pass(processes, say)
        assert stage.columns is not None
        return ablate(stage.columns, config, stage.plan.rules, stage.ledger.failing)


async def filter_run(
    run: Run,
    config: FilterConfig,
    heldout: Heldout = None,
    *,
    processes: int | None = None,
    say: Progress = lambda text: None,
    stop: asyncio.Event | None = None,
) -> FilterSummary:
    """Do what `run_filter` does, inside an event loop.

    It waits only for models; the rest holds the loop, and Ctrl-C ends it at once, since its files are whole or as
    they were.

    Args:
        run: as in `run_filter`.
        config: as in `run_filter`.
        heldout: as in `run_filter`.
        processes: as in `run_filter`.
        say: as in `run_filter`.
        stop: set to drain the calls in flight and raise Interrupted.

    Raises:
        SynthError: as `run_filter` does.
        Interrupted: `stop` was set.
    """
    with run.lock(), ExitStack() as files:
        with signals_as_usual():
            stage = files.enter_context(Filtering.prepare(run, config, heldout))
            if stage.is_current():
                return FilterSummary.from_counts(run.stages()["filter"].counts)
            stage.first_pass(processes, say)
        await stage.ask(stop or asyncio.Event(), say)
        with signals_as_usual():
            return stage.second_pass()


def _without_waiting(work: Coroutine[Any, Any, FilterSummary]) -> FilterSummary:
    """Return what a coroutine gives that has nothing to wait for; it needs no event loop, nor minds one."""
    try:
        work.send(None)
    except StopIteration as done:
        found: FilterSummary = done.value
        return found
    finally:
        work.close()
    raise AssertionError("the filter waited although no model was named")


async def _stoppable(work: Coroutine[Any, Any, FilterSummary], say: Progress) -> FilterSummary:
    with stop_on_signals(say) as stop:
        return await work


@dataclass(slots=True)
class Filtering:
    """One filter stage on its way: what it reads, and what the first pass found."""

    run: Run
    config: FilterConfig
    plan: Plan
    heldout: tuple[HeldoutSet, ...]
    settings: dict[str, Any]
    started: float
    ledger: Ledger
    digest: FileDigest | None = None
    columns: Columns | None = None
    spool: Spool | None = None
    notes: int = 0
    files: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Remove the temporary files."""
        self.files.close()

    @classmethod
    def prepare(cls, run: Run, config: FilterConfig, heldout: Heldout = None) -> Self:
        """Read everything but the records.

        Raises:
            ConfigError: a rule is wrong.
            RecordError: a line of a held-out file is wrong.
            RunError: the stage before is not finished.
        """
        started = time.monotonic()
        run.stage("generate", made_by=f"synth generate DOCS --run {run.path}")
        paths = [] if heldout is None else [heldout] if isinstance(heldout, Path) else heldout
        sets = tuple(load_heldout(path) for path in paths)
        plan = Plan.of(config, sets)
        settings = {
            "filter_version": FILTER_VERSION,
            **config.model_dump(mode="json"),
            "rules": [str(rule) for rule in plan.rules],
            "combined": None if plan.combined is None else asdict(plan.combined),
        }
        return cls(run, config, plan, sets, settings, started, Ledger())

    def inputs(self, records: FileDigest) -> dict[str, FileDigest]:
        """Return the digests of what the stage reads, `records` for records.jsonl as it was before any filter."""
        names = ["heldout", *(f"heldout:{number}" for number in range(2, len(self.heldout) + 1))]
        return {
            "records.jsonl": records,
            **{name: one.digest for name, one in zip(names, self.heldout, strict=False)},
        }

    def is_current(self) -> bool:
        """Whether the stage finished with these settings and its files are as it left them."""
        entry = self.run.stages().get("filter")
        # A records.jsonl that is as the stage left it holds the same records as it read.
        return entry is not None and self.run.is_current(
            "filter", self.settings, self.inputs(entry.inputs["records.jsonl"])
        )

    def first_pass(self, processes: int | None, say: Progress) -> None:
        """Score every record alone.

        Raises:
            ConfigError: a rule names a score that nothing gives.
            RecordError: a line of records.jsonl is wrong.
            RunError: there is no record, or the disk is full.
        """
        digest, builder, rows, names = hashlib.sha256(), TableBuilder(), 0, set[str]()
        self.spool = self.files.enter_context(Spool(self.run.path / ".records.scored.part"))
        for scored in self._scored(processes):
            self.spool.add(scored.lines)
            builder.add(scored)
            digest.update(scored.digests)
            self.ledger.take(scored)
            names |= scored.scores
            self.notes += scored.notes
            rows += len(scored.lines)
        if not rows:
            raise RunError(
                "there is no record to filter", where=str(self.run.records_path), fix="quarantine.jsonl says why"
            )
        check_rules(self.plan, names)
        self.digest, self.columns = FileDigest(digest.hexdigest(), rows), builder.finish()

    def _scored(self, processes: int | None) -> Iterator[Scored]:
        path = self.run.records_path
        blocks = ((str(path), block) for block in read_blocks(path, _BLOCK_BYTES))
        count = processes or _processes_for(path)
        if count == 1:
            yield from (score_block(self.plan, block) for block in blocks)
            return
        task = Task(self.config, tuple(one.path for one in self.heldout))
        with Workers(prepare, task, score_block, count=count) as workers:
            yield from workers.map(blocks)

    async def ask(self, stop: asyncio.Event, say: Progress) -> None:
        """Ask models for the scores that rules want of them, about the records that no other rule rejects.

        Raises:
            InferenceError: a model is gone.
            Interrupted: `stop` was set.
        """
        if not self.plan.late:
            return
        assert self.columns is not None and self.spool is not None
        wanted = self.plan.late - {COMBINED}
        asked = await ask_models(self.run, self.config, wanted, self._passing, stop=stop, say=say)
        say(f"models: {asked.calls} calls, {asked.replayed} answers from the journal, {asked.failures} without use")
        rules, steps = self.plan.late_rules, list(self.columns.steps)
        again = self.files.enter_context(Spool(self.run.path / ".records.judged.part"))
        for row, line in enumerate(self.spool.lines()):
            if row not in asked.late:
                again.add([line])
                continue
            record = asked.late.pop(row).applied_to(Record.from_json(orjson.loads(line)))
            if self.plan.combined is not None and COMBINED in self.plan.late:
                record = record.with_scores({COMBINED: self.plan.combined.value(record.scores)})
            reasons = failed_reasons(record, rules, {})
            self.columns.quality[row] = quality(record, self.plan.rules)
            if reasons:
                self.ledger.add(reasons)
                heads = list(dict.fromkeys(map(step, reasons)))
                steps += [head for head in heads if head not in steps]
                self.columns.only[row] = steps.index(heads[0]) if len(heads) == 1 else -2
                record = record.decided(Decision(False, tuple(reasons)))
            again.add([orjson.dumps(record.to_json(), option=orjson.OPT_APPEND_NEWLINE)])
        self.columns, self.spool = replace(self.columns, steps=tuple(steps)), again

    def _passing(self) -> Iterator[tuple[int, Record]]:
        """Yield the records that nothing speaks against so far, each with its row, in the order of the file."""
        assert self.columns is not None and self.spool is not None
        passing = self.columns.only == -1
        for row, line in enumerate(self.spool.lines()):
            if passing[row]:
                yield row, Record.from_json(orjson.loads(line))

    def second_pass(self) -> FilterSummary:
        """Decide on all records together and write the files.

        Raises:
            RunError: no record is kept, or the disk is full.
        """
        assert self.columns is not None and self.spool is not None and self.digest is not None
        columns = self.columns
        late = settle(columns, self.config)
        for reason in late.values():
            self.ledger.add([reason])
        passing = np.flatnonzero(columns.only == -1)
        keeping = passing[~np.isin(passing, np.fromiter(late, np.intp, len(late)))]
        self.ledger.kept = len(keeping)
        lines = (decided(line, late.get(row)) for row, line in enumerate(self.spool.lines()))
        run = self.run
        run.start_stage("filter")
        # An old dataset beside new decisions would pass for theirs if anything stopped the rest of this.
        run.train_path.unlink(missing_ok=True)
        run.validation_path.unlink(missing_ok=True)
        if not len(keeping):
            write_records(run, lines)
            raise _nothing_kept(run, FilterSummary.counted(self.ledger, self.plan.rules, train=0, validation=0))
        counts = np.bincount(columns.document[keeping], minlength=len(columns.documents))
        kept = Counter({name: int(n) for name, n in zip(columns.documents, counts, strict=True) if n})
        mask = mask_messages if self.config.pii == "mask" else None
        outputs = write_all(run, lines, kept, self.config.validation_share, self.config.seed, mask)
        summary = FilterSummary.counted(
            self.ledger,
            self.plan.rules,
            train=outputs["dataset/train.jsonl"].rows,
            validation=outputs["dataset/validation.jsonl"].rows,
        )
        entry = StageEntry(
            config=self.settings,
            inputs=self.inputs(self.digest),
            outputs=outputs,
            counts=summary.to_counts(),
            seconds=time.monotonic() - self.started,
        )
        run.finish_stage("filter", entry)
        return summary


def _processes_for(path: Path) -> int:
    try:
        size = path.stat().st_size
    except OSError:
        return 1  # the reader says what is wrong
    return max(1, min(len(os.sched_getaffinity(0)), size // _WORTH_PROCESSES))


def _nothing_kept(run: Run, summary: FilterSummary) -> RunError:
    name, count = max(summary.funnel, key=lambda item: item[1])
    return RunError(
        f"none of {summary.total} records was kept; {name} removed most of them ({count})",
        where=str(run.path),
        fix="read the reasons in records.jsonl, then run `synth filter` with other rules",
    )
