"""What can be said of one record alone: its scores, the rules that it fails, a leak of a held-out question."""

from collections.abc import Sequence
from dataclasses import dataclass

from synth.core.records import Record
from synth.filtering.plan import Plan
from synth.filters.base import Rule, failed_reasons, score_records
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


def judge_alone(records: Sequence[Record], plan: Plan) -> list[Judged]:
    """Score records and hold the rules against them; decisions that they have are forgotten.

    Raises:
        ConfigError: a user's scorer did not return one score a record.
    """
    scored = score_records([plan.undecided(record) for record in records], plan.scorers)
    if plan.combined is not None and COMBINED not in plan.late:
        scored = [r.with_scores({COMBINED: plan.combined.value(r.scores)}) for r in scored]
    scorers = {scorer.name: scorer for scorer in plan.scorers}
    judged, rules = [], plan.early_rules
    for record in scored:
        reasons = failed_reasons(record, rules, scorers)
        leaks, in_passage = _leaks(record, plan)
        reasons += [f"contaminated:{leak}" for leak in leaks]
        judged.append(Judged(record, tuple(reasons), quality(record, plan.rules), leaks, in_passage))
    return judged


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
    wanted = {rule.score for rule in rules if rule.relation.startswith(">")}
    values = [value for name, value in record.scores.items() if name in wanted and value is not None]
    return round(sum(values) / len(values), 4) if values else 0.0
