"""Reworded questions: the same thing asked in other words, told by embeddings and by what the answers say.

A vector of a whole question sees its subject far better than what it asks: "When was the bridge built?" lies nearer to
"Who built the bridge?" than to "The bridge dates from what year?". The answers tell them apart. So a question counts
as a held-out one reworded where the two are about one thing and the answers agree; without that only where the
questions are all but the same. Numbers and names that contradict each other part two questions whatever else.
docs/decontamination.md has the measured rates.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from synth.core.heldout import HeldoutItem
from synth.filters.decontamination import atoms
from synth.filters.words import NUMBER_WORDS, STOPWORDS, names, numbers, stem

if TYPE_CHECKING:
    from synth.core.embedding import Embedder, Vectors

_STOP = frozenset(word.replace("'", "") for word in STOPWORDS)
_NEGATIVE = re.compile(r"\b(?:no|not|never|none|nothing|cannot|without|nor)\b|n['’]t\b", re.IGNORECASE)
# Stop words of a question that an answer may consist of.
_TELLING = frozenset({"one", "may"})
# Rows that are multiplied at a time, and of each row the nearest held-out items that are looked at.
_BLOCK = 1024
NEAREST = 16
# How much of a held-out answer has to stand in an answer, and how much of the answer may be something else.
_LEAST_RECALL = 0.5
_LEAST_PRECISION = 0.4

_ASKS = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("who", r"\b(?:who|whom|whose)\b"),
        ("count", r"\bhow many\b|\bnumber of\b|\bwhat number\b"),
        ("often", r"\bhow often\b|\bhow frequently\b"),
        ("length", r"\bhow long\b|\bhow much time\b|\bhow soon\b|\b(?:what|which) (?:period|duration)\b"),
        ("measure", r"\bhow (?:much|old|far|high|tall|heavy|large|big|fast|hot|deep|wide)\b"),
        ("when", r"\bwhen\b|\b(?:what|which) (?:year|date|day|month|century|time)\b"),
        ("where", r"\bwhere\b|\b(?:what|which) (?:place|location|folder|city|country|town)\b"),
        ("why", r"\bwhy\b|\b(?:what|which) (?:is the |was the )?reason\b"),
        ("how", r"\bhow\b|\bwhat way\b"),
        ("whether", r"^(?:am|is|are|was|were|do|does|did|can|could|may|might|must|should|will|would|has|have|had)\b"),
    )
)


@dataclass(frozen=True, slots=True)
class Closeness:
    """From which cosine of two questions on they count as one; the stricter, the less else agrees."""

    told: float = 0.15
    """Where the answers share two words or more of their own, which the questions do not have."""

    answered: float = 0.25
    """Where they share one."""

    weakly: float = 0.75
    """Where the answers agree and say little: "yes", or only words of the question."""

    alone: float = 0.95
    """Where the answers do not agree, and both questions ask for the same sort of thing."""

    @property
    def least(self) -> float:
        """The cosine below which nothing counts."""
        return min(self.told, self.answered, self.weakly, self.alone)


@dataclass(frozen=True, slots=True)
class _Said:
    """What two answers are compared by: the content words that the question does not have, all words, the numbers."""

    own: frozenset[str]
    words: frozenset[str]
    numbers: frozenset[str]

    @classmethod
    def of(cls, answer: str, question: frozenset[str]) -> "_Said":
        words = atoms(answer.replace(",", ""))
        content = frozenset(_content(words))
        stated = numbers(answer) | {word for word in content if word.isdecimal()}
        return cls(content - question, frozenset(words), stated)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What two questions with their answers are compared by."""

    numbers: frozenset[str]
    names: frozenset[str]
    words: frozenset[str]
    content: frozenset[str]
    negative: bool
    asks: str
    answers: tuple["_Said", ...]

    @classmethod
    def of(cls, question: str, answers: Iterable[str]) -> "_Asked":
        words = atoms(question)
        own = frozenset(_content(words))
        return cls(
            numbers=numbers(question),
            names=frozenset(stem(part) for name in names(question) for part in atoms(name)),
            words=frozenset(map(stem, words)),
            content=own,
            negative=_NEGATIVE.search(question) is not None,
            asks=asks(question),
            answers=tuple(_Said.of(answer, own) for answer in answers),
        )


def asks(question: str) -> str:
    """Return what sort of thing a question asks for: "who", "when", "count", ..., or "what" where it does not say."""
    lowered = question.lower().strip()
    return next((kind for kind, pattern in _ASKS if pattern.search(lowered)), "what")


def contradict(first: str, second: str) -> bool:
    """Whether each of two questions has a number, or each a name, that the other one lacks."""
    return _contradict(_Asked.of(first, ()), _Asked.of(second, ()))


def _contradict(first: _Asked, second: _Asked) -> bool:
    if first.numbers - second.numbers and second.numbers - first.numbers:
        return True
    return bool(first.names - second.words and second.names - first.words)


def _content(words: Sequence[str]) -> list[str]:
    """Return the stems of what is not a stop word, numbers in digits: "twenty-eight" is 28."""
    told: list[str] = []
    tens = ""
    for word in words:
        value = NUMBER_WORDS.get(word, word)
        if tens and len(value) == 1 and value.isdigit() and word != value:
            told[-1] = tens[0] + value
        elif word not in _STOP or word in _TELLING:
            told.append(stem(value))
        tens = value if value != word and len(value) == 2 and value[1] == "0" else ""
    return told


def _agreement(heldout: _Asked, made: _Asked) -> str:
    """Return "told", "answered", "weakly" or "alone": how far the answers agree."""
    weakly = False
    for right in heldout.answers:
        for said in made.answers:
            if right.numbers and said.numbers and not right.numbers & said.numbers:
                continue
            if right.own:
                common, more = len(right.own & said.own), len(said.own - right.own - heldout.content)
                if common >= _LEAST_RECALL * len(right.own) and common >= _LEAST_PRECISION * (common + more):
                    return "told" if common > 1 else "answered"
            elif right.words & said.words:
                weakly = True
    return "weakly" if weakly else "alone"


def _same(heldout: _Asked, made: _Asked, cosine: float, closeness: Closeness) -> bool:
    if cosine < closeness.told or _contradict(heldout, made):
        return False
    agreement = _agreement(heldout, made)
    if agreement in {"told", "answered"}:
        return agreement == "told" or cosine >= closeness.answered
    alike = heldout.asks == made.asks and heldout.negative == made.negative
    return alike and cosine >= (closeness.weakly if agreement == "weakly" else closeness.alone)


class RewordedIndex:
    """Held-out questions as vectors, for finding pairs that ask one of them in other words."""

    def __init__(self, items: Sequence[HeldoutItem], embedder: "Embedder", closeness: Closeness | None = None) -> None:
        self._embedder = embedder
        self._closeness = closeness or Closeness()
        self._items = [_Asked.of(item.question, item.worded_answers) for item in items]
        self._answer_words = [frozenset().union(*(said.own for said in asked.answers)) for asked in self._items]
        self.vectors = embedder.embed([item.question for item in items])

    def find(
        self, questions: Sequence[str], answers: Sequence[str], vectors: "Vectors | None" = None
    ) -> dict[int, tuple[int, float]]:
        """Return for each pair that rewords a held-out item the item's place and the cosine of the two questions.

        Of several items the nearest is named, of equally near ones the first.

        Args:
            questions: what the pairs ask.
            answers: what they answer, in step.
            vectors: the rows of `questions` where they are embedded already.
        """
        rows = self._embedder.embed(questions) if vectors is None else vectors
        known: dict[int, _Asked] = {}
        told: dict[int, frozenset[str]] = {}
        least = min(self._closeness.weakly, self._closeness.alone)

        def same(row: int, item: int, cosine: float) -> bool:
            if cosine < least:
                # Most are parted here, before anything dear is read of them.
                said = told.get(row)
                if said is None:
                    told.clear()
                    said = told[row] = frozenset(_content(atoms(answers[row].replace(",", ""))))
                if said.isdisjoint(self._answer_words[item]):
                    return False
            asked = known.get(row)
            if asked is None:
                known.clear()
                asked = known[row] = _Asked.of(questions[row], (answers[row],))
            return _same(self._items[item], asked, cosine, self._closeness)

        return semantic_leaks(rows, self.vectors, self._closeness.least, agree=same)


def semantic_leaks(
    vectors: "Vectors",
    heldout: "Vectors",
    threshold: float,
    *,
    agree: Callable[[int, int, float], bool] | None = None,
    nearest: int = NEAREST,
) -> dict[int, tuple[int, float]]:
    """Return for each row the held-out item that it is nearest to, with their cosine, where it is near enough.

    Args:
        vectors: the records' questions, rows of length 1 (or 0: never near).
        heldout: the held-out questions, likewise.
        threshold: the least cosine.
        agree: asked with row, item and cosine, from the nearest item on; the first that agrees is taken.
        nearest: how many items of a row are asked about at most.
    """
    import numpy as np

    found: dict[int, tuple[int, float]] = {}
    if not len(heldout):
        return found
    keep = min(nearest if agree else 1, len(heldout))
    for start in range(0, len(vectors), _BLOCK):
        cosines = vectors[start : start + _BLOCK] @ heldout.T
        if keep < len(heldout):
            # The items from the last place that counts on, so that ties at it do not hang on the sort.
            bound = np.partition(cosines, len(heldout) - keep, axis=1)[:, len(heldout) - keep]
        else:
            bound = cosines.min(axis=1)
        for place in np.flatnonzero(cosines.max(axis=1) >= threshold):
            row = cosines[place]
            items = np.flatnonzero(row >= max(threshold, bound[place]))
            for item in items[np.argsort(-row[items], kind="stable")][:keep]:
                cosine = float(row[item])
                if agree is None or agree(start + int(place), int(item), cosine):
                    found[start + int(place)] = (int(item), round(min(1.0, cosine), 4))
                    break
    return found
