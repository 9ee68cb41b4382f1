"""Train a student on a dataset: `tune sft RUN --student MODEL`.

TRL does the training. This module decides what it is given and what is left behind. A candidate is built in
students/.<candidate>.part/ and renamed into place when it is whole, so students/<candidate>/ is never half of one.
A killed training goes on from its last whole checkpoint when the same command runs again.

Started by `accelerate launch`, every process runs this; the first one alone locks the run, writes it, and speaks.
"""

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch

from synth.core.errors import ConfigError, Interrupted, RunError
from synth.core.heldout import load_heldout
from synth.core.jsonl import FileDigest, digest_file, sync_folder, write_json, write_text
from synth.core.runs import Run, StageEntry, stage_fingerprint
from tune.augment import with_variants
from tune.card import model_card
from tune.checkpoints import Checkpoint, last_complete, other_trainings, sync_files
from tune.config import TuneConfig
from tune.data import open_dataset
from tune.findings import Preflight
from tune.lineage import Parent, continued, find_parent
from tune.memory import MemoryPlan, plan_memory
from tune.parallel import leave
from tune.preflight import examine
from tune.progress import Progress
from tune.proof import Proof, prove
from tune.quiet import quiet
from tune.ranks import is_main, processes
from tune.rows import Dataset
from tune.setup import Setup, settle
from tune.student import Student, open_student
from tune.trainer import Places, StudentTrainer, build_trainer, generation_settings
from tune.training_report import training_report
from tune.watch import Watch, stopping_on_signals

__all__ = ["Checked", "Progress", "StudentResult", "TuneConfig", "check", "train"]

# Share of the memory that a plan may take for activations to be kept: plans for GPUs are computed, not measured.
_ROOMY = 0.7


@dataclass(frozen=True, slots=True)
class StudentResult:
    """A finished candidate.

    `trained` is false where it was there already. `resumed_from` is the step of the checkpoint that this call went
    on from; `kept_step` is the step whose weights the candidate has. Losses are means in nats a token: `train_loss`
    over the last epoch, `validation_loss` of the weights that were kept. `dropped` and `cut` count rows. `notes` say in
    words what the user should know: dropped rows, a template set, a rising loss.
    """

    candidate: str
    path: Path
    trained: bool
    steps: int
    train_loss: float
    validation_loss: float | None
    seconds: float
    dropped: int = 0
    cut: int = 0
    kept_step: int = 0
    resumed_from: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Checked:
    """What is known before a step is taken: the rows as they would be trained on, the setup, the memory it takes."""

    candidate: str
    student: Student
    preflight: Preflight
    setup: Setup | None
    memory: MemoryPlan | None
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return what `tune sft --preflight --json` prints."""
        return {
            **self.preflight.to_json(),
            "setup": None if self.setup is None else self.setup.to_json(),
            "memory": None if self.memory is None else self.memory.to_json(),
            "notes": list(self.notes),
        }


def check(run: Run, config: TuneConfig, *, heldout: Path | None = None) -> Checked:
    """Render and examine every row, and plan the memory, without training: `tune sft RUN --preflight`.

    Faults are in the result, not raised: `Checked.preflight.faults()`. Nothing is written but the log.

    Args:
        run: the run.
        config: what would be trained and how.
        heldout: held-out questions that must not be trained on.

    Raises:
        ConfigError: the student or a setting is wrong.
        RunError: there is no dataset, or it was changed by hand.
        RecordError: a line of the dataset or of the held-out file cannot be read.
    """
    notes = _Notes(None)
    with quiet(run.log_path("sft")):
        job = _Job.of(run, config, notes)
        found = _examined(job, heldout)
        setup, plan = _settled(job, found) if found.train else (None, None)
        if setup is not None and plan is None:
            plan = _planned(job, found, setup)
    return Checked(job.candidate, job.student, found, setup, plan, tuple(notes.said))


def train(
    run: Run,
    config: TuneConfig,
    *,
    heldout: Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> StudentResult:
    """Tune a student, and write it to students/<candidate>/.

    The same settings on the same data find the same candidate: finished, it is returned as it is; killed, it goes on
    from its last whole checkpoint. On a CPU, with as many threads, the weights are then the same byte for byte as if
    it had never stopped. The run is locked meanwhile. What the libraries log goes to logs/sft.log of the run, and
    TensorBoard's files to logs/tensorboard/<candidate>/. Ctrl-C and SIGTERM end the step that runs, save, and raise.

    Args:
        run: a run whose filter stage is finished, or any run where the settings name other data.
        config: what to train and how.
        heldout: held-out questions that must not be trained on; read for that alone.
        on_progress: called after every step and every validation loss.
        on_message: called with each note as it comes up.

    Raises:
        ConfigError: the student or a setting is wrong.
        RunError: there is no dataset, it was changed by hand, the candidate's name is taken, memory or disk ran out,
            or the loss is no longer a number.
        RecordError: rows do not render, are too long, or would not teach the student to answer and stop.
        Interrupted: the user stopped it; a checkpoint was saved.
    """
    if config.folds is not None and config.fold is None:
        raise ConfigError("several folds are trained by tune.train_folds", where="folds", fix="or name one fold")
    clock = _Startup()
    notes = _Notes(on_message if is_main() else None)
    with _locked(run), quiet(run.log_path("sft" if is_main() else "sft-other-processes")), _threads(config.threads):
        clock.mark("imports")
        job = _Job.of(run, config, notes)
        if _finished(job, notes):
            if heldout is not None:
                _examined(job, heldout).raise_if_faulty()  # It may not have been there when it was trained.
            report = json.loads((job.folder / "training.json").read_bytes())
            return _result(job, report, notes, trained=False, resumed=None)
        clock.mark("dataset")
        found = _examined(job, heldout)
        for finding in found.notes():
            notes.add(finding.said)
        found.raise_if_faulty()
        setup, plan = _settled(job, found)
        notes.tell(setup.said())
        if plan is not None and not plan.fits:
            notes.add(f"the memory may not hold this: {plan.said()}")
        _look_at_others(job, setup, notes)
        clock.mark("preflight")
        watch = Watch(on_progress if is_main() else None, config.save_every, early_stopping=config.early_stopping)
        with _within_memory():
            trainer = build_trainer(
                job.student,
                job.config,
                {"train": found.train, "validation": found.validation},
                setup=setup,
                places=job.places(setup),
                watch=watch,
                ordered=job.dataset.ordered,
                parent=None if job.parent is None else job.parent.candidate.folder,
            )
        clock.mark("trainer")
        proofs = _proven(job, found, trainer, setup)
        clock.mark("proof")
        if is_main():
            run.start_stage(job.stage)
            last_complete(job.checkpoints, trainer.places.seal)
        trainer.accelerator.wait_for_everyone()
        resumed = last_complete(job.checkpoints, trainer.places.seal, clean=False)
        if resumed is not None:
            notes.add(f"going on from the checkpoint after step {resumed.step}")
            watch.seconds_before = resumed.seconds
        _run(trainer, resumed)
        clock.first_step(watch.first_step_at)
        kept = _shipped(job, trainer, watch, notes)
        report = training_report(
            candidate=job.candidate,
            config=job.config,
            settings=job.settings,
            setup=setup,
            student=job.student,
            inputs=job.dataset.inputs,
            found=found,
            proofs=proofs,
            log=trainer.state.log_history,
            steps=trainer.state.global_step,
            kept_step=kept,
            stopped_early=watch.stopped_early,
            lineage=() if job.parent is None else job.parent.lineage,
            startup=clock.seconds,
            seconds=watch.seconds,
            notes=notes.said,
        )
        _warn_of_overfitting(report, notes)
        if is_main():
            _place(job, report)
            run.finish_stage(job.stage, _entry(job, found, report, watch.seconds_before + clock.passed()))
            shutil.rmtree(job.work, ignore_errors=True)
        trainer.accelerator.wait_for_everyone()
        leave()
        return _result(job, report, notes, trained=True, resumed=resumed)


@dataclass(frozen=True, slots=True)
class _Job:
    """What is to be trained on what, and where it goes. `settings` is what run.json keeps and the name follows from."""

    run: Run
    config: TuneConfig
    dataset: Dataset
    student: Student
    parent: Parent | None
    settings: Mapping[str, Any]
    candidate: str

    @classmethod
    def of(cls, run: Run, config: TuneConfig, notes: "_Notes") -> "_Job":
        parent = None
        if config.from_ is not None:
            parent = find_parent(run, config.from_)
            config = continued(config, parent, frozenset(config.model_fields_set))
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
        return f"sft:{self.candidate}"

    @property
    def folder(self) -> Path:
        return self.run.student_path(self.candidate)

    @property
    def work(self) -> Path:
        return self.folder.with_name(f".{self.candidate}.part")

    @property
    def made(self) -> Path:
        return self.work / "student"

    @property
    def checkpoints(self) -> Path:
        return self.work / "checkpoints"

    def places(self, setup: Setup) -> Places:
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


class _Notes:
    """Collects what the user should know, and passes it on at once; what is only told is not kept."""

    def __init__(self, on_message: Callable[[str], None] | None) -> None:
        self.said: list[str] = []
        self._on_message = on_message

    def add(self, note: str) -> None:
        self.said.append(note)
        self.tell(note)

    def tell(self, note: str) -> None:
        if self._on_message is not None:
            self._on_message(note)


class _Startup:
    """Times what lies between the command and its first step; `seconds` by part, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = self._last = time.monotonic()
        # What was imported before this module was called counts too.
        self._before = max(0.0, time.time() - psutil.Process().create_time())

    def mark(self, part: str) -> None:
        now = time.monotonic()
        before = self._before if not self.seconds else 0.0
        self.seconds[part] = round(before + now - self._last, 3)
        self._last = now

    def first_step(self, at: float | None) -> None:
        if at is not None:
            self.seconds["first_step"] = round(at - self._last, 3)

    def passed(self) -> float:
        return time.monotonic() - self._began


@contextmanager
def _locked(run: Run) -> Iterator[None]:
    """Hold the run, in the one process that writes it."""
    with run.lock() if is_main() else contextlib.nullcontext():
        yield


@contextmanager
def _within_memory() -> Iterator[None]:
    """Say what to do where the memory runs out."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise RunError(
            "the memory does not hold the training",
            fix="halve --batch-size and double --gradient-accumulation, or lower --max-length; "
            "--method lora needs far less than full; `tune sft RUN --preflight` plans it",
        ) from error


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """Let torch use so many CPU threads while the block runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _finished(job: _Job, notes: _Notes) -> bool:
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


def _examined(job: _Job, heldout: Path | None) -> Preflight:
    """Return every row as it would be trained on, with what is wrong or worth knowing."""
    rows = with_variants(job.dataset.train, job.config.question_variants, job.config.seed)
    dataset = replace(job.dataset, train=rows)
    return examine(dataset, job.student, job.config, heldout=None if heldout is None else load_heldout(heldout))


def _planned(job: _Job, found: Preflight, setup: Setup) -> MemoryPlan:
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


def _settled(job: _Job, found: Preflight) -> tuple[Setup, MemoryPlan | None]:
    """Return what is settled, and on a GPU the memory it takes: there a plan, which takes seconds, is worth its while.

    Activations are kept, in place of computed twice, where the plan says that they fit with room to spare.
    """
    setup = settle(job.config, job.student, found.train)
    if setup.device == "cpu":
        return setup, None
    # Several processes have to decide alike, and each sees the free memory of its own GPU alone.
    if job.config.gradient_checkpointing is None and setup.processes == 1:
        kept = replace(setup, checkpointing=False)
        plan = _planned(job, found, kept)
        if plan.need <= _ROOMY * plan.memory.available:
            return kept, plan
    return setup, _planned(job, found, setup)


def _look_at_others(job: _Job, setup: Setup, notes: _Notes) -> None:
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


def _proven(job: _Job, found: Preflight, trainer: StudentTrainer, setup: Setup) -> dict[str, Proof]:
    """Return what the labels of each side are, proven on the batches that the trainer would take."""
    sides = {"train": (trainer.train_dataset, found.train), "validation": (trainer.eval_dataset, found.validation)}
    return {
        name: prove(prepared, trainer.data_collator, rows, packed=setup.packed is not None, length=setup.packed)
        for name, (prepared, rows) in sides.items()
        if rows
    }


def _run(trainer: StudentTrainer, resumed: Checkpoint | None) -> None:
    """Train, and turn what can happen on the way into errors of ours."""
    watch = trainer.watch
    try:
        with _within_memory(), stopping_on_signals(watch):
            trainer.train_from(None if resumed is None else resumed.step)
    except (TypeError, ValueError) as error:
        if watch.first_step_at is not None:
            raise
        # Some values are only looked at when the optimizer and its schedule are made.
        said = " ".join(str(error).split())[:400]
        raise ConfigError(f"the training does not begin ({said})", where="[sft.trainer]") from error
    if watch.interrupted and not watch.stopped_early and trainer.state.global_step < trainer.state.max_steps:
        raise Interrupted(
            f"stopped after step {trainer.state.global_step} of {trainer.state.max_steps}; the checkpoint is saved",
            fix="run the same command again: it goes on from there",
        )


def _shipped(job: _Job, trainer: StudentTrainer, watch: Watch, notes: _Notes) -> int:
    """Write the weights that the candidate gets into its folder in the making; return the step they are of."""
    if is_main():
        shutil.rmtree(job.made, ignore_errors=True)
        job.made.mkdir(parents=True)
    trainer.accelerator.wait_for_everyone()
    best, last = trainer.best(), int(trainer.state.global_step)
    if watch.stopped_early:
        notes.add(f"stopped early after step {last} of {trainer.state.max_steps}: the validation loss fell no more")
    if best is None:
        trainer.ship(job.made)
    elif is_main():
        for path in best.weights():
            shutil.copy2(path, job.made / path.name)
    trainer.accelerator.wait_for_everyone()
    return last if best is None else best.step


def _warn_of_overfitting(report: Mapping[str, Any], notes: _Notes) -> None:
    checks = report["history"]["validation"]
    best = min(checks, key=lambda point: point["loss"], default=None)
    if best is not None and best is not checks[-1]:
        kept = "its weights were kept" if report["kept_step"] == best["step"] else "the last weights were kept"
        notes.add(
            f"validation loss was lowest after epoch {best['epoch']:g} ({best['loss']:.3f}) and ended at "
            f"{checks[-1]['loss']:.3f}; {kept}; `tune validate` decides"
        )


def _place(job: _Job, report: Mapping[str, Any]) -> None:
    """Write the rest of the candidate beside its weights, make all durable, and rename it into its place."""
    made = job.made
    settings = made / "adapter_config.json"
    if settings.exists():
        # A set of layer names comes out in an order that changes from process to process.
        value = json.loads(settings.read_bytes())
        if isinstance(value.get("target_modules"), list):
            value["target_modules"].sort()
        value["base_model_name_or_path"] = job.student.name
        write_json(settings, value)
        generation_settings(job.student).save_pretrained(made)
    job.student.tokenizer.save_pretrained(made)
    write_json(made / "training.json", report)
    generated = job.run.stages().get("generate")
    teacher = generated.config.get("teacher") if generated is not None else None
    write_text(made / "README.md", model_card(report, teacher=teacher))
    sync_files(made)
    if job.folder.exists():
        shutil.rmtree(job.folder)
    made.rename(job.folder)
    sync_folder(job.folder.parent)


def _entry(job: _Job, found: Preflight, report: Mapping[str, Any], seconds: float) -> StageEntry:
    files = (path for path in job.folder.rglob("*") if path.is_file())
    outputs: dict[str, FileDigest] = {path.relative_to(job.run.path).as_posix(): digest_file(path) for path in files}
    return StageEntry(
        config=job.settings,
        inputs=job.dataset.inputs,
        outputs=outputs,
        counts={
            "train": len(found.train),
            "validation": len(found.validation),
            "dropped": len(found.dropped),
            "cut": len(found.cut),
            "steps": report["steps"],
        },
        usage={"trained_tokens": report["tokens"]["seen"]},
        seconds=seconds,
    )


def _result(
    job: _Job, report: Mapping[str, Any], notes: _Notes, *, trained: bool, resumed: Checkpoint | None
) -> StudentResult:
    return StudentResult(
        candidate=job.candidate,
        path=job.folder,
        trained=trained,
        steps=report["steps"],
        train_loss=report["train_loss"],
        validation_loss=report["validation_loss"],
        seconds=report["seconds"],
        dropped=len(report["dropped"]),
        cut=len(report["cut"]),
        kept_step=report["kept_step"],
        resumed_from=resumed.step if resumed is not None else None,
        notes=tuple(notes.said),
    )
