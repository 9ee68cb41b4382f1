"""Thresholds from human pairs: which score tells them from broken ones, and where to draw the line.

Half of the documents (drawn by seed) are for choosing: the weights of the combined score, the rules and their bounds.
The other half checks what was chosen: whether the combined score beats the best single one, and what share of human
pairs the rules keep. No model is called; the scores of one (a judge's) may be given, and are held to the same measure.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from synth.calibration.columns import Columns, Extra, make_columns
from synth.calibration.combine import combine, combined_column
from synth.calibration.corruptions import CORRUPTIONS, Corruption
from synth.calibration.humans import Humans, load_humans
from synth.calibration.result import Calibration
from synth.calibration.roc import Auc, auc, clustered_auc
from synth.calibration.samples import FORMS, HUMAN, Form, Samples, make_samples
from synth.calibration.scorers import BUILT_IN
from synth.calibration.thresholds import Bounds, Chooser
from synth.core.errors import ConfigError, did_you_mean
from synth.filtering.config import FILTER_VERSION
from synth.filters.base import Rule, Scorer
from synth.filters.rules_file import COMBINED, Cell, HumanSource, Kept, Refusal, RulesFile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

VISIBLE, ALL = "visible", "all"
"""Rows of the table over several corruptions: those that a reader sees by comparing, and all of them."""

# Folds of the search half, by document, from which the combined score's bound is drawn.
_FOLDS = 5

# An AUC this near to a half says nothing either way, however narrow its interval is.
TOLERANCE = 0.02
"""How far below 0.5 an AUC has to be, its whole interval being below, for a score to be refused."""


def find_corruptions(names: Sequence[str]) -> tuple[Corruption, ...]:
    """Return the corruptions of these names; all of them for none.

    Raises:
        ConfigError: there is none of a name.
    """
    for name in names:
        if name not in CORRUPTIONS:
            raise ConfigError(f"no corruption is called {name!r}", fix=did_you_mean(name, CORRUPTIONS))
    return tuple(c for c in CORRUPTIONS.values() if not names or c.name in names)


def calibrate(
    human: Path | Sequence[Path] | Humans,
    *,
    scorers: Sequence[Scorer] | None = None,
    corruptions: Sequence[str] = (),
    forms: Sequence[Form] = FORMS,
    keep: float = 0.95,
    seed: int = 0,
    resamples: int = 1000,
    extra: Extra | None = None,
    samples: Samples | None = None,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Calibration:
    """Measure scores on human pairs and their corruptions, and choose rules that keep the share `keep` of the humans.

    Equal input gives an equal result.

    Args:
        human: files of human pairs with their passages, or what `load_humans` made of them.
        scorers: what to measure; none takes all of this package that need no model.
        corruptions: names of `CORRUPTIONS`; none takes all.
        forms: how the records name their evidence: not at all ("passage"), or by the sentence of the answer.
        keep: the share of human pairs that the rules together have to keep, above 0 and up to 1.
        seed: of the corruptions, of the halves and of the intervals.
        resamples: draws of the bootstrap.
        extra: more scores by record id, as of a judge on `samples`; a record without one counts as not measured.
        samples: what `make_samples` made of the same files, where `extra` was measured on it.
        watch: told how many records have been scored, of how many.

    Raises:
        ConfigError: a name is unknown, `keep` is out of range, or a score is no number.
        RecordError: the human file is wrong.
    """
    if not 0 < keep <= 1:
        raise ConfigError(f"{keep:g} is no share to keep", where="keep", fix="give a number above 0 and up to 1")
    chosen = find_corruptions(corruptions)
    humans = human if isinstance(human, Humans) else load_humans(human)
    made = samples or make_samples(humans, corruptions=chosen, forms=forms, seed=seed)
    rows = tuple(s for s in made.samples if s.label == HUMAN or s.label in {c.name for c in chosen})
    used = BUILT_IN.values() if scorers is None else scorers
    columns = make_columns(rows, used, extra or {}, lambda done: watch(done, len(rows)))
    return _Measure(humans, columns, chosen, tuple(forms), keep, seed, resamples).calibration(made.skipped)


@dataclass(frozen=True)
class _Measure:
    """One calibration's settings and scores, and the steps over them."""

    humans: Humans
    columns: Columns
    corruptions: tuple[Corruption, ...]
    forms: tuple[Form, ...]
    keep: float
    seed: int
    resamples: int

    def calibration(self, skipped: Mapping[str, int]) -> Calibration:
        names = [c.name for c in self.corruptions if (self.columns.labels == c.name).any()]
        if not names:
            raise ConfigError("no corruption could spoil a single pair", where=self.humans.where, fix="give more pairs")
        search, check = self._halves()
        everything = search | check
        chance = Chooser(self.columns, names, self.forms, everything)
        table = [cell for score in self.columns.scores for cell in self._cells(score, names, chance, everything)]
        refused = _refusals(table)
        usable = [s for s in self.columns.scores if s not in {r.score for r in refused}]
        honest = check if check.any() else search
        ranked = sorted(usable, key=lambda s: (-self._mean_auc(self.columns, s, names, search), s))
        best = ranked[0] if ranked else ""
        best_auc = self._mean_auc(self.columns, best, names, honest) if best else 0.5
        columns = choosing = self.columns
        combined, combined_auc = None, None
        # Without documents to check with, nobody could say whether a combined score is better.
        fitted = combine(self.columns, usable, names, search) if check.any() else None
        if fitted is not None:
            columns = self.columns.with_score(COMBINED, combined_column(self.columns, fitted))
            combined_auc = self._mean_auc(columns, COMBINED, names, honest)
            table += replace(self, columns=columns)._cells(
                COMBINED, names, Chooser(columns, names, self.forms, check), check
            )
            if combined_auc > best_auc:
                combined = fitted
                choosing = self._folded(columns, fitted.names, names, search)
        rules, kept, rejected = self._rules(
            Chooser(choosing, names, self.forms, search),
            columns,
            [*usable, *([COMBINED] if combined else [])],
            names,
            search,
            check,
        )
        if COMBINED not in {rule.score for rule in rules}:
            combined = None
        return Calibration(
            RulesFile(
                rules=rules,
                combined=combined,
                human=tuple(
                    HumanSource(
                        file.path.name,
                        file.sha256,
                        len(file.pairs),
                        len({pair.document_id for pair in file.pairs}),
                        len(file.unanswerable),
                        file.without_passage,
                    )
                    for file in self.humans.files
                ),
                kept=kept,
                rejected=rejected,
                table=tuple(table),
                refused=refused,
                filter_version=FILTER_VERSION,
                seed=self.seed,
                forms=self.forms,
            ),
            columns,
            honest,
            skipped,
            best,
            round(best_auc, 4),
            None if combined_auc is None else round(combined_auc, 4),
        )

    def _halves(self) -> tuple["Mask", "Mask"]:
        """Return the rows to choose on and the rows to check with, by whole documents."""
        documents = sorted(set(map(str, self.columns.documents)))
        Random(self.seed).shuffle(documents)
        search = np.isin(self.columns.documents, documents[: (len(documents) + 1) // 2])
        return search, ~search

    def _folded(self, columns: Columns, used: Sequence[str], names: Sequence[str], search: "Mask") -> Columns:
        """Return the columns with the combined score of each fold of the search half as the rest of that half has it.

        A bound drawn among the very pairs that the weights were fitted to would lie too high for any others.
        """
        column = columns.scores[COMBINED].copy()
        documents = sorted(set(map(str, columns.documents[search])))
        Random(self.seed).shuffle(documents)
        for fold in range(min(_FOLDS, len(documents))):
            held = search & np.isin(columns.documents, documents[fold::_FOLDS])
            fitted = combine(columns, used, names, search & ~held)
            if fitted is not None:
                column[held] = combined_column(columns, fitted)[held]
        return columns.with_score(COMBINED, column)

    def _rules(
        self,
        choosing: Chooser,
        columns: Columns,
        scores: Sequence[str],
        names: Sequence[str],
        search: "Mask",
        check: "Mask",
    ) -> tuple[tuple[Rule, ...], Kept, dict[str, float]]:
        """Choose on the one half, look at the other, and loosen the bounds until enough of all the pairs is kept."""
        checking, over_all = (Chooser(columns, names, self.forms, rows) for rows in (check, search | check))
        chosen = choosing.choose(scores, self.keep)
        found = choosing.joint(chosen, self.keep)

        def holds(bounds: Bounds) -> bool:
            return (over_all.kept(bounds) or 0.0) >= self.keep

        final = found if holds(found) else choosing.joint(chosen, self.keep, holds)
        kept = Kept(
            self.keep,
            round(choosing.kept(found) or 0.0, 4),
            None if (share := checking.kept(found)) is None else round(share, 4),
            round(over_all.kept(final) or 0.0, 4),
        )
        judged = checking if check.any() else choosing
        rejected = {name: round(share, 4) for name, share in judged.rejected(final).items()}
        return tuple(Rule(score, ">=", bound) for score, bound in final.values.items()), kept, rejected

    def _cells(self, score: str, names: Sequence[str], chooser: Chooser, among: "Mask") -> list[Cell]:
        """Measure one score on each corruption and each form, alone and over several corruptions."""
        threshold = chooser.bound(score, 1 - self.keep)
        visible = [c.name for c in self.corruptions if c.visible and c.name in names]
        groups = [(name, [name]) for name in names]
        groups += [(label, group) for label, group in ((VISIBLE, visible), (ALL, list(names))) if len(group) > 1]
        found = []
        for form in self.forms:
            for label, group in groups:
                cell = self._cell(score, label, group, form, threshold, among)
                if cell is not None:
                    found.append(cell)
        return found

    def _cell(
        self, score: str, label: str, group: Sequence[str], form: Form, threshold: float | None, among: "Mask"
    ) -> Cell | None:
        columns, column = self.columns, self.columns.scores[score]
        parts = [columns.rows(name, form, among) for name in group]
        spoiled = np.concatenate([rows for rows, _ in parts])
        human = np.unique(np.concatenate([rows for _, rows in parts]))
        both = np.concatenate([spoiled, human])
        if not len(spoiled) or not len(human):
            return None
        applies = float(np.isfinite(column[both]).mean())
        low, high = (rows[np.isfinite(column[rows])] for rows in (spoiled, human))
        if not len(low) or not len(high):
            return None
        found = clustered_auc(
            column[high],
            column[low],
            list(columns.documents[high]),
            list(columns.documents[low]),
            resamples=self.resamples,
            seed=self.seed,
        )
        recall = precision = None
        if threshold is not None:
            recall = float((column[spoiled] < threshold).mean())
            lost = float((column[human] < threshold).mean())
            precision = recall / (recall + lost) if recall + lost else None
        return Cell(
            score,
            label,
            form,
            round(found.value, 4),
            _rounded(found.low),
            _rounded(found.high),
            round(applies, 4),
            len(high),
            len(low),
            threshold,
            _rounded(recall),
            _rounded(precision),
        )

    def _mean_auc(self, columns: Columns, score: str, names: Sequence[str], among: "Mask") -> float:
        """Return the mean AUC over corruptions and forms; a record without the score passes, as it does in a rule."""
        column = np.where(np.isfinite(columns.scores[score]), columns.scores[score], np.inf)
        found = []
        for name in names:
            for form in self.forms:
                spoiled, human = columns.rows(name, form, among)
                if len(spoiled) and len(human):
                    found.append(auc(column[human], column[spoiled]))
        return sum(found) / len(found) if found else 0.5


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def worse_than_chance(found: Auc) -> bool:
    """Whether a score ranks spoiled pairs above human ones: its interval ends below 0.5, and not by a hair."""
    return found.high is not None and found.high < 0.5 and found.value < 0.5 - TOLERANCE


def _refusals(table: Sequence[Cell]) -> tuple[Refusal, ...]:
    return tuple(
        Refusal(cell.score, cell.corruption, cell.form, cell.auc, cell.high)
        for cell in table
        if cell.corruption not in {VISIBLE, ALL}
        and cell.high is not None
        and worse_than_chance(Auc(cell.auc, cell.low, cell.high))
    )
