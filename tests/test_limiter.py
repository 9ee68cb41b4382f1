"""The limiter against simulated servers, in virtual time."""

import asyncio
import heapq
import itertools
import json
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

import pytest

from synth.core.calls import ChatRequest, Sampling
from synth.core.records import Message
from synth.inference.client import Client
from synth.inference.limiter import Limiter
from synth.inference.metrics import EngineMetrics, parse_metrics

Serve = Callable[[int, float], tuple[float, bool]]


class Simulation:
    """A client that always has another call, one limiter, and a server that says how long a call takes.

    `serve` gets how many calls run, this one included, and the time; it gives seconds and whether it was refused.
    """

    def __init__(self, serve: Serve, most: int, **options: int) -> None:
        self.now = 0.0
        self.limiter = Limiter(most, clock=lambda: self.now, **options)
        self.serve = serve
        self.answered = self.refused = 0
        self._ends: list[tuple[float, int, float, bool]] = []
        self._numbers = itertools.count()

    def run(self, seconds: float) -> "Simulation":
        """Go on for a while, counting anew."""
        self.answered = self.refused = 0
        until = self.now + seconds
        while self.now < until:
            while self.limiter.try_enter():
                takes, refused = self.serve(self.limiter.in_flight, self.now)
                heapq.heappush(self._ends, (self.now + takes, next(self._numbers), self.now, refused))
            self.now, _, began, refused = heapq.heappop(self._ends)
            if refused:
                self.refused += 1
                self.limiter.overloaded(began)
            else:
                self.answered += 1
                self.limiter.succeeded(began)
        return self


def refusing(capacity: Callable[[float], int]) -> Serve:
    """Serve up to `capacity` calls at once in a second each, and refuse the rest after 50 ms."""
    return lambda running, now: (0.05, True) if running > capacity(now) else (1.0, False)


def test_an_endpoint_that_refuses_is_kept_near_what_it_takes() -> None:
    simulation = Simulation(refusing(lambda now: 20), 200)
    first = simulation.run(10).refused
    simulation.run(100)
    assert first > 100
    assert simulation.refused < 0.1 * simulation.answered
    assert simulation.answered > 0.75 * 20 * 100
    assert 14 <= simulation.limiter.limit <= 24


def test_the_limit_recovers_when_the_endpoint_does() -> None:
    simulation = Simulation(refusing(lambda now: 4 if now < 50 else 100), 100)
    simulation.run(50)
    assert simulation.limiter.limit <= 8
    simulation.run(150)
    assert simulation.limiter.limit == 100


def test_a_high_limit_is_found_from_a_low_start_in_a_few_round_trips() -> None:
    simulation = Simulation(refusing(lambda now: 10_000), 512, start=16)
    simulation.run(7)
    assert simulation.limiter.limit == 512


def test_one_burst_of_refusals_cuts_once() -> None:
    limiter = Limiter(100, clock=lambda: 1.0)
    for _ in range(100):
        assert limiter.try_enter()
    for _ in range(50):
        limiter.overloaded(began=0.5)
    assert limiter.limit == 70


def test_the_limit_keeps_to_its_bounds() -> None:
    simulation = Simulation(refusing(lambda now: 0), 64, least=3)
    simulation.run(20)
    assert simulation.limiter.limit == 3


def test_an_engine_that_batches_gets_slower_a_call_and_is_not_throttled() -> None:
    # Ten times slower with all in flight than with one, and more than six times the answers a second for it.
    simulation = Simulation(lambda running, now: (1 + 9 * running / 64, False), 64, start=4)
    simulation.run(400)
    assert simulation.limiter.limit == 64


def test_where_no_queue_is_shown_a_server_that_thrashes_gets_fewer_calls() -> None:
    # Up to 32 calls it shares its work out; beyond, each further call makes all much slower.
    def thrashing(running: int, now: float) -> tuple[float, bool]:
        return (1.0 if running <= 32 else (running / 32) ** 3), False

    simulation = Simulation(thrashing, 256, start=16)
    simulation.run(300)
    simulation.run(300)
    assert simulation.limiter.limit < 96
    # With all 256 in flight a call would take 512 s.
    assert simulation.answered > 10 * 300 * 256 / 512


def test_where_no_queue_is_shown_calls_that_got_longer_do_not_freeze_a_limit_that_was_cut() -> None:
    def serve(running: int, now: float) -> tuple[float, bool]:
        if 30 < now < 36 and running > 8:
            return 0.05, True
        # From then on longer prompts, say: the endpoint takes as many of them.
        return (0.3 if now < 36 else 2.0), False

    simulation = Simulation(serve, 64)
    simulation.run(36)
    cut = simulation.limiter.limit
    assert cut < 20
    simulation.run(300)
    assert simulation.limiter.limit > 2 * cut


def test_an_engine_with_room_or_a_short_queue_keeps_all_calls_in_flight() -> None:
    limiter = Limiter(256)
    for running, waiting in ((10, 0), (128, 100), (128, 256), (4, 16), (0, 200)):
        limiter.observe(running, waiting)
        assert limiter.limit == 256


def test_a_long_queue_in_the_engine_is_shortened_and_never_emptied() -> None:
    limiter = Limiter(1000)
    for _ in range(1000):
        assert limiter.try_enter()
    limits = []
    for _ in range(12):
        while limiter.in_flight > limiter.limit:
            limiter.succeeded(time.monotonic())
        limiter.observe(running=100, waiting=limiter.in_flight - 100)
        limits.append(limiter.limit)
    assert limits == sorted(limits, reverse=True)
    assert 200 <= limits[-1] <= 300
    while limiter.in_flight > 90:
        limiter.succeeded(time.monotonic())
    for _ in range(60):
        while limiter.try_enter():
            pass
        limiter.observe(running=1000, waiting=0)
    assert limiter.limit == 1000


async def test_calls_are_let_in_in_order_and_a_cancelled_one_takes_no_place() -> None:
    limiter = Limiter(1)
    order: list[int] = []

    async def call(number: int) -> None:
        await limiter.enter()
        order.append(number)
        await asyncio.sleep(0)
        limiter.leave()

    await limiter.enter()
    calls = [asyncio.create_task(call(n)) for n in range(5)]
    await asyncio.sleep(0)
    assert limiter.queued == 5
    calls[1].cancel()
    await asyncio.sleep(0)
    limiter.leave()
    calls[0].cancel()  # it was let in a moment before
    await asyncio.gather(*calls, return_exceptions=True)
    assert order == [2, 3, 4]
    assert (limiter.in_flight, limiter.queued) == (0, 0)


PAGE = b"""# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="a } b"} 3.0
vllm:num_requests_waiting{engine="1",model_name="a } b"} 4.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 9.0
vllm:num_requests_running{engine="0"} 1e+01
vllm:generation_tokens_total{engine="0"} 123.0 1700000000000
vllm:prompt_tokens_total 7
vllm:prefix_cache_hits_total{engine="0"} nonsense
process_resident_memory_bytes 9.0
"""


def test_the_metrics_page_of_vllm_is_read_and_other_pages_are_not() -> None:
    metrics = parse_metrics(PAGE)
    assert metrics == EngineMetrics(running=10, waiting=7, prompt_tokens=7, generation_tokens=123)
    assert metrics.tokens == 130
    assert parse_metrics(b'{"object": "list"}') is None
    assert parse_metrics(b"") is None
    assert parse_metrics(b"vllm:\nvllm:num_requests_running\nvllm:num_requests_running{") is None


@pytest.mark.parametrize("retry_after", [False, True])
async def test_a_hosted_endpoint_with_a_limit_answers_everything_and_refuses_less_and_less(retry_after: bool) -> None:
    refused: list[int] = []
    asked = running = 0
    lock = Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # noqa: N802
            self.send_error(404)

        def do_POST(self) -> None:  # noqa: N802
            nonlocal asked, running
            self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                asked += 1
                running += 1
                busy = running > 6
                if busy:
                    refused.append(asked)
            time.sleep(0.002 if busy else 0.05)
            choice = {"message": {"content": "x"}, "finish_reason": "stop"}
            data = json.dumps({} if busy else {"choices": [choice]}).encode()
            with lock:
                running -= 1
            self.send_response(429 if busy else 200)
            if busy and retry_after:
                self.send_header("Retry-After", "0.1")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            """Stay quiet."""

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    thread = Thread(target=listener.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    request = ChatRequest((Message("user", "?"),), Sampling(max_tokens=8))
    try:
        url = f"http://127.0.0.1:{listener.server_address[1]}/v1"
        async with Client(url, "m", max_in_flight=48, retries=4) as client:
            replies = await asyncio.gather(*(client.complete(request) for _ in range(600)))
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()
    assert len(replies) == 600
    late = sum(number > asked / 2 for number in refused)
    assert len(refused) - late > 2 * late or late < 0.05 * asked
    assert len(refused) < 0.2 * asked
