"""How the scorers read English text: words, crude stems, numbers and names.

Everything here is a table or a pure function, fast enough for a million short texts and wrong now and
then on purpose: a scorer that needs certainty asks for exact words, the rest live with crude stems.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

_WORD = re.compile(r"\d+(?:[.,:]\d+)*(?=[^\W\d_]{1,3}\b)|\d+(?:[.,:]\d+)+|[^\W_]+(?:[-'.][^\W_]+)*|[%€$£°]")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_FOLD = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "‐": "-", "‑": "-", "–": "-", "—": "-"})
# A capital past the first letter, or a digit: without one a text names nothing.
_MARKED = re.compile(r"(?<=.)[^\W\d_a-zß-öø-ÿ]|\d", re.DOTALL)
_MEASURE_OR_ORDINAL = re.compile(r"\d+(?:st|nd|rd|th|s|am|pm|[a-z]{1,3})")
_SENTENCE_END = frozenset('.!?:"(\n•')


def word_set(text: str) -> frozenset[str]:
    """Return the words of `text`, which are parted by white space."""
    return frozenset(text.split())


STOPWORDS = word_set(
    """
    a an the this that these those it its itself he she him her his they them their there here i me my we us
    our you your yours who whom whose which what when where why how if whether as than then so such both
    either each and or but nor yet for of in on at by to from with into onto upon over under about between
    among through during before after until till while since because though although unless within without
    per via up down out off again am is are was were be been being do does did doing done have has had
    having can could may might must shall should will would ought need not no never cannot n't don't doesn't
    didn't isn't aren't wasn't won't can't shouldn't mustn't also too just only very more most less least
    much many any some all every other another same own one ones yes
    """
)

_COUNTED = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty
"""
NUMBER_WORDS = {word: str(value) for value, word in enumerate(_COUNTED.split())} | {
    "thirty": "30",
    "forty": "40",
    "fifty": "50",
    "sixty": "60",
    "seventy": "70",
    "eighty": "80",
    "ninety": "90",
    "hundred": "100",
    "thousand": "1000",
    "dozen": "12",
}

_IRREGULAR = {
    form: base
    for base, forms in {
        "begin": "began begun",
        "break": "broke broken",
        "bring": "brought",
        "build": "built",
        "buy": "bought",
        "choose": "chose chosen",
        "come": "came",
        "draw": "drew drawn",
        "drive": "drove driven",
        "eat": "ate eaten",
        "fall": "fell fallen",
        "feel": "felt",
        "freeze": "froze frozen",
        "get": "got gotten",
        "give": "gave given",
        "go": "goes went gone",
        "grow": "grew grown",
        "hide": "hid hidden",
        "hold": "held",
        "keep": "kept",
        "know": "knew known",
        "lose": "lost",
        "make": "made",
        "meet": "met",
        "pay": "paid",
        "rise": "rose risen",
        "run": "ran",
        "say": "said",
        "see": "saw seen",
        "sell": "sold",
        "send": "sent",
        "show": "shown",
        "sleep": "slept",
        "speak": "spoke spoken",
        "spend": "spent",
        "stand": "stood",
        "steal": "stole stolen",
        "take": "took taken",
        "teach": "taught",
        "tell": "told",
        "think": "thought",
        "throw": "threw thrown",
        "use": "used using",
        "wear": "wore worn",
        "win": "won",
        "write": "wrote written",
        "foot": "feet",
        "person": "people",
        "child": "children",
        "man": "men",
        "woman": "women",
    }.items()
    for form in forms.split()
}


@dataclass(frozen=True, slots=True)
class Text:
    """A text as words.

    `tokens` are as written, `words` folded to lower case, `stems` crudely lemmatised; the three and
    `spans` (offsets in the text, characters folded one to one) run in step.
    """

    tokens: tuple[str, ...]
    words: tuple[str, ...]
    stems: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]

    @property
    def content(self) -> list[str]:
        """The stems of the content words, in order."""
        return [s for s, w in zip(self.stems, self.words, strict=True) if w not in STOPWORDS]


def fold(text: str) -> str:
    """Return `text` with one form of quotes, dashes and composed letters."""
    return unicodedata.normalize("NFC", text).translate(_FOLD)


def squeeze(text: str) -> str:
    """Return `text` folded, with each run of white space as one space and none at the ends."""
    return " ".join(fold(text).split())


def words_of(text: str) -> tuple[str, ...]:
    """Return the words of `text` in lower case, without the 's of an owner; far cheaper than `read`."""
    return tuple([w[:-2] if w.endswith("'s") else w for w in _WORD.findall(fold(text).lower())])


@lru_cache(maxsize=32768)
def read(text: str) -> Text:
    """Return the words of `text`; the same text is read once."""
    matches = list(_WORD.finditer(fold(text)))
    tokens = tuple([m.group() for m in matches])
    words = tuple([t[:-2] if t.endswith(("'s", "'S")) else t for t in map(str.lower, tokens)])
    return Text(tokens, words, tuple(map(stem, words)), tuple([m.span() for m in matches]))


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """Return a crude stem: plural and verb endings are dropped, "studies", "studied" and "study" meet."""
    base = _IRREGULAR.get(word)
    if base is not None:
        return stem(base)
    for ending, least in (("ing", 6), ("ied", 5), ("ies", 5), ("ed", 5)):
        if word.endswith(ending) and len(word) >= least:
            root = word[: -len(ending)]
            if ending.startswith("i") and ending != "ing":
                return root + "i"
            if not re.search(r"[aeiouy]", root):
                return word
            if len(root) > 3 and root[-1] == root[-2] and root[-1] not in "lsz":
                root = root[:-1]
            return _close(root)
    if word.endswith("s") and len(word) > 3 and not word.endswith(("ss", "us", "is")):
        root = word[:-2] if word.endswith(("ches", "shes", "sses", "xes", "zes", "oes")) else word[:-1]
        return _close(root)
    return _close(word)


def _close(root: str) -> str:
    """Make the ends of one word's forms meet: "close", "closed" and "closing"; "carry" and "carried"."""
    if len(root) > 3 and root.endswith("e"):
        root = root[:-1]
    if len(root) > 3 and root.endswith("ll"):
        root = root[:-1]
    return root[:-1] + "i" if len(root) > 2 and root.endswith("y") and root[-2] not in "aeiou" else root


@lru_cache(maxsize=32768)
def numbers(text: str) -> frozenset[str]:
    """Return the numbers of `text` in digits: "6,000" and "6000" are one, "six" is "6".

    "one" is left out, since it is a pronoun more often than a number.
    """
    digits = {_value(match.group()) for match in _NUMBER.finditer(text)}
    spelled = {
        NUMBER_WORDS[part]
        for word in words_of(text)
        for part in word.split("-")
        if part in NUMBER_WORDS and part not in {"one", "zero"}
    }
    return frozenset(digits | spelled)


def _value(number: str) -> str:
    """Return a number without its thousands separators."""
    if re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", number):
        return number.replace(",", "")
    return number.replace(",", ".")


@lru_cache(maxsize=32768)
def names(text: str) -> frozenset[str]:
    """Return, folded, the words that name something: codes such as QR-77, and capitals inside a sentence.

    A text in title case or in capitals has no names that could be told from its other words.
    """
    folded = fold(text)
    if not _MARKED.search(folded):
        return frozenset()
    matches = list(_WORD.finditer(folded))
    tokens = [m.group() for m in matches]
    capital = [t[0].isupper() for t in tokens]
    telling = sum(capital) * 2 <= len(capital) or not _title_case(tokens)
    result = set()
    for match, token, is_capital in zip(matches, tokens, capital, strict=True):
        word = token.lower().removesuffix("'s")
        if any(c.isdigit() for c in token) and any(c.isalpha() for c in token):
            if not _MEASURE_OR_ORDINAL.fullmatch(word):
                result.add(word)
        elif is_capital and telling and word not in STOPWORDS and not _opens(folded, match.start()):
            result.add(word)
    return frozenset(result)


def _title_case(tokens: Sequence[str]) -> bool:
    """Whether capitals tell nothing: "What Is The Capital of France?", "SWITCH OFF THE LAMP"."""
    inner = tokens[1:]
    shouting = len(inner) >= 3 and all(token.isupper() for token in inner)
    return shouting or any(t[0].isupper() and t.lower() in STOPWORDS - {"a", "i"} for t in inner)


def _opens(text: str, start: int) -> bool:
    """Whether a word at `start` opens a sentence, where a capital says nothing."""
    before = text[:start].rstrip(" '*_")
    return not before or before[-1] in _SENTENCE_END


def find_span(needle: Sequence[str], haystack: Sequence[str]) -> int:
    """Return where `needle` stands in `haystack` as whole words in a row, or -1."""
    size = len(needle)
    if not size:
        return -1
    first = needle[0]
    for start in range(len(haystack) - size + 1):
        if haystack[start] == first and tuple(haystack[start : start + size]) == tuple(needle):
            return start
    return -1


def without_articles(words: Sequence[str]) -> tuple[str, ...]:
    """Return the words apart from a, an and the."""
    return tuple(w for w in words if w not in {"a", "an", "the"})
