"""What is known beside the scores: filled by the stage, read by the rules and by the search for causes.

Everything is optional. What is not known is None or empty, and is then said to be unknown, never made up.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from synth.core.heldout import Task
from tune.load import Load
from tune.metrics.confidence import ConfidenceQuality
from tune.metrics.refusal import RefusalQuality
from tune.nearest import Distance
from tune.power import TARGET
from tune.scores import Score


@dataclass(frozen=True, slots=True)
class Measured:
    """What is measured of one contender beside its scores' means.

    `cost_per_thousand` answers is in the user's money, None where no price was given. `labels` are accuracy, macro_f1,
    qwk and roc_auc of label sets. `trimmed` is how many prompts were shortened to fit the budget.
    """

    latency: Load | None = None
    cost_per_thousand: float | None = None
    refusals: RefusalQuality | None = None
    confidence: ConfidenceQuality | None = None
    labels: Mapping[str, float | None] = field(default_factory=dict)
    trimmed: int = 0


@dataclass(frozen=True, slots=True)
class RegressionSet:
    """Scores of base and tuned on a set of other questions, to see what was forgotten. `metric` decides."""

    name: str
    scores: Sequence[Score]
    metric: str


def _nothing(_contender: str, _scores: Sequence[Score]) -> Measured:
    return Measured()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the verdict may draw on beside the scores.

    Attributes:
        task: what the items ask for; it settles the deciding metric where the rule names none.
        metrics: by metric, its name as people read it; those of the package need not be named.
        clean_ids: the items that do not stand in the dataset, None where none does. They decide.
        measure: called for each contender with its name and its scores, once for all items and once for the clean ones.
        regression: other questions, asked of base and tuned.
        training: the candidate's training.json.
        distance: of the users' questions to the dataset's.
        target: the difference in points that the held-out set should be able to show.
    """

    task: Task = "qa"
    metrics: Mapping[str, str] = field(default_factory=dict)
    clean_ids: frozenset[str] | None = None
    measure: Callable[[str, Sequence[Score]], Measured] = _nothing
    regression: Sequence[RegressionSet] = ()
    training: Mapping[str, Any] | None = None
    distance: Distance | None = None
    target: float = TARGET
