"""training.json: what a candidate was made of, how, and how it went."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from synth.core.runs import package_versions

if TYPE_CHECKING:
    from synth.core.jsonl import FileDigest
    from tune.config import TuneConfig
    from tune.findings import Preflight
    from tune.proof import Proof
    from tune.setup import Setup
    from tune.student import Student

TRAINING_VERSION = 2

# Settings that have a place of their own in training.json.
_TOLD_ELSEWHERE = frozenset({"student", "revision", "student_revision", "method", "seed", "from"})
_POINTS = 2000  # More points of the training loss than these are averaged in groups.


def training_report(
    *,
    candidate: str,
    config: "TuneConfig",
    settings: Mapping[str, Any],
    setup: "Setup",
    student: "Student",
    inputs: Mapping[str, "FileDigest"],
    found: "Preflight",
    proofs: Mapping[str, "Proof"],
    log: Sequence[Mapping[str, float]],
    steps: int,
    kept_step: int,
    stopped_early: bool,
    lineage: Sequence[Mapping[str, Any]],
    startup: Mapping[str, float],
    seconds: float,
    notes: Sequence[str],
) -> dict[str, Any]:
    """Return the value of training.json.

    Args:
        candidate: the name under students/.
        config: as the user set it, and as a parent handed down.
        settings: what decides the result, as run.json has it.
        setup: what was settled for the machine.
        student: what was tuned.
        inputs: digests of what was read.
        found: the rows, with those dropped and cut.
        proofs: what was proven of the rows of "train" and, where there are any, "validation".
        log: Trainer's log history.
        steps: optimizer steps taken.
        kept_step: the step whose weights the candidate has.
        stopped_early: whether the validation loss ended it.
        lineage: the candidates before this one, the latest first.
        startup: seconds before the first step, by part.
        seconds: wall-clock time of the training.
        notes: what the user was told on the way.
    """
    history = [_point(entry, "") for entry in log if "loss" in entry]
    checks = [_point(entry, "eval_") for entry in log if "eval_loss" in entry]
    of_kept = next((point["loss"] for point in reversed(checks) if point["step"] == kept_step), None)
    train = proofs["train"]
    seen = int(next((entry["num_tokens"] for entry in reversed(log) if "num_tokens" in entry), 0))
    return {
        "version": TRAINING_VERSION,
        "candidate": candidate,
        "method": config.method,
        "student": student.name,
        "student_revision": student.revision,
        "lineage": [dict(parent) for parent in lineage],
        "seed": config.seed,
        "hyperparameters": {name: value for name, value in settings.items() if name not in _TOLD_ELSEWHERE},
        "setup": setup.to_json(),
        "dataset": {name: digest.to_json() for name, digest in sorted(inputs.items())},
        "rows": {name: proof.rows for name, proof in proofs.items()},
        "dropped": [row.to_json() for row in found.dropped],
        "cut": [row.to_json() for row in found.cut],
        "steps": steps,
        "kept_step": kept_step,
        "stopped_early": stopped_early,
        "train_loss": last_epoch_loss(history),
        "validation_loss": of_kept if of_kept is not None else (checks[-1]["loss"] if checks else None),
        "stop_token": {"id": found.stop_id, "text": found.stop_token},
        "chat_template": student.template,
        "tokens": {
            "train": train.tokens,
            "labelled": train.labelled,
            "validation": proofs["validation"].tokens if "validation" in proofs else 0,
            "seen": seen,
            "max_length": config.max_length or student.context,
        },
        "packing": None if setup.packed is None else {"sequences": train.sequences, "efficiency": train.efficiency},
        "history": {"train": thinned(history), "validation": checks},
        "packages": package_versions(),
        "notes": list(notes),
        "startup": dict(startup),
        "seconds": round(seconds, 3),
        "cost": None if config.hourly_price is None else round(seconds / 3600 * config.hourly_price, 6),
    }


def _point(entry: Mapping[str, float], prefix: str) -> dict[str, float]:
    point = {
        "step": entry["step"],
        "epoch": round(entry["epoch"], 4),
        "loss": entry[f"{prefix}loss"],
        "token_accuracy": entry[f"{prefix}mean_token_accuracy"],
    }
    return point | {name: entry[name] for name in ("learning_rate", "grad_norm") if name in entry}


def thinned(history: Sequence[Mapping[str, float]], most: int = _POINTS) -> list[dict[str, float]]:
    """Return the points, or means over groups of neighbours where there are more than `most`.

    A group has the step and the epoch of its last point.
    """
    size = -(-len(history) // most)
    if size <= 1:
        return [dict(point) for point in history]
    groups = [history[start : start + size] for start in range(0, len(history), size)]
    return [
        {name: sum(point[name] for point in group) / len(group) for name in group[0]}
        | {"step": group[-1]["step"], "epoch": group[-1]["epoch"]}
        for group in groups
    ]


def last_epoch_loss(history: Sequence[Mapping[str, float]]) -> float:
    """Return the mean training loss over the last epoch."""
    start = history[-1]["epoch"] - 1
    losses = [point["loss"] for point in history if point["epoch"] > start]
    return sum(losses) / len(losses)
