"""Records as vectors: for duplicates in other words, for reworded held-out questions, and for coverage."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from synth.core.embedding import Embedder
from synth.core.records import Record
from synth.filters.decontamination import HeldoutIndex
from synth.filters.leaks import Leak
from synth.filters.paraphrase import RewordedIndex
from synth.filters.semantic import On, pair_vectors

# So many records at a time: enough for the embedder's batches, few enough to hold.
_PORTION = 4096


@dataclass(frozen=True, slots=True)
class Meaning:
    """Vectors of length 1 (0 where there is no text), a row for each sketch of the table."""

    vectors: npt.NDArray[np.float32]


def read_meaning(
    records: Iterable[tuple[int, Record]], embedder: Embedder, on: On, heldout: HeldoutIndex | None
) -> tuple[Meaning, dict[int, Leak]]:
    """Embed records, and return their vectors in order, and which of them reword a held-out question.

    Args:
        records: each with its row.
        embedder: makes the vectors.
        on: what of a record they are of.
        heldout: the items that nothing may reword.

    Returns:
        The vectors, and the leak of each row that rewords an item.
    """
    index = RewordedIndex(heldout.items, embedder) if heldout is not None else None
    parts: list[npt.NDArray[np.float32]] = []
    leaks: dict[int, Leak] = {}
    for portion in _portions(records):
        questions = [record.question for _, record in portion]
        answers = [record.answer for _, record in portion]
        asked = embedder.embed(questions)
        parts.append(pair_vectors(asked, asked if on == "question" else embedder.embed(answers), on))
        if index is not None and heldout is not None:
            for place, (number, cosine) in index.find(questions, answers, asked).items():
                leaks[portion[place][0]] = heldout.semantic_leak(number, f"cosine {cosine:.2f}")
    vectors = np.concatenate(parts) if parts else np.empty((0, 1), np.float32)
    return Meaning(vectors), leaks


def reason(leak: Leak) -> str:
    """Return why a record that rewords a held-out question is rejected."""
    return f"contaminated:{leak} ({leak.how}, {leak.detail})"


def _portions(records: Iterable[tuple[int, Record]]) -> Iterator[list[tuple[int, Record]]]:
    unread = iter(records)
    while portion := list(islice(unread, _PORTION)):
        yield portion
