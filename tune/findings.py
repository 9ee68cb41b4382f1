"""What preflight found out about a dataset and a student: values that need no torch, for errors, tables and files."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from synth.core.errors import RecordError
from tune.rows import Rendered

Status = Literal["ok", "note", "error"]

NAMED = 5  # How many rows a finding names before it only counts.


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at in every row: "ok", a "note" to know of, or an "error" that stops the training.

    `rows` is how many rows are concerned and `ids` are the first of them. `said` is what was found, in words that name
    the rows; `fix` is what to do about it.
    """

    name: str
    status: Status
    said: str
    rows: int = 0
    ids: tuple[str, ...] = ()
    fix: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the check as it stands in a JSON report."""
        return {
            "name": self.name,
            "status": self.status,
            "rows": self.rows,
            "ids": list(self.ids),
            "said": self.said,
            "fix": self.fix,
        }


@dataclass(frozen=True, slots=True)
class Overlong:
    """A row longer than allowed: its side of the split, and its length in tokens before anything was done about it."""

    id: str
    split: str
    tokens: int

    def to_json(self) -> dict[str, Any]:
        """Return the row as it stands in training.json."""
        return {"id": self.id, "split": self.split, "tokens": self.tokens}


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over one side of the split; `longest` and the others are in tokens."""

    rows: int
    tokens: int
    labelled: int
    longest: int

    @classmethod
    def of(cls, rows: Sequence[Rendered]) -> "Totals":
        """Add up the rows."""
        return cls(
            rows=len(rows),
            tokens=sum(row.tokens for row in rows),
            labelled=sum(row.labelled for row in rows),
            longest=max((row.tokens for row in rows), default=0),
        )

    def to_json(self) -> dict[str, int]:
        """Return the sums by name."""
        return {"rows": self.rows, "tokens": self.tokens, "labelled": self.labelled, "longest": self.longest}


@dataclass(frozen=True, slots=True)
class Preflight:
    """Everything that was checked, and the rows as they go to the trainer.

    `train` and `validation` keep the dataset's order. `dropped` are in neither; `cut` are in them, without their ends.
    `max_length` is what rows were measured against, None where the student names no context. `stop_token` ends the
    most answers.
    """

    checks: tuple[Check, ...]
    train: tuple[Rendered, ...]
    validation: tuple[Rendered, ...]
    dropped: tuple[Overlong, ...]
    cut: tuple[Overlong, ...]
    totals: dict[str, Totals]
    max_length: int | None
    stop_token: str
    stop_id: int

    def faults(self) -> tuple[Check, ...]:
        """Return the checks that stop the training."""
        return tuple(check for check in self.checks if check.status == "error")

    def notes(self) -> tuple[Check, ...]:
        """Return what the user should know and nothing more."""
        return tuple(check for check in self.checks if check.status == "note")

    def raise_if_faulty(self) -> None:
        """Let a faultless dataset pass.

        Raises:
            RecordError: what every failed check said, with its fix. Nothing was trained.
        """
        faults = self.faults()
        if len(faults) == 1:
            raise RecordError(faults[0].said, fix=faults[0].fix)
        if faults:
            lines = (f"\n  {number}. {fault.said}; {fault.fix}" for number, fault in enumerate(faults, 1))
            raise RecordError(f"{len(faults)} faults, and nothing was trained:" + "".join(lines))

    def to_json(self) -> dict[str, Any]:
        """Return all but the rows."""
        return {
            "checks": [check.to_json() for check in self.checks],
            "totals": {name: totals.to_json() for name, totals in self.totals.items()},
            "dropped": [row.to_json() for row in self.dropped],
            "cut": [row.to_json() for row in self.cut],
            "max_length": self.max_length,
            "stop_token": {"id": self.stop_id, "text": self.stop_token},
        }


def listed(names: Sequence[str]) -> str:
    """Return `2 rows: a, b`, naming the first few."""
    more = len(names) - NAMED
    noun = "row" if len(names) == 1 else "rows"
    named = visible(", ".join(names[:NAMED])).replace("\n", " ")
    return f"{len(names)} {noun}: {named}" + (f" and {more} more" if more > 0 else "")


def visible(text: str) -> str:
    """Return the text with every character that is not for the eye written as an escape; line breaks stay."""
    return "".join(c if c == "\n" or not _does_something(c) else _escape(c) for c in text)


def _does_something(character: str) -> bool:
    # Control, format (bidirectional overrides, zero width), surrogate, private, and line and paragraph separators.
    return unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
