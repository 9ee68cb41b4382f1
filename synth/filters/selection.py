"""Which accepted records are left when a number was asked for, and which documents validate.

Both choices hang on the seed and the records alone, never on their order.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from synth.core.records import Record


def shuffled_key(seed: int, name: str) -> str:
    """Return a key that sorts names in an order which depends on the seed."""
    return hashlib.sha256(f"{seed}\0{name}".encode()).hexdigest()


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
    order = sorted(range(len(records)), key=lambda i: (-quality(records[i]), records[i].id))
    in_passage: Counter[tuple[str, str]] = Counter()
    by_document: dict[str, list[tuple[int, int]]] = defaultdict(list)
    surplus: set[int] = set()
    for place, i in enumerate(order):
        passage = (records[i].document_id, records[i].passage_id)
        if max_per_passage is not None and in_passage[passage] >= max_per_passage:
            surplus.add(i)
            continue
        by_document[records[i].document_id].append((in_passage[passage], place))
        in_passage[passage] += 1
    if num_records is None:
        return surplus
    turns = [
        (turn, shuffled_key(seed, document), order[place])
        for document, places in by_document.items()
        for turn, (_, place) in enumerate(sorted(places))
    ]
    return surplus | {i for _, _, i in sorted(turns)[num_records:]}


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
    total = sum(counts.values())
    target = share * total
    documents = sorted(counts, key=lambda name: shuffled_key(seed, name))
    # Sums worth reaching: past the target by more than one document is never the nearest.
    limit = min(total - 1, int(target) + max(counts.values()))
    # Bit s of `reached` stands for the sum s; `last` names the document that reached it first, so going
    # back from a sum meets each document once.
    reached, mask, last = 1, (1 << (limit + 1)) - 1, dict[int, str]()
    for name in documents:
        fresh = (reached << counts[name]) & mask & ~reached
        reached |= fresh
        for sum_ in _bits(fresh):
            last[sum_] = name
        if target in last:
            break
    best = min(last, key=lambda s: (abs(s - target), s))
    chosen = set()
    while best:
        chosen.add(last[best])
        best -= counts[last[best]]
    return frozenset(chosen)


def _bits(value: int) -> list[int]:
    """Return the places of the ones in `value`."""
    text, places = bin(value)[:1:-1], []
    place = text.find("1")
    while place >= 0:
        places.append(place)
        place = text.find("1", place + 1)
    return places
