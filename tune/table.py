"""The verdict's tables for a terminal."""

from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tune.contenders import STUDENT
from tune.sheet import Gap, Row, Sheet
from tune.verdict import Verdict
from tune.wording import bounds, counted, metric_words, notes, percent, points

# The figures of label sets that have a column of their own; accuracy is the metric `correct`.
_LABELS = {"macro_f1": "macro F1", "qwk": "kappa", "roc_auc": "ROC AUC"}

_SIGNS = {True: ("passed", "green"), False: ("failed", "bold red"), None: ("not looked at", "yellow")}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table: what stands above it, and in each row."""

    heading: str
    cell: Callable[[Row], str]


def table(verdict: Verdict) -> RenderableType:
    """Return the table of the items that decide, and before it that of all items where they are others."""
    clean = _table(verdict, verdict.clean)
    if verdict.all.items == verdict.clean.items:
        return clean
    every = _table(verdict, verdict.all)
    every.title = f"all {counted(verdict.all.items, 'item')}"
    clean.title = f"{counted(verdict.clean.items, 'clean item')}, which decide"
    return Group(every, clean)


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


def columns(verdict: Verdict, sheet: Sheet) -> list[Column]:
    """Return the columns that have something to show on a sheet, the contender first.

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

    words = metric_words(verdict.metric, verdict.metrics)
    optional = [
        *(Column(shown, _value(name)) for name, shown in verdict.metrics.items()),
        *(Column(shown, _label(name)) for name, shown in _LABELS.items()),
        Column("unsupported", lambda row: _percent(row.unsupported)),
        Column("refuses rightly", lambda row: _share(row.measured.refusals.recall if row.measured.refusals else None)),
        Column("wrongly", lambda row: _share(row.measured.refusals.false_rate if row.measured.refusals else None)),
        Column("tokens in", lambda row: _whole(row.prompt_tokens)),
        Column("out", lambda row: _whole(row.completion_tokens)),
        Column("p50 s", lambda row: f"{row.measured.latency.p50:.2f}" if row.measured.latency else ""),
        Column("p95 s", lambda row: f"{row.measured.latency.p95:.2f}" if row.measured.latency else ""),
        Column("cost/1000", lambda row: _price(row.measured.cost_per_thousand)),
        Column("words", lambda row: f"{row.words:.1f}"),
        Column("cut off", lambda row: str(row.cut_off or "")),
    ]
    return [
        Column("contender", lambda row: row.contender),
        *(column for column in optional if any(column.cell(row) for row in sheet.rows)),
        Column(f"tuned minus it, {words} ({percent(verdict.rule.confidence)} interval)", far),
        Column("p", p_value),
    ]


def caption(sheet: Sheet) -> str:
    """Return at which load latencies were measured, "" where they were not."""
    loads = sorted({row.measured.latency.in_flight for row in sheet.rows if row.measured.latency})
    return f"latency with {' or '.join(map(str, loads))} calls in flight" if loads else ""


def _table(verdict: Verdict, sheet: Sheet) -> Table:
    held = columns(verdict, sheet)
    shown = Table(box=None, pad_edge=False, title_justify="left", caption_justify="left")
    for column in held:
        shown.add_column(Text(column.heading), justify="left" if column is held[0] else "right")
    for row in sheet.rows:
        shown.add_row(*(Text(column.cell(row)) for column in held))
    shown.caption = caption(sheet) or None
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


def _percent(value: float | None) -> str:
    return "" if value is None else f"{points(value)} %"


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def _whole(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _price(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
