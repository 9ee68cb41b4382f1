"""`python bench/xquad.py PATH/xquad.en.json [--passages 60]`: the chain on real prose that the teacher never saw.

Makes one document of each paragraph of a SQuAD-format file, runs `synth generate` on them with the
bundled teacher (or `--teacher`), and checks that everything adds up: each document gave passages or stands in
quarantine, each record is kept or rejected with a reason, each call gave a record or stands in quarantine.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from synth.core.jsonl import read_lines, write_jsonl


def main() -> None:
    """Run the chain in a temporary folder and print what became of everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("squad", type=Path)
    parser.add_argument("--passages", type=int, default=60, help="how many paragraphs, from the first")
    parser.add_argument("--teacher", default="bundled")
    options = parser.parse_args()
    articles = json.loads(options.squad.read_text())["data"]
    texts = [paragraph["context"] for article in articles for paragraph in article["paragraphs"]][: options.passages]
    with tempfile.TemporaryDirectory() as folder:
        source, run = Path(folder) / "paragraphs.jsonl", Path(folder) / "run"
        write_jsonl(source, ({"id": f"p{i:04}", "text": text} for i, text in enumerate(texts)))
        command = [sys.executable, "-m", "synth.cli", "generate", str(source), "--run", str(run), "--json"]
        done = subprocess.run([*command, "--teacher", options.teacher], stdout=subprocess.PIPE, text=True, check=False)
        report(run, len(texts), json.loads(done.stdout) if done.returncode == 0 else None, done.returncode)


def report(run: Path, documents: int, result: dict[str, dict[str, int]] | None, code: int) -> None:
    """Print the counts and fail where they do not add up."""
    records = [row for _, row in read_lines(run / "records.jsonl")]
    refused = [row for _, row in read_lines(run / "quarantine.jsonl")]
    kept = [row for row in records if row["decision"] and row["decision"]["keep"]]
    reasons = Counter(row["decision"]["reasons"][0].partition(":")[0] for row in records if row not in kept)
    lost = Counter(row["reason"].partition(" (")[0][:60] for row in refused)
    print(f"exit code {code}; {documents} documents, {len(records)} records, {len(kept)} kept")
    print(f"in quarantine: {len(refused)}")
    print(f"rejected: {dict(reasons.most_common())}\nquarantined: {dict(lost.most_common())}")
    assert sum(reasons.values()) + len(kept) == len(records), "the funnel does not add up"
    assert {row["document_id"] for row in [*records, *refused]} == {
        f"paragraphs.jsonl#p{i:04}" for i in range(documents)
    }, "a document is in no file"
    if result is not None:
        counts = result["generate"]
        print(f"calls {counts['calls']}, tokens written {counts['completion_tokens']}, {counts['seconds']:.0f} s")
        assert len(records) + len(refused) >= counts["calls"], "a call gave neither a record nor a line of quarantine"
    for row in kept[:8]:
        print(f"  {row['prompt'][-1]['content']}  ->  {row['completion'][-1]['content']}")


if __name__ == "__main__":
    main()
