"""`python bench/judging.py speed|auc`: what it costs to let a model judge records, and what the bundled one is worth.

`speed [--records 4000] [--votes 3] [--in-flight 256] [--delay 0.02]` judges records (round trip and judge, so 1 + votes
calls each) against a stub endpoint in a process of its own, then again from the journal, where nothing is asked, then
reads answers with the bundled student as `StudentView` does. Rates, CPU time a call and the peak of resident memory are
printed for a tenth of the records and for all, so that growth shows.

`auc [--sample 80] [--votes 3] [--model FOLDER|URL]` takes questions of examples/demo/heldout.jsonl with the
paragraphs of the handbook that hold their answers; for each, the answer of another question of the same document is
the negative. It prints the ROC AUC of each score for telling the two apart, with a 95 % interval by documents (1,000
resamples), .5 being a guess. The bundled student is 2.2 million parameters: nobody should expect a judge.
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import random
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from scipy.stats import rankdata
from stage import Stub

from synth.core.calls import Endpoint
from synth.core.heldout import load_heldout
from synth.core.records import Document, Passage, Record
from synth.core.resources import resource_folder
from synth.core.squad import normalize
from synth.documents.splitter import split_document
from synth.filtering.judging import Failure, JudgingTally, judge_records
from synth.filters.closed_book import ClosedBook
from synth.filters.judge import Judge
from synth.filters.model_scorers import model_scorers
from synth.filters.round_trip import RoundTrip
from synth.filters.student_view import StudentView
from synth.inference.client import Client
from synth.inference.journal import Journal

if TYPE_CHECKING:
    from synth.filters.model_base import ModelScorer

DEMO = resource_folder("demo")
STUDENT = DEMO / "models" / "student"


class JudgeStub(Stub):
    """Answers as a reader or a judge who always says the same."""

    def answer(self, body: bytes) -> None:
        """Send a reply that follows the schema of the call."""
        names = orjson.loads(body)["response_format"]["json_schema"]["schema"]["properties"]
        if "found" in names:
            value: dict[str, object] = {"found": True, "answer": "three grams without its box"}
        else:
            value = {**dict.fromkeys(names, 4), "self_contained": True, "reason": "It stands in the second sentence."}
        message = {"role": "assistant", "content": orjson.dumps(value).decode()}
        usage = {"prompt_tokens": 400, "completion_tokens": 40}
        reply = orjson.dumps({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(reply)
        if not self.transport.is_closing():
            self.transport.write(head + reply)


def serve(port: Connection, delay: float) -> None:
    """Run the stub and say on which port."""
    Stub.delay = delay

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(JudgeStub, "127.0.0.1", 0, backlog=2048)
        port.send(server.sockets[0].getsockname()[1])
        await asyncio.Event().wait()

    asyncio.run(run())


@contextlib.contextmanager
def stub(delay: float) -> Iterator[str]:
    """Give the URL of a stub in another process."""
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there, delay), daemon=True)
    server.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}/v1"
    finally:
        server.terminate()
        server.join()


def made(count: int) -> Iterator[tuple[int, Record]]:
    """Yield records, four to a passage of 900 characters, none held."""
    for i in range(count):
        text = " ".join(f"Part {i // 4}-{j} of the pump weighs {j} grams without its box." for j in range(18))
        passage = Passage(f"pump{i // 40}.md", text, 0, len(text))
        yield i, Record.create(passage, f"What does part {i // 4}-{i % 4} weigh?", f"{i % 4} grams", generator="qa")


async def judge_all(count: int, votes: int, in_flight: int, url: str, folder: Path, name: str) -> None:
    """Judge so many records and print what it took."""
    scorers = model_scorers(["round_trip", "judge"], votes=votes)
    tally = JudgingTally()

    def keep(so_far: JudgingTally) -> None:
        nonlocal tally
        tally = so_far

    async with Client(url, "stub", max_in_flight=in_flight) as client, Journal(folder) as journal:
        began, cpu = time.perf_counter(), time.process_time()
        judging = judge_records(made(count), scorers, client, journal, max_in_flight=in_flight, on_progress=keep)
        async for judged in judging:
            assert not judged.failures
        seconds, used = time.perf_counter() - began, time.process_time() - cpu
    calls = tally.calls + tally.replayed
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{name:9} {count:7} records  {calls:7} calls  {seconds:6.1f} s  {count / seconds:7.0f} records/s  "
        f"{calls / seconds:6.0f} calls/s  CPU {1e6 * used / calls:5.0f} µs a call  peak {peak:4.0f} MiB"
    )


def speed(options: argparse.Namespace) -> None:
    """Judge, judge again from the journal, and read answers as the student does."""
    with tempfile.TemporaryDirectory() as folder, stub(options.delay) as url:
        for count in (options.records // 10, options.records):
            place = Path(folder) / str(count)
            for name in ("asked", "replayed"):
                asyncio.run(judge_all(count, options.votes, options.in_flight, url, place, name))
    began = time.perf_counter()
    view = StudentView(STUDENT, device="cpu")
    loaded = time.perf_counter() - began
    records = [record for _, record in made(options.read)]
    began = time.perf_counter()
    view.score(records)
    seconds = time.perf_counter() - began
    rate = len(records) / seconds
    print(f"student   {len(records):7} records  {seconds:.1f} s  {rate:.0f} records/s (loaded in {loaded:.1f} s)")


def sample(count: int) -> list[tuple[Record, Record]]:
    """Return records of human pairs, each with its twin that has another question's answer."""
    by_document = defaultdict(list)
    for item in load_heldout(DEMO / "heldout.jsonl").items:
        text = (DEMO / "handbook" / item.document_id).read_text()
        for passage in split_document(Document(item.document_id, text), max_chars=700):
            if any(normalize(answer) in normalize(passage.text) for answer in item.answers):
                by_document[item.document_id].append((passage, item))
                break
    rng = random.Random(0)
    pairs = []
    for group in by_document.values():
        for passage, item in group:
            wrong = [
                o.answers[0] for _, o in group if not {*map(normalize, o.answers)} & {*map(normalize, item.answers)}
            ]
            if wrong:
                right = Record.create(passage, item.question, item.answers[0], generator="human")
                pairs.append((right, Record.create(passage, item.question, rng.choice(wrong), generator="human")))
    return rng.sample(pairs, min(count, len(pairs)))


def auc(good: Sequence[float], bad: Sequence[float]) -> float:
    """Return the chance that a good pair scores above a bad one; ties count half."""
    ranks = rankdata([*good, *bad])
    return float((ranks[: len(good)].sum() - len(good) * (len(good) + 1) / 2) / (len(good) * len(bad)))


def report(name: str, values: Mapping[str, Sequence[tuple[float, float]]], missing: int, sign: int = 1) -> None:
    """Print the AUC of one score from its values on right and wrong twins, by document."""

    def of(documents: Sequence[str]) -> float:
        both = [pair for document in documents for pair in values[document]]
        return auc([sign * right for right, _ in both], [sign * wrong for _, wrong in both])

    rng = random.Random(0)
    documents = sorted(values)
    if not documents:
        print(f"{name:50} no score at all; {missing} missing")
        return
    drawn = sorted(of(rng.choices(documents, k=len(documents))) for _ in range(1000))
    count = sum(map(len, values.values()))
    interval = f"[{drawn[25]:.3f}, {drawn[974]:.3f}]"
    print(f"{name:50} AUC {of(documents):.3f} {interval}  {count} pairs  {missing} without a score")


@asynccontextmanager
async def opened(model: str, folder: Path) -> AsyncIterator[Endpoint]:
    """Give an endpoint: of a URL, or of a server that is started on a folder."""
    if model.startswith("http"):
        async with Client(model, "model") as client:
            yield client
        return
    from synth.inference.server import VLLMServer

    server = VLLMServer(model, log_path=folder / "engine.log")
    await asyncio.to_thread(server.__enter__)
    try:
        async with Client(server.base_url, server.served, model="model") as client:
            yield client
    finally:
        await asyncio.to_thread(server.__exit__, None, None, None)


async def measure(options: argparse.Namespace) -> None:
    """Score the right pairs and their wrong twins with each scorer."""
    pairs = sample(options.sample)
    records = [record for pair in pairs for record in pair]
    known: list[tuple[str, ModelScorer]] = [
        ("prompts/round-trip.md", RoundTrip()),
        ("prompts/answer-with-context.md", RoundTrip("answer-with-context")),
        (f"prompts/judge.md, votes: {options.votes}", Judge(votes=options.votes)),
        ("prompts/closed-book.md", ClosedBook()),
    ]
    runs = [(name, scorer) for name, scorer in known if scorer.name in options.scorer]
    with tempfile.TemporaryDirectory() as folder:
        async with opened(options.model, Path(folder)) as endpoint:
            for number, (name, scorer) in enumerate(runs):
                rows, failures = [], []
                async with Journal(Path(folder) / str(number)) as journal:
                    async for judged in judge_records(enumerate(records), [scorer], endpoint, journal):
                        rows.append(judged.scores)
                        failures += judged.failures
                for score in scorer.scores:
                    if score == "judge_agreement" and options.votes == 1:
                        continue
                    tell(f"{score} ({name})", pairs, [row[score] for row in rows])
                for reason, count in tally_of(failures).items():
                    print(f"    {count} × {reason}")
    scored = StudentView(STUDENT, device="cpu").score(records)
    for score in StudentView.scores:
        # A low loss is what a right answer should have.
        tell(f"-{score} (transformers)", pairs, [one.scores[score] for one in scored], sign=-1)


def tally_of(failures: Sequence[Failure]) -> Mapping[str, int]:
    """Count failures by their last clause."""
    counts: dict[str, int] = defaultdict(int)
    for failure in failures:
        counts[failure.reason.partition(": {")[0][:100]] += 1
    return counts


def tell(name: str, pairs: Sequence[tuple[Record, Record]], column: Sequence[float | None], sign: int = 1) -> None:
    """Print one score's AUC over the pairs of which both records have it."""
    values: dict[str, list[tuple[float, float]]] = defaultdict(list)
    missing = 0
    for (right, _), a, b in zip(pairs, column[::2], column[1::2], strict=True):
        if a is None or b is None:
            missing += 1
        else:
            values[right.document_id].append((a, b))
    report(name, values, missing, sign)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    fast = parts.add_parser("speed")
    fast.add_argument("--records", type=int, default=4000)
    fast.add_argument("--votes", type=int, default=3)
    fast.add_argument("--in-flight", type=int, default=256)
    fast.add_argument("--delay", type=float, default=0.02, help="seconds that the stub takes for a reply")
    fast.add_argument("--read", type=int, default=500, help="records for the student's view")
    right = parts.add_parser("auc")
    right.add_argument("--sample", type=int, default=80)
    names = ["round_trip", "judge", "closed_book"]
    right.add_argument("--scorer", nargs="+", choices=names, default=names)
    right.add_argument("--votes", type=int, default=3)
    right.add_argument("--model", default=str(STUDENT), help="a folder to serve, or the URL of a server")
    options = parser.parse_args()
    if options.part == "speed":
        speed(options)
    else:
        asyncio.run(measure(options))


if __name__ == "__main__":
    main()
