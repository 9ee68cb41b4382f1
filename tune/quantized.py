"""A student in four bits to train an adapter beside (QLoRA: Dettmers et al. 2023, sections 2 and 3).

The weights are held as 4-bit NormalFloat with the scales quantized once more, about 4.13 bits each, and are unpacked
layer by layer for each product. Embeddings, norms and the output head stay as they are. Only the adapter is trained.
"""

import importlib
import importlib.metadata
import warnings
from typing import Any, Literal

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel

from synth.core.errors import ConfigError

_PACKAGE = "bitsandbytes"
_LEAST = (0, 46, 1)  # The first that transformers takes; it has the kernels for CPUs too.


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
    fix: Literal["pip install -U bitsandbytes"] = "pip install -U bitsandbytes"
    where = "--method qlora"
    try:
        version = importlib.metadata.version(_PACKAGE)
        with warnings.catch_warnings():
            # It warns of torch features that it will have to leave one day; that is no news for the user.
            warnings.simplefilter("ignore")
            importlib.import_module(_PACKAGE)
    except ImportError as error:
        if isinstance(error, importlib.metadata.PackageNotFoundError):
            raise ConfigError(
                "four-bit weights need the package bitsandbytes, which is not installed", where=where, fix=fix
            ) from error
        raise ConfigError(
            f"bitsandbytes does not load here ({' '.join(str(error).split())[:200]})", where=where, fix=fix
        ) from error
    least = ".".join(map(str, _LEAST))
    if tuple(int(part) for part in version.split(".")[:3] if part.isdigit()) < _LEAST:
        raise ConfigError(f"bitsandbytes {version} is too old; {least} or later is needed", where=where, fix=fix)
