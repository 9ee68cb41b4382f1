"""Which rows train and which validate, how many of each source, and in what order.

Every choice follows from names and the seed alone, never from the order of the rows: a document or a row has a place
in a shuffled order of its own, and shares are cut from that order.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate

from synth.core.errors import ConfigError, RecordError, did_you_mean
from tune.rows import Row

# A split by hash alone is kept if its share of the rows is off by no more than this part of the share asked for.
_NEAR_ENOUGH = 0.25
_NAMED = 5


def place(seed: int, purpose: str, name: str) -> float:
    """Return where `name` stands in the shuffled order of a purpose: evenly spread from 0 to 1."""
    digest = hashlib.sha256(f"{seed}:{purpose}:{name}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def validating_documents(rows: Iterable[Row], share: float, seed: int) -> frozenset[str]:
    """Return the documents whose rows validate, near to `share` of all rows.

    A document's side depends on its id and the seed alone wherever that comes near to the share, so more documents
    move none of the old ones to the other side. With few documents, or large ones, the nearest sum that the same
    order offers is taken instead. With two documents or more and a share above 0 neither side is empty.
    """
    counts = Counter(row.document_id for row in rows)
    if share <= 0 or len(counts) < 2:
        return frozenset()
    places = {name: place(seed, "split", name) for name in counts}
    target = share * counts.total()
    chosen = {name for name in counts if places[name] < share}
    held = sum(counts[name] for name in chosen)
    if 0 < len(chosen) < len(counts) and abs(held - target) <= _NEAR_ENOUGH * min(target, counts.total() - target):
        return frozenset(chosen)
    order = sorted(counts, key=lambda name: (places[name], name))
    chosen, held = set(), 0
    for name in order:
        if abs(held + counts[name] - target) < abs(held - target):
            chosen.add(name)
            held += counts[name]
    if not chosen:
        chosen = {min(order, key=lambda name: counts[name])}
    elif len(chosen) == len(order):
        chosen.remove(min(order, key=lambda name: counts[name]))
    return frozenset(chosen)


def fold_documents(rows: Iterable[Row], folds: int, seed: int) -> tuple[frozenset[str], ...]:
    """Return the documents of each fold: every document is in one, and the folds have about as many rows.

    The largest documents are dealt first, each to the fold with the fewest rows so far.

    Raises:
        ConfigError: there are fewer documents than folds.
    """
    counts = Counter(row.document_id for row in rows)
    if len(counts) < folds:
        raise ConfigError(
            f"{folds} folds need as many documents, and the rows are about {len(counts)}",
            where="--folds",
            fix=f"ask for {len(counts)} folds or fewer" if len(counts) > 1 else "leave --folds out",
        )
    parts: list[set[str]] = [set() for _ in range(folds)]
    held = [0] * folds
    for name in sorted(counts, key=lambda name: (-counts[name], place(seed, "folds", name), name)):
        least = min(range(folds), key=lambda fold: (held[fold], fold))
        parts[least].add(name)
        held[least] += counts[name]
    return tuple(map(frozenset, parts))


def subset(rows: Sequence[Row], share: float, seed: int) -> tuple[Row, ...]:
    """Return the rows of so many whole documents that they are nearest to `share` of the rows; never none.

    A smaller share is always a part of a larger one.
    """
    counts = Counter(row.document_id for row in rows)
    order = sorted(counts, key=lambda name: (place(seed, "subset", name), name))
    sums = list(accumulate(counts[name] for name in order))
    target = share * len(rows)
    nearest = min(range(len(sums)), key=lambda k: (abs(sums[k] - target), k)) if sums else -1
    kept = frozenset(order[: nearest + 1])
    return tuple(row for row in rows if row.document_id in kept)


def draw(rows: Sequence[Row], number: int, seed: int, purpose: str) -> tuple[Row, ...]:
    """Return `number` of the rows, or all where there are fewer, in the order they have.

    Which ones depends on ids and the seed, not on that order; fewer are always a part of more.
    """
    if number >= len(rows):
        return tuple(rows)
    order = sorted(range(len(rows)), key=lambda k: (place(seed, purpose, rows[k].id), rows[k].id))
    kept = frozenset(order[:number])
    return tuple(row for k, row in enumerate(rows) if k in kept)


def shares_of_rows(available: Sequence[int], weights: Sequence[float]) -> tuple[int, ...]:
    """Return how many rows of each source make the mix: as many as the source that runs out first allows.

    Args:
        available: the rows of each source, all above 0.
        weights: their wanted shares, all above 0, in any unit.
    """
    whole = sum(weights)
    total = min(rows * whole / weight for rows, weight in zip(available, weights, strict=True))
    return tuple(
        max(1, min(rows, round(total * weight / whole))) for rows, weight in zip(available, weights, strict=True)
    )


def replayed_rows(rows: int, share: float) -> int:
    """Return how many rows to add to `rows` for them to be `share` of all; at least one."""
    return max(1, round(rows * share / (1 - share)))


def ordered_by(rows: Sequence[Row], curriculum: str, seed: int) -> tuple[Row, ...]:
    """Return the rows by a score, lowest first, or highest first where the name has a minus before it.

    Raises:
        RecordError: some rows do not have that score; the error names them and the scores that there are.
    """
    name, sign = (curriculum[1:], -1) if curriculum.startswith("-") else (curriculum, 1)
    lacking = [row.id for row in rows if row.scores.get(name) is None]
    if lacking:
        # Only what all rows have would do in its place.
        known = Counter(k for row in rows for k, v in row.scores.items() if v is not None)
        whole = sorted(k for k, n in known.items() if n == len(rows))
        some = f", {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
        if known.get(name):
            fix = f"take a score that all rows have: {', '.join(whole) or 'there is none'}"
        else:
            fix = did_you_mean(name, known) + "; `synth filter --scores all` gives every score"
        raise RecordError(
            f"{len(lacking)} of {len(rows)} rows have no score {name!r}: {', '.join(lacking[:_NAMED])}{some}",
            where="--curriculum",
            fix=fix,
        )
    return tuple(sorted(rows, key=lambda row: (sign * (row.scores[name] or 0.0), place(seed, "curriculum", row.id))))


def spread_into(rows: Sequence[Row], more: Sequence[Row]) -> tuple[Row, ...]:
    """Return `rows` in their order with `more` spread evenly among them."""
    keyed = [((k + 0.5) / len(rows), 0, row) for k, row in enumerate(rows)]
    keyed += [((k + 0.5) / len(more), 1, row) for k, row in enumerate(more)]
    return tuple(row for *_, row in sorted(keyed, key=lambda entry: entry[:2]))
