"""Does a passage support an answer? By its words and numbers, not by its meaning: cheap, and the same every time.

The passages that are looked in are the item's own (`context`) and the run's best for the question by BM25. The answer's
words are left out of that search: with them it finds whatever passage holds the answer, be it about something else.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from synth.core.heldout import HeldoutItem
from synth.core.records import Passage
from tune.metrics.refusal import is_refusal
from tune.metrics.words import read, squeezed

# How many of the run's passages are looked in for a question.
TOP = 3
# The share of an answer's content words that one passage has to hold.
SHARE = 0.8

_WORD = r"(?u)\b\w+\b"


class Support:
    """Looks for the passages that support an answer.

    An answer is supported when it stands in a passage as it is, word for word; or when one passage holds all its
    numbers and at least 80 % of its content words. Words are compared by crude English stems, numbers by value ("six"
    is 6, "1,000" is 1000). What the question has said already counts for nothing either way, unless the answer says
    nothing else: "The kettle is descaled by the butler" is as good as "the butler".

    Args:
        passages: of the run; none where there are none to look in.
        top: how many of them are looked in for each question.
    """

    def __init__(self, passages: Sequence[Passage] = (), *, top: int = TOP) -> None:
        self._texts = [passage.text for passage in passages]
        self._top = top
        self._found: dict[str, tuple[str, ...]] = {}
        self._index = _index(self._texts)

    def passages_for(self, item: HeldoutItem, answer: str = "") -> tuple[str, ...]:
        """Return the texts to look in: the item's own passage, then the run's best for its question, best first.

        Of equally good ones the first counts. With an `answer`, those that hold it come first.
        """
        if item.question not in self._found:
            self._found[item.question] = self._best(item.question)
        texts = dict.fromkeys([*([item.context] if item.context.strip() else []), *self._found[item.question]])
        if not answer:
            return tuple(texts)
        return tuple(sorted(texts, key=lambda text: not _holds(text, answer, item.question)))

    def supported(self, item: HeldoutItem, answer: str) -> bool | None:
        """Return whether a passage supports the answer; None for a refusal, a mere yes or no, and without a passage."""
        if is_refusal(answer) or not _says_something(answer):
            return None
        texts = self.passages_for(item)
        return any(_holds(text, answer, item.question) for text in texts) if texts else None

    def _best(self, question: str) -> tuple[str, ...]:
        if self._index is None:
            return ()
        words = _tokens([question])[0]
        if not words:
            return ()
        scores = self._index.get_scores(words)
        best = np.argsort(-scores, kind="stable")[: self._top]
        return tuple(self._texts[place] for place in best if scores[place] > 0)


def _index(texts: list[str]) -> Any:  # noqa: ANN401  (of an untyped library)
    """Return a BM25 index of the texts (bm25s with its own defaults), None where they have no word."""
    import bm25s  # brings numba with it

    tokens = _tokens(texts) if texts else []
    if not any(tokens):
        return None
    index = bm25s.BM25()
    index.index(tokens, show_progress=False)
    return index


def _tokens(texts: list[str]) -> list[list[str]]:
    import bm25s

    tokens: list[list[str]] = bm25s.tokenize(texts, token_pattern=_WORD, return_ids=False, show_progress=False)
    return tokens


def _says_something(answer: str) -> bool:
    said = read(answer)
    return bool(said.stems or said.numbers)


def _holds(passage: str, answer: str, question: str) -> bool:
    """Whether one passage supports the answer to a question."""
    said, asked, text = read(answer), read(question), read(passage)
    # Scripts without spaces have no words to compare: there the text itself is looked for.
    if said.line in text.line or (not answer.isascii() and squeezed(answer) in squeezed(passage)):
        return True
    numbers, stems = said.numbers - asked.numbers, said.stems - asked.stems
    if not numbers and not stems:
        # An answer in words of the question alone chooses between them.
        numbers, stems = said.numbers, said.stems
    return numbers <= text.numbers and len(stems & text.stems) >= SHARE * len(stems)
