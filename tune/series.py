"""Students that differ in one thing: trained one by one like a finished candidate, and asked the same questions.

They lie in a run of their own inside the run, so that they are not taken for candidates: RUN/curve or RUN/ablation.
A finished student is not trained again, and an answered question is not asked again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

from synth.core.calls import Endpoint
from synth.core.config import build
from synth.core.errors import ConfigError, InferenceError, RunError
from synth.core.fingerprint import fingerprint
from synth.core.heldout import HeldoutItem
from synth.core.jsonl import FileDigest, write_jsonl
from synth.core.runs import Run
from synth.core.squad import exact_match, f1
from tune.answers import Answer, answer_all, complete_questions, make_calls
from tune.apart import Train
from tune.candidate import Candidate, find_candidate
from tune.config import TuneConfig
from tune.contenders import AsTrained, Contender, shared_system
from tune.data import open_dataset
from tune.heldout import OpenedSet, open_heldout
from tune.rows import Dataset
from tune.serving import by_vllm, given

_ELSEWHERE = ("data:", "mix:", "mix=", "replay:")


class SeriesConfig(BaseModel):
    """What several students are compared on. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    heldout: Path
    """The held-out set: human questions with their answers, as JSONL, SQuAD JSON, CSV or TSV."""
    candidate: str | None = None
    """The candidate whose settings all students are trained with. Default: the one that was finished last."""
    metric: str | None = None
    """What answers are compared by: f1 or em. Default: f1."""
    max_tokens: int = Field(64, ge=1)
    """The most tokens of one answer."""
    max_failed: float = Field(0.01, ge=0, lt=1)
    """The share of calls that may fail. Their questions are left out for every student; more stop the command."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """The level of the intervals."""
    resamples: int = Field(10_000, ge=1000)
    """How often the documents are resampled for the intervals."""
    seed: int = Field(0, ge=0)
    """The seed of the resampling."""


@dataclass(frozen=True, slots=True)
class Model:
    """What the students of a series are like: the candidate that they follow, its settings and its training rows."""

    candidate: Candidate
    config: TuneConfig
    dataset: Dataset

    @property
    def steps(self) -> int:
        """The steps that the candidate was trained for."""
        return int(orjson.loads((self.candidate.folder / "training.json").read_bytes())["steps"])

    def name(self, kind: str, config: TuneConfig, inputs: Mapping[str, FileDigest]) -> str:
        """Return a student's name: its kind, and eight digits that follow from its settings and its rows."""
        content = {
            "settings": config.settings(),
            "student": self.candidate.revision,
            "inputs": sorted(digest.sha256 for digest in inputs.values()),
        }
        return f"{kind}-{fingerprint(content).partition(':')[2][:8]}"


@dataclass(frozen=True, slots=True)
class Asking:
    """How the students are asked.

    `endpoint_of` gives an open endpoint for a student, in place of a vLLM that is started for it with `server_args`.
    """

    max_in_flight: int = 64
    server_args: Sequence[str] = ()
    endpoint_of: Callable[[Candidate], Endpoint] | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """The students' scores on the same items, from 0 to 1 and in the items' order, by student."""

    items: tuple[HeldoutItem, ...]
    values: Mapping[str, tuple[float, ...]]
    left_out: int

    @property
    def documents(self) -> tuple[str, ...]:
        """The document of each item."""
        return tuple(item.document_id for item in self.items)


def model_of(run: Run, name: str | None, given_settings: Mapping[str, Any]) -> Model:
    """Return a candidate with the settings that it was trained with, others laid over them.

    Args:
        run: the run.
        name: the candidate. Default: the one that was finished last.
        given_settings: what is to be otherwise, as in the table [sft] of a config file.

    Raises:
        RunError: there is no such candidate, or no dataset.
        ConfigError: a setting is wrong, or the candidate was trained on rows that are not named here.
    """
    candidate = find_candidate(run, name)
    entry = run.stages()[f"sft:{candidate.name}"]
    kept = {key: value for key, value in entry.config.items() if key in TuneConfig.model_fields}
    # Those that make another set of rows, or another place of them.
    for key in ("fold", "folds", "subset", "processes"):
        kept.pop(key, None)
    foreign = sorted({name.partition(":")[0].partition("=")[0] for name in entry.inputs if name.startswith(_ELSEWHERE)})
    unnamed = [kind for kind in foreign if not given_settings.get(kind)]
    if unnamed:
        raise ConfigError(
            f"{candidate.name} was trained on other rows than the run's own, and the manifest does not say where "
            "they are",
            where=str(run.path),
            fix=f"name them with {' and '.join(unnamed)} in the table [sft] of a --config file",
        )
    if "from" in entry.config and not given_settings.get("from"):
        raise ConfigError(
            f"{candidate.name} goes on from another candidate",
            where=str(run.path),
            fix="name that one with from in the table [sft] of a --config file, or take a --candidate that does not",
        )
    config = build(TuneConfig, kept, {**given_settings, "candidate": None}, where="sft")
    if config.folds is not None or config.subset is not None:
        raise ConfigError("folds and subset are no settings of a series", where="[sft]", fix="leave them out")
    if config.data is None and not config.mix:
        config = config.model_copy(update={"data": str(run.path.resolve())})
    return Model(candidate, config, open_dataset(run, config))


def home_of(run: Run, kind: str) -> Run:
    """Return the run inside the run that holds the students of a series."""
    return Run.create(run.path / kind)


def is_the_model(model: Model, config: TuneConfig, run: Run) -> bool:
    """Say whether a student of these settings, on all rows, is the candidate that there is already."""
    entry = run.stages()[f"sft:{model.candidate.name}"]
    wanted = {**config.settings(), "student_revision": model.candidate.revision}
    own = {digest.sha256 for digest in entry.inputs.values()}
    same_rows = own == {digest.sha256 for digest in model.dataset.inputs.values()}
    # A setting that came after the candidate was trained has its default there.
    defaults = TuneConfig().settings()
    return same_rows and all(entry.config.get(key, defaults.get(key)) == value for key, value in _plain(wanted).items())


def _plain(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return settings as they come back from a file."""
    plain: Mapping[str, Any] = orjson.loads(orjson.dumps(settings))
    return plain


def student(
    home: Run, config: TuneConfig, inputs: Mapping[str, FileDigest], train: Train, on_note: Callable[[str], None]
) -> Candidate:
    """Return the student of these settings, trained where it is not there yet.

    Raises:
        RunError: its rows were changed meanwhile; and what training raises.
    """
    assert config.candidate is not None
    try:
        found = find_candidate(home, config.candidate)
    except RunError:  # not there, or damaged, which training mends
        train(home, config, on_note)
        found = find_candidate(home, config.candidate)
    else:
        on_note(f"{found.name} is finished already")
    if sorted(found.data.values()) != sorted(digest.sha256 for digest in inputs.values()):
        raise RunError("the rows changed while students were trained on them", where=str(home.path), fix="run it again")
    return found


def open_clean(run: Run, path: Path) -> OpenedSet:
    """Open the held-out set.

    Raises:
        RecordError: the held-out file is wrong.
        RunError: questions of it were trained on.
    """
    return open_heldout(run, path)


def ask(
    home: Run,
    students: Mapping[str, Candidate],
    items: Sequence[HeldoutItem],
    model: Model,
    config: SeriesConfig,
    asking: Asking,
    on_note: Callable[[str], None],
) -> Answered:
    """Ask every student every question, and score the answers; they are written to answers/<student>.jsonl.

    Each student is served from its folder, one after the other, and asked as it was trained.

    Raises:
        InferenceError: a server does not get ready, or too many calls failed.
    """
    system = shared_system([row.to_json() for row in model.dataset.train if row.conversational])
    contender = Contender("tuned", "tuned", AsTrained(system))
    answers: dict[str, list[Answer]] = {}
    with home.lock():
        for name, candidate in students.items():
            if asking.endpoint_of is not None:
                services = given({"tuned": asking.endpoint_of(candidate)})
            else:
                services = by_vllm(
                    candidate,
                    log_path=home.log_path(f"answers-{name}"),
                    max_in_flight=asking.max_in_flight,
                    args=asking.server_args,
                )[-1:]
            on_note(f"{name}: asking {len(items)} questions")
            answers[name] = answer_all(
                make_calls(items, [contender], services, max_tokens=config.max_tokens),
                services,
                home.journal_path,
                max_failed=config.max_failed,
                max_in_flight=asking.max_in_flight,
            )
            write_jsonl(home.path / "answers" / f"{name}.jsonl", (a.to_json() for a in answers[name]))
    complete = complete_questions([answer for own in answers.values() for answer in own])
    asked = tuple(item for item in items if complete[item.id])
    if not asked:
        raise InferenceError("no question was answered by every student", fix="run the same command again")
    return Answered(
        asked,
        {name: tuple(_scores(own, asked, config.metric or "f1")) for name, own in answers.items()},
        len(items) - len(asked),
    )


def _scores(answers: Sequence[Answer], asked: Sequence[HeldoutItem], metric: str) -> list[float]:
    measures = {"f1": f1, "em": exact_match}
    if metric not in measures:
        raise ConfigError(f"no metric is called {metric!r}", where="--metric", fix="known: em, f1")
    texts = {answer.call.item.id: answer.completion.text for answer in answers if answer.completion is not None}
    return [measures[metric](texts[item.id], item.answers) for item in asked]
