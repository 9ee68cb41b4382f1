"""Is the dataset large enough? Students on nested shares of it, their scores by size, and what more would bring.

`tune curve RUN --heldout FILE` trains one student on each share, by whole documents, as a finished candidate was
trained; a smaller share is a part of every larger one. The candidate itself is the last point where it was trained on
the whole dataset as it is now.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Self

import orjson

from synth.core.errors import ConfigError
from synth.core.heldout import HeldoutSet
from synth.core.runs import Run
from tune.apart import Train, train_apart
from tune.candidate import Candidate
from tune.config import TuneConfig
from tune.curve_view import draw
from tune.data import open_dataset
from tune.phrases import counted
from tune.power_law import LEAST_SIZES, TOP, Advice, Forecast, advise, forecast
from tune.series import (
    Answered,
    Asking,
    Model,
    ask,
    home_of,
    is_the_model,
    model_of,
    open_clean,
    read_finding,
    student,
    write_finding,
)
from tune.series_config import CurveConfig
from tune.statistics import interval_of_mean, paired_difference

__all__ = ["Curve", "CurveConfig", "Size", "curve", "read_curve"]

VERSION = 1
KIND = "curve"

_ALARM = 0.05  # How likely a level curve may be called falling.


@dataclass(frozen=True, slots=True)
class Size:
    """One point of the curve.

    Attributes:
        share: the share that was asked for.
        student: its candidate.
        records: the training rows that it had, of that many `documents`.
        seen: the held-out questions whose document is among them.
        steps: its optimizer steps.
        score: the mean over the questions in points, 0 to 100, with its interval clustered by document.
    """

    share: float
    student: str
    records: int
    documents: int
    seen: int
    steps: int
    score: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Curve:
    """The scores by size and what follows from them; `to_json` is curve.json (schemas/curve.schema.json).

    `forecast` is None where none is made.
    """

    subject: Mapping[str, Any]
    metric: str
    questions: int
    sizes: tuple[Size, ...]
    forecast: Forecast | None
    advice: Advice
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the content of curve.json."""
        return {
            "version": VERSION,
            "subject": dict(self.subject),
            "metric": self.metric,
            "questions": self.questions,
            "sizes": [asdict(size) for size in self.sizes],
            "forecast": None if self.forecast is None else self.forecast.to_json(),
            "advice": asdict(self.advice),
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build the curve from curve.json."""
        return cls(
            subject=data["subject"],
            metric=data["metric"],
            questions=data["questions"],
            sizes=tuple(Size(**size) for size in data["sizes"]),
            forecast=None if data["forecast"] is None else Forecast.from_json(data["forecast"]),
            advice=Advice(**data["advice"]),
            notes=tuple(data["notes"]),
        )


def curve(
    run: Run,
    config: CurveConfig,
    *,
    settings: Mapping[str, Any] | None = None,
    asking: Asking | None = None,
    train: Train = train_apart,
    on_note: Callable[[str], None] = lambda _: None,
) -> Curve:
    """Train and score a student on each share, and write RUN/curve/curve.json, with a picture where matplotlib is.

    Run again after a kill, it goes on; with more data, it trains anew what has changed.

    Args:
        run: a run with a finished candidate and its dataset.
        config: the shares and the questions.
        settings: what the students' training is to have otherwise than the candidate's, in the words of `tune sft`.
        asking: how the students are asked.
        train: how a student is trained; by default in a process of its own.
        on_note: called with what goes on.

    Raises:
        ConfigError: a setting is wrong.
        RecordError: the held-out file is wrong.
        RunError: there is no candidate or no dataset, a training failed, or held-out questions were trained on.
        InferenceError: the students cannot be asked.
        Interrupted: Ctrl-C; what is finished stays.
    """
    model = model_of(run, config.candidate, settings or {})
    sealed = open_clean(run, model, config.heldout)
    home = home_of(run, KIND)
    points, notes = _planned(home, run, model, config)
    candidates = {}
    for point in points:
        on_note(f"{point.share:.0%} of the dataset: {point.records} records of {len(point.documents)} documents")
        candidates[point.name] = point.student or student(home, point.config, point.inputs, train, on_note)
    answered = ask(home, [*candidates.values()], sealed, model, config, asking or Asking(), on_note)
    made = _made(model, config, points, candidates, answered, (*notes, *sealed.warnings), sealed.heldout)
    write_finding(home.path / "curve.json", made.to_json())
    if draw(made, home.path / "curve.png"):
        on_note(f"drawn: {home.path / 'curve.png'}")
    return made


def read_curve(run: Run) -> Curve:
    """Return the curve as it stands in the run.

    Raises:
        RunError: there is none, or it is of another version.
        RecordError: the file is damaged.
    """
    path, again = run.path / KIND / "curve.json", f"`tune curve {run.path} --heldout FILE` makes one"
    return Curve.from_json(read_finding(path, version=VERSION, nothing="there is no curve yet", again=again))


@dataclass(frozen=True, slots=True)
class _Point:
    """A size as it is planned. `student` is there where it need not be trained."""

    name: str
    share: float
    config: TuneConfig
    records: int
    documents: frozenset[str]
    inputs: Mapping[str, Any]
    student: Candidate | None


def _planned(home: Run, run: Run, model: Model, config: CurveConfig) -> tuple[list[_Point], list[str]]:
    """Return the sizes, smallest first, each once."""
    points: list[_Point] = []
    notes = []
    for share in config.shares:
        changed: dict[str, Any] = {"subset": None if share == 1 else share}
        if config.equal_steps:
            changed["steps"] = model.steps
        own = model.config.model_copy(update=changed)
        dataset = open_dataset(run, own)
        rows = [row for row in dataset.train if row.source != "replay"]
        if points and points[-1].records == len(rows):
            notes.append(
                f"{share:.0%} and {points[-1].share:.0%} of the dataset are the same {len(rows)} records, as whole "
                "documents are taken: they are one point."
            )
            if share < 1:
                continue
            points.pop()
        whole = share == 1 and is_the_model(model, own, run)
        kind = f"{KIND}-{100 * share:03.0f}" if round(100 * share) == 100 * share else f"{KIND}-{100 * share:g}"
        name = model.candidate.name if whole else model.name(kind, own, dataset.inputs)
        points.append(
            _Point(
                name=name,
                share=share,
                config=own.model_copy(update={"candidate": name}),
                records=len(rows),
                documents=frozenset(row.document_id for row in rows),
                inputs=dataset.inputs,
                student=model.candidate if whole else None,
            )
        )
    if len({point.name for point in points}) < len(points):
        raise ConfigError("two shares are too near to each other", where="--shares", fix="take shares further apart")
    return points, notes


def _made(
    model: Model,
    config: CurveConfig,
    points: Sequence[_Point],
    candidates: Mapping[str, Candidate],
    answered: Answered,
    notes: Sequence[str],
    heldout: HeldoutSet,
) -> Curve:
    sizes = []
    for point in points:
        values = [TOP * value for value in answered.values[point.name]]
        mean = interval_of_mean(
            values, answered.documents, confidence=config.confidence, resamples=config.resamples, seed=config.seed
        )
        report = orjson.loads((candidates[point.name].folder / "training.json").read_bytes())
        sizes.append(
            Size(
                share=point.share,
                student=point.name,
                records=point.records,
                documents=len(point.documents),
                seen=sum(item.document_id in point.documents for item in answered.items),
                steps=report["steps"],
                score=round(mean.mean, 4),
                low=None if mean.low is None else round(mean.low, 4),
                high=None if mean.high is None else round(mean.high, 4),
            )
        )
    found, advice = _advised(sizes, answered, config)
    return Curve(
        subject={
            "student": model.candidate.student_name,
            "like": model.candidate.name,
            "heldout": {"name": heldout.name, "sha256": heldout.digest.sha256},
            "steps": "equal" if config.equal_steps else "epochs",
        },
        metric=answered.metric,
        questions=len(answered.items),
        sizes=tuple(sizes),
        forecast=found,
        advice=advice,
        notes=(*notes, *answered.left()),
    )


def _advised(sizes: Sequence[Size], answered: Answered, config: CurveConfig) -> tuple[Forecast | None, Advice]:
    """Return the forecast, where one is worth making, and what to do."""
    if len(sizes) < LEAST_SIZES:
        return None, Advice(
            "unknown",
            f"The fit cannot tell: {counted(len(sizes), 'size')} do not make a curve, it takes {LEAST_SIZES}. "
            "Ask for more --shares; with few documents, make more.",
        )
    if len(set(answered.documents)) < 2:
        return None, Advice(
            "unknown",
            "The fit cannot tell: all questions are about one document, so nothing says how sure the scores are.",
        )
    found = forecast(
        [size.records for size in sizes],
        [answered.values[size.student] for size in sizes],
        answered.documents,
        gain=config.gain,
        confidence=config.confidence,
        seed=config.seed,
    )
    fallen = _fallen(sizes, answered, config)
    if fallen is not None:
        before, after, points = fallen
        return found, Advice(
            "unknown",
            f"The fit cannot tell: with {after.records} records the score is {points:.1f} points lower than with "
            f"{before.records}, more than chance explains, and a power law never falls. Look at what the later "
            "documents teach, or at the training of the larger students (`tune sft` prints its losses).",
        )
    return found, advise(found)


def _fallen(sizes: Sequence[Size], answered: Answered, config: CurveConfig) -> tuple[Size, Size, float] | None:
    """Return the largest fall from a size to a larger one that chance does not explain, of all pairs together."""
    pairs = list(combinations(sizes, 2))
    found = []
    for before, after in pairs:
        differences = [
            TOP * (b - a) for a, b in zip(answered.values[before.student], answered.values[after.student], strict=True)
        ]
        gap = paired_difference(differences, answered.documents, resamples=config.resamples, seed=config.seed)
        # Bonferroni: one false alarm among all pairs is as likely as for one.
        if gap.p_value is not None and gap.mean < 0 and gap.p_value * len(pairs) < _ALARM:
            found.append((before, after, -gap.mean))
    return max(found, key=lambda one: one[2], default=None)
