"""Decontamination: no generated pair may ask what the held-out set asks, in the same words.

Compared are questions (and the held-out question with the generated answer), never passages: the passage
is the user's own document, and both sides are about it on purpose. A pair is contaminated where

- the whole held-out question stands in its question or its answer, or
- its question has the held-out question's words but for one, in any order, and no content word besides, or
- eight words in a row are those of a held-out question, are not the passage's own, and the pair has the
  numbers of that question too ("of model 4" for "of model 9" asks about something else).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from synth.core.heldout import HeldoutItem
from synth.core.records import Record
from synth.filters.words import STOPWORDS, Text, find_span, numbers, read, without_articles

NGRAM = 8
# A shorter question is common speech ("How much?"): it has to be a whole sentence of the pair.
_LEAST_CONTAINED = 3
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
        self._ngrams: dict[tuple[str, ...], list[int]] = {}
        self._content: dict[tuple[str, ...], list[int]] = {}
        for number, question in enumerate(self._questions):
            size = min(NGRAM, len(question.words))
            for gram in dict.fromkeys(_ngrams(question.words, size)):
                self._ngrams.setdefault(gram, []).append(number)
            bag = sorted(question.content.elements())
            fewer = [tuple(bag[:i] + bag[i + 1 :]) for i in range(len(bag))]
            for key in dict.fromkeys([tuple(bag), *fewer]):
                self._content.setdefault(key, []).append(number)
        self._sizes = sorted({len(gram) for gram in self._ngrams if gram})

    def find(self, record: Record) -> str | None:
        """Return the id of the first held-out question that the record contains, or None."""
        asked = [read(m.content) for m in record.prompt if m.role != "system"]
        answer = read(record.answer)
        texts = [*(text.words for text in asked), answer.words]
        texts.append(tuple(word for words in texts for word in words))
        sentences = {part for text in (*(m.content for m in record.prompt), record.answer) for part in _parts(text)}
        hits = [number for words in texts for number in self._in_words(words, record, sentences)]
        hits += [number for text in asked for number in self._reworded(text)]
        return self._questions[min(hits)].id if hits else None

    def _in_words(self, words: Sequence[str], record: Record, sentences: set[tuple[str, ...]]) -> Iterable[int]:
        stated = numbers(" ".join(words))
        for size in self._sizes:
            for gram in _ngrams(words, size):
                for number in self._ngrams.get(gram, ()):
                    question = self._questions[number].words
                    if len(question) < _LEAST_CONTAINED:
                        if question in sentences:
                            yield number
                    elif find_span(question, words) >= 0 or (
                        size == NGRAM
                        and self._questions[number].numbers <= stated
                        and find_span(gram, read(record.context).words) < 0
                    ):
                        yield number

    def _reworded(self, asked: Text) -> Iterable[int]:
        """Yield the questions that have this one's words but for one, and all of its content words."""
        content = Counter(_content(asked))
        if not content:
            return
        plain = Counter(without_articles(asked.words))
        for number in self._content.get(tuple(sorted(content.elements())), ()):
            question = self._questions[number]
            lost = question.plain - plain
            enough = len(question.words) >= _LEAST_TOKENS_TO_LOSE_CONTENT or content == question.content
            if lost.total() <= 1 and enough and (plain - question.plain).total() <= 2:
                yield number


def _question(item: HeldoutItem) -> _Question:
    text = read(item.question)
    return _Question(
        item.id, text.words, Counter(without_articles(text.words)), Counter(_content(text)), numbers(item.question)
    )


def _content(text: Text) -> list[str]:
    return [word for word in text.words if word not in STOPWORDS]


def _parts(text: str) -> list[tuple[str, ...]]:
    """Return the words of each sentence-like part of `text`."""
    parts = text.replace("?", "\n").replace("!", "\n").replace(".", "\n").split("\n")
    return [words for part in parts if (words := read(part).words)]


def _ngrams(words: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
