"""The generate stage: passages × generators × teacher → records.

Work is done in units of (round, passage, generator), many at a time, and written in the order of the
units, so the files do not depend on which reply came first. Every reply is in the journal before it is
used: running again after a kill replays the journal and asks only for what is missing.
"""

import asyncio
import hashlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from synth.core.calls import Endpoint, Sampling
from synth.core.errors import ConfigError, InferenceError, Interrupted, RunError
from synth.core.fingerprint import canonical_json
from synth.core.jsonl import FileDigest, read_lines, write_jsonl
from synth.core.records import Passage, Provenance, Record, content_id
from synth.core.runs import Run, StageEntry
from synth.documents.readers import Quarantined, read_documents
from synth.documents.splitter import split_document
from synth.generators.base import Generator, ReplyError, prepare
from synth.generators.digest import generator_digest
from synth.generators.find import find_generators
from synth.inference.journal import Journal
from synth.inference.teacher import JournaledTeacher

STAGE = "generate"

# So many units in a row without one reply mean that the teacher is gone, not that a passage is odd.
FAILURES_IN_A_ROW = 16


class GenerateConfig(BaseModel):
    """What decides the records. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    generator: tuple[str, ...] = ("qa",)
    """Generators by name, `module:name`, `file.py:name` or `template.md`, each with `+` and its modifiers."""
    options: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    """The generators' own options by generator or modifier; those under "*" go to all that take them."""
    passage_chars: int = Field(1200, ge=80, le=100_000)
    """The most characters a passage has."""
    temperature: float = Field(0.7, ge=0, le=2)
    """Sampling temperature of the teacher."""
    top_p: float = Field(0.95, gt=0, le=1)
    """Nucleus sampling: the share of probability that is sampled from."""
    max_tokens: int = Field(512, ge=1)
    """The most tokens of one reply. A reply that is cut off goes to quarantine.jsonl."""
    seed: int = 0
    """The run's seed. Each call's own seed is derived from it."""
    num_records: int | None = Field(None, ge=1)
    """Go on until so many records are accepted by the filter. Without it each passage is asked about once."""
    max_rounds: int = Field(4, ge=1)
    """With num_records: how often each passage is asked about at most. Bounds the cost."""


@dataclass(frozen=True, slots=True)
class GenerateSummary:
    """What the stage did. `current` is true where a finished stage was found and nothing was asked."""

    documents: int
    passages: int
    records: int
    quarantined: int
    calls: int
    calls_replayed: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    current: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the stage is: units done of how many, records so far, and how many of them are accepted."""

    done: int
    total: int
    records: int
    accepted: int | None = None


Accept = Callable[[Sequence[Record]], int]
"""Says how many of these records the filter would keep."""


async def run_generate(
    run: Run,
    documents: Sequence[Path],
    config: GenerateConfig,
    teacher: AbstractAsyncContextManager[Endpoint],
    *,
    teacher_name: str,
    teacher_revision: str = "",
    max_in_flight: int = 64,
    accept: Accept | None = None,
    stop: asyncio.Event | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> GenerateSummary:
    """Write passages.jsonl, the journal, records.jsonl and quarantine.jsonl, then the entry in run.json.

    Args:
        run: the run to write; it is locked meanwhile.
        documents: files and folders.
        config: what decides the records.
        teacher: opened only if there is something to ask, so a finished stage starts no server.
        teacher_name: what stands in the manifest and in the records.
        teacher_revision: a revision of the teacher's weights, where known.
        max_in_flight: how many units are in work at once.
        accept: counts what the filter would keep; needed where `config.num_records` is set.
        stop: when it is set, no new unit is begun, those in work are finished, and Interrupted is raised.
        on_progress: called after each unit.

    Raises:
        ConfigError: a source or a generator does not exist; nothing was asked.
        RunError: the run is locked, no document gave a passage, or no call gave a record.
        InferenceError: the teacher is gone.
        Interrupted: `stop` was set; all answered calls are in the journal.
    """
    if config.num_records is not None and accept is None:
        raise ConfigError("num_records needs `accept`", fix="pass a function that counts what the filter would keep")
    generators = find_generators(config.generator, config.options)
    with run.lock():
        began = time.monotonic()
        read = _Documents(documents, config.passage_chars)
        passages_digest = write_jsonl(run.passages_path, read.passages())
        settings = {
            **config.model_dump(mode="json"),
            "teacher": teacher_name,
            "teacher_revision": teacher_revision,
            "generators": {generator.name: generator_digest(generator) for generator in generators},
        }
        inputs = {"documents": read.digest()}
        if run.is_current(STAGE, settings, inputs) and run.records_path.is_file():
            return _summary(run.stages()[STAGE], current=True)
        run.start_stage(STAGE)

        passages = [Passage.from_json(row) for _, row in read_lines(run.passages_path)]
        for generator in generators:
            prepare(generator, passages)
        async with Journal(run.journal_path) as journal, teacher as endpoint:
            already = len(journal)
            work = _Work(endpoint, journal, config, generators, max_in_flight, stop or asyncio.Event(), on_progress)
            results = await _results(work, passages, config, accept)
            calls = len(journal) - already

        records = list(_distinct(record for result in results for record in result.records))
        refused = [*read.bad, *(line for result in results for line in result.quarantine)]
        quarantine_digest = write_jsonl(run.quarantine_path, refused)
        write_jsonl(run.records_path, (record.to_json() for record in records))
        if not records:
            raise _nothing_came(run, len(passages), refused)
        entry = StageEntry(
            config=settings,
            inputs=inputs,
            outputs={"passages.jsonl": passages_digest, "quarantine.jsonl": quarantine_digest},
            counts={
                "documents": read.documents,
                "passages": len(passages),
                "records": len(records),
                "quarantined": len(refused),
                "calls": calls,
                "calls_replayed": sum(result.calls for result in results) - calls,
            },
            usage={
                "prompt_tokens": sum(result.prompt_tokens for result in results),
                "completion_tokens": sum(result.completion_tokens for result in results),
            },
            seconds=time.monotonic() - began,
        )
        run.finish_stage(STAGE, entry)
        return _summary(entry)


def _nothing_came(run: Run, passages: int, refused: Sequence[dict[str, Any]]) -> RunError:
    reasons = Counter(line["reason"] for line in refused if line["passage_id"])
    often = f"; most often because {reasons.most_common(1)[0][0]}" if reasons else ""
    return RunError(
        f"none of {passages} passages gave a record{often}",
        where=str(run.quarantine_path),
        fix="read the quarantine file; a larger teacher or a simpler schema may be needed",
    )


@dataclass(frozen=True, slots=True)
class _Result:
    """What came of one unit."""

    records: tuple[Record, ...]
    quarantine: tuple[dict[str, Any], ...]
    calls: int
    prompt_tokens: int
    completion_tokens: int
    answered: bool


class _Work:
    """Runs units, many at a time, and yields their results in order."""

    def __init__(
        self,
        endpoint: Endpoint,
        journal: Journal,
        config: GenerateConfig,
        generators: Sequence[Generator],
        max_in_flight: int,
        stop: asyncio.Event,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.endpoint, self.journal, self.config, self.generators = endpoint, journal, config, generators
        self.max_in_flight, self.stop, self.on_progress = max_in_flight, stop, on_progress
        self.sampling = Sampling(config.temperature, config.top_p, config.max_tokens)
        self.records = 0
        self.failures = 0

    async def round(self, passages: Sequence[Passage], number: int) -> AsyncIterator[_Result]:
        """Yield the result of each unit of a round, in the order of `passages`."""
        units = [(passage, generator) for passage in passages for generator in self.generators]
        done = 0
        window: list[asyncio.Task[_Result]] = []
        pending = iter(units)
        try:
            while True:
                while len(window) < 2 * self.max_in_flight and not self.stop.is_set():
                    unit = next(pending, None)
                    if unit is None:
                        break
                    window.append(asyncio.create_task(self._unit(*unit, number)))
                if not window:
                    break
                result = await window.pop(0)
                done += 1
                self.records += len(result.records)
                self.on_progress(Progress(done, len(units), self.records))
                yield result
        finally:
            for task in window:
                task.cancel()
            await asyncio.gather(*window, return_exceptions=True)
        if done < len(units):
            raise Interrupted(
                f"stopped after {done} of {len(units)} units of work",
                fix="run the same command again: answered calls come from the journal",
            )

    async def _unit(self, passage: Passage, generator: Generator, number: int) -> _Result:
        teacher = JournaledTeacher(
            self.endpoint, self.journal, seed=self.config.seed, sampling=self.sampling, round=number
        )
        try:
            made = await generator.generate(passage, teacher)
        except InferenceError as error:
            made = [error if isinstance(error, ReplyError) else ReplyError(str(error), "")]
        self._watch(bool(teacher.calls), made)
        source = Provenance(
            teacher=self.endpoint.model,
            prompt_sha256=teacher.prompt_sha256,
            call_keys=tuple(call.key for call in teacher.calls),
            prompt_tokens=sum(call.usage.prompt_tokens for call in teacher.calls),
            completion_tokens=sum(call.usage.completion_tokens for call in teacher.calls),
        )
        return _Result(
            records=tuple(_with_source(item, source) for item in made if isinstance(item, Record)),
            quarantine=tuple(
                {
                    "document_id": passage.document_id,
                    "passage_id": passage.id,
                    "generator": generator.name,
                    "reason": item.what,
                    "raw": item.raw,
                }
                for item in made
                if isinstance(item, ReplyError)
            ),
            calls=len(teacher.calls),
            prompt_tokens=source.prompt_tokens,
            completion_tokens=source.completion_tokens,
            answered=bool(teacher.calls),
        )

    def _watch(self, answered: bool, made: Sequence[Record | ReplyError]) -> None:
        """Stop the run when the teacher is gone; a single failure is only a line in quarantine.jsonl."""
        if answered or not made:
            self.failures = 0
            return
        self.failures += 1
        if self.failures >= FAILURES_IN_A_ROW:
            last = made[-1]
            raise InferenceError(
                f"{self.failures} passages in a row got no answer; the last reason: {last}",
                fix="see that the teacher runs, then run the same command again: nothing answered is lost",
            )


async def _results(
    work: _Work, passages: Sequence[Passage], config: GenerateConfig, accept: Accept | None
) -> list[_Result]:
    """Ask about each passage once or, where a number is wanted, until enough is accepted.

    In the second case the passages are taken in a seeded order, and again with new seeds, in waves.
    """
    if config.num_records is None or accept is None:
        return [result async for result in work.round(passages, 0)]
    wanted = config.num_records
    order = list(passages)
    random.Random(config.seed).shuffle(order)
    results: list[_Result] = []
    accepted = 0
    for number in range(config.max_rounds):
        rest = order
        while rest and accepted < wanted:
            size = _wave(wanted, accepted, len(results))
            async for result in work.round(rest[:size], number):
                results.append(result)
            rest = rest[size:]
            accepted = accept(list(_distinct(r for result in results for r in result.records)))
            work.on_progress(Progress(min(accepted, wanted), wanted, work.records, accepted))
        if accepted >= wanted:
            break
    return results


def _wave(wanted: int, accepted: int, units: int) -> int:
    """Return how many passages to ask about next: what is missing at the yield seen so far, and a tenth more."""
    if not accepted:
        return max(8, wanted // 4)
    return max(8, int((wanted - accepted) * units / accepted * 1.1))


def _with_source(record: Record, source: Provenance) -> Record:
    """Fill in what the runtime knows of a record's provenance; what the generator said itself stays."""
    own = record.provenance
    if own.call_keys:
        return replace(record, provenance=replace(own, teacher=own.teacher or source.teacher))
    return replace(
        record,
        id=content_id(record.id, list(source.call_keys)),
        provenance=replace(source, prompt_sha256=own.prompt_sha256 or source.prompt_sha256),
    )


def _distinct(records: Iterable[Record]) -> Iterator[Record]:
    """Give a record that is equal to an earlier one, call and all, an id of its own; drop none."""
    seen: dict[str, int] = {}
    for record in records:
        times = seen.get(record.id, 0)
        seen[record.id] = times + 1
        yield replace(record, id=content_id(record.id, times)) if times else record


class _Documents:
    """Reads the sources once, as passages; keeps what could not be read and a digest of it all."""

    def __init__(self, sources: Sequence[Path], passage_chars: int) -> None:
        self.sources, self.passage_chars = sources, passage_chars
        self.documents = 0
        self.bad: list[dict[str, Any]] = []
        self.found = False
        self._sha256 = hashlib.sha256()

    def passages(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of passages.jsonl."""
        for item in read_documents(self.sources):
            if isinstance(item, Quarantined):
                self._refuse(item)
                continue
            self.documents += 1
            self._sha256.update(canonical_json([item.id, item.text]))
            found = False
            for passage in split_document(item, max_chars=self.passage_chars):
                found = True
                yield passage.to_json()
            if not found:
                self._refuse(Quarantined(item.id, "the document has no sentence"))
            self.found = self.found or found
        if not self.found:
            # Raised while the file is being written, so that a wrong folder leaves an older run's passages alone.
            reasons = f"; the first reason: {self.bad[0]['reason']}" if self.bad else ""
            raise RunError(
                f"no document gave a passage ({len(self.bad)} could not be read{reasons})",
                where=", ".join(map(str, self.sources)),
                fix="name a folder that holds .md, .txt, .html or .jsonl files",
            )

    def digest(self) -> FileDigest:
        """Return the digest of every document, read or refused, and their number."""
        return FileDigest(self._sha256.hexdigest(), self.documents)

    def _refuse(self, item: Quarantined) -> None:
        self.bad.append(item.to_json())
        self._sha256.update(canonical_json(self.bad[-1]))


def _summary(entry: StageEntry, *, current: bool = False) -> GenerateSummary:
    return GenerateSummary(**entry.counts, **entry.usage, seconds=entry.seconds, current=current)
