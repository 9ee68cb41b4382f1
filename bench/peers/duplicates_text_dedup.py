"""text-dedup's MinHash, by its command `python -m text_dedup.minhash`: word pairs, threshold 0.8, its own bands.

The command takes a data set of the hub or a local file; a JSON Lines file is loaded here.
"""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path


def main() -> None:
    """Read a corpus, write the numbers of the removed records."""
    corpus, out, work = Path(sys.argv[1]), Path(sys.argv[2]), Path.cwd()
    numbers = []
    with (work / "in.jsonl").open("w", encoding="utf-8") as file:
        for line in corpus.open(encoding="utf-8"):
            number, question, answer, _ = json.loads(line)
            numbers.append(number)
            file.write(json.dumps({"number": number, "text": f"{question} {answer}"}) + "\n")
    command = [sys.executable, "-m", "text_dedup.minhash", "--path", "json", "--data_files", str(work / "in.jsonl")]
    command += ["--split", "train", "--cache_dir", str(work / "cache"), "--output", str(work / "out")]
    command += ["--column", "text", "--ngram", "2", "--min_length", "1", "--threshold", "0.8", "--num_perm", "80"]
    command += ["--b", "16", "--r", "5", "--num_proc", "2", "--batch_size", "10000"]
    subprocess.run(command, check=True)
    from datasets import load_from_disk

    left = set(load_from_disk(str(work / "out"))["number"])
    note = "word pairs, 16 bands of 5 (its --b and --r), 2 processes; no check of what a bucket holds"
    removed = [number for number in numbers if number not in left]
    out.write_text(json.dumps({"version": version("text-dedup"), "removed": removed, "note": note}))


if __name__ == "__main__":
    main()
