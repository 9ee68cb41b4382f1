"""Students that differ in one thing: trained one by one like a finished candidate, and asked the same questions.

They lie in a run of their own inside the run, so that they are not taken for candidates: RUN/curve or RUN/ablation.
A finished student is not trained again, and an answered question is not asked again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from synth.core.calls import Endpoint
from synth.core.config import build
from synth.core.errors import ConfigError, InferenceError, RunError
from synth.core.fingerprint import fingerprint
from synth.core.heldout import HeldoutItem, HeldoutSet
from synth.core.jsonl import FileDigest, write_json
from synth.core.runs import Run
from synth.core.schemas import check
from tune.answers import answer_all, make_calls, write_answers
from tune.apart import Train
from tune.budget import Budget, student_budget
from tune.candidate import ELSEWHERE, Candidate, find_candidate
from tune.config import TuneConfig
from tune.contenders import CANDIDATE, STUDENT, AsTrained, Contender, shared_system
from tune.data import open_dataset
from tune.heldout import find_overlap, open_heldout
from tune.metrics.find import find_metrics
from tune.metrics.scoring import Answered as Said
from tune.metrics.scoring import score_all
from tune.phrases import counted
from tune.rows import Dataset
from tune.rules import DECIDING
from tune.series_config import SeriesConfig
from tune.serving import by_vllm, given


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
class Sealed:
    """The held-out set, its items that the dataset does not ask, and what is doubtful about it."""

    heldout: HeldoutSet
    items: tuple[HeldoutItem, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """The students' scores by a metric on the same items, from 0 to 1 and in the items' order, by student.

    `left_out` items were not answered by all of them, or could not be measured.
    """

    metric: str
    items: tuple[HeldoutItem, ...]
    values: Mapping[str, tuple[float, ...]]
    left_out: int

    @property
    def documents(self) -> tuple[str, ...]:
        """The document of each item."""
        return tuple(item.document_id for item in self.items)

    def left(self) -> tuple[str, ...]:
        """What to tell of items that were left out, nothing where there are none."""
        if not self.left_out:
            return ()
        return (f"Left out for every student, since a call about them failed: {counted(self.left_out, 'question')}.",)


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
    foreign = sorted({name.partition(":")[0].partition("=")[0] for name in entry.inputs if name.startswith(ELSEWHERE)})
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


def write_finding(path: Path, value: Mapping[str, Any]) -> None:
    """Write what a series found, curve.json or ablation.json, once schemas/<its name>.schema.json accepts it."""
    check(value, path.stem, where=str(path))
    write_json(path, value)


def read_finding(path: Path, *, version: int, nothing: str, again: str) -> dict[str, Any]:
    """Return what a series found.

    Args:
        path: of curve.json or ablation.json.
        version: that is read.
        nothing: what to say where there is no such file.
        again: what to do then.

    Raises:
        RunError: there is none, it is of another version, or it cannot be read.
        RecordError: its schema does not accept it.
    """
    try:
        value = orjson.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise RunError(nothing, where=str(path), fix=again) from error
    except (OSError, orjson.JSONDecodeError) as error:
        raise RunError(f"it cannot be read ({error})", where=str(path), fix=again) from error
    found = value.get("version") if isinstance(value, dict) else None
    if found != version:
        raise RunError(f"it has version {found}, this program reads {version}", where=str(path), fix=again)
    check(value, path.stem, where=str(path))
    return dict(value)


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


def open_clean(run: Run, model: Model, source: Path | str) -> Sealed:
    """Open the held-out set; questions that the whole dataset asks are left out for all students.

    Raises:
        ConfigError: the held-out set is a dataset of the hub that cannot be loaded.
        RecordError: the held-out file is wrong.
        RunError: it is not there, or every question of it was trained on.
    """
    opened = open_heldout(run, source)
    overlap = opened.overlap
    if model.config.data != str(run.path.resolve()) or model.config.replay:
        overlap = {**overlap, **find_overlap(opened.heldout.items, [row.to_json() for row in model.dataset.train])}
    clean = tuple(item for item in opened.heldout.items if item.id not in overlap)
    if not clean:
        raise RunError(
            "every held-out question was trained on",
            where=opened.heldout.name,
            fix=f"run `synth filter {run.path} --heldout {source}`, then `tune sft` again",
        )
    left = [f"Left out, since the dataset asks them: {len(overlap)} of {len(opened.heldout.items)} questions."]
    return Sealed(opened.heldout, clean, (*opened.warnings, *(left if overlap else [])))


def ask(
    home: Run,
    students: Sequence[Candidate],
    sealed: Sealed,
    model: Model,
    config: SeriesConfig,
    asking: Asking,
    on_note: Callable[[str], None],
) -> Answered:
    """Ask every student every question, and score the answers; they are written to answers/<student>.jsonl.

    The students are served from their folders, those that are adapters beside each other where vLLM can do so, and
    asked as they were trained.

    Raises:
        ConfigError: there is no such metric.
        InferenceError: a server does not get ready, too many calls failed, or no question is left to compare by.
    """
    heldout, unanswerable = sealed.heldout, any(item.unanswerable for item in sealed.items)
    wanted = config.metric or DECIDING[heldout.task]
    metrics = find_metrics(heldout.task, (wanted,), labels=heldout.labels, unanswerable=unanswerable)
    # One of the user's own comes last, and may have another name than it is found by.
    metric = next((one for one in metrics if one.name == wanted), metrics[-1])
    system = shared_system([row.to_json() for row in model.dataset.train if row.conversational])
    weights = {one.name: STUDENT if one is students[0] else f"{CANDIDATE}{one.name}" for one in students}
    if asking.endpoint_of is not None:
        services = given({weights[one.name]: asking.endpoint_of(one) for one in students})
    else:
        services = by_vllm(
            students[0],
            earlier={weights[one.name]: one for one in students[1:]},
            log_path=home.log_path("answers"),
            max_in_flight=asking.max_in_flight,
            args=asking.server_args,
        )
    on_note(f"asking {len(sealed.items)} questions of {len(students)} students")
    with home.lock():
        answers = answer_all(
            make_calls(
                sealed.items,
                [Contender(one.name, weights[one.name], AsTrained(system)) for one in students],
                services,
                max_tokens=config.max_tokens,
                budget=_budget(model, config),
            ),
            services,
            home.journal_path,
            max_failed=config.max_failed,
            max_in_flight=asking.max_in_flight,
        )
        scores = score_all(
            [Said(a.item, a.contender, a.completion) for a in answers if a.completion is not None],
            [metric],
            labels=heldout.labels,
            refusals=config.refusals,
        )
        write_answers(home.path, answers, scores)
    values: dict[str, dict[str, float]] = {one.name: {} for one in students}
    for score in scores:
        if metric.name in score.values:
            values[score.contender][score.item_id] = score.values[metric.name]
    asked = tuple(item for item in sealed.items if all(item.id in own for own in values.values()))
    if not asked:
        raise InferenceError("no question was answered by every student", fix="run the same command again")
    return Answered(
        metric.name,
        asked,
        {name: tuple(own[item.id] for item in asked) for name, own in values.items()},
        len(sealed.items) - len(asked),
    )


def _budget(model: Model, config: SeriesConfig) -> Budget | None:
    """Return what no prompt may exceed; None where nothing says how long the model is: then the server refuses."""
    try:
        return student_budget(model.candidate, max_tokens=config.max_tokens)
    except ConfigError:
        return None
