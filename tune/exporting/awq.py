"""Quantize a model to four bits with llm-compressor: `PYTHON awq.py MODEL TARGET CALIBRATION.jsonl`.

A script for the Python that has llm-compressor, which wants other package versions than the rest: it imports nothing
of this project. AWQ (Lin et al. 2023) scales the channels that matter before the weights are rounded; which matter is
seen on the calibration rows, lines of `{"input_ids": […]}`.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

GROUPS = (128, 64, 32)  # Weights that share a scale; the sizes that vLLM's kernels know.


def group_size(model: Any) -> int:  # noqa: ANN401  (this Python's own transformers)
    """Return the largest size of groups that divides every layer's width."""
    torch = importlib.import_module("torch")
    head = model.get_output_embeddings()
    widths = {m.in_features for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head}
    for size in GROUPS:
        if all(width % size == 0 for width in widths):
            return size
    raise SystemExit(f"no group size of {', '.join(map(str, GROUPS))} divides the layers' widths {sorted(widths)}")


def main() -> None:
    """Quantize, and write the model in the format of compressed-tensors, which vLLM reads."""
    source, target, calibration = map(Path, sys.argv[1:])
    torch = importlib.import_module("torch")
    transformers = importlib.import_module("transformers")
    datasets = importlib.import_module("datasets")
    schemes = importlib.import_module("compressed_tensors.quantization")
    oneshot = importlib.import_module("llmcompressor").oneshot
    awq = importlib.import_module("llmcompressor.modifiers.transform.awq")
    quantization = importlib.import_module("llmcompressor.modifiers.quantization")

    if not torch.accelerator.is_available():
        # llm-compressor (0.14) pins what it caches, to copy it to a GPU faster; without a GPU torch refuses that.
        torch.Tensor.pin_memory = lambda tensor, *_: tensor

    model = transformers.AutoModelForCausalLM.from_pretrained(source, dtype="auto", local_files_only=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, local_files_only=True)
    rows = [json.loads(line)["input_ids"] for line in calibration.read_text(encoding="utf-8").splitlines()]
    weights = schemes.QuantizationArgs(
        num_bits=4, type="int", symmetric=False, strategy="group", group_size=group_size(model)
    )
    scheme = schemes.QuantizationScheme(targets=["Linear"], weights=weights)
    oneshot(
        model=model,
        tokenizer=tokenizer,
        dataset=datasets.Dataset.from_list([{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in rows]),
        recipe=[
            awq.AWQModifier(duo_scaling="both"),
            quantization.QuantizationModifier(config_groups={"group_0": scheme}, ignore=["lm_head"]),
        ],
        num_calibration_samples=len(rows),
        max_seq_length=max(map(len, rows)),
        shuffle_calibration_samples=False,
    )
    model.save_pretrained(target, save_compressed=True)
    tokenizer.save_pretrained(target)


if __name__ == "__main__":
    main()
