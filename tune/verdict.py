"""The verdict: accept or reject, from scores alone, with the evidence and in plain words.

The rule. A candidate is accepted when there is enough evidence (`min_questions` about `min_documents`) and
its mean F1 is above that of every contender in `must_beat`, the lower bound of the confidence interval of
each paired difference, clustered by document, lying above `margin`. All of them have to be beaten, so
no correction for several comparisons is needed: it is an intersection-union test (Berger 1982).
Contenders that need not be beaten are reported in the same words, losses included.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

from rich.table import Table

from synth.core.errors import ConfigError
from tune.contenders import STUDENT
from tune.metrics import mean
from tune.statistics import paired_difference
from tune.wording import bounds, explain, in_a_row, many_cut_off, percent, points

VERDICT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Score:
    """One answer scored: `f1` and `em` from 0 to 1, its length in words, whether max_tokens cut it off."""

    question_id: str
    document_id: str
    contender: str
    f1: float
    em: float
    words: int
    cut_off: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """What a candidate has to show. `margin` is in points of F1 (0 to 100), `confidence` from 0 to 1."""

    must_beat: tuple[str, ...] = ("base", "few-shot")
    margin: float = 0.0
    confidence: float = 0.95
    min_questions: int = 30
    min_documents: int = 10
    resamples: int = 10_000
    seed: int = 0

    @property
    def statement(self) -> str:
        """The rule in a sentence."""
        return (
            f"Accept when, on at least {self.min_questions} questions about {self.min_documents} documents, the tuned "
            f"student's F1 is above that of {in_a_row(self.must_beat)}, the lower bound of each paired difference's "
            f"{percent(self.confidence)} interval, clustered by document, lying above {self.margin:g} points."
        )


@dataclass(frozen=True, slots=True)
class Row:
    """A contender's line in the table: means in points (0 to 100), mean answer length in words."""

    contender: str
    questions: int
    f1: float
    em: float
    words: float
    cut_off: int


@dataclass(frozen=True, slots=True)
class Gap:
    """The tuned student minus one contender, in points of `metric`, paired and clustered by document.

    The bounds, the error and the p-value are None where there are fewer than two documents.
    """

    against: str
    metric: Literal["f1", "em"]
    points: float
    low: float | None
    high: float | None
    standard_error: float | None
    p_value: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Accept or reject with its evidence; `to_json` is verdict.json (schemas/verdict.schema.json).

    `subject` says what was judged on what: candidate, weights, held-out file, where its documents stand.
    """

    accepted: bool
    text: str
    rule: Rule
    questions: int
    documents: int
    rows: tuple[Row, ...]
    gaps: tuple[Gap, ...]
    warnings: tuple[str, ...]
    subject: Mapping[str, Any]

    def gap(self, against: str, metric: str = "f1") -> Gap:
        """Return the tuned student's difference to one contender."""
        return next(gap for gap in self.gaps if (gap.against, gap.metric) == (against, metric))

    def to_json(self) -> dict[str, Any]:
        """Return the content of verdict.json."""
        rule = {"statement": self.rule.statement, **asdict(self.rule), "must_beat": list(self.rule.must_beat)}
        return {
            "version": VERDICT_VERSION,
            "accepted": self.accepted,
            "text": self.text,
            "warnings": list(self.warnings),
            "rule": rule,
            "subject": dict(self.subject),
            "questions": self.questions,
            "documents": self.documents,
            "contenders": [asdict(row) for row in self.rows],
            "differences": [asdict(gap) for gap in self.gaps],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build the verdict from a verdict.json that its schema accepts."""
        rule = {key: value for key, value in data["rule"].items() if key != "statement"}
        return cls(
            accepted=data["accepted"],
            text=data["text"],
            rule=Rule(**{**rule, "must_beat": tuple(rule["must_beat"])}),
            questions=data["questions"],
            documents=data["documents"],
            rows=tuple(Row(**row) for row in data["contenders"]),
            gaps=tuple(Gap(**gap) for gap in data["differences"]),
            warnings=tuple(data["warnings"]),
            subject=data["subject"],
        )


def judge(
    scores: Sequence[Score],
    rule: Rule,
    *,
    subject: Mapping[str, Any] | None = None,
    warnings: Sequence[str] = (),
) -> Verdict:
    """Return the verdict on scores; equal scores give an equal verdict, whatever their order.

    Args:
        scores: of every contender, all about the same questions. Contenders keep the order they come in.
        rule: what has to be shown.
        subject: what was judged, copied into the verdict.
        warnings: doubts that were known before, copied into the verdict.

    Raises:
        ConfigError: the student or a contender of `must_beat` has no scores, or questions differ between contenders.
    """
    tables = _by_contender(scores, rule)
    rows = tuple(_row(name, table) for name, table in tables.items())
    student = tables[STUDENT]
    documents = [student[question].document_id for question in student]
    gaps = tuple(
        _gap(name, metric, student, table, rule)
        for name, table in tables.items()
        if name != STUDENT
        for metric in ("f1", "em")
    )
    verdict = Verdict(
        accepted=False,
        text="",
        rule=rule,
        questions=len(student),
        documents=len({*documents}),
        rows=rows,
        gaps=gaps,
        warnings=(*warnings, *many_cut_off(rows)),
        subject=subject or {},
    )
    return _decided(verdict)


def table(verdict: Verdict) -> Table:
    """Return the verdict's table for a terminal."""
    level = percent(verdict.rule.confidence)
    shown = Table("contender", box=None, pad_edge=False)
    for heading in ("F1", "EM", "words", f"student minus it, F1 ({level} interval)", "p"):
        shown.add_column(heading, justify="right")
    for row in verdict.rows:
        gap = None if row.contender == STUDENT else verdict.gap(row.contender)
        shown.add_row(
            row.contender,
            f"{row.f1:.1f}",
            f"{row.em:.1f}",
            f"{row.words:.1f}",
            "" if gap is None else f"{points(gap.points)} {bounds(gap)}".strip(),
            "" if gap is None or gap.p_value is None else f"{gap.p_value:.4f}",
        )
    return shown


def _by_contender(scores: Sequence[Score], rule: Rule) -> dict[str, dict[str, Score]]:
    """Return scores by contender and question, questions sorted; join on ids, never on places."""
    tables: dict[str, dict[str, Score]] = {}
    for score in scores:
        tables.setdefault(score.contender, {})[score.question_id] = score
    for name in (STUDENT, *rule.must_beat):
        if name not in tables:
            raise ConfigError(f"there are no scores of {name!r}, which the rule needs", where="--contenders")
    for name, held in tables.items():
        if held.keys() != tables[STUDENT].keys():
            raise ConfigError(f"{name!r} and {STUDENT!r} were asked different questions", where="answers.jsonl")
    return {name: dict(sorted(held.items())) for name, held in tables.items()}


def _row(name: str, scores: Mapping[str, Score]) -> Row:
    held = scores.values()
    return Row(
        contender=name,
        questions=len(held),
        f1=round(100 * mean(score.f1 for score in held), 4),
        em=round(100 * mean(score.em for score in held), 4),
        words=round(mean(score.words for score in held), 4),
        cut_off=sum(score.cut_off for score in held),
    )


def _gap(
    name: str, metric: Literal["f1", "em"], student: Mapping[str, Score], other: Mapping[str, Score], rule: Rule
) -> Gap:
    found = paired_difference(
        [100 * (_value(student[question], metric) - _value(other[question], metric)) for question in student],
        [student[question].document_id for question in student],
        confidence=rule.confidence,
        resamples=rule.resamples,
        seed=rule.seed,
    )
    # Rounded before the decision, so that the file alone gives the same decision again.
    return Gap(
        against=name,
        metric=metric,
        points=round(found.mean, 4),
        low=None if found.low is None else round(found.low, 4),
        high=None if found.high is None else round(found.high, 4),
        standard_error=None if found.standard_error is None else round(found.standard_error, 4),
        p_value=None if found.p_value is None else round(found.p_value, 6),
    )


def _value(score: Score, metric: Literal["f1", "em"]) -> float:
    return score.f1 if metric == "f1" else score.em


def _decided(verdict: Verdict) -> Verdict:
    rule = verdict.rule
    enough = verdict.questions >= rule.min_questions and verdict.documents >= rule.min_documents
    required = [verdict.gap(name) for name in rule.must_beat]
    failed = [gap for gap in required if gap.low is None or gap.low <= rule.margin]
    accepted = enough and not failed
    return replace(verdict, accepted=accepted, text=explain(verdict, enough=enough, failed=failed))
