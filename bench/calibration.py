"""`python bench/calibration.py PATH… [--keep 0.95] [--seed 0]`: how well scores that need no model see broken pairs.

Takes human files (SQuAD JSON, JSONL, CSV; "demo" is the bundled held-out set with its handbook pages as passages),
calibrates on each alone, and prints Markdown: the AUC of each score on each corruption with its 95 % interval, of the
combined score on the documents that it was not fitted to, and what the rules keep and reject. Of several files, the
rules of each are then held against the pairs of the others.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from synth.calibrate import Calibration, calibrate
from synth.calibration.combine import combined_column
from synth.calibration.corruptions import CORRUPTIONS
from synth.calibration.roc import auc
from synth.calibration.thresholds import Bounds, Chooser
from synth.core.jsonl import read_lines, write_jsonl
from synth.core.resources import resource_folder
from synth.filters.rules_file import COMBINED, Cell

# Scores in this order; others that were measured follow.
ORDER = (COMBINED, "alignment", "rouge_l", "groundedness", "coverage", "facts", "polarity", "negation")
ORDER += ("nearness", "same_sentence", "relevance", "answer_type", "form")


def table(found: Calibration, form: str) -> str:
    """Return the AUCs of one form as a Markdown table, a row a corruption."""
    cells = {(c.corruption, c.score): c for c in found.file.table if c.form == form}
    measured = list(dict.fromkeys(score for _, score in cells))
    scores = [s for s in ORDER if s in measured]
    rows = [f"| corruption | pairs | {' | '.join(scores)} |", f"| --- | ---: |{' ---: |' * len(scores)}"]
    for corruption in dict.fromkeys(name for name, _ in cells):
        count = max(cell.spoiled for (name, _), cell in cells.items() if name == corruption)
        shown = [cells.get((corruption, score)) for score in scores]
        rows.append(f"| {corruption} | {count} | {' | '.join(map(cell_text, shown))} |")
    return "\n".join(rows)


def cell_text(cell: Cell | None) -> str:
    """Return an AUC, of the combined score with its interval."""
    if cell is None:
        return "-"
    if cell.score != COMBINED or cell.low is None or cell.high is None:
        return f"{cell.auc:.3f}"
    return f"**{cell.auc:.3f}** ({cell.low:.3f}–{cell.high:.3f})"


def demo_file(folder: Path) -> Path:
    """Write the bundled held-out set with each question's page as its passage."""
    demo = resource_folder("demo")
    rows = [row for _, row in read_lines(demo / "heldout.jsonl")]
    path = folder / "demo.jsonl"
    write_jsonl(path, ({**r, "context": (demo / "handbook" / r["document_id"]).read_text()} for r in rows))
    return path


def transfer(name: str, own: Calibration, other_name: str, other: Calibration) -> str:
    """Return a table row: what the rules of one file do to the pairs of another."""
    if own.file.combined is None:
        return f"| {name} | {other_name} | - | - | - |"
    columns = other.columns.with_score(COMBINED, combined_column(other.columns, own.file.combined))
    everything = columns.labels == columns.labels
    visible = [c.name for c in CORRUPTIONS.values() if c.visible and c.name in columns.labels]
    rows = [columns.rows(corruption, "passage", everything) for corruption in visible]
    spoiled, human = np.concatenate([r for r, _ in rows]), np.unique(np.concatenate([r for _, r in rows]))
    chooser = Chooser(columns, visible, ("passage",), everything)
    bounds = Bounds({rule.score: rule.bound for rule in own.file.rules}, 0.0)
    rejected = chooser.rejected(bounds)
    mean = sum(rejected.values()) / len(rejected)
    value = auc(columns.scores[COMBINED][human], columns.scores[COMBINED][spoiled])
    return f"| {name} | {other_name} | {value:.3f} | {chooser.kept(bounds):.3f} | {mean:.3f} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the report of each file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("human", type=Path, nargs="+", help='files, or "demo"')
    parser.add_argument("--keep", type=float, default=0.95)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    all_found: dict[str, Calibration] = {}
    for path in options.human:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            real = demo_file(Path(folder)) if str(path) == "demo" else path
            found = all_found[path.name] = calibrate(real, keep=options.keep, seed=options.seed)
        file = found.file
        print(f"### {path.name}\n")
        print(
            f"{file.human[0].pairs} pairs, {file.human[0].documents} documents, {time.monotonic() - started:.0f} s.\n"
        )
        for form in file.forms:
            print(
                f"Evidence: {'none' if form == 'passage' else 'the sentence of the answer'}\n\n{table(found, form)}\n"
            )
        check = "-" if file.kept.check is None else f"{file.kept.check:.3f}"
        print(f"Rules: {', '.join(f'`{rule}`' for rule in file.rules) or 'none'}\n")
        print(
            f"Kept: {file.kept.search:.3f} where chosen, {check} on the check, {file.kept.all:.3f} of all in the end\n"
        )
        print("Rejected on the check: " + ", ".join(f"{n} {s:.2f}" for n, s in file.rejected.items()) + "\n")
        print(f"Mean AUC on the check: combined {found.combined_auc}, {found.best_single} {found.best_single_auc}\n")
        print("".join(f"- {refusal}\n" for refusal in file.refused))
    if len(all_found) > 1:
        print("### The rules of one file on the pairs of another\n")
        print("| rules of | pairs of | combined, AUC on the visible | human kept | visible rejected (mean) |")
        print("| --- | --- | ---: | ---: | ---: |")
        for (name, own), (other_name, other) in itertools.permutations(all_found.items(), 2):
            print(transfer(name, own, other_name, other))


if __name__ == "__main__":
    main()
