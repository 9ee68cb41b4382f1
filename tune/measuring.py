"""What the verdict may draw on beside the scores: latency, cost, refusals, confidence, distance, power."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from synth.core.heldout import HeldoutSet
from synth.core.jsonl import read_lines
from synth.core.runs import Run
from tune.budget import Trimmed
from tune.candidate import Candidate
from tune.evidence import Evidence, Measured, RegressionSet
from tune.heldout import OpenedSet
from tune.load import Price, cost_per_thousand, measured_load
from tune.metrics.base import Metric
from tune.metrics.confidence import confidence_quality
from tune.metrics.labels import label_quality
from tune.metrics.refusal import refusal_quality
from tune.nearest import Distance, question_distance
from tune.scores import Score
from tune.validation_config import ValidateConfig


@dataclass(frozen=True, slots=True)
class Measuring:
    """Measures one contender's answers; `trimmed` is what the budget took from its prompts."""

    heldout: HeldoutSet
    metric: str
    price: Price | None
    trimmed: Mapping[str, Trimmed]

    def __call__(self, contender: str, scores: Sequence[Score]) -> Measured:
        """Return what is measured of a contender."""
        cut = self.trimmed.get(contender)
        labels = self.heldout.labels
        return Measured(
            latency=measured_load(scores),
            cost_per_thousand=cost_per_thousand(scores, self.price),
            refusals=None if labels else refusal_quality(scores),
            confidence=confidence_quality(scores, self.metric),
            labels=label_quality(scores, labels) if labels else {},
            trimmed=cut.shortened if cut else 0,
        )


def gather(
    run: Run,
    candidate: Candidate,
    config: ValidateConfig,
    opened: OpenedSet,
    *,
    metric: str,
    metrics: Sequence[Metric],
    regression: Sequence[RegressionSet],
    trimmed: Mapping[str, Trimmed],
) -> Evidence:
    """Return the evidence of one validation.

    Args:
        run: whose dataset the student learned.
        candidate: what is judged.
        config: the settings.
        opened: the held-out set.
        metric: the one that decides.
        metrics: that were measured.
        regression: the scores on other sets.
        trimmed: what the budget took, by contender.
    """
    heldout = opened.heldout
    price = _price(config)
    return Evidence(
        task=heldout.task,
        metrics={one.name: one.words for one in metrics},
        clean_ids=opened.clean_ids,
        measure=Measuring(heldout, metric, price, trimmed),
        regression=tuple(regression),
        training=orjson.loads((candidate.folder / "training.json").read_bytes()),
        distance=_distance(run, opened),
        target=config.target_points,
    )


def _price(config: ValidateConfig) -> Price | None:
    if config.hourly_price is None and config.price_prompt is None:
        return None
    return Price(config.price_prompt, config.price_completion, config.hourly_price)


def _distance(run: Run, opened: OpenedSet) -> Distance | None:
    """Return how far the users' questions lie from the dataset's, None where there is no dataset to compare with."""
    rows: list[Mapping[str, Any]] = []
    if run.validation_path.is_file():
        rows = [row for _, row in read_lines(run.validation_path)]
    if not opened.rows or not rows:
        return None
    return question_distance(opened.heldout.items, opened.rows, rows)
