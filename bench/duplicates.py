"""`python bench/duplicates.py`: seconds, memory, growth, recall and precision of the search for duplicates.

Growth: question/answer records of 40 to 60 words in three corpora (`random` with planted near-copies, `identical`,
and `template`, where only a few words of one text differ) are read from a file, sketched in two worker processes and
searched for twins, at each of --sizes. The exponent is the slope of log seconds over log records, for the processor
time of all processes and for the search alone.

Recall: at --recall records the twins are held against all pairs with a Jaccard similarity of 0.8, counted from the
texts by a sparse matrix product. A pair is resolved when not both stay; recall is the share of the pairs that are.
A record is rightly removed when it has such a pair with a record that stays; precision is the share of those removed.

Peers: `--peer datatrove=PYTHON` and the like run bench/peers/duplicates_NAME.py in that interpreter on the same
records, at each of --peer-sizes. Needs nothing outside this repository but those.
"""

import argparse
import json
import multiprocessing
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synth.core.records import Message, Record
from synth.filters.dedup import Twins, find_twins
from synth.filters.sketch import DedupSettings, SketchBlock, SketchTable, sketch
from synth.filters.words import without_articles, words_of

HERE = Path(__file__).parent
BLOCK = 4000
CORPORA = ("random", "identical", "template")
PEERS = ("datatrove", "semhash", "text_dedup")
Line = tuple[int, str, str, str]


def vocabulary(size: int = 30_000) -> list[str]:
    """Return made-up words, short ones first as in a natural language; some are names."""
    rng = random.Random(5)
    found: dict[str, None] = {}
    while len(found) < size:
        length = 1 + min(4, int(rng.expovariate(0.6) + len(found) / size * 2))
        found["".join(rng.choice("bcdfghklmnprstvw") + rng.choice("aeiou") for _ in range(length))] = None
    return [word.title() if k > 500 and k % 9 == 0 else word for k, word in enumerate(found)]


def random_block(rng: np.random.Generator, words: Sequence[str], count: int) -> Iterator[tuple[str, str]]:
    """Yield pairs of words in the proportions of a language, an eighth of them copies with 0 to 8 words changed."""
    weights = 1 / (np.arange(len(words)) + 5)
    weights /= weights.sum()
    made: list[tuple[list[str], list[str]]] = []
    pool = iter(rng.choice(len(words), count * 60, p=weights).tolist())
    for _ in range(count):
        if made and rng.random() < 0.125:
            question, answer = (list(part) for part in made[rng.integers(len(made))])
            for _ in range(rng.integers(9)):
                part = question if rng.random() < 0.3 else answer
                part[rng.integers(len(part))] = words[rng.integers(len(words))]
        else:
            sizes = rng.integers(10, 16), rng.integers(30, 46)
            drawn = [words[next(pool)] for _ in range(sum(sizes))]
            if rng.random() < 0.4:
                drawn[rng.integers(len(drawn))] = str(rng.integers(2, 3000))
            question, answer = drawn[: sizes[0]], drawn[sizes[0] :]
        made.append((question, answer))
        yield " ".join(question).capitalize() + "?", " ".join(answer).capitalize() + "."


TEMPLATE = (
    "How long does the maker of the {} {} cover its {} after purchase in a shop or on line?",
    "The maker covers the {2} of the {0} {1} for two full years from the day of delivery, as long as it was kept in a "
    "{3} place, was not opened by others, and the paper that came with it can be shown at the desk of the shop.",
)


def template_block(rng: np.random.Generator, words: Sequence[str], count: int) -> Iterator[tuple[str, str]]:
    """Yield pairs that differ in four words of one text."""
    for _ in range(count):
        slots = [words[500 + k].lower() for k in rng.integers(0, (29_000, 40, 40, 4))]
        yield TEMPLATE[0].format(*slots), TEMPLATE[1].format(*slots)


def write_corpus(path: Path, corpus: str, count: int, of_passage: int = 6) -> None:
    """Write the lines of a corpus: number, question, answer, passage."""
    words = vocabulary()
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, count, BLOCK):
            rng, size = np.random.default_rng([7, start]), min(BLOCK, count - start)
            if corpus == "random":
                pairs = list(random_block(rng, words, size))
            elif corpus == "template":
                pairs = list(template_block(rng, words, size))
            else:
                pairs = [(TEMPLATE[0].format("a", "b", "c"), TEMPLATE[1].format("a", "b", "c", "dry"))] * size
            for k, (question, answer) in enumerate(pairs, start):
                file.write(json.dumps([k, question, answer, f"passage {k // of_passage}"]) + "\n")


def read_lines(path: Path) -> list[Line]:
    """Return the lines of a corpus."""
    with path.open(encoding="utf-8") as file:
        return [tuple(json.loads(line)) for line in file]


def as_record(line: Line) -> Record:
    """Return a line as a record."""
    number, question, answer, passage = line
    return Record(
        f"{number:016x}", (Message("user", question),), (Message("assistant", answer),), "", passage, passage, "bench"
    )


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a corpus file and how to sketch it."""

    path: Path
    start: int
    lines: int
    settings: DedupSettings


@dataclass(frozen=True, slots=True)
class Sketched:
    """A part's sketch, the processor time it took to read and to sketch, and the memory of the process (KiB)."""

    block: SketchBlock
    reading: float
    sketching: float
    process: int
    peak: int


def sketch_part(part: Part) -> Sketched:
    """Read and sketch a part, in a worker."""
    began = time.process_time()
    with part.path.open("rb") as file:
        file.seek(part.start)
        records = [as_record(json.loads(file.readline())) for _ in range(part.lines)]
    read = time.process_time()
    block = sketch(records, part.settings)
    done = time.process_time()
    return Sketched(block, read - began, done - read, os.getpid(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def parts_of(path: Path, settings: DedupSettings) -> list[Part]:
    """Cut a corpus file into parts of whole lines."""
    parts, start = [], 0
    with path.open("rb") as file:
        while size := sum(1 for _, _line in zip(range(BLOCK), iter(file.readline, b""), strict=False)):
            parts.append(Part(path, start, size, settings))
            start = file.tell()
    return parts


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run of ours over one corpus. Times in seconds, memory in MiB summed over all processes."""

    corpus: str
    records: int
    wall: float
    sketch_wall: float
    reading_cpu: float
    sketch_cpu: float
    search_cpu: float
    parent_cpu: float
    peak: float
    table_bytes: float
    compared: float
    removed: int
    twins: Twins

    @property
    def cpu(self) -> float:
        """Processor time of all processes."""
        return self.reading_cpu + self.sketch_cpu + self.parent_cpu


def run_ours(path: Path, corpus: str, count: int, settings: DedupSettings, workers: int) -> Outcome:
    """Read, sketch in workers and search; meant for a process of its own, since it reports the peak of memory."""
    parts = parts_of(path, settings)
    began, cpu = time.monotonic(), time.process_time()
    table, reading, sketching, peaks = SketchTable(), 0.0, 0.0, dict[int, int]()
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for done in pool.imap(sketch_part, parts):
            table.add(done.block)
            reading, sketching = reading + done.reading, sketching + done.sketching
            peaks[done.process] = done.peak
    sketched, search_cpu = time.monotonic(), time.process_time()
    # Quality is drawn by lot: the best first.
    order = np.random.default_rng(3).permutation(count)
    twins = find_twins(table, order, settings)
    ended, parent = time.monotonic(), time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + sum(peaks.values())
    return Outcome(
        corpus=corpus,
        records=count,
        wall=ended - began,
        sketch_wall=sketched - began,
        reading_cpu=reading,
        sketch_cpu=sketching,
        search_cpu=parent - search_cpu,
        parent_cpu=parent - cpu,
        peak=peak / 1024,
        table_bytes=table.nbytes / count,
        compared=twins.compared / count,
        removed=len(twins),
        twins=twins,
    )


def in_own_process(path: Path, corpus: str, count: int, settings: DedupSettings, workers: int) -> Outcome:
    """Run `run_ours` in a fresh process."""
    receive, send = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=_send_ours, args=(send, path, corpus, count, settings, workers))
    child.start()
    send.close()
    outcome: Outcome = receive.recv()
    child.join()
    return outcome


def _send_ours(send: Any, *job: Any) -> None:  # noqa: ANN401
    send.send(run_ours(*job))


def exponent(outcomes: Sequence[Outcome], value: str) -> float:
    """Return the slope of log seconds over log records."""
    sizes = [np.log(outcome.records) for outcome in outcomes]
    return float(np.polyfit(sizes, [np.log(getattr(outcome, value)) for outcome in outcomes], 1)[0])


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the removed records are worth against all pairs."""

    pairs: int
    recall: float
    has_twin: float
    precision: float


class AllPairs:
    """All pairs of some texts with a Jaccard similarity of at least `threshold`, counted from the texts."""

    def __init__(self, lines: Sequence[Line], threshold: float) -> None:
        from scipy.sparse import csr_matrix

        ids: dict[str, int] = {}
        indices: list[int] = []
        ends = [0]
        for _, question, answer, _ in lines:
            words = without_articles(words_of(question)) + without_articles(words_of(answer))
            indices += {ids.setdefault(s, len(ids)) for s in (*words, *map(" ".join, pairwise(words)))}
            ends.append(len(indices))
        self._sets = csr_matrix(
            (np.ones(len(indices), np.int32), np.array(indices), np.array(ends)), shape=(len(lines), len(ids))
        )
        self._sizes = np.diff(ends)
        self._threshold = threshold
        self.similar = list(self._blocks())

    def _blocks(self, rows: int = 250) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        transposed = self._sets.T.tocsr()
        for start in range(0, len(self._sizes), rows):
            common = (self._sets[start : start + rows] @ transposed).toarray()
            union = self._sizes[start : start + rows, None] + self._sizes[None, :] - common
            one, other = np.nonzero(common >= self._threshold * union - 1e-9)
            one = one + start
            yield one[one != other].astype(np.int32), other[one != other].astype(np.int32)

    def judge(self, removed: NDArray[np.int64]) -> Verdict:
        """Return what removing these rows is worth."""
        gone = np.zeros(len(self._sizes), np.bool_)
        gone[removed] = True
        twin, stays, pairs, missed = np.zeros_like(gone), np.zeros_like(gone), 0, 0
        for one, other in self.similar:
            pairs += len(one)
            missed += int((~gone[one] & ~gone[other]).sum())
            twin[one] = True
            stays[one[~gone[other]]] = True
        number = max(1, len(removed))
        return Verdict(
            pairs // 2, 1 - missed / max(1, pairs), float(twin[gone].sum()) / number, float(stays[gone].sum()) / number
        )


@dataclass(frozen=True, slots=True)
class PeerRun:
    """One run of a peer, from the start of its process to its end."""

    version: str
    wall: float
    cpu: float
    peak: float
    removed: NDArray[np.int64]
    note: str


def run_peer(name: str, python: str, corpus: Path, folder: Path) -> PeerRun:
    """Run a peer's script on a corpus file in its own interpreter."""
    folder.mkdir(parents=True)
    out = folder / "removed.json"
    kept = {key: os.environ[key] for key in ("PATH", "LANG", "LC_ALL", "TMPDIR") if key in os.environ}
    off = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "HOME": str(folder), "OMP_NUM_THREADS": "2"}
    with (folder / "log").open("wb") as log:
        began = time.monotonic()
        process = subprocess.Popen(
            [python, str(HERE / "peers" / f"duplicates_{name}.py"), str(corpus.resolve()), str(out.resolve())],
            cwd=folder,
            env=kept | off,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not out.exists():
        sys.exit(f"{name} failed; the end of its log:\n{(folder / 'log').read_text(errors='replace')[-3000:]}")
    made = json.loads(out.read_text())
    return PeerRun(
        made["version"],
        wall,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss / 1024,
        np.array(made["removed"], np.int64),
        made["note"],
    )


def show_growth(folder: Path, options: argparse.Namespace) -> None:
    """Print the table of sizes."""
    print("| corpus | records | wall s | of it sketching | CPU s | reading | sketching | search | peak MiB | table bytes/record | pairs compared/record | removed |")  # fmt: skip # noqa: E501
    print("| --- |" + " ---: |" * 11)
    for corpus in options.corpora:
        outcomes = []
        for count in options.sizes:
            path = folder / f"{corpus}-{count}.jsonl"
            write_corpus(path, corpus, count)
            settings = DedupSettings(options.threshold, facts=not options.no_facts)
            o = in_own_process(path, corpus, count, settings, options.workers)
            path.unlink()
            outcomes.append(o)
            print(
                f"| {corpus} | {count:,} | {o.wall:.1f} | {o.sketch_wall:.1f} | {o.cpu:.1f} | {o.reading_cpu:.1f} "
                f"| {o.sketch_cpu:.1f} | {o.search_cpu:.1f} | {o.peak:,.0f} | {o.table_bytes:.0f} "
                f"| {o.compared:.2f} | {o.removed:,} |",
                flush=True,
            )
        if len(outcomes) > 1:
            print(
                f"\n{corpus}: exponent of all CPU seconds {exponent(outcomes, 'cpu'):.2f}, of the search "
                f"{exponent(outcomes, 'search_cpu'):.2f}, of wall seconds {exponent(outcomes, 'wall'):.2f}\n"
            )


def show_recall(folder: Path, options: argparse.Namespace) -> None:
    """Print recall and precision against all pairs, without the guard on facts."""
    print("| corpus | records | pairs | recall of pairs | removed | has a twin | has a twin that stays |")
    print("| --- |" + " ---: |" * 6)
    # Nearly all pairs of a template are similar, so that counting them takes long.
    for corpus, count in (("random", options.recall), ("template", options.recall // 4)):
        path = folder / f"{corpus}-recall.jsonl"
        # One record a passage: a question with two answers is a twin too, though of another kind.
        write_corpus(path, corpus, count, of_passage=1)
        lines = read_lines(path)
        outcome = run_ours(path, corpus, len(lines), DedupSettings(options.threshold, facts=False), options.workers)
        removed = outcome.twins.rows
        v = AllPairs(lines, options.threshold).judge(removed)
        print(
            f"| {corpus} | {len(lines):,} | {v.pairs:,} | {v.recall:.5f} | {len(removed):,} | {v.has_twin:.5f} "
            f"| {v.precision:.5f} |",
            flush=True,
        )


def show_peers(folder: Path, options: argparse.Namespace) -> None:
    """Print ours beside the peers on the same records."""
    pythons = dict(part.split("=", 1) for part in options.peer)
    print("| tool | records | wall s | CPU s | MiB | removed | recall of pairs | has a twin | has a twin that stays |")
    print("| --- |" + " ---: |" * 8)
    notes = []
    for count in options.peer_sizes:
        path = folder / f"peers-{count}.jsonl"
        write_corpus(path, "random", count, of_passage=1)
        judge = AllPairs(read_lines(path), options.threshold) if count <= 20_000 else None
        settings = DedupSettings(options.threshold, facts=False)
        ours = in_own_process(path, "random", count, settings, options.workers)
        rows: list[tuple[str, float, float, float, NDArray[np.int64]]] = [
            ("ours", ours.wall, ours.cpu, ours.peak, ours.twins.rows)
        ]
        for name, python in pythons.items():
            run = run_peer(name, python, path, folder / f"{name}-{count}")
            rows.append((f"{name} {run.version}", run.wall, run.cpu, run.peak, run.removed))
            notes.append(f"{name}: {run.note}")
        for tool, wall, cpu, peak, removed in rows:
            worth = "– | – | –"
            if judge is not None:
                v = judge.judge(removed)
                worth = f"{v.recall:.4f} | {v.has_twin:.4f} | {v.precision:.4f}"
            print(
                f"| {tool} | {count:,} | {wall:.1f} | {cpu:.1f} | {peak:,.0f} | {len(removed):,} | {worth} |",
                flush=True,
            )
    print("\n" + "\n".join(dict.fromkeys(notes)))


def main() -> None:
    """Measure what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--corpora", nargs="*", choices=CORPORA, default=CORPORA)
    parser.add_argument("--threshold", type=float, default=0.8)
    parser.add_argument("--no-facts", action="store_true", help="let other numbers, names and subjects be twins")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--recall", type=int, default=0, metavar="N", help="records to hold against all pairs")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON", help=f"of {', '.join(PEERS)}")
    parser.add_argument("--peer-sizes", type=int, nargs="*", default=[20_000, 100_000])
    options = parser.parse_args()
    if unknown := {part.partition("=")[0] for part in options.peer} - set(PEERS):
        parser.error(f"no such peer: {', '.join(sorted(unknown))} (known: {', '.join(PEERS)})")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.sizes:
            show_growth(folder, options)
        if options.recall:
            show_recall(folder, options)
        if options.peer:
            show_peers(folder, options)


if __name__ == "__main__":
    main()
