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
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from synth.core.calls import Endpoint, Sampling
from synth.core.errors import ConfigError, InferenceError, Interrupted, RunError, SynthError
from synth.core.jsonl import FileDigest, digest_file
from synth.core.record_file import read_records
from synth.core.records import Document, Passage
from synth.core.runs import Run, StageEntry, stage_fingerprint
from synth.core.tokens import load_tokenizer
from synth.documents.limits import Limits
from synth.documents.readers import read_documents
from synth.documents.splitter import split_document
from synth.generation.config import GenerateConfig
from synth.generation.gate import Gate, Spent, price_of
from synth.generation.output import OutputFiles
from synth.generation.passages import PassageFile, Reading, write_passages
from synth.generation.tally import Progress, Tally
from synth.generation.units import FAILURES_IN_A_ROW, BrokenGenerator, UnitRunner
from synth.generation.work import Accept, Work
from synth.generators.base import prepare
from synth.generators.digest import generator_digest
from synth.generators.find import find_generators
from synth.inference.journal import Journal
from synth.inference.lazy import LazyEndpoint

__all__ = ["Accept", "GenerateConfig", "GenerateSummary", "Progress", "UnitsLeft", "run_generate"]

STAGE = "generate"

_TICK = 2.0  # seconds

# How long a passage is at most where the settings do not say: a page or so of a manual.
PASSAGE_TOKENS, PASSAGE_CHARS = 300, 1200


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
    heldout: Sequence[FileDigest] = (),
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
        heldout: digests of the held-out sets, which are sealed with the stage: nothing of it is made from them.
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
        inputs |= _sealed(run, settings, inputs, heldout)
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
            files = OutputFiles(run, reading, tally)
            work = Work(runner, passages, generators, asked, config, files, stop, gate, max_in_flight, len(journal))
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


def _sealed(
    run: Run, settings: Mapping[str, Any], inputs: Mapping[str, FileDigest], heldout: Sequence[FileDigest]
) -> dict[str, FileDigest]:
    """Return the digests of the held-out sets by name, as the entry of this very work has them where it is there.

    A set that is first named when the work was done before was not sealed then, and names no new work.
    """
    entry = run.stages().get(STAGE)
    if entry is not None:
        before = {name: digest for name, digest in entry.inputs.items() if name.partition(":")[0] == "heldout"}
        if entry.fingerprint == stage_fingerprint(settings, {**inputs, **before}):
            return before
    once = dict.fromkeys(heldout)
    return {"heldout" if number == 1 else f"heldout:{number}": digest for number, digest in enumerate(once, 1)}


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
