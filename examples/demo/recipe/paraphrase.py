"""Questions as customers type them: other words, first person, no manners.

python paraphrase.py 20        # print twenty handbook questions and a paraphrase of each
"""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path
from random import Random

from lexicon import WORDS, words
from passages import passage

TABLE = Path(__file__).parent / "paraphrases.txt"


@cache
def _forms(section: str) -> tuple[tuple[re.Pattern[str], tuple[str, ...]], ...]:
    """The patterns of a section of paraphrases.txt with their forms."""
    body = TABLE.read_text(encoding="utf-8").partition(f"\n# {section}\n")[2].partition("\n\n")[0]
    rows = (line.partition(" => ") for line in body.splitlines())
    return tuple((re.compile(pattern), tuple(forms.split(" / "))) for pattern, _, forms in rows)


@cache
def _synonyms() -> dict[str, tuple[str, ...]]:
    table: dict[str, tuple[str, ...]] = {}
    for line in (WORDS / "synonyms.txt").read_text(encoding="utf-8").splitlines():
        word, *others = line.split(",")
        table[word] = tuple(others)
    return table


def paraphrase(question: str, rng: Random) -> str:
    """The question in other words; invented names stay as they are."""
    text = question.removesuffix("?")
    text = text[:1].lower() + text[1:]
    if rng.random() < 0.5:
        for pattern, forms in _forms("openings"):
            match = pattern.match(text)
            if match:
                text = rng.choice(forms).format(*match.groups())
                break
    for pattern, forms in _forms("persons"):
        text = pattern.sub(rng.choice(forms), text)
    table = _synonyms()
    said = text.split(" ")
    for i, word in enumerate(said):
        if word in table and rng.random() < 0.5:
            said[i] = rng.choice(table[word])
    text = " ".join(said)
    if rng.random() < 0.3:
        text = re.sub(r"\bthe ([A-Z])", r"my \1", text, count=1)
    elif rng.random() < 0.2:
        text = re.sub(r"\bthe ([A-Z])", r"\1", text)
    elif rng.random() < 0.12:
        text = re.sub(r"\bthe ", "", text)
    if rng.random() < 0.1:
        text = f"{rng.choice(words('greetings'))} {text}"
    draw = rng.random()
    if draw < 0.35:
        text = text.lower()
    elif draw < 0.75:
        text = text[:1].upper() + text[1:]
    return text + ("?" if rng.random() < 0.75 else "")


def main() -> None:
    """Print questions and a paraphrase of each."""
    rng = Random(1)
    for seed in range(int(sys.argv[1])):
        for sentence in passage(seed, 2, 2).sentences:
            for question, answer in sentence.pairs[:1]:
                print(f"{question}\n    {paraphrase(question, rng)}\n    -> {answer}")


if __name__ == "__main__":
    main()
