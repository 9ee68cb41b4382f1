"""Upload a candidate, or what `tune export` made of one, to a model on the hub: `tune push RUN --to owner/name`.

Only files that a stage of ours listed with their digests are sent, as they were listed. Before anything is sent they
are searched for secrets and for paths of this machine.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from synth.core.errors import RunError
from synth.core.hub import check_push, hub_api, make_repo
from synth.core.jsonl import digest_file
from tune.export import open_candidate
from tune.exporting.report import REPORT

__all__ = ["Parcel", "Pushed", "pack", "push"]

_EXTRA = "tune"

# Of these the texts are what a model says of the world, and weights are no text at all.
_VOCABULARIES = frozenset({"tokenizer.json", "vocab.json", "merges.txt", "vocab.txt"})
_WEIGHTS = frozenset({".safetensors", ".gguf"})

_SECRETS: Mapping[str, re.Pattern[bytes]] = {
    "a token of the hub": re.compile(rb"\bhf_[A-Za-z0-9]{20,}"),
    "a key for an API": re.compile(rb"\bsk-[A-Za-z0-9_-]{20,}"),
    "a token of GitHub": re.compile(rb"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,})"),
    "a key of AWS": re.compile(rb"\bAKIA[0-9A-Z]{16}\b"),
    "a private key": re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a password in an address": re.compile(rb"://[^\s/:@\"]+:[^\s/@\"]+@"),
}
_HOME = re.compile(rb"(?:/home/|/Users/|[A-Za-z]:(?:\\{1,2}|/)Users(?:\\{1,2}|/))[\w.-]+")


@dataclass(frozen=True, slots=True)
class Parcel:
    """What a push would send: the folder, the files below it by name and size, and those beside them that stay."""

    title: str
    folder: Path
    files: Mapping[str, int]
    left: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())


@dataclass(frozen=True, slots=True)
class Pushed:
    """A finished push: the address of its commit, and what was in it."""

    url: str
    repo: str
    files: int
    size: int


def pack(path: Path, candidate: str | None = None) -> Parcel:
    """Return what a push of a run's candidate, or of an exported folder, would send.

    Raises:
        RunError: there is no such candidate, a file is not as it was left, or one holds a secret or a path of this
            machine.
    """
    path = path.expanduser()
    if (path / REPORT).is_file():
        folder, title, listed = path, path.resolve().name, _exported(path)
        private = [path.resolve().parent]
    else:
        run, found = open_candidate(path, candidate)
        folder, title = found.folder, found.name
        entry = run.stages()[f"sft:{found.name}"]
        names = ((run.path / name).relative_to(folder).as_posix() for name in entry.outputs)
        listed = dict.fromkeys(names, "")  # find_candidate compared the digests
        private = [run.path.resolve(), *([found.student.resolve()] if isinstance(found.student, Path) else [])]
    for name, sha256 in listed.items():
        file = folder / name
        # A link could have been put in a file's place and lead anywhere.
        if file.is_symlink() or not file.is_file() or (sha256 and digest_file(file).sha256 != sha256):
            raise RunError("the file is not as it was left", where=str(file), fix="make the folder again")
    _search(folder, listed, private)
    present = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    sent = {*listed, *([REPORT] if (folder / REPORT).is_file() else [])}
    sizes = {name: (folder / name).stat().st_size for name in sorted(sent)}
    return Parcel(title, folder, sizes, tuple(sorted(present - sent)))


def push(
    parcel: Parcel,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> Pushed:
    """Upload a parcel as one commit.

    The model is made where there is none, and so is the branch. Files that are there already are not sent again, so
    running a broken push again goes on with it. Files that someone else put there are left alone.

    Args:
        parcel: from `pack`.
        repo: owner/name of a model.
        private: make it private; one that is there and public is refused.
        revision: a branch; the model's main one unless given.
        on_progress: told what goes on.

    Raises:
        ConfigError: the name is wrong, there is no token, or the hub is switched off (HF_HUB_OFFLINE).
        RunError: the hub refused or cannot be reached.
    """
    check_repo(repo)
    tell = on_progress or (lambda text: None)
    with hub_api("model", flag="--to", extra=_EXTRA) as (api, hub):
        tell(f"making sure that {repo} is there")
        make_repo(api, repo, "model", private=private)
        if revision is not None and revision != "main":
            api.create_branch(repo, branch=revision, exist_ok=True)
        tell(f"sending {len(parcel.files)} files")
        operations = [
            hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=parcel.folder / name) for name in parcel.files
        ]
        done = api.create_commit(repo, operations, commit_message=f"Add {parcel.title}", revision=revision)
    return Pushed(str(done.commit_url), repo, len(parcel.files), parcel.size)


def check_repo(repo: str | None) -> str:
    """Return the name of the model on the hub if a push can be tried.

    Raises:
        ConfigError: as `check_push`.
    """
    return check_push(repo, "model", flag="--to", instead="copy the folder by hand", extra=_EXTRA)


def _exported(folder: Path) -> dict[str, str]:
    """Return the files of an exported folder and their digests."""
    try:
        files = orjson.loads((folder / REPORT).read_bytes())["files"]
        listed = {str(name): str(sha256) for name, sha256 in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            "the list of exported files cannot be read", where=str(folder / REPORT), fix="run `tune export` again"
        ) from error
    # A list that someone wrote must not send files from elsewhere.
    if any(Path(name).is_absolute() or ".." in Path(name).parts or not sha256 for name, sha256 in listed.items()):
        raise RunError("the list names files elsewhere", where=str(folder / REPORT), fix="run `tune export` again")
    return listed


def _search(folder: Path, names: Iterable[str], private: Iterable[Path]) -> None:
    """Refuse files with a secret or a path of this machine in them."""
    places = {str(place).encode() for place in (*private, Path.cwd(), Path.home()) if len(place.parts) > 2}
    values = [value.encode() for name, value in os.environ.items() if _is_secret(name) and len(value) >= 12]
    for name in (*names, *([REPORT] if (folder / REPORT).is_file() else [])):
        if Path(name).suffix in _WEIGHTS:
            continue
        text = (folder / name).read_bytes()
        found = next((what for what, pattern in _SECRETS.items() if pattern.search(text)), None)
        if found is None and any(value in text for value in values):
            found = "a secret of the environment"
        if found is None and name not in _VOCABULARIES and (_HOME.search(text) or any(p in text for p in places)):
            found = "a path of this machine"
        if found is not None:
            raise RunError(
                f"the file holds {found}, so nothing is sent",
                where=str(folder / name),
                fix="find out how it got there; a candidate's files are not changed by hand, so train or export again",
            )


def _is_secret(name: str) -> bool:
    return name.endswith(("_KEY", "_TOKEN", "_SECRET", "_PASSWORD"))
