"""Checkpoints that are whole or ignored: a seal, written last, names every file and its size."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from synth.core.jsonl import sync_folder, write_json

_SEAL = "complete.json"


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


def last_complete(checkpoints: Path, identity: str) -> Checkpoint | None:
    """Return the latest whole checkpoint of this training. Torn ones and those of another are deleted."""
    best: Checkpoint | None = None
    for folder in sorted(checkpoints.glob("checkpoint-*"), key=_step):
        checkpoint = _whole(folder, identity)
        if checkpoint is None:
            shutil.rmtree(folder)
        else:
            best = checkpoint
    return best


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
