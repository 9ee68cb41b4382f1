"""Rows to train on for the benches: words of the bundled handbook, of realistic lengths, as a run that is filtered."""

import math
import random
from pathlib import Path
from typing import Any

from synth.core.jsonl import write_jsonl
from synth.core.runs import Run, StageEntry

ROOT = Path(__file__).parent.parent


def make_rows(count: int, *, median: int, spread: float, longest: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return rows of prompt and completion whose lengths in words are log-normal, two thirds of them the prompt's.

    Args:
        count: how many.
        median: words in the middle row.
        spread: standard deviation of the logarithm; 0.7 is that of a mixed collection, with a long tail.
        longest: no row has more words.
        seed: decides them all.
    """
    handbook = ROOT / "examples/demo/handbook"
    words = sorted({word for file in handbook.glob("*.md") for word in file.read_text(encoding="utf-8").split()})
    plain = [word for word in words if word.isalpha()]
    chance = random.Random(seed)
    rows = []
    for number in range(count):
        length = min(longest, max(9, round(median * math.exp(chance.gauss(0, spread)))))
        asked = " ".join([str(number), *chance.choices(plain, k=2 * length // 3)])
        told = " ".join(chance.choices(plain, k=max(1, length // 3)))
        rows.append(
            {
                "prompt": [{"role": "user", "content": f"{asked}?"}],
                "completion": [{"role": "assistant", "content": f"{told}."}],
                "id": f"{number:06}",
                "document_id": f"{number // 4:05}.md",
            }
        )
    return rows


def make_run(path: Path, train: list[dict[str, Any]], validation: list[dict[str, Any]]) -> Run:
    """Write a run whose generate and filter stages are finished, with these rows."""
    run = Run.create(path)
    outputs = {
        "dataset/train.jsonl": write_jsonl(run.train_path, train),
        "dataset/validation.jsonl": write_jsonl(run.validation_path, validation),
    }
    run.finish_stage("generate", StageEntry(config={"teacher": "none", "seed": 0}))
    run.finish_stage("filter", StageEntry(config={"seed": 0}, outputs=outputs))
    return run
