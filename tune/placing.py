"""A candidate is put together beside its place, made durable, and renamed into it whole."""

import json
import shutil
from collections.abc import Mapping
from typing import Any

from synth.core.jsonl import FileDigest, digest_file, sync_folder, write_json, write_text
from synth.core.runs import StageEntry
from tune.card import model_card
from tune.checkpoints import sync_files
from tune.findings import Preflight
from tune.job import Job, Notes
from tune.ranks import is_main
from tune.trainer import StudentTrainer, generation_settings
from tune.watch import Watch


def ship(job: Job, trainer: StudentTrainer, watch: Watch, notes: Notes) -> int:
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


def place(job: Job, report: Mapping[str, Any]) -> None:
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


def stage_entry(job: Job, found: Preflight, report: Mapping[str, Any], seconds: float) -> StageEntry:
    """Return what run.json says of the finished training."""
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
