"""The verdict: accept or reject, from scores alone, with the evidence and in plain words.

What has to be shown stands in tune/rules.py, why a candidate falls short in tune/blame.py. Two tables are made, of all
items and of the clean ones (those that do not stand in the dataset); the clean one decides. Where contenders are
reported and not decided on, p-values are corrected for their number (Holm 1979).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Self

from synth.core.errors import ConfigError, SynthError, did_you_mean
from tune.blame import Finding, find_causes
from tune.contenders import STUDENT
from tune.evidence import Evidence, RegressionSet
from tune.power import found
from tune.rules import DECIDING, Check, Regression, Rule, run_checks
from tune.scores import Score
from tune.sheet import ByContender, Gap, Row, Sheet, difference, in_order, make_sheet, mean_points
from tune.statistics import Difference
from tune.wording import explain, many_cut_off, metric_words

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["Check", "Finding", "Gap", "Row", "Rule", "Score", "Sheet", "Verdict", "judge"]

VERDICT_VERSION = 2

_AGAIN = "run `tune validate` once more: answered calls come from the journal"


@dataclass(frozen=True, slots=True)
class Reach:
    """What the held-out set can show (tune/power.py), by the difference that was closest to failing.

    `detectable` is the least difference in points that it can see, `items_needed` what it takes to see `target`; None
    where the set cannot tell.
    """

    items: int
    documents: int
    detectable: float | None
    target: float
    items_needed: int | None
    said: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Accept or reject with its evidence; `to_json` is verdict.json (schemas/verdict.schema.json).

    Attributes:
        accepted: whether every check that could be made passed.
        text: the verdict in plain words.
        decided_by: the check that decided: the first that failed, or of an accept the one that was closest to failing.
        next: the one thing to do now.
        metric: the deciding one.
        metrics: every metric by name, with the words for it, the deciding one first.
        rule: what was asked.
        checks: what was asked, one by one, in order.
        findings: why it was rejected, the surest first; empty of an accept.
        all: the table of all items.
        clean: the table of the items that do not stand in the dataset. It decides.
        regressions: base and tuned on other questions.
        reach: what the held-out set can show.
        warnings: what is doubtful.
        subject: what was judged on what: candidate, weights, held-out file, where its documents stand.
    """

    accepted: bool
    text: str
    decided_by: str
    next: str
    metric: str
    metrics: Mapping[str, str]
    rule: Rule
    checks: tuple[Check, ...]
    findings: tuple[Finding, ...]
    all: Sheet
    clean: Sheet
    regressions: tuple[Regression, ...]
    reach: Reach | None
    warnings: tuple[str, ...]
    subject: Mapping[str, Any]

    @property
    def items(self) -> int:
        """How many items decided."""
        return self.clean.items

    @property
    def documents(self) -> int:
        """How many documents the deciding items are about."""
        return self.clean.documents

    @property
    def rows(self) -> tuple[Row, ...]:
        """The contenders on the deciding items."""
        return self.clean.rows

    def gap(self, against: str, metric: str | None = None) -> Gap:
        """Return the tuned student's difference to one contender on the deciding items.

        Raises:
            ConfigError: there is none.
        """
        found = self.clean.gap(against, metric or self.metric)
        if found is None:
            raise ConfigError(f"the verdict has no difference to {against!r} in {metric or self.metric!r}")
        return found

    def check(self, name: str) -> Check:
        """Return the check of that name.

        Raises:
            ConfigError: there is none.
        """
        for check in self.checks:
            if check.name == name:
                return check
        raise ConfigError(
            f"the verdict has no check {name!r}", fix=did_you_mean(name, [check.name for check in self.checks])
        )

    def to_json(self) -> dict[str, Any]:
        """Return the content of verdict.json."""
        value: dict[str, Any] = _adapter().dump_python(self, mode="json")
        tables = {"all": value.pop("all"), "clean": value.pop("clean")}
        value["rule"] = {"statement": self.rule.statement, **value["rule"]}
        return {"version": VERDICT_VERSION, **value, "tables": tables}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build the verdict from a verdict.json that its schema accepts."""
        held = {key: value for key, value in data.items() if key not in ("version", "tables")}
        held["rule"] = {key: value for key, value in held["rule"].items() if key != "statement"}
        found: Self = _adapter().validate_python({**held, **data["tables"]})
        return found

    def to_pandas(self) -> Any:  # noqa: ANN401  (a DataFrame; pandas is loaded only here)
        """Return a DataFrame: a line a contender and table ("all", "clean"), as the tables have them.

        Raises:
            SynthError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise SynthError("pandas is not installed", fix="pip install pandas") from error
        sheets = {"all": self.all, "clean": self.clean}
        return pandas.DataFrame([_flat(name, row, sheet, self) for name, sheet in sheets.items() for row in sheet.rows])


@cache
def _adapter() -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter

    return TypeAdapter(Verdict)


def judge(
    scores: Sequence[Score],
    rule: Rule,
    *,
    evidence: Evidence | None = None,
    subject: Mapping[str, Any] | None = None,
    warnings: Sequence[str] = (),
) -> Verdict:
    """Return the verdict on scores; equal scores give an equal verdict, whatever their order.

    Args:
        scores: of every contender, all about the same items. Contenders keep the order they come in.
        rule: what has to be shown.
        evidence: what is known beside the scores.
        subject: what was judged, copied into the verdict.
        warnings: doubts that were known before, copied into the verdict.

    Raises:
        ConfigError: the student or a contender of `must_beat` has no scores, items differ between contenders, or no
            answer has a value of the deciding metric.
    """
    held = evidence or Evidence()
    tables = _by_contender(scores, (STUDENT, *rule.must_beat))
    metric = rule.metric or DECIDING[held.task]
    metrics = in_order((name for score in scores for name in score.values), metric)
    if metric not in metrics:
        raise ConfigError(
            f"no answer has a value of {metric!r}, which decides",
            where="--metric",
            fix=did_you_mean(metric, metrics) if metrics else _AGAIN,
        )
    ids = list(tables[STUDENT])
    clean_ids = ids if held.clean_ids is None else [key for key in ids if key in held.clean_ids]
    every = make_sheet(tables, ids, metrics, rule, held.measure)
    clean = every if clean_ids == ids else make_sheet(tables, clean_ids, metrics, rule, held.measure)
    regressions = tuple(_regression(other, rule) for other in held.regression)
    checks = run_checks(clean, regressions, rule, metric)
    accepted = not any(check.passed is False for check in checks)
    findings = () if accepted else find_causes(every, clean, checks, regressions, rule, metric, held)
    verdict = Verdict(
        accepted=accepted,
        text="",
        decided_by=_decided_by(checks),
        next=findings[0].advice if findings else _promote(subject or {}),
        metric=metric,
        metrics={name: metric_words(name, held.metrics) for name in metrics},
        rule=rule,
        checks=checks,
        findings=findings,
        all=every,
        clean=clean,
        regressions=regressions,
        reach=_reach(clean, rule, metric, held.target),
        warnings=(*warnings, *many_cut_off(every.rows)),
        subject=subject or {},
    )
    return replace(verdict, text=explain(verdict))


def _by_contender(scores: Iterable[Score], needed: Sequence[str]) -> dict[str, dict[str, Score]]:
    """Return scores by contender and item, items sorted; join on ids, never on places."""
    tables: dict[str, dict[str, Score]] = {}
    for score in scores:
        tables.setdefault(score.contender, {})[score.item_id] = score
    for name in needed:
        if name not in tables:
            raise ConfigError(f"there are no scores of {name!r}, which the rule needs", where="--contenders")
    for name, held in tables.items():
        if held.keys() != tables[STUDENT].keys():
            raise ConfigError(f"{name!r} and {STUDENT!r} were asked different items", where="answers", fix=_AGAIN)
    return {name: dict(sorted(held.items())) for name, held in tables.items()}


def _regression(held: RegressionSet, rule: Rule) -> Regression:
    tables: ByContender = _by_contender(held.scores, (STUDENT, "base"))
    scores = {name: list(table.values()) for name, table in tables.items()}
    gap = difference(scores, "base", held.metric, rule)
    values = {name: mean_points(scores[name], held.metric) for name in ("base", STUDENT)}
    documents = len({score.document_id for score in scores[STUDENT]})
    return Regression(held.name, held.metric, len(scores[STUDENT]), documents, values["base"], values[STUDENT], gap)


def _reach(sheet: Sheet, rule: Rule, metric: str, target: float) -> Reach | None:
    gaps = [gap for name in rule.must_beat if (gap := sheet.gap(name, metric)) is not None]
    if not gaps:
        return None
    closest = min(gaps, key=lambda gap: gap.points if gap.low is None else gap.low)
    power = found(
        Difference(closest.points, closest.items, sheet.documents, standard_error=closest.standard_error), target
    )
    return Reach(
        items=power.items,
        documents=power.documents,
        detectable=None if power.detectable is None else round(power.detectable, 4),
        target=power.target,
        items_needed=power.items_needed,
        said=power.said(),
    )


def _decided_by(checks: Sequence[Check]) -> str:
    failed = [check.name for check in checks if check.passed is False]
    beaten = [check for check in checks if check.name.startswith("beats:") and check.passed]
    return failed[0] if failed else min(beaten, key=_room, default=checks[0]).name


def _room(check: Check) -> float:
    """Return by how many points a check passed."""
    low, line = check.numbers["low"], check.numbers["line"]
    return low - line if low is not None and line is not None else math.inf


def _promote(subject: Mapping[str, Any]) -> str:
    return f"Promote it: `tune promote RUN {subject.get('candidate', 'CANDIDATE')}`."


def _flat(table: str, row: Row, sheet: Sheet, verdict: Verdict) -> dict[str, Any]:
    """Return a contender's line of the DataFrame."""
    measured = row.measured
    gap = sheet.gap(row.contender, verdict.metric)
    return {
        "table": table,
        "contender": row.contender,
        "items": row.items,
        **row.values,
        **{f"labels_{name}": value for name, value in measured.labels.items()},
        "unsupported": row.unsupported,
        "refusal_recall": measured.refusals.recall if measured.refusals else None,
        "refusal_precision": measured.refusals.precision if measured.refusals else None,
        "refusal_false_rate": measured.refusals.false_rate if measured.refusals else None,
        "confidence_roc_auc": measured.confidence.roc_auc if measured.confidence else None,
        "calibration_error": measured.confidence.calibration_error if measured.confidence else None,
        "prompt_tokens": row.prompt_tokens,
        "completion_tokens": row.completion_tokens,
        "p50": measured.latency.p50 if measured.latency else None,
        "p95": measured.latency.p95 if measured.latency else None,
        "in_flight": measured.latency.in_flight if measured.latency else None,
        "cost_per_thousand": measured.cost_per_thousand,
        "words": row.words,
        "cut_off": row.cut_off,
        "trimmed": measured.trimmed,
        "difference": gap.points if gap else None,
        "low": gap.low if gap else None,
        "high": gap.high if gap else None,
        "p_value": gap.p_value if gap else None,
        "p_holm": gap.p_holm if gap else None,
    }
