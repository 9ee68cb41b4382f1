"""More ways to ask: the rows of a small training set again, with some words of their questions gone and others put in.

A student that sees each question once, in one wording, learns the wording. Random deletion and random insertion (Wei
and Zou, "EDA: Easy Data Augmentation", 2019, section 2) make it find the answer by the words that carry the question,
and pass over those that do not: customers leave words out, and say more than the manual does. What is put in are words
of the other rows' questions, so no list of synonyms is needed, and no language assumed. The answers stay as they are,
and validation rows are never touched.
"""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from synth.core.records import Message
from tune.rows import Row

# Each variant loses a share of its words drawn evenly from nought to this, ...
MOST_DELETED = 0.6
# ... and gains other rows' words, a share of what is left drawn evenly from nought to this.
MOST_INSERTED = 0.5


def with_variants(rows: Sequence[Row], variants: int, seed: int) -> tuple[Row, ...]:
    """Return the rows, each followed by `variants` more of it with its question asked in a mixture of words.

    A variant is called `<row id>~<number>`. The same rows and seed give the same variants, whatever the order. Rows
    of plain text alone ask nothing and have no variants.
    """
    words = sorted(word for row in rows if row.prompt for word in _words(_asked(row.prompt))) if variants else []
    found: list[Row] = []
    for row in rows:
        rng = Random(f"{seed}:{row.id}")
        found.append(row)
        for number in range(1, variants + 1 if row.prompt else 1):
            found.append(replace(row, id=f"{row.id}~{number}", prompt=_asked_otherwise(row.prompt, words, rng)))
    return tuple(found)


def _asked(prompt: tuple[Message, ...] | str) -> str:
    return prompt if isinstance(prompt, str) else prompt[-1].content


def _words(question: str) -> list[str]:
    return question.rstrip("?").split()


def _asked_otherwise(
    prompt: tuple[Message, ...] | str, others: Sequence[str], rng: Random
) -> tuple[Message, ...] | str:
    asked = _mixed(_asked(prompt), others, rng)
    return asked if isinstance(prompt, str) else (*prompt[:-1], Message(prompt[-1].role, asked))


def _mixed(question: str, others: Sequence[str], rng: Random) -> str:
    """Return the question in fewer and other words; now and then without its capital and its question mark."""
    words = _words(question)
    if not words:
        return question
    share = rng.uniform(0, MOST_DELETED)
    kept = [word for word in words if rng.random() >= share] or [rng.choice(words)]
    for _ in range(round(rng.uniform(0, MOST_INSERTED) * (len(kept) + 2))):
        kept.insert(rng.randint(0, len(kept)), rng.choice(others))
    text = " ".join(kept)
    text = text[0].lower() + text[1:] if rng.random() < 0.5 else text
    return text + ("?" if question.endswith("?") and rng.random() < 0.6 else "")
