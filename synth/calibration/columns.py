"""The scores of all samples as columns of numbers, with what each row is."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from synth.calibration.samples import HUMAN, Sample
from synth.core.errors import ConfigError
from synth.filters.base import Scorer, score_records

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

Extra = Mapping[str, Mapping[str, float | None]]
"""Scores from elsewhere, as a judge's: the name of the score, then the id of the record."""

_PORTION = 4096


@dataclass(frozen=True)
class Columns:
    """One column a score (NaN where a record has none) and, in step, what each row is."""

    scores: Mapping[str, "Floats"]
    labels: "NDArray[np.str_]"
    forms: "NDArray[np.str_]"
    pairs: tuple[str, ...]
    documents: "NDArray[np.str_]"

    @cached_property
    def human(self) -> "Mask":
        """The rows of human pairs."""
        return np.asarray(self.labels == HUMAN)

    @cached_property
    def _human_rows(self) -> Mapping[tuple[str, str], int]:
        return {(self.pairs[i], str(self.forms[i])): int(i) for i in np.flatnonzero(self.human)}

    def rows(self, corruption: str, form: str, among: "Mask") -> tuple["NDArray[np.int64]", "NDArray[np.int64]"]:
        """Return the spoiled rows of a corruption and the human rows of the same pairs, all of them `among` some.

        Where no spoiled pair was a human one (unanswerable questions of SQuAD v2), all human rows stand beside them.
        """
        spoiled = np.flatnonzero((self.labels == corruption) & (self.forms == form) & among)
        twins = {self._human_rows.get((self.pairs[i], form)) for i in spoiled}
        human = np.array(sorted(i for i in twins if i is not None), dtype=np.int64)
        if not len(human):
            human = np.flatnonzero(self.human & (self.forms == form) & among)
        return spoiled, human

    def with_score(self, name: str, values: "Floats") -> "Columns":
        """Return these columns and one more."""
        return Columns({**self.scores, name: values}, self.labels, self.forms, self.pairs, self.documents)


def make_columns(
    samples: Sequence[Sample],
    scorers: Iterable[Scorer],
    extra: Extra,
    watch: Callable[[int], None] = lambda done: None,
) -> Columns:
    """Score all samples; `watch` is told how many have been scored.

    Raises:
        ConfigError: two scores share a name, a scorer gives something that is no finite number, or an extra score
            belongs to no sample at all.
    """
    used = tuple(scorers)
    names = [*(scorer.name for scorer in used), *extra]
    if len(set(names)) < len(names):
        raise ConfigError(f"two scores share a name: {', '.join(sorted(names))}", fix="rename one")
    # Pairs about one passage go together, so that what scorers keep of a passage is still at hand.
    order = sorted(range(len(samples)), key=lambda i: samples[i].record.passage_id)
    scores = {name: np.full(len(samples), np.nan) for name in names}
    for start in range(0, len(order), _PORTION):
        rows = order[start : start + _PORTION]
        scored = score_records([samples[i].record for i in rows], used)
        for scorer in used:
            values = [record.scores[scorer.name] for record in scored]
            scores[scorer.name][rows] = [np.nan if value is None else value for value in values]
            if any(value is not None and not np.isfinite(value) for value in values):
                raise ConfigError("gave a score that is no finite number", where=f"scorer {scorer.name}")
        watch(start + len(rows))
    for name, given in extra.items():
        found = [given.get(sample.record.id) for sample in samples]
        scores[name][:] = [np.nan if value is None else round(float(value), 4) for value in found]
        if not np.isfinite(scores[name]).any():
            raise ConfigError("no sample has this score", where=f"score {name}", fix="give scores by record id")
    return Columns(
        scores,
        np.array([s.label for s in samples]),
        np.array([s.form for s in samples]),
        tuple(s.pair for s in samples),
        np.array([s.document_id for s in samples]),
    )
