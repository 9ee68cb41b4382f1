"""What can be said of one record alone: its scores, the rules that it fails, a leak of a held-out question."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from synth.core.records import Record
from synth.filtering.plan import Plan
from synth.filters.base import FaultScorer, Rule, Scorer, names_of, rule_reasons, score_rows
from synth.filters.leaks import Leak
from synth.filters.rules_file import COMBINED


@dataclass(frozen=True, slots=True)
class Judged:
    """A record with its scores, and why it is rejected, as far as that can be told from it alone.

    `quality` is the mean of the scores that a rule wants high, from 0 to 1, where the scores are. `leaks` are among
    the reasons; `in_passage` are held-out questions that stand in the passage, which are reported in any case.
    """

    record: Record
    reasons: tuple[str, ...]
    quality: float
    leaks: tuple[Leak, ...] = ()
    in_passage: tuple[Leak, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What `Judged` says, column by column, with a row for each record: most records need no copy with its scores."""

    scores: list[dict[str, float | None]] = field(default_factory=list)
    reasons: list[tuple[str, ...]] = field(default_factory=list)
    quality: list[float] = field(default_factory=list)
    leaks: list[tuple[Leak, ...]] = field(default_factory=list)
    in_passages: list[tuple[Leak, ...]] = field(default_factory=list)

    def of(self, records: Sequence[Record]) -> list[Judged]:
        """Return what is said of each of the records, with their scores."""
        rows = zip(records, self.scores, self.reasons, self.quality, self.leaks, self.in_passages, strict=True)
        return [Judged(record.with_scores(scores), *rest) for record, scores, *rest in rows]


def judge_alone(records: Sequence[Record], plan: Plan) -> list[Judged]:
    """Score records and hold the rules against them; decisions that they have are forgotten.

    Raises:
        ConfigError: a user's scorer did not return one score a record.
    """
    undecided = [plan.undecided(record) for record in records]
    return verdicts(undecided, plan).of(undecided)


def verdicts(records: Sequence[Record], plan: Plan) -> Verdicts:
    """Score records that are undecided and hold the rules against them.

    Raises:
        ConfigError: a user's scorer did not return one score a record.
    """
    found, names = Verdicts(), names_of(plan.scorers)
    rules, wanted = plan.early_rules, _wanted(plan.rules)
    scorers = dict(zip(names, plan.scorers, strict=True))
    for portion, rows in score_rows(records, plan.scorers):
        scores = _scores(portion, names, rows)
        if plan.combined is not None and COMBINED not in plan.late:
            for row in scores:
                row[COMBINED] = plan.combined.value(row)
        reasons = _reasons(portion, scores, rules, scorers)
        for place, record in enumerate(portion if plan.index is not None else ()):
            leaks, in_passage = _leaks(record, plan)
            reasons[place] += tuple(f"contaminated:{leak}" for leak in leaks)
            found.leaks.append(leaks)
            found.in_passages.append(in_passage)
        found.scores.extend(scores)
        found.reasons.extend(reasons)
        found.quality.extend(_qualities(scores, wanted))
    if plan.index is None:
        found.leaks.extend([()] * len(records))
        found.in_passages.extend([()] * len(records))
    return found


def _scores(
    records: Sequence[Record], names: Sequence[str], rows: Sequence[tuple[float | None, ...]]
) -> list[dict[str, float | None]]:
    """Return the scores of each record by name, after those that it has."""
    given = [dict(zip(names, row, strict=True)) for row in rows]
    return [{**r.scores, **new} if r.scores else new for r, new in zip(records, given, strict=True)]


def _reasons(
    records: Sequence[Record],
    scores: Sequence[Mapping[str, float | None]],
    rules: Sequence[Rule],
    scorers: Mapping[str, Scorer],
) -> list[tuple[str, ...]]:
    """Return what `failed_reasons` says of each record, without a look at those that break no rule."""
    found: list[tuple[str, ...]] = [()] * len(records)
    for rule in rules:
        scorer = scorers.get(rule.score)
        # Who looks for faults does so before there are scores; another's explanation may speak of them.
        needs_scores = hasattr(scorer, "explain") and not isinstance(scorer, FaultScorer)
        for place in rule.broken_by([row.get(rule.score) for row in scores]):
            record, row = records[place], scores[place]
            shown = record.with_scores(row) if needs_scores else record
            found[place] += tuple(rule_reasons(rule, shown, row[rule.score], scorer))
    return found


def _leaks(record: Record, plan: Plan) -> tuple[tuple[Leak, ...], tuple[Leak, ...]]:
    """Return what of the held-out sets training on the record would leak, and what only its passage shows."""
    if plan.index is None:
        return (), ()
    # Nearly every record leaks nothing, and one look is enough to say so.
    leaks = tuple(plan.index.leaks(record)) if plan.index.find(record) is not None else ()
    in_passage = plan.index.passage_leaks(record.context)
    if in_passage and not leaks and plan.config.contaminated_passages == "reject":
        return in_passage, in_passage
    return leaks, in_passage


def quality(record: Record, rules: Sequence[Rule]) -> float:
    """Return the mean of the scores that a rule wants high; 0 where there is none."""
    return _mean(record.scores, _wanted(rules))


def _qualities(scores: Sequence[Mapping[str, float | None]], wanted: frozenset[str]) -> list[float]:
    # Few rows are the only one of their kind: nearly all scores are 0 or 1.
    known: dict[tuple[object, ...], float] = {}
    found = []
    for row in scores:
        key = (*row, *row.values())
        mean = known.get(key)
        if mean is None:
            known[key] = mean = _mean(row, wanted)
        found.append(mean)
    return found


def _wanted(rules: Sequence[Rule]) -> frozenset[str]:
    return frozenset(rule.score for rule in rules if rule.relation.startswith(">"))


def _mean(scores: Mapping[str, float | None], wanted: frozenset[str]) -> float:
    values = [value for name, value in scores.items() if name in wanted and value is not None]
    return round(sum(values) / len(values), 4) if values else 0.0
