"""Train a student on a run's dataset: `tune sft RUN --student MODEL`.

TRL does the training. This module decides what it is given and what is left behind. A candidate is built in
students/.<candidate>.part/ and renamed into place when it is whole, so students/<candidate>/ is never half of one.
A killed training goes on from its last whole checkpoint when the same command runs again.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from synth.core.errors import ConfigError, RunError
from synth.core.jsonl import FileDigest, digest_file, sync_folder, write_json, write_text
from synth.core.runs import Run, StageEntry, stage_fingerprint
from tune.augment import with_variants
from tune.card import model_card, training_report
from tune.checkpoints import Checkpoint, last_complete, sync_files
from tune.config import TuneConfig
from tune.data import Dataset, Measured, measure, read_dataset, within
from tune.preflight import Labels, check_labels
from tune.progress import Progress
from tune.student import Student, open_student
from tune.trainer import ADAPTER_ONLY, StudentTrainer, Watch, build_trainer, quiet

__all__ = ["Progress", "StudentResult", "TuneConfig", "train"]


@dataclass(frozen=True, slots=True)
class StudentResult:
    """A finished candidate.

    `trained` is false where it was there already. `resumed_from` is the step of the checkpoint that this call went
    on from. Losses are means in nats a token: `train_loss` over the last epoch, `validation_loss` after it. `notes`
    say in words what the user should know: dropped rows, a template set, a rising loss.
    """

    candidate: str
    path: Path
    trained: bool
    steps: int
    train_loss: float
    validation_loss: float | None
    seconds: float
    dropped: int = 0
    resumed_from: int | None = None
    notes: tuple[str, ...] = ()


def train(
    run: Run,
    config: TuneConfig,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> StudentResult:
    """Tune a student on the rows that the filter kept, and write it to students/<candidate>/.

    The same settings on the same data find the same candidate: finished, it is returned as it is; killed, it goes on
    from its last whole checkpoint. On a CPU, with as many threads, the weights are then the same byte for byte as if
    it had never stopped. The run is locked meanwhile. What the libraries log goes to logs/sft.log of the run.

    Args:
        run: a run whose filter stage is finished.
        config: what to train and how.
        on_progress: called after every step.
        on_message: called with each note as it comes up.

    Raises:
        ConfigError: the student or a setting is wrong.
        RunError: there is no dataset, it was changed by hand, the candidate's name is taken, memory ran out, or the
            loss is no longer a number.
        RecordError: a row is too long, or its labels would not teach the student to answer and stop.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("tune sft trains in one process", fix="start it without accelerate or torchrun")
    started = time.monotonic()
    notes = _Notes(on_message)
    with run.lock(), quiet(run.log_path("sft")), _threads(config.threads):
        job = _Job.of(run, config)
        if _finished(job, notes):
            report = json.loads((job.folder / "training.json").read_bytes())
            return _result(job, report, notes, trained=False, resumed=None)
        rows, dropped = _fit(job, notes)
        watch = Watch(on_progress, config.save_every)
        trainer = build_trainer(
            job.student, config, rows, precision=job.precision, checkpoints=job.checkpoints, seal=job.seal, watch=watch
        )
        labels = _proven(job, rows, trainer)
        run.start_stage(job.stage)
        resumed = last_complete(job.checkpoints, job.seal)
        if resumed is not None:
            notes.add(f"going on from the checkpoint after step {resumed.step}")
            watch.seconds_before = resumed.seconds
        _run(trainer, resumed)
        report = training_report(
            candidate=job.candidate,
            config=config,
            precision=job.precision,
            student=job.student,
            inputs=job.dataset.inputs,
            labels=labels,
            dropped=dropped,
            log=trainer.state.log_history,
            steps=trainer.state.global_step,
            seconds=watch.seconds,
        )
        _warn_of_overfitting(report, notes)
        _place(job, trainer, report)
        counts = {name: len(side) for name, side in rows.items()}
        entry = StageEntry(
            config=job.settings,
            inputs=job.dataset.inputs,
            outputs=_outputs(job),
            counts={**counts, "dropped": len(dropped), "steps": report["steps"]},
            usage={"trained_tokens": report["tokens"]["seen"]},
            seconds=watch.seconds_before + time.monotonic() - started,
        )
        run.finish_stage(job.stage, entry)
        shutil.rmtree(job.work, ignore_errors=True)
        return _result(job, report, notes, trained=True, resumed=resumed)


@dataclass(frozen=True, slots=True)
class _Job:
    """What is to be trained on what, and where it goes. `settings` is what run.json keeps and the name follows from."""

    run: Run
    config: TuneConfig
    dataset: Dataset
    student: Student
    settings: Mapping[str, Any]
    candidate: str
    precision: str

    @classmethod
    def of(cls, run: Run, config: TuneConfig) -> "_Job":
        dataset = read_dataset(run)
        student = open_student(config.student, revision=config.revision, template=config.chat_template)
        settings = {**config.settings(), "student_revision": student.revision}
        digits = stage_fingerprint(settings, dataset.inputs).partition(":")[2]
        name = config.candidate or f"{config.method}-{digits[:8]}"
        return cls(run, config, dataset, student, settings, name, _precision(config))

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
    def checkpoints(self) -> Path:
        return self.work / "checkpoints"

    @property
    def seal(self) -> str:
        """What a checkpoint has to be of: this job, in this arithmetic."""
        return f"{stage_fingerprint(self.settings, self.dataset.inputs)} {self.precision}"


class _Notes:
    """Collects what the user should know, and passes it on at once."""

    def __init__(self, on_message: Callable[[str], None] | None) -> None:
        self.said: list[str] = []
        self._on_message = on_message

    def add(self, note: str) -> None:
        self.said.append(note)
        if self._on_message is not None:
            self._on_message(note)


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """Let torch use so many CPU threads while the block runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _precision(config: TuneConfig) -> str:
    if config.precision != "auto":
        return config.precision
    has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if has_bf16 else "fp32"


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


def _fit(job: _Job, notes: _Notes) -> tuple[dict[str, list[Measured]], list[dict[str, Any]]]:
    """Return the rows of each side that fit the student's context, and those left out."""
    student, limit = job.student, job.config.max_length or job.student.context
    if student.template == "plain":
        why = "" if job.config.chat_template == "plain" else f", since {student.name} has none of its own"
        notes.add(f"chat template: the plain one, saved with the student{why}")
    if limit is None:
        notes.add("the student names no context length, so no row counts as too long: set --max-length")
    elif student.context is not None and limit > student.context:
        raise ConfigError(
            f"{student.name} reads {student.context} tokens, not {limit}",
            where="--max-length",
            fix="lower it, or take a student with a longer context",
        )
    kept: dict[str, list[Measured]] = {}
    dropped: list[dict[str, Any]] = []
    train = with_variants(job.dataset.train, job.config.question_variants, job.config.seed)
    if len(train) > len(job.dataset.train):
        notes.add(
            f"{len(job.dataset.train)} rows to train on and {len(train) - len(job.dataset.train)} shortened questions"
        )
    for name, side in (("train", train), ("validation", job.dataset.validation)):
        measured = measure(side, student.tokenizer)
        kept[name], longer = within(measured, limit, drop=job.config.on_overflow == "drop")
        dropped += [{"id": m.row.id, "split": name, "tokens": m.tokens} for m in longer]
    if not kept["train"]:
        raise RunError(
            f"all {len(job.dataset.train)} rows are longer than {limit} tokens",
            where=str(job.run.train_path),
            fix="raise --max-length or take a student with a longer context",
        )
    if dropped:
        notes.add(f"rows longer than {limit} tokens, left out: {len(dropped)}; training.json names them")
    return kept, dropped


def _proven(job: _Job, rows: Mapping[str, list[Measured]], trainer: StudentTrainer) -> dict[str, Labels]:
    """Return what the labels of each side are, proven on the batches that the trainer would take."""
    prepared = {"train": trainer.train_dataset, "validation": trainer.eval_dataset}
    return {
        name: check_labels(prepared[name], trainer.data_collator, side, job.student)
        for name, side in rows.items()
        if side
    }


def _run(trainer: StudentTrainer, resumed: Checkpoint | None) -> None:
    try:
        trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed.folder))
    except torch.OutOfMemoryError as error:
        raise RunError(
            "the memory does not hold the training",
            fix="halve --batch-size and double --gradient-accumulation, or lower --max-length; "
            "--method lora needs far less than full",
        ) from error


def _warn_of_overfitting(report: Mapping[str, Any], notes: _Notes) -> None:
    checks = report["history"]["validation"]
    best = min(checks, key=lambda point: point["loss"], default=None)
    if best is not None and best is not checks[-1]:
        notes.add(
            f"validation loss was lowest after epoch {best['epoch']:g} ({best['loss']:.3f}) and ended at "
            f"{checks[-1]['loss']:.3f}; fewer epochs may do, `tune validate` decides"
        )


def _place(job: _Job, trainer: StudentTrainer, report: Mapping[str, Any]) -> None:
    """Write the candidate beside its place, make it durable, and rename it there."""
    made = job.work / "student"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    model = trainer.accelerator.unwrap_model(trainer.model)
    if job.config.method == "lora":
        model.save_pretrained(made, **ADAPTER_ONLY)
        # A set of layer names comes out in an order that changes from process to process.
        settings = json.loads((made / "adapter_config.json").read_bytes())
        if isinstance(settings.get("target_modules"), list):
            settings["target_modules"].sort()
        write_json(made / "adapter_config.json", settings)
    else:
        # Trainer adds the tokenizer's special tokens to these settings; replies shall stop where the base's do.
        stop_ids = sorted(job.student.stop_ids)
        model.generation_config = job.student.generation or GenerationConfig(eos_token_id=stop_ids)
        dtype = getattr(job.student.config, "dtype", None)
        model.to(dtype if isinstance(dtype, torch.dtype) else torch.float32).save_pretrained(made)
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


def _outputs(job: _Job) -> dict[str, FileDigest]:
    files = (path for path in job.folder.rglob("*") if path.is_file())
    return {path.relative_to(job.run.path).as_posix(): digest_file(path) for path in files}


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
        resumed_from=resumed.step if resumed is not None else None,
        notes=tuple(notes.said),
    )
