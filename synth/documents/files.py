"""Which files are documents: folders walked in a stable order, patterns, and links that lead nowhere good."""

import errno
import os
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

from synth.core.errors import ConfigError

IGNORE_FILE = ".synthignore"

# What `datasets.Dataset.save_to_disk` writes beside its Arrow files: facts about them, no documents.
_DATASET_FILES = frozenset({"state.json", "dataset_info.json", "dataset_dict.json"})
_DIRECTION_MARKS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True, slots=True)
class Found:
    """A file to read, or why it cannot be one."""

    path: Path
    document_id: str
    refused: str = ""


class Patterns:
    """Which paths below a folder are wanted, in the language of .gitignore.

    A path is wanted where an `include` pattern matches it (or there is none) and no `exclude` pattern does.
    """

    def __init__(self, include: Sequence[str], exclude: Sequence[str]) -> None:
        self._include = _spec(include, "include") if include else None
        self._exclude = _spec(exclude, "exclude")

    def wants(self, path: str) -> bool:
        """Return whether the file at `path` (below the folder, with `/`) is wanted."""
        if self._include is not None and not self._include.match_file(path):
            return False
        return not self._exclude.match_file(path)

    def enters(self, path: str) -> bool:
        """Return whether files below the folder at `path` can be wanted."""
        return not self._exclude.match_file(path + "/")


def _spec(lines: Sequence[str], name: str) -> GitIgnoreSpec:
    try:
        return GitIgnoreSpec.from_lines(lines)
    except ValueError as error:
        raise ConfigError(f"not a pattern ({error})", where=name, fix="write it as in a .gitignore") from error


def safe_id(name: str) -> str:
    """Return a name that is one line of printable text; what is not stands there as its code behind a backslash."""
    if name.isascii() and name.isprintable():
        return name
    return "".join(_escaped(c) if _unsafe(c) else c for c in name)


def _unsafe(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in _DIRECTION_MARKS


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def find_files(source: Path, include: Sequence[str], exclude: Sequence[str]) -> Iterator[Found]:
    """Yield the files of a folder in the order of their names, or the one file that `source` is.

    Names that begin with a dot are passed over. A `.synthignore` in the folder adds to `exclude`.
    A file that was named is read whatever the patterns say.
    """
    if not _is_folder(source):
        yield _looked_at(source, safe_id(source.name), source.parent, named=True)
        return
    patterns = Patterns(include, [*exclude, *_ignored(source)])
    root = source.resolve()
    pending = [source]
    while pending:
        folder = pending.pop()
        try:
            names = sorted(entry.name for entry in os.scandir(folder))
        except OSError as error:
            below = folder.relative_to(source).as_posix()
            yield Found(folder, safe_id(below), f"the folder cannot be read ({error.strerror})")
            continue
        folders = []
        saved_dataset = _DATASET_FILES & set(names) and any(name.endswith(".arrow") for name in names)
        for name in names:
            if name.startswith(".") or (name in _DATASET_FILES and (saved_dataset or name == "dataset_dict.json")):
                continue
            path = folder / name
            below = path.relative_to(source).as_posix()
            if _is_folder(path):
                if not patterns.enters(below):
                    continue
                if os.path.islink(path):  # noqa: PTH114
                    yield Found(path, safe_id(below), "a symbolic link to a folder; such links are not followed")
                else:
                    folders.append(path)
            elif patterns.wants(below):
                yield _looked_at(path, safe_id(below), root)
        pending.extend(reversed(folders))


def _is_folder(path: Path) -> bool:
    # pathlib's own raises where the system refuses to say: no permission, or a name that is too long.
    return os.path.isdir(path)  # noqa: PTH112


def _ignored(folder: Path) -> list[str]:
    path = folder / IGNORE_FILE
    try:
        return path.read_text(encoding="utf-8").splitlines() if stat.S_ISREG(path.stat().st_mode) else []
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read ({error})", where=str(path), fix="save it as UTF-8 text") from error


def _looked_at(path: Path, document_id: str, root: Path, *, named: bool = False) -> Found:
    try:
        if path.is_symlink() and not named and not path.resolve().is_relative_to(root):
            return Found(path, document_id, "a symbolic link that leads out of the folder")
        mode = path.stat().st_mode
    except RuntimeError:  # pathlib's word for a loop of links
        return Found(path, document_id, "a symbolic link that leads to itself")
    except OSError as error:
        loop = error.errno == errno.ELOOP
        reason = "a symbolic link that leads to itself" if loop else f"cannot be read ({error.strerror})"
        return Found(path, document_id, reason)
    if not stat.S_ISREG(mode):
        return Found(path, document_id, "neither a file nor a folder (a pipe, a socket or a device)")
    return Found(path, document_id)
