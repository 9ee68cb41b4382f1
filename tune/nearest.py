"""The training rows that ask what is nearest to a question, by TF-IDF, and how far the user's questions lie from them.

Words and pairs of words are weighed by their rarity (scikit-learn's TfidfVectorizer, with 1 + log of the counts), and
two questions are as near as the cosine of their weights: 1 for the same words, 0 for none in common. Words tell
nothing of meaning, and need no model. In scripts without spaces a character counts as a word.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from synth.core.heldout import HeldoutItem

# Thai to Khmer, kana and Han: scripts without spaces, whose characters are words here.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")
# A long question is a document, whose later words would only cost time.
_MOST_WORDS = 2000
# How many cosines are held at once.
_BLOCK_CELLS = 4_000_000
# Questions that a median is taken of at most.
_SAMPLE = 1000


@dataclass(frozen=True, slots=True)
class Near:
    """A training row that asks something near, what it asks, and the cosine of the two questions, 0 to 1."""

    row_id: str
    text: str
    similarity: float

    def to_json(self) -> dict[str, Any]:
        """Return the row as it stands in files."""
        return {"row_id": self.row_id, "text": self.text, "similarity": self.similarity}


@dataclass(frozen=True, slots=True)
class Distance:
    """How far questions lie from the nearest training question: the median of 1 less the cosine, 0 to 1.

    `own_median` is that of the generated validation questions, the yardstick: they are of other documents too. None
    where there is no such question, or nothing was trained on.
    """

    heldout_median: float | None
    own_median: float | None

    def to_json(self) -> dict[str, float | None]:
        """Return the medians as they stand in files."""
        return {"heldout_median": self.heldout_median, "own_median": self.own_median}


def words_of(text: str) -> list[str]:
    """Return the words of a text, in one Unicode form (NFKC) and lower case.

    They are runs of letters and digits, and single characters of unspaced scripts.
    """
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def user_turns(row: Mapping[str, Any]) -> list[str]:
    """Return what the user says in a training row, turn by turn; all of the prompt where it is a text."""
    prompt = row["prompt"]
    if isinstance(prompt, str):
        return [prompt]
    return [turn["content"] for turn in prompt if turn["role"] == "user"]


def asked_by(row: Mapping[str, Any]) -> str:
    """Return what a training row asks: the last that the user says."""
    turns = user_turns(row)
    return turns[-1] if turns else ""


def nearest_rows(questions: Sequence[str], rows: Sequence[Mapping[str, Any]], k: int = 3) -> list[list[Near]]:
    """Return for each question the nearest training rows, nearest first; of equally near ones the first in the file.

    Rows without a word in common are never near, so there may be fewer than `k`, or none.
    """
    texts = [asked_by(row) for row in rows]
    return [
        [Near(str(rows[place]["id"]), texts[place], cosine) for place, cosine in found]
        for found in _nearest(questions, texts, k)
    ]


def question_distance(
    items: Sequence[HeldoutItem], rows: Sequence[Mapping[str, Any]], validation_rows: Sequence[Mapping[str, Any]]
) -> Distance:
    """Return how far held-out questions lie from the training questions, beside generated questions.

    Of more than 1,000 questions of a side, 1,000 at even steps are taken.
    """
    texts = [asked_by(row) for row in rows]
    if not any(map(words_of, texts)):
        return Distance(None, None)
    heldout = _thinned([item.question for item in items])
    own = _thinned([asked_by(row) for row in validation_rows])
    nearest = _nearest([*heldout, *own], texts, 1)
    distances = [1.0 - (found[0][1] if found else 0.0) for found in nearest]
    sides = distances[: len(heldout)], distances[len(heldout) :]
    return Distance(*(round(median(side), 4) if side else None for side in sides))


def _thinned(texts: Sequence[str]) -> list[str]:
    count = min(len(texts), _SAMPLE)
    return [texts[place * len(texts) // count] for place in range(count)]


def _nearest(questions: Sequence[str], texts: Sequence[str], k: int) -> list[list[tuple[int, float]]]:
    """Return for each question the places of the nearest texts with their cosines, nearest first."""
    if k < 1:
        raise ValueError(f"k is {k}, and has to be 1 or more")
    if not questions or not any(map(words_of, texts)):
        return [[] for _ in questions]
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer=_terms, sublinear_tf=True, dtype=np.float32)
    # Of both sides: a word that no training row has makes a question the farther, and would not count otherwise.
    weights = vectorizer.fit_transform([*texts, *questions])
    known, asked = weights[: len(texts)].T.tocsr(), weights[len(texts) :]
    found: list[list[tuple[int, float]]] = []
    step = max(1, _BLOCK_CELLS // len(texts))
    for start in range(0, len(questions), step):
        block = (asked[start : start + step] @ known).tocsr()
        for begin, end in zip(block.indptr, block.indptr[1:], strict=False):
            places, cosines = block.indices[begin:end], block.data[begin:end]
            if len(places) > k:
                # All from the last place that counts on, so that ties at it do not hang on the sort.
                near = cosines >= np.partition(cosines, len(cosines) - k)[len(cosines) - k]
                places, cosines = places[near], cosines[near]
            order = np.lexsort((places, -cosines))[:k]
            found.append([(int(places[i]), round(min(1.0, float(cosines[i])), 4)) for i in order])
    return found


def _terms(text: str) -> list[str]:
    words = words_of(text)[:_MOST_WORDS]
    return [*words, *map(" ".join, zip(words, words[1:], strict=False))]
