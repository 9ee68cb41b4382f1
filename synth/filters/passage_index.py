"""A passage made ready for scorers that look for a pair's words in it: where each word stands, and its sentences.

Made once a passage and kept, so that the many pairs about one passage share it.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from synth.filters.words import STOPWORDS, Text, read, word_set

_ENGLISH = word_set(
    "the of and to with from that this these are for by which it its were been at your you our we they has have not"
)
# The share of such words from which a text passes for English; prose has twice as many.
_ENGLISH_SHARE = 0.12
_SENTENCE_END = frozenset(".!?;\n•|")
# More places of one word are not looked at: they would tell little and cost much.
_PLACES = 64
# From this many on, places are set byte by byte.
_FEW = 32


@dataclass(frozen=True, slots=True)
class PassageIndex:
    """The words of a passage, `places` of each stem in order, and the number of the sentence of each word."""

    text: Text
    places: dict[str, list[int]]
    sentences: tuple[int, ...]
    english: bool

    def known(self, stems: Iterable[str]) -> list[str]:
        """Return those of `stems` that the passage has, each once, in order."""
        return [s for s in dict.fromkeys(stems) if s in self.places]

    def near(self, stem: str) -> Sequence[int]:
        """Return the places of a stem, the first 64 of them."""
        found = self.places.get(stem, ())
        return found if len(found) <= _PLACES else found[:_PLACES]


@lru_cache(maxsize=1024)
def index_of(passage: str) -> PassageIndex:
    """Return the index of a passage; the same passage is indexed once."""
    text = read(passage)
    places: dict[str, list[int]] = defaultdict(list)
    for place, found in enumerate(text.stems):
        places[found].append(place)
    number, sentences = 0, []
    for (_, end), (start, _) in pairwise((*text.spans, (len(passage), len(passage)))):
        sentences.append(number)
        # "e.g. this", "3.5" and "U.S. law" are one sentence: a capital, a digit or a mark has to follow the stop.
        gap = passage[end:start]
        if start - end > 1 and not _SENTENCE_END.isdisjoint(gap) and not passage[start : start + 1].islower():
            number += 1
    english = sum(word in _ENGLISH for word in text.words) >= _ENGLISH_SHARE * len(text.words)
    return PassageIndex(text, dict(places), tuple(sentences), english)


@lru_cache(maxsize=32768)
def content_stems(text: str) -> tuple[str, ...]:
    """Return the stems of the content words of `text`, each once, in order."""
    found = read(text)
    return tuple(dict.fromkeys(s for s, w in zip(found.stems, found.words, strict=True) if w not in STOPWORDS))


def is_reply(answer: str) -> bool:
    """Whether an answer only says yes or no, which stands in no passage."""
    return read(answer).words in {("yes",), ("no",), ("true",), ("false",), ()}


@dataclass(frozen=True, slots=True)
class Place:
    """Where an answer stands best in a passage (words `start` to `end`), and the share of its words there in order."""

    start: int
    end: int
    share: float


@lru_cache(maxsize=8192)
def best_places(answer: str, passage: str) -> tuple[Place, ...]:
    """Return where `answer` stands in `passage`, best first; nothing where none of its words does.

    All the places (64 at most) where it stands whole, case, articles and endings of words apart; or else the one
    window, a little longer than the answer, that has the most of its words in its order.
    """
    index, words = index_of(passage), _plain(answer)
    if not words:
        return ()
    stems = index.text.stems
    size = len(words)
    rarest = min(range(size), key=lambda i: len(index.places.get(words[i], ())))
    whole = [
        Place(place - rarest, place - rarest + size, 1.0)
        for place in index.near(words[rarest])
        if place >= rarest and stems[place - rarest : place - rarest + size] == words
    ]
    if whole:
        return tuple(whole)
    return _windows(words, index)


@lru_cache(maxsize=32768)
def _plain(answer: str) -> tuple[str, ...]:
    """Return the stems of an answer without articles at its ends."""
    text = read(answer)
    stems, words = text.stems, text.words
    start, end = 0, len(words)
    while start < end and words[start] in {"a", "an", "the"}:
        start += 1
    return stems[start:end]


def _windows(words: Sequence[str], index: PassageIndex) -> tuple[Place, ...]:
    """Lay the answer over the passage at each word that they share and return where most of it fits, in order."""
    votes: dict[int, int] = defaultdict(int)
    for i, word in enumerate(words):
        if word not in STOPWORDS or len(words) < 3:
            for place in index.near(word):
                votes[place - i] += 1
    if not votes:
        return ()
    slack = 2 + len(words) // 4
    best = Place(0, 0, 0.0)
    # Neighbouring offsets are one place with a word put in or left out.
    leading = sorted(votes, key=lambda offset: (-votes[offset], offset))[:3]
    for offset in leading:
        start = max(0, offset - slack)
        end = min(len(index.text.stems), offset + len(words) + slack)
        # What is not there in one piece never has all of it: "we do share" out of "we do not share".
        share = common_in_order(words, index.text.stems[start:end]) / (len(words) + 0.5)
        if share > best.share:
            best = Place(max(0, offset), min(end, offset + len(words)), share)
    return (best,) if best.share else ()


def common_in_order(short: Sequence[str], long: Sequence[str]) -> int:
    """Return the length of the longest common subsequence of two word lists.

    Bit-parallel, after Hyyrö, "Bit-Parallel LCS-length Computation Revisited" (2004): one step a word of `short`.
    """
    found: dict[str, list[int]] = {}
    wanted = set(short)
    for place, word in enumerate(long):
        if word in wanted:
            found.setdefault(word, []).append(place)
    masks = {word: _mask(places, len(long)) for word, places in found.items()}
    full = (1 << len(long)) - 1
    row = full
    for word in short:
        if mask := masks.get(word, 0):
            both = row & mask
            row = ((row + both) | (row - both)) & full
    return len(long) - row.bit_count()


def _mask(places: Sequence[int], size: int) -> int:
    """Return a number with the bits at `places` set, of `size` bits at most."""
    if len(places) < _FEW:
        return sum(1 << place for place in places)
    # Shifting a long number once for each of many places would take time with the square of the text.
    bits = bytearray(size // 8 + 1)
    for place in places:
        bits[place >> 3] |= 1 << (place & 7)
    return int.from_bytes(bits, "little")
