"""What a tool is asked to do, and how it hands back what it made.

Standard library only, since every tool's own Python imports it.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """One run of one tool.

    `pairs` is the number wanted in all and `pairs_a_passage` for each passage; a tool takes the one that it knows.
    `in_flight` is None where the tool's own default is to stand.
    """

    documents: Path
    url: str
    model: str
    pairs: int
    pairs_a_passage: int
    passage_chars: int
    max_tokens: int
    in_flight: int | None
    out: Path


def read_job() -> Job:
    """Return the job that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("job", type=Path)
    values = json.loads(parser.parse_args().job.read_text(encoding="utf-8"))
    return Job(**{**values, "documents": Path(values["documents"]), "out": Path(values["out"])})


def write_pairs(job: Job, version: str, pairs: list[tuple[Any, Any]]) -> None:
    """Hand back what was made, good or not, with the version of the tool."""
    job.out.write_text(json.dumps({"version": version, "pairs": list(pairs)}, default=str), encoding="utf-8")


def passages(job: Job) -> list[str]:
    """Cut the documents into passages of whole paragraphs, for tools that leave this to their user."""
    made = []
    for path in sorted(job.documents.iterdir()):
        made += cut(path.read_text(encoding="utf-8"), job.passage_chars)
    return made


def cut(text: str, chars: int) -> list[str]:
    """Join neighbouring paragraphs of a text into passages of at most `chars` characters, where they fit."""
    made = [""]
    for paragraph in text.split("\n\n"):
        if made[-1] and len(made[-1]) + len(paragraph) + 2 > chars:
            made.append("")
        made[-1] += ("\n\n" if made[-1] else "") + paragraph
    return [passage for passage in made if passage.strip()]
