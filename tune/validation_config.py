"""What a user may set about a validation: read by the command line, the docs and `tune.validate`."""

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from synth.core.errors import did_you_mean
from tune.contenders import KINDS, STUDENT
from tune.verdict import Rule


class ValidateConfig(BaseModel):
    """What a candidate is judged on and by which rule. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    heldout: Path
    """The held-out set: human questions with their answers, as JSONL, SQuAD JSON, CSV or TSV."""
    candidate: str | None = None
    """The candidate under students/. Default: the one that was finished last."""
    contenders: tuple[str, ...] = ("base", "few-shot", "retrieval", "tuned")
    """Who answers, with commas between: base, few-shot, retrieval, tuned, tuned-retrieval."""
    must_beat: tuple[str, ...] = ("base", "few-shot")
    """The contenders that the tuned student has to beat, with commas between. The others are reported."""
    margin: float = Field(0.0, ge=0, le=100)
    """How many points of F1 the lower bound of each difference has to lie above nought."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """The level of the confidence intervals."""
    min_questions: int = Field(30, ge=1)
    """With fewer questions the verdict is "not enough evidence"."""
    min_documents: int = Field(10, ge=2)
    """With questions about fewer documents the verdict is "not enough evidence"."""
    max_tokens: int = Field(64, ge=1)
    """The most tokens of one answer."""
    examples: int = Field(4, ge=1, le=64)
    """Question/answer turns of a few-shot prompt, taken from the training set."""
    passages: int = Field(2, ge=1, le=64)
    """How many passages retrieval puts before a question."""
    max_failed: float = Field(0.01, ge=0, lt=1)
    """The share of calls that may fail. Their questions are left out for every contender; more stop the command."""
    resamples: int = Field(10_000, ge=1000)
    """How often the documents are resampled for the intervals."""
    seed: int = Field(0, ge=0)
    """The seed of the resampling."""
    server: str | None = None
    """The URL of a server that runs already, up to /v1, in place of a vLLM that is started."""
    server_base: str | None = None
    """With a server: the untuned model's name there. Default: the student's name."""
    server_tuned: str | None = None
    """With a server: the tuned model's name there. Default: the candidate's name."""
    merged: Path | None = None
    """A folder that `tune export --merge` made of the candidate: it is served and judged in the candidate's place."""

    @field_validator("contenders", "must_beat", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:  # noqa: ANN401  (anything a user may write)
        """Take "base,tuned" as well as a list."""
        parts = [value] if isinstance(value, str) else value
        if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
            return value
        names = [name.strip() for part in parts for name in part.split(",")]
        return tuple(dict.fromkeys(name for name in names if name))

    @field_validator("contenders", "must_beat")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in KINDS:
                raise ValueError(f"no contender is called {name!r}; {did_you_mean(name, KINDS)}")
        return names

    @model_validator(mode="after")
    def _judged(self) -> Self:
        if STUDENT not in self.contenders:
            raise ValueError(f"the contenders lack {STUDENT!r}: there is nothing to judge")
        if not self.must_beat or STUDENT in self.must_beat:
            raise ValueError("must_beat has to name another contender than the tuned student")
        for name in self.must_beat:
            if name not in self.contenders:
                raise ValueError(
                    f"must_beat names {name!r}, which is not among the contenders: add it, or say what has to be "
                    "beaten with --must-beat"
                )
        if self.server is None and (self.server_base or self.server_tuned):
            raise ValueError("server_base and server_tuned mean nothing without server")
        if self.server is not None and self.merged is not None:
            raise ValueError("merged is for a server that is started here: name what yours serves with server_tuned")
        return self

    @property
    def rule(self) -> Rule:
        """The rule of the verdict."""
        return Rule(
            self.must_beat,
            self.margin,
            self.confidence,
            self.min_questions,
            self.min_documents,
            self.resamples,
            self.seed,
        )

    def settings(self) -> dict[str, Any]:
        """Return what decides the verdict, as it stands in run.json: no path, no address, no name of a server."""
        left_out = {"heldout", "candidate", "server", "server_base", "server_tuned", "merged"}
        return self.model_dump(mode="json", exclude=left_out)
