"""Small trainings that several tests share: their settings, and how one is stopped from outside."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from synth.core.runs import Run
from tests.conftest import CHECKOUT
from tune.config import TuneConfig
from tune.sft import StudentResult


def config(student: Path, **settings: Any) -> TuneConfig:  # noqa: ANN401
    """12 rows in batches of 4, two batches a step: 2 steps an epoch, the second of half the rows.

    One thread: two that wait for each other on a busy machine take ten times as long for weights so few.
    """
    quick = {
        "threads": 1,
        "epochs": 3,
        "batch_size": 4,
        "gradient_accumulation": 2,
        "learning_rate": 2e-3,
        "save_every": 1e9,
    }
    return TuneConfig(**{"student": str(student), **quick, **settings})


def weights(result: StudentResult) -> bytes:
    """Return the bytes of a candidate's weights."""
    return next(result.path.glob("*.safetensors")).read_bytes()


def report_of(result: StudentResult) -> dict[str, Any]:
    """Return a candidate's training.json."""
    report: dict[str, Any] = json.loads((result.path / "training.json").read_bytes())
    return report


def train_in_a_process(run: Run, settings: TuneConfig, step: int, then: str) -> "subprocess.CompletedProcess[str]":
    """Train in a process of its own, in which `then` is run at this step: Python in which os and signal are there."""
    script = f"""
import os, resource, signal, sys
from pathlib import Path
from synth.core.errors import SynthError
from synth.core.runs import Run
from tune.config import TuneConfig
from tune.sft import train
def at(now):
    if now.step == {step}:
        {then}
try:
    train(Run.open(Path(sys.argv[1])), TuneConfig.model_validate_json(sys.argv[2]), on_progress=at)
except SynthError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""
    command = [sys.executable, "-c", script, str(run.path), settings.model_dump_json(by_alias=True)]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
