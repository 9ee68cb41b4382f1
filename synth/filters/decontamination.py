"""Decontamination: no generated pair may ask what the held-out set asks, in the same words.

Compared are questions (and the held-out question with the generated answer), never passages: the passage
is the user's own document, and both sides are about it on purpose. A pair is contaminated where

- the whole held-out question stands in its question or its answer, or
- its question has the held-out question's words but for one, in any order, and no content word besides, or
- eight words in a row are those of a held-out question, are not the passage's own, and the pair has the
  numbers of that question too ("of model 4" for "of model 9" asks about something else).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from synth.core.heldout import HeldoutItem
from synth.core.records import Record
from synth.filters.words import STOPWORDS, find_span, numbers, read, without_articles, words_of

NGRAM = 8
# Questions are looked up by so many of their first words.
_OPENING = 4
# A shorter question is common speech ("How much?"): it has to be a whole sentence of the pair.
_LEAST_CONTAINED = 3
_SENTENCE_END = re.compile(r"[.?!\n]+")
# A question that loses a content word is still the same only if enough is left of it.
_LEAST_TOKENS_TO_LOSE_CONTENT = 6


@dataclass(frozen=True, slots=True)
class _Question:
    id: str
    words: tuple[str, ...]
    plain: Counter[str]
    content: Counter[str]
    numbers: frozenset[str]


class HeldoutIndex:
    """An index of held-out questions; looking a record up takes time in its own length alone."""

    def __init__(self, items: Iterable[HeldoutItem]) -> None:
        self._questions = [_question(item) for item in items]
        # Whole questions, and how long those are that begin with a given run of words.
        self._whole: dict[tuple[str, ...], int] = {}
        self._lengths: dict[tuple[str, ...], set[int]] = defaultdict(set)
        # Runs of eight words: of the questions that have one, the first with each set of numbers.
        self._ngrams: dict[tuple[str, ...], dict[frozenset[str], int]] = defaultdict(dict)
        self._content: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for number, question in enumerate(self._questions):
            words = question.words
            if not words:
                continue
            self._whole.setdefault(words, number)
            self._lengths[words[:_OPENING]].add(len(words))
            for gram in _ngrams(words):
                self._ngrams[gram].setdefault(question.numbers, number)
            bag = sorted(question.content.elements())
            fewer = [tuple(bag[:i] + bag[i + 1 :]) for i in range(len(bag))]
            for key in dict.fromkeys([tuple(bag), *fewer]):
                self._content[key].append(number)

    def find(self, record: Record) -> str | None:
        """Return the id of the first held-out question that the record contains, or None."""
        asked = [words_of(m.content) for m in record.prompt if m.role != "system"]
        texts = [*asked, words_of(record.answer)]
        texts.append(tuple(word for words in texts for word in words))
        hits = {number for words in texts[:-1] for number in self._held_in(words)}
        hits.update(self._sentences(record))
        hits.update(self._shared_runs(texts[-1], record))
        hits.update(number for words in asked for number in self._reworded(words))
        return self._questions[min(hits)].id if hits else None

    def _held_in(self, words: tuple[str, ...]) -> Iterator[int]:
        """Yield the questions that stand in `words` whole."""
        for start in range(len(words)):
            for size in range(_LEAST_CONTAINED, _OPENING + 1):
                for length in self._lengths.get(words[start : start + size], ()):
                    number = self._whole.get(words[start : start + length])
                    if number is not None and length >= _LEAST_CONTAINED:
                        yield number

    def _sentences(self, record: Record) -> Iterator[int]:
        """Yield the questions that are a sentence of the record, however short they are."""
        for text in (*(m.content for m in record.prompt if m.role != "system"), record.answer):
            for part in _SENTENCE_END.split(text):
                if (number := self._whole.get(words_of(part))) is not None:
                    yield number

    def _shared_runs(self, words: tuple[str, ...], record: Record) -> Iterator[int]:
        """Yield the questions that share eight words in a row with the record and not with its passage."""
        stated: frozenset[str] | None = None
        for gram in _ngrams(words):
            found = self._ngrams.get(gram)
            if not found or find_span(gram, read(record.context).words) >= 0:
                continue
            stated = numbers(" ".join(words)) if stated is None else stated
            yield from (number for needed, number in found.items() if needed <= stated)

    def _reworded(self, asked: tuple[str, ...]) -> Iterator[int]:
        """Yield the questions that have this one's words but for one, and all of its content words."""
        content = Counter(_content(asked))
        if not content:
            return
        plain = Counter(without_articles(asked))
        for number in self._content.get(tuple(sorted(content.elements())), ()):
            question = self._questions[number]
            lost = question.plain - plain
            enough = len(question.words) >= _LEAST_TOKENS_TO_LOSE_CONTENT or content == question.content
            if lost.total() <= 1 and enough and (plain - question.plain).total() <= 2:
                yield number


def _question(item: HeldoutItem) -> _Question:
    words = words_of(item.question)
    return _Question(item.id, words, Counter(without_articles(words)), Counter(_content(words)), numbers(item.question))


def _content(words: tuple[str, ...]) -> list[str]:
    return [word for word in words if word not in STOPWORDS]


def _ngrams(words: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [words[i : i + NGRAM] for i in range(len(words) - NGRAM + 1)]
