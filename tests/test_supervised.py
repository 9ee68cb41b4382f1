import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from synth.core.calls import ChatRequest, Completion, Sampling
from synth.core.errors import InferenceError
from synth.core.records import Message
from synth.core.resources import resource
from synth.inference.server import VLLMServer
from synth.inference.supervised import SupervisedServer
from tests.test_server import gone, session_of_engine

# A stand-in for the server's Python. What the n-th start does is the n-th word of the file `modes` (the last word
# stands for all further starts): after how many calls it fails, and how.
FAKE = """#!{python}
import collections, http.server, json, os, pathlib, sys, threading, time
here = pathlib.Path(__file__).parent
if sys.argv[1] == "-c":
    print(json.dumps({{"found": True, "cpu": "0.32.0", "gpu": ""}}))
    raise SystemExit
def option(name):
    return sys.argv[len(sys.argv) - 1 - sys.argv[::-1].index(name) + 1]
starts = len((here / "starts").read_text()) if (here / "starts").exists() else 0
(here / "starts").write_text("x" * (starts + 1))
modes = (here / "modes").read_text().split()
mode, _, after = modes[min(starts, len(modes) - 1)].partition(":")
after = int(after or 0)
print("start", starts + 1, mode, os.getpid(), flush=True)
if mode == "broken":
    sys.exit("torch.OutOfMemoryError: CUDA out of memory")
calls, tokens, lock = 0, 0, threading.Lock()
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path == "/health":
            if mode == "mute" and calls:
                time.sleep(0.5)
            self.send(503 if mode == "dead" and calls > after else 200, b"")
        elif self.path == "/metrics" and mode != "bare":
            self.send(200, b'vllm:generation_tokens_total{{engine="0"}} %d\\n' % tokens)
        else:
            self.send(200, json.dumps({{"data": [{{"id": option("--served-model-name")}}]}}).encode())
    def do_POST(self):
        global calls, tokens
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][0]["content"]
        with lock:
            calls += 1
        if mode == "exit" and calls > after or mode == "poison" and "poison" in text:
            time.sleep(0.05)
            print("RuntimeError: CPU Generator does not use offset", flush=True)
            os._exit(7)
        if mode == "stall" and calls > after:
            time.sleep(600)
        if mode == "dead" and calls > after:
            return self.send(500, b'{{"error": {{"message": "EngineCore encountered an issue"}}}}')
        for _ in range(12 if mode in ("slow", "mute") else 2):
            time.sleep(0.2 if mode in ("slow", "mute") else 0.02)
            tokens += 1
        choice = {{"message": {{"content": "re: " + text}}, "finish_reason": "stop"}}
        self.send(200, json.dumps({{"choices": [choice]}}).encode())
    def send(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
Server(("127.0.0.1", int(option("--port"))), Handler).serve_forever()
"""

Supervise = Callable[..., SupervisedServer]


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def supervise(tmp_path: Path, told: list[str]) -> Supervise:
    """Return a supervised stand-in whose starts fail as `modes` says."""

    def make(modes: str, **options: float) -> SupervisedServer:
        python = tmp_path / "python"
        python.write_text(FAKE.format(python=sys.executable))
        python.chmod(0o755)
        (tmp_path / "modes").write_text(modes)
        server = VLLMServer("org/model", log_path=tmp_path / "log", python=str(python))
        chosen = {"check_every": 0.3, "max_in_flight": 8, **options}
        return SupervisedServer(server, model="m", on_progress=told.append, **chosen)  # type: ignore[arg-type]

    return make


def ask(text: str) -> ChatRequest:
    return ChatRequest((Message("user", text),), Sampling(max_tokens=8))


async def end_of(endpoint: SupervisedServer, text: str) -> str:
    """Return the reply to `text`, or the error."""
    try:
        return (await endpoint.complete(ask(text))).text
    except InferenceError as error:
        return f"error: {error}"


def servers(tmp_path: Path) -> list[int]:
    """Return the process of each start, by the log."""
    lines = (tmp_path / "log").read_text().splitlines()
    return [int(line.split()[3]) for line in lines if line.startswith("start ")]


@pytest.mark.parametrize("mode", ["exit:5", "dead:5", "stall:5"])
async def test_a_server_that_fails_is_started_again_and_its_calls_are_sent_again(
    supervise: Supervise, tmp_path: Path, told: list[str], mode: str
) -> None:
    async with supervise(f"{mode} ok", stall_seconds=1.5) as endpoint:
        ends = await asyncio.gather(*(end_of(endpoint, f"call {n}") for n in range(24)))
        stats = endpoint.stats()
    assert ends == [f"re: call {n}" for n in range(24)]
    assert (stats.restarts, stats.endpoints_up, stats.in_flight) == (1, 1, 0)
    assert len(told) == 1
    assert "starting it again (1 of 3)" in told[0]
    log = (tmp_path / "log").read_text()
    assert log.count("=== ") == 2
    assert len(servers(tmp_path)) == 2
    assert gone(servers(tmp_path), patience=0)


@pytest.mark.parametrize("mode", ["slow", "bare"])
async def test_an_engine_that_makes_progress_is_let_alone(supervise: Supervise, mode: str) -> None:
    # The one shows tokens while a call takes longer than `stall_seconds`; the other has no metrics but answers.
    async with supervise(mode, stall_seconds=1.0) as endpoint:
        for _ in range(1 if mode == "slow" else 4):
            assert await asyncio.gather(*(end_of(endpoint, "x") for _ in range(4))) == ["re: x"] * 4
        await asyncio.sleep(1.5)  # nothing in flight is no stall
        assert await end_of(endpoint, "y") == "re: y"
        assert endpoint.stats().restarts == 0


async def test_a_server_that_never_answers_a_call_is_given_up_with_its_log(
    supervise: Supervise, tmp_path: Path, told: list[str]
) -> None:
    async with supervise("exit", restarts=1) as endpoint:
        ends = await asyncio.gather(*(end_of(endpoint, f"call {n}") for n in range(20)))
        assert endpoint.stats().endpoints_up == 0
        assert "started again 1 times" in await end_of(endpoint, "later")
    for end in ends:
        assert end.startswith(f"error: {tmp_path / 'log'}: ")
        assert "started again 1 times without one answered call" in end
        assert "CPU Generator does not use offset" in end
    assert (tmp_path / "log").read_text().count("=== ") == 2
    assert len(told) == 1
    assert gone(servers(tmp_path), patience=0)


async def test_a_restart_that_fails_counts_and_names_its_cause(supervise: Supervise, tmp_path: Path) -> None:
    async with supervise("exit:3 broken broken ok") as endpoint:
        ends = await asyncio.gather(*(end_of(endpoint, f"call {n}") for n in range(10)))
        assert endpoint.stats().restarts == 3
    assert ends == [f"re: call {n}" for n in range(10)]
    (tmp_path / "starts").unlink()
    async with supervise("exit:3 broken", restarts=2) as endpoint:
        ends = await asyncio.gather(*(end_of(endpoint, f"call {n}") for n in range(10)))
    assert sum("there is not enough memory" in end for end in ends) >= 7


async def test_a_restart_that_the_system_refuses_is_tried_again_and_says_why(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with supervise("exit:3 ok", restarts=2) as endpoint:
        real = VLLMServer.__enter__

        def refused(server: VLLMServer) -> VLLMServer:
            raise OSError(12, "Cannot allocate memory")

        monkeypatch.setattr(VLLMServer, "__enter__", refused)
        ends = await asyncio.wait_for(asyncio.gather(*(end_of(endpoint, f"call {n}") for n in range(8))), 60)
        assert sum("Cannot allocate memory" in end for end in ends) >= 5
        monkeypatch.setattr(VLLMServer, "__enter__", real)


async def test_a_watch_that_breaks_tells_every_call_why(supervise: Supervise, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(server: VLLMServer) -> None:
        raise RuntimeError("can't start new thread")

    async with supervise("stall", check_every=0.5) as endpoint:
        monkeypatch.setattr(VLLMServer, "check", broken)
        end = await asyncio.wait_for(_later(endpoint), 30)
    assert "can't start new thread" in end


async def _later(endpoint: SupervisedServer) -> str:
    """Return how a call ends that is made when the watch is over."""
    while endpoint.stats().endpoints_up:
        await asyncio.sleep(0.05)
    return await end_of(endpoint, "x")


async def test_a_server_that_is_too_busy_for_health_is_let_alone_while_it_works(
    supervise: Supervise, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("synth.inference.server._CHECK_TIMEOUT", 0.1)
    async with supervise("mute ok", stall_seconds=1.0) as endpoint:
        assert await asyncio.gather(*(end_of(endpoint, f"call {n}") for n in range(4))) == [
            f"re: call {n}" for n in range(4)
        ]
        assert endpoint.stats().restarts == 0
    assert told == []


async def test_a_call_that_kills_the_server_ends_as_an_error_and_takes_no_other_with_it(
    supervise: Supervise, told: list[str]
) -> None:
    async with supervise("poison") as endpoint:
        texts = [f"call {n}" if n != 5 else "poison" for n in range(24)]
        ends = await asyncio.gather(*(end_of(endpoint, text) for text in texts))
        assert endpoint.stats().restarts == 3
    assert "died or stalled 3 times while this call was in flight" in ends.pop(5)
    assert ends == [f"re: call {n}" for n in range(24) if n != 5]


async def test_a_server_that_does_not_start_is_an_error_at_once(supervise: Supervise, tmp_path: Path) -> None:
    with pytest.raises(InferenceError, match="did not start: there is not enough memory"):
        await supervise("broken").__aenter__()
    assert len(servers(tmp_path)) == 1


async def test_leaving_during_a_restart_leaves_nothing(supervise: Supervise, tmp_path: Path) -> None:
    endpoint = supervise("exit ok")
    async with endpoint:
        call = asyncio.create_task(end_of(endpoint, "x"))
        while not endpoint.stats().restarts:
            await asyncio.sleep(0.01)
    assert "the endpoint is closed" in await call
    assert gone(servers(tmp_path), patience=0)
    with pytest.raises(InferenceError, match="the endpoint is closed"):
        await endpoint.complete(ask("y"))


@pytest.mark.vllm
async def test_the_real_engine_is_started_again_when_it_is_killed_and_when_it_stands_still(tmp_path: Path) -> None:
    def request(number: int) -> ChatRequest:
        text = f"<passage>The Orla lamp costs {number} pounds. Do not place the Orla lamp on carpet.</passage>"
        return ChatRequest((Message("user", text),), Sampling(0.8, max_tokens=120, seed=number))

    told: list[str] = []
    server = VLLMServer(resource("demo", "models") / "teacher", log_path=tmp_path / "log")
    async with SupervisedServer(
        server, model="m", stall_seconds=15, check_every=1, logprobs=False, on_progress=told.append
    ) as endpoint:
        undisturbed = [await endpoint.complete(request(n)) for n in range(4)]
        running: list[int] = []
        for restarts, blow in enumerate((signal.SIGKILL, signal.SIGSTOP), start=1):
            calls = [asyncio.create_task(endpoint.complete(request(n))) for n in range(200)]
            while sum(call.done() for call in calls) < 20:
                await asyncio.sleep(0.01)
            processes = session_of_engine(tmp_path / "log")
            running += processes
            engine = max(processes, key=lambda pid: int(Path(f"/proc/{pid}/statm").read_text().split()[1]))
            os.kill(engine, blow)
            struck = time.monotonic()
            assert sum(call.done() for call in calls) < 200
            replies: list[Completion] = await asyncio.gather(*calls)
            assert [reply.text for reply in replies[:4]] == [reply.text for reply in undisturbed]
            assert endpoint.stats().restarts == restarts
            assert endpoint.stats().endpoints_up == 1
            assert time.monotonic() - struck < 400
        assert endpoint.stats().prefix_cache_queries > 0
        running += session_of_engine(tmp_path / "log")
    assert "made no progress for 15 s" in told[1]
    assert (tmp_path / "log").read_text().count("=== ") == 3
    assert gone(running, patience=0)
