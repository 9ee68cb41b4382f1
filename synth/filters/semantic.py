"""Semantic duplicates: pairs whose vectors point the same way. The best of each stays.

Rows are taken from the best to the worst, and a row is a twin where a row that stays is near enough; so the result
hangs on that order alone. Only rows with equal `facts` are compared: two questions that differ in a number, a name or
a negation ask for two things, however near their vectors are.

Within a group of up to `exact_up_to` rows every row is compared with all that stay, by blocked matrix products. A
larger group is parted into cells around rows of its own (an inverted file, Sivic and Zisserman 2003). A row is compared
with what stays in the cells that it is nearest to, so that time grows with n to the 3/2 and memory with the vectors.
"""

import hashlib
from typing import TYPE_CHECKING, Literal

from synth.filters.words import names, numbers, word_set

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from synth.core.embedding import Vectors

EXACT_UP_TO = 50_000
# Rows that are decided at a time.
_BLOCK = 2048
# Cells a row is looked for in, and rows of a cell that it is compared with at most.
_PROBES = 24
_CELL_LIMIT = 8192
_NEGATIVE = word_set("no not never none nothing cannot without nor")

On = Literal["question", "answer", "both"]


def facts_hash(question: str, answer: str = "") -> int:
    """Return 63 bits that two pairs share where their numbers, their names and their negation are the same."""
    negative = any(
        word in _NEGATIVE or word.endswith(("n't", "n’t"))
        for word in (*question.lower().split(), *answer.lower().split())
    )
    told = (sorted(numbers(question) | numbers(answer)), sorted(names(question) | names(answer)), negative)
    return int.from_bytes(hashlib.blake2b(repr(told).encode(), digest_size=8).digest()) >> 1


def pair_vectors(questions: "Vectors", answers: "Vectors", on: On) -> "Vectors":
    """Return what pairs are compared by: one of the two, or both, whose cosine is the mean of the two cosines."""
    import numpy as np

    if on == "question":
        return questions
    if on == "answer":
        return answers
    return np.hstack([questions, answers]) / np.float32(np.sqrt(2))


def semantic_twins(
    vectors: "Vectors",
    order: "Sequence[int] | NDArray[np.int64]",
    threshold: float,
    *,
    facts: "Sequence[int] | NDArray[np.int64] | None" = None,
    exact_up_to: int = EXACT_UP_TO,
) -> dict[int, tuple[int, float]]:
    """Return for each row that goes the row that stays and that it is nearest to, with their cosine.

    Args:
        vectors: float32 [rows, dimensions], each of length 1, or 0 for a row that is like none.
        order: every row that takes part once, the best first; ties are broken by it too.
        threshold: the least cosine of twins.
        facts: rows with different numbers here are never twins (`facts_hash`); None compares all with all.
        exact_up_to: the largest group of rows with equal facts in which no pair is overlooked.
    """
    import numpy as np

    ranked = np.asarray(order, dtype=np.int64)
    told = np.linalg.norm(vectors[ranked], axis=1) > 0.5 if len(ranked) else np.zeros(0, dtype=bool)
    ranked = ranked[told]
    gone: dict[int, tuple[int, float]] = {}
    if facts is None:
        groups = [ranked] if len(ranked) else []
    else:
        keys = np.asarray(facts, dtype=np.int64)[ranked]
        by_key = np.argsort(keys, kind="stable")
        cuts = np.flatnonzero(np.diff(keys[by_key])) + 1
        groups = [ranked[some] for some in np.split(by_key, cuts)]
    for group in groups:
        if 1 < len(group) <= exact_up_to:
            _exact(vectors, group, threshold, gone)
        elif len(group) > 1:
            _in_cells(vectors, group, threshold, gone)
    return dict(sorted(gone.items()))


def _exact(
    vectors: "Vectors", group: "NDArray[np.int64]", threshold: float, gone: dict[int, tuple[int, float]]
) -> None:
    """Decide on a group in its order, each row against all that stay."""
    import numpy as np

    kept = np.empty((min(len(group), 4 * _BLOCK), vectors.shape[1]), dtype=np.float32)
    staying: list[int] = []
    for start in range(0, len(group), _BLOCK):
        rows = group[start : start + _BLOCK]
        block = vectors[rows]
        best = np.full(len(rows), -1.0, dtype=np.float32)
        twin = np.zeros(len(rows), dtype=np.int64)
        for first in range(0, len(staying), 4 * _BLOCK):
            cosines = block @ kept[first : min(first + 4 * _BLOCK, len(staying))].T
            places = cosines.argmax(axis=1)
            values = cosines[np.arange(len(rows)), places]
            better = values > best
            best[better], twin[better] = values[better], places[better] + first
        fresh = _within(block, best, threshold)
        for place in range(len(rows)):
            inner = fresh[place]
            if inner is not None and inner[1] > best[place]:
                gone[int(rows[place])] = (int(rows[inner[0]]), _rounded(inner[1]))
            elif best[place] >= threshold:
                gone[int(rows[place])] = (staying[twin[place]], _rounded(float(best[place])))
        new = [place for place in range(len(rows)) if int(rows[place]) not in gone]
        if len(staying) + len(new) > len(kept):
            kept = np.vstack([kept, np.empty((max(len(kept), len(new)), vectors.shape[1]), dtype=np.float32)])
        kept[len(staying) : len(staying) + len(new)] = block[new]
        staying += [int(row) for row in rows[new]]


def _within(block: "Vectors", best: "NDArray[np.float32]", threshold: float) -> list[tuple[int, float] | None]:
    """Return for each row of a block the nearest row before it that stays, where it is near enough.

    Args:
        block: rows in their order.
        best: the cosine of each to its nearest row of earlier blocks; from the threshold on it goes.
        threshold: the least cosine.
    """
    import numpy as np

    found: list[tuple[int, float] | None] = [None] * len(block)
    stays = best < threshold
    near = np.tril(block @ block.T, -1)
    for place in np.flatnonzero(near.max(axis=1) >= threshold):
        row = np.where(stays[:place], near[place, :place], np.float32(-1))
        earlier = int(row.argmax())
        if row[earlier] >= threshold:
            found[place] = (earlier, float(row[earlier]))
            stays[place] = False
    return found


def _in_cells(
    vectors: "Vectors", group: "NDArray[np.int64]", threshold: float, gone: dict[int, tuple[int, float]]
) -> None:
    """Decide on a large group in its order, each row against what stays in the cells that it is nearest to."""
    import numpy as np

    # The centres are rows of the group, evenly over its order, so that cells are small where rows are dense.
    count = max(2, int(2 * len(group) ** 0.5))
    centres = np.unique(vectors[group[np.linspace(0, len(group) - 1, count).astype(np.int64)]], axis=0)
    probes = min(_PROBES, len(centres))
    cells: list[list[int]] = [[] for _ in range(len(centres))]
    for start in range(0, len(group), _BLOCK):
        rows = group[start : start + _BLOCK]
        block = vectors[rows]
        nearness = block @ centres.T
        own = nearness.argmax(axis=1)
        nearest = np.argpartition(nearness, len(centres) - probes, axis=1)[:, len(centres) - probes :]
        best = np.full(len(rows), -1.0, dtype=np.float32)
        twin = np.full(len(rows), -1, dtype=np.int64)
        # By cell: one small product for all the rows of the block that look there.
        flat = nearest.ravel()
        by_cell = np.argsort(flat, kind="stable")
        for some in np.split(by_cell, np.flatnonzero(np.diff(flat[by_cell])) + 1):
            members = cells[flat[some[0]]]
            if not members:
                continue
            places = some // probes
            cosines = block[places] @ vectors[members].T
            top = cosines.argmax(axis=1)
            values = cosines[np.arange(len(places)), top]
            rows_of_cell = np.asarray(members, dtype=np.int64)[top]
            # Of equal cosines the better row, so that nothing hangs on the order of the cells.
            better = values > best[places]
            best[places[better]], twin[places[better]] = values[better], rows_of_cell[better]
        fresh = _within(block, best, threshold)
        for place in range(len(rows)):
            inner = fresh[place]
            if inner is not None and inner[1] > best[place]:
                gone[int(rows[place])] = (int(rows[inner[0]]), _rounded(inner[1]))
            elif best[place] >= threshold:
                gone[int(rows[place])] = (int(twin[place]), _rounded(float(best[place])))
            elif len(cells[own[place]]) < _CELL_LIMIT:
                cells[own[place]].append(int(rows[place]))


def _rounded(cosine: float) -> float:
    return round(min(1.0, cosine), 4)
