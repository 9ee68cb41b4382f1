"""Which of several training processes this is, as `accelerate launch` and torchrun say it in the environment."""

import os
import sys
from pathlib import Path


def processes() -> int:
    """Return how many processes train together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return the number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Whether this is the process that locks the run, writes its files and talks to the user."""
    return rank() == 0


def process_log(run_path: Path, number: int) -> Path:
    """Return the file that a process other than the first one writes what it would say to."""
    return run_path / "logs" / f"sft-process-{number}.log"


def keep_silent(run_path: Path) -> None:
    """In all processes but the first one, send everything that is printed to a log; what is raised is printed too."""
    if is_main():
        return
    log = process_log(run_path, rank())
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    # By number: libraries in C++ print past Python.
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
