"""The files that a held-out set may be: each reader yields `(place, entry)` and knows the place to a line.

JSONL has one item a line; SQuAD JSON is v1.1 or v2.0; CSV and TSV have a header, and several answers or references in a
cell stand apart by `|`; parquet has the columns of a dataset of the hub.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from synth.core.errors import RecordError, RunError, did_you_mean
from synth.core.jsonl import MAX_LINE_BYTES, parse_line, read_blocks

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
COLUMNS = (
    *("id", "question", "text", "answer", "answers", "unanswerable", "label", "reference", "references"),
    *("document_id", "context"),
)

Entry = tuple[str, Any]

_BLOCK_BYTES = 4 * 1024 * 1024
_LARGEST_WHOLE = 1 << 30
_BOM = b"\xef\xbb\xbf"
_SPLIT = ("answers", "references")
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def read_file(path: Path) -> Iterator[Entry]:
    """Yield the entries of a file by the ending of its name; what is unknown is read as JSONL.

    Raises:
        ConfigError: parquet, and the package that reads it is not installed.
        RecordError: the file or a part of it is not in the form that its name promises.
        RunError: it cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix in {".csv", ".tsv"}:
        yield from _read_table(path, "\t" if suffix == ".tsv" else ",")
    elif suffix == ".json":
        yield from _read_squad(path)
    elif suffix == ".parquet":
        from synth.core.heldout_hub import read_parquet

        yield from read_parquet(path)
    else:
        for block in read_blocks(path, _BLOCK_BYTES):
            for number, raw in block:
                line = raw.removeprefix(_BOM) if number == 1 else raw
                if line.strip():
                    yield f"{path}:{number}", parse_line(line, where=f"{path}:{number}")


def _whole(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > _LARGEST_WHOLE:
            raise RecordError(
                f"{size >> 20} MiB, which have to be held whole", where=str(path), fix="write the items as JSONL"
            )
        return path.read_bytes().removeprefix(_BOM)
    except OSError as error:
        raise RunError(f"cannot be read ({error.strerror})", where=str(path)) from error


def _read_table(path: Path, delimiter: str) -> Iterator[Entry]:
    data = _whole(path)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RecordError("not UTF-8 text", where=f"{path}:{line}", fix="save it as UTF-8 CSV") from error
    # A limit of the csv module for the whole process; it only ever grows here.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            where, line = f"{path}:{line}", reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = _header(cells, where)
            elif len(cells) > len(header):
                raise RecordError("more columns than the header names", where=where, fix="quote the field")
            else:
                yield where, _row(dict(zip(header, cells, strict=False)), where)
    except csv.Error as error:
        raise RecordError(
            f"not a readable table ({error})", where=f"{path}:{line}", fix="mend the line's quotes"
        ) from error


def _header(cells: Sequence[str], where: str) -> list[str]:
    header = [cell.strip().casefold() for cell in cells]
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice is not None:
        raise RecordError(f"two columns are named {twice!r}", where=where, fix="rename or remove one")
    if not {"question", "text"} & {*header}:
        named = ", ".join(map(repr, header))[:200]
        raise RecordError(
            f"no column is named 'question' or 'text', but {named}",
            where=where,
            fix=f"the first line names the columns ({did_you_mean(header[0], COLUMNS)}), with commas between in a .csv "
            "and tabs in a .tsv",
        )
    return header


def _row(cells: Mapping[str, str], where: str) -> dict[str, Any]:
    """Return the item of a row; an empty cell says nothing."""
    entry: dict[str, Any] = {name: cell for name, cell in cells.items() if name in COLUMNS and cell.strip()}
    for name in _SPLIT:
        if name in entry:
            entry[name] = [part.strip() for part in entry[name].split("|") if part.strip()] or None
    if "unanswerable" in entry:
        said = entry["unanswerable"].strip().casefold()
        if said not in _TRUTH:
            raise RecordError(f"'unanswerable' is {said[:40]!r}", where=where, fix="write true or false")
        entry["unanswerable"] = _TRUTH[said]
    return entry


def _read_squad(path: Path) -> Iterator[Entry]:
    try:
        data = orjson.loads(_whole(path))
    except orjson.JSONDecodeError as error:
        raise RecordError(
            f"not valid JSON ({error})",
            where=str(path),
            fix="mend the file; items one a line are for a file named .jsonl",
        ) from error
    if isinstance(data, list):
        raise RecordError(
            "a list, and not in SQuAD's form", where=str(path), fix="write the items one a line, as .jsonl"
        )
    for number, article in enumerate(_list(data, "data", str(path))):
        at = f"{path}: data[{number}]"
        for p, paragraph in enumerate(_list(article, "paragraphs", at)):
            within = f"{at}.paragraphs[{p}]"
            for q, qa in enumerate(_list(paragraph, "qas", within)):
                where = f"{within}.qas[{q}]"
                yield where, _question(qa, str(article.get("title") or number), paragraph.get("context"), where)


def _question(qa: Any, document: str, context: Any, where: str) -> dict[str, Any]:  # noqa: ANN401  (checked later)
    answers = [_text(answer, where) for answer in _list(qa, "answers", where, optional="is_impossible")]
    impossible = bool(qa.get("is_impossible"))
    if impossible:  # Some writers give an impossible question an empty answer.
        answers = [text for text in answers if not isinstance(text, str) or text.strip()]
    for key, value in (("context", context), ("id", qa.get("id")), ("question", qa.get("question"))):
        if value is None:
            raise _not_squad(key, where)
    return {
        "id": str(qa["id"]),
        "question": qa["question"],
        "answers": answers,
        "document_id": document,
        "context": context,
        **({"unanswerable": True} if impossible else {}),
    }


def _text(answer: Any, where: str) -> Any:  # noqa: ANN401  (checked later)
    if not isinstance(answer, dict) or "text" not in answer:
        raise _not_squad("text", f"{where}.answers")
    return answer["text"]


def _list(value: Any, key: str, where: str, *, optional: str = "") -> list[Any]:  # noqa: ANN401  (any JSON)
    """Return the list under a key; an empty one where it may be missing, since another key is there and true."""
    found = value.get(key) if isinstance(value, dict) else None
    if found is None and isinstance(value, dict) and optional and value.get(optional):
        return []
    if not isinstance(found, list):
        raise _not_squad(key, where)
    return found


def _not_squad(key: str, where: str) -> RecordError:
    return RecordError(f"not in SQuAD's form (no {key!r})", where=where, fix="see docs/verdict.md for the formats")
