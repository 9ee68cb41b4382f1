"""`python bench/client.py [--requests 4000] [--in-flight 64]`: what our client costs above bare aiohttp.

A stub endpoint in a process of its own answers at once. Both clients send the same bodies to it in the same
process, one after the other and then the other way round; the figure that counts is the ratio of CPU time a request.
"""

import argparse
import asyncio
import multiprocessing
import statistics
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection

import aiohttp
import orjson
from aiohttp import web

from synth import ChatRequest, Message, Sampling
from synth.inference.client import Client

TEXT = "The Brevo kettle holds 1.7 litres of water and boils it in four minutes. " * 12
REPLY = orjson.dumps(
    {
        "choices": [{"message": {"role": "assistant", "content": "1.7 litres"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 200, "completion_tokens": 5},
    }
)


def serve(port: Connection) -> None:
    """Answer every completion at once, and say on which port."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=REPLY, content_type="application/json")

    async def run() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(run())


async def ours(url: str, requests: int, in_flight: int) -> None:
    """Send through the client of this project."""
    async with Client(url, "stub", max_in_flight=in_flight) as client:
        calls = (
            client.complete(ChatRequest((Message("user", f"{i} {TEXT}"),), Sampling(seed=i))) for i in range(requests)
        )
        await asyncio.gather(*calls)


async def bare(url: str, requests: int, in_flight: int) -> None:
    """Send through aiohttp alone, and parse the reply."""
    gate = asyncio.Semaphore(in_flight)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one(i: int) -> str:
            body = {"model": "stub", "messages": [{"role": "user", "content": f"{i} {TEXT}"}], "seed": i}
            async with gate, session.post(f"{url}/chat/completions", data=orjson.dumps(body)) as response:
                return str(orjson.loads(await response.read())["choices"][0]["message"]["content"])

        await asyncio.gather(*(one(i) for i in range(requests)))


def cost(send: Callable[[str, int, int], Awaitable[None]], url: str, requests: int, in_flight: int) -> float:
    """Return the CPU time of this process in milliseconds a request."""
    began = time.process_time()
    asyncio.run(send(url, requests, in_flight))  # type: ignore[arg-type]
    return (time.process_time() - began) * 1000 / requests


def main() -> None:
    """Measure both, alternating, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--in-flight", type=int, default=64)
    options = parser.parse_args()
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{here.recv()}/v1"
    cost(bare, url, 200, options.in_flight)
    pairs = []
    for turn in range(4):
        order = [bare, ours] if turn % 2 else [ours, bare]
        costs = {send.__name__: cost(send, url, options.requests, options.in_flight) for send in order}
        pairs.append(costs)
        print(f"bare aiohttp {costs['bare']:.3f} ms, ours {costs['ours']:.3f} ms CPU a request")
    ratio = statistics.median(p["ours"] / p["bare"] for p in pairs)
    print(f"median ratio {ratio:.2f} at {options.in_flight} in flight")
    server.terminate()


if __name__ == "__main__":
    main()
