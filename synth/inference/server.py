"""A vLLM server that we start, watch and stop: nothing of it stays behind, however we end."""

import contextlib
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from synth.core.errors import InferenceError
from synth.inference.vllm_command import (
    free_port,
    is_cpu_build,
    is_free,
    named_key,
    named_model,
    named_port,
    server_command,
    server_environment,
    shown_command,
)
from synth.inference.vllm_log import likely_cause, phase, tail

_GUARDIAN = Path(__file__).with_name("guardian.py")
_PROBE_EVERY = 0.25
_PROBE_TIMEOUT = 2.0
_CHECK_TIMEOUT = 30.0
_STOP_TIMEOUT = 30.0
_PORT_TRIES = 3
_LOG_READ = 1024 * 1024


class VLLMServer:
    """A server for one model and its adapters; use it as a context manager. It may be entered again.

    Entering returns when the model answers, and raises when it does not. Leaving stops the server and all
    that it started; so does any other end of this process, a SIGKILL included (guardian.py).

    Args:
        model: a hub id or a local folder.
        log_path: where the server's output is appended.
        served: the model's name over the wire.
        adapters: LoRA adapters by the name under which each is served.
        max_model_len: the longest prompt and reply together, in tokens; the model's own length unless given.
        python: the Python that has vLLM; its own environment may differ from ours.
        args: further arguments for vLLM; they stand last and win.
        startup_timeout: seconds until the server has to be ready.
        on_progress: gets short texts about the start.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        log_path: Path,
        served: str = "model",
        adapters: Mapping[str, Path] | None = None,
        max_model_len: int | None = None,
        python: str = sys.executable,
        args: Sequence[str] = (),
        startup_timeout: float = 900,
        on_progress: Callable[[str], None] | None = None,
    ) -> None:
        self._model = model
        self._log_path = log_path
        self._served = served
        self._adapters = dict(adapters or {})
        self._max_model_len = max_model_len
        self._python = python
        self._args = tuple(args)
        self._startup_timeout = startup_timeout
        self._tell = on_progress or (lambda text: None)
        self._port = 0
        self._log_start = 0
        self._guardian: subprocess.Popen[bytes] | None = None
        self._leaving = threading.Event()

    @property
    def base_url(self) -> str:
        """The endpoint's URL, up to `/v1`.

        Raises:
            InferenceError: the server is not running.
        """
        if self._guardian is None:
            raise InferenceError("the server is not running", fix="use it in `with VLLMServer(…) as server`")
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def api_key(self) -> str | None:
        """The key that the server asks of callers, where `args` name one."""
        return named_key(self._args)

    @property
    def served(self) -> str:
        """The model's name over the wire; adapters go by their own names."""
        return self._served

    def __enter__(self) -> Self:
        """Start the server and wait until the model answers.

        Raises:
            InferenceError: vLLM is missing, the server ended, or it was not ready in time; the error says
                the likely cause and quotes the log.
        """
        self._leaving.clear()
        self._tell("starting vLLM")
        cpu = is_cpu_build(self._python)
        began = time.monotonic()
        try:
            for attempt in range(_PORT_TRIES):
                self._start(cpu)
                if self._wait_until_ready(began + self._startup_timeout, last_try=attempt + 1 == _PORT_TRIES):
                    break
                self._stop()
        except BaseException:
            self._stop()
            raise
        self._tell(f"ready in {time.monotonic() - began:.0f} s")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server and everything it started."""
        self._leaving.set()
        self._stop()

    def check(self) -> None:
        """Return if the engine lives, or does not say in time.

        Raises:
            InferenceError: the server ended, or its port answers but the engine behind it does not.
        """
        guardian = self._guardian
        if guardian is None:
            raise InferenceError("the server is not running", fix="start it again")
        if guardian.poll() is not None:
            raise self.failure("the vLLM server ended", guardian.returncode)
        try:
            status, _ = self._get("/health", _CHECK_TIMEOUT)
        except TimeoutError:
            return  # too busy to say: whether it does anything is for who counts its tokens to tell
        except (OSError, http.client.HTTPException) as error:
            code = guardian.poll()
            raise self.failure(f"the vLLM server does not answer ({error})", code) from error
        if status != 200:
            raise self.failure(f"the engine is dead: /health answers {status}", guardian.poll())

    def _start(self, cpu: bool) -> None:
        named = named_port(self._args)
        if named is not None and not is_free(named):
            raise InferenceError(
                f"the port {named} is in use: another server listens there",
                fix="stop that one, or name another --port in the server's arguments, or none",
            )
        self._port = named or free_port()
        command = server_command(
            self._model,
            python=self._python,
            port=self._port,
            served=self._served,
            adapters=self._adapters,
            max_model_len=self._max_model_len,
            cpu=cpu,
            args=self._args,
        )
        try:
            self._log_path.parent.mkdir(parents=True, exist_ok=True)
            log = self._log_path.open("ab")
        except OSError as error:
            raise InferenceError(
                f"the server's log cannot be written ({error.strerror})",
                where=str(self._log_path),
                fix="mend the permissions",
            ) from error
        with log:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            log.write(f"=== {stamp} starting: {shown_command(command)}\n".encode())
            log.flush()
            self._log_start = log.tell()
            try:
                self._guardian = subprocess.Popen(
                    [sys.executable, "-I", str(_GUARDIAN), *command],
                    env=server_environment(self._model, cpu=cpu),
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise InferenceError(
                    f"no process can be started for the vLLM server ({error.strerror})",
                    where=str(self._log_path),
                    fix="free memory, or raise the limits on processes and open files",
                ) from error

    def _wait_until_ready(self, deadline: float, *, last_try: bool) -> bool:
        """Return True when the model answers, False where another port should be tried."""
        guardian, told = self._guardian, None
        assert guardian is not None
        while guardian.poll() is None:
            if self._answers():
                return True
            if self._leaving.wait(_PROBE_EVERY):
                raise InferenceError("the start of the vLLM server was called off", where=str(self._log_path))
            if time.monotonic() > deadline:
                raise self.failure(f"the vLLM server was not ready after {self._startup_timeout:.0f} s", None)
            reached = phase(self._log())
            if reached and reached != told:
                told = reached
                self._tell(reached)
        taken = "Address already in use" in self._log() and named_port(self._args) is None
        if taken and not last_try:
            return False
        raise self.failure("the vLLM server did not start", guardian.returncode)

    def _answers(self) -> bool:
        try:
            if self._get("/health", _PROBE_TIMEOUT)[0] != 200:
                return False
            status, body = self._get("/v1/models", _PROBE_TIMEOUT)
            roots = {e["id"]: e.get("root") for e in json.loads(body)["data"]} if status == 200 else {}
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError):
            return False
        # vLLM names the weights behind a name. One that took our port in between may serve others under it.
        weights = str(named_model(self._args) or self._model)
        return {self._served, *self._adapters} <= roots.keys() and roots[self._served] in {None, weights}

    def _get(self, path: str, timeout: float) -> tuple[int, bytes]:
        """Ask the server directly: no proxy of the environment stands between us and loopback."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=timeout)
        try:
            key = self.api_key
            connection.request("GET", path, headers={} if key is None else {"Authorization": f"Bearer {key}"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _log(self) -> str:
        try:
            with self._log_path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(self._log_start, size - _LOG_READ))
                return file.read().decode(errors="replace")
        except OSError:
            return ""

    def failure(self, what: str, exit_code: int | None = None) -> InferenceError:
        """Return an error that begins with `what`, names the likely cause and quotes the end of the log."""
        log = self._log()
        cause = likely_cause(log, exit_code)
        quoted = tail(log)
        ending = f"\nthe log ends:\n{quoted}" if quoted else ""
        return InferenceError(f"{what}: {cause.what}", where=str(self._log_path), fix=f"{cause.fix}{ending}")

    def _stop(self) -> None:
        guardian, self._guardian = self._guardian, None
        if guardian is None:
            return
        assert guardian.stdin is not None
        # A byte, not the closing alone: a child that this process forked may hold the pipe as well.
        with contextlib.suppress(BrokenPipeError), guardian.stdin as pipe:
            pipe.write(b".")
        try:
            guardian.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            # Its server has PR_SET_PDEATHSIG and gets SIGTERM from this.
            guardian.kill()
            guardian.wait()
