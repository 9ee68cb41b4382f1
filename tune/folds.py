"""Several students, each validated on another part of the documents: `tune sft RUN --folds K`."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synth.core.errors import ConfigError, RunError
from synth.core.jsonl import write_json
from synth.core.runs import Run
from tune.config import TuneConfig
from tune.progress import Progress
from tune.sft import StudentResult, train


@dataclass(frozen=True, slots=True)
class Folds:
    """The students of all folds, with mean and spread of their validation losses, in nats a token.

    The losses are those of the weights that were kept. Where the best weights are kept, each of those is the lowest of
    several, so the mean is a little too good. `spread` is the standard deviation between the folds (n - 1).
    """

    students: tuple[StudentResult, ...]
    mean: float
    spread: float

    def to_json(self) -> dict[str, Any]:
        """Return what students/<name>-folds.json holds."""
        return {
            "mean_validation_loss": self.mean,
            "spread": self.spread,
            "folds": [
                {
                    "candidate": student.candidate,
                    "validation_loss": student.validation_loss,
                    "train_loss": student.train_loss,
                    "steps": student.steps,
                    "kept_step": student.kept_step,
                }
                for student in self.students
            ],
        }


def train_folds(
    run: Run,
    config: TuneConfig,
    *,
    heldout: Path | None = None,
    on_progress: Callable[[int, Progress], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> Folds:
    """Tune one student a fold, and write their losses to students/<name>-folds.json.

    Each is a candidate of its own, <name>-fold<n>of<k>: finished ones are not trained again, killed ones go on.

    Args:
        run: as for `tune.train`.
        config: with `folds` set.
        heldout: as for `tune.train`.
        on_progress: called with the fold, counted from 1, and its progress.
        on_message: called with each note.

    Raises:
        ConfigError: `folds` is not set; and what `tune.train` raises.
        RunError: all rows that a fold validates on were left out.
    """
    if config.folds is None:
        raise ConfigError("how many folds?", where="folds", fix="set it to 5, for example")
    students = []
    for fold in range(1, config.folds + 1):
        one = config.model_copy(update={"fold": fold})

        def report(now: Progress, fold: int = fold) -> None:
            if on_progress is not None:
                on_progress(fold, now)

        students.append(train(run, one, heldout=heldout, on_progress=report, on_message=on_message))
    losses = [student.validation_loss for student in students if student.validation_loss is not None]
    if len(losses) < len(students):
        without = next(student.candidate for student in students if student.validation_loss is None)
        raise RunError(
            f"{without} had no row to validate on, so there is no mean over the folds",
            where=str(run.path),
            fix="raise --max-length, so that no row is left out, or ask for fewer folds",
        )
    folds = Folds(tuple(students), statistics.fmean(losses), statistics.stdev(losses))
    name = students[0].candidate.rpartition("-fold")[0]
    write_json(run.student_path(f"{name}-folds").with_suffix(".json"), folds.to_json())
    return folds
