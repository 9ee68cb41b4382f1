"""What a user may set about a curve and an ablation: read by the command line and the docs, without the rest."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator


class SeriesConfig(BaseModel):
    """What several students are compared on. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    heldout: Path | str
    """The held-out set: human questions with answers, labels or references, as JSONL, SQuAD JSON, CSV, TSV or a dataset
    of the hub."""
    candidate: str | None = None
    """The candidate whose settings all students are trained with. Default: the one that was finished last."""
    metric: str | None = None
    """The metric that answers are compared by: a name, or your own as package.module:function. Default by what the
    held-out items ask for: f1 for answers, correct for labels, rouge_l for free text."""
    max_tokens: int = Field(64, ge=1)
    """The most tokens of one answer."""
    refusals: tuple[str, ...] = ()
    """Phrases that count as a refusal, beside the usual ones ("I do not have that information", "unanswerable")."""
    max_failed: float = Field(0.01, ge=0, lt=1)
    """The share of calls that may fail. Their questions are left out for every student; more stop the command."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """The level of the intervals."""
    resamples: int = Field(10_000, ge=1000)
    """How often the documents are resampled for the intervals."""
    seed: int = Field(0, ge=0)
    """The seed of the resampling."""


class CurveConfig(SeriesConfig):
    """Which sizes a curve has and what it is asked about. Unknown keys are errors."""

    shares: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    """The shares of the dataset that students are trained on, with commas between, by whole documents."""
    gain: float = Field(2.0, gt=0, le=100)
    """How many points more the advice is about."""
    equal_steps: bool = False
    """Whether every student takes as many optimizer steps as one on the whole dataset. Default: as many epochs, as the
    same command on fewer records would."""

    @field_validator("shares", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:  # noqa: ANN401  (anything a user may write)
        """Take "0.1,0.5" as well as a list."""
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("shares")
    @classmethod
    def _of_a_whole(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        wrong = [share for share in shares if not 0 < share <= 1]
        if wrong or not shares:
            raise ValueError(f"a share is above 0 and at most 1, not {wrong[0] if wrong else 'nothing'}")
        return tuple(sorted(set(shares)))


class AblateConfig(SeriesConfig):
    """Which rules are left out and what students are asked about. Unknown keys are errors."""

    rules: tuple[str, ...] = ()
    """The rules to leave out, one at a time, with commas between, by the name before the colon of their reasons.
    Default: all that alone rejected a record."""

    @field_validator("rules", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:  # noqa: ANN401  (anything a user may write)
        """Take "relevance,form" as well as a list."""
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
