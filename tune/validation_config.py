"""What a user may set about a validation: read by the command line, the docs and `tune.validate`."""

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from synth.core.errors import did_you_mean
from tune.contenders import KINDS, STUDENT
from tune.rules import MUST_BEAT, Rule
from tune.wording import CANDIDATE


class ValidateConfig(BaseModel):
    """What a candidate is judged on and by which rule. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    heldout: Path | str
    """The held-out set: human questions with answers, labels or references, as JSONL, SQuAD JSON, CSV, TSV or a dataset
    of the hub."""
    candidate: str | None = None
    """The candidate under students/. Default: the one that was finished last."""
    contenders: tuple[str, ...] = ("base", "few-shot", "retrieval", "tuned")
    """Who answers, with commas between: base, few-shot, retrieval, tuned, tuned-retrieval, teacher, candidate:NAME."""
    teacher: str | None = None
    """The model of the contender "teacher", which has the passage before it: a hub id, a folder, a URL or "bundled"."""
    must_beat: tuple[str, ...] | None = None
    """The contenders that the tuned student has to beat, with commas between. The others are reported. Default: base
    and few-shot, as far as they are among the contenders."""
    teacher_model: str | None = None
    """With a teacher at a URL: the model's name there."""
    metric: str | None = None
    """The metric that decides. Default by what the held-out items ask for: f1 for answers, correct for labels, rouge_l
    for free text."""
    metrics: tuple[str, ...] = ()
    """Metrics to measure beside the usual ones, with commas between: a name, or your own as package.module:function."""
    margin: float = Field(0.0, ge=0, le=100)
    """How many points of the deciding metric the lower bound of each difference has to lie above nought."""
    retrieval_margin: float = Field(5.0, ge=0, le=100)
    """How many points worse than retrieval the tuned student may be at most, where it is cheaper or faster."""
    regression: tuple[Path | str, ...] = ()
    """Sets of other questions, in the formats of the held-out set, on which the student must not have got worse."""
    regression_margin: float = Field(5.0, ge=0, le=100)
    """How many points the tuned student may at most lose on a regression set."""
    unsupported_margin: float = Field(0.0, ge=0, le=100)
    """How many points more answers without support than the untuned model's it takes, by the lower bound of the
    interval, for a reject."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """The level of the confidence intervals."""
    min_items: int = Field(30, ge=1)
    """With fewer items that do not stand in the dataset the verdict is "not enough evidence"."""
    min_documents: int = Field(10, ge=2)
    """With items about fewer documents the verdict is "not enough evidence"."""
    target_points: float = Field(5.0, gt=0, le=100)
    """The difference in points that the held-out set should be able to show: how many items that takes is told."""
    max_tokens: int = Field(64, ge=1)
    """The most tokens of one answer."""
    examples: int = Field(4, ge=1, le=64)
    """Question/answer turns of a few-shot prompt, taken from the training set."""
    passages: int = Field(2, ge=1, le=64)
    """How many passages retrieval puts before a question."""
    prompt_budget: int | None = Field(None, ge=16)
    """The most tokens of a prompt, of every contender: longer ones lose examples and passages. Default: what the
    student's context holds beside an answer."""
    price_prompt: float | None = Field(None, ge=0)
    """What a million prompt tokens cost, for the cost of 1,000 answers."""
    price_completion: float | None = Field(None, ge=0)
    """What a million completion tokens cost."""
    hourly_price: float | None = Field(None, ge=0)
    """What an hour of the machine costs, in place of prices of tokens."""
    refusals: tuple[str, ...] = ()
    """Phrases that count as a refusal, beside the usual ones ("I do not have that information", "unanswerable")."""
    judge: str | None = None
    """A model that marks answers from 1 to 5. It has to agree with human marks first: see judge_marks."""
    judge_marks: Path | None = None
    """Human marks of answers, as JSONL, that the judge is measured against before it may judge."""
    max_failed: float = Field(0.01, ge=0, lt=1)
    """The share of calls that may fail. Their items are left out for every contender; more stop the command."""
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

    @field_validator("contenders", "must_beat", "metrics", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:  # noqa: ANN401  (anything a user may write)
        """Take "base,tuned" as well as a list."""
        parts = [value] if isinstance(value, str) else value
        if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
            return value
        names = [name.strip() for part in parts for name in part.split(",")]
        return tuple(dict.fromkeys(name for name in names if name))

    @field_validator("regression", "refusals", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:  # noqa: ANN401  (anything a user may write)
        """Take a single one as well as a list; a comma may be part of it."""
        return (value,) if isinstance(value, str | Path) else value

    @field_validator("contenders", "must_beat")
    @classmethod
    def _known(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        known = {*KINDS, "teacher"}
        for name in names or ():
            if name not in known and not (name.startswith(CANDIDATE) and name != CANDIDATE):
                raise ValueError(f"no contender is called {name!r}; {did_you_mean(name, {*known, f'{CANDIDATE}NAME'})}")
        return names

    @model_validator(mode="after")
    def _judged(self) -> Self:
        if STUDENT not in self.contenders:
            raise ValueError(f"the contenders lack {STUDENT!r}: there is nothing to judge")
        if not self.beaten or STUDENT in self.beaten:
            raise ValueError(
                "must_beat has to name another contender than the tuned student"
                if self.must_beat is not None
                else "the contenders have neither base nor few-shot: say what has to be beaten with --must-beat"
            )
        for name in self.beaten:
            if name not in self.contenders:
                raise ValueError(
                    f"must_beat names {name!r}, which is not among the contenders: add it, or say what has to be "
                    "beaten with --must-beat"
                )
        if "teacher" in self.contenders and self.teacher is None:
            raise ValueError('the contender "teacher" needs to know who it is: name the model with teacher')
        if self.teacher is not None and "teacher" not in self.contenders:
            raise ValueError("a teacher is named, and is not among the contenders: add it, or leave teacher out")
        if self.server is None and (self.server_base or self.server_tuned):
            raise ValueError("server_base and server_tuned mean nothing without server")
        if self.hourly_price is not None and (self.price_prompt or self.price_completion):
            raise ValueError("give either hourly_price or the prices of tokens, not both")
        if (self.price_prompt is None) != (self.price_completion is None):
            raise ValueError("price_prompt and price_completion go together")
        if (self.judge is None) != (self.judge_marks is None):
            raise ValueError("judge and judge_marks go together: a judge may judge once it agrees with people")
        if self.server is not None and self.merged is not None:
            raise ValueError("merged is for a server that is started here: name what yours serves with server_tuned")
        return self

    @property
    def beaten(self) -> tuple[str, ...]:
        """What has to be beaten."""
        if self.must_beat is not None:
            return self.must_beat
        return tuple(name for name in MUST_BEAT if name in self.contenders)

    def rule(self, metric: str | None = None) -> Rule:
        """Return the rule of the verdict; `metric` decides, where it is not the usual one."""
        return Rule(
            must_beat=self.beaten,
            metric=metric,
            margin=self.margin,
            retrieval_margin=self.retrieval_margin,
            regression_margin=self.regression_margin,
            unsupported_margin=self.unsupported_margin,
            confidence=self.confidence,
            min_items=self.min_items,
            min_documents=self.min_documents,
            resamples=self.resamples,
            seed=self.seed,
        )

    def settings(self) -> dict[str, Any]:
        """Return what decides the verdict, as it stands in run.json: no path, no address, no name of a server.

        Files and models that are left out here stand there by their digests and revisions.
        """
        left_out = {"heldout", "candidate", "teacher", "teacher_model", "regression", "judge", "judge_marks"}
        left_out |= {"server", "server_base", "server_tuned", "merged"}
        return self.model_dump(mode="json", exclude=left_out)
