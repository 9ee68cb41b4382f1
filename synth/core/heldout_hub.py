"""Held-out sets in tables: datasets of the hub, folders of them, and parquet files.

`datasets` and pyarrow load only when a set is read; code that comes with a dataset never runs.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from synth.core.errors import ConfigError, RunError
from synth.core.heldout_files import COLUMNS, Entry

# Beside the columns of an item: SQuAD's name for a document.
_TITLE = "title"
_TEST_SPLITS = ("test", "validation")
_BATCH_ROWS = 1000


def read_parquet(path: Path) -> Iterator[Entry]:
    """Yield the rows of a parquet file.

    Raises:
        ConfigError: pyarrow is not installed, or no column is one of an item.
        RunError: the file cannot be read.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError(
            "parquet files need the package pyarrow", where=str(path), fix="pip install 'synth-tune[tune]'"
        ) from error
    try:
        file = parquet.ParquetFile(path)
        names = _wanted(file.schema_arrow.names, str(path))
        batches = file.iter_batches(_BATCH_ROWS, columns=names)
        rows = (row for batch in batches for row in batch.to_pylist())
        for number, row in enumerate(rows, 1):
            yield f"{path}: row {number}", _entry(row, {})
    except (pa.ArrowException, OSError) as error:
        raise RunError(f"cannot be read as parquet ({_first_line(error)})", where=str(path)) from error


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
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(
            "datasets of the hub need the package datasets", where=shown, fix="pip install 'synth-tune[tune]'"
        ) from error
    silent = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        tables = datasets.load_dataset(repo, config, revision=revision, split=split)
    except Exception as error:  # the library's own, the hub's, and those of several HTTP stacks
        raise ConfigError(
            f"the dataset cannot be loaded ({_first_line(error)})",
            where=shown,
            fix="check the name and the network (HF_HUB_OFFLINE=1 takes what was loaded before); it is written "
            "owner/name@revision:config:split",
        ) from error
    finally:
        if not silent:
            datasets.enable_progress_bars()
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
    # As Arrow, so that nothing is decoded, such as images.
    batches = table.select_columns(names).with_format("arrow").iter(_BATCH_ROWS)
    for number, row in enumerate((row for batch in batches for row in batch.to_pylist()), 1):
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


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]
