"""The model card of a candidate: README.md in the hub's format."""

import json
from collections.abc import Mapping
from typing import Any

from synth.inference.weights import model_name

# Kinds of LoRA that a card has to name, since not every engine serves them.
_VARIANTS = {"rslora": "rank-stabilised", "dora": "DoRA"}


def model_card(report: Mapping[str, Any], *, teacher: str | None) -> str:
    """Return README.md for a candidate.

    Args:
        report: the value of training.json.
        teacher: what wrote the training pairs, as run.json has it, or None where it does not say.
    """
    adapter = report["method"] != "full"
    shown = report["hyperparameters"]
    variant = "".join(f"{word}, " for name, word in _VARIANTS.items() if adapter and shown.get(name))
    kind = f"A LoRA adapter ({variant}{report['method']}) for" if adapter else "All weights of"
    data, tokens = report["dataset"], report["tokens"]
    settings = "\n".join(f"| {name} | {_shown(value)} |" for name, value in _told(report))
    packages = ", ".join(f"{name} {version}" for name, version in sorted(report["packages"].items()))
    validation = report["validation_loss"]
    variants = report["hyperparameters"].get("question_variants", 0)
    files = "\n".join(f"| {name} | {d['rows']} | `{d['sha256']}` |" for name, d in data.items())
    rows = " and ".join(f"{number} rows of {side}" for side, number in report["rows"].items())
    shortened = (
        f"\nEach training row counts {1 + variants} times: as it is, and with other words in its question.\n"
        if variants
        else ""
    )
    serve = (
        "Serve it with vLLM beside its base model: `--enable-lora --lora-modules NAME=THIS_FOLDER` "
        f"(`--max-lora-rank` at least {report['hyperparameters']['rank']})."
        if adapter
        else "Serve it as any model folder: `vllm serve THIS_FOLDER`."
    )
    if report["chat_template"] != "own":
        serve += " The base has no chat template of its own: pass `--chat-template THIS_FOLDER/chat_template.jinja`."
    return f"""---
base_model: {json.dumps(report["student"])}
base_model_relation: {"adapter" if adapter else "finetune"}
library_name: {"peft" if adapter else "transformers"}
pipeline_tag: text-generation
tags:
- sft
- trl
- synthetic
- synth-tune
---

# {report["candidate"]}

{kind} {report["student"]}{f" ({report['student_revision']})" if report["student_revision"] else ""}, tuned on
question/answer pairs that {_teacher(teacher)} wrote about a set of documents and a filter kept.

**Not evaluated yet.** The losses below are over generated pairs. `tune validate` asks held-out human questions and
gives a verdict.

## Data

| file | rows | SHA-256 |
| --- | --- | --- |
{files}
{shortened}
Used: {rows}. {tokens["train"]} training tokens, {tokens["labelled"]} of them labelled, the only ones that count in the
loss. Longer than {tokens["max_length"]} tokens were {len(report["dropped"])} rows that were left out and
{len(report["cut"])} that were cut.
Each completion ends in {report["stop_token"]["text"]} (token {report["stop_token"]["id"]}), which the student was
trained to write.

## Training

{report["steps"]} steps{_kept(report)}, seed {report["seed"]}.
Mean training loss over the last epoch {report["train_loss"]:.4f};
validation loss {"not measured, there were no validation rows" if validation is None else f"{validation:.4f}"}.

| setting | value |
| --- | --- |
{settings}

{packages}
{_lineage(report)}
## Use and limits

{serve}

It answers about the documents it was tuned on, as they were then, and can be wrong about them. It keeps the base
model's limits and its licence, and may have lost some of the base model's other skills.
"""


def _told(report: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the settings that say something, and what the machine settled."""
    settings = report["hyperparameters"] | {
        name: report["setup"][name] for name in ("precision", "attention", "packed")
    }
    return [(name, value) for name, value in sorted(settings.items()) if value not in (None, False, {}, [])]


def _kept(report: Mapping[str, Any]) -> str:
    step = report["kept_step"]
    return "" if step == report["steps"] else f" (the weights are those after step {step}, the lowest validation loss)"


def _lineage(report: Mapping[str, Any]) -> str:
    if not report["lineage"]:
        return ""
    lines = "\n".join(
        f"- {parent['candidate']} of {parent['run']}, tuned on "
        + ", ".join(f"{name} `{sha256}`" for name, sha256 in parent["data"].items())
        for parent in report["lineage"]
    )
    return f"\nIt goes on from:\n\n{lines}\n"


def _teacher(named: str | None) -> str:
    if not named:
        return "a teacher model"
    # An address is of one network, and could hold a password.
    return "a teacher behind an endpoint" if "://" in named else model_name(named)


def _shown(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    # A pattern of target modules has bars, which would end the table's cell.
    return text.replace("|", "\\|")
