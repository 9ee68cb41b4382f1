"""`python bench/stage.py [--requests 20000] [--in-flight 512] [--delay 0.05]`: requests per second of the whole stage.

The generate stage with the `qa` generator asks a stub endpoint that takes 50 ms for each reply, in a process of
its own on another core where there is one. All of our work counts: reading passages, prompts, keys, the journal on
disk (fsync in groups), the JSON Schema check, records. Both the rate and the CPU time a request are printed, since on
a busy machine only the second holds; their quotient is what one core of its own could do.

With `--plain` a generator of a few lines takes the place of `qa`: six calls a passage, prompts by f-string, no schema.

`python bench/stage.py --scripted --requests 1000000` measures memory in place of speed: the same stage on a scripted
teacher in the same process, with the peak of resident memory after each tenth of the records.
"""

import argparse
import asyncio
import contextlib
import cProfile
import json
import multiprocessing
import os
import pstats
import resource
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import orjson

from synth import (
    ChatRequest,
    Endpoint,
    GenerateConfig,
    GenerateSummary,
    Message,
    Passage,
    Provenance,
    Record,
    Run,
    ScriptedTeacher,
    Teacher,
    run_generate,
)
from synth.generation.tally import Progress
from synth.inference.client import Client
from synth.job import calm_collector

SENTENCES = 6


class Stub(asyncio.Protocol):
    """Answers each completion after a delay with a pair about the first sentence on offer."""

    delay = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with an empty buffer."""
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        """Answer when a whole request is there; a client sends one at a time on a connection."""
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        if head.startswith(b"GET"):
            self.buffer = b""
            self.transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) >= length:
            self.buffer = b""
            asyncio.get_running_loop().call_later(self.delay, self.answer, body)

    def answer(self, body: bytes) -> None:
        """Send the reply."""
        if not self.transport.is_closing():
            self.transport.write(http_reply(body))


def http_reply(body: bytes) -> bytes:
    """Return the response to a completion request."""
    asked = orjson.loads(body)
    if "response_format" in asked:
        schema = asked["response_format"]["json_schema"]["schema"]
        content = pair(schema["properties"]["evidence"]["enum"][0])
    else:
        content = "It weighs three grams without its box."
    message = {"role": "assistant", "content": content}
    usage = {"prompt_tokens": 200, "completion_tokens": 40}
    reply = orjson.dumps({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(reply), reply)


def pair(sentence: str) -> str:
    """Return a pair as a teacher would write it."""
    words = sentence.rstrip(".").split()
    return json.dumps({"evidence": sentence, "question": f"What about {words[1]}?", "answer": " ".join(words[2:])})


def serve(port: Connection, delay: float, core: int | None) -> None:
    """Run the stub and say on which port."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    Stub.delay = delay

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", 0, backlog=2048)
        port.send(server.sockets[0].getsockname()[1])
        await asyncio.Event().wait()

    asyncio.run(run())


@contextlib.contextmanager
def stub(delay: float) -> Iterator[str]:
    """Give the URL of a stub in another process; where there are two cores, each process keeps to its own."""
    cores = sorted(os.sched_getaffinity(0))
    apart = len(cores) > 1
    here, there = multiprocessing.Pipe()
    arguments = (there, delay, cores[-1] if apart else None)
    server = multiprocessing.get_context("spawn").Process(target=serve, args=arguments, daemon=True)
    server.start()
    if apart:
        os.sched_setaffinity(0, set(cores[:-1]))
    try:
        yield f"http://127.0.0.1:{here.recv()}/v1"
    finally:
        server.terminate()
        server.join()


class Plain:
    """Asks six questions about a passage, in plain Python."""

    name = "plain"

    async def generate(self, passage: Passage, teacher: Teacher) -> list[Record]:
        """Return six records."""
        prompts = [f"<passage>\n{passage.text}\n</passage>\n\nAnswer question {i} about it." for i in range(SENTENCES)]
        replies = await asyncio.gather(*(teacher.chat([Message("user", prompt)]) for prompt in prompts))
        return [
            Record.create(
                passage,
                f"Question {i}?",
                reply.text,
                generator=self.name,
                provenance=Provenance("", "", (reply.key,), reply.usage.prompt_tokens, reply.usage.completion_tokens),
            )
            for i, reply in enumerate(replies)
        ]


def documents(folder: Path, requests: int) -> Path:
    """Write documents that give so many calls: passages of six sentences, one call a sentence."""
    path = folder / "docs.jsonl"
    with path.open("wb") as file:
        for number in range(max(1, requests // SENTENCES)):
            sentences = [
                f"Part {number}-{i} of the pump weighs {i + 3} grams without its box." for i in range(SENTENCES)
            ]
            file.write(
                orjson.dumps({"id": f"d{number}", "text": " ".join(sentences)}, option=orjson.OPT_APPEND_NEWLINE)
            )
    return path


@asynccontextmanager
async def scripted() -> AsyncIterator[Endpoint]:
    """Give a teacher in this process."""

    class Forgetful(ScriptedTeacher):
        async def complete(self, request: ChatRequest) -> object:  # type: ignore[override]
            self.requests.clear()
            return await super().complete(request)

    def reply(request: ChatRequest) -> str:
        assert request.schema is not None
        return pair(request.schema["properties"]["evidence"]["enum"][0])

    yield Forgetful(reply, model="stub")


async def stage(
    folder: Path,
    path: Path,
    teacher: AbstractAsyncContextManager[Endpoint],
    in_flight: int,
    watch: bool,
    generator: str = "qa",
) -> GenerateSummary:
    """Run the stage; with `watch`, print the memory on the way."""
    shown = 0

    def on_progress(now: Progress) -> None:
        nonlocal shown
        if watch and now.total and now.done * 10 // now.total > shown:
            shown = now.done * 10 // now.total
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"{now.tally.records:9,} records, peak {peak:.0f} MiB", flush=True)

    return await run_generate(
        Run.create(folder / "run"),
        [path],
        GenerateConfig(passage_chars=2000, generator=(generator,)),
        teacher,
        teacher_name="stub",
        max_in_flight=in_flight,
        on_progress=on_progress,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--in-flight", type=int, default=512)
    parser.add_argument("--delay", type=float, default=0.05)
    parser.add_argument("--scripted", action="store_true")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    calm_collector()  # as the command line does
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        path = documents(folder, options.requests)
        if options.scripted:
            teacher: AbstractAsyncContextManager[Endpoint] = scripted()
        else:
            teacher = Client(stack.enter_context(stub(options.delay)), "stub", max_in_flight=options.in_flight)
        profile = cProfile.Profile() if options.profile else None
        wall, cpu = time.monotonic(), time.process_time()
        chosen = f"{__file__}:Plain" if options.plain else "qa"
        running = stage(folder, path, teacher, options.in_flight, options.scripted, chosen)
        summary = profile.runcall(asyncio.run, running) if profile else asyncio.run(running)
        wall, cpu = time.monotonic() - wall, time.process_time() - cpu
        assert summary.records == summary.calls == options.requests // SENTENCES * SENTENCES, summary
        print(
            f"{summary.calls} calls in {wall:.1f} s: {summary.calls / wall:.0f} a second; "
            f"{1e6 * cpu / summary.calls:.0f} us CPU a call, {summary.calls / cpu:.0f} a second and core"
        )
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
        if profile:
            pstats.Stats(profile).sort_stats(os.environ.get("SORT", "tottime")).print_stats(45)


if __name__ == "__main__":
    main()
