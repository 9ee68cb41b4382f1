"""What a candidate has to show, check by check. Each check names its numbers; a number that is missing never passes.

All checks have to pass, so no correction for several comparisons is needed in the decision: it is an
intersection-union test (Berger 1982). Where answers may be a little worse (retrieval, regression sets), it is not
enough that no loss was shown: a loss beyond the margin has to be ruled out. Unsupported answers are the other way
about, a rise has to be shown: to rule a small one out takes thousands of items.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from synth.core.heldout import Task
from tune.contenders import STUDENT
from tune.phrases import counted, in_a_row, percent, points
from tune.sheet import UNSUPPORTED, Gap, Row, Sheet
from tune.wording import compared, interval, metric_words, named, unmeasured

# The metric that decides where the rule names none.
DECIDING: Mapping[Task, str] = {"qa": "f1", "labels": "correct", "free": "rouge_l"}

Number = float | int | None


# What the student has to beat unless the user says otherwise.
MUST_BEAT = ("base", "few-shot")


@dataclass(frozen=True, slots=True)
class Rule:
    """What a candidate has to show. Margins are in points (0 to 100), `confidence` is from 0 to 1."""

    must_beat: tuple[str, ...] = MUST_BEAT
    metric: str | None = None
    margin: float = 0.0
    retrieval_margin: float = 5.0
    regression_margin: float = 5.0
    unsupported_margin: float = 0.0
    confidence: float = 0.95
    min_items: int = 30
    min_documents: int = 10
    resamples: int = 10_000
    seed: int = 0

    @property
    def statement(self) -> str:
        """The rule in words."""
        measure = metric_words(self.metric) if self.metric else "the deciding metric"
        level = percent(self.confidence)
        return (
            "Accept when all of this holds on the items that do not stand in the dataset. "
            f"Enough: at least {self.min_items} items about {self.min_documents} documents. "
            f"Better: in {measure} the tuned student is above {in_a_row(self.must_beat)}, the lower bound of each "
            f"paired difference's {level} interval, clustered by document, lying above {self.margin:g} points. "
            f"Retrieval: the student beats it, or is at most {self.retrieval_margin:g} points worse by the same bound "
            "and cheaper or faster. "
            f"Nothing forgotten: on each regression set the student is at most {self.regression_margin:g} points below "
            "the untuned model by the lower bound. "
            "Nothing made up: that its share of unsupported answers is more than "
            f"{self.unsupported_margin:g} points above the untuned model's is not shown by the lower bound."
        )


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was asked of the candidate. `passed` is None where it could not be asked, and `said` why.

    `numbers` are those that decided: bounds and margins in points, counts.
    """

    name: str
    passed: bool | None
    said: str
    numbers: Mapping[str, Number] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Regression:
    """Base and tuned on other questions than those that the student was tuned for."""

    name: str
    metric: str
    items: int
    documents: int
    base: float | None
    tuned: float | None
    gap: Gap | None


def run_checks(sheet: Sheet, regressions: Sequence[Regression], rule: Rule, metric: str) -> tuple[Check, ...]:
    """Return every check in the order in which they decide.

    Args:
        sheet: the items that decide.
        regressions: the other sets that were asked.
        rule: what is asked.
        metric: the deciding one.
    """
    found = [_enough(sheet, rule)]
    found += [_beats(sheet, name, rule, metric) for name in rule.must_beat]
    found += [
        Check(f"beats:{name}", None, f"Whether the student beats {named(name)} is not known: it was not asked.")
        for name in MUST_BEAT
        if sheet.items and sheet.row(name) is None and name not in rule.must_beat
    ]
    if "retrieval" not in rule.must_beat:
        found.append(_retrieval(sheet, rule, metric))
    found += [_regression(held, rule) for held in regressions] or [
        Check("regression", None, "No regression set was given (--regression), so what was forgotten is not known.")
    ]
    found.append(_unsupported(sheet, rule))
    return tuple(found)


def clears(bound: float | None, line: float) -> bool:
    """Whether a bound lies above a line; one that is missing or no number does not."""
    return bound is not None and math.isfinite(bound) and bound > line


def cheaper_in(student: Row, other: Row) -> tuple[str, ...]:
    """Return in what the student costs less than another contender, in words with both numbers; () where in nothing.

    Money counts where both have a price, tokens an answer where not; and the median latency. What was measured at
    another load, money or time, is not compared.
    """
    mine, theirs = student.measured, other.measured
    ours, other_load = mine.latency, theirs.latency
    unlike = ours is not None and other_load is not None and ours.in_flight != other_load.in_flight
    found = []
    if mine.cost_per_thousand is not None and theirs.cost_per_thousand is not None and not unlike:
        if mine.cost_per_thousand < theirs.cost_per_thousand:
            found.append(f"{mine.cost_per_thousand:.4g} against {theirs.cost_per_thousand:.4g} for 1,000 answers")
    elif student.tokens is not None and other.tokens is not None and student.tokens < other.tokens:
        found.append(f"{student.tokens:.0f} against {other.tokens:.0f} tokens an answer")
    if ours and other_load and not unlike and ours.p50 < other_load.p50:
        found.append(f"{ours.p50:.2f} s against {other_load.p50:.2f} s, the median")
    return tuple(found)


def _enough(sheet: Sheet, rule: Rule) -> Check:
    passed = sheet.items >= rule.min_items and sheet.documents >= rule.min_documents
    return Check(
        "enough",
        passed,
        f"{counted(sheet.items, 'item')} about {counted(sheet.documents, 'document')}; the rule asks for at least "
        f"{rule.min_items} about {rule.min_documents}.",
        {
            "items": sheet.items,
            "documents": sheet.documents,
            "min_items": rule.min_items,
            "min_documents": rule.min_documents,
        },
    )


def _beats(sheet: Sheet, name: str, rule: Rule, metric: str) -> Check:
    gap = sheet.gap(name, metric)
    if gap is None or gap.items < sheet.items:
        return _not_measured(f"beats:{name}", name, metric, gap, sheet)
    passed = clears(gap.low, rule.margin)
    return Check(f"beats:{name}", passed, compared(gap, rule.confidence, rule.margin), _numbers(gap, rule.margin))


def _retrieval(sheet: Sheet, rule: Rule, metric: str) -> Check:
    name, line = "retrieval", -rule.retrieval_margin
    student, other = sheet.row(STUDENT), sheet.row(name)
    if student is None or other is None:
        return Check(name, None, "Retrieval was not among the contenders: whether it would do as well is not known.")
    gap = sheet.gap(name, metric)
    if gap is None or gap.items < sheet.items:
        return _not_measured(name, name, metric, gap, sheet)
    numbers = _numbers(gap, line) | {"tokens": student.tokens, "retrieval_tokens": other.tokens}
    start = f"{metric_words(metric)}: the tuned student minus {named(name)} is {interval(gap, rule.confidence)}"
    if clears(gap.low, 0.0):
        return Check(name, True, f"{start}: it beats retrieval.", numbers)
    margin = f"{rule.retrieval_margin:g} points"
    if not clears(gap.low, line):
        lost = gap.high is not None and gap.high < line
        worse = "it is worse, and a loss" if gap.high is not None and gap.high < 0 else "a loss"
        end = f"it is worse by more than {margin}" if lost else f"{worse} of {margin} cannot be ruled out"
        return Check(name, False, f"{start}: {end}.", numbers)
    cheaper = cheaper_in(student, other)
    if not cheaper:
        return Check(
            name, False, f"{start}: at most {margin} worse, but neither better nor cheaper nor faster.", numbers
        )
    return Check(name, True, f"{start}: at most {margin} worse, and cheaper ({'; '.join(cheaper)}).", numbers)


def _regression(held: Regression, rule: Rule) -> Check:
    name, line = f"regression:{held.name}", -rule.regression_margin
    gap = held.gap
    if gap is None or gap.items < held.items:
        return Check(name, False, unmeasured(held.metric, held.items - (gap.items if gap else 0), held.items))
    lost = gap.high is not None and gap.high < 0
    if not lost and (held.items < rule.min_items or held.documents < rule.min_documents):
        return Check(
            name,
            False,
            f"{held.name} has {counted(held.items, 'item')} about {counted(held.documents, 'document')}, too few to "
            f"rule a loss out: the rule asks for at least {rule.min_items} about {rule.min_documents}.",
            {
                "items": held.items,
                "documents": held.documents,
                "min_items": rule.min_items,
                "min_documents": rule.min_documents,
            },
        )
    passed = clears(gap.low, line) and held.items >= rule.min_items and held.documents >= rule.min_documents
    end = (
        f"a loss of {rule.regression_margin:g} points is ruled out"
        if passed
        else f"it has forgotten, and a loss of {rule.regression_margin:g} points is not ruled out"
        if lost
        else f"a loss of {rule.regression_margin:g} points cannot be ruled out"
    )
    return Check(
        name,
        passed,
        f"On {held.name} ({counted(held.items, 'item')}), {metric_words(held.metric)}: the tuned student minus "
        f"{named('base')} is {interval(gap, rule.confidence)}: {end}.",
        _numbers(gap, line),
    )


def _unsupported(sheet: Sheet, rule: Rule) -> Check:
    student, base, gap = sheet.row(STUDENT), sheet.row("base"), sheet.gap("base", UNSUPPORTED)
    if base is None:
        return Check(UNSUPPORTED, None, "The untuned model was not asked, so whether more is made up is not known.")
    if not any(row.looked_up for row in sheet.rows):
        return Check(UNSUPPORTED, None, "There was no passage to look answers up in, so support is not known.")
    if student is None or student.unsupported is None:
        return Check(
            UNSUPPORTED,
            None,
            "None of the tuned student's answers says something that a passage could support (refusals, and a mere yes "
            "or no, do not), so nothing it says is unsupported.",
        )
    if gap is None or gap.low is None:
        return Check(
            UNSUPPORTED,
            student.unsupported <= rule.unsupported_margin,
            f"No passage supports {points(student.unsupported)} % of the tuned student's answers; item by item it "
            "cannot be compared with the untuned model, whose answers say too little that one could support.",
            {"points": student.unsupported, "line": rule.unsupported_margin},
        )
    assert base.unsupported is not None  # There is a difference to it.
    passed = math.isfinite(gap.low) and gap.low <= rule.unsupported_margin
    beyond = f" of more than {rule.unsupported_margin:g} points" if rule.unsupported_margin else ""
    end = f"no rise{beyond} is shown" if passed else f"a rise{beyond} is shown"
    return Check(
        UNSUPPORTED,
        passed,
        f"Answers that no passage supports: {points(student.unsupported)} % of the tuned student's, "
        f"{points(base.unsupported)} % of the untuned model's; a difference of {interval(gap, rule.confidence)}: "
        f"{end}.",
        _numbers(gap, rule.unsupported_margin),
    )


def _not_measured(check: str, against: str, metric: str, gap: Gap | None, sheet: Sheet) -> Check:
    lacking = sheet.items - (gap.items if gap else 0)
    if not sheet.items:
        return Check(check, False, f"There is no item to compare the student with {named(against)} on.")
    return Check(check, False, unmeasured(metric, lacking, sheet.items), {"items": sheet.items, "lacking": lacking})


def _numbers(gap: Gap, line: float) -> dict[str, Number]:
    return {"points": gap.points, "low": gap.low, "high": gap.high, "p_holm": gap.p_holm, "line": line}
