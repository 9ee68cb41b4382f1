"""A text as what it says: its numbers by value and its content words by crude English stems.

Crude on purpose: fast, the same every time, and wrong now and then ("nothing" has the stem of "noth"). Texts of other
languages keep their words whole, which is as good where a word stands in one form.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

_TOKEN = re.compile(r"\d+(?:[.,:]\d+)*|[^\W\d_]+(?:'[^\W\d_]+)?")
_THOUSANDS = re.compile(r",(?=\d{3}(?:\D|$))")
_FOLD = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "‑": "-"})
_ARTICLES = frozenset({"a", "an", "the"})
_ENDINGS = ("ations", "ation", "ings", "ing", "edly", "ed", "ies", "es", "ers", "er", "ly", "s", "e", "y")
_SHORTEST_STEM = 3


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


STOPWORDS = _set(
    """
    a an the this that these those it its itself he she him her his they them their there here i me my we us our you
    your who whom whose which what when where why how if whether as than then so such both either each and or but nor
    yet for of in on at by to from with into onto upon over under about between among through during before after until
    till while since because though although within without per via up down out off again am is are was were be been
    being do does did doing done have has had having can could may might must shall should will would not no never
    cannot also too just only very more most less least much many any some all every other another same own one ones
    yes true false
    """
)
_NUMBER_WORDS = {
    word: number
    for pair in _set(
        """
    two:2 three:3 four:4 five:5 six:6 seven:7 eight:8 nine:9 ten:10 eleven:11 twelve:12 thirteen:13 fourteen:14
    fifteen:15 sixteen:16 seventeen:17 eighteen:18 nineteen:19 twenty:20 thirty:30 forty:40 fifty:50 sixty:60 seventy:70
    eighty:80 ninety:90 hundred:100 thousand:1000 dozen:12
    """
    )
    for word, number in [pair.split(":")]
}


@dataclass(frozen=True, slots=True)
class Said:
    """What a text says.

    Attributes:
        stems: of its content words.
        numbers: by value: "six" is 6, "1,000" is 1000, "2.50" is 2.5.
        line: all its words but articles, a space before and after each.
    """

    stems: frozenset[str]
    numbers: frozenset[str]
    line: str


@lru_cache(maxsize=8192)
def read(text: str) -> Said:
    """Return what a text says."""
    tokens = [token.removesuffix("'s") for token in _TOKEN.findall(squeezed(text))]
    numbers = {_value(token) for token in tokens if token[0].isdigit()}
    numbers |= {_NUMBER_WORDS[token] for token in tokens if token in _NUMBER_WORDS}
    words = {token for token in tokens if not token[0].isdigit()} - STOPWORDS - _NUMBER_WORDS.keys()
    line = " ".join(token for token in tokens if token not in _ARTICLES)
    return Said(frozenset(map(_stem, words)), frozenset(numbers), f" {line} ")


def squeezed(text: str) -> str:
    """Return a text in lower case, with one form of quotes and dashes, and each run of white space as one space."""
    return " ".join(unicodedata.normalize("NFC", text).translate(_FOLD).lower().split())


def _value(number: str) -> str:
    plain = _THOUSANDS.sub("", number)
    if re.fullmatch(r"\d+\.\d+", plain):
        plain = plain.rstrip("0").rstrip(".")
    return plain.lstrip("0") or "0"


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST_STEM and not word.endswith("ss"):
            word = word[: -len(ending)]
            break
    if len(word) > _SHORTEST_STEM and word[-1] == word[-2]:
        word = word[:-1]
    return word.removesuffix("i") if len(word) > _SHORTEST_STEM else word
