"""`python bench/validate.py PATH/xquad.en.json [--paragraphs 48]`: the whole chain on human questions, tiny models.

Makes one document of each of the first paragraphs of a SQuAD-format file, some of each article, runs `synth generate`
on them with the bundled teacher, `tune sft` with the bundled student, and `tune validate` with every contender on the
paragraphs' own human questions. The bundled models were made for a handbook of plain sentences: the scores here are
low, and that they are honest is the point. Fails where a question is without an answer of every contender.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from synth.core.console import stdout
from synth.core.jsonl import write_json, write_jsonl
from tune.table import report as shown
from tune.verdict import Verdict

CONTENDERS = "base,few-shot,retrieval,tuned,tuned-retrieval,teacher"


def main() -> None:
    """Run the chain in a folder and print the table and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("squad", type=Path)
    parser.add_argument("--paragraphs", type=int, default=48, help="how many, an equal number from each article")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--contenders", default=CONTENDERS)
    parser.add_argument("--folder", type=Path, help="where to work; kept, and gone on with by the next call")
    options = parser.parse_args()
    if options.folder is not None:
        chain(options.folder, options)
    else:
        with tempfile.TemporaryDirectory() as folder:
            chain(Path(folder), options)


def chain(folder: Path, options: argparse.Namespace) -> None:
    """Write the documents and the held-out set, and run the three commands."""
    articles = json.loads(options.squad.read_text(encoding="utf-8"))["data"]
    each = max(1, options.paragraphs // len(articles))
    chosen = [
        {"title": f"{article['title']}-{p}", "paragraphs": [paragraph]}
        for article in articles
        for p, paragraph in enumerate(article["paragraphs"][:each])
    ][: options.paragraphs]
    folder.mkdir(parents=True, exist_ok=True)
    run, heldout, documents = folder / "run", folder / "heldout.json", folder / "documents.jsonl"
    # Items name a document as the run does.
    named = [{**one, "title": f"{documents.name}#{one['title']}"} for one in chosen]
    write_json(heldout, {"version": "1.1", "data": named})
    write_jsonl(documents, ({"id": one["title"], "text": one["paragraphs"][0]["context"]} for one in chosen))
    step("synth.cli", "generate", documents, "--run", run, "--heldout", heldout, "--teacher", "bundled")
    step("tune.cli", "sft", run, "--epochs", options.epochs, "--candidate", "first", "--heldout", heldout)
    told = step(
        *("tune.cli", "validate", run, "--heldout", heldout, "--teacher", "bundled"),
        *("--contenders", options.contenders, "--max-tokens", 40),
    )
    report(told["verdict"])


def step(module: str, *arguments: object) -> dict[str, Any]:
    """Run one command and return what it prints as JSON."""
    began = time.monotonic()
    command = [sys.executable, "-m", module, *map(str, arguments), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{module} {arguments[0]} ended with exit code {done.returncode}")
    print(f"{module.partition('.')[0]} {arguments[0]}: {time.monotonic() - began:.0f} s")
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def report(verdict: dict[str, Any]) -> None:
    """Print the table; a question that somebody left unanswered is a failure."""
    stdout.print(shown(Verdict.from_json(verdict)))
    left_out = verdict["subject"]["heldout"]["left_out"]
    if left_out:
        raise SystemExit(f"{left_out} questions were left out")


if __name__ == "__main__":
    main()
