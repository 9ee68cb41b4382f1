"""The generate stage: passages × generators × teacher → records.

Work is done in units of (round, passage, generator), many at a time, and written in the order of the
units as they come, so the files do not depend on which reply came first and memory does not grow with
them. Every reply is in the journal before it is used: running again after a kill replays the journal and
asks only for what is missing.
"""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import orjson

from synth.core.calls import Endpoint, EndpointStats, Sampling
from synth.core.errors import ConfigError, InferenceError, Interrupted, RunError, SynthError
from synth.core.jsonl import FileDigest, atomic_writer, digest_file
from synth.core.record_file import read_records
from synth.core.records import Document, Passage, Record
from synth.core.runs import Run, StageEntry
from synth.documents.limits import Limits
from synth.documents.readers import read_documents
from synth.documents.splitter import split_document
from synth.documents.tokens import load_tokenizer
from synth.generation.config import GenerateConfig
from synth.generation.gate import Gate, Spent, price_of
from synth.generation.ids import DistinctIds
from synth.generation.passages import PassageFile, Reading, write_passages
from synth.generation.tally import Progress, Tally
from synth.generation.units import FAILURES_IN_A_ROW, BrokenGenerator, Unit, UnitResult, UnitRunner, in_order
from synth.generators.base import Generator, prepare
from synth.generators.digest import generator_digest
from synth.generators.find import find_generators
from synth.inference.journal import Journal
from synth.inference.lazy import LazyEndpoint

__all__ = ["Accept", "GenerateConfig", "GenerateSummary", "Progress", "UnitsLeft", "run_generate"]

STAGE = "generate"

_TICK = 2.0  # seconds
_REASONS = 1000

# How long a passage is at most where the settings do not say: a page or so of a manual.
PASSAGE_TOKENS, PASSAGE_CHARS = 300, 1200

# Units in work or waiting for their turn to be written, for each call that may be in flight. More hide a slow
# reply at the head of the line; fewer need less memory.
AHEAD = 8


@dataclass(frozen=True, slots=True)
class GenerateSummary:
    """What the stage did; the counts are those of `Tally`, and add up as it says.

    `wanting` is true where fewer records were accepted than wanted; `current` where a finished stage was
    found and nothing was asked; `capped` names the cap that ended the stage before every passage was asked
    about; `damaged` are places in the journal that could not be read, whose calls were made again.
    """

    documents: int
    documents_quarantined: int
    passages: int
    passages_duplicate: int
    units: int
    units_left: int
    records: int
    quarantined: int
    calls: int
    calls_replayed: int
    calls_failed: int
    calls_declined: int
    calls_used: int
    calls_quarantined: int
    calls_between: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    cost: float | None = None
    capped: str | None = None
    damaged: tuple[str, ...] = ()
    current: bool = False
    wanting: bool = False


class UnitsLeft(RunError):
    """Some units gave nothing yet, because calls of theirs were not made; `tally` counts them."""

    def __init__(self, run: Run, tally: Tally) -> None:
        super().__init__(f"{tally.units_left} of {tally.units} units of work are left", where=str(run.path))
        self.tally = tally


Accept = Callable[[Sequence[Record]], int]
"""Says how many of these records the filter would keep."""


async def run_generate(
    run: Run,
    documents: Sequence[str | Path],
    config: GenerateConfig,
    teacher: AbstractAsyncContextManager[Endpoint],
    *,
    teacher_name: str,
    teacher_revision: str = "",
    tokenizer: str | Path | None = None,
    max_in_flight: int = 64,
    accept: Accept | None = None,
    finish_partly: bool = True,
    stop: asyncio.Event | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> GenerateSummary:
    """Write passages.jsonl, the journal, records.jsonl and quarantine.jsonl, then the entry in run.json.

    Args:
        run: the run to write; it is locked meanwhile.
        documents: files, folders and hub datasets.
        config: what decides the records.
        teacher: opened at the first call that the journal does not answer.
        teacher_name: what stands in the manifest, the records and the keys of the journal.
        teacher_revision: a revision of the teacher's weights, where known.
        tokenizer: the folder, file or hub id of the teacher's tokenizer; needed where `config.passage_tokens` is set.
        max_in_flight: how many calls the teacher answers at once; decides how far ahead units are begun.
        accept: counts what the filter would keep; needed where `config.num_records` is set.
        finish_partly: whether a stage that left units out is finished all the same, to go on with later.
        stop: when it is set, no new unit is begun, those in work are finished, and Interrupted is raised.
        on_progress: called after each document and each unit.

    Raises:
        ConfigError: a source or a generator does not exist; nothing was asked.
        RunError: the run is locked, no document gave a passage, or no call gave a record.
        InferenceError: the teacher is gone. The records of all units before that are in the files.
        UnitsLeft: units were left out and `finish_partly` is false; the records of the others are in the files.
        Interrupted: `stop` was set; all answered calls are in the journal, the records of finished units
            in records.jsonl.
    """
    if config.num_records is not None and accept is None:
        raise ConfigError("num_records needs `accept`", fix="pass a function that counts what the filter would keep")
    price = price_of(config, teacher_name)
    generators = find_generators(config.generator, config.generator_options())
    stop = stop or asyncio.Event()
    with run.lock(), contextlib.ExitStack() as resources:
        began = time.monotonic()
        tally = Tally()
        reading = await _read(run, documents, config, tokenizer, tally, stop, on_progress)
        settings = {
            **config.model_dump(mode="json"),
            "teacher": teacher_name,
            "teacher_revision": teacher_revision,
            "generators": {generator.name: generator_digest(generator) for generator in generators},
        }
        inputs = {"documents": reading.digest}
        if _is_finished(run, settings, inputs) and await _is_enough(run, config, accept):
            entry = run.stages()[STAGE]
            cost = price.of(**entry.usage) if price else None
            return _summary(entry, cost=cost, current=True)
        run.start_stage(STAGE)

        passages = resources.enter_context(PassageFile(run.passages_path))
        asked = _asked(passages, config)
        lazy = LazyEndpoint(teacher, model=teacher_name, revision=teacher_revision, stop=stop)
        for generator in generators:
            await asyncio.to_thread(prepare, generator, passages)
        async with Journal(run.journal_path) as journal, lazy as endpoint:
            spent = Spent(len(journal), *journal.tokens)
            gate = Gate(config, teacher_name, max_in_flight=max_in_flight, spent=spent, stop=stop, began=began)
            sampling = Sampling(config.temperature, config.top_p, config.max_tokens, logprobs=config.logprobs)
            runner = UnitRunner(endpoint, journal, sampling=sampling, seed=config.seed, gate=gate)
            files = _Files(run, reading, tally)
            work = _Work(runner, passages, generators, asked, config, files, stop, gate, max_in_flight, len(journal))
            work.on_progress, work.stats = on_progress, endpoint.stats
            stopped: SynthError | None = None
            with files.open():
                try:
                    async with _ticking(work.tick):
                        await (work.once() if accept is None or config.num_records is None else work.until(accept))
                except (Interrupted, InferenceError, BrokenGenerator) as error:
                    # What came until now is written all the same, unless an earlier attempt got further; the
                    # entry in run.json is not.
                    if files.fewer_than_before():
                        raise
                    stopped = error
            if stopped is not None:
                raise stopped
            damaged = tuple(journal.damaged)
            cost = gate.cost
        if tally.units_left and not finish_partly:
            raise UnitsLeft(run, tally)
        if not tally.records and not (config.shard is not None and len(asked) < FAILURES_IN_A_ROW):
            # A small shard may have nothing to ask about, or nothing that gives a record: the others go on.
            raise _nothing_came(run, tally, files.reasons, gate.cap)
        entry = StageEntry(
            config=settings,
            inputs=inputs,
            outputs={"passages.jsonl": reading.file, "quarantine.jsonl": digest_file(run.quarantine_path)},
            counts=tally.counts(),
            usage=tally.usage(),
            seconds=time.monotonic() - began,
        )
        run.finish_stage(STAGE, entry)
        capped = gate.cap if tally.units_left else None
        return _summary(entry, cost=cost, capped=capped, damaged=damaged, wanting=work.wanting)


async def _read(
    run: Run,
    documents: Sequence[str | Path],
    config: GenerateConfig,
    tokenizer: str | Path | None,
    tally: Tally,
    stop: asyncio.Event,
    on_progress: Callable[[Progress], None],
) -> Reading:
    def on_document(read: int, refused: int) -> None:
        tally.documents, tally.documents_quarantined = read, refused
        on_progress(Progress(0, 0, tally))

    split = await asyncio.to_thread(_splitter, config, tokenizer)
    limits = Limits(memory_bytes=config.document_memory_mib << 20, seconds=config.document_seconds)
    # In a thread, so that Ctrl-C is heard while a large corpus is read.
    reading = await asyncio.to_thread(
        write_passages,
        run.passages_path,
        read_documents(documents, include=config.include, exclude=config.exclude, limits=limits),
        split,
        sources=", ".join(map(str, documents)),
        on_document=on_document,
        stopped=stop.is_set,
    )
    tally.read(reading)
    return reading


def _splitter(config: GenerateConfig, tokenizer: str | Path | None) -> Callable[[Document], Iterator[Passage]]:
    """Return what cuts a document into passages of the size that the settings ask for."""
    chars, tokens = config.passage_chars, config.passage_tokens
    if tokens is not None and tokenizer is None:
        raise ConfigError(
            "passage_tokens needs the teacher's tokenizer, which an endpoint does not give",
            fix="name a model with --tokenizer, or set passage_chars",
        )
    if tokenizer is not None and (tokens is not None or chars is None):
        try:
            counter = load_tokenizer(tokenizer)
            return partial(split_document, max_chars=chars, max_tokens=tokens or PASSAGE_TOKENS, tokenizer=counter)
        except ConfigError:
            # A model may have no tokenizer.json; only who asked for tokens has to know.
            if tokens is not None:
                raise
    return partial(split_document, max_chars=chars or PASSAGE_CHARS)


def _is_finished(run: Run, settings: Mapping[str, Any], inputs: Mapping[str, FileDigest]) -> bool:
    """Whether there is nothing left to ask: what a cap left out or what got no answer is asked again."""
    if not run.is_current(STAGE, settings, inputs) or not run.records_path.is_file():
        return False
    counts = run.stages()[STAGE].counts
    whole = digest_file(run.records_path).rows == counts["records"]
    return whole and counts["calls_failed"] == 0 and counts["units_left"] == 0


async def _is_enough(run: Run, config: GenerateConfig, accept: Accept | None) -> bool:
    """Whether the filter, whose rules may have changed since, still accepts as many records as are wanted."""
    if accept is None or config.num_records is None:
        return True
    records = list(read_records(run.records_path))
    return await asyncio.to_thread(accept, records) >= config.num_records


@contextlib.asynccontextmanager
async def _ticking(tick: Callable[[], None]) -> AsyncIterator[None]:
    """Call `tick` now and then while the block runs, so that progress shows although no unit ends."""

    async def work() -> None:
        while True:
            await asyncio.sleep(_TICK)
            tick()

    ticking = asyncio.create_task(work())
    try:
        yield
    finally:
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)


def _asked(passages: PassageFile, config: GenerateConfig) -> list[int]:
    """Return the indices of the passages to ask about, in order."""
    part = config.part
    indices = passages.originals()
    if config.max_passages is not None and config.max_passages < len(indices):
        indices = sorted(random.Random(config.seed).sample(indices, config.max_passages))
    # After the draw, so that all shards together ask about as many.
    return indices if part.count == 1 else [index for index in indices if part.holds(passages[index])]


def _nothing_came(run: Run, tally: Tally, reasons: Counter[str], cap: str | None) -> RunError:
    if cap is not None:
        return RunError(f"{cap} was reached before a record came", where=str(run.path), fix=f"raise {cap}")
    often = f"; most often because {reasons.most_common(1)[0][0]}" if reasons else ""
    return RunError(
        f"none of {tally.passages} passages gave a record{often}",
        where=str(run.quarantine_path),
        fix="read the quarantine file; a larger teacher or a simpler schema may be needed",
    )


class _Files:
    """records.jsonl and quarantine.jsonl while they are written, line by line, to take their places at the end."""

    def __init__(self, run: Run, reading: Reading, tally: Tally) -> None:
        self.tally = tally
        self.reasons: Counter[str] = Counter()
        self._run, self._reading = run, reading
        self._records: IO[bytes] | None = None
        self._quarantine: IO[bytes] | None = None
        self._ids = DistinctIds()

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Write while the block runs; both files are whole or as they were."""
        with (
            atomic_writer(self._run.quarantine_path) as self._quarantine,
            atomic_writer(self._run.records_path) as self._records,
        ):
            self._quarantine.writelines(map(_line, self._reading.refused))
            yield

    def fewer_than_before(self) -> bool:
        """Whether the file that is there has more records than were written now."""
        path = self._run.records_path
        return path.is_file() and digest_file(path).rows > self.tally.records

    def write(self, result: UnitResult) -> tuple[Record, ...]:
        """Write what came of a unit and return its records with the ids that they have in the file."""
        assert self._records is not None and self._quarantine is not None
        records = tuple(map(self._ids.own, result.records))
        self._records.writelines(_line(record.to_json()) for record in records)
        self._quarantine.writelines(map(_line, result.quarantine))
        for line in result.quarantine:
            # Reasons quote what was wrong; the first ones say enough, and all of them would fill memory.
            if line["reason"] in self.reasons or len(self.reasons) < _REASONS:
                self.reasons[line["reason"]] += 1
        self.tally.add(result)
        return records


def _line(row: Mapping[str, Any]) -> bytes:
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)


class _Work:
    """Asks about the passages, once each or until enough is accepted, and writes what comes."""

    def __init__(
        self,
        runner: UnitRunner,
        passages: PassageFile,
        generators: Sequence[Generator],
        asked: Sequence[int],
        config: GenerateConfig,
        files: _Files,
        stop: asyncio.Event,
        gate: Gate,
        max_in_flight: int,
        journaled: int,
    ) -> None:
        self._runner, self._passages, self._generators, self._asked = runner, passages, generators, asked
        self._config, self._files, self._stop, self._gate = config, files, stop, gate
        self._ahead, self._journaled = AHEAD * max_in_flight, journaled
        self._shown: tuple[int, int, int | None] | None = None
        self.on_progress: Callable[[Progress], None] = lambda _: None
        self.stats: Callable[[], EndpointStats] = EndpointStats
        self._done = 0
        self.wanting = False

    async def once(self) -> None:
        """Ask about each passage once."""
        total = len(self._asked) * len(self._generators)
        self._tell(0, total, ())
        async for records in self._results(self._asked, 0):
            self._tell(self._done, total, records)
        self._end(total)

    async def until(self, accept: Accept) -> None:
        """Ask, in a seeded order and in waves, with new seeds each round, until enough is accepted."""
        wanted = self._config.num_records
        assert wanted is not None
        order = list(self._asked)
        random.Random(self._config.seed).shuffle(order)
        found: list[Record] = []
        accepted = 0
        self.wanting = True
        for number in range(self._config.max_rounds):
            rest = order
            while rest and accepted < wanted:
                units = _wave(wanted, accepted, self._done)
                wave, rest = _cut(rest, -(-units // len(self._generators)))
                due = self._done + len(wave) * len(self._generators)
                async for records in self._results(wave, number):
                    found += records
                    self._tell(min(accepted, wanted), wanted, records, accepted)
                accepted = await asyncio.to_thread(accept, found)
                self._tell(min(accepted, wanted), wanted, (), accepted)
                if accepted < wanted and self._end(due):
                    return
            if accepted >= wanted:
                self._files.tally.units_left = 0  # enough came, so nothing is missing
                self.wanting = False
                break

    async def _results(self, indices: Iterable[int], number: int) -> AsyncIterator[tuple[Record, ...]]:
        units = (Unit(self._passages[i], generator, number) for i in indices for generator in self._generators)
        results = in_order(
            units,
            self._runner.run,
            ahead=self._ahead,
            stopped=self._stopped,
        )
        async with contextlib.aclosing(results):
            async for result in results:
                self._done += 1
                yield self._files.write(result)

    def _stopped(self) -> bool:
        """Whether no unit is to be begun: at once after a stop; after a cap when the journal has given what it has."""
        if self._gate.shut_down:
            return True
        return self._gate.cap is not None and self._files.tally.calls_replayed >= self._journaled

    def tick(self) -> None:
        """Tell again where the work is; calls in flight change although no unit ends."""
        if self._shown is not None:
            done, total, accepted = self._shown
            self._tell(done, total, (), accepted)

    def _tell(self, done: int, total: int, new: tuple[Record, ...], accepted: int | None = None) -> None:
        self._shown = (done, total, accepted)
        self.on_progress(
            Progress(done, total, self._files.tally, new, accepted, self._gate.in_flight, self._gate.cost, self.stats())
        )

    def _end(self, due: int) -> bool:
        """Whether a cap ended the work before `due` units were finished.

        Raises:
            Interrupted: the user did.
        """
        tally = self._files.tally
        tally.units_left += due - self._done
        if tally.units_left and self._stop.is_set():
            raise Interrupted(
                f"stopped after {due - tally.units_left} of {due} units of work; "
                f"{tally.records} records so far are in records.jsonl",
                fix="run the same command again: answered calls come from the journal",
            )
        return tally.units_left > 0


def _cut(items: list[int], size: int) -> tuple[list[int], list[int]]:
    return items[:size], items[size:]


def _wave(wanted: int, accepted: int, units: int) -> int:
    """Return how many units to do next: what is missing at the yield seen so far, and a tenth more."""
    if not accepted:
        return max(8, wanted // 4)
    return max(8, int((wanted - accepted) * units / accepted * 1.1))


def _summary(
    entry: StageEntry,
    *,
    cost: float | None = None,
    capped: str | None = None,
    damaged: tuple[str, ...] = (),
    current: bool = False,
    wanting: bool = False,
) -> GenerateSummary:
    return GenerateSummary(
        **entry.counts,
        **entry.usage,
        seconds=entry.seconds,
        cost=cost,
        capped=capped,
        damaged=damaged,
        current=current,
        wanting=wanting,
    )
