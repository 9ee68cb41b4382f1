"""The verdict's tables for a terminal."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tune.contenders import STUDENT
from tune.phrases import counted, percent, points
from tune.sheet import Gap, Row, Sheet
from tune.verdict import Verdict
from tune.wording import bounds, metric_words, notes

# The figures of label sets that have a column of their own; accuracy is the metric `correct`.
_LABELS = {"macro_f1": "macro F1", "qwk": "kappa", "roc_auc": "ROC AUC"}

_SIGNS = {True: ("passed", "green"), False: ("failed", "bold red"), None: ("not looked at", "yellow")}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table: what stands above it, and in each row."""

    heading: str
    cell: Callable[[Row], str]


_CONTENDER = Column("contender", lambda row: row.contender)


def table(verdict: Verdict) -> RenderableType:
    """Return how well each contender did on the items that decide, and what its answers take.

    Where some items do not decide, a table of all items stands first.
    """
    parts = [_table(quality(verdict, verdict.clean), verdict.clean)]
    if verdict.all.items != verdict.clean.items:
        every = _table(quality(verdict, verdict.all), verdict.all)
        every.title = f"all {counted(verdict.all.items, 'item')}"
        parts[0].title = f"{counted(verdict.clean.items, 'clean item')}, which decide"
        parts.insert(0, every)
    costs = _table(effort(verdict.clean), verdict.clean)
    costs.caption = caption(verdict.clean) or None
    return Group(*(line for part in parts for line in (part, Text())), costs)


def report(verdict: Verdict) -> RenderableType:
    """Return the whole verdict for a terminal: tables, words, checks, causes, and what to do next."""
    parts: list[RenderableType] = [table(verdict), Text(), Text(verdict.text), Text(), _checks(verdict)]
    if verdict.findings:
        parts += [Text(), Text("Why, the surest first:")]
        parts += [Text(f"- {held.cause} ({held.certainty}). {held.said}") for held in verdict.findings]
    said = notes(verdict)
    if said:
        parts += [Text(), *map(Text, said)]
    return Group(*parts, Text(), Text(f"Next: {verdict.next}", style="bold"))


def _checks(verdict: Verdict) -> Table:
    shown = Table(box=None, pad_edge=False, show_header=False)
    for check in verdict.checks:
        sign, style = _SIGNS[check.passed]
        shown.add_row(Text(sign, style=style), Text(check.name), Text(check.said))
    return shown


def quality(verdict: Verdict, sheet: Sheet) -> list[Column]:
    """Return the columns of how well contenders did, those that have something to show, the contender first.

    The difference is in the deciding metric, and the p-value after it is corrected for the number of contenders.
    """

    def gap(row: Row) -> Gap | None:
        return None if row.contender == STUDENT else sheet.gap(row.contender, verdict.metric)

    def p_value(row: Row) -> str:
        found = gap(row)
        return "" if found is None or found.p_holm is None else f"{found.p_holm:.4f}"

    def far(row: Row) -> str:
        found = gap(row)
        return "" if found is None else f"{points(found.points)} {bounds(found)}"

    def refused(row: Row, kind: str) -> str:
        held = row.measured.refusals
        share = None if held is None else held.recall if kind == "rightly" else held.false_rate
        return "" if share is None else f"{100 * share:.0f} %"

    def refuses(row: Row) -> bool:
        held = row.measured.refusals
        return held is not None and (held.recall is not None or bool(held.false_rate))

    # Of a set on which nobody refuses, and where every item has an answer, a column of noughts says nothing.
    refusing = any(map(refuses, sheet.rows))
    optional = [
        *(Column(shown, _value(name)) for name, shown in verdict.metrics.items()),
        *(Column(shown, _label(name)) for name, shown in _LABELS.items()),
        Column("unsupported", lambda row: "" if row.unsupported is None else f"{points(row.unsupported)} %"),
        Column("refused\nrightly", lambda row: refused(row, "rightly") if refusing else ""),
        Column("refused\nwrongly", lambda row: refused(row, "wrongly") if refusing else ""),
    ]
    words = metric_words(verdict.metric, verdict.metrics)
    return [
        _CONTENDER,
        *_filled(optional, sheet),
        Column(f"tuned minus it,\n{words} ({percent(verdict.rule.confidence)} interval)", far),
        Column("p", p_value),
    ]


def effort(sheet: Sheet) -> list[Column]:
    """Return the columns of what answers take: length, tokens, time and money; those that have something to show."""
    optional = [
        Column("words", lambda row: f"{row.words:.1f}"),
        Column("cut off", lambda row: str(row.cut_off or "")),
        Column("tokens in", lambda row: _whole(row.prompt_tokens)),
        Column("out", lambda row: _whole(row.completion_tokens)),
        Column("p50", lambda row: f"{row.measured.latency.p50:.2f} s" if row.measured.latency else ""),
        Column("p95", lambda row: f"{row.measured.latency.p95:.2f} s" if row.measured.latency else ""),
        Column("cost of 1,000", lambda row: _price(row.measured.cost_per_thousand)),
    ]
    return [_CONTENDER, *_filled(optional, sheet)]


def _filled(columns: Iterable[Column], sheet: Sheet) -> list[Column]:
    return [column for column in columns if any(column.cell(row) for row in sheet.rows)]


def caption(sheet: Sheet) -> str:
    """Return at which load latencies were measured, "" where they were not."""
    loads = sorted({row.measured.latency.in_flight for row in sheet.rows if row.measured.latency})
    return f"latency with {' or '.join(map(str, loads))} calls in flight" if loads else ""


def _table(columns: Sequence[Column], sheet: Sheet) -> Table:
    shown = Table(box=None, pad_edge=False, title_justify="left", caption_justify="left")
    for column in columns:
        left = column is _CONTENDER
        shown.add_column(Text(column.heading), justify="left" if left else "right", no_wrap=True, overflow="fold")
    for row in sheet.rows:
        shown.add_row(*(Text(column.cell(row)) for column in columns))
    return shown


def _value(metric: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        value = row.values.get(metric)
        return "" if value is None else points(value)

    return cell


def _label(name: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        value = row.measured.labels.get(name)
        return "" if value is None else f"{value:.2f}"

    return cell


def _whole(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _price(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
