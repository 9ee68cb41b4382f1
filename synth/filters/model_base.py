"""The seam of scorers that ask a model: what one returns, and what it may rely on.

A scorer asks; the runtime (synth/filtering/judging.py) owns concurrency, the journal, resuming and counting.
None of them changes a record.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from synth.core.calls import Teacher
from synth.core.records import Record


@dataclass(frozen=True, slots=True)
class ModelScores:
    """What a model made of one record: a value, or None where it does not apply, for each score of the scorer.

    `remark` is the model's own words in short; `call_keys` name the calls that the scores come from.
    """

    scores: Mapping[str, float | None]
    remark: str = ""
    call_keys: tuple[str, ...] = ()


class ModelScorer(Protocol):
    """Scores a record by asking a model. It has to ask the same things in the same order for the same record.

    One whose scores depend on a prompt or an option has a property `settings` as well, a mapping that is JSON, so that
    scores from before an edit do not pass for current.
    """

    @property
    def name(self) -> str:
        """The word for the scorer; most often that of its first score too."""
        ...

    @property
    def scores(self) -> tuple[str, ...]:
        """The names of the scores that it gives."""
        ...

    async def score(self, record: Record, model: Teacher) -> ModelScores:
        """Return the scores of one record; every name in `scores` has its value.

        Raises:
            InferenceError: no reply of use came. The runtime counts that, lists it, and the scores are None.
        """
        ...


class BatchScorer(Protocol):
    """Scores many records at once with a model of its own, such as a student that is loaded here."""

    @property
    def name(self) -> str:
        """The word for the scorer."""
        ...

    @property
    def scores(self) -> tuple[str, ...]:
        """The names of the scores that it gives."""
        ...

    def score(self, records: Sequence[Record]) -> list[ModelScores]:
        """Return the scores of the records, in order."""
        ...


def not_applicable(scorer: ModelScorer | BatchScorer) -> ModelScores:
    """Return None for each score of the scorer: the measure says nothing about such a record."""
    return ModelScores(dict.fromkeys(scorer.scores))


def in_short(text: str, most: int = 300) -> str:
    """Return a model's words as a remark: on one line, and cut where they are long."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
