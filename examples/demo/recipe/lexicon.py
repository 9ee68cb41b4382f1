"""The word lists under words/, English inflection, and invented names.

A list file holds phrases divided by `|` or, on a line without `|`, by blanks.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

WORDS = Path(__file__).parent / "words"

PARTICIPLES = {
    "bake": "baked", "bring": "brought", "buy": "bought", "choose": "chosen", "cut": "cut", "drive": "driven",
    "feed": "fed", "grind": "ground", "hang": "hung", "hold": "held", "keep": "kept", "knit": "knitted",
    "pay": "paid", "reset": "reset", "send": "sent", "sew": "sewn", "shake": "shaken", "show": "shown",
    "teach": "taught", "prune": "pruned", "wax": "waxed", "mow": "mowed", "control": "controlled",
    "cancel": "cancelled", "label": "labelled", "disinfect": "disinfected", "refill": "refilled",
}  # fmt: skip
DOUBLING = {"stop", "ship", "wrap", "flip", "trim", "scan", "cut", "reset", "control", "cancel", "unplug",
            "zip", "plug", "label", "swap", "pat", "snap"}  # fmt: skip


@cache
def words(name: str) -> tuple[str, ...]:
    """The phrases of `words/<name>.txt`, in file order."""
    phrases: list[str] = []
    for line in (WORDS / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        phrases += line.split("|") if "|" in line else line.split()
    return tuple(phrase.strip() for phrase in phrases if phrase.strip())


ONSETS = words("onsets")
VOWELS = ["a", "e", "i", "o", "u", "a", "e", "i", "o", "ai", "ea", "ee", "oo", "ou", "y"]
CODAS = ("", "", "", *words("codas"))
LETTERS = "ABCDEFGHKLMNPQRSTVWXZ"


def plural(noun: str) -> str:
    """The plural of a regular noun phrase, inflected at its last word."""
    if re.search(r"[^aeiou]y$", noun):
        return noun[:-1] + "ies"
    if re.search(r"(s|x|ch|sh|z)$", noun):
        return noun + "es"
    if noun.endswith("shelf"):
        return noun[:-1] + "ves"
    if noun.endswith("knife"):
        return noun[:-2] + "ves"
    return noun + "s"


def third_person(verb: str) -> str:
    """`wash` → `washes`."""
    return plural(verb)


def _stem(verb: str) -> str:
    return verb + verb[-1] if verb in DOUBLING else verb


def participle(verb: str) -> str:
    """`wash` → `washed`, `keep` → `kept`."""
    if verb in PARTICIPLES:
        return PARTICIPLES[verb]
    if verb.endswith("e"):
        return verb + "d"
    if re.search(r"[^aeiou]y$", verb):
        return verb[:-1] + "ied"
    return _stem(verb) + "ed"


def gerund(verb_phrase: str) -> str:
    """The -ing form of a phrase whose first word is its verb: `empty the tank` → `emptying the tank`."""
    verb, _, rest = verb_phrase.partition(" ")
    if verb.endswith("ie"):
        form = verb[:-2] + "ying"
    elif verb.endswith("e") and not verb.endswith("ee"):
        form = verb[:-1] + "ing"
    elif verb in {
        "put",
        "let",
        "run",
        "log",
        "skip",
        "get",
        "sit",
        "cut",
        "set",
        "stop",
        "shut",
        "spin",
        "drip",
    }:
        form = verb + verb[-1] + "ing"
    else:
        form = _stem(verb) + "ing"
    return f"{form} {rest}".strip()


def inflect_first(verb_phrase: str) -> str:
    """The third person of a phrase whose first word is its verb."""
    verb, _, rest = verb_phrase.partition(" ")
    return f"{third_person(verb)} {rest}".strip()


def pseudo_word(rng: Random, syllables: int | None = None) -> str:
    """An invented lower-case word, of syllables or of two words' halves: it can only be copied, never remembered."""
    if syllables is None and rng.random() < 0.6:
        stock = words("things") + words("products") + words("verbs") + words("adjectives")
        first, second = (rng.choice(stock).split()[-1] for _ in range(2))
        return first[: rng.randint(2, 4)] + second[-rng.randint(2, 5) :]
    count = syllables or rng.choice([1, 2, 2, 3])
    word = "".join(rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(count - 1))
    return word + rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS)


def name(rng: Random) -> str:
    """An invented proper name: `Tavik`."""
    return pseudo_word(rng, rng.choice([None, 1, 2, 2, 2, 3]))[:10].replace("-", "").capitalize()


def code(rng: Random) -> str:
    """A model or part number: `K3`, `QR-77`, `Mark 2`."""
    digits = "".join(rng.choice("0123456789") for _ in range(rng.choice([1, 2, 2, 3, 4])))
    letters = "".join(rng.choice(LETTERS) for _ in range(rng.choice([1, 1, 2, 3])))
    return rng.choice([letters + digits, f"{letters}-{digits}", f"{letters} {digits}", digits + letters[0]])


def person(rng: Random) -> str:
    """An invented person: `Dr. Ilse Varga`, `Ms. Norrim`."""
    title = rng.choice(["", "", "", "Dr. ", "Ms. ", "Mr. ", "Mrs. "])
    return f"{title}{name(rng)} {name(rng)}" if rng.random() < 0.8 else f"{title or 'Ms. '}{name(rng)}"
