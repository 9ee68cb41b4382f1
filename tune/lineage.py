"""Going on from a candidate: which one, what it hands down, and where it came from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from synth.core.errors import ConfigError, RunError
from synth.core.runs import Run
from tune.candidate import Candidate, find_candidate, weights_sha256
from tune.config import TuneConfig
from tune.registry import CURRENT, place_of, registry_of

# What an adapter that is trained further keeps from the one it was.
_SHAPE = ("rank", "alpha", "target_modules", "rslora", "dora")


@dataclass(frozen=True, slots=True)
class Parent:
    """The candidate that a training goes on from; `lineage` lists it and those before it, the latest first."""

    candidate: Candidate
    weights_sha256: str
    lineage: tuple[Mapping[str, Any], ...]


def find_parent(run: Run, named: str) -> Parent:
    """Return the candidate to go on from: one of this run by name, one of another run by its folder, or `current`.

    Raises:
        RunError: there is no such finished candidate, or its files are not those that were tuned.
    """
    home, name = _home(run, named)
    candidate = find_candidate(home, CURRENT if named == CURRENT else name)
    report = orjson.loads((candidate.folder / "training.json").read_bytes())
    outputs = home.stages()[f"sft:{candidate.name}"].outputs
    every = weights_sha256(outputs)
    if every is None:
        raise RunError("the candidate has no weights", where=str(candidate.folder), fix="train it again")
    this = {
        "candidate": candidate.name,
        "run": home.path.resolve().name,
        "data": dict(candidate.data),
        "weights_sha256": sorted(d.sha256 for name, d in outputs.items() if name.endswith(".safetensors")),
    }
    return Parent(candidate, every, (this, *report.get("lineage", ())))


def student_of(run: Run, named: str) -> str | None:
    """Return the student of a candidate to go on from, as its user named it; None where there is no such candidate."""
    home, name = _home(run, named)
    entry = home.stages().get(f"sft:{name}")
    return None if entry is None else str(entry.config["student"])


def _home(run: Run, named: str) -> tuple[Run, str]:
    """Return the run that a candidate is in, and its name there."""
    if named == CURRENT:
        # The promoted one may be of another run in the same folder.
        promoted = registry_of(run).current
        return (run, named) if promoted is None else (Run.open(place_of(run)[0] / promoted.run), promoted.candidate)
    folder = Path(named).expanduser()
    if folder.is_dir() and (folder / "training.json").is_file():
        folder = folder.resolve()
        return Run.open(folder.parent.parent), folder.name
    return run, named


def continued(config: TuneConfig, parent: Parent, given: frozenset[str]) -> TuneConfig:
    """Return the settings with what the parent hands down: its student, its method, the shape of its adapter.

    Args:
        config: as the user set it.
        parent: the candidate to go on from.
        given: the names of the settings that the user gave; the others are free to follow the parent.

    Raises:
        ConfigError: a setting that was given contradicts the parent.
    """
    report = orjson.loads((parent.candidate.folder / "training.json").read_bytes())
    of_parent: dict[str, Any] = {"student": str(parent.candidate.spec), "method": report["method"]}
    if not isinstance(parent.candidate.student, Path) and "revision" not in given:
        # The commit: a branch may have moved on since.
        of_parent["revision"] = parent.candidate.revision or None
    if config.method == "qlora" and report["method"] == "lora":
        of_parent["method"] = "qlora"  # The same adapter, on weights held in four bits.
    if report["method"] != "full":
        shown = report["hyperparameters"]
        of_parent |= {name: shown[name] for name in _SHAPE if name in shown}
    if parent.candidate.plain_template:
        of_parent["chat_template"] = "plain"
    for name, value in of_parent.items():
        if name in given and getattr(config, name) != value:
            raise ConfigError(
                f"the candidate to go on from has {name} {value}, not {getattr(config, name)}",
                where=f"--{name.replace('_', '-')}",
                fix="leave it out: it is taken over",
            )
    return config.model_copy(update=of_parent)
