"""More ways to ask: the rows of a small training set again, with words of their questions left out.

A student that sees each question once, in one wording, learns the wording. Random deletion (Wei and Zou, "EDA: Easy
Data Augmentation", 2019, section 2) makes it find the answer by the words that carry the question. The answers stay as
they are, and validation rows are never touched.
"""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from synth.core.records import Message
from tune.rows import Row

# Each variant loses a share of its words drawn evenly from nought to this.
MOST_DELETED = 0.8


def with_variants(rows: Sequence[Row], variants: int, seed: int) -> tuple[Row, ...]:
    """Return the rows, each followed by `variants` more of it with a shortened question.

    A variant is called `<row id>~<number>`. The same rows and seed give the same variants, whatever the order. Rows
    of plain text alone ask nothing and have no variants.
    """
    found: list[Row] = []
    for row in rows:
        rng = Random(f"{seed}:{row.id}")
        found.append(row)
        for number in range(1, variants + 1 if row.prompt else 1):
            found.append(replace(row, id=f"{row.id}~{number}", prompt=_asked_shorter(row.prompt, rng)))
    return tuple(found)


def _asked_shorter(prompt: tuple[Message, ...] | str, rng: Random) -> tuple[Message, ...] | str:
    if isinstance(prompt, str):
        return _shortened(prompt, rng)
    asked = prompt[-1]
    return (*prompt[:-1], Message(asked.role, _shortened(asked.content, rng)))


def _shortened(question: str, rng: Random) -> str:
    """Return the question without some of its words; now and then without its capital and its question mark."""
    words = question.rstrip("?").split()
    if not words:
        return question
    share = rng.uniform(0, MOST_DELETED)
    kept = " ".join([word for word in words if rng.random() >= share] or [rng.choice(words)])
    kept = kept[0].lower() + kept[1:] if rng.random() < 0.5 else kept
    return kept + ("?" if question.endswith("?") and rng.random() < 0.6 else "")
