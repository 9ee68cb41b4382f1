"""The settings of the generate stage: all that decides which records come out."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from synth.generation.shards import Shard
from synth.generators.examples import load_examples

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def _seconds(value: object) -> object:
    """Return seconds for "90", "90s", "15m", "2h" or "1d"; other values go to pydantic as they are."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", value.strip()) if isinstance(value, str) else None
    return float(match[1]) * _UNITS[match[2]] if match else value


def _shard_text(value: object) -> object:
    return str(Shard.parse(value)) if isinstance(value, str) else value


class Price(BaseModel):
    """What a model's tokens cost, in any currency, per million tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    input: float = Field(ge=0)
    """For a million tokens of prompts."""
    output: float = Field(ge=0)
    """For a million tokens of completions."""

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Return what so many tokens cost."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1_000_000


class GenerateConfig(BaseModel):
    """What decides the records. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    generator: tuple[str, ...] = ("qa",)
    """Generators by name, `module:name`, `file.py:name` or `template.md`, each with modifiers: `qa+persona`."""
    options: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    """A generator's own settings by its name, such as `[generate.options.qa] pairs_per_passage = 4`; those under
    `"*"` go to every generator that has such a setting."""
    evidence: Literal["enum", "index", "free"] | None = None
    """How evidence is quoted: chosen from the passage's sentences, by their numbers, or in free text."""
    examples: str | None = None
    """A file of your own pairs (JSONL or CSV); they show the teacher the style and never enter the dataset."""
    passage_tokens: int | None = Field(None, ge=16, le=100_000)
    """The most tokens a passage has, counted with the teacher's own tokenizer. Where neither this nor
    passage_chars is set: 300, or 1,200 characters where the teacher is an endpoint and --tokenizer is not given."""
    passage_chars: int | None = Field(None, ge=80, le=100_000)
    """The most characters a passage has."""
    include: tuple[str, ...] = ()
    """Read only files whose path below the folder matches one of these patterns, such as `*.md` or `guides/**`."""
    exclude: tuple[str, ...] = ()
    """Pass over files that match one of these patterns; a `.synthignore` file in the folder holds more."""
    document_seconds: float = Field(120, gt=0)
    """The longest that reading one file may take; then it goes to quarantine.jsonl."""
    document_memory_mib: int = Field(2048, ge=128)
    """The most memory that reading one file may take, in MiB; then it goes to quarantine.jsonl."""
    max_passages: int | None = Field(None, ge=1)
    """Ask about so many passages only, drawn with the seed."""
    temperature: float = Field(0.7, ge=0, le=2)
    """Sampling temperature of the teacher."""
    top_p: float = Field(0.95, gt=0, le=1)
    """Nucleus sampling: the share of probability that is sampled from."""
    max_tokens: int = Field(512, ge=1)
    """The most tokens of one reply. A reply that is cut off goes to quarantine.jsonl."""
    logprobs: bool = False
    """Ask for the log probability of each token, from which the score `confidence` comes. It costs the server some
    speed, so it is off unless a rule needs the score."""
    seed: int = 0
    """The run's seed. Each call's own seed is derived from it."""
    num_records: int | None = Field(None, ge=1)
    """Go on until so many records are accepted by the filter. Without it each passage is asked about once."""
    max_rounds: int = Field(4, ge=1)
    """With num_records: how often each passage is asked about at most. Bounds the cost."""
    shard: Annotated[str | None, BeforeValidator(_shard_text)] = None
    """Do the part I of N of the passages (`I/N`, counted from 0); `synth merge` joins the parts."""
    max_calls: int | None = Field(None, ge=1)
    """End after so many calls of this run, also those of earlier attempts."""
    max_tokens_total: int | None = Field(None, ge=1)
    """End after so many tokens of this run, read and written, also those of earlier attempts."""
    max_cost: float | None = Field(None, gt=0)
    """End when this run's calls have cost so much; needs the teacher in the price table."""
    price: Mapping[str, Price] = Field(default_factory=dict)
    """Prices by the teacher's name: `[generate.price."name"]` with `input` and `output` per million tokens."""
    deadline: Annotated[float | None, BeforeValidator(_seconds), Field(gt=0)] = None
    """End after so long: seconds, or a number with s, m, h or d, such as 8h."""

    @model_validator(mode="after")
    def _shards_and_numbers_do_not_mix(self) -> "GenerateConfig":
        if self.shard is not None and self.num_records is not None:
            raise ValueError(
                "a shard has no num_records: no shard knows what the others accept; give it to synth merge"
            )
        return self

    def generator_options(self) -> dict[str, dict[str, Any]]:
        """Return `options` with `evidence` and the pairs of `examples` among those for every generator.

        Raises:
            SynthError: the file of examples cannot be read; the error names the line.
        """
        given: dict[str, Any] = {} if self.evidence is None else {"evidence": self.evidence}
        if self.examples is not None:
            given["examples"] = load_examples(Path(self.examples))
        options = {name: dict(table) for name, table in self.options.items()}
        return {**options, "*": {**options.get("*", {}), **given}}

    @property
    def part(self) -> Shard:
        """The shard to do; the whole where none is named."""
        return Shard(0, 1) if self.shard is None else Shard.parse(self.shard)
