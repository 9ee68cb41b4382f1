"""The files of an export: shards that are whole or absent, and a list of them that tells ours from others'."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

import orjson

from synth.core.errors import ConfigError, RunError
from synth.core.jsonl import atomic_writer, write_json
from synth.exporting.formats import Column, Layout, Row

_LIST = ".export.json"
_VERSION = 1
# A row group holds so many rows or so many bytes of text, whichever is less.
_GROUP_ROWS, _GROUP_BYTES = 5000, 16 << 20

Write = Callable[[Row], None]


def shard_names(split: str, shards: int, *, parquet: bool) -> tuple[str, ...]:
    """Return the names of the files of a split, as the hub has them; one JSONL file goes without numbers."""
    if parquet:
        return tuple(f"data/{split}-{place:05d}-of-{shards:05d}.parquet" for place in range(shards))
    if shards == 1:
        return (f"{split}.jsonl",)
    return tuple(f"{split}-{place:05d}-of-{shards:05d}.jsonl" for place in range(shards))


@contextlib.contextmanager
def split_writer(paths: Sequence[Path], rows: int, layout: Layout) -> Iterator[Write]:
    """Write `rows` rows of a layout to these files in turn, in equal parts; each is whole or not there.

    Raises:
        RunError: the disk is full, the folder cannot be written.
    """
    each = -(-rows // len(paths))
    left, count = iter(paths), 0
    with contextlib.ExitStack() as stack:
        write_one: Write

        def write(row: Row) -> None:
            nonlocal count, write_one
            if count % each == 0:
                stack.close()
                path = next(left)
                opened: AbstractContextManager[Write] = (
                    _parquet(path, layout.columns) if layout.format.parquet else _jsonl(path)
                )
                write_one = stack.enter_context(opened)
            write_one(row)
            count += 1

        yield write


@contextlib.contextmanager
def _jsonl(path: Path) -> Iterator[Write]:
    with atomic_writer(path) as file:
        yield lambda row: _put(file, row)


def _put(file: IO[bytes], row: Row) -> None:
    file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))


@contextlib.contextmanager
def _parquet(path: Path, columns: Mapping[str, Column]) -> Iterator[Write]:
    pyarrow, parquet = load_pyarrow()
    schema = pyarrow.schema([(name, _type(column)) for name, column in columns.items()])
    group: list[Row] = []
    size = 0
    with atomic_writer(path) as file, parquet.ParquetWriter(file, schema, compression="zstd") as writer:

        def flush() -> None:
            nonlocal size
            writer.write_table(pyarrow.Table.from_pylist(group, schema=schema), row_group_size=len(group))
            group.clear()
            size = 0

        def write(row: Row) -> None:
            nonlocal size
            group.append(row)
            size += sum(len(turn["content"]) for name in ("prompt", "completion") for turn in row[name])
            if len(group) >= _GROUP_ROWS or size >= _GROUP_BYTES:
                flush()

        yield write
        if group:
            flush()


def load_pyarrow() -> tuple[Any, Any]:
    """Import pyarrow and pyarrow.parquet, which take a while and come with an extra.

    Raises:
        ConfigError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(
            "parquet needs pyarrow", fix="install it with `pip install 'synth-tune[documents]'`"
        ) from error
    return pyarrow, pyarrow.parquet


def _type(column: Column) -> Any:  # noqa: ANN401  (pyarrow has no types)
    import pyarrow

    if "list" in column:
        inner = column["list"]
        return pyarrow.list_(pyarrow.struct(_fields(inner)))
    if "struct" in column:
        return pyarrow.struct(_fields(column["struct"]))
    return {"string": pyarrow.string(), "float64": pyarrow.float64()}[column["dtype"]]


def _fields(fields: Sequence[Mapping[str, Any]]) -> list[tuple[str, Any]]:
    return [(column["name"], _type(column)) for column in fields]


class ExportFolder:
    """The folder of an export, and the list of the files that an export wrote there.

    The list is written before the first file, with the names, and after the last, with their digests: what it
    names is ours to replace, and any other file is let be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, names: Sequence[str]) -> None:
        """Announce the files that are about to be written; old ones of ours that are not among them go.

        Raises:
            RunError: one of them is there and is not as an export left it; nothing is written.
        """
        ours = self._listed()
        for name in names:
            path = self.path / name
            if path.exists() and not self._is_ours(path, name, ours):
                raise RunError(
                    "the file is there, and no export wrote it" if name not in ours else "the file was changed by hand",
                    where=str(path),
                    fix="move it away, or name another folder with --out",
                )
        stale = [name for name in ours if name not in names and self._is_ours(self.path / name, name, ours)]
        self._save(finished=False, files=dict.fromkeys((*names, *stale), ""))
        for name in stale:
            (self.path / name).unlink(missing_ok=True)
        for path in {self.path / name for name in (*names, *ours)}:  # what a kill left of them
            for part in path.parent.glob(f".{path.name}.*.part"):
                part.unlink(missing_ok=True)

    def finish(self, names: Sequence[str]) -> None:
        """Say that the files are whole."""
        self._save(finished=True, files={name: _sha256(self.path / name) for name in names})

    def _save(self, *, finished: bool, files: Mapping[str, str]) -> None:
        write_json(self.path / _LIST, {"version": _VERSION, "finished": finished, "files": dict(sorted(files.items()))})

    def _listed(self) -> Mapping[str, str]:
        """Return the files of the last export and their digests, "" where it did not come to its end."""
        try:
            data = orjson.loads((self.path / _LIST).read_bytes())
            files = {name: sha256 for name, sha256 in data["files"].items() if isinstance(sha256, str)}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(
                "the list of exported files cannot be read",
                where=str(self.path / _LIST),
                fix="move the folder away, or name another one with --out",
            ) from error
        # A list that someone wrote must not make us touch files elsewhere.
        return {name: sha256 for name, sha256 in files.items() if not Path(name).is_absolute() and ".." not in name}

    def _is_ours(self, path: Path, name: str, ours: Mapping[str, str]) -> bool:
        return name in ours and path.is_file() and ours[name] in ("", _sha256(path))


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RunError(f"cannot be read ({error.strerror})", where=str(path)) from error
