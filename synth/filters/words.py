"""How the scorers read English text: words, crude stems, numbers and names.

Everything here is a table or a pure function, fast enough for a million short texts and wrong now and
then on purpose: a scorer that needs certainty asks for exact words, the rest live with crude stems.

No word holds white space, and what comes before or after white space decides nothing about a word. So a
text is cut at its white space, and what stands between (a piece) is looked up in a table that remembers it:
ten times faster than a regular expression over the whole text.
"""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import chain

from synth.filters.memo import Memo

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


_NONE: frozenset[str] = frozenset()


def fold(text: str) -> str:
    """Return `text` with one form of quotes, dashes and composed letters."""
    return text if text.isascii() else unicodedata.normalize("NFC", text).translate(_FOLD)


def squeeze(text: str) -> str:
    """Return `text` folded, with each run of white space as one space and none at the ends."""
    return " ".join(fold(text).split())


def _tokens_of(piece: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(fold(piece)))


def _lowered(piece: str) -> tuple[str, ...]:
    if piece.isascii():
        # Most pieces are one plain word, which a mark of punctuation may follow.
        plain = piece[:-1] if piece[-1] in _MARKS else piece
        if plain.isalpha():
            return (plain.lower(),)
    return tuple([_without_owner(token.lower()) for token in _tokens_of(piece)])


_MARKS = frozenset(".,;:?!)")


def _without_owner(word: str) -> str:
    return word[:-2] if word.endswith("'s") else word


def _said_of(piece: str) -> tuple[str, ...]:
    return tuple(map(_without_owner, _WORD.findall(fold(piece).lower())))


def _numbers_of(piece: str) -> frozenset[str]:
    if piece.isascii() and piece.isalpha():
        word = piece.lower()
        return frozenset((NUMBER_WORDS[word],)) if word in NUMBER_WORDS and word not in {"one", "zero"} else _NONE
    digits = {_value(match) for match in _NUMBER.findall(piece)}
    spelled = {
        NUMBER_WORDS[part]
        for word in _SAID[piece]
        for part in word.split("-")
        if part in NUMBER_WORDS and part not in {"one", "zero"}
    }
    return frozenset(digits | spelled) or _NONE


def _may_name(piece: str) -> bool:
    if piece.isascii() and piece.isalpha():
        return piece[0].isupper()
    return any(token[0].isupper() or any(map(str.isdigit, token)) for token in _TOKENS[piece])


_TOKENS = Memo(_tokens_of)
_SAID = Memo(_said_of)
_NUMBERS = Memo(_numbers_of)
_MAY_NAME = Memo(_may_name)


def _columns_of(piece: str) -> tuple[Collection[str], ...]:
    """Return what a text needs of a piece.

    Its words, their stems, the words without articles, the stems of content words, the numbers, and the words that
    may be names.
    """
    words = _lowered(piece)
    content = [word for word in words if word not in STOPWORDS]
    return (
        words,
        tuple(map(stem, words)),
        without_articles(words),
        tuple(map(stem, content)),
        _NUMBERS[piece],
        # All names are among them, since they have a capital or a digit and are no stop words.
        tuple(content) if _MAY_NAME[piece] else (),
    )


_COLUMNS = Memo(_columns_of)
_NOTHING: tuple[tuple[Collection[str], ...], ...] = ((),) * 6


class Text:
    """A text as words; each part is made once, most when they are first asked for.

    `tokens` are as written, `words` folded to lower case, `stems` crudely lemmatised; the three and
    `spans` (offsets in the text, characters folded one to one) run in step. `content` holds the stems of the
    content words, in order; `plain` the words without articles; `numbers` and `names` what the functions of
    those names return; `marked` the words that may be names; `columns` what the table of pieces says, piece by
    piece. Never change a part: all who read the same text share it.
    """

    __slots__ = (
        "columns",
        "content",
        "line",
        "marked",
        "names",
        "numbers",
        "pieces",
        "plain",
        "plain_line",
        "raw",
        "spans",
        "squeezed",
        "stem_set",
        "stems",
        "tokens",
        "word_set",
        "words",
    )
    raw: str
    pieces: list[str]
    columns: tuple[tuple[Collection[str], ...], ...]
    tokens: tuple[str, ...]
    words: tuple[str, ...]
    stems: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    content: tuple[str, ...]
    plain: tuple[str, ...]
    word_set: frozenset[str]
    stem_set: frozenset[str]
    line: str
    plain_line: str
    squeezed: str
    numbers: frozenset[str]
    names: frozenset[str]
    marked: frozenset[str]

    def __init__(self, raw: str) -> None:
        self.raw = raw
        self.pieces = pieces = raw.split()
        # Each piece is looked up once; a look into a large table takes longer than what is done with what is there.
        self.columns = columns = tuple(zip(*map(_COLUMNS.__getitem__, pieces), strict=True)) or _NOTHING
        self.words = words = tuple(chain.from_iterable(columns[0]))
        # These nearly every scorer asks for.
        self.word_set = frozenset(words)
        self.stems = stems = tuple(chain.from_iterable(columns[1]))
        self.stem_set = frozenset(stems)
        self.plain = plain = tuple(chain.from_iterable(columns[2]))
        self.plain_line = f" {' '.join(plain)} "

    # Python asks here only for a slot that is still empty: the parts that few scorers want.
    def __getattr__(self, name: str) -> object:
        make = _PARTS.get(name)
        if make is None:
            raise AttributeError(f"a text has no part {name!r}")
        value = make(self)
        setattr(self, name, value)
        return value

    def find(self, other: "Text") -> int:
        """Return where the words of `other` stand in a row in this text, or -1; as `find_span` does."""
        return _find_line(other.line, self.line)

    def holds_twice(self, other: "Text") -> bool:
        """Whether the words of `other` stand in a row in this text at two places, which may share words."""
        first = self.line.find(other.line)
        return first >= 0 and len(other.line) > 2 and self.line.find(other.line, first + 1) >= 0

    def holds(self, other: "Text") -> bool:
        """Whether the words of `other` stand in a row in this text, articles apart."""
        return len(other.plain_line) > 2 and other.plain_line in self.plain_line


def _spans_of(text: Text) -> tuple[tuple[int, int], ...]:
    # Between two words stands nothing that could begin a word, so the next one is found at once.
    folded, place, spans = fold(text.raw), 0, []
    for token in text.tokens:
        start = folded.index(token, place)
        place = start + len(token)
        spans.append((start, place))
    return tuple(spans)


def _line(words: Iterable[str]) -> str:
    """Return the words between single spaces, so that a find in this line finds whole words only."""
    return f" {' '.join(words)} "


def _find_line(needle: str, haystack: str) -> int:
    if len(needle) < 3:
        return -1
    place = haystack.find(needle)
    return place if place <= 0 else haystack.count(" ", 0, place)


_PARTS: dict[str, Callable[[Text], object]] = {
    "tokens": lambda text: tuple(chain.from_iterable(map(_TOKENS.__getitem__, text.pieces))),
    "spans": _spans_of,
    "content": lambda text: tuple(chain.from_iterable(text.columns[3])),
    "line": lambda text: text.plain_line if len(text.plain) == len(text.words) else _line(text.words),
    "squeezed": lambda text: " ".join(text.pieces if text.raw.isascii() else fold(text.raw).split()),
    "numbers": lambda text: _NONE.union(*filter(None, text.columns[4])),
    "names": lambda text: _names_of(text),
    "marked": lambda text: frozenset(chain.from_iterable(text.columns[5])),
}

_TEXTS = Memo(Text, room=1 << 20)
read = _TEXTS.__getitem__
"""Return the words of a text; a text that was read of late is not read again."""


def words_of(text: str) -> tuple[str, ...]:
    """Return the words of `text` in lower case, without the 's of an owner; cheaper than `read`, nothing is kept."""
    return tuple(chain.from_iterable(map(_SAID.__getitem__, text.split())))


def stem(word: str) -> str:
    """Return a crude stem: plural and verb endings are dropped, "studies", "studied" and "study" meet."""
    return _STEMS[word]


def _stem_of(word: str) -> str:
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


_STEMS = Memo(_stem_of)


def numbers(text: str) -> frozenset[str]:
    """Return the numbers of `text` in digits: "6,000" and "6000" are one, "six" is "6".

    "one" is left out, since it is a pronoun more often than a number.
    """
    return _NONE.union(*filter(None, map(_NUMBERS.__getitem__, text.split())))


def _value(number: str) -> str:
    """Return a number without its thousands separators."""
    if re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", number):
        return number.replace(",", "")
    return number.replace(",", ".")


def names(text: str) -> frozenset[str]:
    """Return, folded, the words that name something: codes such as QR-77, and capitals inside a sentence.

    A text in title case or in capitals has no names that could be told from its other words.
    """
    return read(text).names


def _names_of(text: Text) -> frozenset[str]:
    folded = fold(text.raw)
    pieces = [piece for piece in text.pieces if _MAY_NAME[piece]]
    if not pieces or not _MARKED.search(folded):
        return _NONE
    if folded is not text.raw:
        pieces = [fold(piece) for piece in pieces]
    tokens = [token for piece in pieces for token in _TOKENS[piece]]
    capitals = sum([token[0].isupper() for token in tokens])
    telling = capitals * 2 <= len(text.words) or not _title_case(text.tokens)
    found, place = set(), 0
    # The pieces left out have no capital and no digit, so each piece and each of its tokens that has one is found
    # at once; the other tokens of a piece come in their order as well.
    for token in tokens:
        start = folded.index(token, place)
        if not _MAY_NAME[token]:
            continue
        place = start + len(token)
        word = token.lower().removesuffix("'s")
        if any(map(str.isdigit, token)) and any(map(str.isalpha, token)):
            if not _MEASURE_OR_ORDINAL.fullmatch(word):
                found.add(word)
        elif telling and token[0].isupper() and word not in STOPWORDS and not _opens(folded, start):
            found.add(word)
    return frozenset(found)


def _title_case(tokens: Sequence[str]) -> bool:
    """Whether capitals tell nothing: "What Is The Capital of France?", "SWITCH OFF THE LAMP"."""
    inner = tokens[1:]
    shouting = len(inner) >= 3 and all(token.isupper() for token in inner)
    return shouting or any(t[0].isupper() and t.lower() in _SMALL_WORDS for t in inner)


_SMALL_WORDS = STOPWORDS - {"a", "i"}


def _opens(text: str, start: int) -> bool:
    """Whether a word at `start` opens a sentence, where a capital says nothing."""
    while start and text[start - 1] in " '*_":
        start -= 1
    return not start or text[start - 1] in _SENTENCE_END


def find_span(needle: Sequence[str], haystack: Sequence[str]) -> int:
    """Return where `needle` stands in `haystack` as whole words in a row, or -1; words hold no white space."""
    return _find_line(_line(needle), _line(haystack)) if needle else -1


def without_articles(words: Sequence[str]) -> tuple[str, ...]:
    """Return the words apart from a, an and the."""
    return tuple([w for w in words if w not in _ARTICLES])


_ARTICLES = frozenset({"a", "an", "the"})
