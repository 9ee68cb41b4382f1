"""The seam of every scorer, the rules over their scores, and the reasons that come of both."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol, Self, runtime_checkable

from synth.core.errors import ConfigError, SynthError, did_you_mean
from synth.core.records import Record
from synth.filters.memo import trim_all
from synth.filters.pair import forget_pairs, pair_of

_RULE = re.compile(r"\s*([A-Za-z_][\w.:-]*)\s*(>=|<=|>|<)\s*([-+]?\d+(?:\.\d+)?)\s*")
_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    ">=": lambda value, bound: value >= bound,
    "<=": lambda value, bound: value <= bound,
    ">": lambda value, bound: value > bound,
    "<": lambda value, bound: value < bound,
}

# Records are scored in portions, so that what several scorers read of one text is still at hand.
_PORTION = 1024


class Scorer(Protocol):
    """One measure of records, from 0 to 1 unless its docstring names another unit."""

    @property
    def name(self) -> str:
        """The key in a record's scores and the word that rules use."""
        ...

    def score(self, records: Sequence[Record]) -> list[float | None]:
        """Return one score a record, in order; None where the measure does not apply."""
        ...


@runtime_checkable
class Explainer(Protocol):
    """A scorer that can say what it found wrong with a record."""

    def explain(self, record: Record) -> Sequence[str]:
        """Return the faults of a record in a few words each; asked for only where a rule failed."""
        ...


@dataclass(frozen=True, slots=True)
class FaultScorer:
    """A scorer that looks for faults: 1 where there is none, 0 where there is one, None where `find` gives None."""

    name: str
    find: Callable[[Record], Sequence[str] | None]

    def score(self, records: Sequence[Record]) -> list[float | None]:
        """Return 1, 0 or None for each record."""
        scores: list[float | None] = []
        for record, faults in zip(records, map(self.find, records), strict=True):
            if faults:
                # Who asks for a score often asks next what it came of.
                pair_of(record).faults[self.find] = faults
            scores.append(None if faults is None else 0.0 if faults else 1.0)
        return scores

    def explain(self, record: Record) -> list[str]:
        """Return the faults that `find` names."""
        known = pair_of(record).faults.get(self.find)
        return list(self.find(record) or ()) if known is None else list(known)


@dataclass(frozen=True, slots=True)
class ShareScorer:
    """A scorer that measures a share from 0 to 1, None where `measure` gives None."""

    name: str
    measure: Callable[[Record], float | None]

    def score(self, records: Sequence[Record]) -> list[float | None]:
        """Return the share of each record."""
        return [self.measure(record) for record in records]


@dataclass(frozen=True, slots=True)
class Rule:
    """A bound on one score. A record without that score passes: the measure does not apply to it."""

    score: str
    relation: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a rule such as `groundedness >= 0.6`.

        Raises:
            ConfigError: the text is no rule.
        """
        match = _RULE.fullmatch(text)
        if match is None:
            raise ConfigError(
                f"{text!r} is no rule", fix="write a score, >=, >, <= or <, and a number: groundedness >= 0.6"
            )
        bound = float(match[3])
        if not math.isfinite(bound):
            raise ConfigError(f"the bound of {text!r} is too large", fix="write a smaller number")
        return cls(match[1], match[2], bound)

    def holds(self, record: Record) -> bool:
        """Whether the record's score is within the bound, or the record has no such score."""
        value = record.scores.get(self.score)
        return value is None or _COMPARE[self.relation](value, self.bound)

    def broken_by(self, values: Sequence[float | None]) -> list[int]:
        """Return the places of the values that are out of bounds."""
        holds, bound = _COMPARE[self.relation], self.bound
        # A column holds few different values.
        outside = {value for value in set(values) if value is not None and not holds(value, bound)}
        return [place for place, value in enumerate(values) if value in outside] if outside else []

    def __str__(self) -> str:
        # No digit is lost and no exponent is written: what is printed can be read back.
        return f"{self.score} {self.relation} {Decimal(str(self.bound)).normalize():f}"


def check_names(rules: Iterable[Rule], known: Iterable[str]) -> tuple[Rule, ...]:
    """Return the rules, all of them about `known` scores.

    Raises:
        ConfigError: a rule names an unknown score; near matches are named.
    """
    checked, names = tuple(rules), set(known)
    for rule in checked:
        if rule.score not in names:
            raise ConfigError(
                f"no score is called {rule.score!r}", where=str(rule), fix=did_you_mean(rule.score, names)
            )
    return checked


def score_records(records: Sequence[Record], scorers: Sequence[Scorer]) -> list[Record]:
    """Return the records with the scores of all `scorers`, rounded to four digits.

    Raises:
        ConfigError: two scorers share a name, or one fails, or returns another number of scores than records or what
            is no number.
    """
    names = names_of(scorers)
    scored: list[Record] = []
    for portion, rows in score_rows(records, scorers):
        scored += [
            record.with_scores(dict(zip(names, row, strict=True))) for record, row in zip(portion, rows, strict=True)
        ]
    return scored


def names_of(scorers: Sequence[Scorer]) -> tuple[str, ...]:
    """Return the names of scorers, no two of them equal.

    Raises:
        ConfigError: two scorers share a name.
    """
    names = tuple(scorer.name for scorer in scorers)
    if len(set(names)) < len(names):
        raise ConfigError(f"two scorers share a name: {', '.join(sorted(names))}", fix="rename one")
    return names


def score_rows(
    records: Sequence[Record], scorers: Sequence[Scorer]
) -> Iterator[tuple[Sequence[Record], list[tuple[float | None, ...]]]]:
    """Yield the records in portions, each with a row of scores a record, rounded to four digits.

    What the scorers read of a portion is at hand until the next one is asked for.

    Raises:
        ConfigError: a scorer returns another number of scores than records.
    """
    for start in range(0, len(records), _PORTION):
        portion = records[start : start + _PORTION]
        columns = [_column(scorer, portion) for scorer in scorers]
        yield portion, list(zip(*columns, strict=True)) if columns else [()] * len(portion)
        forget_pairs()
        trim_all()


def _column(scorer: Scorer, records: Sequence[Record]) -> list[float | None]:
    try:
        values = list(scorer.score(records))
        # A FaultScorer gives 0, 1 and None, which nothing rounds.
        exact = isinstance(scorer, FaultScorer)
        rounded = values if exact else [None if value is None else round(float(value), 4) for value in values]
    except SynthError:
        raise
    except Exception as error:  # a user's scorer may fail in any way
        raise ConfigError(
            f"failed on {len(records)} records ({type(error).__name__}: {error})",
            where=f"scorer {scorer.name}",
            fix="mend it: it returns one number (or None) for each record, in order",
        ) from error
    if len(values) != len(records):
        raise ConfigError(
            f"the scorer {scorer.name!r} gave {len(values)} scores for {len(records)} records",
            fix="return one score (or None) for each record, in order",
        )
    for value in set(rounded):
        if value is not None and not math.isfinite(value):
            raise ConfigError(
                f"gave {value}, which is no finite number",
                where=f"scorer {scorer.name}",
                fix="return None where it does not apply",
            )
    return rounded


def _faults(scorer: Scorer | None, record: Record) -> list[str]:
    """Return what a scorer that can explain itself says."""
    explain = getattr(scorer, "explain", None)
    if scorer is None or not callable(explain):
        return []
    try:
        found = explain(record)
        return [found] if isinstance(found, str) else [str(fault) for fault in found]
    except SynthError:
        raise
    except Exception as error:  # a user's scorer may fail in any way
        raise ConfigError(
            f"cannot explain the record {record.id} ({type(error).__name__}: {error})",
            where=f"scorer {scorer.name}",
            fix="mend its `explain`: it returns a list of texts",
        ) from error


def failed_reasons(record: Record, rules: Sequence[Rule], scorers: Mapping[str, Scorer]) -> list[str]:
    """Return why the rules reject a record: `score:fault` each, or nothing where all rules hold.

    A scorer that can explain names its faults; for the rest the reason is the number and the bound.
    """
    reasons: list[str] = []
    for rule in rules:
        if not rule.holds(record):
            reasons += rule_reasons(rule, record, record.scores[rule.score], scorers.get(rule.score))
    return reasons


def rule_reasons(rule: Rule, record: Record, value: float | None, scorer: Scorer | None) -> list[str]:
    """Return why a rule rejects a record with this score; `scorer` gave it, or None."""
    faults = _faults(scorer, record) or [f"{value:g}, not {rule.relation} {rule.bound:g}"]
    return [f"{rule.score}:{fault}" for fault in faults]
