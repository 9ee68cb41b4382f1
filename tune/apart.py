"""A training in a process of its own, whose memory goes with it: `python -m tune.apart sft RUN --config FILE`.

The process that asks holds the other end of standard input. When that closes, because it was interrupted or killed,
the training gets what Ctrl-C would give it: it ends its step, saves a checkpoint and stops.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from synth.core.errors import ConfigError, Interrupted, RunError
from synth.core.jsonl import write_text
from synth.core.runs import Run
from tune.config import TuneConfig

Train = Callable[[Run, TuneConfig, Callable[[str], None]], object]
"""Trains a student of these settings in a run, and says in words how it goes."""

_LAST_LINES = 40
_LOOK_EVERY = 0.2  # Seconds.


def train_apart(run: Run, config: TuneConfig, on_note: Callable[[str], None] = lambda _: None) -> None:
    """Train a candidate in a process of its own, as `tune sft` does.

    Its settings are kept in RUN/settings/<candidate>.toml, and what it says in its log.

    Args:
        run: where the candidate goes.
        config: with a name for the candidate.
        on_note: called with each line that the training writes for people.

    Raises:
        ConfigError: a setting is wrong.
        RunError: the training failed; the error has its last words.
        Interrupted: it was stopped; a checkpoint was saved.
    """
    if config.candidate is None:
        raise ConfigError("a training in a process of its own needs a name", where="candidate")
    path = run.path / "settings" / f"{config.candidate}.toml"
    write_text(path, to_toml(config))
    # Whatever made this program importable here has to hold there.
    places = [str(Path(__file__).resolve().parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}
    command = [sys.executable, "-m", "tune.apart", "sft", str(run.path), "--config", str(path), "--json"]
    log = run.log_path(f"sft-{config.candidate}")
    log.parent.mkdir(parents=True, exist_ok=True)
    said = _Said(log, on_note)
    with log.open("ab") as file:
        # To the file and not to us: were we killed, the training could not write what it has to say, and would end.
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=file,
            start_new_session=True,  # Ctrl-C reaches it through us, once.
        )
    assert process.stdin is not None
    try:
        try:
            code = _wait(process, said)
        except KeyboardInterrupt:
            process.stdin.close()
            # It ends its step and saves; a second Ctrl-C waits no longer.
            code = _wait(process, said) or Interrupted.exit_code
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        with contextlib.suppress(OSError):
            process.stdin.close()
    if code:
        _raise(code, said.last, config.candidate, log)


class _Said:
    """Reads on in a log while it is written, and passes its whole lines on."""

    def __init__(self, log: Path, on_note: Callable[[str], None]) -> None:
        self.last: deque[str] = deque(maxlen=_LAST_LINES)
        self._log, self._on_note = log, on_note
        self._place = log.stat().st_size if log.exists() else 0
        self._rest = b""

    def read(self) -> None:
        with self._log.open("rb") as file:
            file.seek(self._place)
            new = file.read()
        self._place += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        for line in lines:
            text = line.decode("utf-8", "replace").rstrip()
            if text:
                self.last.append(text)
                self._on_note(text)


def _wait(process: "subprocess.Popen[bytes]", said: _Said) -> int:
    while True:
        try:
            code = process.wait(_LOOK_EVERY)
        except subprocess.TimeoutExpired:
            said.read()
        else:
            said.read()
            return code


def _raise(code: int, last: "deque[str]", name: str, log: Path) -> None:
    if code in (130, -signal.SIGINT):
        raise Interrupted(
            f"the training of {name} was stopped", fix="run the same command again: it goes on from there"
        )
    said = next((line.removeprefix("tune: ") for line in reversed(last) if line.startswith("tune: ")), "")
    if not said:
        said = f"it ended with exit code {code}" + (f" ({last[-1]})" if last else "")
    kind = ConfigError if code == ConfigError.exit_code else RunError
    raise kind(f"the training of {name} failed: {said}", where=str(log))


def to_toml(config: TuneConfig) -> str:
    """Return settings as a config file for `tune sft --config`; those that are not set are left out."""
    values = config.model_dump(mode="json", by_alias=True, exclude_none=True)
    lines = [f"{name} = {_toml(value)}" for name, value in values.items()]
    return "\n".join(["[sft]", *lines, ""])


def _toml(value: Any) -> str:  # noqa: ANN401  (any JSON)
    if isinstance(value, Mapping):
        given = {key: one for key, one in value.items() if one is not None}
        return "{" + ", ".join(f"{_toml(str(key))} = {_toml(one)}" for key, one in given.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    # A JSON string is a TOML string but for this one character.
    return json.dumps(value).replace("\x7f", "\\u007f")


def _stop_with_the_asker() -> None:
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGINT)


def main() -> None:
    """Run `tune`, and stop as at Ctrl-C when standard input closes."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell has it ignored
    threading.Thread(target=_stop_with_the_asker, daemon=True).start()
    from tune.cli import main as tune

    tune()


if __name__ == "__main__":
    main()
