"""What is each filter rule worth? A student without it, beside the one with all of them.

`tune ablate RUN --heldout FILE` gives the records that one rule alone rejected back to the dataset, trains a student
on that for as many steps as the candidate took, and compares the two question by question.

What is compared is near to a filter without the rule, not equal to it. Near and semantic duplicates are not looked for
among the records that come back, and limits on their number are not applied again; records that say word for
word what the dataset says, and those that ask what a held-out or a validation question asks, stay out.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

import orjson
from rich.table import Table

from synth.core.errors import ConfigError, RunError, did_you_mean
from synth.core.heldout import HeldoutItem
from synth.core.jsonl import digest_file, read_lines, write_jsonl
from synth.core.record_file import read_records
from synth.core.records import Message, Record
from synth.core.runs import Run
from tune.apart import Train, train_apart
from tune.candidate import Candidate
from tune.data import dataset_inputs, open_dataset
from tune.formats import asked_key
from tune.heldout import find_overlap
from tune.phrases import in_a_row
from tune.power_law import TOP
from tune.series import (
    Answered,
    Asking,
    ask,
    home_of,
    is_the_model,
    model_of,
    open_clean,
    read_finding,
    student,
    write_finding,
)
from tune.series_config import AblateConfig
from tune.statistics import Difference, holm, paired_difference

__all__ = ["Ablation", "AblateConfig", "Without", "ablate", "ablation_table", "read_ablation", "returning"]

VERSION = 1
KIND = "ablation"

# Steps of the filter that are never left out: a leak is no training row, a wanted number of records is no rule, and
# personal data must not come back by a side door.
_NEVER: Mapping[str, str] = {
    "contaminated": "held-out questions are not trained on",
    "surplus": "it is a number of records, no rule",
    "pii": "personal data stays out",
}
_LEVEL = 0.05
_SAID: Mapping[str, str] = {
    "helps": "helps: without it the student is worse",
    "harms": "harms: without it the student is better",
    "not shown": "no difference that chance does not explain",
    "no row": "changes no training row",
}


@dataclass(frozen=True, slots=True)
class Without:
    """A student without one rule, beside the one with all.

    Attributes:
        rule: the rule that was left out.
        student: its candidate, None where the rule alone keeps nothing out of the training rows.
        rejects: how many records fail the rule.
        alone: how many fail nothing else.
        added: how many of those came back; the others repeat a row, are leaks, or are about documents that validate.
        score: its mean in points, 0 to 100.
        points: its score minus that with all rules, with the interval and the p-values of the paired difference.
    """

    rule: str
    student: str | None
    rejects: int
    alone: int
    added: int
    score: float | None = None
    points: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    p_holm: float | None = None

    @property
    def worth(self) -> Literal["helps", "harms", "not shown", "no row"]:
        """Whether the student is worse without the rule, or better, or neither beyond chance; "no row" is trained."""
        if self.student is None:
            return "no row"
        if self.p_holm is None or self.points is None or self.p_holm >= _LEVEL:
            return "not shown"
        return "helps" if self.points < 0 else "harms"

    @property
    def said(self) -> str:
        """What that means, in a few words."""
        return _SAID[self.worth]


@dataclass(frozen=True, slots=True)
class Ablation:
    """All rules, each left out; `to_json` is ablation.json (schemas/ablation.schema.json).

    `score` is that of the student with all rules.
    """

    subject: Mapping[str, Any]
    metric: str
    questions: int
    documents: int
    records: int
    score: float
    rules: tuple[Without, ...]
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        """What follows, in a sentence or two."""
        harms = [one.rule for one in self.rules if one.worth == "harms"]
        helps = [one.rule for one in self.rules if one.worth == "helps"]
        parts = []
        if helps:
            parts.append(f"Keep {in_a_row(helps)}: without it the student is worse.")
        if harms:
            parts.append(f"Loosen or drop {in_a_row(harms)}: without it the student is better.")
        if not parts:
            parts.append("No rule makes a difference that chance does not explain on these questions.")
        return " ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Return the content of ablation.json."""
        return {
            "version": VERSION,
            "subject": dict(self.subject),
            "metric": self.metric,
            "questions": self.questions,
            "documents": self.documents,
            "records": self.records,
            "score": self.score,
            "rules": [{**asdict(one), "said": one.said} for one in self.rules],
            "text": self.text,
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build the ablation from ablation.json."""
        rules = tuple(Without(**{k: v for k, v in one.items() if k != "said"}) for one in data["rules"])
        kept = {k: data[k] for k in ("subject", "metric", "questions", "documents", "records", "score")}
        return cls(**kept, rules=rules, notes=tuple(data["notes"]))


@dataclass(frozen=True, slots=True)
class Returning:
    """The records that come back without a rule; `rejects` and `alone` count those before any is held back."""

    rule: str
    rejects: int
    alone: int
    records: tuple[Record, ...]


def ablate(
    run: Run,
    config: AblateConfig,
    *,
    settings: Mapping[str, Any] | None = None,
    asking: Asking | None = None,
    train: Train = train_apart,
    on_note: Callable[[str], None] = lambda _: None,
) -> Ablation:
    """Train and score a student without each rule, and write RUN/ablation/ablation.json.

    Run again after a kill, it goes on.

    Args:
        run: a run with a finished candidate, its dataset and its records.
        config: the rules and the questions.
        settings: what the students' training is to have otherwise than the candidate's, in the words of `tune sft`.
        asking: how the students are asked.
        train: how a student is trained; by default in a process of its own.
        on_note: called with what goes on.

    Raises:
        ConfigError: a setting is wrong, there is no such rule, or the dataset does not come from the run's records.
        RecordError: the held-out file or a record is wrong.
        RunError: there is no candidate or no dataset, a training failed, or held-out questions were trained on.
        InferenceError: the students cannot be asked.
        Interrupted: Ctrl-C; what is finished stays.
    """
    given = dict(settings or {})
    if given.get("data") or given.get("mix"):
        raise ConfigError("rows from elsewhere have no filter rules", where="[sft]", fix="leave data and mix out")
    model = model_of(run, config.candidate, given)
    sealed = open_clean(run, model, config.heldout)
    found = returning(run, config.rules, sealed.heldout.items)
    home = home_of(run, KIND)
    whole = model.config.model_copy(update={"subset": None})
    full = model.candidate
    if not is_the_model(model, whole, run):
        named = whole.model_copy(update={"candidate": model.name("all-rules", whole, model.dataset.inputs)})
        on_note("all rules")
        full = student(home, named, model.dataset.inputs, train, on_note)
    steps = int(orjson.loads((full.folder / "training.json").read_bytes())["steps"])
    students: dict[str, Candidate] = {}
    for number, one in enumerate(found, start=1):
        if not one.records:
            continue
        on_note(f"without {one.rule} ({number} of {len(found)}): {len(one.records)} more records")
        folder = home.path / "datasets" / _file_name(one.rule)
        changed: dict[str, Any] = {"data": str(folder.resolve()), "steps": steps}
        if not _write_dataset(run, folder, one.records):
            changed["validation_share"] = 0.0  # There is none, and none is to be cut off.
        own = model.config.model_copy(update=changed)
        inputs = open_dataset(run, own).inputs
        own = own.model_copy(update={"candidate": model.name(f"without-{_file_name(one.rule)}", own, inputs)})
        students[one.rule] = student(home, own, inputs, train, on_note)
    answered = ask(home, [full, *students.values()], sealed, model, config, asking or Asking(), on_note)
    left = [f"{rule} is never left out: {why}." for rule, why in _NEVER.items() if rule in _reasons(run)]
    made = Ablation(
        subject={
            "student": model.candidate.student_name,
            "like": model.candidate.name,
            "with_all_rules": full.name,
            "steps": steps,
            "heldout": {"name": sealed.heldout.name, "sha256": sealed.heldout.digest.sha256},
        },
        metric=answered.metric,
        questions=len(answered.items),
        documents=len(set(answered.documents)),
        records=len(model.dataset.train),
        score=round(TOP * sum(answered.values[full.name]) / len(answered.items), 4),
        rules=_compared(found, students, full.name, answered, config),
        notes=(*left, *sealed.warnings, *answered.left()),
    )
    write_finding(home.path / "ablation.json", made.to_json())
    return made


def read_ablation(run: Run) -> Ablation:
    """Return the ablation as it stands in the run.

    Raises:
        RunError: there is none, or it is of another version.
        RecordError: the file is damaged.
    """
    path, again = run.path / KIND / "ablation.json", f"`tune ablate {run.path} --heldout FILE` makes one"
    return Ablation.from_json(read_finding(path, version=VERSION, nothing="no rule was left out yet", again=again))


def returning(run: Run, wanted: Sequence[str], heldout: Sequence[HeldoutItem] = ()) -> list[Returning]:
    """Return for each rule the records that it alone rejected and that may be trained on, in the order of the funnel.

    Args:
        run: a run whose filter is finished.
        wanted: the rules; all that alone rejected a record where none is named.
        heldout: items whose questions no record that comes back may ask, in the same words or nearly.

    Raises:
        ConfigError: no record was rejected by a wanted rule, or the filter hid personal data in the dataset.
        RunError: the filter is not finished, or its files were changed.
    """
    dataset_inputs(run)
    entry = run.stage("filter", made_by=f"synth filter {run.path}")
    if digest_file(run.records_path) != entry.outputs.get(run.records_path.name):
        raise RunError(
            "the records are not those that the filter wrote",
            where=str(run.records_path),
            fix=f"`synth filter {run.path}` writes them anew",
        )
    if entry.config.get("pii") == "mask":
        raise ConfigError(
            "the filter hid personal data in the dataset, and records that come back would show theirs",
            where=str(run.path),
            fix="filter with --pii reject, or without it, to see what each rule is worth",
        )
    rejects: Counter[str] = Counter()
    alone: dict[str, list[Record]] = {}
    for record in read_records(run.records_path):
        heads = {reason.partition(":")[0] for reason in record.decision.reasons} if record.decision else set()
        rejects.update(heads)
        if len(heads) == 1:
            alone.setdefault(heads.pop(), []).append(record)
    known = sorted(set(rejects) - {*_NEVER})
    for rule in wanted:
        if rule in _NEVER:
            raise ConfigError(f"{rule} cannot be left out: {_NEVER[rule]}", where="--rules")
        if rule not in rejects:
            raise ConfigError(f"no record was rejected by {rule!r}", where="--rules", fix=did_you_mean(rule, known))
    order = [*(str(rule).split()[0] for rule in entry.config.get("rules", ())), *known]
    names = [rule for rule in dict.fromkeys(order) if rule in known and rule in (wanted or alone)]
    train = [row for _, row in read_lines(run.train_path)]
    validation = [row for _, row in read_lines(run.validation_path)] if run.validation_path.is_file() else []
    validating = {row["document_id"] for row in validation}
    asked = {_asked(row["prompt"]) for row in validation}
    said = {_said(row["prompt"], row["completion"]) for row in train}
    found = []
    for rule in names:
        own = alone.get(rule, [])
        back: list[Record] = []
        seen = set(said)
        for record in own:
            row = record.to_json()
            key = _said(row["prompt"], row["completion"])
            if record.document_id in validating or key in seen or _asked(row["prompt"]) in asked:
                continue
            seen.add(key)
            back.append(record)
        found.append(Returning(rule, rejects[rule], len(own), tuple(_sealed_off(back, heldout))))
    return found


def ablation_table(ablation: Ablation) -> Table:
    """Return the rules as a table."""
    title = f"Without each rule, {ablation.questions} questions; with all rules {ablation.score:.1f} points"
    table = Table(box=None, pad_edge=False, title=title)
    table.title_justify = "left"
    table.add_column("without")
    for heading in ("rejects", "alone", "added", ablation.metric, "change", "interval", "p (Holm)"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("it")
    for one in ablation.rules:
        between = "" if one.low is None or one.high is None else f"{one.low:+.1f} to {one.high:+.1f}"
        table.add_row(
            one.rule,
            f"{one.rejects:,}",
            f"{one.alone:,}",
            f"{one.added:,}",
            "" if one.score is None else f"{one.score:.1f}",
            "" if one.points is None else f"{one.points:+.1f}",
            between,
            "" if one.p_holm is None else f"{one.p_holm:.3f}",
            one.worth,
        )
    return table


def _write_dataset(run: Run, folder: Path, back: Iterable[Record]) -> bool:
    """Write the training rows with those that come back, and the validation rows; return whether there are such.

    Validation rows that ask what a training row asks are left out: two documents of a run may ask the same, the two
    sides of a folder may not.
    """
    train = [row for _, row in read_lines(run.train_path)]
    ids = {row["id"] for row in train}
    for record in back:
        row = record.to_json()
        if record.id not in ids:
            ids.add(record.id)
            train.append({key: row[key] for key in ("prompt", "completion", "id", "document_id")})
    asked = {_asked(row["prompt"]) for row in train}
    validation = [row for _, row in read_lines(run.validation_path)] if run.validation_path.is_file() else []
    held = [row for row in validation if _asked(row["prompt"]) not in asked]
    write_jsonl(folder / "train.jsonl", train)
    if held:
        write_jsonl(folder / "validation.jsonl", held)
    else:
        (folder / "validation.jsonl").unlink(missing_ok=True)
    return bool(held)


def _compared(
    found: Sequence[Returning],
    students: Mapping[str, Candidate],
    full: str,
    answered: Answered,
    config: AblateConfig,
) -> tuple[Without, ...]:
    gaps: dict[str, Difference] = {}
    for rule, candidate in students.items():
        differences = [
            TOP * (without - everything)
            for without, everything in zip(answered.values[candidate.name], answered.values[full], strict=True)
        ]
        gaps[rule] = paired_difference(
            differences,
            answered.documents,
            confidence=config.confidence,
            resamples=config.resamples,
            seed=config.seed,
        )
    adjusted = holm({rule: gap.p_value for rule, gap in gaps.items()})
    made = []
    for one in found:
        counts = {"rejects": one.rejects, "alone": one.alone, "added": len(one.records)}
        gap = gaps.get(one.rule)
        if gap is None:
            made.append(Without(one.rule, None, **counts))
            continue
        name = students[one.rule].name
        values = answered.values[name]
        made.append(
            Without(
                one.rule,
                name,
                **counts,
                score=round(TOP * sum(values) / len(values), 4),
                points=round(gap.mean, 4),
                low=None if gap.low is None else round(gap.low, 4),
                high=None if gap.high is None else round(gap.high, 4),
                p_value=gap.p_value,
                p_holm=adjusted[one.rule],
            )
        )
    return tuple(made)


def _reasons(run: Run) -> set[str]:
    """Return the names of all rules that rejected a record first."""
    counts = run.stage("filter", made_by=f"synth filter {run.path}").counts
    return {name.partition(":")[2].partition(":")[0] for name in counts if name.startswith(("rejected:", "reason:"))}


def _asked(prompt: Sequence[Mapping[str, str]]) -> str:
    return asked_key([Message.from_json(turn) for turn in prompt])


def _said(prompt: Sequence[Mapping[str, str]], completion: Sequence[Mapping[str, str]]) -> str:
    return asked_key([Message.from_json(turn) for turn in (*prompt, *completion)])


def _sealed_off(records: Sequence[Record], heldout: Sequence[HeldoutItem]) -> list[Record]:
    """Return the records that ask no held-out question."""
    left = [*records]
    while True:  # Of the records that ask the same, one is named at a time.
        leaks = {overlap.row_id for overlap in find_overlap(heldout, (record.to_json() for record in left)).values()}
        if not leaks:
            return left
        left = [record for record in left if record.id not in leaks]


def _file_name(rule: str) -> str:
    """Return a rule's name as part of a path and of a candidate's name: a scorer of a user may have any."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", rule)[:40].lstrip(".") or "rule"
