"""Opening the sealed set for validation, and saying what could have leaked out of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synth.core.errors import RunError
from synth.core.heldout import HeldoutItem, HeldoutSet, load_heldout
from synth.core.jsonl import read_lines
from synth.core.runs import Run


@dataclass(frozen=True, slots=True)
class Places:
    """Where the held-out questions' documents stand in the dataset, in numbers of questions."""

    train: int
    validation: int
    neither: int

    def to_json(self) -> dict[str, int]:
        """Return the counts as they stand in verdict.json."""
        return {"train": self.train, "validation": self.validation, "neither": self.neither}


@dataclass(frozen=True, slots=True)
class OpenedSet:
    """The held-out set with the training rows it was checked against, and what is doubtful about it."""

    heldout: HeldoutSet
    rows: tuple[Mapping[str, Any], ...]
    places: Places
    warnings: tuple[str, ...]


def open_heldout(run: Run, path: Path) -> OpenedSet:
    """Read the held-out set, and prove that no question of it was trained on word for word.

    A run that was made for rows from elsewhere (`tune sft --data`) has no dataset to prove it on; then that is a doubt.

    Raises:
        RecordError: the held-out file is wrong.
        RunError: there is no training set, or questions of the held-out set stand in it.
    """
    heldout = load_heldout(path)
    has_dataset = run.train_path.is_file() or "filter" in run.stages()
    rows = tuple(row for _, row in read_lines(run.train_path)) if has_dataset else ()
    if not rows and has_dataset:
        raise RunError("no row was trained on", where=str(run.train_path), fix=f"run `synth filter {run.path}`")
    leaked = leaked_questions(heldout.items, rows)
    if leaked:
        raise RunError(
            f"{len(leaked)} of {len(heldout.items)} held-out questions stand in the training set word for word, "
            f"such as {leaked[0].question!r}",
            where=str(run.train_path),
            fix=f"run `synth filter {run.path} --heldout {path}`, then `tune sft` again",
        )
    validation = [row for _, row in read_lines(run.validation_path)] if run.validation_path.is_file() else []
    return OpenedSet(heldout, rows, _places(heldout.items, rows, validation), tuple(_doubts(run, heldout)))


def leaked_questions(items: Sequence[HeldoutItem], rows: Sequence[Mapping[str, Any]]) -> list[HeldoutItem]:
    """Return the items whose question is a user turn of a row; case and white space do not count."""
    asked = {_plain(turn["content"]) for row in rows for turn in row["prompt"] if turn["role"] == "user"}
    return [item for item in items if _plain(item.question) in asked]


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _places(
    items: Sequence[HeldoutItem], train: Sequence[Mapping[str, Any]], validation: Sequence[Mapping[str, Any]]
) -> Places:
    trained, validated = ({row["document_id"] for row in rows} for rows in (train, validation))
    in_train = sum(item.document_id in trained for item in items)
    in_validation = sum(item.document_id in validated - trained for item in items)
    return Places(in_train, in_validation, len(items) - in_train - in_validation)


def _doubts(run: Run, heldout: HeldoutSet) -> list[str]:
    """Return what keeps the reader from trusting that the set was sealed."""
    doubts = []
    entry = run.stages().get("filter")
    if entry is None and not run.train_path.is_file():
        return [
            "The run has no dataset of its own, so that no held-out question was trained on is not proved here; "
            f"`tune sft` proves it when it is given `--heldout {heldout.path.name}`."
        ]
    inputs = entry.inputs if entry else {}
    used = {digest.sha256 for name, digest in inputs.items() if name.partition(":")[0] == "heldout"}
    if heldout.digest.sha256 not in used:
        against = "another one was used" if used else "none was used"
        doubts.append(
            f"The dataset was not decontaminated against this held-out file ({against}): questions that say the same "
            f"in other words may have been trained on. `synth filter {run.path.name} --heldout {heldout.path.name}` "
            "removes them."
        )
    if all(item.document_id == item.id for item in heldout.items):
        doubts.append(
            "The held-out file names no documents (document_id), so each question counts as a document of its own "
            "and the intervals are too narrow where questions share one."
        )
    return doubts
