"""The rules file: what `synth calibrate` found on human pairs, for `synth filter --rules` and for people to read.

JSON of schemas/rules.schema.json. It holds the rules, the coefficients of the combined score, the table that they
were chosen by, and what they were measured on; no text of the human file.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import orjson

from synth.core.errors import ConfigError
from synth.core.jsonl import write_json
from synth.core.schemas import first_fault, validator
from synth.filters.base import Rule

RULES_VERSION = 1
COMBINED = "combined"
_AGAIN = "make it again with `synth calibrate`"


@dataclass(frozen=True, slots=True)
class Term:
    """A score in the combined one: its weight, and the value that stands in where a record has no such score."""

    score: str
    weight: float
    neutral: float


@dataclass(frozen=True, slots=True)
class Combined:
    """One score made of several by a logistic regression: about the chance that a pair is a human's, from 0 to 1."""

    bias: float
    terms: tuple[Term, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The scores that it needs."""
        return tuple(term.score for term in self.terms)

    def value(self, scores: Mapping[str, float | None]) -> float:
        """Return the combined score, to four digits; a score that is None or absent counts as its neutral value."""
        total = self.bias
        for term in self.terms:
            found = scores.get(term.score)
            total += term.weight * (term.neutral if found is None else found)
        # The exponent is kept from overflowing; beyond it nothing changes in four digits.
        return round(1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, total)))), 4)


@dataclass(frozen=True, slots=True)
class HumanSource:
    """A file that the rules were measured on: its digest and its counts."""

    name: str
    sha256: str
    pairs: int
    documents: int
    unanswerable: int = 0
    without_passage: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """The share of human pairs that all rules together keep.

    `search` on the documents that the rules were chosen on, `check` on the others, before anything was loosened;
    `all` what the rules of this file keep of all pairs. `check` is None where the file has a single document.
    """

    asked: float
    search: float
    check: float | None
    all: float


@dataclass(frozen=True, slots=True)
class Cell:
    """How one score does on one corruption.

    `applies` is the share of records that have the score; the AUC is over those. `threshold` is the bound that keeps
    the asked share of human pairs on its own; `recall` is the share of spoiled pairs that it rejects, `precision` the
    share of spoiled pairs among the rejected, were there as many human pairs as spoiled ones. None where unknown.
    """

    score: str
    corruption: str
    form: str
    auc: float
    low: float | None
    high: float | None
    applies: float
    human: int
    spoiled: int
    threshold: float | None
    recall: float | None
    precision: float | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A score that may not filter, since it ranks some spoiled pairs above the human ones."""

    score: str
    corruption: str
    form: str
    auc: float
    high: float

    def __str__(self) -> str:
        return (
            f"{self.score} is refused: worse than chance on {self.corruption} ({self.form}), AUC {self.auc:.3f}, "
            f"at most {self.high:.3f}"
        )


@dataclass(frozen=True, slots=True)
class RulesFile:
    """Everything in a rules file."""

    rules: tuple[Rule, ...]
    combined: Combined | None
    human: tuple[HumanSource, ...]
    kept: Kept
    rejected: Mapping[str, float]
    """The share of each corruption's pairs that the rules together reject, on the documents of the check."""
    table: tuple[Cell, ...]
    refused: tuple[Refusal, ...]
    filter_version: int
    seed: int
    forms: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the content of the file."""
        return {
            "version": RULES_VERSION,
            "filter_version": self.filter_version,
            "rules": [rule_text(rule) for rule in self.rules],
            "combined": None if self.combined is None else asdict(self.combined),
            "human": [asdict(source) for source in self.human],
            "kept": asdict(self.kept),
            "rejected": dict(self.rejected),
            "seed": self.seed,
            "forms": list(self.forms),
            "refused": [asdict(refusal) for refusal in self.refused],
            "table": [asdict(cell) for cell in self.table],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build it from content that its schema accepts."""
        combined = data["combined"]
        return cls(
            rules=tuple(map(Rule.parse, data["rules"])),
            combined=None
            if combined is None
            else Combined(combined["bias"], tuple(Term(**term) for term in combined["terms"])),
            human=tuple(HumanSource(**source) for source in data["human"]),
            kept=Kept(**data["kept"]),
            rejected=dict(data["rejected"]),
            table=tuple(Cell(**cell) for cell in data["table"]),
            refused=tuple(Refusal(**refusal) for refusal in data["refused"]),
            filter_version=data["filter_version"],
            seed=data["seed"],
            forms=tuple(data["forms"]),
        )

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all; equal rules give equal bytes."""
        write_json(path, self.to_json())


def rule_text(rule: Rule) -> str:
    """Return a rule as it is written and read back: no digit of a four-digit bound is lost."""
    bound = f"{rule.bound:.4f}".rstrip("0").rstrip(".")
    return f"{rule.score} {rule.relation} {bound}"


def load_rules(path: Path) -> RulesFile:
    """Read a rules file.

    Raises:
        ConfigError: it is missing, torn, of a version that this package does not know, or not what its schema says; a
            rule is none, stands there twice or needs a combined score that is not there.
    """
    where = str(path)
    try:
        data = orjson.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", where=where, fix=_AGAIN) from error
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"not valid JSON ({error})", where=where, fix=_AGAIN) from error
    if not isinstance(data, dict) or "version" not in data:
        raise ConfigError("is no rules file: it has no version", where=where, fix=_AGAIN)
    if data["version"] != RULES_VERSION:
        raise ConfigError(
            f"is of version {data['version']!r}; this package reads version {RULES_VERSION}", where=where, fix=_AGAIN
        )
    fault = first_fault(data, validator("rules"))
    if fault is not None:
        raise ConfigError(fault, where=where, fix=f"see schemas/rules.schema.json, or {_AGAIN}")
    try:
        found = RulesFile.from_json(data)
    except ConfigError as error:
        raise ConfigError(error.what, where=where, fix=error.fix) from error
    named = [rule.score for rule in found.rules]
    if COMBINED in named and found.combined is None:
        raise ConfigError("a rule names the combined score, which has no coefficients here", where=where, fix=_AGAIN)
    if found.combined is not None:
        numbers = [found.combined.bias, *(n for t in found.combined.terms for n in (t.weight, t.neutral))]
        if not all(map(math.isfinite, numbers)):
            raise ConfigError("a coefficient is no finite number", where=where, fix=_AGAIN)
        if COMBINED in found.combined.names or len(set(found.combined.names)) < len(found.combined.terms):
            raise ConfigError("the combined score needs itself, or a score twice", where=where, fix=_AGAIN)
    return found
