"""Reading records.jsonl: each line checked against its schema, quickly."""

import re
from collections.abc import Iterator
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
_JUDGED_KEYS = {*_KEYS, "judgements"}
_ID = re.compile(r"[0-9a-f]{16}")
_ROLES = frozenset(("system", "user", "assistant"))


def _plainly_valid(value: Any) -> bool:  # noqa: ANN401  (any JSON)
    """Whether the schema surely accepts `value`; the schema itself decides the rest.

    The schema takes 0.7 ms a record, this 5 µs, and nearly all records are plain.
    """
    try:
        evidence, decision, source = value["evidence"], value["decision"], value["provenance"]
        usage = source["usage"]
        return (
            (value.keys() == _KEYS or (value.keys() == _JUDGED_KEYS and _plain_judgements(value["judgements"])))
            and _ID.fullmatch(value["id"]) is not None
            and all(type(value[key]) is str and value[key] for key in _NAMES)
            and type(value["context"]) is str
            and _plain_messages(value["prompt"])
            and _plain_messages(value["completion"])
            and (
                evidence is None
                or (
                    evidence.keys() == {"text", "start", "end"}
                    and type(evidence["text"]) is str
                    and all(type(evidence[key]) is int and evidence[key] >= -1 for key in ("start", "end"))
                )
            )
            and all(v is None or type(v) in (int, float) for v in value["scores"].values())
            and (
                decision is None
                or (
                    decision.keys() == {"keep", "reasons"}
                    and type(decision["keep"]) is bool
                    and _all_strings(decision["reasons"])
                )
            )
            and source.keys() == {"teacher", "prompt_sha256", "call_keys", "usage"}
            and type(source["teacher"]) is type(source["prompt_sha256"]) is str
            and _all_strings(source["call_keys"])
            and usage.keys() == {"prompt_tokens", "completion_tokens"}
            and all(type(count) is int for count in usage.values())
        )
    except (KeyError, TypeError, AttributeError):
        return False


def _all_strings(value: Any) -> bool:  # noqa: ANN401  (any JSON)
    return type(value) is list and all(type(item) is str for item in value)


def _plain_messages(value: Any) -> bool:  # noqa: ANN401  (any JSON)
    return (
        type(value) is list
        and bool(value)
        and all(m.keys() == {"role", "content"} and m["role"] in _ROLES and type(m["content"]) is str for m in value)
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
