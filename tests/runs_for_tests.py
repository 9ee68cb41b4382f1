"""Runs and students small enough to train in a test: real files, written as the stages write them."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from synth.core.jsonl import write_jsonl
from synth.core.resources import resource
from synth.core.runs import Run, StageEntry

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

_FACTS = (
    ("How much water does the kettle hold?", "It holds 1.7 litres."),
    ("What does the red light mean?", "The tank is empty."),
    ("How often should I descale it?", "Every six weeks."),
    ("What does the lamp cost?", "It costs 40 pounds."),
    ("Where must the lamp not stand?", "It must not stand on carpet, nor beside a curtain or a stove."),
    ("Who may open the back?", "Only a trained fitter may open it."),
)


def row(number: int, document: str = "kettle.md", question: str = "", answer: str = "") -> dict[str, Any]:
    """Return a line of dataset/*.jsonl."""
    asked, told = _FACTS[number % len(_FACTS)]
    return {
        "prompt": [{"role": "user", "content": question or f"{asked} ({number})"}],
        "completion": [{"role": "assistant", "content": answer or told}],
        "id": f"row-{number:03d}",
        "document_id": document,
    }


def filtered_run(
    path: Path, train: Sequence[dict[str, Any]] | None = None, validation: Sequence[dict[str, Any]] | None = None
) -> Run:
    """Write a run whose generate and filter stages are finished; by default of 12 training and 3 validation rows."""
    run = Run.create(path)
    train = [row(i) for i in range(12)] if train is None else train
    validation = [row(i, "lamp.txt") for i in range(20, 23)] if validation is None else validation
    outputs = {
        "dataset/train.jsonl": write_jsonl(run.train_path, train),
        "dataset/validation.jsonl": write_jsonl(run.validation_path, validation),
    }
    run.finish_stage("generate", StageEntry(config={"teacher": "org/teacher-7b", "seed": 0}))
    run.finish_stage("filter", StageEntry(config={"seed": 0}, outputs=outputs))
    return run


def tiny_student(path: Path, *, template: str | None = CHATML) -> Path:
    """Copy the bundled model's weights to `path` as a student with this chat template, or with none."""
    shutil.copytree(resource("demo", "models") / "teacher", path)
    (path / "chat_template.jinja").unlink(missing_ok=True)
    if template is not None:
        (path / "chat_template.jinja").write_text(template)
    return path
