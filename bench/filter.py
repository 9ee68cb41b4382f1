"""python bench/filter.py --records 40000  # or any other number.

Makes synthetic records and reports records per second of processor time (one core) for reading, scoring,
near-duplicate search and decontamination, each alone, and for the whole stage with its files. Needs nothing
outside this repository.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from synth.core.heldout import HeldoutItem
from synth.core.jsonl import write_jsonl
from synth.core.records import Passage, Record
from synth.core.runs import Run, StageEntry
from synth.filter import FilterConfig, decide, read_records, run_filter, scorers_of
from synth.filters.base import score_records
from synth.filters.decontamination import HeldoutIndex
from synth.filters.dedup import find_duplicates


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


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=40_000)
    count = parser.parse_args().records
    records, config = make(count), FilterConfig()
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
