"""Decontamination: no generated pair may ask what a held-out set asks, in the same words.

A pair leaks a held-out item where

- the whole held-out question stands in a turn of its prompt or in its answer, whatever the case, the punctuation and
  the white space (a question of one or two words has to be a sentence of its own there: "How much?" is common speech);
- its question has the held-out question's words but for one, in any order, and no content word besides;
- eight words in a row are those of a held-out question, are not the passage's own, and the pair has the numbers of
  that question too ("of model 4" for "of model 9" asks about something else);
- a held-out answer of eight words or more, or thirteen words in a row of it, stands in its answer or its question and
  not in its passage. What stands in the passage is the user's own text, and a human quoted it as the teacher did.

Passages are the user's own documents, and both sides are about them on purpose. Where a turn of the prompt shows the
passage, a held-out question in it is trained on, and `find` says so. Elsewhere nothing of it is trained on:
`passage_leak` reports it, and it is for the user to say whether such records go.

Words are runs of letters and digits, folded; where a script has no spaces a character counts as half a word.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Self

from synth.core.heldout import HeldoutItem, HeldoutSet
from synth.core.records import Record
from synth.filters.leaks import How, Leak, Part
from synth.filters.words import STOPWORDS, numbers, stem

NGRAM = 8
# Of a held-out answer: a whole one counts from eight words, a part of a longer one from thirteen (Brown et al. 2020,
# appendix C, take 13-grams); eight words in a row of an answer are too often a phrase of the trade.
_ANSWER_NGRAM = 13
# A shorter question is common speech ("How much?"): it has to be a whole sentence of the pair.
_LEAST_CONTAINED = 3
# A question that loses a content word is still the same only if enough is left of it.
_LEAST_TOKENS_TO_LOSE_CONTENT = 6
# Contexts that are remembered, since a passage's records come one after the other.
_REMEMBERED = 1024
_REMEMBERED_WORDS = 200_000
# No word is a mark: it stands for the stem of a word that no held-out question has.
_FOREIGN = "?"

# Thai to Khmer, kana, Han, hangul excluded: scripts without spaces, whose characters are words here.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_ATOM = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
_IS_UNSPACED = re.compile(rf"[{_UNSPACED}]")
# Left out without a gap: apostrophes and their like, soft hyphens, zero-width characters.
_DROPPED = dict.fromkeys(map(ord, "'’‘‛′´`ʼʹ＇\u00ad\u200b\u200c\u200d\u2060\ufeff"))
_ASCII: dict[int, str | None] = {
    code: chr(code).lower() if chr(code).isalnum() else " " for code in range(128) if chr(code) not in "'`"
} | {ord("'"): None, ord("`"): None}
_STOP = frozenset(
    {word.replace("'", "") for word in STOPWORDS}
    | {f"{word}s" for word in ("what", "who", "where", "how", "when", "why", "that", "there", "here", "it", "he")}
)
_ARTICLES = frozenset({"a", "an", "the"})
# Where a sentence may begin and end: at a line's end or not, at a full stop inside "U.S." or "3.5" or not. A question
# may be wrapped, or stand on a line of its own, so each reading counts.
_ENDS = tuple(
    re.compile(rf"(?:[?!;…()\[\]\"“”«»。？！{line}]|{stop})+")
    for line in ("", r"\n")
    for stop in ("[.:]", r"[.:](?=[\s?!]|$)")
)

Words = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Question:
    """A held-out question as the reworded ones are compared with it."""

    words: Words
    plain: Counter[str]
    content: Counter[str]


@dataclass(slots=True)
class _Window:
    """What a run of words means when it stands in a record."""

    questions: list[int]
    """The items whose whole question it is."""

    answers: list[int]
    """The items of whose answer it is the whole or a long run."""

    runs: dict[str, dict[frozenset[str], tuple[int, int]]]
    """Eight words of a question: of each file the first item with each set of numbers, and where in its question."""


class HeldoutIndex:
    """An index of held-out items; looking a clean record up takes a few microseconds, whatever the index's size.

    Records are looked through for anchors: each run of words that would be a leak has its rarest three words here,
    so that a record without any of them has no such run.
    """

    def __init__(self, items: Iterable[HeldoutItem], file: str = "") -> None:
        """Index the items of one file; `of` does it for several."""
        self._build([(item, file) for item in items])

    @classmethod
    def of(cls, sets: Iterable[HeldoutSet]) -> Self:
        """Return an index of every item of every set; ids may meet across files."""
        index = cls(())
        index._build([(item, str(heldout.path)) for heldout in sets for item in heldout.items])
        return index

    def _build(self, entries: Sequence[tuple[HeldoutItem, str]]) -> None:
        self.items = tuple(item for item, _ in entries)
        self.files = tuple(file for _, file in entries)
        self._questions = [_question(item) for item in self.items]
        self._short: dict[Words, list[int]] = defaultdict(list)
        self._reworded_as: dict[Words, list[int]] = defaultdict(list)
        windows: dict[Words, _Window] = {}
        for number, question in enumerate(self._questions):
            self._add_question(number, question, windows)
            for answer in self.items[number].worded_answers:
                words = atoms(answer)
                if len(words) >= _length(words, NGRAM):
                    for run in _runs(words, min(len(words), _length(words, _ANSWER_NGRAM))):
                        _append(_window(windows, run).answers, number)
        self._windows = windows
        self._anchors = _anchors(windows)
        self._known = frozenset(self._anchors)
        self._sizes = sorted({len(words) for words in self._short})
        self._vocabulary = frozenset(word for question in self._questions for word in question.content)
        self._stems: dict[str, str] = {}
        self._contexts: dict[str, Words] = {}
        self._passages: dict[str, tuple[Leak, ...]] = {}

    def _add_question(self, number: int, question: _Question, windows: dict[Words, _Window]) -> None:
        words = question.words
        if not words:
            return
        if len(words) < _length(words, _LEAST_CONTAINED):
            self._short[words].append(number)
        else:
            _window(windows, words).questions.append(number)
        stated = numbers(self.items[number].question)
        for offset, run in enumerate(_runs(words, _length(words, NGRAM))):
            _window(windows, run).runs.setdefault(self.files[number], {}).setdefault(stated, (number, offset))
        bag = sorted(question.content.elements())
        for key in dict.fromkeys([tuple(bag), *(tuple(bag[:i] + bag[i + 1 :]) for i in range(len(bag)))]):
            self._reworded_as[key].append(number)

    def __len__(self) -> int:
        return len(self.items)

    def find(self, record: Record) -> Leak | None:
        """Return the leak of the first held-out item that training on the record would leak, or None."""
        found = self._found(record)
        return self._leak(min(found), found[min(found)]) if found else None

    def leaks(self, record: Record) -> list[Leak]:
        """Return a leak for each held-out item that training on the record would leak, in the order of the files."""
        found = self._found(record)
        return [self._leak(number, found[number]) for number in sorted(found)]

    def passage_leak(self, context: str) -> Leak | None:
        """Return the first of `passage_leaks`, or None."""
        return next(iter(self.passage_leaks(context)), None)

    def passage_leaks(self, context: str) -> tuple[Leak, ...]:
        """Return a leak for each held-out item whose question stands in a passage, as in a list of common questions.

        It counts there whole (a sentence of its own where it has fewer than eight words), or from eight words in a row
        where they miss no more than one word of it. Passages that were asked about lately are remembered.
        """
        if context in self._passages:
            return self._passages[context]
        if len(self._passages) >= _REMEMBERED:
            self._passages.clear()
        words = self._words_of_context(context)
        found: dict[int, tuple[int, How, Part, str]] = {}
        for place, run, window in self._hits(words):
            for number in window.questions:
                if len(run) >= _length(run, NGRAM) or _stands_alone(run, context):
                    _note(found, number, "exact", "passage", f"all {len(run)} words")
            for number, offset in (first for runs in window.runs.values() for first in runs.values()):
                size = _extent(self._questions[number].words, offset, words, place)
                if size >= len(self._questions[number].words) - 1:
                    _note(found, number, "ngram", "passage", f"{size} words in a row")
        for number in self._sentences(words, context):
            _note(found, number, "exact", "passage", "a sentence of its own")
        leaks = tuple(self._leak(number, found[number]) for number in sorted(found))
        self._passages[context] = leaks
        return leaks

    def semantic_leak(self, number: int, detail: str = "") -> Leak:
        """Return the leak of item `number` (its place in `items`) that embeddings found in a question."""
        return self._leak(number, (0, "semantic", "question", detail))

    def _leak(self, number: int, found: "tuple[int, How, Part, str]") -> Leak:
        _, how, part, detail = found
        return Leak(self.items[number].id, self.files[number], part, how, detail)

    def _found(self, record: Record) -> "dict[int, tuple[int, How, Part, str]]":
        """Return for each leaked item how it was found; of several ways the plainest."""
        turns = [message.content for message in record.prompt if message.role != "system"]
        asked = [atoms(text) for text in turns]
        answer = atoms(record.answer)
        words = asked[0] + answer if len(asked) == 1 else tuple(word for part in (*asked, answer) for word in part)
        found: dict[int, tuple[int, How, Part, str]] = {}
        # In nearly every record nothing stands, and these three looks are all that it costs.
        if not self._known.isdisjoint(zip(words, words[1:], words[2:], strict=False)):
            self._standing(record, asked, answer, words, found)
        if self._short:
            for text, its in (*zip(turns, asked, strict=True), (record.answer, answer)):
                where: Part = "answer" if its is answer else "question"
                for number in self._sentences(its, text):
                    _note(found, number, "exact", where, "a sentence of its own")
        for its in asked:
            for number, lost in self._reworded(its):
                _note(found, number, "reworded", "question", "its words" if not lost else f"its words but {lost}")
        return found

    def _standing(
        self,
        record: Record,
        asked: Sequence[Words],
        answer: Words,
        words: Words,
        found: "dict[int, tuple[int, How, Part, str]]",
    ) -> None:
        """Note the items that stand in the record whole or for long enough."""
        for its in (*asked, answer):
            part: Part = "answer" if its is answer else "question"
            for _, run, window in self._hits(its):
                for number in window.questions:
                    _note(found, number, "exact", self._place(record, run, asked, part), f"all {len(run)} words")
        boundary = len(words) - len(answer)
        stated: frozenset[str] | None = None
        for place, run, window in self._hits(words):
            if not (window.runs or window.answers) or _stands(run, self._words_of_context(record.context)):
                continue
            part = "answer" if place + len(run) > boundary else "question"
            if stated is None:
                stated = numbers("\n".join([*(m.content for m in record.prompt if m.role != "system"), record.answer]))
            for number, offset in (first for runs in window.runs.values() for first in _with_numbers(runs, stated)):
                size = _extent(self._questions[number].words, offset, words, place)
                _note(found, number, "ngram", part, f"{size} words in a row")
            for number in window.answers:
                whole = [said for text in self.items[number].worded_answers if _stands(run, said := atoms(text))]
                size = max((len(said) for said in whole if _stands(said, words)), default=0)
                detail = f"all {size} words of its answer" if size else f"{len(run)} words of its answer or more"
                _note(found, number, "exact" if size else "ngram", part, detail)

    def _place(self, record: Record, run: Words, asked: Sequence[Words], part: Part) -> Part:
        """Return "passage" where a question stands in the passage that a turn shows and nowhere else in the turns."""
        if part == "answer" or not record.shows_context:
            return part
        if not _stands(run, self._words_of_context(record.context)):
            return part
        rest = [m.content.replace(record.context, "\n") for m in record.prompt if m.role != "system"]
        return part if any(_stands(run, atoms(text)) for text in rest) else "passage"

    def _hits(self, words: Words) -> Iterator[tuple[int, Words, _Window]]:
        """Yield each run of words that means something: its place, the run and its meaning."""
        anchors = self._anchors
        for place, three in enumerate(zip(words, words[1:], words[2:], strict=False)):
            for offset, run in anchors.get(three, ()):
                start = place - offset
                if start >= 0 and words[start : start + len(run)] == run:
                    yield start, run, self._windows[run]

    def _sentences(self, words: Words, text: str) -> Iterator[int]:
        """Yield the questions of a word or two that are a sentence of the text."""
        standing = {
            key
            for size in self._sizes
            for key in zip(*(words[i:] for i in range(size)), strict=False)
            if key in self._short
        }
        for key in standing:
            if _stands_alone(key, text):
                yield from self._short[key]

    def _reworded(self, asked: Words) -> Iterator[tuple[int, int]]:
        """Yield the questions that have this one's words but for one, and all of its content words."""
        stems, content = self._stems, []
        for word in asked:
            root = stems.get(word)
            if root is None:
                root = self._content_stem(word)
            if root == _FOREIGN:
                return
            if root:
                content.append(root)
        content.sort()
        numbers_ = self._reworded_as.get(tuple(content)) if content else None
        if not numbers_:
            return
        plain = _plain(asked)
        bag = Counter(content)
        for number in numbers_:
            question = self._questions[number]
            lost = (question.plain - plain).total()
            enough = len(question.words) >= _LEAST_TOKENS_TO_LOSE_CONTENT or bag == question.content
            if lost <= 1 and enough and (plain - question.plain).total() <= 2:
                yield number, lost

    def _content_stem(self, word: str) -> str:
        """Return a word's stem: "" for a stop word, `_FOREIGN` where no held-out question has it."""
        root = "" if word in _STOP else stem(word)
        if root and root not in self._vocabulary:
            root = _FOREIGN
        if len(self._stems) < _REMEMBERED_WORDS:
            self._stems[word] = root
        return root

    def _words_of_context(self, context: str) -> Words:
        known = self._contexts.get(context)
        if known is None:
            if len(self._contexts) >= _REMEMBERED:
                self._contexts.clear()
            known = self._contexts[context] = atoms(context)
        return known


def atoms(text: str) -> Words:
    """Return the words of `text` as this module compares them: letters and digits alone, case and accents' form folded.

    No change of case, white space, quotes or punctuation between words changes them.
    """
    if text.isascii():
        return tuple(text.translate(_ASCII).split())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).translate(_DROPPED).casefold())
    return tuple(_ATOM.findall(folded.translate(_DROPPED)))


def _question(item: HeldoutItem) -> _Question:
    words = atoms(item.question)
    return _Question(words, _plain(words), Counter(stem(word) for word in words if word not in _STOP))


def _plain(words: Words) -> Counter[str]:
    return Counter(stem(word) for word in words if word not in _ARTICLES)


def _length(words: Words, count: int) -> int:
    """Return how many of these words make as much text as `count` words: twice as many where they are characters."""
    unspaced = sum(1 for word in words if len(word) == 1 and not word.isascii() and _IS_UNSPACED.match(word))
    return 2 * count if unspaced * 2 > len(words) else count


def _runs(words: Words, size: int) -> list[Words]:
    return [words[i : i + size] for i in range(len(words) - size + 1)]


def _window(windows: dict[Words, _Window], words: Words) -> _Window:
    found = windows.get(words)
    if found is None:
        found = windows[words] = _Window([], [], {})
    return found


def _append(numbers_: list[int], number: int) -> None:
    if not numbers_ or numbers_[-1] != number:
        numbers_.append(number)


def _anchors(windows: Iterable[Words]) -> dict[Words, list[tuple[int, Words]]]:
    """Return for three words the runs that they are the rarest three words of, and where in each run they stand."""
    runs = list(windows)
    counts = Counter(three for run in runs for three in zip(run, run[1:], run[2:], strict=False))
    anchors: dict[Words, list[tuple[int, Words]]] = defaultdict(list)
    for run in runs:
        threes = list(zip(run, run[1:], run[2:], strict=False))
        # Stop words make an anchor common in any text, however rare it is here.
        offset = min(range(len(threes)), key=lambda i: (sum(w in _STOP for w in threes[i]), counts[threes[i]], i))
        anchors[threes[offset]].append((offset, run))
    return dict(anchors)


def _note(found: "dict[int, tuple[int, How, Part, str]]", number: int, how: How, part: Part, detail: str) -> None:
    """Keep the plainest way in which an item was found, and of runs the longest."""
    size = int(detail.split()[0]) if how == "ngram" else 0
    rank = ("exact", "ngram", "reworded").index(how) * 1_000_000 - size
    if number not in found or rank < found[number][0]:
        found[number] = (rank, how, part, detail)


def _extent(question: Words, offset: int, words: Words, place: int) -> int:
    """Return how many words in a row `words` shares with the question around a place where they agree."""
    start = 0
    while offset > start and place > start and question[offset - start - 1] == words[place - start - 1]:
        start += 1
    end = 0
    while offset + end < len(question) and place + end < len(words) and question[offset + end] == words[place + end]:
        end += 1
    return start + end


def _with_numbers(runs: Mapping[frozenset[str], tuple[int, int]], stated: frozenset[str]) -> Iterator[tuple[int, int]]:
    """Yield the questions of `runs` whose numbers are all stated, without going through a template's thousands."""
    if len(stated) < 12 and 2 ** len(stated) < len(runs):
        subsets = (frozenset(some) for size in range(len(stated) + 1) for some in combinations(sorted(stated), size))
        yield from (runs[some] for some in subsets if some in runs)
    else:
        yield from (found for needed, found in runs.items() if needed <= stated)


def _stands(run: Words, words: Words) -> bool:
    size, first = len(run), run[0]
    return any(words[i] == first and words[i : i + size] == run for i in range(len(words) - size + 1))


def _stands_alone(words: Words, text: str) -> bool:
    """Whether `words` are a whole sentence of the text, or what stands between brackets, quotes or line ends."""
    return any(atoms(part) == words for ends in _ENDS for part in ends.split(text))
