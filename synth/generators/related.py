"""Related passages: which other place of the documents speaks of the same things?"""

from collections import Counter
from collections.abc import Sequence

from synth.core.errors import ConfigError
from synth.core.records import Passage
from synth.generators.lexical import content_list, content_words

# A passage is looked up by so many of its rarest words: common ones cost the most and say the least.
_QUERY_WORDS = 32
_CANDIDATES = 64
# Passages with so large a share of their words in common say the same thing twice.
_COPY = 0.8


class RelatedPassages:
    """A BM25 index (Lucene's variant, by bm25s) over the passages of a run, which it does not keep.

    Args:
        passages: all of them; may be read from disk at each access, and has to stay readable.

    Raises:
        ConfigError: bm25s is not installed.
    """

    def __init__(self, passages: Sequence[Passage]) -> None:
        try:
            import bm25s  # slow to import (it looks for numba), so only where there is something to look up
        except ImportError as error:
            raise ConfigError("multi-hop needs bm25s", fix="pip install bm25s") from error
        self._passages = passages
        self._vocabulary: dict[str, int] = {}
        self._held_by: Counter[int] = Counter()
        numbered = [self._numbers(passage) for passage in passages]
        self._index = bm25s.BM25() if self._vocabulary else None
        if self._index is not None:
            self._index.index((numbered, dict(self._vocabulary)), show_progress=False)

    def find(self, passage: Passage, count: int = 1) -> list[Passage]:
        """Return the `count` best passages about the same things from other places, best first.

        Another place is another document or another section of the same one. Near copies do not count, of
        the passage or of each other. Equal scores go to the passage that comes first.
        """
        words = [word for word in dict.fromkeys(content_list(passage.text)) if word in self._vocabulary]
        # A word that only one passage has relates it to nothing.
        rare = sorted((w for w in words if self._held_by[self._vocabulary[w]] > 1), key=self._rarity)[:_QUERY_WORDS]
        if self._index is None or not rare:
            return []
        import numpy as np

        scores = self._index.get_scores(rare)
        best = np.argsort(-scores, kind="stable")[:_CANDIDATES]
        found: list[Passage] = []
        for place in best:
            if len(found) == count or scores[place] <= 0:
                break
            other = self._passages[int(place)]
            if not same_place(passage, other) and not any(near_copy(other, one) for one in (passage, *found)):
                found.append(other)
        return found

    def _numbers(self, passage: Passage) -> list[int]:
        numbers = [self._vocabulary.setdefault(w, len(self._vocabulary)) for w in content_list(passage.text)]
        self._held_by.update(set(numbers))
        return numbers

    def _rarity(self, word: str) -> tuple[int, str]:
        return self._held_by[self._vocabulary[word]], word


def same_place(one: Passage, other: Passage) -> bool:
    """Whether two passages are of one section of one document."""
    return one.document_id == other.document_id and one.headings == other.headings


def near_copy(one: Passage, other: Passage) -> bool:
    """Whether two passages have four fifths of their content words in common."""
    words, others = content_words(one.text), content_words(other.text)
    return len(words & others) >= _COPY * len(words | others)
