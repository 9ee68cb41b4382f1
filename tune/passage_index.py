"""BM25 over the run's passages: one ranking for retrieval, for what may support an answer, and for `tune explain`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Unlike the library's own pattern this keeps words of one character: "gate 3" is not "gate 4".
_WORD = r"(?u)\b\w+\b"


class PassageIndex:
    """Ranks texts by BM25.

    As Lucene has it, by bm25s with its own defaults (k1 1.5, b 0.75, English stop words left out) but for
    words of one character, which count.

    Attributes:
        texts: what is ranked.
        has_words: whether any text has a word to be found by.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        import bm25s  # brings numba with it, so it is loaded only where there is something to look up

        self.texts = tuple(texts)
        self._tokenize = bm25s.tokenize
        tokens = self._tokens(self.texts) if texts else []
        self.has_words = any(tokens)
        self._index = bm25s.BM25()
        if self.has_words:
            self._index.index(tokens, show_progress=False)

    def scores(self, query: str) -> "NDArray[np.float32]":
        """Return an array [texts] of BM25 scores, 0 for a text that shares no word with the query."""
        import numpy as np

        words = self._tokens([query])[0] if self.has_words else []
        scores: NDArray[np.float32] = (
            self._index.get_scores(words) if words else np.zeros(len(self.texts), dtype=np.float32)
        )
        return scores

    def best(self, query: str, top: int) -> list[int]:
        """Return the places of the best texts that share a word with the query, `top` at most, best first.

        Equal scores go to the text that comes first.
        """
        import numpy as np

        scores = self.scores(query)
        return [int(place) for place in np.argsort(-scores, kind="stable")[:top] if scores[place] > 0]

    def _tokens(self, texts: Sequence[str]) -> list[list[str]]:
        tokens: list[list[str]] = self._tokenize(
            list(texts), token_pattern=_WORD, return_ids=False, show_progress=False
        )
        return tokens
