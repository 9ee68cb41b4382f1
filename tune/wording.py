"""The verdict in plain words. Everything said here is read from the verdict's numbers; nothing is decided here."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tune.contenders import KINDS, STUDENT

if TYPE_CHECKING:
    from tune.verdict import Gap, Row, Rule, Verdict

# From this share of answers cut off at max_tokens on, the reader is told: their scores may be too low.
_MANY_CUT_OFF = 0.05


def explain(verdict: "Verdict", *, enough: bool, failed: Sequence["Gap"]) -> str:
    """Return what was decided and why, losses to contenders that need not be beaten included.

    Args:
        verdict: the numbers.
        enough: whether there is as much evidence as the rule asks for.
        failed: the required differences that do not clear the rule.
    """
    rule = verdict.rule
    required = [verdict.gap(name) for name in rule.must_beat]
    if not enough:
        first = "Reject: not enough evidence."
        sentences = [
            f"The rule asks for at least {rule.min_questions} questions about {rule.min_documents} documents.",
            *(_compared(gap, rule) for gap in required),
        ]
    elif failed:
        first = "Reject."
        sentences = [_compared(gap, rule) for gap in failed]
    else:
        first = "Accept."
        closest = min(required, key=lambda gap: gap.low if gap.low is not None else 0.0)
        sentences = [_compared(closest, rule, closest_of=len(required))]
    sentences += [_exact(gap) for name in rule.must_beat if _worse(gap := verdict.gap(name, "em"))]
    sentences += [_reported(row, verdict) for row in verdict.rows if row.contender not in (STUDENT, *rule.must_beat)]
    return " ".join([first, _scored(verdict), *sentences])


def _scored(verdict: "Verdict") -> str:
    rows = {row.contender: row for row in verdict.rows}
    others = in_a_row([f"{KINDS[name].words} {rows[name].f1:.1f}" for name in verdict.rule.must_beat])
    return (
        f"On {_count(verdict.questions, 'held-out question')} about {_count(verdict.documents, 'document')} the tuned "
        f"student scores F1 {rows[STUDENT].f1:.1f} (EM {rows[STUDENT].em:.1f}), {others}."
    )


def _compared(gap: "Gap", rule: "Rule", *, closest_of: int = 1) -> str:
    words = KINDS[gap.against].words + (", the closest of them," if closest_of > 1 else "")
    line = "zero" if rule.margin == 0 else f"the margin of {rule.margin:g} points"
    if gap.low is None or gap.high is None:
        return (
            f"The difference to {words} is {points(gap.points)} points; with fewer than two documents there is "
            "no interval."
        )
    interval = f"{percent(rule.confidence)} interval {points(gap.low)} to {points(gap.high)}, clustered by document"
    if gap.low > rule.margin:
        end = f", clear of {line}"
    elif gap.high < 0:
        end = ": the student is worse"
    elif gap.points <= 0:
        end = ": the student is not better"
    else:
        end = f", which does not clear {line}"
    return f"The difference to {words} is {points(gap.points)} points ({interval}){end}."


def _exact(gap: "Gap") -> str:
    return (
        f"In exact match the student is {points(-gap.points)} points below {KINDS[gap.against].words} "
        f"(interval {bounds(gap)} for student minus it)."
    )


def _reported(row: "Row", verdict: "Verdict") -> str:
    """Say how a contender that need not be beaten did, in full where it did better."""
    gap = verdict.gap(row.contender)
    words = KINDS[row.contender].words
    side = "above" if gap.points < 0 else "below"
    sentence = f"{words[0].upper()}{words[1:]} scores {row.f1:.1f}, "
    sentence += f"{points(abs(gap.points))} points {side} the student" if gap.points else "as much as the student"
    if gap.low is not None and gap.high is not None:
        # The interval in the sentence's own direction: the contender minus the student.
        low, high = sorted((-gap.high, -gap.low)) if gap.points < 0 else (gap.low, gap.high)
        sentence += f" ({percent(verdict.rule.confidence)} interval {points(low)} to {points(high)})"
    if _worse(gap):
        sentence += ": where its longer prompts can be afforded, it gives the better answers"
    return sentence + "."


def _worse(gap: "Gap") -> bool:
    return gap.high is not None and gap.high < 0


def many_cut_off(rows: Sequence["Row"]) -> list[str]:
    """Return a warning for each contender many of whose answers max_tokens cut off."""
    return [
        f"{row.cut_off} of {row.questions} answers of {KINDS[row.contender].words} were cut off at max_tokens."
        for row in rows
        if row.cut_off > _MANY_CUT_OFF * row.questions
    ]


def bounds(gap: "Gap") -> str:
    """Return an interval in brackets."""
    if gap.low is None or gap.high is None:
        return "(no interval)"
    return f"({points(gap.low)} to {points(gap.high)})"


def points(value: float) -> str:
    """Return a score or a difference with one decimal, never as minus nought."""
    text = f"{value:.1f}"
    return "0.0" if text == "-0.0" else text


def percent(share: float) -> str:
    """Return a share from 0 to 1 in percent."""
    return f"{100 * share:g} %"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def in_a_row(words: Sequence[str]) -> str:
    """Return words with commas and an 'and'."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
