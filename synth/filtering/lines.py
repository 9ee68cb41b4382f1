"""Lines of records.jsonl in, scored lines and a few numbers a record out: the work of one process.

A line that is rejected here leaves with its decision. The others leave with `"decision":null`, which is written
over when all records are known.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from synth.core.fingerprint import canonical_json
from synth.core.heldout import load_heldout
from synth.core.record_file import parse_value
from synth.core.records import Record
from synth.filtering.config import FilterConfig
from synth.filtering.ledger import family, step
from synth.filtering.plan import Plan
from synth.filtering.portion import Judged, Verdicts, verdicts
from synth.filters.leaks import Leak
from synth.filters.memo import trim_all
from synth.filters.pair import forget_pairs
from synth.filters.sketch import DedupSettings, SketchBlock, sketch

UNDECIDED = b'"decision":null'
_KEYS = (
    *("id", "prompt", "completion", "context", "kind", "document_id", "passage_id", "generator", "evidence"),
    *("scores", "decision", "provenance"),
)


@dataclass(frozen=True, slots=True)
class Task:
    """What a process is told once: everything that a Plan is made of."""

    config: FilterConfig
    heldout: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Scored:
    """A block of lines, scored, in order; the arrays have one row a line.

    `digests` is SHA-256 of each record as it was before any filter (32 bytes each). `only` is the step that alone
    rejects the record: an index into `steps`, -1 where nothing does, -2 where several do. `sketches` has a row for
    each record with `only` >= -1. `document`, `passage` and `kind` are indices into the names beside them. `first`
    and `every` count the rejected by first and by all reasons.
    """

    lines: list[bytes]
    digests: bytes
    ids: npt.NDArray[np.uint64]
    quality: npt.NDArray[np.float32]
    only: npt.NDArray[np.int16]
    steps: tuple[str, ...]
    document: npt.NDArray[np.int32]
    documents: tuple[str, ...]
    passage: npt.NDArray[np.int32]
    passages: tuple[str, ...]
    kind: npt.NDArray[np.int32]
    kinds: tuple[str, ...]
    sketches: SketchBlock
    first: Counter[str]
    every: Counter[str]
    failing: Counter[str]
    leaks: dict[int, tuple[Leak, ...]]
    in_passages: frozenset[Leak]
    scores: frozenset[str]


def prepare(task: Task) -> Plan:
    """Make the plan, once in each process.

    Raises:
        SynthError: as `Plan.of` and `load_heldout`.
    """
    return Plan.of(task.config, [load_heldout(path) for path in task.heldout])


def score_block(plan: Plan, block: tuple[str, Sequence[tuple[int, bytes]]]) -> Scored:
    """Judge each line of a block alone.

    Args:
        plan: the rules.
        block: the file's name for errors, and `(line number, line)` pairs.

    Raises:
        RecordError: a line is no record; the error names it.
    """
    where, lines = block
    values, records = [], []
    for number, line in lines:
        value, record = _undecided(parse_value(line, where=f"{where}:{number}"), plan)
        values.append(value)
        records.append(record)
    digests = _digests(values)
    scored = _scored(records, values, digests, verdicts(records, plan), plan)
    # What the scorers remember of this block is of no use to the next.
    forget_pairs()
    trim_all()
    return scored


def score_records_alone(records: Sequence[Record], plan: Plan) -> tuple[list[Judged], Scored]:
    """Judge records that are in memory, with what the corpus level needs to know of them."""
    undecided = [plan.undecided(record) for record in records]
    values = [record.to_json() for record in undecided]
    digests = _digests(values)
    found = verdicts(undecided, plan)
    return found.of(undecided), _scored(undecided, values, digests, found, plan)


def _undecided(value: dict[str, Any], plan: Plan) -> tuple[dict[str, Any], Record]:
    """Return a line's JSON as it was before any filter, its keys in the order of `Record.to_json`, and its record."""
    if tuple(value) != _KEYS:  # written by someone else, or with keys that few records have
        record = plan.undecided(Record.from_json(value))
        return record.to_json(), record
    value["scores"], value["decision"] = plan.others(value["scores"]), None
    return value, Record.from_json(value)


def _digests(values: Sequence[dict[str, Any]]) -> bytes:
    """Return SHA-256 of each record, 32 bytes each."""
    return b"".join([hashlib.sha256(canonical_json(value)).digest() for value in values])


def _scored(
    records: Sequence[Record], values: Sequence[dict[str, Any]], digests: bytes, found: Verdicts, plan: Plan
) -> Scored:
    """Return what is said of the records as one block; `values` are their JSON and take the scores."""
    only, steps = np.full(len(records), -1, np.int16), dict[str, int]()
    # Counted at the end: to add to a `Counter` one by one takes ten times as long.
    first, every, failing = list[str](), list[str](), list[str]()
    for place, (value, scores, reasons) in enumerate(zip(values, found.scores, found.reasons, strict=True)):
        value["scores"] = scores
        if reasons:
            value["decision"] = {"keep": False, "reasons": reasons}
            heads = list(map(step, reasons))
            different = set(heads)
            only[place] = steps.setdefault(heads[0], len(steps)) if len(different) == 1 else -2
            failing += different
            first.append(heads[0])
            every += map(family, reasons)
    document, documents = _codes([r.document_id for r in records])
    passage, passages = _codes([r.passage_id for r in records])
    kind, kinds = _codes([r.kind for r in records])
    return Scored(
        lines=[orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE) for value in values],
        digests=digests,
        ids=np.array([int(r.id, 16) for r in records], np.uint64),
        quality=np.array(found.quality, np.float32),
        only=only,
        steps=tuple(steps),
        document=document,
        documents=documents,
        passage=passage,
        passages=passages,
        kind=kind,
        kinds=kinds,
        sketches=sketch([records[place] for place in np.flatnonzero(only >= -1)], dedup_settings(plan.config)),
        first=Counter(first),
        every=Counter(every),
        failing=Counter(failing),
        leaks={place: leaks for place, leaks in enumerate(found.leaks) if leaks},
        in_passages=frozenset(chain.from_iterable(found.in_passages)),
        scores=frozenset(chain.from_iterable(found.scores)),
    )


def dedup_settings(config: FilterConfig) -> DedupSettings:
    """Return how records are compared under `config`."""
    return DedupSettings(threshold=config.near_duplicate, on=config.duplicates_on)


def _codes(names: Sequence[str]) -> tuple[npt.NDArray[np.int32], tuple[str, ...]]:
    known: dict[str, int] = {}
    return np.array([known.setdefault(name, len(known)) for name in names], np.int32), tuple(known)
