"""Duplicates: exact, near, and one question with two answers. Of twins the better scored stays.

Records are taken best first, so the result depends on no input order: a record goes if one before it stays and is
its twin. Near duplicates are found by MinHash with banded LSH over words and word pairs (see `sketch`), then checked
by true Jaccard similarity. In templated text thousands of records share a bucket; there only the first few of it are
compared with all the others, and the rest is found by the rarest words and word pairs of each record, of which two
near duplicates have to share one (Chaudhuri and others 2006, Bayardo and others 2007). So no corpus turns quadratic.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from synth.core.records import Record
from synth.filters.sketch import (
    PERMUTATIONS,
    U32,
    U64,
    DedupSettings,
    Ints,
    SketchTable,
    mixed,
    sketch,
    spread,
    starts_of,
)

# How many of a bucket, best first, are compared with all that follow them.
_LEADERS = 4
# How often a record is compared in crowded buckets, before its rare words decide.
_CROWD_LIMIT = 16
# After so many rounds no more near duplicates are looked for; two or three are common.
_MOST_ROUNDS = 8
_WAYS = ("exact", "question", "near")
Mask: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Twin:
    """Why a record goes: how it resembles which record that stays ("exact", "near" or "question")."""

    how: str
    id: str

    def __str__(self) -> str:
        return f"{self.how} of {self.id}"


@dataclass(frozen=True, slots=True)
class Pairs:
    """Rows that are twins, as something found them: `one[k]` and `other[k]`, in any order, each pair but once."""

    how: str
    one: Ints
    other: Ints


@dataclass(frozen=True, slots=True)
class Twins:
    """What goes: row `rows[k]` is the twin, in the way `ways[how[k]]`, of row `stays[k]`, which stays.

    `rows` ascend. `compared` counts the pairs that were looked at.
    """

    rows: Ints
    stays: Ints
    how: NDArray[np.uint8]
    ways: tuple[str, ...] = _WAYS
    compared: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[int, int, str]]:
        """Yield the row that goes, the row that stays, and how they are twins."""
        for row, stays, how in zip(self.rows.tolist(), self.stays.tolist(), self.how.tolist(), strict=True):
            yield row, stays, self.ways[how]


def find_duplicates(
    records: Sequence[Record],
    quality: Callable[[Record], float],
    threshold: float = 0.7,
    *,
    on: Literal["both", "question", "answer"] = "both",
) -> dict[int, Twin]:
    """Return the twin that stays for the index of each record that goes.

    For records in memory; a stream is sketched in parts and given to `find_twins`.

    Args:
        records: the records that are good enough to keep, in any order.
        quality: higher is better; of equal ones the lower id stays.
        threshold: the Jaccard similarity from which two pairs are near duplicates; above 1 none is.
        on: the text that is compared.
    """
    settings = DedupSettings(threshold=threshold, on=on)
    order = sorted(range(len(records)), key=lambda i: (-quality(records[i]), *_identity(records[i])))
    twins = find_twins(SketchTable([sketch(records, settings)]), np.array(order, np.int64), settings)
    return {row: Twin(how, records[stays].id) for row, stays, how in twins}


def _identity(record: Record) -> tuple[str, ...]:
    """What tells two records of one id apart (one call may give a pair twice, with other evidence)."""
    return (record.id, record.evidence.text if record.evidence else "", record.context)


def find_twins(table: SketchTable, order: Ints, settings: DedupSettings, more: Sequence[Pairs] = ()) -> Twins:
    """Return the rows of `order` that go, each with a twin that stays.

    Args:
        table: the sketches, made with the same settings.
        order: the rows to look at, each once, best first; other rows count for nothing.
        settings: what makes twins.
        more: twins that were found in another way, by embeddings for example; they take part in who stays.
    """
    search = _Search(table, order, settings)
    search.edges += [_edges(order, len(table), pairs, len(_WAYS) + k) for k, pairs in enumerate(more)]
    stays, how = search.run()
    return _as_twins(order, stays, how, (*_WAYS, *(pairs.how for pairs in more)), search.compared)


def resolve(order: Ints, pairs: Sequence[Pairs]) -> Twins:
    """Return the rows that go, when of each pair of twins the one that comes first in `order` stays.

    A row goes if and only if it has a twin before it that stays; the first kind of pairs names it, then the best row.
    Pairs with a row that is not in `order` count for nothing.
    """
    rows = max((int(column.max(initial=-1)) for p in pairs for column in (p.one, p.other)), default=-1)
    rows = max(rows, int(order.max(initial=-1))) + 1
    edges = [_edges(order, rows, some, way) for way, some in enumerate(pairs)]
    stays, how = _best_stay(len(order), edges)
    return _as_twins(order, stays, how, tuple(some.how for some in pairs), sum(len(some.one) for some in pairs))


@dataclass(frozen=True, slots=True)
class _Edges:
    """Twins by their places in the order: better < worse."""

    better: Ints
    worse: Ints
    way: int


def _edges(order: Ints, rows: int, pairs: Pairs, way: int) -> _Edges:
    place = np.full(rows, -1, np.int64)
    place[order] = np.arange(len(order))
    one, other = place[pairs.one], place[pairs.other]
    known = (one >= 0) & (other >= 0) & (one != other)
    one, other = one[known], other[known]
    return _Edges(np.minimum(one, other), np.maximum(one, other), way)


def _best_stay(count: int, edges: Sequence[_Edges]) -> tuple[Ints, NDArray[np.uint8]]:
    """Return for each place the place of its twin that stays (-1 where it stays itself), and the way of the two."""
    stays, ways = np.full(count, -1, np.int64), np.zeros(count, np.uint8)
    if not edges:
        return stays, ways
    better = np.concatenate([some.better for some in edges])
    worse = np.concatenate([some.worse for some in edges])
    way = np.concatenate([np.full(len(some.better), some.way, np.uint8) for some in edges])
    sequence = np.lexsort((better, way, worse))
    gone = bytearray(count)
    used = bytearray(len(sequence))
    # When a place comes up all better ones are decided.
    for k, (first, second) in enumerate(zip(better[sequence].tolist(), worse[sequence].tolist(), strict=True)):
        if not gone[first] and not gone[second]:
            gone[second] = used[k] = 1
    taken = sequence[np.frombuffer(used, np.uint8) != 0]
    stays[worse[taken]] = better[taken]
    ways[worse[taken]] = way[taken]
    return stays, ways


def _as_twins(order: Ints, stays: Ints, how: NDArray[np.uint8], ways: tuple[str, ...], compared: int) -> Twins:
    places = np.flatnonzero(stays >= 0)
    rows, kept = order[places], order[stays[places]]
    sequence = np.argsort(rows)
    return Twins(rows[sequence], kept[sequence], how[places][sequence], ways, compared)


class _Search:
    """Finds twins among the places of an order until no more are found.

    A record that has found a better twin is set aside at once. Should that twin go itself, and nothing else hold
    the record back, then it is looked at again in the next round, among those that stay.
    """

    def __init__(self, table: SketchTable, order: Ints, settings: DedupSettings) -> None:
        self.compared = 0
        self.edges: list[_Edges] = []
        self._table, self._rows, self._settings = table, order, settings
        self._aside = np.zeros(len(order), np.bool_)
        self._crowded = np.zeros(len(order), np.bool_)
        self._looked = np.zeros(len(order), np.int32)
        # The records that a later round is about; None is all.
        self._again: Mask | None = None

    def run(self) -> tuple[Ints, NDArray[np.uint8]]:
        """Return what `_best_stay` makes of all twins found."""
        standing = np.arange(len(self._rows))
        rounds = 0
        while True:
            rounds += 1
            self._equal(standing, "whole", 0)
            if self._settings.on == "both":
                self._equal(standing, "question", 1)
            if self._settings.threshold <= 1 and rounds <= _MOST_ROUNDS:
                self._near(standing)
            stays, ways = _best_stay(len(self._rows), self.edges)
            again = self._aside & (stays < 0)
            if not again.any():
                return stays, ways
            self._aside, self._again = stays >= 0, again
            self._looked[again] = 0
            standing = np.flatnonzero(stays < 0)

    def _equal(self, standing: Ints, name: Literal["whole", "question"], way: int) -> None:
        places = standing[~self._aside[standing]]
        keys = self._table.column(name)[self._rows[places]]
        # Stable: of equal keys the better place is first.
        places, keys = places[sequence := np.lexsort((keys[:, 1], keys[:, 0]))], keys[sequence]
        starts = np.ones(len(places), np.bool_)
        starts[1:] = (keys[1:] != keys[:-1]).any(axis=1)
        first = places[starts][np.cumsum(starts) - 1]
        self.compared += int((~starts).sum())
        self._found(first[~starts], places[~starts], way)

    def _found(self, better: Ints, worse: Ints, way: int) -> None:
        if len(better):
            self.edges.append(_Edges(better, worse, way))
            self._aside[worse] = True

    def _near(self, standing: Ints) -> None:
        some = self._table.column("shingle_counts")[self._rows[standing]] > 0
        standing = standing[some]
        facts = self._table.column("facts")
        width = rows_a_band(self._settings.threshold)
        for start in range(0, PERMUTATIONS - width + 1, width):
            places = standing[~self._aside[standing]]
            rows = self._rows[places]
            keys = facts[rows] if self._settings.facts else np.zeros(len(rows), np.uint64)
            for minima in self._table.column("digests")[:, start : start + width][rows].T:
                keys = (keys ^ minima) * np.uint64(0x9E3779B97F4A7C15)
                keys ^= keys >> np.uint64(29)
            self._compare(*self._buckets(mixed(keys), places), crowd=True)
        crowded = standing[self._crowded[standing] & ~self._aside[standing]]
        for keys, places in self._rarest(crowded):
            self._compare(*self._buckets(keys, places), crowd=False)

    def _buckets(self, keys: U64, places: Ints) -> tuple[Ints, Ints]:
        """Return the places of all buckets with more than one, best first in each, and the bucket of each place."""
        bits = np.uint64(max(1, int(len(self._rows) - 1).bit_length()))
        packed = (keys << bits) | places.astype(np.uint64)
        packed.sort()
        high = packed >> bits
        joined = high[1:] == high[:-1]
        shared = np.zeros(len(packed), np.bool_)
        shared[1:] = joined
        shared[:-1] |= joined
        high, packed = high[shared], packed[shared]
        bucket = np.zeros(len(high), np.int64)
        np.cumsum(high[1:] != high[:-1], out=bucket[1:])
        return (packed & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64), bucket

    def _compare(self, members: Ints, bucket: Ints, *, crowd: bool) -> None:
        """Compare the leaders of each bucket with all that follow them in it."""
        for turn in range(_LEADERS):
            left = ~self._aside[members]
            members, bucket = members[left], bucket[left]
            starts = np.flatnonzero(np.diff(bucket, prepend=-1))
            sizes = np.diff(starts, append=len(bucket))
            large = sizes > turn + 1
            kept = np.repeat(large, sizes)
            members, bucket = members[kept], bucket[kept]
            starts, sizes = starts_of(sizes[large]), sizes[large]
            if not len(members):
                return
            many = np.repeat(sizes > _LEADERS + 1, sizes)
            turns = np.arange(len(members)) - np.repeat(starts, sizes)
            follow = turns > turn
            if crowd:
                follow &= ~many | (self._looked[members] < _CROWD_LIMIT)
                self._crowded[members[many]] = True
            better = np.repeat(members[starts + turn], sizes)[follow]
            worse = members[follow]
            if self._again is not None:
                touched = self._again[better] | self._again[worse]
                better, worse = better[touched], worse[touched]
            if crowd:
                self._looked += np.bincount(worse, minlength=len(self._looked)).astype(np.int32)
            same = self._same(better, worse)
            self._found(better[same], worse[same], 2)

    def _same(self, better: Ints, worse: Ints) -> Mask:
        """Whether the two of each pair say the same in nearly the same words."""
        self.compared += len(better)
        result = np.zeros(len(better), np.bool_)
        for start in range(0, len(better), 1 << 15):
            chunk = slice(start, start + (1 << 15))
            result[chunk] = self._resemble(self._rows[better[chunk]], self._rows[worse[chunk]])
        return result

    def _resemble(self, one: Ints, other: Ints) -> Mask:
        """Whether the rows are near duplicates: never where facts or, about two passages, the subjects differ.

        About two passages "the kettle" for "the toaster" is another subject: each question has a content word that
        the other lacks. The cheap questions come first.
        """
        threshold, table = self._settings.threshold, self._table
        counts, digests = table.column("shingle_counts"), table.column("digests")
        left = np.arange(len(one))

        def narrow(passes: Mask) -> None:
            nonlocal one, other, left
            one, other, left = one[passes], other[passes], left[passes]

        small, large = np.minimum(counts[one], counts[other]), np.maximum(counts[one], counts[other])
        narrow(small >= threshold * large - 1e-9)
        if self._settings.facts:
            facts = table.column("facts")
            narrow(facts[one] == facts[other])
        agree = np.count_nonzero(digests[one] == digests[other], axis=1)
        narrow(agree >= least_agreement(threshold))
        if self._settings.facts:
            passage = table.column("passage")
            elsewhere = np.flatnonzero(passage[one] != passage[other])
            content = table.sets("content")
            common = in_common(content, one[elsewhere], other[elsewhere])
            fewest = np.minimum(content[2][one[elsewhere]], content[2][other[elsewhere]])
            subject = np.ones(len(one), np.bool_)
            subject[elsewhere] = common == fewest
            narrow(subject)
        common = in_common(table.sets("shingles"), one, other)
        union = counts[one].astype(np.int64) + counts[other] - common
        result = np.zeros(len(small), np.bool_)
        result[left[common >= threshold * union - 1e-9]] = True
        return result

    def _rarest(self, places: Ints) -> Iterator[tuple[U64, Ints]]:
        """Yield keys and places of the rarest shingles of the records: two near duplicates share one of them.

        Where all shingles stand in one order, of two sets as similar as the threshold t the first
        n - ceil(t * n) + 1 of each have one in common. The order is by how often a shingle occurs, rarest first.
        """
        flat, starts, counts = self._table.sets("shingles")
        facts = self._table.column("facts")
        parts = np.array_split(places, max(1, len(places) >> 15))
        often = np.zeros(1 << 22, np.int64)
        for part in parts:
            rows = self._rows[part]
            often += np.bincount(flat[spread(starts[rows], counts[rows])] >> 10, minlength=1 << 22)
        keys, owners = [], []
        for part in parts:
            rows = self._rows[part]
            size = counts[rows].astype(np.int64)
            values = flat[spread(starts[rows], size)]
            rank = np.minimum(often[values >> 10], 0xFFFF).astype(np.uint64) << np.uint64(32)
            owner = np.repeat(np.arange(len(part)), size)
            packed = (owner.astype(np.uint64) << np.uint64(48)) | rank | values
            packed.sort()
            first = size - np.ceil(self._settings.threshold * size - 1e-9).astype(np.int64) + 1
            turn = np.arange(len(packed)) - np.repeat(starts_of(size), size)
            # What occurs once joins nobody.
            chosen = (turn < np.repeat(first, size)) & ((packed >> np.uint64(32)) & np.uint64(0xFFFF) > 1)
            packed, owner = packed[chosen], owner[chosen]
            key = mixed(packed & np.uint64(0xFFFFFFFF))
            if self._settings.facts:
                key = mixed(key ^ facts[rows[owner]])
            keys.append(key)
            owners.append(part[owner])
        if not keys:
            return
        key, place = np.concatenate(keys), np.concatenate(owners)
        slices = 1 + (len(key) >> 22)
        for k in range(slices):
            mine = key % np.uint64(slices) == k
            yield key[mine] // np.uint64(slices), place[mine]


def rows_a_band(threshold: float) -> int:
    """Return the rows a band: the most with which a pair at the threshold is found 995 times in 1,000."""
    for rows in range(16, 1, -1):
        if 1 - (1 - threshold**rows) ** (PERMUTATIONS // rows) >= 0.995:
            return rows
    return 1


def least_agreement(threshold: float) -> float:
    """Return the number of equal minima that a pair at the threshold falls short of once in 30,000 times."""
    return PERMUTATIONS * threshold - 4 * float(np.sqrt(PERMUTATIONS * max(0.0, threshold * (1 - threshold))))


def in_common(sets: tuple[U32, Ints, U32], one: Ints, other: Ints) -> Ints:
    """Return how many values the two sets of each pair of rows have in common."""
    flat, starts, counts = sets
    result = np.zeros(len(one), np.int64)
    for begin in range(0, len(one), 2048):
        rows = np.concatenate([one[begin : begin + 2048], other[begin : begin + 2048]])
        size = counts[rows].astype(np.int64)
        pair = np.arange(len(rows)) % (len(rows) // 2)
        keys = (np.repeat(pair, size).astype(np.uint64) << np.uint64(32)) | flat[spread(starts[rows], size)]
        keys.sort()
        twice = keys[1:][keys[1:] == keys[:-1]] >> np.uint64(32)
        result[begin : begin + 2048] = np.bincount(twice.astype(np.int64), minlength=len(rows) // 2)
    return result
