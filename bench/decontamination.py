"""`python bench/decontamination.py [--human FILE]… [--embedder wordllama]`: what decontamination finds, and what else.

Prints how many planted verbatim questions are found, how long a lookup takes, and for several settings of `Closeness`
how many planted paraphrases are found and how many other questions are taken for one. The paraphrases stand in
bench/paraphrases.jsonl with an answer each, and beside each another question about the same subject. `--human` names
files of human questions (SQuAD JSON, JSONL, CSV): they are held out beside the paraphrases' questions, and half of
each file's questions are looked up against the other half.
"""

import argparse
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from synth.core.embedding import Embedder, load_embedder
from synth.core.heldout import HeldoutItem, load_heldout
from synth.core.records import Passage, Record
from synth.filters.decontamination import HeldoutIndex
from synth.filters.paraphrase import Closeness, RewordedIndex, semantic_leaks

SETTINGS = (
    Closeness(),
    Closeness(told=0.1, answered=0.2),
    Closeness(told=0.15, answered=0.3),
    Closeness(told=0.25, answered=0.4),
    Closeness(told=0.4, answered=0.5),
    Closeness(told=0.6, answered=0.6),
)
CHANGES: dict[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    "capitals": str.upper,
    "no punctuation": lambda text: re.sub(r"(?<!\w)[^\w\s]+|[^\w\s]+(?!\w)", " ", text),
    "white space": lambda text: text.replace(" ", "\u00a0\n "),
    "curly quotes": lambda text: text.replace("'", "’").replace('"', "“"),
    "within a question": lambda text: f"As was asked before, {text} Say it briefly.",
}


def record(question: str, answer: str, context: str = "A passage about nothing.") -> Record:
    """Return a record of the pair."""
    return Record.create(Passage("d", context, 0, len(context)), question, answer, generator="bench")


def verbatim(items: Sequence[HeldoutItem]) -> None:
    """Plant each question in several forms, in a question and in an answer, and print how many are found."""
    index = HeldoutIndex(items)
    for name, change in CHANGES.items():
        asked = sum(index.find(record(change(item.question), "Yes.")) is not None for item in items)
        answered = sum(index.find(record("What was asked?", change(item.question))) is not None for item in items)
        print(f"  {name:<20} in a question {asked}/{len(items)}, in an answer {answered}/{len(items)}")


def lookups(items: Sequence[HeldoutItem], asked: Sequence[HeldoutItem]) -> None:
    """Print the time of a lookup of human pairs about other documents, in microseconds of processor time."""
    started = time.process_time()
    index = HeldoutIndex(items)
    built = time.process_time() - started
    records = [record(item.question, item.answers[0], item.context) for item in asked]
    started = time.process_time()
    found = [index.find(each) for each in records]
    each = (time.process_time() - started) / len(records) * 1e6
    print(
        f"  {len(items):,} items in {built:.2f} s; {each:.1f} µs a record, {sum(map(bool, found))} of {len(found)} leak"
    )


def halves(items: Sequence[HeldoutItem], embedder: Embedder, closeness: Closeness) -> list[tuple[str, str, float]]:
    """Return the questions of each half that are taken for one of the other half, which one, and their cosine."""
    taken = []
    for held, asked in ((items[::2], items[1::2]), (items[1::2], items[::2])):
        index = RewordedIndex(held, embedder, closeness)
        found = index.find([i.question for i in asked], [i.answers[0] for i in asked])
        taken += [(asked[row].question, held[item].question, cosine) for row, (item, cosine) in found.items()]
    return taken


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--human", type=Path, action="append", default=[])
    parser.add_argument("--embedder", default="wordllama")
    parser.add_argument("--show", type=int, default=0, help="print so many human questions that were taken for another")
    options = parser.parse_args()
    lines = Path(__file__).with_name("paraphrases.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    planted = [HeldoutItem(f"p{i}", row["question"], (row["answer"],), row["domain"]) for i, row in enumerate(rows)]
    files = []
    for path in options.human:
        # The same question about two texts is no false alarm, so each question counts once.
        items = load_heldout(path).items
        files.append(list({" ".join(item.question.lower().split()): item for item in items}.values()))
    everything = [*planted, *(item for items in files for item in items)]
    print("verbatim, planted")
    verbatim(everything)
    print("lookups")
    for items in files or [planted]:
        lookups(items, [other for others in files if others is not items for other in others] or planted)
    started = time.process_time()
    embedder = load_embedder(options.embedder)
    vectors = embedder.embed([item.question for item in everything])
    seconds = time.process_time() - started
    print(f"{embedder.name}: {vectors.shape[1]} dimensions; {len(everything):,} questions in {seconds:.1f} s")
    sets = list(dict.fromkeys(row["set"] for row in rows))
    places = {name: [i for i, row in enumerate(rows) if row["set"] == name] for name in sets}
    heads = [
        *(f"{n} ({len(places[n])})" for n in sets),
        f"other questions ({len(rows)})",
        *(p.name for p in options.human),
    ]
    print("| rule | " + " | ".join(heads) + " |\n|" + " --- |" * (len(heads) + 1))
    asked, others = (embedder.embed([row[key] for row in rows]) for key in ("paraphrase", "other"))
    for threshold in (0.5, 0.6, 0.7, 0.8, 0.9):
        found = semantic_leaks(asked, vectors, threshold)
        cells = [f"{sum(i in found for i in places[name]) / len(places[name]):.1%}" for name in sets]
        cells.append(f"{len(semantic_leaks(others, vectors, threshold)) / len(rows):.1%}")
        for items in files:
            near = embedder.embed([item.question for item in items])
            count = sum(len(semantic_leaks(near[a::2], near[b::2], threshold)) for a, b in ((0, 1), (1, 0)))
            cells.append(f"{count / len(items):.1%}")
        print(f"| cosine alone >= {threshold} | " + " | ".join(cells) + " |")
    for closeness in SETTINGS:
        index = RewordedIndex(everything, embedder, closeness)
        hits = index.find([row["paraphrase"] for row in rows], [row["paraphrase_answer"] for row in rows])
        wrong = index.find([row["other"] for row in rows], [row["other_answer"] for row in rows])
        cells = [f"{sum(hits.get(i, (-1,))[0] == i for i in places[name]) / len(places[name]):.1%}" for name in sets]
        cells.append(f"{len(wrong) / len(rows):.1%}")
        taken = [halves(items, embedder, closeness) for items in files]
        cells += [f"{len(some) / len(items):.1%}" for some, items in zip(taken, files, strict=True)]
        print(f"| told {closeness.told}, answered {closeness.answered} | " + " | ".join(cells) + " |")
        if closeness == Closeness():
            kept = [pair for some in taken for pair in random.Random(0).sample(some, min(options.show, len(some)))]
            missed = Counter(row["set"] for i, row in enumerate(rows) if hits.get(i, (-1,))[0] != i)
    print("missed at the defaults:", dict(missed))
    for first, second, cosine in kept:
        print(f"  {cosine:.2f} {first} | {second}")


if __name__ == "__main__":
    main()
