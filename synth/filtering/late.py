"""Which scores come late: those that a model gives, after all that needs no model has been said."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from synth.core.errors import ConfigError
from synth.core.records import Judgement
from synth.filtering.config import FilterConfig
from synth.filters.model_scorers import MODEL_SCORES, STUDENT_SCORES
from synth.filters.student_view import StudentView

VIEW_SCORES = frozenset(StudentView.scores)
"""The scores of a student that is loaded here: an endpoint does not show what it thinks of a given text."""


@dataclass(frozen=True, slots=True)
class Late:
    """What models made of one record; `failed` are the scorers whose model gave no reply of use."""

    scores: dict[str, float | None] = field(default_factory=dict)
    judgements: tuple[Judgement, ...] = ()
    failed: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the judgements as a record's line has them."""
        return {"judgements": [judgement.to_json() for judgement in self.judgements]} if self.judgements else {}


def late_scores(config: FilterConfig, wanted: Iterable[str]) -> frozenset[str]:
    """Return those of the scores `wanted` by rules that a model gives now; without a model, records may have them.

    Raises:
        ConfigError: a model is named, and no rule wants what it would say.
    """
    named, found = set(wanted), set[str]()
    by_judge = MODEL_SCORES if config.student is None else MODEL_SCORES - STUDENT_SCORES
    for name, spec, gives, example in (
        ("judge", config.judge, by_judge, "round_trip >= 0.5"),
        ("student", config.student, STUDENT_SCORES | VIEW_SCORES, "ifd <= 0.9"),
    ):
        if spec is None:
            continue
        if not gives & named:
            raise ConfigError(
                "no rule names a score that a model gives",
                where=f"--{name}",
                fix=f'add one, such as --rule "{example}"; this model gives {", ".join(sorted(gives))}',
            )
        found |= gives & named
    return frozenset(found)
