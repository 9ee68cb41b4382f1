import asyncio
import contextlib
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from synth.core.calls import ChatRequest, Sampling
from synth.core.errors import InferenceError
from synth.core.records import Message
from synth.core.resources import resource
from synth.inference.client import Client, served_models
from synth.inference.server import VLLMServer
from synth.inference.vllm_command import server_command, server_environment, shown_command

# A stand-in for the server's Python, for what a healthy vLLM does not show. It answers the question for the
# build, then does as its script says; `serve` behaves like vLLM's API server with an engine process.
FAKE = """#!{python}
import http.server, json, os, pathlib, signal, subprocess, sys, time
here = pathlib.Path(__file__).parent
if sys.argv[1] == "-c":
    print(json.dumps({{"found": {found}, "cpu": "0.32.0", "gpu": ""}}))
    raise SystemExit
def option(name):
    return sys.argv[len(sys.argv) - 1 - sys.argv[::-1].index(name) + 1]
def serve(*phases):
    engine = ("import signal, time; [signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGTERM)];"
              "print('engine up', flush=True); time.sleep(600)")
    child = subprocess.Popen([sys.executable, "-c", engine], stdout=subprocess.PIPE)
    child.stdout.readline()
    (here / "pids").write_text(f"{{os.getpid()}} {{child.pid}}")
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            dead = self.path == "/health" and (here / "dead").exists()
            body = json.dumps({{"data": [{{"id": option("--served-model-name")}}]}}).encode()
            self.send_response(503 if dead else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        def log_message(self, *args):
            pass
    for text in phases:
        print(text, flush=True)
        time.sleep(0.6)
    http.server.ThreadingHTTPServer(("127.0.0.1", int(option("--port"))), Handler).serve_forever()
{script}
"""

Fake = Callable[..., str]


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    """Write the stand-in and return its path."""

    def write(script: str, *, found: bool = True) -> str:
        path = tmp_path / "python"
        path.write_text(FAKE.format(python=sys.executable, found=found, script=script))
        path.chmod(0o755)
        return str(path)

    return write


def server_of(python: str, tmp_path: Path, **options: object) -> VLLMServer:
    return VLLMServer("org/model", log_path=tmp_path / "logs" / "vllm.log", python=python, **options)  # type: ignore[arg-type]


def pids(tmp_path: Path) -> list[int]:
    return [int(pid) for pid in (tmp_path / "pids").read_text().split()]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with contextlib.suppress(OSError):  # a zombie is gone; some containers have no init that collects it
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def gone(numbers: list[int], patience: float = 30) -> bool:
    deadline = time.monotonic() + patience
    while any(alive(pid) for pid in numbers) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(alive(pid) for pid in numbers)


def test_a_server_answers_tells_its_progress_and_leaves_nothing_behind(fake: Fake, tmp_path: Path) -> None:
    told: list[str] = []
    python = fake('serve("Starting to load model x", "Starting vLLM server on y")')
    server = server_of(python, tmp_path, on_progress=told.append, args=["--api-key", "hush", "--hf-token=hush"])
    for _ in range(2):  # it may be entered again
        with server:
            assert server.base_url.startswith("http://127.0.0.1:")
            assert server.base_url.endswith("/v1")
            server.check()
            running = pids(tmp_path)
            assert all(map(alive, running))
        assert gone(running, patience=0)
        with pytest.raises(InferenceError, match="not running"):
            _ = server.base_url
    assert told[:3] == ["starting vLLM", "loading weights", "opening the port"]
    assert told[3].startswith("ready in ")
    log = (tmp_path / "logs" / "vllm.log").read_text()
    assert log.count("=== ") == log.count("--model org/model") == 2
    assert "--api-key *** --hf-token=***" in log
    assert "hush" not in log


def test_an_error_inside_the_block_stops_the_server_too(fake: Fake, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), server_of(fake("serve()"), tmp_path):
        raise KeyboardInterrupt
    assert gone(pids(tmp_path), patience=0)


DRIVER = """
import signal, sys, time
from pathlib import Path
from synth.inference.server import VLLMServer
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
server = VLLMServer("org/model", log_path=Path(sys.argv[2]), python=sys.argv[1])
server.__enter__()
print("ready", flush=True)
if sys.argv[3] == "wait":
    time.sleep(600)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, None])
def test_however_the_parent_ends_the_server_and_its_engine_end_with_it(
    fake: Fake, tmp_path: Path, end: signal.Signals | None
) -> None:
    how = "exit" if end is None else "wait"
    parent = subprocess.Popen(
        [sys.executable, "-c", DRIVER, fake("serve()"), str(tmp_path / "log"), how],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    running = pids(tmp_path)
    if end is not None:
        parent.send_signal(end)
    parent.stdout.close()
    parent.wait()
    assert gone(running)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_killed_guardian_takes_the_server_with_it(fake: Fake, tmp_path: Path) -> None:
    with server_of(fake("serve()"), tmp_path) as server:
        api, engine = pids(tmp_path)
        guardian = int(Path(f"/proc/{api}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(guardian, signal.SIGKILL)
        assert gone([api])
        with pytest.raises(InferenceError, match="the vLLM server ended"):
            server.check()
        os.kill(engine, signal.SIGKILL)  # this one ignores SIGTERM; vLLM's own watches its parent


def test_a_start_that_is_called_off_from_another_thread_leaves_nothing(fake: Fake, tmp_path: Path) -> None:
    started = tmp_path / "pids"
    server = server_of(fake("serve(*['wait'] * 100)"), tmp_path)
    faults: list[BaseException] = []

    def start() -> None:
        try:
            server.__enter__()
        except InferenceError as error:
            faults.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    while not started.exists() or len(started.read_text().split()) < 2:
        time.sleep(0.05)
    server.__exit__(None, None, None)
    thread.join()
    assert len(faults) == 1
    assert gone(pids(tmp_path))


def test_a_server_that_never_gets_ready_is_stopped_and_its_log_quoted(fake: Fake, tmp_path: Path) -> None:
    python = fake("serve(*['still thinking'] * 100)")
    with pytest.raises(InferenceError, match="not ready after 3 s.*\n(.*\n)*.*still thinking") as caught:
        server_of(python, tmp_path, startup_timeout=3).__enter__()
    assert caught.value.where == str(tmp_path / "logs" / "vllm.log")
    assert gone(pids(tmp_path), patience=0)


@pytest.mark.parametrize(
    ("log", "code", "cause"),
    [
        ("ValueError: Free memory on device cuda:0 (1/80 GiB) is less than desired GPU memory", 1, "not enough memory"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", 1, "not enough memory"),
        ("(EngineCore pid=7) ERROR 11-21 11:19:17 [core.py:133] MemoryError", 1, "not enough memory"),
        ("OSError: x is not a local folder and is not a valid model identifier", 1, "there is no such model"),
        ("ModuleNotFoundError: No module named 'PIL'", 1, "a Python package is missing"),
        ("RuntimeError: operator torchvision::nms does not exist", 1, "pip uninstall torchvision"),
        (
            "ValueError: Model architectures ['X'] are not supported for now.",
            1,
            "does not know the model's architecture",
        ),
        ("Value error, User-specified max_model_len (9) is greater than the derived max_model_len (4)", 1, "too large"),
        ("RuntimeError: Failed to infer device type", 1, r"synth-tune\[cpu\]"),
        (
            "api_server.py: error: unrecognized arguments: --frobnicate",
            2,
            "does not know one of the server's arguments",
        ),
        ("RuntimeError: something new", 1, "vLLM says: RuntimeError: something new"),
        ("", 3, "vLLM ended with code 3"),
    ],
)
def test_a_server_that_dies_names_the_likely_cause_and_quotes_its_log(
    fake: Fake, tmp_path: Path, log: str, code: int, cause: str
) -> None:
    after = "RuntimeError: Engine core initialization failed. See root cause above." if log else ""
    python = fake(f"print({log!r}); print('INFO: shutting down\\n' * 20); print({after!r}); sys.exit({code})")
    with pytest.raises(InferenceError, match=cause) as caught:
        server_of(python, tmp_path).__enter__()
    assert "did not start" in str(caught.value)
    assert log.rpartition("] ")[2] in str(caught.value)


def test_a_server_that_the_system_kills_is_said_to_lack_memory(fake: Fake, tmp_path: Path) -> None:
    with pytest.raises(InferenceError, match="killed the server, most likely for want of memory"):
        server_of(fake("os.kill(os.getpid(), signal.SIGKILL)"), tmp_path).__enter__()


def test_a_port_that_was_taken_in_between_is_changed_for_another(fake: Fake, tmp_path: Path) -> None:
    script = (
        "if not (here / 'once').exists():\n"
        "    (here / 'once').touch()\n"
        "    sys.exit('OSError: [Errno 98] Address already in use')\n"
        "serve()"
    )
    with server_of(fake(script), tmp_path) as server:
        server.check()
    assert (tmp_path / "logs" / "vllm.log").read_text().count("=== ") == 2


def test_a_port_that_the_user_names_is_kept_even_when_it_is_taken(fake: Fake, tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        script = "sys.exit('OSError: [Errno 98] Address already in use')"
        with pytest.raises(InferenceError, match=f"the port {port} is in use"):
            server_of(fake(script), tmp_path, args=["--port", str(port)]).__enter__()
    with server_of(fake("serve()"), tmp_path, args=[f"--port={port}", "--port", str(port)]) as server:
        assert server.base_url == f"http://127.0.0.1:{port}/v1"


class Foreign:
    """A server of somebody else that answers /health and lists models, on loopback."""

    def __init__(self, models: list[dict[str, str]]) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # noqa: N802
                body = json.dumps({"data": models}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                """Stay quiet."""

        self._listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._listener.server_address[1]

    def __enter__(self) -> "Foreign":
        threading.Thread(target=self._listener.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown()
        self._listener.server_close()


def test_a_server_of_somebody_else_at_the_named_port_does_not_pass_for_ours(fake: Fake, tmp_path: Path) -> None:
    with Foreign([{"id": "model"}]) as other:
        server = server_of(fake("time.sleep(600)"), tmp_path, args=["--port", "1", "--port", str(other.port)])
        with pytest.raises(InferenceError, match=f"the port {other.port} is in use"):
            server.__enter__()
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(("root", "ours"), [("org/model", True), ("org/other", False)])
def test_a_server_that_took_the_port_in_between_is_known_by_its_weights(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str, ours: bool
) -> None:
    with Foreign([{"id": "model", "root": root}]) as other:
        monkeypatch.setattr("synth.inference.server.free_port", lambda: other.port)
        server = server_of(fake("time.sleep(600)"), tmp_path, startup_timeout=2)
        if ours:
            with server:
                server.check()
        else:
            with pytest.raises(InferenceError, match="not ready after 2 s"):
                server.__enter__()


def test_a_server_that_asks_for_a_key_of_the_users_choice_is_asked_with_it(fake: Fake, tmp_path: Path) -> None:
    script = """
class Locked(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        allowed = self.path == "/health" or self.headers["Authorization"] == "Bearer hush"
        body = json.dumps({"data": [{"id": "model"}]} if allowed else {}).encode()
        self.send_response(200 if allowed else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(option("--port"))), Locked).serve_forever()
"""
    with server_of(fake(script), tmp_path, args=["--api-key", "hush"], startup_timeout=20) as server:
        assert server.api_key == "hush"
    with server_of(fake(script), tmp_path, args=["--api-key=hush"], startup_timeout=20) as server:
        assert server.api_key == "hush"


def test_a_process_that_cannot_be_started_is_an_inference_error(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = server_of(fake("serve()"), tmp_path)
    monkeypatch.setattr("synth.inference.server.is_cpu_build", lambda python: True)
    monkeypatch.setattr("synth.inference.server.sys.executable", str(tmp_path / "no-python"))
    with pytest.raises(InferenceError, match="no process can be started"):
        server.__enter__()


def test_a_health_check_that_is_not_answered_in_time_is_no_dead_engine(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server_of(fake("serve()"), tmp_path) as server:
        monkeypatch.setattr("synth.inference.server._CHECK_TIMEOUT", 0.5)
        api = pids(tmp_path)[0]
        os.kill(api, signal.SIGSTOP)
        try:
            server.check()
        finally:
            os.kill(api, signal.SIGCONT)


def test_a_dead_engine_behind_an_answering_port_is_found_by_check(fake: Fake, tmp_path: Path) -> None:
    with server_of(fake("serve('EngineDeadError: x', 'RuntimeError: CPU Generator')"), tmp_path) as server:
        server.check()
        (tmp_path / "dead").touch()
        with pytest.raises(InferenceError, match="engine is dead.*CPU Generator"):
            server.check()
        os.kill(pids(tmp_path)[0], signal.SIGKILL)
        assert gone(pids(tmp_path))  # the guardian sweeps the engine up
        with pytest.raises(InferenceError, match="the vLLM server ended|does not answer"):
            server.check()


def test_a_python_without_vllm_is_an_error_with_the_fix(fake: Fake, tmp_path: Path) -> None:
    with pytest.raises(InferenceError, match=r"not installed.*synth-tune\[vllm\].*synth-tune\[cpu\].*--teacher URL"):
        server_of(fake("", found=False), tmp_path).__enter__()
    with pytest.raises(InferenceError, match="cannot be run"):
        server_of(str(tmp_path / "nothing"), tmp_path).__enter__()
    assert not (tmp_path / "logs").exists()


def command_of(model: str | Path = "org/m", **changes: object) -> list[str]:
    options: dict[str, object] = {
        "python": "py",
        "port": 1234,
        "served": "model",
        "adapters": {},
        "max_model_len": None,
        "cpu": False,
        "args": (),
    }
    return server_command(model, **{**options, **changes})  # type: ignore[arg-type]


def following(command: list[str], flag: str) -> str:
    return command[command.index(flag) + 1]


def test_the_command_binds_to_loopback_forbids_optional_white_space_and_ends_with_the_users_words() -> None:
    command = command_of(max_model_len=2048, args=["--seed", "5"])
    assert following(command, "--host") == "127.0.0.1"
    assert following(command, "--max-model-len") == "2048"
    assert json.loads(following(command, "--structured-outputs-config"))["disable_any_whitespace"] is True
    assert command[-2:] == ["--seed", "5"]
    assert "--enforce-eager" not in command


def test_a_cpu_build_runs_eagerly_and_prefills_prompts_in_one_piece() -> None:
    assert {"--enforce-eager", "--no-enable-chunked-prefill"} <= set(command_of(cpu=True))


def adapter(folder: Path, **config: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_adapters_are_served_under_their_names_with_the_next_rank_that_vllm_has(tmp_path: Path) -> None:
    adapters = {"a,b=c": adapter(tmp_path / "a", r=4), "d": adapter(tmp_path / "d", r=16, rank_pattern={"q": 33})}
    command = command_of(adapters=adapters)
    assert "--enable-lora" in command
    assert following(command, "--max-lora-rank") == "64"
    assert following(command, "--max-loras") == "2"
    assert following(command_of(adapters=adapters, cpu=True), "--max-loras") == "3"  # one slot stays empty
    at = command.index("--lora-modules")
    assert [json.loads(text) for text in command[at + 1 : at + 3]] == [
        {"name": name, "path": str(path)} for name, path in adapters.items()
    ]


@pytest.mark.parametrize(("config", "match"), [({"r": 1024}, "serves at most 512"), ({}, "not a LoRA adapter")])
def test_an_adapter_that_cannot_be_served_is_refused_before_the_start(
    tmp_path: Path, config: dict[str, object], match: str
) -> None:
    with pytest.raises(InferenceError, match=match):
        command_of(adapters={"a": adapter(tmp_path / "a", **config)})
    with pytest.raises(InferenceError, match=r"adapter_config\.json"):
        command_of(adapters={"a": tmp_path})


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"x")
    return folder


def test_the_server_gets_no_key_of_other_endpoints_and_no_network_for_a_local_folder(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SYNTH_API_KEY", "OPENAI_API_KEY", "VLLM_API_KEY"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    local, hub = server_environment(weights, cpu=False), server_environment("org/m", cpu=False)
    assert "secret" not in local.values()
    assert (local["HF_HUB_OFFLINE"], hub.get("HF_HUB_OFFLINE")) == ("1", None)
    assert local["CUDA_VISIBLE_DEVICES"] == "3"
    assert local["VLLM_NO_USAGE_STATS"] == "1"


def test_a_cpu_build_gets_a_cache_size_and_one_process_unless_the_user_says_otherwise(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("VLLM_CPU_KVCACHE_SPACE", "VLLM_ENABLE_V1_MULTIPROCESSING", "OMP_NUM_THREADS")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    environment = server_environment(weights, cpu=True)
    assert [environment.get(name) for name in names[:2]] == ["1", "0"]
    assert int(environment["OMP_NUM_THREADS"]) >= 1
    assert server_environment("org/large", cpu=True).get(names[1]) is None
    for name in names:
        monkeypatch.setenv(name, "4")
    assert [server_environment(weights, cpu=True)[name] for name in names] == ["4", "4", "4"]


def test_a_shown_command_hides_the_values_of_secret_flags() -> None:
    command = ["python", "--api-key", "a", "b", "--hf-token=b", "--model", "m", "--ssl-keyfile-password", "c"]
    assert shown_command(command) == "python --api-key *** *** --hf-token=*** --model m --ssl-keyfile-password ***"
    plain = ["--tokenizer", "t", "--max-num-batched-tokens", "8", "--tokenizer-mode=slow", "--ssl-keyfile", "k.pem"]
    assert shown_command(plain) == " ".join(plain)


@pytest.fixture
def tiny_adapter(tmp_path: Path) -> Iterator[Path]:
    """A LoRA adapter of rank 4 on the bundled teacher, made with PEFT."""
    pytest.importorskip("peft")
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(resource("demo", "models") / "teacher")
    tuned = get_peft_model(model, LoraConfig(r=4, lora_alpha=64, target_modules="all-linear", init_lora_weights=False))
    tuned.save_pretrained(tmp_path / "adapter")
    yield tmp_path / "adapter"


@pytest.mark.vllm
async def test_the_real_server_keeps_adapters_apart_notices_a_dead_engine_and_leaves_nothing(
    tmp_path: Path, tiny_adapter: Path
) -> None:
    def ask(price: int) -> ChatRequest:
        text = f"<passage>The Orla lamp costs {price} pounds. Do not place the Orla lamp on carpet.</passage>"
        return ChatRequest((Message("user", text),), Sampling(0, max_tokens=40, seed=1))

    server = VLLMServer(
        resource("demo", "models") / "teacher", log_path=tmp_path / "log", adapters={"tuned": tiny_adapter}
    )
    with server:
        assert await served_models(server.base_url) == ["model", "tuned"]
        async with Client(server.base_url, "model") as base, Client(server.base_url, "tuned") as tuned:
            alone = [(await base.complete(ask(price))).text for price in range(40, 44)]
            calls = [client.complete(ask(price)) for price in range(40, 44) for client in (base, tuned)]
            mixed = [completion.text for completion in await asyncio.gather(*calls)]
        # In one batch, the adapter works on its own requests and on no other.
        assert mixed[0::2] == alone
        assert all(text != plain for text, plain in zip(mixed[1::2], alone, strict=True))
        server.check()
        running = session_of_engine(tmp_path / "log")
        engine = max(running, key=lambda pid: int(Path(f"/proc/{pid}/statm").read_text().split()[1]))
        os.kill(engine, signal.SIGKILL)
        assert gone([engine])
        with pytest.raises(InferenceError, match="vLLM server|engine"):
            for _ in range(60):
                server.check()
                await asyncio.sleep(0.5)
    assert gone(running, patience=0)


def session_of_engine(log: Path) -> list[int]:
    """Return the processes that run in the session of the server which wrote this log last (Linux)."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("finding a server's processes needs /proc")
    port = log.read_text().rpartition("--port ")[2].split()[0].encode()
    found: dict[int, list[int]] = {}
    leader = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            session = int(stat.read_text().rpartition(")")[2].split()[3])
            found.setdefault(session, []).append(int(stat.parent.name))
            words = (stat.parent / "cmdline").read_bytes().split(b"\0")
            if port in words and b"-m" in words and b"-I" not in words:
                leader = session
    return found[leader]
