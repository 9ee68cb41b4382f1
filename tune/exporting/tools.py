"""Other projects' programs that write other formats: llama.cpp's converter and llm-compressor, where they are there."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from synth.core.errors import ConfigError, RunError
from synth.core.jsonl import write_jsonl

GGUF_TYPES = ("q8_0", "f16", "bf16", "f32")
CONVERTER = "convert_hf_to_gguf.py"

_AWQ_SCRIPT = Path(__file__).with_name("awq.py")
_QUOTED = 300


def find_converter(folder: Path | None) -> Path:
    """Return llama.cpp's converter: in the folder named, or on PATH.

    Raises:
        ConfigError: it is not there.
    """
    if folder is not None:
        path = folder.expanduser() / CONVERTER
        if path.is_file():
            return path
        raise ConfigError(
            f"the folder has no {CONVERTER}", where=f"--llama-cpp {folder}", fix="name a checkout of llama.cpp"
        )
    found = shutil.which(CONVERTER)
    if found is None:
        raise ConfigError(
            f"GGUF files are written by llama.cpp's own {CONVERTER}, which is not on PATH",
            where="--quantize gguf",
            fix="`git clone --depth 1 https://github.com/ggml-org/llama.cpp`, then name that folder with --llama-cpp",
        )
    return Path(found)


def write_gguf(model: Path, target: Path, outtype: str, *, converter: Path, log_path: Path) -> None:
    """Convert a model folder to one GGUF file.

    Raises:
        RunError: the converter failed; the error quotes it.
    """
    command = [sys.executable, str(converter), str(model), "--outfile", str(target), "--outtype", outtype]
    _run(
        command,
        log_path,
        what="llama.cpp's converter failed",
        fix="update llama.cpp, and check that it knows the student's architecture and tokenizer",
        own_modules=True,
    )
    if not target.is_file():
        raise RunError("llama.cpp's converter wrote no file", where=str(log_path), fix="look at its log")


def check_awq(python: str) -> str:
    """Return the version of llm-compressor that this Python has.

    Raises:
        ConfigError: it has none.
    """
    probe = "import importlib.metadata as m; print(m.version('llmcompressor'))"
    try:
        found = subprocess.run(
            [python, "-c", probe],
            env={**os.environ, "PYTHONSAFEPATH": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError(
            f"that Python cannot be run ({error})", where=f"--quantize-python {python}", fix="name another"
        ) from error
    if found.returncode:
        raise ConfigError(
            "AWQ is done by llm-compressor, which this Python has not",
            where="--quantize awq",
            fix="it wants package versions of its own, so give it an environment: `python -m venv awq && "
            "awq/bin/pip install llmcompressor`, then --quantize-python awq/bin/python",
        )
    return found.stdout.strip()


def write_awq(model: Path, target: Path, rows: Sequence[Sequence[int]], *, python: str, log_path: Path) -> None:
    """Quantize a model folder to four bits with AWQ, calibrated on these rows of token ids.

    Raises:
        RunError: llm-compressor failed; the error quotes it.
    """
    calibration = target.with_name(f"{target.name}.calibration.jsonl")
    write_jsonl(calibration, ({"input_ids": list(ids)} for ids in rows))
    try:
        _run(
            [python, str(_AWQ_SCRIPT), str(model), str(target), str(calibration)],
            log_path,
            what="llm-compressor failed",
            fix="check that it knows the student's architecture",
        )
    finally:
        calibration.unlink(missing_ok=True)
    if not (target / "config.json").is_file():
        raise RunError("llm-compressor wrote no model", where=str(log_path), fix="look at its log")


def _run(command: Sequence[str], log_path: Path, *, what: str, fix: str, own_modules: bool = False) -> None:
    """Run a script, which finds modules in its own folder where it says so, and never in the user's."""
    # A conversion has nothing to fetch.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONSAFEPATH": "" if own_modules else "1"}
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab") as log:
        start = log.tell()
        try:
            done = subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, check=False
            )
        except OSError as error:
            raise RunError(f"{what}: it cannot be started ({error.strerror})", where=command[0], fix=fix) from error
    if done.returncode:
        with log_path.open("rb") as log:
            log.seek(start)
            lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        said = lines[-1][:_QUOTED] if lines else f"it said nothing and ended with {done.returncode}"
        raise RunError(f"{what}: {said}", where=str(log_path), fix=fix)
