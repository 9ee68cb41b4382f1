"""Checkpoints that are whole or ignored: a seal, written last, names every file and its size.

Beside them lie the weights of the lowest validation loss so far, best-<step>/, sealed in the same way.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from synth.core.jsonl import sync_folder, write_json

_SEAL = "complete.json"
_BEST = "best-"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A whole checkpoint: where it lies, its step, and the seconds of training that led to it."""

    folder: Path
    step: int
    seconds: float


def checkpoint_folder(checkpoints: Path, step: int) -> Path:
    """Return the folder in which Trainer saves this step."""
    return checkpoints / f"checkpoint-{step}"


def seal_checkpoint(folder: Path, identity: str, seconds: float) -> None:
    """Make a checkpoint durable, then write the file that says it is whole.

    Args:
        folder: what Trainer wrote.
        identity: which training it belongs to; no other may go on from it.
        seconds: wall-clock seconds of training so far.
    """
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in sync_files(folder)}
    write_json(folder / _SEAL, {"identity": identity, "seconds": seconds, "files": sizes})


def last_complete(checkpoints: Path, identity: str, *, clean: bool = True) -> Checkpoint | None:
    """Return the latest whole checkpoint of this training. Torn ones and those of another are deleted, if `clean`."""
    best: Checkpoint | None = None
    for folder in sorted(checkpoints.glob("checkpoint-*"), key=_step):
        checkpoint = _whole(folder, identity)
        if checkpoint is not None:
            best = checkpoint
        elif clean:
            shutil.rmtree(folder, ignore_errors=True)
    return best


def other_trainings(checkpoints: Path, identity: str) -> list[str]:
    """Return the identities of sealed checkpoints that are of another training, one for each checkpoint."""
    found = [_identity(folder) for folder in sorted(checkpoints.glob("checkpoint-*"), key=_step)]
    return [other for other in found if other not in ("", identity)]


@dataclass(frozen=True, slots=True)
class Best:
    """Weights that were kept on the way: where they lie, and after which step."""

    folder: Path
    step: int

    def weights(self) -> list[Path]:
        """Return the files, but for the seal."""
        return sorted(path for path in self.folder.iterdir() if path.is_file() and path.name != _SEAL)


def keep_best(
    checkpoints: Path,
    step: int,
    identity: str,
    write: Callable[[Path], None],
    *,
    spare: int | None = None,
    main: bool = True,
    wait: Callable[[], None] = lambda: None,
) -> None:
    """Keep the weights of this step as the best so far, and drop all others but the spare ones.

    A process that dies goes on from its last checkpoint, and what counted as the best there has to be there still.

    Args:
        checkpoints: the folder of the checkpoints.
        step: the step of the weights.
        identity: which training they are of.
        write: writes the weights to a folder; every process of a training calls it.
        spare: the best step at the time of the last checkpoint.
        main: whether this process seals and deletes.
        wait: waits for all processes.
    """
    folder = checkpoints / f"{_BEST}{step}"
    if main:
        shutil.rmtree(folder, ignore_errors=True)
    wait()
    write(folder)
    wait()
    if main:
        seal_checkpoint(folder, identity, 0.0)
        for old in checkpoints.glob(f"{_BEST}*"):
            if _step(old) not in (step, spare):
                shutil.rmtree(old, ignore_errors=True)


def best_weights(checkpoints: Path, step: int, identity: str) -> Best | None:
    """Return the weights that were kept after this step, or None where they are not there or not whole."""
    folder = checkpoints / f"{_BEST}{step}"
    return Best(folder, step) if _whole(folder, identity) is not None else None


def sync_files(folder: Path) -> list[Path]:
    """Make the files of a folder durable, and return them in order."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(folder)
    return files


def _step(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def _identity(folder: Path) -> str:
    try:
        return str(json.loads((folder / _SEAL).read_bytes())["identity"])
    except (OSError, ValueError, KeyError):
        return ""


def _whole(folder: Path, identity: str) -> Checkpoint | None:
    try:
        data = json.loads((folder / _SEAL).read_bytes())
        if data["identity"] != identity:
            return None
        if any((folder / name).stat().st_size != size for name, size in data["files"].items()):
            return None
        return Checkpoint(folder, _step(folder), data["seconds"])
    except (OSError, ValueError, KeyError):
        return None
