"""A curve as people look at it: a table, a plot of characters, and a picture where matplotlib is installed."""

import importlib
import importlib.util
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from synth.core.jsonl import atomic_writer

if TYPE_CHECKING:
    from tune.curve import Curve

_WIDTH, _HEIGHT = 60, 13
_BEYOND = 2.0  # The law is drawn to so many times the largest size.


def curve_table(curve: "Curve") -> Table:
    """Return the sizes as a table."""
    name = curve.metric.replace("_", "-").upper() if len(curve.metric) <= 2 else curve.metric
    table = Table(box=None, pad_edge=False, title=f"Score by size of the dataset, {curve.questions} questions")
    table.title_justify = "left"
    for heading in ("share", "records", "documents", "questions about them", "steps", name, "interval"):
        table.add_column(heading, justify="right")
    table.add_column("student")
    for size in curve.sizes:
        between = "" if size.low is None or size.high is None else f"{size.low:.1f} to {size.high:.1f}"
        table.add_row(
            f"{size.share:.0%}".replace("%", " %"),
            f"{size.records:,}",
            f"{size.documents:,}",
            f"{size.seen:,}",
            f"{size.steps:,}",
            f"{size.score:.1f}",
            between,
            size.student,
        )
    return table


def text_plot(curve: "Curve") -> str:
    """Return the curve in characters: o a score, | its interval, . the law; the records on a logarithmic scale."""
    furthest = curve.sizes[-1].records * (_BEYOND if curve.forecast else 1)
    first = curve.sizes[0].records
    spread = math.log(furthest / first) or 1.0
    law = {}
    if curve.forecast is not None:
        law = {x: curve.forecast.law.at(first * math.exp(spread * x / (_WIDTH - 1))) for x in range(_WIDTH)}
    ends = [end for size in curve.sizes for end in (size.low, size.high, size.score) if end is not None]
    bottom, top = min([*ends, *law.values()]), max([*ends, *law.values()])
    height = top - bottom or 1.0

    def across(records: float) -> int:
        return round(math.log(records / first) / spread * (_WIDTH - 1))

    def up(score: float) -> int:
        return round((score - bottom) / height * (_HEIGHT - 1))

    cells = {(x, up(score)): "." for x, score in law.items()}
    for size in curve.sizes:
        x = across(size.records)
        if size.low is not None and size.high is not None:
            cells |= {(x, y): "|" for y in range(up(size.low), up(size.high) + 1)}
        cells[x, up(size.score)] = "o"
    lines = []
    for y in reversed(range(_HEIGHT)):
        label = f"{bottom + height * y / (_HEIGHT - 1):6.1f}" if y % 3 == 0 else " " * 6
        lines.append(f"{label} |{''.join(cells.get((x, y), ' ') for x in range(_WIDTH))}".rstrip())
    lines.append(" " * 7 + "+" + "-" * _WIDTH)
    marks = [" "] * (_WIDTH + 16)
    free = 0
    for records in [*(size.records for size in curve.sizes), *([round(furthest)] if curve.forecast else [])]:
        text = f"{records:,}"
        start = max(0, across(records) - len(text) // 2)
        if start >= free:
            marks[start : start + len(text)] = text
            free = start + len(text) + 1
    lines.append(" " * 8 + "".join(marks).rstrip() + "  records")
    return "\n".join(lines)


def draw(curve: "Curve", path: Path) -> bool:
    """Draw the curve as a PNG, whole or not at all; return whether matplotlib is there to do it.

    Equal curves give equal bytes.

    Raises:
        RunError: the file cannot be written.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return False
    figures = importlib.import_module("matplotlib.figure")
    figure = figures.Figure(figsize=(6.4, 4.2), layout="constrained")
    panel = figure.subplots()
    records, scores = [size.records for size in curve.sizes], [size.score for size in curve.sizes]
    bounded = [size for size in curve.sizes if size.low is not None and size.high is not None]
    for size in bounded:
        panel.plot([size.records] * 2, [size.low, size.high], color="#0072B2", linewidth=1.4)
    panel.plot(records, scores, "o", color="#0072B2", label="students, with their intervals")
    if curve.forecast is not None:
        steps = [records[0] * (records[-1] * _BEYOND / records[0]) ** (k / 100) for k in range(101)]
        panel.plot(
            steps, [curve.forecast.law.at(n) for n in steps], "--", color="#D55E00", label="power law", linewidth=1.2
        )
    panel.set_xscale("log")
    panel.set_xticks(records, [f"{n:,}" for n in records])
    panel.minorticks_off()
    panel.set_xlabel("records (documents are taken whole)")
    panel.set_ylabel(f"{curve.metric}, points")
    panel.set_title(f"{curve.subject['student']} on {curve.questions} questions", fontsize=11)
    panel.legend(frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120, metadata={"Software": None})
    with atomic_writer(path) as file:
        file.write(picture.getvalue())
    return True
