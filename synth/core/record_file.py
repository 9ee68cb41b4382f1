"""Reading records.jsonl: each line checked against its schema, quickly."""

import re
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

from synth.core.jsonl import parse_line, read_lines
from synth.core.records import Record
from synth.core.schemas import check


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of records.jsonl.

    Raises:
        RecordError: a line is not what schemas/record.schema.json says; the error names the line.
        RunError: the file cannot be read.
    """
    for number, value in read_lines(path):
        yield _record(value, f"{path}:{number}")


def parse_record(line: bytes, *, where: str) -> tuple[dict[str, Any], Record]:
    """Return a line of records.jsonl as it stands and as a record.

    Raises:
        RecordError: it is not what schemas/record.schema.json says.
    """
    value = parse_value(line, where=where)
    return value, Record.from_json(value)


def parse_value(line: bytes, *, where: str) -> dict[str, Any]:
    """Return a line of records.jsonl as it stands, after checking that `Record.from_json` takes it.

    Raises:
        RecordError: it is not what schemas/record.schema.json says.
    """
    value: dict[str, Any] = parse_line(line, where=where)
    if not _plainly_valid(value):
        check(value, "record", where=where)
    return value


def _record(value: Any, where: str) -> Record:  # noqa: ANN401  (any JSON)
    if not _plainly_valid(value):
        check(value, "record", where=where)
    return Record.from_json(value)


def check_record(record: Record, *, where: str) -> None:
    """Raise a RecordError at `where` unless the record can be written and read again.

    Raises:
        RecordError: a part of it has another type than schemas/record.schema.json says.
    """
    value = record.to_json()
    if not _plainly_valid(value):
        check(value, "record", where=where)


_NAMES = itemgetter("kind", "document_id", "passage_id", "generator")
_KEYS = 12
_OPTIONAL = ("more_evidence", "judgements")
_TEXT = frozenset((str,))
_TEXTS = [str, str, str, str]
_SCORE = frozenset((type(None), int, float))
_ID = re.compile(r"[0-9a-f]{16}").fullmatch
_ROLES = frozenset(("system", "user", "assistant"))


def _plainly_valid(value: Any) -> bool:  # noqa: ANN401  (any JSON)
    """Whether the schema surely accepts `value`; the schema itself decides the rest.

    The schema takes 0.7 ms a record, this 2 µs, and nearly all records are plain. Each key is looked up,
    so that the number of keys says whether there are others; sets of types spare a branch for each value.
    """
    try:
        evidence, decision, source = value["evidence"], value["decision"], value["provenance"]
        usage, scores, names = source["usage"], value["scores"], _NAMES(value)
        return (
            # As many keys as the known ones that are there: then there is no other.
            (len(value) == _KEYS or len(value) == _KEYS + _plain_options(value))
            and _ID(value["id"]) is not None
            and type(value["context"]) is str
            and list(map(type, names)) == _TEXTS
            and "" not in names
            and _plain_messages(value["prompt"])
            and _plain_messages(value["completion"])
            and (evidence is None or _plain_quotation(evidence))
            and type(scores) is dict
            and (not scores or set(map(type, scores.values())) <= _SCORE)
            and (
                decision is None
                or (len(decision) == 2 and type(decision["keep"]) is bool and _all_strings(decision["reasons"]))
            )
            and len(source) == 4
            and type(source["teacher"]) is type(source["prompt_sha256"]) is str
            and _all_strings(source["call_keys"])
            and len(usage) == 2
            and type(usage["prompt_tokens"]) is type(usage["completion_tokens"]) is int
        )
    except (KeyError, TypeError, AttributeError):
        return False


def _plain_options(value: Any) -> int:  # noqa: ANN401  (any JSON)
    """Return how many of the keys that few records have are there; none where one of them may be wrong."""
    more, judgements = (value.get(key) for key in _OPTIONAL)
    if "more_evidence" in value and not (type(more) is list and more and all(map(_plain_quotation, more))):
        return 0
    if "judgements" in value and not _plain_judgements(judgements):
        return 0
    return sum(key in value for key in _OPTIONAL)


def _all_strings(value: Any) -> bool:  # noqa: ANN401  (any JSON)
    return type(value) is list and (not value or set(map(type, value)) <= _TEXT)


def _plain_messages(value: Any) -> bool:  # noqa: ANN401  (any JSON)
    if type(value) is not list or not value:
        return False
    for turn in value:  # noqa: SIM110  (a generator takes twice the time)
        if len(turn) != 2 or turn["role"] not in _ROLES or type(turn["content"]) is not str:
            return False
    return True


def _plain_quotation(value: Any) -> bool:  # noqa: ANN401  (any JSON)
    return (
        len(value) == 3
        and type(value["text"]) is str
        and type(value["start"]) is type(value["end"]) is int
        and value["start"] >= -1
        and value["end"] >= -1
    )


def _plain_judgements(value: Any) -> bool:  # noqa: ANN401  (any JSON)
    return (
        type(value) is list
        and bool(value)
        and all(
            j.keys() == {"scorer", "model", "call_keys", "remark"}
            and type(j["scorer"]) is type(j["model"]) is type(j["remark"]) is str
            and bool(j["scorer"])
            and _all_strings(j["call_keys"])
            for j in value
        )
    )
