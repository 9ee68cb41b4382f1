"""Held-out sets in tables: datasets of the hub, folders of them, and parquet files."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from synth.core.errors import ConfigError
from synth.core.heldout_files import COLUMNS, Entry
from synth.core.tables import load_hub, parquet_rows, table_rows

# Beside the columns of an item: SQuAD's name for a document.
_TITLE = "title"
_TEST_SPLITS = ("test", "validation")


def read_parquet(path: Path) -> Iterator[Entry]:
    """Yield the rows of a parquet file.

    Raises:
        ConfigError: pyarrow is not installed, or no column is one of an item.
        RunError: the file cannot be read.
    """
    rows = parquet_rows(path, lambda names: _wanted(names, str(path)))
    for number, row in enumerate(rows, 1):
        yield f"{path}: row {number}", _entry(row, {})


def read_hub(repo: str, revision: str | None, config: str | None, split: str | None, *, shown: str) -> Iterator[Entry]:
    """Yield the rows of a dataset: of the split that is named, else of `test`, of `validation`, or of the only one.

    Args:
        repo: owner/name on the hub, or a folder.
        revision: a branch, a tag or a commit.
        config: which of its configurations.
        split: a split as `datasets` names one, such as test[:100].
        shown: the source as the user wrote it, for errors.

    Raises:
        ConfigError: it cannot be loaded, has no such split, or no column is one of an item.
    """
    fix = "name a local file; it is written owner/name@revision:config:split"
    tables = load_hub(repo, config, split, revision, where=shown, fix=fix)
    if split is None:
        split = _split(list(map(str, tables)), shown)
        tables = tables[split]
    yield from _rows(tables, f"{shown.removesuffix(f':{split}')}:{split}")


def _split(there: Sequence[str], shown: str) -> str:
    found = next((name for name in _TEST_SPLITS if name in there), there[0] if len(there) == 1 else None)
    if found is None:
        raise ConfigError(
            f"the dataset has no split named test or validation, but {', '.join(there) or 'none'}",
            where=shown,
            fix=f"name one as {shown}:SPLIT",
        )
    return found


def _rows(table: Any, shown: str) -> Iterator[Entry]:  # noqa: ANN401  (untyped library)
    names = _wanted(table.column_names, shown)
    classes = {
        name: tuple(feature.names) for name in names if hasattr(feature := table.features[name], "int2str")
    }  # ClassLabel
    for number, row in enumerate(table_rows(table, names), 1):
        yield f"{shown}: row {number}", _entry(row, classes)


def _wanted(names: Sequence[str], shown: str) -> list[str]:
    wanted = [name for name in names if name in COLUMNS or name == _TITLE]
    if not {"question", "text"} & {*wanted}:
        raise ConfigError(
            f"no column is named 'question' or 'text', but {', '.join(map(repr, names))[:200]}",
            where=shown,
            fix="rename the columns, or save the items as JSONL; see docs/verdict.md",
        )
    return wanted


def _entry(row: Mapping[str, Any], classes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the item of a row: SQuAD's answers as their texts, a class by its name, a title as the document's id."""
    entry = {name: value for name, value in row.items() if value is not None and name != _TITLE}
    for name, known in classes.items():
        number = entry.get(name)
        if isinstance(number, int):
            # -1 stands for no label in splits that keep theirs secret.
            entry[name] = known[number] if 0 <= number < len(known) else None
    for name in ("answers", "references"):
        if name in entry:
            entry[name] = _texts(entry[name])
    title = row.get(_TITLE)
    if title and entry.get("document_id") is None:
        entry["document_id"] = title
    return entry


def _texts(value: Any) -> Any:  # noqa: ANN401  (whatever the column holds; the schema says the rest)
    """Return the texts of answers as SQuAD has them: a list under `text`, or a list of objects with a `text` each."""
    if isinstance(value, Mapping):
        return value.get("text")
    if isinstance(value, list):
        return [part.get("text") if isinstance(part, Mapping) else part for part in value]
    return [value] if isinstance(value, str) else value
