"""Tables as documents, read a row at a time: JSONL, CSV, TSV, and rows that come from parquet or the hub."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from synth.core.errors import DocumentError

TEXT_COLUMNS = ("text", "content")
_GIVE_UP = 100
_NAME_CHARS = 200


@dataclass(frozen=True, slots=True)
class Row:
    """A document out of a table: the end of its id, its text and title, or why it is none."""

    name: str
    text: str = ""
    title: str = ""
    refused: str = ""


def row_of(value: Mapping[str, Any], number: int, column: str | None = None) -> Row:
    """Return the document in a row: its text column, and where given its `id` and `title`."""
    names = {str(name).lower(): name for name in reversed(list(value))}
    chosen = column if column is not None else next((names[n] for n in TEXT_COLUMNS if n in names), None)
    own = value.get(names.get("id", ""), None)
    name = str(own)[:_NAME_CHARS] if isinstance(own, str | int) and not isinstance(own, bool) and own != "" else ""
    text = value.get(chosen) if chosen is not None else None
    if not isinstance(text, str):
        wanted = repr(column or TEXT_COLUMNS[0])
        return Row(name or str(number), refused=f"the line has no {wanted} with a string in it")
    title = value.get(names.get("title", ""), None)
    return Row(name or str(number), text, title if isinstance(title, str) else "")


def until_hopeless(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield the rows of a table until a hundred in a row give no text.

    Such a table is not what it was taken for, and each refusal is a line that is held in memory.

    Raises:
        DocumentError: after the hundredth.
    """
    bad = 0
    for row in rows:
        yield row
        bad = bad + 1 if not row.text or row.text.isspace() else 0
        if bad == _GIVE_UP:
            why = f" (the last: {row.refused})" if row.refused else ""
            raise DocumentError(f"{_GIVE_UP} rows in a row give no text{why}; the rest was not read")


def read_jsonl(path: Path, max_line: int) -> Iterator[Row]:
    """Yield one document a line. A bad line costs only itself."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(max_line + 1):
            number += 1
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            where = f"{path.name}:{number}"
            if len(line) > max_line and not line.endswith(b"\n"):
                while (more := file.readline(1024 * 1024)) and not more.endswith(b"\n"):
                    pass
                yield Row(str(number), refused=f"{where}: the line is longer than {max_line >> 20} MiB")
                continue
            if not line.strip():
                continue
            try:
                value = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                yield Row(str(number), refused=f"{where}: not valid JSON ({error})")
                continue
            if isinstance(value, dict):
                yield row_of(value, number)
            else:
                yield Row(str(number), refused="the line has no 'text' with a string in it")


def read_csv(path: Path, encoding: str, max_line: int) -> tuple[Iterator[Row] | None, Iterator[str] | None]:
    """Return a table as (documents, None) or (None, Markdown): one document a row where there is a text column.

    Without a column named `text` or `content` the whole table is one Markdown table, given in pieces of one line.
    """
    # A limit of the csv module for the whole process; it only ever grows here.
    csv.field_size_limit(max(csv.field_size_limit(), max_line))
    rows = _cells(path, encoding, max_line)
    header = [name.strip() for name in next(rows, [])]
    if {name.lower() for name in header} & set(TEXT_COLUMNS):
        return (row_of(dict(zip(header, cells, strict=False)), n) for n, cells in enumerate(rows, 1) if cells), None
    return None, _markdown_table(header, rows)


def _cells(path: Path, encoding: str, max_line: int) -> Iterator[list[str]]:
    with path.open(encoding=encoding, newline="") as file:
        lines = _bounded_lines(file, max_line)
        first = next(lines, "")
        delimiter = "\t" if path.suffix.lower() == ".tsv" else _delimiter(first)
        try:
            yield from csv.reader(_chain(first, lines), delimiter=delimiter)
        except csv.Error as error:
            raise DocumentError(f"not a table ({error})") from error


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _bounded_lines(file: io.TextIOBase, max_line: int) -> Iterator[str]:
    while line := file.readline(max_line + 1):
        if len(line) > max_line:
            raise DocumentError(f"a line is longer than {max_line >> 20} MiB")
        yield line


def _delimiter(header: str) -> str:
    """Return what separates the names in the first line: the mark that stands there most often outside quotes."""
    outside = "".join(header.split('"')[::2])
    return max(",;\t|", key=outside.count)


def _markdown_table(header: list[str], rows: Iterable[list[str]]) -> Iterator[str]:
    if not any(header):
        return
    yield _table_row(header, len(header))
    yield "| " + " | ".join("---" for _ in header) + " |\n"
    for cells in rows:
        if cells:
            yield _table_row(cells, len(header))


def _table_row(cells: list[str], width: int) -> str:
    padded = [*cells, *[""] * (width - len(cells))]
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in padded) + " |\n"
