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
    value = parse_line(line, where=where)
    return value, _record(value, where)


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


_NAMES = ("kind", "document_id", "passage_id", "generator")
_KEYS = {*_NAMES, "id", "prompt", "completion", "context", "evidence", "scores", "decision", "provenance"}
_OPTIONAL = ("more_evidence", "judgements")
_STRINGS = itemgetter("context", *_NAMES)
_TEXT = frozenset((str,))
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
        usage, more = source["usage"], value.get("more_evidence")
        return (
            # As many keys as the known ones that are there: then there is no other.
            len(value) == len(_KEYS) + sum(key in value for key in _OPTIONAL)
            and _ID(value["id"]) is not None
            and set(map(type, (strings := _STRINGS(value)))) == _TEXT
            and "" not in strings[1:]
            and _plain_messages(value["prompt"])
            and _plain_messages(value["completion"])
            and (evidence is None or _plain_quotation(evidence))
            and (more is None or (type(more) is list and bool(more) and all(map(_plain_quotation, more))))
            and ("more_evidence" not in value or more is not None)
            and ("judgements" not in value or _plain_judgements(value["judgements"]))
            and set(map(type, value["scores"].values())) <= _SCORE
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


def _all_strings(value: Any) -> bool:  # noqa: ANN401  (any JSON)
    return type(value) is list and set(map(type, value)) <= _TEXT


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
