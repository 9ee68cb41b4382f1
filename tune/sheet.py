"""The table of a verdict: a row a contender, and the tuned student's difference to each of the others."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tune.contenders import STUDENT
from tune.evidence import Measured
from tune.metrics import mean
from tune.scores import Score

if TYPE_CHECKING:
    from tune.rules import Rule

# The metric of answers that no passage supports: lower is better, alone of all.
UNSUPPORTED = "unsupported"

# The order of the columns; a user's own metrics follow by name.
_ORDER = ("f1", "em", "correct", "rouge_l", "embedding")

# Metrics that are right or wrong: McNemar's test is of these.
_EXACT = frozenset({"em", "correct"})


@dataclass(frozen=True, slots=True)
class Row:
    """A contender's line: `values` are means in points (0 to 100), None where a metric was measured of no answer.

    `unsupported` is the share, in points, of answers that no passage supports, among the `looked_up` ones: refusals
    count as not unsupported, and items without a passage to look in are not looked up. Words and tokens are means an
    answer; tokens are None where the endpoint counted none.
    """

    contender: str
    items: int
    values: Mapping[str, float | None]
    unsupported: float | None
    looked_up: int
    words: float
    cut_off: int
    prompt_tokens: float | None
    completion_tokens: float | None
    measured: Measured

    @property
    def tokens(self) -> float | None:
        """Tokens an answer, prompt and completion together."""
        if self.prompt_tokens is None or self.completion_tokens is None:
            return None
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Discordant:
    """McNemar's exact test: the items that only one of the two has right. It takes items as independent."""

    only_student: int
    only_other: int
    p_value: float


@dataclass(frozen=True, slots=True)
class Gap:
    """The tuned student minus one contender, in points of `metric`, paired by item and clustered by document.

    `items` is how many both have a value for. The bounds, the error and the p-values are None where there are fewer
    than two documents. `p_holm` is corrected for the number of contenders (Holm 1979).
    """

    against: str
    metric: str
    items: int
    points: float
    low: float | None
    high: float | None
    standard_error: float | None
    p_value: float | None
    p_holm: float | None = None
    mcnemar: Discordant | None = None


@dataclass(frozen=True, slots=True)
class Sheet:
    """Rows and differences on the same items, all of them or the clean ones."""

    items: int
    documents: int
    rows: tuple[Row, ...]
    gaps: tuple[Gap, ...]

    def row(self, contender: str) -> Row | None:
        """Return a contender's line, None where it was not asked."""
        return next((row for row in self.rows if row.contender == contender), None)

    def gap(self, against: str, metric: str) -> Gap | None:
        """Return the student's difference to one contender, None where there is none."""
        return next((gap for gap in self.gaps if (gap.against, gap.metric) == (against, metric)), None)


ByContender = Mapping[str, Mapping[str, Score]]


def in_order(metrics: Iterable[str], deciding: str) -> tuple[str, ...]:
    """Return metrics in the order of the columns: the one that decides first."""
    names = {*metrics}
    first = [name for name in dict.fromkeys((deciding, *_ORDER)) if name in names]
    return (*first, *sorted(names - {*first}))


def make_sheet(
    tables: ByContender,
    ids: Sequence[str],
    metrics: Sequence[str],
    rule: "Rule",
    measure: Callable[[str, Sequence[Score]], Measured],
) -> Sheet:
    """Return the table of the given items; an empty one where there is no item."""
    from tune.statistics import holm  # brings numpy, which `tune --help` should not wait for

    if not ids:
        return Sheet(0, 0, (), ())
    held = {name: [scores[key] for key in ids] for name, scores in tables.items()}
    # A refusal alone does not show that there was anything to look in.
    looked = any(score.supported is not None for scores in held.values() for score in scores)
    rows = tuple(_row(name, scores, metrics, measure(name, scores), looked=looked) for name, scores in held.items())
    gaps: list[Gap] = []
    for metric in (*metrics, UNSUPPORTED) if looked else metrics:
        found = [
            gap for name, scores in held.items() if name != STUDENT and (gap := difference(held, name, metric, rule))
        ]
        corrected = holm({gap.against: gap.p_value for gap in found})
        gaps += [_with_holm(gap, corrected[gap.against]) for gap in found]
    order = {name: place for place, name in enumerate(held)}
    gaps.sort(key=lambda gap: order[gap.against])
    return Sheet(len(ids), len({score.document_id for score in held[STUDENT]}), rows, tuple(gaps))


def difference(held: Mapping[str, Sequence[Score]], against: str, metric: str, rule: "Rule") -> Gap | None:
    """Return the student's difference to a contender on the same items, None where no item has both values.

    Rounded here, so that the file alone gives the same decision again.
    """
    from tune.statistics import paired_difference

    pairs = [
        (score.document_id, mine, other)
        for score, theirs in zip(held[STUDENT], held[against], strict=True)
        if (mine := value_of(score, metric)) is not None and (other := value_of(theirs, metric)) is not None
    ]
    if not pairs:
        return None
    found = paired_difference(
        [100 * (mine - other) for _, mine, other in pairs],
        [document for document, _, _ in pairs],
        confidence=rule.confidence,
        resamples=rule.resamples,
        seed=rule.seed,
    )
    return Gap(
        against=against,
        metric=metric,
        items=len(pairs),
        points=round(found.mean, 4),
        low=_rounded(found.low, 4),
        high=_rounded(found.high, 4),
        standard_error=_rounded(found.standard_error, 4),
        p_value=_rounded(found.p_value, 6),
        mcnemar=_discordant(pairs) if metric in _EXACT else None,
    )


def value_of(score: Score, metric: str) -> float | None:
    """Return an answer's value of a metric, None where it was not measured: a value that is no number is none."""
    if metric == UNSUPPORTED:
        if score.refused:
            return 0.0
        return None if score.supported is None else float(not score.supported)
    value = score.values.get(metric)
    return value if value is not None and math.isfinite(value) else None


def _row(name: str, scores: Sequence[Score], metrics: Sequence[str], measured: Measured, *, looked: bool) -> Row:
    counted = any(score.prompt_tokens or score.completion_tokens for score in scores)
    return Row(
        contender=name,
        items=len(scores),
        values={metric: mean_points(scores, metric) for metric in metrics},
        unsupported=mean_points(scores, UNSUPPORTED) if looked else None,
        looked_up=sum(value_of(score, UNSUPPORTED) is not None for score in scores) if looked else 0,
        words=round(mean(score.words for score in scores), 4),
        cut_off=sum(score.cut_off for score in scores),
        prompt_tokens=round(mean(score.prompt_tokens for score in scores), 4) if counted else None,
        completion_tokens=round(mean(score.completion_tokens for score in scores), 4) if counted else None,
        measured=measured,
    )


def mean_points(scores: Sequence[Score], metric: str) -> float | None:
    """Return the mean of a metric in points over the answers that have it, None where none has."""
    held = [value for score in scores if (value := value_of(score, metric)) is not None]
    return round(100 * mean(held), 4) if held else None


def _discordant(pairs: Sequence[tuple[str, float, float]]) -> Discordant | None:
    from tune.statistics import mcnemar

    if any(value not in (0.0, 1.0) for _, *values in pairs for value in values):
        return None
    found = mcnemar([mine for _, mine, _ in pairs], [other for _, _, other in pairs])
    return Discordant(found.only_first, found.only_second, round(found.p_value, 6))


def _with_holm(gap: Gap, p_holm: float | None) -> Gap:
    return replace(gap, p_holm=_rounded(p_holm, 6))


def _rounded(value: float | None, digits: int) -> float | None:
    """Return a rounded number, None for what is none."""
    return round(value, digits) if value is not None and math.isfinite(value) else None
