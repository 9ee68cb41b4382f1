"""What is written about an exported model: export.json for programs, README.md for people."""

from collections.abc import Mapping
from typing import Any


def export_card(report: Mapping[str, Any], name: str) -> str:
    """Return README.md for an exported model.

    Args:
        report: the value of export.json.
        name: the folder's name.
    """
    gguf = report["quantization"] is not None and report["quantization"]["method"] == "gguf"
    relation = "quantized" if report["quantization"] else "finetune"
    commit = f" ({report['student_revision']})" if report["student_revision"] else ""
    made = (
        f"All weights were tuned; here they are {report['dtype']}."
        if report["method"] == "full"
        else f"The adapter was merged into its base; the weights are {report['dtype']}."
    )
    serve = (
        "Run it with llama.cpp: `llama-server -m FILE.gguf --jinja`."
        if gguf
        else "Serve it as any model folder: `vllm serve THIS_FOLDER`. Tune it again as `--student THIS_FOLDER`."
    )
    data = ", ".join(f"{name}: SHA-256 `{sha256}`" for name, sha256 in report["data"].items())
    return f"""---
base_model: {report["student"]}
base_model_relation: {relation}
library_name: {"gguf" if gguf else "transformers"}
pipeline_tag: text-generation
tags: [sft, trl, synthetic, synth-tune]
---

# {name}

Made of the candidate {report["candidate"]} (weights `{report["candidate_weights"]}`), which was tuned from
{report["student"]}{commit} on generated question/answer pairs ({data}).
{made}{_quantized(report)}

**What was judged is the candidate.** This model is held to it by the check below, not by held-out questions of its own.

## Does it answer as the candidate does?

{_parity(report)}

## Use and limits

{serve}

training.json beside this file tells how the candidate was trained. The model keeps the limits and the licence of
{report["student"]}, and can be wrong about the documents it was tuned on.
"""


def _quantized(report: Mapping[str, Any]) -> str:
    how = report["quantization"]
    if how is None:
        return ""
    if how["method"] == "gguf":
        return f"\nThe merged model was then written as GGUF ({how['type']}) by llama.cpp's converter."
    return f"\nThe merged model was then quantized to four bits with AWQ by llm-compressor {how['version']}."


def _parity(report: Mapping[str, Any]) -> str:
    if not report["parity"]:
        return "It was not asked (--no-parity)."
    rows = "\n".join(
        f"| {check['what']} | {check['exported_by']} | {check['candidate_by']} | "
        f"{check['identical']} of {check['prompts']} | "
        f"{check['mean']:.4f} | {check['largest']:.4f} | {_allowed(check['tolerance'])} |"
        for check in report["parity"]
    )
    note = "".join(f"\n\nNote: {said}." for said in report["notes"])
    return f"""Both were asked the same prompts of the run, greedily. The differences are between the log probabilities
(nats) that both give to each token of the candidate's replies.

| model | served by | candidate by | identical replies | mean difference | largest | allowed |
| --- | --- | --- | --- | --- | --- | --- |
{rows}{note}"""


def _allowed(tolerance: Mapping[str, float] | None) -> str:
    return "any" if tolerance is None else f"{tolerance['mean']:g} and {tolerance['largest']:g}"
