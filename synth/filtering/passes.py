"""The two passes of the filter stage over a run's records."""

import asyncio
import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import orjson

from synth.core.embedding import Embedder, load_embedder
from synth.core.errors import RunError, did_you_mean
from synth.core.heldout import HeldoutSet, load_heldout
from synth.core.jsonl import FileDigest, digest_file, read_blocks, write_json
from synth.core.records import Record
from synth.core.runs import Run, StageEntry
from synth.filtering.config import FILTER_VERSION, FilterConfig
from synth.filtering.corpus import settle
from synth.filtering.dataset import decided, write_all, write_records
from synth.filtering.late import Late
from synth.filtering.ledger import FilterSummary, Ledger, step
from synth.filtering.lines import Scored, Task, prepare, score_block
from synth.filtering.meaning import Meaning, read_meaning, reason
from synth.filtering.models import ask_models, models_settings
from synth.filtering.plan import Plan, check_rules
from synth.filtering.portion import quality
from synth.filtering.report import FilterReport, Variety, topics_of
from synth.filtering.spool import Spool
from synth.filtering.table import Columns, TableBuilder
from synth.filtering.workers import Workers
from synth.filters.base import failed_reasons
from synth.filters.find import scorer_digests
from synth.filters.leaks import Leak, LeakReport
from synth.filters.pii import mask_messages, pii_scorer
from synth.filters.rules_file import COMBINED
from synth.inference.address import Address

# A block is what one process scores at a time.
_BLOCK_BYTES = 1 << 20
# Below this, starting processes costs more than they save.
_WORTH_PROCESSES = 8 << 20

Heldout = Path | Sequence[Path] | None
Progress = Callable[[str], None]


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
    leaks: dict[int, list[Leak]] = field(default_factory=dict)
    in_passages: set[Leak] = field(default_factory=set)
    late: dict[int, Late] = field(default_factory=dict)
    reasons: dict[int, list[str]] = field(default_factory=dict)
    embedder: Embedder | None = None
    meaning: Meaning | None = None
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
        # One file named twice is one file: its items count once.
        once: dict[Path, Path] = {}
        for path in paths:
            once.setdefault(path.resolve(), path)
        sets = tuple(load_heldout(path) for path in once.values())
        plan = Plan.of(config, sets)
        embedder = None if config.embedder is None else load_embedder(config.embedder)
        if config.pii == "mask":
            # What it needs and is not there should show now, and not when the dataset is written.
            pii_scorer()
        settings = {
            "filter_version": FILTER_VERSION,
            **config.model_dump(mode="json"),
            "rules": [str(rule) for rule in plan.rules],
            "combined": None if plan.combined is None else asdict(plan.combined),
            "models": models_settings(config, plan.late - {COMBINED}) if plan.late else None,
            "embedder": None if embedder is None else embedder.name,
            # A URL may hold a password.
            **{name: _shown(spec) for name, spec in (("judge", config.judge), ("student", config.student))},
        }
        return cls(run, config, plan, sets, settings, started, Ledger(), embedder=embedder)

    def warn(self, say: Progress) -> None:
        """Say what the user should know before anything is decided."""
        file = self.config.rules_file()
        if file is not None and file.filter_version != FILTER_VERSION:
            say(
                f"{self.config.rules} is of version {file.filter_version} of the filter, this is {FILTER_VERSION}: "
                "some scores may have changed, so calibrate again"
            )

    def inputs(self, records: FileDigest) -> dict[str, FileDigest]:
        """Return the digests of what the stage reads, `records` for records.jsonl as it was before any filter."""
        names = ["heldout", *(f"heldout:{number}" for number in range(2, len(self.heldout) + 1))]
        return {
            "records.jsonl": records,
            **{name: one.digest for name, one in zip(names, self.heldout, strict=False)},
            # A scorer of the user's is edited between two runs; the same name is not the same scorer then.
            **{f"scorer:{spec}": FileDigest(digest, 0) for spec, digest in scorer_digests(self.config.scorer).items()},
        }

    def is_current(self) -> bool:
        """Whether the stage finished with these settings and its files are as it left them."""
        entry = self.run.stages().get("filter")
        # A records.jsonl that is as the stage left it holds the same records as it read.
        read = None if entry is None else entry.inputs.get("records.jsonl")
        return read is not None and self.run.is_current("filter", self.settings, self.inputs(read))

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
            self.leaks.update({rows + place: list(leaks) for place, leaks in scored.leaks.items()})
            self.in_passages |= scored.in_passages
            rows += len(scored.lines)
        if not rows:
            raise RunError(
                "there is no record to filter", where=str(self.run.records_path), fix="quarantine.jsonl says why"
            )
        check_rules(self.plan, names)
        self.digest, self.columns = FileDigest(digest.hexdigest(), rows), builder.finish()
        for kind in sorted(set(self.config.bounds().max_per_kind or ()) - set(self.columns.kinds)):
            say(f"--max-per-kind: no record is of the kind {kind!r}; {did_you_mean(kind, self.columns.kinds)}")

    def _scored(self, processes: int | None) -> Iterator[Scored]:
        path = self.run.records_path
        blocks = ((str(path), block) for block in read_blocks(path, _BLOCK_BYTES))
        count = _processes_for(path, processes)
        if any(spec.startswith("__main__:") for spec in self.config.scorer):
            count = 1  # what stands in the program itself is not there in another process
        if count == 1:
            yield from (score_block(self.plan, block) for block in blocks)
            return
        task = Task(self.config, tuple(one.path for one in self.heldout))
        with Workers(prepare, task, score_block, count=count) as workers:
            yield from workers.map(blocks)

    def read_meaning(self, say: Progress) -> None:
        """Embed the records that one rule at most rejects, and find those that reword a held-out question."""
        if self.embedder is None:
            return
        columns, spool = self.found()
        say(f"embedding with {self.embedder.name}")
        wanted = columns.sketch >= 0
        records = ((row, _record(line)) for row, line in enumerate(spool.lines()) if wanted[row])
        self.meaning, leaks = read_meaning(records, self.embedder, self.config.duplicates_on, self.plan.index)
        for row, leak in leaks.items():
            known = self.leaks.setdefault(row, [])
            if (leak.file, leak.item_id) not in {(other.file, other.item_id) for other in known}:
                known.append(leak)
                if self.config.reworded == "reject":
                    self._reject(row, [reason(leak)])

    async def ask(self, stop: asyncio.Event, say: Progress) -> None:
        """Ask models for the scores that rules want of them, about the records that nothing else speaks against.

        Raises:
            InferenceError: a model is gone.
            Interrupted: `stop` was set.
        """
        if not self.plan.late:
            return
        asked = await ask_models(self.run, self.config, self.plan.late - {COMBINED}, self._passing, stop=stop, say=say)
        say(f"models: {asked.calls} calls, {asked.replayed} answers from the journal, {asked.failures} without use")
        rules, (columns, _) = self.plan.late_rules, self.found()
        failing: dict[int, list[str]] = {}
        for row, record in self._passing():
            late = asked.late[row]
            scores = {**record.scores, **late.scores}
            if self.plan.combined is not None and COMBINED in self.plan.late:
                late.scores[COMBINED] = scores[COMBINED] = self.plan.combined.value(scores)
            record = record.with_scores(scores)
            columns.quality[row] = quality(record, self.plan.rules)
            self.late[row] = late
            # A score that is missing passes every rule; one that the model failed to give must not.
            failing[row] = [f"{name}:no usable reply" for name in late.failed] + failed_reasons(record, rules, {})
        # Not before all were read: a row that is rejected is no longer among those that pass.
        for row, reasons in failing.items():
            if reasons:
                self._reject(row, reasons)

    def _passing(self) -> Iterator[tuple[int, Record]]:
        """Yield the records that nothing speaks against so far, each with its row, in the order of the file."""
        columns, spool = self.found()
        passing = columns.only == -1
        for row, line in enumerate(spool.lines()):
            if passing[row]:
                yield row, _record(line)

    def _reject(self, row: int, reasons: list[str]) -> None:
        """Reject a record for reasons that came up after the first pass."""
        columns, _ = self.found()
        self.reasons.setdefault(row, []).extend(reasons)
        steps = set(map(step, reasons))
        if columns.only[row] == -1:
            self.ledger.add(reasons)
            columns.only[row] = columns.step_index(min(steps)) if len(steps) == 1 else -2
        else:
            # The step that rejected it already is counted, and may stay the only one.
            known = {columns.steps[columns.only[row]]} if columns.only[row] >= 0 else set()
            self.ledger.add_to_rejected(reasons, known)
            if steps - known:
                columns.only[row] = -2

    def second_pass(self) -> FilterSummary:
        """Decide on all records together and write the files.

        Raises:
            RunError: no record is kept, or the disk is full.
        """
        assert self.digest is not None
        columns, spool = self.found()
        for row, cause in settle(columns, self.config, self.meaning).items():
            self.reasons[row] = [cause]
            self.ledger.add([cause])
        rejected = columns.only != -1
        rejected[np.fromiter(self.reasons, np.intp, len(self.reasons))] = True
        keeping = np.flatnonzero(~rejected)
        self.ledger.kept = len(keeping)
        lines = (decided(line, self.reasons.get(row, ()), self.late.get(row)) for row, line in enumerate(spool.lines()))
        run, rules = self.run, self.plan.rules
        run.start_stage("filter")
        # An old dataset beside new decisions would pass for theirs if anything stopped the rest of this.
        run.train_path.unlink(missing_ok=True)
        run.validation_path.unlink(missing_ok=True)
        run.filter_path.unlink(missing_ok=True)
        if not len(keeping):
            write_records(run, lines)
            raise _nothing_kept(run, FilterSummary.counted(self.ledger, rules, train=0, validation=0))
        counts = np.bincount(columns.document[keeping], minlength=len(columns.documents))
        kept = Counter({name: int(n) for name, n in zip(columns.documents, counts, strict=True) if n})
        mask = mask_messages if self.config.pii == "mask" else None
        config, variety = self.config, Variety(columns.ids[keeping])
        outputs = dict(write_all(run, lines, kept, config.validation_share, config.seed, mask=mask, watch=variety.see))
        summary = FilterSummary.counted(
            self.ledger,
            rules,
            train=outputs["dataset/train.jsonl"].rows,
            validation=outputs["dataset/validation.jsonl"].rows,
        )
        report = FilterReport(
            summary, self._leak_report(), *variety.distinct(), topics_of(columns, keeping, self.meaning, config.seed)
        )
        write_json(run.filter_path, report.to_json())
        outputs[run.filter_path.name] = digest_file(run.filter_path)
        entry = StageEntry(
            config=self.settings,
            inputs=self.inputs(self.digest),
            outputs=outputs,
            counts=summary.to_counts(),
            seconds=time.monotonic() - self.started,
        )
        run.finish_stage("filter", entry)
        return summary

    def _leak_report(self) -> LeakReport | None:
        index = self.plan.index
        if index is None:
            return None
        # Where the held-out files lie on this machine is nobody's business; two of one name are still two.
        names: dict[str, str] = {}
        for one in self.heldout:
            twins = sum(Path(other).name == one.path.name for other in names)
            names[str(one.path)] = f"{one.path.name} ({twins + 1})" if twins else one.path.name

        def named(leak: Leak) -> Leak:
            return replace(leak, file=names[leak.file])

        return LeakReport.of(
            [names[file] for file in index.files],
            len(self.found()[0]),
            {row: [named(leak) for leak in leaks] for row, leaks in self.leaks.items()},
            map(named, self.in_passages),
        )

    def found(self) -> tuple[Columns, Spool]:
        """Return what the first pass left."""
        assert self.columns is not None and self.spool is not None
        return self.columns, self.spool


def _record(line: bytes) -> Record:
    return Record.from_json(orjson.loads(line))


def _processes_for(path: Path, wanted: int | None) -> int:
    """Return how many processes to start: no more than there are blocks to give them."""
    try:
        size = path.stat().st_size
    except OSError:
        return 1  # the reader says what is wrong
    if wanted is not None:
        return min(wanted, max(2, -(-size // _BLOCK_BYTES)))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, size // _WORTH_PROCESSES))


def _shown(spec: str | None) -> str | None:
    """Return a model's name without the user, the password and the query that a URL may have."""
    return spec if spec is None or "://" not in spec else Address(spec, None).shown


def _nothing_kept(run: Run, summary: FilterSummary) -> RunError:
    name, count = max(summary.funnel, key=lambda item: item[1])
    return RunError(
        f"none of {summary.total} records was kept; {name} removed most of them ({count})",
        where=str(run.path),
        fix="read the reasons in records.jsonl, then run `synth filter` with other rules",
    )
