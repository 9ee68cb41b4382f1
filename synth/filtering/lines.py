"""Lines of records.jsonl in, scored lines and a few numbers a record out: the work of one process.

A line that is rejected here leaves with its decision. The others leave with `"decision":null`, which is written
over when all records are known.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from synth.core.fingerprint import canonical_json
from synth.core.heldout import load_heldout
from synth.core.record_file import parse_record
from synth.core.records import Record
from synth.filtering.config import FilterConfig
from synth.filtering.ledger import family, step
from synth.filtering.plan import Plan
from synth.filtering.portion import Judged, judge_alone
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
    values, records, digests = [], [], bytearray()
    for number, line in lines:
        value, record = parse_record(line, where=f"{where}:{number}")
        record = plan.undecided(record)
        value = _value(value, record)
        digests += hashlib.sha256(canonical_json(value)).digest()
        values.append(value)
        records.append(record)
    scored = _scored(judge_alone(records, plan), values, bytes(digests), plan)
    # What the scorers remember of this block is of no use to the next.
    forget_pairs()
    trim_all()
    return scored


def score_records_alone(records: Sequence[Record], plan: Plan) -> tuple[list[Judged], Scored]:
    """Judge records that are in memory, with what the corpus level needs to know of them."""
    judged = judge_alone(records, plan)
    values = [one.record.to_json() for one in judged]
    digests = b"".join(hashlib.sha256(canonical_json(plan.undecided(r).to_json())).digest() for r in records)
    return judged, _scored(judged, values, digests, plan)


def _value(value: dict[str, Any], record: Record) -> dict[str, Any]:
    """Return the line's own JSON without a decision, its keys in the order of `Record.to_json`."""
    if tuple(value) != _KEYS:  # written by someone else, or with keys that few records have
        return record.to_json()
    value["scores"], value["decision"] = dict(record.scores), None
    return value


def _scored(judged: Sequence[Judged], values: Sequence[dict[str, Any]], digests: bytes, plan: Plan) -> Scored:
    lines, only, steps = [], np.empty(len(judged), np.int16), dict[str, int]()
    first, every, failing, names = Counter[str](), Counter[str](), Counter[str](), set[str]()
    for place, (one, value) in enumerate(zip(judged, values, strict=True)):
        value["scores"] = dict(one.record.scores)
        names.update(value["scores"])
        only[place] = -1
        if one.reasons:
            value["decision"] = {"keep": False, "reasons": list(one.reasons)}
            heads = {step(reason) for reason in one.reasons}
            failing.update(heads)
            only[place] = steps.setdefault(heads.pop(), len(steps)) if len(heads) == 1 else -2
            first[step(one.reasons[0])] += 1
            every.update(family(reason) for reason in one.reasons)
        lines.append(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE))
    records = [one.record for one in judged]
    document, documents = _codes([r.document_id for r in records])
    passage, passages = _codes([r.passage_id for r in records])
    kind, kinds = _codes([r.kind for r in records])
    return Scored(
        lines=lines,
        digests=digests,
        ids=np.array([int(r.id, 16) for r in records], np.uint64),
        quality=np.array([one.quality for one in judged], np.float32),
        only=only,
        steps=tuple(steps),
        document=document,
        documents=documents,
        passage=passage,
        passages=passages,
        kind=kind,
        kinds=kinds,
        sketches=sketch([r for r, o in zip(records, only, strict=True) if o >= -1], dedup_settings(plan.config)),
        first=first,
        every=every,
        failing=failing,
        leaks={place: one.leaks for place, one in enumerate(judged) if one.leaks},
        in_passages=frozenset(leak for one in judged for leak in one.in_passage),
        scores=frozenset(names),
    )


def dedup_settings(config: FilterConfig) -> DedupSettings:
    """Return how records are compared under `config`."""
    return DedupSettings(threshold=config.near_duplicate, on=config.duplicates_on)


def _codes(names: Sequence[str]) -> tuple[npt.NDArray[np.int32], tuple[str, ...]]:
    known: dict[str, int] = {}
    return np.array([known.setdefault(name, len(known)) for name in names], np.int32), tuple(known)
