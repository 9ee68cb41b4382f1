"""Rows of tables: parquet files and datasets of the hub. `datasets` and pyarrow load only when one is read."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from synth.core.errors import ConfigError, RunError

_BATCH_ROWS = 1000
_INSTALL = "pip install 'synth-tune[tune]'"

Choose = Callable[[Sequence[str]], Sequence[str]]
"""Returns which of a table's columns are read."""


def parquet_rows(path: Path, choose: Choose) -> Iterator[dict[str, Any]]:
    """Yield the rows of a parquet file, of the columns that are chosen.

    Raises:
        ConfigError: pyarrow is not installed; or what `choose` raises.
        RunError: the file cannot be read.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError("parquet files need the package pyarrow", where=str(path), fix=_INSTALL) from error
    try:
        file = parquet.ParquetFile(path)
        batches = file.iter_batches(_BATCH_ROWS, columns=list(choose(file.schema_arrow.names)))
        yield from (row for batch in batches for row in batch.to_pylist())
    except (pa.ArrowException, OSError) as error:
        raise RunError(f"cannot be read as parquet ({_first_line(error)})", where=str(path)) from error


def table_rows(table: Any, names: Sequence[str]) -> Iterator[dict[str, Any]]:  # noqa: ANN401  (untyped library)
    """Yield the rows of a table of `datasets`, of the columns that are named; nothing is decoded, such as images."""
    batches = table.select_columns(list(names)).with_format("arrow").iter(_BATCH_ROWS)
    yield from (row for batch in batches for row in batch.to_pylist())


def load_hub(repo: str, config: str | None, split: str | None, revision: str | None, *, where: str, fix: str) -> Any:  # noqa: ANN401  (untyped library)
    """Return a dataset: a table where a split is named, else tables by the names of their splits.

    Code that comes with a dataset never runs.

    Args:
        repo: owner/name on the hub, or a folder.
        config: which of its configurations.
        split: a split as `datasets` names one, such as test[:100].
        revision: a branch, a tag or a commit.
        where: the source as the user wrote it, for errors.
        fix: what else may be done, for errors.

    Raises:
        ConfigError: `datasets` is not installed, or the dataset cannot be loaded.
    """
    try:
        import datasets
    except ImportError as error:
        raise ConfigError("datasets of the hub need the package datasets", where=where, fix=_INSTALL) from error
    silent = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(repo, config, revision=revision, split=split)
    except Exception as error:  # the library's own, the hub's, and those of several HTTP stacks
        raise ConfigError(
            f"the dataset cannot be loaded ({_first_line(error)})",
            where=where,
            fix=f"check the name and the network (HF_HUB_OFFLINE=1 takes what was loaded before), or {fix}",
        ) from error
    finally:
        if not silent:
            datasets.enable_progress_bars()


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]
