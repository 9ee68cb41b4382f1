"""Records as vectors: for duplicates in other words, for reworded held-out questions, and for coverage."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from synth.core.heldout import HeldoutSet
from synth.core.records import Record
from synth.filters.embedding import Embedder
from synth.filters.paraphrase import RewordedIndex
from synth.filters.semantic import On, pair_vectors

# So many records at a time: enough for the embedder's batches, few enough to hold.
_PORTION = 4096


@dataclass(frozen=True, slots=True)
class Meaning:
    """Vectors of length 1 (0 where there is no text), a row for each sketch of the table."""

    vectors: npt.NDArray[np.float32]


def read_meaning(
    records: Iterable[tuple[int, Record]], embedder: Embedder, on: On, heldout: Sequence[HeldoutSet]
) -> tuple[Meaning, dict[int, str]]:
    """Embed records, and return their vectors in order, and which of them reword a held-out question.

    Args:
        records: each with its row.
        embedder: makes the vectors.
        on: what of a record they are of.
        heldout: the sets that nothing may reword.

    Returns:
        The vectors, and the reason for each row that leaks.
    """
    items = [item for one in heldout for item in one.items]
    index = RewordedIndex(items, embedder) if items else None
    parts: list[npt.NDArray[np.float32]] = []
    leaks: dict[int, str] = {}
    for portion in _portions(records):
        questions = [record.question for _, record in portion]
        answers = [record.answer for _, record in portion]
        asked = embedder.embed(questions)
        parts.append(pair_vectors(asked, asked if on == "question" else embedder.embed(answers), on))
        if index is not None:
            for place, (number, cosine) in index.find(questions, answers, asked).items():
                leaks[portion[place][0]] = f"contaminated:{items[number].id} (reworded, {cosine:.2f})"
    vectors = np.concatenate(parts) if parts else np.empty((0, 1), np.float32)
    return Meaning(vectors), leaks


def _portions(records: Iterable[tuple[int, Record]]) -> Iterator[list[tuple[int, Record]]]:
    unread = iter(records)
    while portion := list(islice(unread, _PORTION)):
        yield portion
