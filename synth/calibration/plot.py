"""The ROC curves of a calibration as a picture: one panel a corruption."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from synth.calibration.extras import need
from synth.calibration.roc import curve
from synth.core.errors import ConfigError
from synth.core.jsonl import atomic_writer
from synth.filters.rules_file import COMBINED

if TYPE_CHECKING:
    from synth.calibration.result import Calibration

SUFFIXES = (".png", ".svg")
# Okabe and Ito's colours, which colour-blind readers tell apart; line styles tell them apart in grey as well.
_COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_STYLES = ("-", "--", "-.", ":", (0, (6, 1.5)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 1)))
_MOST_CURVES = len(_COLOURS)
_COLUMNS = 4


def check_plot(path: Path) -> None:
    """Raise a ConfigError where a plot cannot be written to `path`: an unknown suffix, or no matplotlib."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path.suffix or 'no suffix'} is no picture", where=str(path), fix="name a .png or a .svg")
    need("matplotlib", "the plot")


def plot_curves(calibration: "Calibration", path: Path, form: str | None = None) -> None:
    """Draw the ROC curves on the documents of the check, PNG or SVG by the suffix of `path`; whole or not at all.

    Shown are the combined score and those single ones that are best on a corruption, seven in all at most. A record
    without a score passes, as it does in a rule. Equal calibrations give equal bytes.

    Raises:
        ConfigError: matplotlib is not installed, or the suffix is unknown.
        RunError: the file cannot be written.
    """
    check_plot(path)
    matplotlib = need("matplotlib", "the plot")
    figures = need("matplotlib.figure", "the plot")
    shown = form or calibration.file.forms[0]
    columns, rows = calibration.columns, calibration.check_rows
    names = [c for c in dict.fromkeys(cell.corruption for cell in calibration.file.table) if c in columns.labels]
    scores = shown_scores(calibration, names, shown)
    grid_rows = -(-(len(names) + 1) // _COLUMNS)
    wide = min(_COLUMNS, len(names) + 1)
    # "svg.hashsalt" makes the ids of an SVG the same each time.
    with matplotlib.rc_context({"svg.hashsalt": "rules", "font.size": 10, "axes.spines.top": False}):
        figure = figures.Figure(figsize=(3.1 * wide, 3.25 * grid_rows + 0.5), layout="constrained")
        panels = figure.subplots(grid_rows, wide, squeeze=False).ravel()
        for panel, name in zip(panels, names, strict=False):
            spoiled, human = columns.rows(name, shown, rows)
            panel.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=0.8)
            for number, score in enumerate(scores):
                column = np.where(np.isfinite(columns.scores[score]), columns.scores[score], np.inf)
                if len(spoiled) and len(human):
                    passed, kept = curve(column[human], column[spoiled])
                    panel.plot(passed, kept, color=_COLOURS[number], linestyle=_STYLES[number], linewidth=1.6)
            panel.axhline(calibration.file.kept.asked, color="#BBBBBB", linewidth=0.8, linestyle=":")
            panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
            panel.spines["right"].set_visible(False)
            panel.set_title(f"{name.replace('_', ' ')} ({len(spoiled)})", fontsize=10)
            panel.set_xlabel("spoiled pairs that pass", fontsize=9)
            panel.set_ylabel("human pairs kept", fontsize=9)
        for panel in panels[len(names) :]:
            panel.axis("off")
        lines = [
            panels[0].plot([], [], color=_COLOURS[i], linestyle=_STYLES[i], linewidth=1.6, label=score)[0]
            for i, score in enumerate(scores)
        ]
        keep = panels[0].plot([], [], color="#999999", linestyle=":", label=f"{calibration.file.kept.asked:.0%} kept")[
            0
        ]
        panels[len(names)].legend(
            handles=[*lines, keep], loc="center left", frameon=False, fontsize=11, handlelength=3.4
        )
        sources = " and ".join(source.name for source in calibration.file.human)
        figure.suptitle(f"Human pairs of {sources} against their corruptions", fontsize=12)
        picture = io.BytesIO()
        suffix = path.suffix.lower().lstrip(".")
        metadata = {"Date": None} if suffix == "svg" else {"Software": None}
        figure.savefig(picture, format=suffix, dpi=120, metadata=metadata)
    with atomic_writer(path) as file:
        file.write(picture.getvalue())


def shown_scores(calibration: "Calibration", names: list[str], form: str) -> list[str]:
    """Return the scores to draw: the combined one, then the best on some corruption, the most useful first."""
    best: dict[str, float] = {}
    for name in names:
        single = [cell for cell in calibration.cells(name, form) if cell.score != COMBINED]
        if single and single[0].auc > 0.5:
            best[single[0].score] = max(best.get(single[0].score, 0.0), single[0].auc)
    ranked = sorted(best, key=lambda score: (-best[score], score))
    combined = [COMBINED] if COMBINED in calibration.columns.scores else []
    return [*combined, *ranked][:_MOST_CURVES]
