"""What a training in several processes needs to be told that one in a single process does not; heavy.

accelerate says in the environment how the weights are shared out: whole in each process (DDP), split by FSDP, or split
by DeepSpeed. On a CPU, where configs are tried out and tested, processes talk through gloo.
"""

import logging
import os
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType

from tune.ranks import processes


def process_arguments(*, on_cpu: bool) -> dict[str, Any]:
    """Return the settings of SFTConfig that follow from how many processes train, and on what."""
    arguments: dict[str, Any] = {"use_cpu": on_cpu}
    if on_cpu:
        # Where DeepSpeed is installed, libraries import it to look; it would print to stdout that it found no GPU.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    if processes() == 1 and not _flag("DEEPSPEED"):
        return arguments
    # Every weight that is trained takes part in every step; looking for others costs a walk through the graph.
    arguments["ddp_find_unused_parameters"] = False
    if _flag("DEEPSPEED"):
        _prepare_deepspeed(on_cpu=on_cpu)
        if on_cpu:
            # accelerate turns DeepSpeed off where it is told to use the CPU; the device says so instead.
            arguments |= {"use_cpu": False, "ddp_backend": "gloo"}
    return arguments


def share_out_weights(*, on_cpu: bool) -> None:
    """Let FSDP split the weights on a CPU as well. Called once SFTConfig, which resets accelerate, is made."""
    # accelerate looks for its FSDP settings where several GPUs train, and the kind of process group is all it asks.
    if on_cpu and _flag("FSDP"):
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def are_split() -> bool:
    """Whether no process holds all weights."""
    return _flag("FSDP") or _flag("DEEPSPEED")


def whole_weights(trainer: Any) -> dict[str, torch.Tensor]:  # noqa: ANN401  (TRL's trainer, untyped)
    """Return all weights on the first process and none on the others, each tensor once. Every process calls this."""
    weights: dict[str, torch.Tensor] = trainer.accelerator.get_state_dict(trainer.model_wrapped) or {}
    model = trainer.accelerator.unwrap_model(trainer.model)
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    # Gathered, tied embeddings share their memory no more, and would be saved twice.
    return {name: weight for name, weight in weights.items() if tied.get(name) not in weights}


def leave() -> None:
    """End the group of processes, once nothing is left to be said between them."""
    if processes() > 1 and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _prepare_deepspeed(*, on_cpu: bool) -> None:
    if on_cpu:
        os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    import deepspeed

    # It prints to stdout, where the result goes.
    logger, ours = logging.getLogger("DeepSpeed"), logging.getLogger("accelerate")
    logger.handlers, logger.propagate = list(ours.handlers), ours.propagate
    if on_cpu:
        # It would compile an extension for messages between processes of one machine, for minutes and with a compiler,
        # and a start that is killed meanwhile leaves a lock on which all later ones wait. gloo does the same.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _flag(name: str) -> bool:
    return os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() == "true"
