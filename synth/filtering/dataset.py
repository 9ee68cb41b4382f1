"""The files of the filter stage: every record with its decision, and the kept ones as a dataset."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson

from synth.core.jsonl import FileDigest, line_writer
from synth.core.records import Message
from synth.core.runs import Run
from synth.filtering.late import Late
from synth.filtering.lines import UNDECIDED
from synth.filters.selection import validation_documents

_KEY = b'"decision":'
_KEPT = b'"decision":{"keep":true,"reasons":[]}'

Mask = Callable[[Sequence[Message]], Sequence[Message]]
"""Takes turns and gives them back with what is secret in them masked."""


def decided(line: bytes, reasons: Sequence[str], late: Late | None = None) -> bytes:
    """Return a scored line with its decision and, where a model was asked, with what it said.

    Args:
        line: as the first pass left it; it may be rejected already.
        reasons: what came up against the record since then.
        late: scores and judgements of models.
    """
    if late is not None:
        line = _with_late(line, late)
    # In JSON a quotation mark inside a text is escaped, so this finds a key; a score may be called "decision" too,
    # and scores stand before the decision.
    place = line.rfind(_KEY)
    if line.startswith(UNDECIDED, place):
        decision = b'"decision":' + orjson.dumps({"keep": False, "reasons": reasons}) if reasons else _KEPT
        return line[:place] + decision + line[place + len(UNDECIDED) :]
    if reasons:
        value = orjson.loads(line)
        value["decision"]["reasons"] += reasons
        return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
    return line


def _with_late(line: bytes, late: Late) -> bytes:
    value = orjson.loads(line)
    scores = {**value["scores"], **late.scores}
    # The order of the keys is that of `Record.to_json`.
    again = {
        key: part
        for name, old in value.items()
        for key, part in ({"scores": scores, **late.to_json()} if name == "scores" else {name: old}).items()
        if name != "judgements"
    }
    return orjson.dumps(again, option=orjson.OPT_APPEND_NEWLINE)


def write_records(run: Run, lines: Iterable[bytes]) -> FileDigest:
    """Write records.jsonl anew; there is no dataset beside it."""
    with line_writer(run.records_path) as writer:
        for line in lines:
            writer.write(line)
    return writer.digest


def write_all(
    run: Run,
    lines: Iterable[bytes],
    kept: Counter[str],
    share: float,
    seed: int,
    *,
    mask: Mask | None = None,
    watch: Callable[[Mapping[str, Any]], None] = lambda line: None,
) -> Mapping[str, FileDigest]:
    """Write records.jsonl and the dataset; return their digests by their paths in the run.

    Args:
        run: the run, locked.
        lines: decided lines, in order.
        kept: the number of kept records of each document.
        share: the share of them that validates, by whole documents.
        seed: decides which documents validate.
        mask: hides secrets in the dataset's rows; None leaves them as they are.
        watch: is shown each kept line.
    """
    validating = validation_documents(kept, share, seed)
    paths = (run.records_path, run.train_path, run.validation_path)
    with contextlib.ExitStack() as files:
        records, train, validation = (files.enter_context(line_writer(path)) for path in paths)
        for line in lines:
            records.write(line)
            if _KEPT in line:
                value = orjson.loads(line)
                if value["decision"]["keep"]:
                    watch(value)
                    writer = validation if value["document_id"] in validating else train
                    writer.write(orjson.dumps(_row(value, mask), option=orjson.OPT_APPEND_NEWLINE))
    writers = (records, train, validation)
    return {path.relative_to(run.path).as_posix(): writer.digest for path, writer in zip(paths, writers, strict=True)}


def _row(value: Mapping[str, Any], mask: Mask | None) -> dict[str, Any]:
    """Return the dataset's row: TRL's conversational prompt and completion, and where it came from."""
    return {
        "prompt": _masked(value["prompt"], mask),
        "completion": _masked(value["completion"], mask),
        "id": value["id"],
        "document_id": value["document_id"],
    }


def _masked(turns: list[dict[str, str]], mask: Mask | None) -> list[dict[str, str]]:
    return turns if mask is None else [m.to_json() for m in mask([Message.from_json(turn) for turn in turns])]
