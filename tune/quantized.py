"""A student in four bits to train an adapter beside (QLoRA: Dettmers et al. 2023, sections 2 and 3).

The weights are held as 4-bit NormalFloat with the scales quantized once more, about 4.13 bits each, and are unpacked
layer by layer for each product. Embeddings, norms and the output head stay as they are. Only the adapter is trained.
"""

import importlib
import importlib.metadata
import warnings
from typing import Any

import torch
from packaging.version import Version
from transformers import BitsAndBytesConfig, PreTrainedModel

from synth.core.errors import ConfigError

_LEAST = Version("0.46.1")  # The first that transformers takes; it has kernels for CPUs too.


def quantization(precision: str) -> BitsAndBytesConfig:
    """Return how transformers shall load a student in four bits: NF4, double quantization.

    Args:
        precision: "bf16" or "fp32", the arithmetic of the products and of all that is not quantized.

    Raises:
        ConfigError: bitsandbytes is missing, too old, or does not load here.
    """
    _check_package()
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=arithmetic(precision),
    )


def arithmetic(precision: str) -> torch.dtype:
    """Return the type that the weights which are not quantized are loaded in."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def prepare(model: PreTrainedModel) -> int:
    """Give the trained weights fp32 again, and return how many there are; call it when the trainer is built.

    TRL 1.16 rounds the adapter of a quantized model to bf16. Three digits are too few to add up small steps: an update
    below 1/256 of a weight is lost. The optimizer is made later, when training begins, so it sees the fp32 weights.
    Nothing more is to be done: peft's prepare_model_for_kbit_training would also blow up embeddings and output head to
    fp32 (2.3 GiB each for 8 billion weights), and what it does for checkpointing TRL does itself.

    Raises:
        ConfigError: the model holds no four-bit weight, so it is not what the method says.
    """
    if not four_bit_weights(model):
        raise ConfigError(
            "none of the student's layers could be held in four bits",
            where="--method qlora",
            fix="take --method lora, or a student with ordinary linear layers",
        )
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in trained:
        weight.data = weight.data.to(torch.float32)
    return sum(weight.numel() for weight in trained)


def four_bit_weights(model: PreTrainedModel) -> int:
    """Return how many weights the model holds in four bits."""
    packed: list[Any] = [weight for weight in model.parameters() if type(weight).__name__ == "Params4bit"]
    return sum(2 * weight.numel() * weight.element_size() for weight in packed)


def _check_package() -> None:
    fix = "install it with `pip install -U bitsandbytes`, or take --method lora"
    try:
        version = importlib.metadata.version("bitsandbytes")
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError(
            "four-bit weights need the package bitsandbytes, which is not installed", where="--method qlora", fix=fix
        ) from error
    if Version(version) < _LEAST:
        raise ConfigError(
            f"bitsandbytes {version} is too old: {_LEAST} or later is needed", where="--method qlora", fix=fix
        )
    try:
        with warnings.catch_warnings():
            # It warns of what torch will take away one day; that is no news for the user.
            warnings.simplefilter("ignore")
            importlib.import_module("bitsandbytes")
    except (ImportError, OSError, RuntimeError) as error:
        said = " ".join(str(error).split())[:200]
        raise ConfigError(f"bitsandbytes does not load here ({said})", where="--method qlora", fix=fix) from error
