"""python bench/filter.py [--records 40000] [--squad FILE ...] [--sizes 10000 100000 1000000].

What the filter costs, on synthetic records and, from SQuAD files, on real prose:

- what each step of model-free scoring costs on one core, from a line of records.jsonl to the scored line;
- the first pass over lines, in this process and in two worker processes, as the stage does it;
- with --sizes, the whole stage with its files at each size, with the peak of resident memory of parent and workers,
  so that growth shows.

Processor time is what other jobs do not take; wall-clock time is what a user waits.
"""

import argparse
import gc
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson

from synth.core.heldout import HeldoutItem
from synth.core.jsonl import write_jsonl
from synth.core.record_file import parse_record
from synth.core.records import Passage, Record
from synth.core.runs import Run, StageEntry
from synth.core.sentences import split_sentences
from synth.filter import run_filter
from synth.filtering.config import FilterConfig
from synth.filtering.lines import Task, prepare, score_block
from synth.filtering.workers import Workers
from synth.filters.base import Scorer
from synth.filters.decontamination import HeldoutIndex
from synth.filters.memo import trim_all
from synth.filters.pair import forget_pairs

CHUNK = 1000


def words(text: str) -> list[str]:
    """Return the words of `text`."""
    return text.split()


THINGS = words("lamp kettle radio tent freezer printer cable scale drone stove clock camera mower pump lock saddle")
PARTS = words("lid handle filter valve battery switch sensor hinge nozzle wheel cover strap dial panel fuse tray")
VERBS = words("covers holds cools drives warms stops feeds turns lifts guards")
SYLLABLES = words("ba co du fe gi ho ju ka lo mi ne po ra su ti vo we xa yo za")


def name(rng: random.Random) -> str:
    """Return a made-up name."""
    return "".join(rng.choice(SYLLABLES) for _ in range(3)).title()


def passages(count: int, rng: random.Random) -> Iterator[tuple[Passage, list[tuple[str, str, str]]]]:
    """Yield passages of six sentences, each with a question, its answer and its evidence."""
    for i in range(count):
        product, facts = name(rng), []
        for part in rng.sample(PARTS, 6):
            thing, weight = rng.choice(THINGS), rng.randint(2, 900)
            subject = f"the {part} of the {product} {thing}"
            facts.append(
                rng.choice(
                    [
                        (
                            f"How much does {subject} weigh?",
                            f"{weight} grams",
                            f"T{subject[1:]} weighs {weight} grams.",
                        ),
                        (
                            f"What {rng.choice(VERBS)} the {rng.choice(PARTS)} in the {product} {thing}?",
                            f"the {part}",
                            f"In the {product} {thing}, the {part} does the work for {weight} hours.",
                        ),
                        (
                            f"How long is the warranty on {subject}?",
                            f"{weight} days",
                            f"The warranty on {subject} is {weight} days from purchase.",
                        ),
                    ]
                )
            )
        text = " ".join(evidence for _, _, evidence in facts)
        yield Passage(f"manual-{i // 8}.md", text, 0, len(text)), facts


def make(count: int, seed: int = 0) -> list[Record]:
    """Return `count` records, a tenth of them near copies of others."""
    rng = random.Random(seed)
    records: list[Record] = []
    for passage, facts in passages(count // 5, rng):
        for question, answer, evidence in facts:
            records.append(Record.create(passage, question, answer, generator="bench", evidence=evidence))
            if rng.random() < 0.1:
                question = question.replace("How much does", "How much exactly does").replace("What", "What now")
                records.append(Record.create(passage, question, answer, generator="bench", evidence=evidence))
    return records[:count]


def from_squad(path: Path) -> list[Record]:
    """Return the pairs of a SQuAD file three times: with their sentence, with another answer, without evidence."""
    records: list[Record] = []
    for article in json.loads(path.read_text())["data"]:
        for paragraph in article["paragraphs"]:
            text = paragraph["context"]
            passage, sentences = Passage(f"{article['title']}.md", text, 0, len(text)), split_sentences(text)
            found = [(q["question"], q["answers"][0]) for q in paragraph["qas"] if q.get("answers")]
            for i, (question, answer) in enumerate(found):
                start, other = answer.get("answer_start", -1), found[i - 1][1]["text"]
                evidence = next((s.text for s in sentences if s.start <= start < s.end), None)
                variants = [(answer["text"], evidence), (answer["text"], None)] + [(other, evidence)] * (len(found) > 1)
                for written, quoted in variants:
                    records.append(Record.create(passage, question, written, generator="bench", evidence=quoted))
    return records


def score_chunk(lines: list[bytes], costs: dict[str, float], scorers: Sequence[Scorer]) -> None:
    """Score lines step by step and add the seconds of each to `costs`."""
    clock = time.process_time

    def spend(what: str, since: float) -> float:
        costs[what] = costs.get(what, 0.0) + clock() - since
        return clock()

    since = clock()
    records = [parse_record(line, where="bench")[1] for line in lines]
    since = spend("parse", since)
    columns = []
    for scorer in scorers:
        columns.append(scorer.score(records))
        since = spend(f"score {scorer.name}", since)
    names = [scorer.name for scorer in scorers]
    scored = [
        record.with_scores(dict(zip(names, row, strict=True)))
        for record, row in zip(records, zip(*columns, strict=True), strict=True)
    ]
    since = spend("attach", since)
    for record in scored:
        orjson.dumps(record.to_json(), option=orjson.OPT_APPEND_NEWLINE)
    forget_pairs()
    trim_all()
    spend("serialise", since)


def machine() -> float:
    """Return seconds for a fixed piece of work, to see how much other jobs slow this one down."""
    started, table = time.process_time(), {}
    for i in range(4000):
        table[i & 255] = str(i)
    return time.process_time() - started


def steps(title: str, records: list[Record], config: FilterConfig) -> None:
    """Print what each step from line to line costs on one core, and the rate of the first pass in 0 and 2 workers."""
    lines = [orjson.dumps(record.to_json(), option=orjson.OPT_APPEND_NEWLINE) for record in records]
    chunks = [lines[i : i + CHUNK] for i in range(0, len(lines), CHUNK)]
    costs: dict[str, float] = {}
    quiet = min(machine() for _ in range(300))
    paces, plan = [], prepare(Task(config))
    gc.collect()
    gc.disable()  # as in a worker: nothing that is made here refers to itself
    for chunk in chunks:
        score_chunk(chunk, costs, plan.scorers)
        paces.append(machine())
    spent, slowed = sum(costs.values()), sum(paces) / len(paces) / quiet
    print(f"{title}: {len(lines):,} records, processor time slowed {slowed:.2f} times by other jobs")
    for name, seconds in costs.items():
        print(f"  {name:<22}{seconds / len(lines) * 1e6:>8.1f} us{seconds / spent:>8.1%}")
    rate = len(lines) / spent
    print(f"  scoring, one core: {rate:,.0f} records/s; at the quiet pace {rate * slowed:,.0f}")
    blocks = [("bench", list(enumerate(chunk, 1))) for chunk in chunks]
    seconds, paces = 0.0, []
    for block in blocks:
        started = time.process_time()
        score_block(plan, block)
        seconds += time.process_time() - started
        paces.append(machine())
    gc.enable()
    rate, slowed = len(lines) / seconds, sum(paces) / len(paces) / quiet
    print(
        f"  first pass, one core (with reasons, sketches, digests): {rate:,.0f} records/s, {1e6 / rate:.0f} us each; "
        f"at the quiet pace {rate * slowed:,.0f}, {1e6 / rate / slowed:.0f} us each"
    )
    with Workers(prepare, Task(config), score_block, count=2) as workers:
        list(workers.map(blocks[:4]))  # the processes start and import
        started = time.perf_counter()
        for _ in workers.map(blocks):
            pass
        rate = len(lines) / (time.perf_counter() - started)
    print(f"  first pass, two workers: {rate:,.0f} records/s of wall time", flush=True)


def decontamination(records: list[Record]) -> None:
    """Print what looking a record up among 2,000 held-out questions costs."""
    index = HeldoutIndex(
        HeldoutItem(f"h{i}", record.question, (record.answer,), record.document_id)
        for i, record in enumerate(make(2000, seed=1))
    )
    started = time.process_time()
    for record in records:
        index.find(record)
    seconds = time.process_time() - started
    print(f"decontamination: {seconds / len(records) * 1e6:.1f} us a record against 2,000 held-out questions")


def stage(count: int, scores: str) -> None:
    """Run the whole stage once over `count` records and print what it took; a process of its own, for its memory."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run")
        # In portions with seeds of their own, so that no list of all of them stands in memory.
        portions = (make(min(20_000, count - start), seed=start) for start in range(0, count, 20_000))
        write_jsonl(run.records_path, (record.to_json() for portion in portions for record in portion))
        size = run.records_path.stat().st_size
        run.finish_stage("generate", StageEntry(config={}))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        wall, own, workers = time.perf_counter(), os.times(), 0
        summary = run_filter(run, FilterConfig.model_validate({"scores": scores}))
        wall, used = time.perf_counter() - wall, os.times()
        workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spent = used.user + used.system + used.children_user + used.children_system - sum(own[:4])
    print(
        f"{count:>9,} records ({size >> 20} MiB): {wall:7.1f} s, {count / wall:8,.0f} records/s of wall time, "
        f"{spent:7.1f} s of processor time; parent {peak >> 10} MiB (before {before >> 10}), "
        f"largest worker {workers >> 10} MiB; kept {summary.kept:,}",
        flush=True,
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=40_000)
    parser.add_argument("--squad", type=Path, nargs="*", default=[], help="SQuAD files, for real prose")
    parser.add_argument("--sizes", type=int, nargs="*", default=[], help="numbers of records for the whole stage")
    parser.add_argument("--scores", choices=("all", "ruled"), default=FilterConfig().scores)
    parser.add_argument("--alone", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        stage(options.alone, options.scores)
        return
    config = FilterConfig(scores=options.scores)
    if options.records:
        records = make(options.records)
        steps("synthetic", records, config)
        decontamination(records)
    for path in options.squad:
        steps(path.name, from_squad(path), config)
    for size in options.sizes:
        command = [sys.executable, __file__, "--alone", str(size), "--scores", options.scores]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
