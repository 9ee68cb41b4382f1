"""datatrove's MinHash, as its examples/minhash_deduplication.py has it: four steps with folders between.

Word pairs in place of its 5-grams, since records are short, and 16 bands of 5 hashes as ours, so that a pair with a
similarity of 0.8 is found as surely; two tasks at a time.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
)
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers.jsonl import JsonlWriter
from datatrove.utils.hashing import HashConfig


def main() -> None:
    """Read a corpus, write the numbers of the removed records."""
    corpus, out, work = Path(sys.argv[1]), Path(sys.argv[2]), Path.cwd()
    tasks = 2
    source = work / "in"
    source.mkdir()
    files = [(source / f"{k}.jsonl").open("w", encoding="utf-8") for k in range(tasks)]
    for line in corpus.open(encoding="utf-8"):
        number, question, answer, _ = json.loads(line)
        files[number % tasks].write(json.dumps({"id": str(number), "text": f"{question} {answer}"}) + "\n")
    for file in files:
        file.close()
    config = MinhashConfig(
        n_grams=2, num_buckets=16, hashes_per_bucket=5, hash_config=HashConfig(precision=64, hash_fc="xxhash")
    )

    def run(name: str, steps: list[Any], count: int) -> None:
        logs = str(work / "logs" / name)
        # By default its workers are children of a server, whose processor time nobody gets to see.
        LocalPipelineExecutor(pipeline=steps, tasks=count, workers=2, logging_dir=logs, start_method="fork").run()

    reader = JsonlReader(str(source))
    run("1", [reader, MinhashDedupSignature(str(work / "signatures"), config=config)], tasks)
    run("2", [MinhashDedupBuckets(str(work / "signatures"), str(work / "buckets"), config=config)], 16)
    run("3", [MinhashDedupCluster(str(work / "buckets"), str(work / "remove"), config=config)], 1)
    writer = JsonlWriter(str(work / "removed"), compression=None)
    run("4", [reader, MinhashDedupFilter(str(work / "remove"), exclusion_writer=writer)], tasks)
    removed = [int(json.loads(line)["id"]) for file in (work / "removed").rglob("*.jsonl") for line in file.open()]
    note = "word pairs, 16 bands of 5, 64-bit xxhash, 2 tasks; no check of what a bucket holds"
    out.write_text(json.dumps({"version": version("datatrove"), "removed": sorted(removed), "note": note}))


if __name__ == "__main__":
    main()
