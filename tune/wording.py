"""The verdict in plain words. Everything said here is read from the verdict's numbers; nothing is decided here."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tune.contenders import KINDS, STUDENT
from tune.metrics.confidence import BINS
from tune.phrases import counted, in_a_row, percent, points

if TYPE_CHECKING:
    from tune.sheet import Gap, Row
    from tune.verdict import Verdict

# From this share of answers cut off at max_tokens on, the reader is told: their scores may be too low.
_MANY_CUT_OFF = 0.05

CANDIDATE = "candidate:"

_METRICS: Mapping[str, str] = {
    "f1": "F1",
    "em": "EM",
    "correct": "accuracy",
    "rouge_l": "ROUGE-L",
    "embedding": "embedding similarity",
    "unsupported": "unsupported answers",
}


def named(contender: str) -> str:
    """Return plain words for a contender."""
    if contender.startswith(CANDIDATE):
        return f"the earlier candidate {contender.removeprefix(CANDIDATE)}"
    if contender in KINDS:
        return KINDS[contender].words
    return "the teacher with the passage" if contender == "teacher" else contender


def metric_words(metric: str, own: Mapping[str, str] | None = None) -> str:
    """Return a metric's name as people read it."""
    return (own or {}).get(metric) or _METRICS.get(metric, metric)


def explain(verdict: "Verdict") -> str:
    """Return what was decided and why, losses to contenders that need not be beaten included."""
    rule, sheet = verdict.rule, verdict.clean
    by_name = {check.name: check for check in verdict.checks}
    failed = [check for check in verdict.checks if check.passed is False]
    if not by_name["enough"].passed:
        first = "Reject: not enough evidence."
    elif failed:
        first = "Reject."
    else:
        first = "Accept."
    sentences = [check.said for check in failed] or [by_name[verdict.decided_by].said]
    if not failed and (skipped := [check.name for check in verdict.checks if check.passed is None]):
        sentences.append(f"Not looked at: {in_a_row([name.removeprefix('beats:') for name in skipped])}.")
    exact = [gap for name in rule.must_beat if (gap := sheet.gap(name, "em")) and verdict.metric != "em"]
    sentences += [_exact(gap) for gap in exact if _worse(gap)]
    told = {check.name for check in failed}
    retrieval = by_name.get("retrieval")
    if retrieval is not None and retrieval.passed and (retrieval.numbers["low"] or 0.0) <= 0:
        # Passed for being cheaper: the numbers of that are worth more than the score alone.
        sentences.append(retrieval.said)
        told.add("retrieval")
    others = [row for row in sheet.rows if row.contender not in (STUDENT, *rule.must_beat, *told)]
    sentences += [said for row in others if (said := _reported(row, verdict))]
    if failed and verdict.reach is not None:
        sentences.append(verdict.reach.said)
    return " ".join([first, *_scored(verdict), *sentences])


def notes(verdict: "Verdict") -> list[str]:
    """Return what else the numbers show: the student's refusals and confidence, shortened prompts."""
    said = []
    student = verdict.clean.row(STUDENT)
    refusals = student.measured.refusals if student else None
    if refusals is not None and refusals.recall is not None:
        said.append(
            f"The tuned student refuses {percent(refusals.recall)} of the questions that have no answer"
            + (
                f", and {percent(refusals.false_rate)} of those that have one."
                if refusals.false_rate is not None
                else "."
            )
        )
    said += _confidence(verdict)
    trimmed = [f"{row.measured.trimmed} of {row.contender}" for row in verdict.clean.rows if row.measured.trimmed]
    if trimmed:
        said.append(f"Prompts that were shortened to fit the budget: {in_a_row(trimmed)}.")
    return said


def _confidence(verdict: "Verdict") -> list[str]:
    row = verdict.clean.row(STUDENT)
    held = row.measured.confidence if row else None
    if held is None:
        return []
    error = f"its calibration error is {100 * held.calibration_error:.1f} points ({BINS} bins)"
    said = [
        f"The tuned student's own confidence tells right answers from wrong ones with a ROC AUC of {held.roc_auc:.2f}; "
        f"{error}."
        if held.roc_auc is not None
        else f"Of the tuned student's own confidence: {error}."
    ]
    half = min(held.abstention, key=lambda point: abs(point.coverage - 0.5), default=None)
    if half is not None:
        said.append(
            f"Answering only where it is surest (confidence from {half.threshold:.2f} on, {percent(half.coverage)} of "
            f"the items), it scores {metric_words(verdict.metric, verdict.metrics)} {points(100 * half.quality)}."
        )
    return said


def _scored(verdict: "Verdict") -> list[str]:
    sheet = verdict.clean
    left_out = verdict.all.items - sheet.items
    overlap = (
        [f"{counted(left_out, 'item')} of {verdict.all.items} overlap with the dataset and do not decide."]
        if left_out
        else []
    )
    student = sheet.row(STUDENT)
    if student is None:
        return overlap

    def score(contender: str, metric: str = verdict.metric) -> str:
        row = sheet.row(contender)
        value = row.values.get(metric) if row else None
        return "not known" if value is None else points(value)

    exact = f" (EM {score(STUDENT, 'em')})" if verdict.metric == "f1" and "em" in verdict.metrics else ""
    others = in_a_row([f"{named(name)} {score(name)}" for name in verdict.rule.must_beat])
    return [
        *overlap,
        f"On {counted(sheet.items, 'held-out item')} about {counted(sheet.documents, 'document')} the tuned student "
        f"scores {metric_words(verdict.metric, verdict.metrics)} {score(STUDENT)}{exact}, "
        f"{others}.",
    ]


def compared(gap: "Gap", confidence: float, line: float) -> str:
    """Return how far the student is from a contender that it has to beat, and whether that clears the line."""
    shown = "zero" if line == 0 else f"the margin of {line:g} points"
    start = f"{_capital(metric_words(gap.metric))}: the tuned student minus {named(gap.against)} is"
    if gap.low is None or gap.high is None:
        return f"{start} {interval(gap, confidence)}."
    if gap.low > line:
        end = f", clear of {shown}"
    elif gap.high < 0:
        end = ": the student is worse"
    elif gap.points <= 0:
        end = ": the student is not better"
    else:
        end = f", which does not clear {shown}"
    return f"{start} {interval(gap, confidence)}{end}."


def interval(gap: "Gap", confidence: float) -> str:
    """Return a difference with its interval."""
    if gap.low is None or gap.high is None:
        return f"{points(gap.points)} points; with fewer than two documents there is no interval"
    return f"{points(gap.points)} points ({percent(confidence)} interval {points(gap.low)} to {points(gap.high)})"


def unmeasured(metric: str, lacking: int, items: int) -> str:
    """Return that a metric is missing where it is needed."""
    return f"{_capital(metric_words(metric))} could not be measured for {lacking} of {counted(items, 'item')}."


def _exact(gap: "Gap") -> str:
    return (
        f"In exact match the student is {points(-gap.points)} points below {named(gap.against)} "
        f"(interval {bounds(gap)} for student minus it)."
    )


def _reported(row: "Row", verdict: "Verdict") -> str:
    """Say how a contender that need not be beaten did, in full where it did better."""
    gap, value = verdict.clean.gap(row.contender, verdict.metric), row.values.get(verdict.metric)
    if gap is None or value is None:
        return ""
    side = "above" if gap.points < 0 else "below"
    sentence = f"{_capital(named(row.contender))} scores {points(value)}, "
    sentence += f"{points(abs(gap.points))} points {side} the student" if gap.points else "as much as the student"
    if gap.low is not None and gap.high is not None:
        # The interval in the sentence's own direction: the contender minus the student.
        low, high = sorted((-gap.high, -gap.low)) if gap.points < 0 else (gap.low, gap.high)
        sentence += f" ({percent(verdict.rule.confidence)} interval {points(low)} to {points(high)})"
    if _worse(gap) and row.contender in ("retrieval", "tuned-retrieval"):
        sentence += ": where its longer prompts can be afforded, it gives the better answers"
    return sentence + "."


def _worse(gap: "Gap") -> bool:
    return gap.high is not None and gap.high < 0


def many_cut_off(rows: Sequence["Row"]) -> list[str]:
    """Return a warning for each contender many of whose answers max_tokens cut off."""
    return [
        f"{row.cut_off} of {row.items} answers of {named(row.contender)} were cut off at max_tokens."
        for row in rows
        if row.cut_off > _MANY_CUT_OFF * row.items
    ]


def bounds(gap: "Gap") -> str:
    """Return an interval in brackets."""
    if gap.low is None or gap.high is None:
        return "(no interval)"
    return f"({points(gap.low)} to {points(gap.high)})"


def _capital(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}"
