"""`python bench/efficiency.py [--pairs 5] [--passages 60]`: how much of the engine's speed the stage leaves to it.

One vLLM server with the bundled teacher (or `--teacher`). The generate stage with `qa` asks about passages of the
bundled handbook; a bare aiohttp twin sends the same bodies with as many in flight and keeps nothing. Both are timed in
turn, from start to the last reply (of the stage: to the last record on disk), the server's prefix cache emptied
before each. The figure that counts is the ratio of output tokens per second, the median over the pairs.

Printed beside it: the tokens of prompts that came from the prefix cache, of those that could have with a cache that
forgets nothing, and what the two clients took of the processor.
"""

import argparse
import asyncio
import json
import os
import re
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson

from synth import GenerateConfig, Run, find_model, run_generate
from synth.core.config import read_config
from synth.core.jsonl import read_lines
from synth.core.resources import resource
from synth.inference.client import Client
from synth.inference.server import VLLMServer


@dataclass(frozen=True, slots=True)
class Timed:
    """What one side did."""

    seconds: float
    tokens: int
    cpu: float

    @property
    def speed(self) -> float:
        """Output tokens per second."""
        return self.tokens / self.seconds


async def ours(url: str, folder: Path, config: GenerateConfig, in_flight: int) -> Timed:
    """Run the stage."""
    began, cpu = time.monotonic(), time.process_time()
    # As `synth` asks a server that it started itself: with log probabilities.
    client = Client(url, "model", max_in_flight=in_flight, logprobs=True)
    handbook = resource("demo", "handbook")
    summary = await run_generate(
        Run.create(folder), [handbook], config, client, teacher_name="model", max_in_flight=in_flight
    )
    return Timed(time.monotonic() - began, summary.completion_tokens, time.process_time() - cpu)


async def twin(url: str, bodies: Sequence[bytes], in_flight: int) -> Timed:
    """Send the bodies with bare aiohttp, in their order."""
    began, cpu, tokens = time.monotonic(), time.process_time(), 0
    gate = asyncio.Semaphore(in_flight)
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None), headers=headers
    ) as session:

        async def one(body: bytes) -> int:
            async with gate, session.post(f"{url}/chat/completions", data=body) as response:
                return int(orjson.loads(await response.read())["usage"]["completion_tokens"])

        tokens = sum(await asyncio.gather(*map(one, bodies)))
    return Timed(time.monotonic() - began, tokens, time.process_time() - cpu)


def bodies_of(run: Path) -> list[bytes]:
    """Return what the stage sent, in the order of its records and quarantine: that of the passages."""
    calls = [row for path in sorted((run / "journal").glob("*.jsonl")) for _, row in read_lines(path)]
    order = {row["id"]: place for place, (_, row) in enumerate(read_lines(run / "passages.jsonl"))}
    places = {
        key: order[row["passage_id"]]
        for _, row in read_lines(run / "records.jsonl")
        for key in row["provenance"]["call_keys"]
    }
    # A call without a record was asked near the one before it in the journal.
    last, keyed = 0, []
    for number, call in enumerate(calls):
        last = places.get(call["key"], last)
        keyed.append((last, number, call))
    bodies = []
    for _, _, call in sorted(keyed, key=lambda entry: entry[:2]):
        request = call["request"]
        body = {"model": "model", "messages": request["messages"], **request["sampling"], "logprobs": True}
        if request["schema"] is not None:
            asked = {"name": "reply", "strict": True, "schema": request["schema"]}
            body["response_format"] = {"type": "json_schema", "json_schema": asked}
        bodies.append(orjson.dumps(body))
    return bodies


def counters(root: str) -> tuple[int, int]:
    """Return the server's prefix-cache hits and queries, in tokens."""
    page = urllib.request.urlopen(f"{root}/metrics", timeout=30).read().decode()
    found = []
    for name in ("hits", "queries"):
        match = re.search(rf"^vllm:prefix_cache_{name}_total\{{.*\}} (\S+)$", page, re.MULTILINE)
        found.append(int(float(match[1])) if match else 0)
    return found[0], found[1]


def empty_cache(root: str) -> None:
    """Empty the server's prefix cache."""
    urllib.request.urlopen(urllib.request.Request(f"{root}/reset_prefix_cache", method="POST"), timeout=30).close()


def possible_hits(root: str, bodies: Sequence[bytes], block: int) -> int:
    """Return the prompt tokens that a cache which forgets nothing would have held, asked in this order."""
    seen: set[tuple[int, ...]] = set()
    hits = 0
    for body in bodies:
        question = {"model": "model", "messages": json.loads(body)["messages"], "add_generation_prompt": True}
        request = urllib.request.Request(
            f"{root}/tokenize", data=json.dumps(question).encode(), headers={"Content-Type": "application/json"}
        )
        tokens = json.loads(urllib.request.urlopen(request, timeout=30).read())["tokens"]
        prefixes = [tuple(tokens[:end]) for end in range(block, len(tokens) + 1, block)]
        # The engine always computes the last token of a prompt itself.
        usable = [prefix for prefix in prefixes if len(prefix) < len(tokens)]
        hits += max((len(prefix) for prefix in usable if prefix in seen), default=0)
        seen.update(prefixes)
    return hits


async def measure(options: argparse.Namespace) -> None:
    """Time both sides in turn and print the ratios."""
    table = read_config(resource("demo", "demo.toml"))["generate"]
    os.environ["VLLM_SERVER_DEV_MODE"] = "1"
    source = await find_model(options.teacher, role="teacher")
    assert source.weights is not None
    with tempfile.TemporaryDirectory() as name:
        args = [*(["--block-size", str(options.block)] if options.block else []), *options.vllm_arg]
        server = VLLMServer(source.weights, log_path=Path(name) / "vllm.log", args=args, on_progress=print)
        await asyncio.to_thread(server.__enter__)
        try:
            url = server.base_url
            root = url.removesuffix("/v1")
            config = GenerateConfig(**{**table, "max_passages": options.passages})
            await ours(url, Path(name) / "warm", GenerateConfig(**{**table, "max_passages": 4}), options.in_flight)
            ratios, shares = [], []
            for number in range(options.pairs):
                now = config.model_copy(update={"seed": number})
                run = Path(name) / f"run{number}"
                sides: dict[str, Timed] = {}
                bodies: list[bytes] = []
                if number == 0:  # what the twin sends is known after the stage has asked once
                    await ours(url, Path(name) / "first", now, options.in_flight)
                for side in ("ours", "twin") if number % 2 == 0 else ("twin", "ours"):
                    if side == "twin" and not bodies:
                        known = Path(name) / f"plan{number}"
                        bodies = bodies_of(run) if run.exists() else await plan(url, known, now, options.in_flight)
                    empty_cache(root)
                    before = counters(root)
                    if side == "ours":
                        sides[side] = await ours(url, run, now, options.in_flight)
                        hits = counters(root)[0] - before[0]
                    else:
                        sides[side] = await twin(url, bodies, options.in_flight)
                bodies = bodies_of(run)
                possible = possible_hits(root, bodies, options.block or options.default_block)
                a, b = sides["ours"], sides["twin"]
                ratios.append(a.speed / b.speed)
                shares.append(hits / possible if possible else float("nan"))
                for side, timed in (("ours", a), ("twin", b)):
                    print(
                        f"{side}: {timed.speed:.0f} tokens/s, {timed.tokens} in {timed.seconds:.1f} s, "
                        f"{timed.cpu:.1f} s of CPU, {len(bodies)} calls"
                    )
                print(
                    f"ratio {ratios[-1]:.3f}; prefix cache {hits} of {possible} tokens ({shares[-1]:.3f})", flush=True
                )
            print(
                f"median ratio {statistics.median(ratios):.3f} of {options.pairs} pairs; "
                f"median share of the prefix cache {statistics.median(shares):.3f}"
            )
        finally:
            await asyncio.to_thread(server.__exit__, None, None, None)


async def plan(url: str, folder: Path, config: GenerateConfig, in_flight: int) -> list[bytes]:
    """Return what the stage will send: the requests of a run of its own, which is not timed."""
    await ours(url, folder, config, in_flight)
    return bodies_of(folder)


def main() -> None:
    """Read the flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="bundled")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--passages", type=int, default=60)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--block", type=int, default=32, help="tokens of a cache block; 0 for the server's own")
    parser.add_argument("--default-block", type=int, default=128, help="the server's own, where --block is 0")
    parser.add_argument("--vllm-arg", action="append", default=[])
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
