"""Train a student on a dataset: `tune sft RUN --student MODEL`.

TRL does the training. This module decides what it is given and what is left behind. A candidate is built in
students/.<candidate>.part/ and renamed into place when it is whole, so students/<candidate>/ is never half of one.
A killed training goes on from its last whole checkpoint when the same command runs again.

Started by `accelerate launch`, every process runs this; the first one alone locks the run, writes it, and speaks.
"""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from synth.core.errors import ConfigError, Interrupted, RunError
from synth.core.runs import Run
from tune.building import build_trainer
from tune.checkpoints import Checkpoint, last_complete
from tune.config import TuneConfig
from tune.findings import Preflight
from tune.job import Job, Notes, Startup, examined, is_finished, look_at_others, planned, settled
from tune.memory import MemoryPlan
from tune.parallel import leave
from tune.placing import place, ship, stage_entry
from tune.progress import Progress
from tune.proof import Proof, prove
from tune.quiet import quiet
from tune.ranks import is_main
from tune.setup import Setup
from tune.student import Student
from tune.trainer import StudentTrainer
from tune.training_report import training_report
from tune.watch import Watch, stopping_on_signals

__all__ = ["Checked", "Progress", "StudentResult", "TuneConfig", "check", "train"]


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
    notes = Notes(None)
    with quiet(run.log_path("sft")):
        job = Job.of(run, config, notes)
        found = examined(job, heldout)
        setup, plan = settled(job, found) if found.train else (None, None)
        if setup is not None and plan is None:
            plan = planned(job, found, setup)
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
    clock = Startup()
    notes = Notes(on_message if is_main() else None)
    with _locked(run), quiet(run.log_path("sft" if is_main() else "sft-other-processes")), _threads(config.threads):
        clock.mark("imports")
        job = Job.of(run, config, notes)
        if is_finished(job, notes):
            if heldout is not None:
                examined(job, heldout).raise_if_faulty()  # It may not have been there when it was trained.
            report = json.loads((job.folder / "training.json").read_bytes())
            return _result(job, report, notes, trained=False, resumed=None)
        clock.mark("dataset")
        found = examined(job, heldout)
        for finding in found.notes():
            notes.add(finding.said)
        found.raise_if_faulty()
        setup, plan = settled(job, found)
        notes.tell(setup.said())
        if plan is not None and not plan.fits:
            notes.add(f"the memory may not hold this: {plan.said()}")
        look_at_others(job, setup, notes)
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
        kept = ship(job, trainer, watch, notes)
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
            place(job, report)
            run.finish_stage(job.stage, stage_entry(job, found, report, watch.seconds_before + clock.passed()))
            shutil.rmtree(job.work, ignore_errors=True)
        trainer.accelerator.wait_for_everyone()
        leave()
        return _result(job, report, notes, trained=True, resumed=resumed)


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


def _proven(job: Job, found: Preflight, trainer: StudentTrainer, setup: Setup) -> dict[str, Proof]:
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


def _warn_of_overfitting(report: Mapping[str, Any], notes: Notes) -> None:
    checks = report["history"]["validation"]
    best = min(checks, key=lambda point: point["loss"], default=None)
    if best is not None and best is not checks[-1]:
        kept = "its weights were kept" if report["kept_step"] == best["step"] else "the last weights were kept"
        notes.add(
            f"validation loss was lowest after epoch {best['epoch']:g} ({best['loss']:.3f}) and ended at "
            f"{checks[-1]['loss']:.3f}; {kept}; `tune validate` decides"
        )


def _result(
    job: Job, report: Mapping[str, Any], notes: Notes, *, trained: bool, resumed: Checkpoint | None
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
