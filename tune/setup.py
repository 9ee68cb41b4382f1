"""What is settled before a trainer is built: arithmetic, attention, packing, the size of a step.

Settings that say "auto" are decided here, from the machine and the rows, and shown in the report.
"""

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from synth.core.errors import ConfigError
from tune.config import TuneConfig
from tune.ranks import processes
from tune.rows import Rendered
from tune.student import Student

PACKED_TOKENS = 4096
"""The usual length of a packed sequence."""


@dataclass(frozen=True, slots=True)
class Setup:
    """How this machine trains these rows.

    `packed` is the length of packed sequences in tokens, or None where rows are padded. `batch_size` counts rows, or
    packed sequences, per process; `accumulation` batches make a step.
    """

    device: str
    precision: Literal["bf16", "fp32"]
    attention: str
    kernels: bool
    checkpointing: bool
    packed: int | None
    batch_size: int
    accumulation: int
    processes: int

    def said(self) -> str:
        """Return it in a sentence."""
        what = "rows" if self.packed is None else f"packed sequences of {self.packed} tokens"
        each = "" if self.processes == 1 else f" in each of {self.processes} processes"
        extras = (", activations computed twice" if self.checkpointing else "") + (", kernels" if self.kernels else "")
        return (
            f"{self.device}, {self.precision}, {self.attention} attention{extras}; a step is {self.accumulation} x "
            f"{self.batch_size} {what}{each}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the setup as it stands in training.json."""
        return asdict(self)


def settle(config: TuneConfig, student: Student, rows: Sequence[Rendered]) -> Setup:
    """Decide what the settings leave to the machine.

    Args:
        config: what the user set.
        student: what is tuned.
        rows: the training rows.

    Raises:
        ConfigError: a setting does not go with this machine or these rows.
    """
    gpu = torch.cuda.is_available()
    precision = _precision(config)
    longest = max(row.tokens for row in rows)
    packed = None
    batch_size, accumulation = config.batch_size, config.gradient_accumulation
    if config.packing or (config.packing is None and gpu and config.curriculum is None):
        mean = sum(row.tokens for row in rows) / len(rows)
        packed = _packed_length(config, student, longest, mean)
        # A step sees about as many rows as it would unpacked: learning rates and steps keep their meaning.
        batch_size, accumulation = 1, max(1, round(config.batch_size * config.gradient_accumulation * mean / packed))
    elif config.packing_length is not None:
        raise ConfigError("nothing is packed here", where="--packing-length", fix="add --packing")
    return Setup(
        device=device_name(),
        precision=precision,
        attention=_attention(config, precision),
        kernels=config.kernels and gpu,
        checkpointing=gpu if config.gradient_checkpointing is None else config.gradient_checkpointing,
        packed=packed,
        batch_size=batch_size,
        accumulation=accumulation,
        processes=processes(),
    )


def steps_per_epoch(sequences: int, setup: Setup) -> int:
    """Return the optimizer steps of an epoch over so many rows or packed sequences, as Trainer counts them."""
    batches = math.ceil(math.ceil(sequences / setup.batch_size) / setup.processes)
    return math.ceil(batches / setup.accumulation)


def device_name() -> str:
    """Return what trains, such as the GPU's name, or "cpu"."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def _precision(config: TuneConfig) -> Literal["bf16", "fp32"]:
    if config.precision != "auto":
        return config.precision
    has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if has_bf16 else "fp32"


def _packed_length(config: TuneConfig, student: Student, longest: int, mean: float) -> int:
    if config.packing_length is not None:
        if config.packing_length < longest:
            raise ConfigError(
                f"a row has {longest} tokens and would not fit a sequence of {config.packing_length}",
                where="--packing-length",
                fix=f"raise it to {longest}, or lower --max-length with --on-overflow drop",
            )
        return config.packing_length
    of_one_step = math.ceil(config.batch_size * config.gradient_accumulation * mean)
    return max(longest, min(PACKED_TOKENS, of_one_step))


def _attention(config: TuneConfig, precision: str) -> str:
    if config.attention != "auto":
        return config.attention
    if torch.cuda.is_available() and precision == "bf16":
        for package, name in (("flash_attn_interface", "flash_attention_3"), ("flash_attn", "flash_attention_2")):
            if importlib.util.find_spec(package) is not None:
                return name
    return "sdpa"
