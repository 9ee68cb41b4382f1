"""Rows from outside a run: files, folders with train and validation files, and datasets of the hub.

Files are read a line at a time, every wrong row of a file is counted, and the first are named. `datasets` and pyarrow
load only where a source needs them.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from synth.core.errors import ConfigError, RecordError, did_you_mean
from synth.core.jsonl import FileDigest, digest_file, parse_line, read_blocks
from synth.core.tables import load_hub, parquet_rows, table_rows
from tune.formats import COLUMNS, prompt_key, to_row
from tune.rows import Row

_SUFFIXES = (".jsonl", ".json", ".parquet")
_NAMED = 5  # How many faults an error names before it only counts.
_BLOCK_BYTES = 4 * 1024 * 1024
_LARGEST_ARRAY = 1 << 30
_HUB = re.compile(
    r"(?P<repo>[\w.-]+/[\w.-]+|(?<=hub:)[\w.-]+)(?::(?P<config>[\w.-]+))?(?:@(?P<split>[\w.\[\]:%+-]+))?", re.ASCII
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Source:
    """Rows and the split they came with.

    `validation` is None where they came without one. `inputs` are digests of what was read, by names that hold no
    folder above the source. `own_split` is whether the split is one that `synth filter` did not make.
    """

    name: str
    train: tuple[Row, ...]
    validation: tuple[Row, ...] | None
    inputs: Mapping[str, FileDigest]
    notes: tuple[str, ...] = ()
    own_split: bool = False

    @property
    def rows(self) -> tuple[Row, ...]:
        """All rows, those of the validation side last."""
        return (*self.train, *(self.validation or ()))


def open_source(spec: str, *, flag: str, training_only: bool = False) -> Source:
    """Read all rows of a file, a folder or a dataset of the hub.

    Args:
        spec: a path, or `owner/name[:config][@split]` of the hub, with `hub:` before it where a path has that name.
        flag: the setting that named it, for errors.
        training_only: leave the validation rows unread.

    Raises:
        ConfigError: there is no such thing, or the hub cannot be asked.
        RecordError: rows are wrong (the error counts them and names the first), or there is none.
        RunError: a file cannot be read.
    """
    path = Path(spec).expanduser()
    if not spec.startswith("hub:"):
        if path.is_dir():
            return _folder(path, flag, training_only)
        if path.exists():
            rows, inputs = _files([path], path.name)
            return Source(path.name, rows, None, inputs)
    match = _HUB.fullmatch(spec.removeprefix("hub:")) or (_HUB.match(spec, 4) if spec.startswith("hub:") else None)
    if match is None or match.end() != len(match.string) or (not spec.startswith("hub:") and _looks_local(path)):
        beside = path.parent.iterdir() if path.parent.is_dir() else ()
        raise ConfigError(
            "there is no such file, folder or run",
            where=f"{flag} {spec}",
            fix=did_you_mean(path.name, [p.name for p in beside if not p.name.startswith(".")])
            + "; a dataset of the hub is owner/name",
        )
    return _hub(match["repo"], match["config"], match["split"], flag, training_only)


def same_on_both_sides(source: Source) -> str:
    """Return in words which validation rows ask what a training row asks; empty where none does."""
    trained = {prompt_key(row): row for row in source.train}
    both = [(row, trained[key]) for row in source.validation or () if (key := prompt_key(row)) in trained]
    if not both:
        return ""
    named = ", ".join(f"{row.id} ({_excerpt(row)}) as {twin.id}" for row, twin in both[:_NAMED])
    more = f" and {len(both) - _NAMED} more" if len(both) > _NAMED else ""
    return f"{len(both)} validation {_rows(len(both))} what a training row asks: {named}{more}"


def with_unique_ids(sources: Iterable[Source]) -> tuple[tuple[Source, ...], int]:
    """Return the sources with `#2`, `#3` … after ids that stood before, and how many were renamed."""
    taken: set[str] = set()
    renamed = 0
    made = []

    def unique(rows: tuple[Row, ...]) -> tuple[Row, ...]:
        nonlocal renamed
        found = []
        for row in rows:
            name, number = row.id, 1
            while name in taken:
                number += 1
                name = f"{row.id}#{number}"
            taken.add(name)
            renamed += name != row.id
            found.append(row if name == row.id else replace(row, id=name))
        return tuple(found)

    for source in sources:
        validation = source.validation
        made.append(
            replace(source, train=unique(source.train), validation=None if validation is None else unique(validation))
        )
    return tuple(made), renamed


def _looks_local(path: Path) -> bool:
    """Whether a name that is no path here was meant as one: its folder is there, or its ending is a file's."""
    here = path.parent == Path()
    return path.is_absolute() or path.suffix in _SUFFIXES or (not here and path.parent.is_dir())


def _folder(folder: Path, flag: str, training_only: bool) -> Source:
    """Read `train*` and `validation*` of a folder, or of its folder data/."""
    found = {side: _side(folder, side) for side in ("train", "validation")}
    name = folder.resolve().name
    if not found["train"]:
        raise ConfigError(
            "the folder holds no run.json and no train.jsonl, train.json or train*.parquet",
            where=f"{flag} {folder}",
            fix="name a run, a file, or a folder with train.jsonl and, if you have one, validation.jsonl",
        )
    train, inputs = _files(found["train"], name)
    if training_only or not found["validation"]:
        return Source(name, train, None, inputs)
    validation, more = _files(found["validation"], name)
    return Source(name, train, validation, {**inputs, **more}, own_split=True)


def _side(folder: Path, side: str) -> list[Path]:
    for place in (folder, folder / "data"):
        files = place.iterdir() if place.is_dir() else ()
        # train.jsonl, or shards as the hub has them: train-00000-of-00002.parquet.
        found = [p for p in files if p.suffix in _SUFFIXES and re.fullmatch(rf"{side}(-\d+-of-\d+)?", p.stem)]
        if found:
            return sorted(found)
    return []


def _files(paths: list[Path], source: str) -> tuple[tuple[Row, ...], dict[str, FileDigest]]:
    rows: list[Row] = []
    inputs = {}
    for path in paths:
        name = path.name if path.name == source else f"{source}/{path.name}"
        sha256 = digest_file(path).sha256
        found = _Faults(str(path)).collect(_values(path), source)
        inputs[name] = FileDigest(sha256, len(found))
        rows += found
    if not rows:
        raise RecordError("there is no row", where=str(paths[0]), fix="name another source")
    return tuple(rows), inputs


class _Faults:
    """Counts the rows of one file that are wrong, and keeps the first."""

    def __init__(self, where: str) -> None:
        self._where, self._count, self._first = where, 0, list[tuple[int, RecordError]]()

    def collect(self, values: Iterable[tuple[int, Any]], source: str) -> list[Row]:
        """Return the rows.

        Raises:
            RecordError: some are wrong.
        """
        rows = []
        for number, value in values:
            try:
                if isinstance(value, bytes):
                    value = parse_line(value.removeprefix(b"\xef\xbb\xbf") if number == 1 else value, where="")
                rows.append(to_row(value, source))
            except RecordError as error:
                self._count += 1
                if len(self._first) < _NAMED:
                    self._first.append((number, error))
        if not self._count:
            return rows
        number, first = self._first[0]
        if self._count == 1:
            raise RecordError(first.what, where=f"{self._where}:{number}", fix=first.fix) from first
        listed = "; ".join(f"{n}: {error.what}" for n, error in self._first)
        more = f"; and {self._count - _NAMED} more" if self._count > _NAMED else ""
        total = self._count + len(rows)
        raise RecordError(
            f"{self._count} of {total} rows cannot be trained on. Line {listed}{more}", where=self._where, fix=first.fix
        )


def _values(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the rows of a file by number: unparsed lines of JSONL, values of the others."""
    if path.suffix == ".parquet":
        yield from enumerate(parquet_rows(path, _wanted), 1)
    elif path.suffix == ".json" and _is_array(path):
        yield from _array(path)
    else:
        for block in read_blocks(path, _BLOCK_BYTES):
            yield from block


def _is_array(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def _array(path: Path) -> Iterator[tuple[int, Any]]:
    size = path.stat().st_size
    if size > _LARGEST_ARRAY:
        raise RecordError(
            f"one JSON value of {size >> 20} MiB, which has to be held whole",
            where=str(path),
            fix="write the rows as JSONL, one a line",
        )
    try:
        values = orjson.loads(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        raise RecordError(
            f"not valid JSON ({error})", where=str(path), fix="mend it, or write the rows as JSONL, one a line"
        ) from error
    yield from enumerate(values, 1)


def _hub(repo: str, config: str | None, split: str | None, flag: str, training_only: bool) -> Source:
    where = f"{flag} {repo}"
    name = repo + (f":{config}" if config else "") + (f"@{split}" if split else "")
    tables = load_hub(repo, config, split, None, where=where, fix="name a local file")
    if split is not None:
        rows, digest = _table(tables, f"{repo}@{split}", name)
        return Source(name, rows, None, {name: digest}, _commit(tables, name))
    if "train" not in tables:
        there = sorted(map(str, tables))
        raise ConfigError(
            f"the dataset has no split named train, but {' and '.join(there) or 'none'}",
            where=where,
            fix=f"name one as {name}@{there[0]}" if there else "name another dataset",
        )
    train, digest = _table(tables["train"], f"{repo}@train", name)
    inputs, notes = {f"{name}/train": digest}, _commit(tables["train"], name)
    if training_only or not len(tables.get("validation", ())):
        return Source(name, train, None, inputs, notes)
    validation, inputs[f"{name}/validation"] = _table(tables["validation"], f"{repo}@validation", name)
    return Source(name, train, validation, inputs, notes, own_split=True)


def _table(table: Any, where: str, source: str) -> tuple[tuple[Row, ...], FileDigest]:  # noqa: ANN401  (untyped library)
    """Return the rows of a table, and a digest of the columns that were read."""
    digest = hashlib.sha256()
    rows = tuple(_Faults(where).collect(_table_rows(table, digest), source))
    if not rows:
        raise RecordError("there is no row", where=where, fix="name another source")
    return rows, FileDigest(digest.hexdigest(), len(rows))


def _commit(table: Any, name: str) -> tuple[str, ...]:  # noqa: ANN401  (untyped library)
    """Return a note with the commit that the table was made from: it names the folder of the library's own copy."""
    folders = {Path(file["filename"]).parent.name for file in table.cache_files}
    return tuple(f"{name}: commit {folder[:12]} of the hub" for folder in sorted(folders) if _COMMIT.fullmatch(folder))


def _table_rows(table: Any, digest: "hashlib._Hash") -> Iterator[tuple[int, Any]]:  # noqa: ANN401  (untyped library)
    wanted = _wanted(table.column_names)
    for number, row in enumerate(table_rows(table, wanted), 1):
        digest.update(orjson.dumps(row, default=repr, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS))
        yield number, row


def _wanted(names: Sequence[str]) -> Sequence[str]:
    return [name for name in names if name in COLUMNS] or names


def _excerpt(row: Row) -> str:
    side = row.prompt or row.completion
    text = " ".join((side if isinstance(side, str) else side[-1].content).split())
    return repr(text if len(text) <= 60 else text[:59] + "…")


def _rows(number: int) -> str:
    return "row asks" if number == 1 else "rows ask"
