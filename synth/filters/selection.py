"""Which accepted records are left when there are bounds, and which documents validate.

All works on columns, one entry a record, so that a million records take seconds. Every choice hangs on the seed and
the records alone, never on their order: the better record goes first, then the lower id.
"""

import hashlib
import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import TYPE_CHECKING, Literal

from synth.core.errors import ConfigError
from synth.core.records import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from synth.core.embedding import Vectors

Mode = Literal["spread", "coverage"]

# What put a record aside, by the number that `select` gives it; 0 is a record that stays.
CAUSES = ("", "passage", "document", "kind", "number")

# Rows whose likeness to each other is held at a time: their square in floats, 64 MiB.
_CELL = 4096


@dataclass(frozen=True, slots=True)
class Columns:
    """The records as columns: entries of one row are about one record.

    `documents`, `passages` and `kinds` are numbers from 0 on, equal where the records share it; a passage's number
    belongs to one document. `document_names` has the document's id at its number.
    """

    ids: Sequence[str]
    documents: "NDArray[np.int64]"
    passages: "NDArray[np.int64]"
    kinds: "NDArray[np.int64]"
    quality: "NDArray[np.float64]"
    document_names: Sequence[str]
    kind_names: Sequence[str]

    @classmethod
    def of(cls, records: Sequence[Record], quality: Callable[[Record], float]) -> "Columns":
        """Return the columns of `records`."""
        import numpy as np

        documents, passages, kinds = dict[str, int](), dict[tuple[str, str], int](), dict[str, int]()
        rows = [
            (
                documents.setdefault(record.document_id, len(documents)),
                passages.setdefault((record.document_id, record.passage_id), len(passages)),
                kinds.setdefault(record.kind, len(kinds)),
            )
            for record in records
        ]
        table = np.array(rows, dtype=np.int64).reshape(-1, 3)
        return cls(
            ids=[record.id for record in records],
            documents=table[:, 0],
            passages=table[:, 1],
            kinds=table[:, 2],
            quality=np.array([quality(record) for record in records], dtype=np.float64),
            document_names=list(documents),
            kind_names=list(kinds),
        )


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many records may stay, in all and of one passage, document or kind; None sets no bound.

    A kind's bound is a count (an int) or the greatest share of what stays (a float up to 1).
    """

    num_records: int | None = None
    max_per_passage: int | None = None
    max_per_document: int | None = None
    max_per_kind: Mapping[str, int | float] | None = None


def shuffled_key(seed: int, name: str) -> str:
    """Return a key that sorts names in an order which depends on the seed."""
    return hashlib.sha256(f"{seed}\0{name}".encode()).hexdigest()


def select(
    columns: Columns,
    bounds: Bounds,
    *,
    seed: int = 0,
    mode: Mode = "spread",
    vectors: "Vectors | None" = None,
    quality_weight: float = 0.5,
) -> "NDArray[np.int8]":
    """Return for each record 0 where it stays, or the place in `CAUSES` of the bound that puts it aside.

    The bounds hold one after the other: of a passage the best stay; of a document the best of each passage in turn; of
    a kind, and of all, those of each document in turn. With `mode` "coverage" the last choice, of `num_records` among
    what the other bounds leave, is by `cover` in place of turns.

    Args:
        columns: the records.
        bounds: how many may stay.
        seed: decides which document is first in a turn.
        mode: "spread" or "coverage".
        vectors: for "coverage", a row of length 1 for each record.
        quality_weight: for "coverage", see `cover`.

    Raises:
        ConfigError: there is no vector for "coverage", or shares of kinds leave nothing that could stay.
    """
    import numpy as np

    causes = np.zeros(len(columns.ids), dtype=np.int8)
    order = _best_first(columns)
    in_passage = _ranks(columns.passages[order])
    causes[order[_past(in_passage, bounds.max_per_passage)]] = CAUSES.index("passage")
    left = causes[order] == 0
    order, in_passage = order[left], in_passage[left]
    # A document's turns: the best of each passage, then the second of each.
    order = order[np.lexsort((np.arange(len(order)), in_passage))]
    turns = _ranks(columns.documents[order])
    causes[order[_past(turns, bounds.max_per_document)]] = CAUSES.index("document")
    left = causes[order] == 0
    order, turns = order[left], turns[left]
    keys = [shuffled_key(seed, name) for name in columns.document_names]
    rank_of = np.empty(len(keys), dtype=np.int64)
    rank_of[np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)] = np.arange(len(keys))
    order = order[np.lexsort((rank_of[columns.documents[order]], turns))]
    if bounds.max_per_kind:
        limits = _kind_limits(columns, order, bounds)
        spare = _ranks(columns.kinds[order]) >= limits[columns.kinds[order]]
        causes[order[spare]] = CAUSES.index("kind")
        order = order[~spare]
    if bounds.num_records is None or len(order) <= bounds.num_records:
        return causes
    if mode == "coverage":
        if vectors is None:
            raise ConfigError(
                "to choose by coverage takes embeddings", where="select", fix="name an embedding model, or use spread"
            )
        # The best first, so that ties go to the better and then to the lower id.
        order = _best_first(columns)[np.isin(_best_first(columns), order, assume_unique=True)]
        chosen = order[cover(vectors[order], columns.quality[order], bounds.num_records, quality_weight)]
    else:
        chosen = order[: bounds.num_records]
    causes[order] = CAUSES.index("number")
    causes[chosen] = 0
    return causes


def _best_first(columns: Columns) -> "NDArray[np.int64]":
    import numpy as np

    ids = np.array(columns.ids, dtype=np.str_)
    order: NDArray[np.int64] = np.lexsort((ids, -columns.quality))
    return order


def _ranks(groups: "NDArray[np.int64]") -> "NDArray[np.int64]":
    """Return for each entry how many of its group stand before it."""
    import numpy as np

    by_group = np.argsort(groups, kind="stable")
    ordered = groups[by_group]
    first = np.r_[0, np.flatnonzero(np.diff(ordered)) + 1] if len(groups) else np.zeros(0, dtype=np.int64)
    sizes = np.diff(np.r_[first, len(groups)])
    ranks = np.empty(len(groups), dtype=np.int64)
    ranks[by_group] = np.arange(len(groups)) - np.repeat(first, sizes)
    return ranks


def _past(ranks: "NDArray[np.int64]", limit: int | None) -> "NDArray[np.bool_]":
    import numpy as np

    return np.zeros(len(ranks), dtype=bool) if limit is None else ranks >= limit


def _kind_limits(columns: Columns, order: "NDArray[np.int64]", bounds: Bounds) -> "NDArray[np.int64]":
    """Return how many of each kind may stay. Shares are of what stays in the end, so they are met by going down."""
    import numpy as np

    counts = np.bincount(columns.kinds[order], minlength=len(columns.kind_names))
    limits = dict(bounds.max_per_kind or {})
    fixed = counts.copy()
    shares = np.ones(len(counts))
    for number, name in enumerate(columns.kind_names):
        limit = limits.get(name)
        if isinstance(limit, float):
            shares[number] = limit
        elif limit is not None:
            fixed[number] = min(fixed[number], limit)
    total = int(len(order) if bounds.num_records is None else min(len(order), bounds.num_records))
    while True:
        allowed = np.minimum(fixed, np.floor(shares * total + 1e-9).astype(np.int64))
        fewer = min(total, int(allowed.sum()))
        if fewer == total:
            break
        total = fewer
    if len(order) and not total:
        raise ConfigError(
            "the shares of the kinds add up to less than 1, so nothing could stay",
            where="max_per_kind",
            fix="raise a share, or leave the main kind without one",
        )
    return allowed


def cover(
    vectors: "Vectors", quality: "NDArray[np.float64]", count: int, quality_weight: float = 0.5
) -> "NDArray[np.int64]":
    """Return the places of `count` rows that stand for all rows best, in the order of their worth.

    Facility location (Cornuéjols, Fisher and Nemhauser 1977) by lazy greedy choice (Minoux 1978): the sum over all rows
    of the cosine to the chosen row that serves it best, a row of quality q serving with the weight
    1 - quality_weight + quality_weight · q / greatest q. Up to 4096 rows that is the greedy choice itself, within
    1 - 1/e of the best. More rows are parted into cells of near rows, and a row serves its own cell alone, so that
    time and memory grow with the rows times 4096 and not with their square.

    Args:
        vectors: rows of length 1, or 0.
        quality: one number a row, at least 0.
        count: how many to choose.
        quality_weight: from 0, where only coverage counts, to 1, where a row without quality is never chosen first.
    """
    import numpy as np

    if count >= len(vectors):
        return np.arange(len(vectors))
    top = float(quality.max()) if len(quality) else 0.0
    worth = np.maximum(quality, 0) / top if top > 0 else np.ones(len(quality))
    weights = (1 - quality_weight + quality_weight * worth).astype(np.float32)
    heads: list[tuple[float, int, int, int]] = []
    gains: list[NDArray[np.float64]] = []
    members: list[NDArray[np.int64]] = []
    for cell in _cells(vectors):
        # A cell that is denser or better than others may give up to four times its share.
        most = min(len(cell), 16 + 4 * count * len(cell) // len(vectors), count)
        if len(cell) <= _CELL and len(cell) == len(vectors):
            most = count
        chosen, gained = _greedy(vectors[cell], weights[cell], most)
        members.append(cell[chosen])
        gains.append(gained)
        if len(chosen):
            heads.append((-float(gained[0]), int(cell[chosen[0]]), len(members) - 1, 0))
    heapq.heapify(heads)
    picked: list[int] = []
    while heads and len(picked) < count:
        _, row, number, place = heapq.heappop(heads)
        picked.append(row)
        if place + 1 < len(members[number]):
            gain, after = gains[number][place + 1], members[number][place + 1]
            heapq.heappush(heads, (-float(gain), int(after), number, place + 1))
    if len(picked) < count:
        taken = set(picked)
        picked += [row for row in range(len(vectors)) if row not in taken][: count - len(picked)]
    return np.array(picked, dtype=np.int64)


def _cells(vectors: "Vectors") -> "list[NDArray[np.int64]]":
    """Return the rows in cells of at most 4096, near rows together; each cell's rows in order."""
    import numpy as np

    done: list[NDArray[np.int64]] = []
    waiting = [np.arange(len(vectors))]
    while waiting:
        rows = waiting.pop()
        if len(rows) <= _CELL:
            done.append(rows)
            continue
        # Centres are rows of the cell, evenly over its order, each once.
        places = np.linspace(0, len(rows) - 1, max(2, 2 * len(rows) // _CELL)).astype(np.int64)
        centres = np.unique(vectors[rows[places]], axis=0)
        own = np.empty(len(rows), dtype=np.int64)
        for start in range(0, len(rows), _CELL):
            own[start : start + _CELL] = (vectors[rows[start : start + _CELL]] @ centres.T).argmax(axis=1)
        parts = [rows[own == number] for number in np.unique(own)]
        if max(map(len, parts)) > 0.9 * len(rows):
            # Nearly all alike: any cut is as good.
            parts = np.array_split(rows, -(-len(rows) // _CELL))
        waiting += parts[::-1]
    return done


def _greedy(
    vectors: "Vectors", weights: "NDArray[np.float32]", most: int
) -> "tuple[NDArray[np.int64], NDArray[np.float64]]":
    """Return the rows that a lazy greedy facility location chooses, in turn, and what each gained."""
    import numpy as np

    likeness = np.maximum(vectors @ vectors.T, 0)
    served = np.zeros(len(vectors), dtype=np.float32)
    gains = weights * likeness.sum(axis=1)
    heap = [(-float(gain), row) for row, gain in enumerate(gains)]
    heapq.heapify(heap)
    chosen: list[int] = []
    gained: list[float] = []
    while heap and len(chosen) < most:
        _, row = heapq.heappop(heap)
        serves = weights[row] * likeness[row]
        gain = float(np.maximum(serves - served, 0).sum())
        # A gain only shrinks as rows are chosen: what is still no worse than the next one's old gain is the best.
        if heap and (-gain, row) > heap[0]:
            heapq.heappush(heap, (-gain, row))
            continue
        chosen.append(row)
        gained.append(gain)
        np.maximum(served, serves, out=served)
    return np.array(chosen, dtype=np.int64), np.array(gained)


def find_surplus(
    records: Sequence[Record],
    quality: Callable[[Record], float],
    *,
    num_records: int | None,
    max_per_passage: int | None,
    seed: int,
) -> set[int]:
    """Return the indices of the records that are too many.

    The rest is spread: each document gives its best record of each passage in turn before any document
    gives another.
    """
    causes = select(Columns.of(records, quality), Bounds(num_records, max_per_passage), seed=seed)
    return {int(place) for place in causes.nonzero()[0]}


def validation_documents(counts: Mapping[str, int], share: float, seed: int) -> frozenset[str]:
    """Return documents that hold as near to `share` of all records as whole documents allow.

    With two documents or more and a share above 0 neither side is empty; with fewer none is chosen.
    Of equally near sums the smaller is taken, since those records are lost to training.

    Args:
        counts: the number of records of each document, all above 0.
        share: from 0 to 1.
        seed: which of the equally good choices is made.
    """
    if share <= 0 or len(counts) < 2:
        return frozenset()
    # Sums are counted in the documents' greatest common measure.
    unit = gcd(*counts.values())
    total = sum(counts.values()) // unit
    target = share * sum(counts.values()) / unit
    documents = sorted(counts, key=lambda name: shuffled_key(seed, name))
    # Sums worth reaching: past the target by more than one document is never the nearest.
    limit = min(total - 1, int(target) + max(counts.values()) // unit)
    nearest = min(range(max(1, int(target) - 1), min(limit, int(target) + 2) + 1), key=lambda s: (abs(s - target), s))
    # Bit s of `reached` stands for the sum s; `last` names the document that reached it first, so going
    # back from a sum meets each document once.
    reached, mask, last = 1, (1 << (limit + 1)) - 1, dict[int, str]()
    for name in documents:
        fresh = (reached << (counts[name] // unit)) & mask & ~reached
        reached |= fresh
        for sum_ in _bits(fresh):
            last[sum_] = name
        if nearest in last:
            break
    best = min(last, key=lambda s: (abs(s - target), s))
    chosen = set()
    while best:
        chosen.add(last[best])
        best -= counts[last[best]] // unit
    return frozenset(chosen)


def _bits(value: int) -> list[int]:
    """Return the places of the ones in `value`, which stand close together."""
    if not value:
        return []
    low = (value & -value).bit_length() - 1
    text, places = bin(value >> low)[:1:-1], []
    place = text.find("1")
    while place >= 0:
        places.append(low + place)
        place = text.find("1", place + 1)
    return places
