"""One training, before it begins: what is trained on what, where it goes, and what is known of it by then."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from synth.core.errors import ConfigError, RunError
from synth.core.heldout import load_heldout
from synth.core.runs import Run, stage_fingerprint
from tune.augment import with_variants
from tune.checkpoints import other_trainings
from tune.config import TuneConfig
from tune.data import open_dataset
from tune.findings import Preflight
from tune.lineage import Parent, continued, find_parent
from tune.memory import MemoryPlan, plan_memory
from tune.preflight import examine
from tune.ranks import processes
from tune.registry import behind_link
from tune.rows import Dataset
from tune.setup import Setup, settle
from tune.student import Student, open_student
from tune.trainer import Places

# Share of the memory that a plan may take for activations to be kept: plans for GPUs are computed, not measured.
_ROOMY = 0.7


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be trained on what, and where it goes. `settings` is what run.json keeps and the name follows from."""

    run: Run
    config: TuneConfig
    dataset: Dataset
    student: Student
    parent: Parent | None
    settings: Mapping[str, Any]
    candidate: str

    @classmethod
    def of(cls, run: Run, config: TuneConfig, notes: "Notes") -> "Job":
        """Open what the settings name: the parent, the rows, the student.

        Raises:
            ConfigError: the student or a setting is wrong.
            RunError: there is no dataset or no such parent, or files were changed by hand.
            RecordError: rows are wrong.
        """
        parent = None
        if config.from_ is not None:
            parent = find_parent(run, config.from_)
            config = continued(config, parent, frozenset(config.model_fields_set))
        if behind_link(config.student) != config.student:
            config = config.model_copy(update={"student": behind_link(config.student)})
        dataset = open_dataset(run, config)
        for note in dataset.notes:
            notes.add(note)
        student = open_student(config.student, revision=config.revision, template=config.chat_template)
        if parent is not None and parent.candidate.revision != student.revision:
            raise ConfigError(
                "the student is not the one that the candidate was tuned from", where=config.student,
                fix="leave --student and --revision out: they are taken over",
            )  # fmt: skip
        settings = {**config.settings(), "student_revision": student.revision}
        if processes() > 1:
            settings["processes"] = processes()  # A step sees as many times more rows.
        if parent is not None:
            settings["from"] = parent.weights_sha256
        # The folds of one training share a name.
        digits = stage_fingerprint({**settings, "fold": None}, dataset.inputs).partition(":")[2]
        fold = "" if config.fold is None else f"-fold{config.fold}of{config.folds}"
        name = (config.candidate or f"{config.method}-{digits[:8]}") + fold
        return cls(run, config, dataset, student, parent, settings, name)

    @property
    def stage(self) -> str:
        """Its name in run.json."""
        return f"sft:{self.candidate}"

    @property
    def folder(self) -> Path:
        """Where the candidate will lie."""
        return self.run.student_path(self.candidate)

    @property
    def work(self) -> Path:
        """Where it is made."""
        return self.folder.with_name(f".{self.candidate}.part")

    @property
    def made(self) -> Path:
        """The candidate in the making."""
        return self.work / "student"

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints and the best weights lie meanwhile."""
        return self.work / "checkpoints"

    def places(self, setup: Setup) -> Places:
        """Return where a training in this setup writes, and the seal of its checkpoints."""
        # A checkpoint has to be of this job, in this arithmetic, in as many parts and steps.
        settled = (
            setup.precision,
            setup.attention,
            setup.processes,
            setup.packed,
            setup.batch_size,
            setup.accumulation,
        )
        how = " ".join(map(str, settled))
        seal = f"{stage_fingerprint(self.settings, self.dataset.inputs)} {how}"
        return Places(self.checkpoints, self.run.log_path("sft").parent / "tensorboard" / self.candidate, seal)


class Notes:
    """Collects what the user should know, and passes it on at once; what is only told is not kept."""

    def __init__(self, on_message: Callable[[str], None] | None) -> None:
        self.said: list[str] = []
        self._on_message = on_message

    def add(self, note: str) -> None:
        """Keep a note, and pass it on."""
        self.said.append(note)
        self.tell(note)

    def tell(self, note: str) -> None:
        """Pass a note on."""
        if self._on_message is not None:
            self._on_message(note)


class Startup:
    """Times what lies between the command and its first step; `seconds` by part, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = self._last = time.monotonic()
        # What was imported before this module was called counts too.
        self._before = max(0.0, time.time() - psutil.Process().create_time())

    def mark(self, part: str) -> None:
        """End a part."""
        now = time.monotonic()
        before = self._before if not self.seconds else 0.0
        self.seconds[part] = round(before + now - self._last, 3)
        self._last = now

    def first_step(self, at: float | None) -> None:
        """End the last part, with the first step, at this time of the monotonic clock."""
        if at is not None:
            self.seconds["first_step"] = round(at - self._last, 3)

    def passed(self) -> float:
        """Return the seconds since the training was asked for."""
        return time.monotonic() - self._began


def is_finished(job: Job, notes: Notes) -> bool:
    """Say whether this very work is done and its files are as they were left.

    Raises:
        RunError: another candidate has the name, or files that no training wrote lie in its folder.
    """
    entry = job.run.stages().get(job.stage)
    if entry is None:
        foreign = job.folder.exists() and not (job.folder / "training.json").exists()
        if foreign and any(job.folder.iterdir()):
            raise RunError(
                "the folder holds files that tune sft did not write", where=str(job.folder), fix="move it away"
            )
        return False
    if entry.fingerprint != stage_fingerprint(job.settings, job.dataset.inputs):
        changed = sorted(k for k, v in job.settings.items() if entry.config.get(k) != v) or ["the dataset"]
        raise RunError(
            f"the candidate {job.candidate!r} was trained otherwise (changed: {', '.join(changed)})",
            where=str(job.folder),
            fix="give the new one another --candidate name, or leave the name out",
        )
    if not job.run.is_current(job.stage, job.settings, job.dataset.inputs):
        notes.add(f"files of {job.candidate} are damaged or missing: training it again")
        return False
    notes.add(f"{job.candidate} is finished already: nothing was trained")
    return True


def examined(job: Job, heldout: Path | None) -> Preflight:
    """Return every row as it would be trained on, with what is wrong or worth knowing."""
    rows = with_variants(job.dataset.train, job.config.question_variants, job.config.seed)
    dataset = replace(job.dataset, train=rows)
    return examine(dataset, job.student, job.config, heldout=None if heldout is None else load_heldout(heldout))


def planned(job: Job, found: Preflight, setup: Setup) -> MemoryPlan:
    """Return the memory that the training takes in this setup."""
    return plan_memory(
        job.student,
        job.config.model_copy(update={"attention": setup.attention}),
        longest=max(row.tokens for row in (*found.train, *found.validation)),
        precision=setup.precision,
        checkpointing=setup.checkpointing,
        packed=setup.packed,
        processes=setup.processes,
        rows=setup.batch_size,
        accumulation=setup.accumulation,
    )


def settled(job: Job, found: Preflight) -> tuple[Setup, MemoryPlan | None]:
    """Return what is settled, and on a GPU the memory it takes: there a plan, which takes seconds, is worth its while.

    Activations are kept, in place of computed twice, where the plan says that they fit with room to spare.
    """
    setup = settle(job.config, job.student, found.train)
    if setup.device == "cpu":
        return setup, None
    # Several processes have to decide alike, and each sees the free memory of its own GPU alone.
    if job.config.gradient_checkpointing is None and setup.processes == 1:
        kept = replace(setup, checkpointing=False)
        plan = planned(job, found, kept)
        if plan.need <= _ROOMY * plan.memory.available:
            return kept, plan
    return setup, planned(job, found, setup)


def look_at_others(job: Job, setup: Setup, notes: Notes) -> None:
    """Say what becomes of checkpoints that this training cannot go on from.

    Raises:
        RunError: they are of this very training, on a machine that does it otherwise.
    """
    seal = job.places(setup).seal
    others = other_trainings(job.checkpoints, seal)
    if any(other.partition(" ")[0] == seal.partition(" ")[0] for other in others):
        raise RunError(
            "this training is unfinished, and was begun in another arithmetic, packing or number of processes, "
            "so its checkpoints cannot be gone on from here",
            where=str(job.checkpoints),
            fix="run it where it began, or delete that folder to begin anew",
        )
    if others:
        notes.add(f"deleted: {len(others)} checkpoints of {job.candidate} from a training with other settings or data")
