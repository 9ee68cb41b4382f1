"""An adapter and its base, made one model: torch, transformers and peft load with this module."""

import contextlib
import math
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from synth.core.errors import ConfigError, RunError
from tune.adapter import is_adapter
from tune.candidate import Candidate

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_SPARE_BYTES = 64 << 20  # for the tokenizer and the small files beside the weights


def write_merged(candidate: Candidate, folder: Path, dtype: str | None) -> str:
    """Write the tuned model as one model folder, and return its type: "bf16", "fp16" or "fp32".

    The weights of the base are held in their own type, and each layer that the adapter changes is merged in 32 bits
    and rounded once, so a merge takes little more memory than the base. The candidate's tokenizer, chat template and
    generation settings go with the weights; where a base has no generation settings, those that name the stop tokens
    are written.

    Args:
        candidate: an adapter, or whole weights, which are converted alone.
        folder: where to write; it has to be there.
        dtype: "bf16", "fp16" or "fp32"; None is the type of the base.

    Raises:
        ConfigError: the base cannot be loaded, or the type cannot hold the weights.
        RunError: the adapter cannot be merged, or the disk is full.
    """
    with no_bars():
        source, options = base_of(candidate)
        try:
            config = AutoConfig.from_pretrained(source, **options)
            own = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
            wanted = TYPES[dtype] if dtype else own
            # A wider type holds what a narrower one does; merging in it rounds once less.
            loaded = torch.promote_types(own, wanted) if wanted == torch.float32 else own
            model = AutoModelForCausalLM.from_pretrained(source, dtype=loaded, **options)
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(
                f"the untuned model cannot be loaded ({' '.join(str(error).split())[:300]})",
                where=candidate.student_name,
                fix="name where it lies now in run.json's student, or fetch it again",
            ) from error
        if is_adapter(candidate.folder):
            model = _merge(model, candidate.folder)
        model = model.to(wanted)
        _check_finite(model, candidate, wanted)
        tokenizer = AutoTokenizer.from_pretrained(candidate.folder, local_files_only=True, trust_remote_code=False)
        model.generation_config = _generation(candidate.folder, source, options, tokenizer.eos_token_id)
        _check_space(model, folder)
        try:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        except (OSError, SafetensorError) as error:
            raise RunError(
                f"the merged model cannot be written ({getattr(error, 'strerror', None) or error})",
                where=str(folder.parent),
                fix="free some disk space or mend the permissions, then run the same command again",
            ) from error
    return next(name for name, one in TYPES.items() if one == wanted)


def base_of(candidate: Candidate) -> tuple[str, dict[str, Any]]:
    """Return what weights to load, and how: nothing remote runs, a folder is never looked up on the hub."""
    if not is_adapter(candidate.folder):
        return str(candidate.folder), {"local_files_only": True, "trust_remote_code": False}
    local = isinstance(candidate.student, Path)
    revision = {} if local or not candidate.revision else {"revision": candidate.revision}
    return str(candidate.student), {"local_files_only": local, "trust_remote_code": False, **revision}


def _merge(base: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    try:
        with warnings.catch_warnings():
            # peft warns of adapters on tied weights, which are refused below.
            warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
            model = PeftModel.from_pretrained(base, str(adapter))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise RunError(
            f"the adapter does not fit its base ({' '.join(str(error).split())[:300]})",
            where=str(adapter),
            fix="run `tune sft` again",
        ) from error
    tied = base.config.get_text_config().tie_word_embeddings
    shared = base.get_input_embeddings().weight if tied else None
    for name, module in model.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        layer = module.get_base_layer()
        if shared is not None and getattr(layer, "weight", None) is shared:
            raise RunError(
                f"the adapter changes {name.rpartition('model.')[2]}, whose weights input and output share, so that "
                "a merge would change both",
                where=str(adapter),
                fix='train with target_modules "all-linear", which leaves them out',
            )
        kept = next(layer.parameters()).dtype
        layer.to(torch.float32)
        try:
            module.merge(safe_merge=True)
        except ValueError as error:
            raise RunError(f"the adapter cannot be merged ({error})", where=str(adapter)) from error
        layer.to(kept)
    merged: PreTrainedModel = model.unload()
    return merged


def _check_finite(model: PreTrainedModel, candidate: Candidate, dtype: torch.dtype) -> None:
    if all(bool(torch.isfinite(weight).all()) for weight in model.state_dict().values() if weight.is_floating_point()):
        return
    if dtype == torch.float16:
        raise ConfigError(
            f"some weights of {candidate.name} are too large for fp16", where="--dtype", fix="take bf16 or fp32"
        )
    raise RunError("some weights are not numbers", where=str(candidate.folder), fix="run `tune sft` again")


def _generation(candidate: Path, source: str, options: dict[str, Any], eos: int) -> GenerationConfig:
    """Return the candidate's settings, else those of its base, else what stops a reply."""
    remote = {key: value for key, value in options.items() if key != "trust_remote_code"}
    for place, where in ((str(candidate), {"local_files_only": True}), (source, remote)):
        with contextlib.suppress(OSError, ValueError):
            return GenerationConfig.from_pretrained(place, **where)
    return GenerationConfig(eos_token_id=eos)


def _check_space(model: PreTrainedModel, folder: Path) -> None:
    needed = _SPARE_BYTES + sum(weight.numel() * weight.element_size() for weight in model.parameters())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise RunError(
            f"the merged model takes {math.ceil(needed / 1e9)} GB, and {free / 1e9:.1f} GB are free",
            where=str(folder.parent),
            fix="free some disk space, or name a folder on another disk with --to",
        )


@contextlib.contextmanager
def no_bars() -> Iterator[None]:
    """Show no progress bars of transformers while the block runs."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
