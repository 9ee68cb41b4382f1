"""Why a candidate was rejected, from evidence: what stands in the scores, in training.json and in the dataset.

A cause is named only where its numbers are there, and each says how sure it is:

- clear: the numbers say it themselves: a count, or an interval on one side of its line;
- likely: a sign beyond a line that is stated here;
- possible: a weaker sign, worth a look.

The first finding is the advice of the verdict. The lines are rules of thumb, not measured ones.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tune.contenders import STUDENT
from tune.evidence import Evidence
from tune.nearest import Distance
from tune.phrases import counted, points
from tune.power import found
from tune.rules import Check, Number, Regression, Rule, clears
from tune.sheet import UNSUPPORTED, Gap, Sheet
from tune.statistics import Difference
from tune.wording import metric_words, named

Certainty = Literal["clear", "likely", "possible"]

# A mean loss of the answers' tokens, in nats, from which on the training rows were not learned: e^-1 is 37 %.
HIGH_LOSS = 1.0
# The validation loss has turned up where its last value is so many times its least one.
TURNED_UP = 1.05
# Rows are known by heart where the validation loss is so many times the training loss, and by so many nats.
BY_HEART_TIMES, BY_HEART_MORE = 2.0, 0.5
# The dataset's own validation rows are answered well where their loss is within this of the training loss.
CLOSE = 0.25
# Held-out questions lie far from the dataset where their distance to it is so much more than the dataset's own.
FAR, VERY_FAR = 0.1, 0.2
# Retrieval is far ahead by so many points.
FAR_AHEAD = 10.0
# A teacher that has the passage before it and scores less than this, in points, is no good teacher.
POOR_TEACHER = {"f1": 50.0, "em": 30.0, "correct": 50.0}
# From this share of answers cut off on, max_tokens is a cause.
CUT_OFF = 0.05
# With so many times the items, more of them is a way out.
WITHIN_REACH = 4.0

_ORDER: tuple[Certainty, ...] = ("clear", "likely", "possible")


@dataclass(frozen=True, slots=True)
class Finding:
    """A cause of a reject: how sure it is, what the numbers are, and what to do about it."""

    cause: str
    certainty: Certainty
    said: str
    advice: str
    numbers: Mapping[str, Number] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Case:
    """Everything that a search for one cause may look at."""

    every: Sheet
    clean: Sheet
    failed: Mapping[str, Check]
    regressions: Sequence[Regression]
    rule: Rule
    metric: str
    evidence: Evidence

    @property
    def training(self) -> Mapping[str, Any]:
        return self.evidence.training or {}

    @property
    def beaten(self) -> bool:
        """Whether the student was not good enough, in answering, next to somebody."""
        return any(name.startswith("beats:") or name == "retrieval" for name in self.failed)

    def value(self, contender: str) -> float | None:
        row = self.clean.row(contender)
        return row.values.get(self.metric) if row else None


def find_causes(
    every: Sheet,
    clean: Sheet,
    checks: Sequence[Check],
    regressions: Sequence[Regression],
    rule: Rule,
    metric: str,
    evidence: Evidence,
) -> tuple[Finding, ...]:
    """Return why a candidate was rejected, the surest first; never nothing.

    Args:
        every: the table of all items.
        clean: the table that decided.
        checks: what was asked; some of it failed.
        regressions: base and tuned on other questions.
        rule: what was asked for.
        metric: the deciding one.
        evidence: what is known beside the scores.
    """
    failed = {check.name: check for check in checks if check.passed is False}
    case = _Case(every, clean, failed, regressions, rule, metric, evidence)
    causes = [finding for search in _SEARCHES for finding in search(case)]
    causes.sort(key=lambda finding: _ORDER.index(finding.certainty))  # stable: within a certainty the searches' order
    return tuple(causes) or (_unknown(case),)


def _contaminated(case: _Case) -> Iterable[Finding]:
    left_out = case.every.items - case.clean.items
    if not left_out:
        return
    enough = case.every.items >= case.rule.min_items and case.every.documents >= case.rule.min_documents
    only_there = [
        name
        for name in case.rule.must_beat
        if f"beats:{name}" in case.failed
        and (gap := case.every.gap(name, case.metric)) is not None
        and clears(gap.low, case.rule.margin)
    ]
    too_few = "enough" in case.failed and enough
    if not (too_few or only_there):
        return
    what = (
        f"Without them there are too few: {counted(case.clean.items, 'item')}."
        if too_few
        else f"It would beat {named(only_there[0])} with them, and does not without them."
    )
    yield Finding(
        "contaminated",
        "clear",
        f"{counted(left_out, 'item')} of {case.every.items} overlap with the dataset. {what}",
        "Make the dataset again without these questions (`synth filter RUN --heldout FILE`), tune again and validate "
        "again.",
        {"overlap": left_out, "items": case.every.items},
    )


def _too_few(case: _Case) -> Iterable[Finding]:
    rule = case.rule
    if "enough" in case.failed:
        yield Finding(
            "too few items",
            "clear",
            f"There are {counted(case.clean.items, 'item')} about {counted(case.clean.documents, 'document')}.",
            f"Gather more held-out questions: at least {rule.min_items} about {rule.min_documents} documents are asked "
            "for.",
            {"items": case.clean.items, "documents": case.clean.documents},
        )
        return
    for held in case.regressions:
        check = case.failed.get(f"regression:{held.name}")
        if check is not None and "min_items" in check.numbers:
            yield Finding(
                "too few items",
                "clear",
                check.said,
                f"Put more questions in {held.name}, at least {rule.min_items} about {rule.min_documents} documents, "
                "or leave it out.",
                check.numbers,
            )
            return
    for gap, documents, line, words in _undecided(case):
        difference = Difference(gap.points, gap.items, documents, standard_error=gap.standard_error)
        needed = found(difference, abs(gap.points - line)).items_needed
        if needed is None or points(gap.points) == points(line):  # A hair is no side of a line.
            continue
        within = needed <= WITHIN_REACH * gap.items
        yield Finding(
            "too few items",
            "likely" if within else "possible",
            f"{words[0].upper()}{words[1:]}: the difference of {points(gap.points)} points is on the right side of its "
            f"line, and its interval is too wide to say so. Were it the true one, about {needed:,} items would show it "
            f"four times in five; there are {gap.items:,}.",
            f"Gather more held-out questions, about {needed:,} in all, of new documents."
            if within
            else f"Do not wait for more questions: about {needed:,} would be needed. Make the student better first.",
            {"items": gap.items, "items_needed": needed, "points": gap.points},
        )
        return


def _undecided(case: _Case) -> Iterable[tuple[Gap, int, float, str]]:
    """Return the differences of failed checks that lie on the right side of their line: documents, line and words."""
    documents = case.clean.documents
    for name in case.failed:
        kind, _, rest = name.partition(":")
        if kind == "beats" and (gap := case.clean.gap(rest, case.metric)) and gap.points > case.rule.margin:
            yield gap, documents, case.rule.margin, f"against {named(rest)}"
        elif name == "retrieval" and (gap := case.clean.gap(name, case.metric)):
            line = -case.rule.retrieval_margin
            if gap.points > line and not clears(gap.low, line):
                yield gap, documents, line, f"against {named(name)}"
        elif kind == "regression":
            held = next(one for one in case.regressions if one.name == rest)
            if held.gap and held.gap.points > -case.rule.regression_margin:
                yield held.gap, held.documents, -case.rule.regression_margin, f"on {rest}"


def _teacher(case: _Case) -> Iterable[Finding]:
    teacher, student = case.value("teacher"), case.value(STUDENT)
    if not case.beaten or teacher is None or student is None:
        return
    line = POOR_TEACHER.get(case.metric)
    words = metric_words(case.metric)
    poor = line is not None and teacher < line
    if teacher > student and not poor:
        return
    reached = teacher <= student
    yield Finding(
        "teacher",
        "clear" if reached and poor else "likely",
        f"The teacher with the passage before it scores {words} {points(teacher)}"
        + (f", no more than the student with {points(student)}" if reached else "")
        + (f"; under {line:g} its pairs teach little." if poor else ": there is no more to learn from it."),
        "Take a better teacher, or mend its prompt (`synth generate … --preview 3` shows what it writes).",
        {"teacher": teacher, "tuned": student, "line": line},
    )


def _underfit(case: _Case) -> Iterable[Finding]:
    loss = _number(case.training.get("train_loss"))
    if not case.beaten or loss is None or loss < HIGH_LOSS:
        return
    first = next((_number(point.get("loss")) for point in _history(case, "train")), None)
    fell = first is not None and loss < 0.7 * first
    yield Finding(
        "not learned",
        "likely" if fell else "clear",
        f"The training loss ended at {loss:.2f}"
        + (f", from {first:.2f} at the start" if first is not None else "")
        + f"; from {HIGH_LOSS:g} on, the rows were not learned.",
        "Tune again with a higher `--learning-rate`, a higher `--rank` or more `--epochs`, one at a time.",
        {"train_loss": loss, "first_loss": first, "line": HIGH_LOSS},
    )


def _overfit(case: _Case) -> Iterable[Finding]:
    train, validation = _losses(case)
    if not case.beaten or train is None or validation is None:
        return
    checks = [
        (point.get("step"), loss) for point in _history(case, "validation") if (loss := _number(point.get("loss")))
    ]
    least = min(checks, key=lambda check: check[1], default=None)
    turned = least is not None and checks[-1][1] > TURNED_UP * least[1]
    kept_late = least is not None and validation > TURNED_UP * least[1]
    by_heart = validation > BY_HEART_TIMES * train + BY_HEART_MORE
    if not (turned or by_heart):
        return
    certainty: Certainty = "clear" if kept_late else "likely" if by_heart else "possible"
    said = f"The loss is {train:.2f} on training rows and {validation:.2f} on validation rows"
    if turned and least is not None:
        said += f"; on these it was least at step {least[0]:.0f} ({least[1]:.2f}) and {checks[-1][1]:.2f} at the end"
    yield Finding(
        "overfit",
        certainty,
        f"{said}: the student knows its rows by heart." if by_heart else f"{said}.",
        "Tune again with fewer `--epochs` or `--keep best`."
        if kept_late
        else "Make more pairs of more documents (`synth generate` with a higher `--num-records`), or tune with more "
        "`--question-variants`.",
        {"train_loss": train, "validation_loss": validation, "least": least[1] if least else None},
    )


def _mismatch(case: _Case) -> Iterable[Finding]:
    train, validation = _losses(case)
    distance = case.evidence.distance
    if not case.beaten:
        return
    learned = train is not None and validation is not None and train < HIGH_LOSS and validation < train + CLOSE
    apart = _apart(distance)
    if not learned and apart < FAR:
        return
    certainty: Certainty = (
        "clear" if learned and apart >= VERY_FAR else "likely" if learned and apart >= FAR else "possible"
    )
    yield Finding(
        "other questions",
        certainty,
        "The dataset does not look like the users' questions"
        + (
            f": its own validation rows are answered well (loss {validation:.2f}), held-out ones are not"
            if learned
            else ""
        )
        + f".{_distance(distance)}",
        "Show the teacher questions as your users ask them (`synth generate --examples FILE`; not held-out ones), or "
        "choose another `--generator`, and make the dataset again.",
        {
            "train_loss": train,
            "validation_loss": validation,
            "heldout_distance": distance.heldout_median if distance else None,
            "own_distance": distance.own_median if distance else None,
        },
    )


def _apart(distance: Distance | None) -> float:
    """Return how much farther the held-out questions are from the dataset than its own, 0 where that is not known."""
    if distance is None or distance.heldout_median is None or distance.own_median is None:
        return 0.0
    return distance.heldout_median - distance.own_median


def _distance(distance: Distance | None) -> str:
    if distance is None or distance.heldout_median is None or distance.own_median is None:
        return ""
    return (
        f" From a held-out question to the nearest training question it is {distance.heldout_median:.2f} (median, 0 to "
        f"1), from the dataset's own validation questions {distance.own_median:.2f}."
    )


def _not_entered(case: _Case) -> Iterable[Finding]:
    gap = case.clean.gap("retrieval", case.metric)
    if not case.beaten or gap is None or gap.high is None or not clears(-gap.high, 0.0):
        return
    if gap.points > -min(FAR_AHEAD, case.rule.retrieval_margin):
        return
    both = case.value("tuned-retrieval")
    retrieval = case.value("retrieval")
    reads = both is not None and retrieval is not None and both > retrieval
    yield Finding(
        "knowledge did not enter",
        "clear" if gap.points <= -FAR_AHEAD else "likely",
        f"Retrieval with the untuned model is {points(-gap.points)} points ahead (interval {points(-gap.high)} to "
        f"{points(-gap.low) if gap.low is not None else 'unknown'}): what the documents say is not in the weights.",
        f"Use the tuned student with retrieval: it scores {points(both)}."
        if reads and both is not None
        else "Use retrieval, or make more pairs of each passage (`synth generate` with a higher `--num-records`).",
        {"points": gap.points, "high": gap.high, "tuned_retrieval": both},
    )


def _not_cheaper(case: _Case) -> Iterable[Finding]:
    gap = case.clean.gap("retrieval", case.metric)
    if "retrieval" not in case.failed or gap is None or not clears(gap.low, -case.rule.retrieval_margin):
        return
    yield Finding(
        "not cheaper",
        "clear",
        "Retrieval with the untuned model is as good, and the tuned student costs no less.",
        "Use retrieval: tuning gains nothing here.",
        {"points": gap.points, "low": gap.low},
    )


def _forgetting(case: _Case) -> Iterable[Finding]:
    for held in case.regressions:
        if f"regression:{held.name}" in case.failed and held.gap and held.gap.high is not None and held.gap.high < 0:
            yield Finding(
                "forgetting",
                "clear",
                f"On {held.name} the student lost {points(-held.gap.points)} points of {metric_words(held.metric)}.",
                "Tune again with rows of the old kind mixed in (`--replay FILE`), a lower `--learning-rate` or fewer "
                "`--epochs`.",
                {"points": held.gap.points, "high": held.gap.high},
            )


def _made_up(case: _Case) -> Iterable[Finding]:
    gap, check = case.clean.gap("base", UNSUPPORTED), case.failed.get(UNSUPPORTED)
    if check is not None and ("low" not in check.numbers or (gap is not None and clears(gap.low, 0.0))):
        yield Finding(
            "makes things up",
            "clear",
            f"Answers that no passage supports: {points(gap.points)} points more than the untuned model gives."
            if gap is not None and "low" in check.numbers
            else check.said,
            'Keep better grounded pairs (`synth filter RUN --rule "groundedness >= 0.8"`), add questions without an '
            "answer (`synth generate --generator unanswerable`), and tune again.",
            check.numbers,
        )


def _cut_off(case: _Case) -> Iterable[Finding]:
    row = case.clean.row(STUDENT)
    if case.beaten and row is not None and row.cut_off > CUT_OFF * row.items:
        yield Finding(
            "cut off",
            "likely",
            f"{row.cut_off} of {row.items} answers of the student were cut off at max_tokens.",
            "Validate again with a higher `--max-tokens`; if answers still do not end, tune with longer rows.",
            {"cut_off": row.cut_off, "items": row.items},
        )


def _unmeasured(case: _Case) -> Iterable[Finding]:
    for check in case.failed.values():
        if check.numbers.get("lacking"):
            yield Finding(
                "not measured",
                "clear",
                check.said,
                "Look in validation/<candidate>/answers/ for the lines without its value: mend the metric, or what it "
                "measures by. Validate again: answered calls are kept.",
                check.numbers,
            )
            return


def _unknown(case: _Case) -> Finding:
    name = next(iter(case.failed))
    return Finding(
        "unknown",
        "possible",
        "None of the causes that are looked for shows in the numbers.",
        "Look at single answers with `tune explain RUN ITEM`, first those where the student loses."
        if name.startswith("beats:") or name == "retrieval"
        else "Look at single answers with `tune explain RUN ITEM`.",
    )


def _losses(case: _Case) -> tuple[float | None, float | None]:
    return _number(case.training.get("train_loss")), _number(case.training.get("validation_loss"))


def _history(case: _Case, side: str) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = case.training.get("history", {}).get(side, [])
    return found


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value == value else None


# In the order in which causes of the same certainty are told: what spoils the judgement first, then what was made.
_SEARCHES = (
    _unmeasured,
    _contaminated,
    _too_few,
    _teacher,
    _underfit,
    _overfit,
    _mismatch,
    _not_entered,
    _not_cheaper,
    _forgetting,
    _made_up,
    _cut_off,
)
