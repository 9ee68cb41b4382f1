"""python bench/filter.py --records 40000 [--squad xquad.en.json …] [--steps].

Makes synthetic records (and, from SQuAD files, real ones) and reports what each step of model-free scoring costs,
from a line of records.jsonl to the scored line, on one core and in two processes. Then, for the synthetic ones,
records per second of processor time (one core) for near-duplicate search and decontamination, each alone, and for
the whole stage with its files. Without --squad it needs nothing outside this repository.
"""

import argparse
import gc
import json
import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import orjson

from synth.core.heldout import HeldoutItem
from synth.core.jsonl import write_jsonl
from synth.core.record_file import parse_records
from synth.core.records import Passage, Record
from synth.core.runs import Run, StageEntry
from synth.core.sentences import split_sentences
from synth.filter import FilterConfig, decide, read_records, run_filter, scorers_of
from synth.filters.base import score_records
from synth.filters.decontamination import HeldoutIndex
from synth.filters.dedup import find_duplicates
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


def report(what: str, count: int, work: Callable[[], object]) -> None:
    """Run `work` once and print how many records it did a second of processor time, which other jobs do not take."""
    started = time.process_time()
    work()
    seconds = time.process_time() - started
    print(f"{what:<18}{count / seconds:>10,.0f} records/s{seconds:>9.2f} s")


def from_squad(path: Path) -> list[Record]:
    """Return the human pairs of a SQuAD file with their sentence, without it, and with another answer."""
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


def score_chunk(lines: list[bytes], costs: dict[str, float] | None = None) -> list[bytes]:
    """Return the lines with the scores of all model-free scorers: what one worker does; `costs` collects seconds."""
    costs = {} if costs is None else costs
    clock = time.process_time

    def spend(what: str, since: float) -> float:
        costs[what] = costs.get(what, 0.0) + clock() - since
        return clock()

    since = clock()
    records = list(parse_records(lines, where="bench"))
    since = spend("parse", since)
    scorers = scorers_of(FilterConfig())
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
    written = [orjson.dumps(record.to_json(), option=orjson.OPT_APPEND_NEWLINE) for record in scored]
    forget_pairs()
    trim_all()
    spend("serialise", since)
    return written


def machine() -> float:
    """Return seconds for a fixed piece of work, to see how much other jobs slow this one down."""
    started, table = time.process_time(), {}
    for i in range(4000):
        table[i & 255] = str(i)
    return time.process_time() - started


def steps(title: str, records: list[Record]) -> None:
    """Print what each step from line to line costs on one core, and what two processes do."""
    lines = [orjson.dumps(record.to_json(), option=orjson.OPT_APPEND_NEWLINE) for record in records]
    chunks = [lines[i : i + CHUNK] for i in range(0, len(lines), CHUNK)]
    costs: dict[str, float] = {}
    quiet = min(machine() for _ in range(300))
    paces = []
    gc.collect()
    gc.disable()  # as a worker may: nothing that is made here refers to itself
    for chunk in chunks:
        score_chunk(chunk, costs)
        paces.append(machine())
    gc.enable()
    spent, slowed = sum(costs.values()), sum(paces) / len(paces) / quiet
    print(f"{title}: {len(lines):,} records, processor time slowed {slowed:.2f} times by other jobs")
    for name, seconds in costs.items():
        print(f"  {name:<20}{seconds / len(lines) * 1e6:>8.1f} us{seconds / spent:>8.1%}")
    rate = len(lines) / spent
    print(f"  one core: {rate:,.0f} records/s; without the other jobs about {rate * slowed:,.0f}")
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("forkserver")) as pool:
        list(pool.map(score_chunk, chunks[:2]))  # the processes start and import
        started = time.perf_counter()
        for _ in pool.map(score_chunk, chunks):
            pass
        print(
            f"  two processes: {len(lines) / (time.perf_counter() - started):,.0f} records/s of wall time", flush=True
        )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=40_000)
    parser.add_argument("--squad", type=Path, nargs="*", default=[], help="SQuAD files, for real prose")
    parser.add_argument("--steps", action="store_true", help="only the cost of each step of model-free scoring")
    options = parser.parse_args()
    count = options.records
    records, config = make(count), FilterConfig()
    steps("synthetic", records)
    for path in options.squad:
        steps(path.name, from_squad(path))
    if options.steps:
        return
    heldout = [
        HeldoutItem(f"h{i}", record.question, (record.answer,), record.document_id)
        for i, record in enumerate(make(2000, seed=1))
    ]
    index = HeldoutIndex(heldout)
    print(f"{len(records):,} records, {len(heldout):,} held-out questions")
    report("scoring", count, lambda: score_records(records, scorers_of(config)))
    report("duplicates", count, lambda: find_duplicates(records, lambda record: 1.0))
    report("decontamination", count, lambda: [index.find(record) for record in records])
    report("deciding", count, lambda: decide(records, config))
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run")
        write_jsonl(run.records_path, (record.to_json() for record in records))
        run.finish_stage("generate", StageEntry(config={}))
        report("reading", count, lambda: list(read_records(run.records_path)))
        report("the whole stage", count, lambda: run_filter(run, config))
        print(run_filter(run, config).funnel)


if __name__ == "__main__":
    main()
