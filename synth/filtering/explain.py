"""One record's story: where it came from, what was asked, how it scored, and why it stayed or went."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from synth.core.errors import RunError
from synth.core.jsonl import parse_line, read_blocks
from synth.core.record_file import parse_record
from synth.core.records import Passage, Record
from synth.core.runs import Run
from synth.filters.base import Rule
from synth.inference.journal import read_calls

_TWIN = re.compile(r"^duplicate:\w+ of ([0-9a-f]{16})")
_BLOCK_BYTES = 1 << 20
_LEAST_PREFIX = 4


@dataclass(frozen=True, slots=True)
class RuleOutcome:
    """A rule, the record's score (None where the measure does not apply) and whether the rule holds."""

    rule: str
    score: float | None
    holds: bool


@dataclass(frozen=True, slots=True)
class Story:
    """All that the run knows of one record.

    `line` is its line in records.jsonl. `calls` are the journal's entries of the calls that made it and of those
    that judged it, oldest first. `twin` is the record that stays in its place; `stands_for` are the ids of those
    that went as its twins. `split` is "train" or "validation" for a kept record.
    """

    record: Record
    line: int
    passage: Passage | None
    calls: tuple[Mapping[str, Any], ...]
    rules: tuple[RuleOutcome, ...]
    twin: Record | None
    stands_for: tuple[str, ...]
    split: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the story as JSON values."""
        return {
            "record": self.record.to_json(),
            "line": self.line,
            "passage": None if self.passage is None else self.passage.to_json(),
            "calls": [dict(call) for call in self.calls],
            "rules": [{"rule": one.rule, "score": one.score, "holds": one.holds} for one in self.rules],
            "twin": None if self.twin is None else self.twin.to_json(),
            "stands_for": list(self.stands_for),
            "split": self.split,
        }


def explain(run: Run, record_id: str) -> Story:
    """Tell the story of the record whose id begins with `record_id`.

    Raises:
        RunError: there is no such record, several begin like that, or a file of the run cannot be read.
    """
    wanted = record_id.strip().lower()
    if not re.fullmatch(rf"[0-9a-f]{{{_LEAST_PREFIX},16}}", wanted):
        raise RunError(
            f"{record_id!r} is no record's id",
            where=str(run.records_path),
            fix=f"write the id as it stands in records.jsonl, or its first {_LEAST_PREFIX} digits or more",
        )
    line, record = _find(run, wanted)
    of_it = f" of {record.id}"
    stands_for = tuple(
        other.id
        for _, other in _lines_with(run.records_path, of_it.encode())
        if other.decision is not None
        and any(reason.startswith("duplicate:") and of_it in reason for reason in other.decision.reasons)
    )
    twin_id = next(
        (match[1] for r in (record.decision.reasons if record.decision else ()) if (match := _TWIN.match(r))), None
    )
    entry = run.stages().get("filter")
    texts = entry.config["rules"] if entry is not None else ()
    rules = tuple(map(Rule.parse, texts))
    keys = [*record.provenance.call_keys, *(key for one in record.judgements for key in one.call_keys)]
    calls = read_calls(run.journal_path, keys)
    return Story(
        record=record,
        line=line,
        passage=_passage(run, record.passage_id),
        calls=tuple(calls[key] for key in keys if key in calls),
        rules=tuple(RuleOutcome(str(rule), record.scores.get(rule.score), rule.holds(record)) for rule in rules),
        twin=None if twin_id is None else _find(run, twin_id)[1],
        stands_for=stands_for,
        split=_split(run, record),
    )


def _find(run: Run, prefix: str) -> tuple[int, Record]:
    found = [
        (number, record)
        # Not the key before it: a file that was written by another hand has spaces there.
        for number, record in _lines_with(run.records_path, f'"{prefix}'.encode())
        if record.id.startswith(prefix)
    ]
    if not found:
        raise RunError(
            f"no record's id begins with {prefix!r}",
            where=str(run.records_path),
            fix="copy an id from records.jsonl or from the dataset",
        )
    ids = {record.id for _, record in found}
    if len(ids) > 1:
        raise RunError(
            f"{len(ids)} records begin with {prefix!r}: {', '.join(sorted(ids)[:5])}",
            where=str(run.records_path),
            fix="write more of the id",
        )
    return found[0]


def _lines_with(path: Path, text: bytes) -> Iterator[tuple[int, Record]]:
    """Yield the records whose line holds `text`; the others are not parsed."""
    for block in read_blocks(path, _BLOCK_BYTES):
        for number, line in block:
            if text in line:
                yield number, parse_record(line, where=f"{path}:{number}")[1]


def _passage(run: Run, passage_id: str) -> Passage | None:
    if not run.passages_path.exists():
        return None
    text = b'"id":' + orjson.dumps(passage_id)
    for block in read_blocks(run.passages_path, _BLOCK_BYTES):
        for number, line in block:
            if text in line:
                return Passage.from_json(parse_line(line, where=f"{run.passages_path}:{number}"))
    return None


def _split(run: Run, record: Record) -> str | None:
    if record.decision is None or not record.decision.keep:
        return None
    text = f'"id":"{record.id}"'.encode()
    for name, path in (("train", run.train_path), ("validation", run.validation_path)):
        if path.exists() and any(text in line for block in read_blocks(path, _BLOCK_BYTES) for _, line in block):
            return name
    return None
