"""The demo: generate → sft → validate on the bundled handbook and models.

Each step is the everyday command, in a process of its own: `synth` does not import `tune`, and the
engine and the trainer never share memory.
"""

import subprocess
import sys
import time
from pathlib import Path

from synth.core.console import notice
from synth.core.errors import SynthError
from synth.core.resources import resource

# About six rounds over the handbook give so many that the filter accepts.
RECORDS = 300
ROUNDS = 6


class StepFailed(SynthError):
    """A step of the demo ended with an error that it has printed itself."""

    def __init__(self, step: str, code: int) -> None:
        super().__init__(
            f"{step} ended with exit code {code}",
            fix="mend that and run the demo again: it goes on from there",
        )
        self.code = code


def demo(run: Path, records: int = RECORDS) -> None:
    """Run the chain in `run`; a run that was stopped goes on where it was.

    Args:
        run: the run's folder.
        records: how many pairs are wanted; fewer take less time and teach less.

    Raises:
        StepFailed: a step failed.
    """
    heldout, settings = resource("demo", "heldout.jsonl"), resource("demo", "demo.toml")
    steps = {
        "synth generate": [
            *("synth.cli", "generate", resource("demo", "handbook"), "--run", run, "--heldout", heldout),
            *("--num-records", records, "--max-rounds", ROUNDS),
        ],
        "tune sft": ["tune.cli", "sft", run],
        "tune validate": ["tune.cli", "validate", run, "--heldout", heldout, "--config", settings],
    }
    began = time.monotonic()
    for number, (name, arguments) in enumerate(steps.items(), 1):
        start = time.monotonic()
        notice(f"\n[{number}/{len(steps)}] {name}")
        code = subprocess.run([sys.executable, "-m", *map(str, arguments)], check=False).returncode
        if code:
            raise StepFailed(name, code)
        notice(f"({name}: {time.monotonic() - start:.0f} s)")
    notice(
        f"\nThe whole chain took {time.monotonic() - began:.0f} s. All of it is in {run}: "
        "records.jsonl (each pair with its scores and reasons), dataset/, students/, validation/."
    )
