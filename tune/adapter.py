"""What vLLM can serve of an adapter, read from its adapter_config.json before any server is started.

The list is that of vLLM 0.32 (vllm/lora/peft_helper.py, `PEFTHelper.validate_legal`), which says so after a minute.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synth.core.errors import RunError

_CONFIG = "adapter_config.json"
_HIGHEST_RANK = 512

# First weights that leave the base as it is. PiSSA, OLoRA and the like take a part out of it.
_PLAIN_STARTS = frozenset({"gaussian", "eva", "orthogonal", "mica", "lora_ga"})

# Settings that vLLM knows by name and refuses where they are set.
_REFUSED: Mapping[str, str] = {
    "use_dora": "DoRA, whose magnitudes vLLM cannot add",
    "lora_bias": "biases of LoRA matrices (lora_bias)",
    "alora_invocation_tokens": "an activated LoRA (aLoRA)",
    "layer_replication": "replicated layers",
    "use_bdlora": "a block-diagonal LoRA",
    "use_qalora": "a QALoRA",
}


def is_adapter(folder: Path) -> bool:
    """Whether a candidate's folder holds an adapter, in place of whole weights."""
    return (folder / _CONFIG).is_file()


def unservable(folder: Path) -> str | None:
    """Return what keeps vLLM from serving an adapter beside its base, or None where nothing does.

    Raises:
        RunError: adapter_config.json cannot be read.
    """
    path = folder / _CONFIG
    try:
        config: dict[str, Any] = json.loads(path.read_bytes())
        ranks = [int(config.get("r", 1)), *map(int, (config.get("rank_pattern") or {}).values())]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise RunError(
            f"the adapter's settings cannot be read ({error})", where=str(path), fix="run `tune sft` again"
        ) from error
    for setting, what in _REFUSED.items():
        if config.get(setting):
            return what
    if config.get("bias", "none") != "none":
        return "trained biases"
    if config.get("modules_to_save"):
        return f"whole layers beside the adapter ({', '.join(map(str, config['modules_to_save']))})"
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower() not in _PLAIN_STARTS:
        return f"first weights that change the base ({start})"
    return f"the rank {max(ranks)}; {_HIGHEST_RANK} is the highest" if max(ranks) > _HIGHEST_RANK else None
