"""What is written about a candidate: training.json for programs, the model card for people."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from synth.core.runs import package_versions
from synth.inference.weights import model_name

if TYPE_CHECKING:
    from synth.core.jsonl import FileDigest
    from tune.config import TuneConfig
    from tune.preflight import Labels
    from tune.student import Student

TRAINING_VERSION = 1

# Settings that have a place of their own in training.json.
_TOLD_ELSEWHERE = frozenset({"student", "revision", "method", "seed"})


def training_report(
    *,
    candidate: str,
    config: "TuneConfig",
    precision: str,
    student: "Student",
    inputs: Mapping[str, "FileDigest"],
    labels: Mapping[str, "Labels"],
    dropped: Sequence[Mapping[str, Any]],
    log: Sequence[Mapping[str, float]],
    steps: int,
    seconds: float,
) -> dict[str, Any]:
    """Return the value of training.json.

    Args:
        candidate: the name under students/.
        config: as the user set it.
        precision: the arithmetic that was used, "bf16" or "fp32".
        student: what was tuned.
        inputs: digests of the dataset's files.
        labels: what was proven of the rows of "train" and, where there are any, "validation".
        dropped: the rows left out as too long.
        log: Trainer's log history.
        steps: optimizer steps.
        seconds: wall-clock time of the training.
    """
    history = [_point(entry, "") for entry in log if "loss" in entry]
    checks = [_point(entry, "eval_") for entry in log if "eval_loss" in entry]
    trained = labels["train"]
    shown = {name: value for name, value in config.settings().items() if name not in _TOLD_ELSEWHERE}
    files = {name: inputs.get(f"dataset/{name}.jsonl") for name in ("train", "validation")}
    return {
        "version": TRAINING_VERSION,
        "candidate": candidate,
        "method": config.method,
        "student": student.name,
        "student_revision": student.revision,
        "seed": config.seed,
        "hyperparameters": {**shown, "precision": precision},
        "dataset": {
            name: {**digest.to_json(), "used": labels[name].rows if name in labels else 0}
            for name, digest in files.items()
            if digest is not None
        },
        "dropped": list(dropped),
        "steps": steps,
        "train_loss": _last_epoch_loss(history),
        "validation_loss": checks[-1]["loss"] if checks else None,
        "stop_token": {"id": trained.stop_id, "text": trained.stop_token},
        "chat_template": student.template,
        "tokens": {
            "train": trained.tokens,
            "labelled": trained.labelled,
            "validation": labels["validation"].tokens if "validation" in labels else 0,
            "seen": trained.tokens * config.epochs,
            "max_length": config.max_length or student.context,
        },
        "history": {"train": history, "validation": checks},
        "packages": package_versions(),
        "seconds": round(seconds, 3),
    }


def _point(entry: Mapping[str, float], prefix: str) -> dict[str, float]:
    return {
        "step": entry["step"],
        "epoch": round(entry["epoch"], 4),
        "loss": entry[f"{prefix}loss"],
        "token_accuracy": entry[f"{prefix}mean_token_accuracy"],
    }


def _last_epoch_loss(history: Sequence[Mapping[str, float]]) -> float:
    """Return the mean training loss over the last epoch, each point weighted by the steps it stands for."""
    start = history[-1]["epoch"] - 1
    weighted = weight = 0.0
    before = 0.0
    for point in history:
        if point["epoch"] > start:
            steps = point["step"] - before
            weighted, weight = weighted + point["loss"] * steps, weight + steps
        before = point["step"]
    return weighted / weight


def model_card(report: Mapping[str, Any], *, teacher: str | None) -> str:
    """Return README.md for a candidate.

    Args:
        report: the value of training.json.
        teacher: what wrote the training pairs, as run.json has it, or None where it does not say.
    """
    lora = report["method"] == "lora"
    kind = "A LoRA adapter for" if lora else "All weights of"
    data, tokens = report["dataset"], report["tokens"]
    settings = "\n".join(f"| {name} | {_shown(value)} |" for name, value in sorted(report["hyperparameters"].items()))
    packages = ", ".join(f"{name} {version}" for name, version in sorted(report["packages"].items()))
    validation = report["validation_loss"]
    variants = report["hyperparameters"].get("question_variants", 0)
    files = "\n".join(
        f"| {name} | {d['used']} of {d['rows'] * (1 + variants * (name == 'train'))} | `{d['sha256']}` |"
        for name, d in data.items()
    )
    shortened = (
        f"\nEach training row counts {1 + variants} times: as it is, and with shortened questions.\n"
        if variants
        else ""
    )
    serve = (
        "Serve it with vLLM beside its base model: `--enable-lora --lora-modules NAME=THIS_FOLDER` "
        f"(`--max-lora-rank` at least {report['hyperparameters']['rank']})."
        if lora
        else "Serve it as any model folder: `vllm serve THIS_FOLDER`."
    )
    if report["chat_template"] != "own":
        serve += " The base has no chat template of its own: pass `--chat-template THIS_FOLDER/chat_template.jinja`."
    return f"""---
base_model: {report["student"]}
library_name: {"peft" if lora else "transformers"}
pipeline_tag: text-generation
tags: [sft, trl, synthetic, synth-tune]
---

# {report["candidate"]}

{kind} {report["student"]}{f" ({report['student_revision']})" if report["student_revision"] else ""}, tuned on
question/answer pairs that {_teacher(teacher)} wrote about a set of documents and a filter kept.

**Not evaluated yet.** The losses below are over generated pairs. `tune validate` asks held-out human questions and
gives a verdict.

## Data

| split | rows used | SHA-256 of dataset/*.jsonl |
| --- | --- | --- |
{files}
{shortened}
{tokens["train"]} training tokens, {tokens["labelled"]} of them in completions, the only ones that count in the loss.
{len(report["dropped"])} rows were left out as longer than {tokens["max_length"]} tokens; none was cut.
Each completion ends in {report["stop_token"]["text"]} (token {report["stop_token"]["id"]}), which the student was
trained to write.

## Training

{report["steps"]} steps, seed {report["seed"]}. Mean training loss over the last epoch {report["train_loss"]:.4f};
validation loss {"not measured, there were no validation rows" if validation is None else f"{validation:.4f}"}.

| setting | value |
| --- | --- |
{settings}

{packages}

## Use and limits

{serve}

It answers about the documents it was tuned on, as they were then, and can be wrong about them. It keeps the base
model's limits and its licence, and may have lost some of the base model's other skills.
"""


def _teacher(named: str | None) -> str:
    if not named:
        return "a teacher model"
    # An address is of one network, and could hold a password.
    return "a teacher behind an endpoint" if "://" in named else model_name(named)


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
