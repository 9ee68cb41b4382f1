"""job.json: what a batch asks, kept in the run so that later rounds need no settings."""

import os
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from synth.core.config import build
from synth.core.errors import ConfigError, RunError
from synth.core.jsonl import write_json
from synth.generation.config import GenerateConfig
from synth.generators.find import split_spec

JOB_VERSION = 1
_UNFIT = ("num_records", "max_calls", "max_tokens_total", "max_cost", "deadline")


@dataclass(frozen=True, slots=True)
class BatchJob:
    """What a batch asks: as for `run_generate`, with the model's name at the batch service.

    `logprobs` asks for each token's log probability; `tries` is how often a request that comes back with
    an error is sent before it counts as a call without answer.
    """

    documents: tuple[str, ...]
    teacher: str
    generate: GenerateConfig = field(default_factory=lambda: build(GenerateConfig))
    revision: str = ""
    tokenizer: str | None = None
    logprobs: bool = False
    tries: int = 3

    def to_json(self) -> dict[str, Any]:
        """Return what stands in job.json."""
        return {
            "version": JOB_VERSION,
            "documents": list(self.documents),
            "teacher": self.teacher,
            "revision": self.revision,
            "tokenizer": self.tokenizer,
            "logprobs": self.logprobs,
            "tries": self.tries,
            "generate": self.generate.model_dump(mode="json"),
        }


def the_job(folder: Path, given: BatchJob | None) -> BatchJob:
    """Return the job of job.json, written there the first time; until there is a round, another takes its place.

    Raises:
        ConfigError: a setting does not fit batches, or there is a round of another job; or nothing is given or kept.
        RunError: job.json cannot be read.
    """
    path = folder / "job.json"
    if given is not None:
        given = _checked(given)
        if not any(folder.glob("round-*")):
            write_json(path, given.to_json())
            return given
    elif not path.exists():
        raise no_batch(folder.parent)
    stored = _read_job(path)
    asked, kept = given.to_json() if given is not None else {}, stored.to_json()
    names = [name for name, value in asked.items() if value != kept[name]]
    if names:
        raise ConfigError(
            f"the batch of this run was begun with other settings ({', '.join(names)})",
            where=str(path),
            fix="leave DOCS and the settings out to go on with it, or name a new run",
        )
    return stored


def _checked(job: BatchJob) -> BatchJob:
    for name in _UNFIT:
        if getattr(job.generate, name) is not None:
            raise ConfigError(
                f"{name} does not fit batches: a round is written before any of its answers is known",
                where="generate",
                fix="bound the work with max_passages"
                + (", and the dataset with `synth filter --num-records`" if name == "num_records" else ""),
            )
    if job.tries < 1:
        raise ConfigError("a request is sent at least once", where="tries")
    return _with_whole_paths(job)


def _with_whole_paths(job: BatchJob) -> BatchJob:
    """Return the job with absolute paths: a later round may be made from another folder."""
    generate = job.generate
    parts = {part: _whole(part) for spec in generate.generator for part in chain(*_split(spec))}
    settings = {
        "generator": tuple("+".join(parts[part] for part in chain(*_split(spec))) for spec in generate.generator),
        "options": {
            parts.get(name, name): {key: _whole_file(value) for key, value in table.items()}
            for name, table in generate.options.items()
        },
        "examples": generate.examples and str(Path(generate.examples).resolve()),
    }
    return replace(
        job,
        documents=tuple(d if d.startswith("hub:") else str(Path(d).resolve()) for d in job.documents),
        tokenizer=job.tokenizer
        and (str(Path(job.tokenizer).resolve()) if Path(job.tokenizer).exists() else job.tokenizer),
        generate=generate.model_copy(update=settings),
    )


def _split(spec: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    base, modifiers = split_spec(spec)
    return (base,), modifiers


def _whole(part: str) -> str:
    """Return a part of a generator's spec with the whole path of its file, where it names one."""
    location, colon, name = part.rpartition(":")
    path = location or name
    if not path.endswith((".py", ".md")):
        return part
    return str(Path(path).resolve()) + (f"{colon}{name}" if colon else "")


def _whole_file(value: object) -> object:
    """Return an option's value with the whole path, where it names a file (a rubric, a list of persons)."""
    if not isinstance(value, str) or not os.path.isfile(value):  # noqa: PTH113 - most texts are no names at all
        return value
    return str(Path(value).resolve()) if Path(value).suffix else value


def _read_job(path: Path) -> BatchJob:
    try:
        data = orjson.loads(path.read_bytes())
        if data.pop("version") != JOB_VERSION:
            raise ValueError("another version of synth wrote it")
        generate = build(GenerateConfig, data.pop("generate"), where=str(path))
        return BatchJob(documents=tuple(data.pop("documents")), generate=generate, **data)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"the batch's settings cannot be read ({error})",
            where=str(path),
            fix="restore the file, or start a new run",
        ) from error


def no_batch(path: Path) -> ConfigError:
    """Return the error for a run without a batch."""
    return ConfigError(
        "there is no batch here yet", where=str(path), fix="`synth batch export RUN DOCS --teacher NAME` begins one"
    )
