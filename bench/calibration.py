"""`python bench/calibration.py PATH… [--keep 0.95] [--seed 0]`: how well scores that need no model see broken pairs.

Takes human files (SQuAD JSON, JSONL, CSV), calibrates on each alone, and prints Markdown: the AUC of each score on
each corruption with its 95 % interval, of the combined score on the documents that it was not fitted to, and what the
rules keep and reject.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from synth.calibrate import Calibration, calibrate
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the report of each file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("human", type=Path, nargs="+")
    parser.add_argument("--keep", type=float, default=0.95)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    for path in options.human:
        started = time.monotonic()
        found = calibrate(path, keep=options.keep, seed=options.seed)
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


if __name__ == "__main__":
    main()
