"""What each rule does alone: every decision made again with one step left out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synth.filtering.config import FilterConfig
from synth.filtering.corpus import settle
from synth.filtering.ledger import LATE_STEPS
from synth.filtering.meaning import Meaning
from synth.filtering.table import Columns
from synth.filters.base import Rule


@dataclass(frozen=True, slots=True)
class Ablation:
    """One step of the filter, and what changes without it.

    `rejects` records fail it, `alone` of them fail nothing else. `kept` records would stay without it, `gained`
    more than with it: fewer than `alone` where some of those are twins of kept ones, or too many.
    """

    step: str
    rules: tuple[str, ...]
    rejects: int
    alone: int
    kept: int
    gained: int


def ablate(
    columns: Columns,
    config: FilterConfig,
    rules: Sequence[Rule],
    failing: Counter[str],
    meaning: Meaning | None = None,
) -> tuple[int, list[Ablation]]:
    """Return how many records are kept with all steps, and each step's ablation in the order of the funnel.

    Args:
        columns: all records after the first pass.
        config: the bounds.
        rules: the rules in force.
        failing: the records that each step of the first pass rejects.
        meaning: embeddings, where the settings need them.
    """

    def kept(without: str | None) -> tuple[int, Counter[str]]:
        reasons = settle(columns, config, meaning, without=without)
        passing = int(np.count_nonzero(columns.only == -1))
        if without in columns.steps:
            passing += int(np.count_nonzero(columns.only == columns.steps.index(without)))
        return passing - len(reasons), Counter(reason.partition(":")[0] for reason in reasons.values())

    everything, late = kept(None)
    names = dict.fromkeys([*(rule.score for rule in rules), *sorted(set(failing) - {*LATE_STEPS}), *LATE_STEPS])
    found = []
    for name in names:
        rejects = failing[name] + late[name]
        if not rejects and not any(rule.score == name for rule in rules):
            continue
        alone = int(np.count_nonzero(columns.only == columns.steps.index(name))) if name in columns.steps else 0
        without = kept(name)[0] if rejects else everything
        own = tuple(str(rule) for rule in rules if rule.score == name)
        found.append(Ablation(name, own, rejects, alone + late[name], without, without - everything))
    return everything, found
