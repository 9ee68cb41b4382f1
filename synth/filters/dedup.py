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
# The length of the first stretch, and how many times as long as all before it the next one reaches.
_FIRST_STRETCH = 256
_GROWTH = 4
# How often near duplicates are looked for in a stretch; three times is common.
_MOST_TURNS = 64
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
    known = [_edges(order, len(table), pairs, len(_WAYS) + k) for k, pairs in enumerate(more)]
    search = _Search(table, order, settings, known)
    search.run()
    return _as_twins(order, search.stays, search.ways, (*_WAYS, *(pairs.how for pairs in more)), search.compared)


def resolve(order: Ints, pairs: Sequence[Pairs]) -> Twins:
    """Return the rows that go, when of each pair of twins the one that comes first in `order` stays.

    A row goes if and only if it has a twin before it that stays; the first kind of pairs names it, then the best row.
    Pairs with a row that is not in `order` count for nothing.
    """
    rows = max((int(column.max(initial=-1)) for p in pairs for column in (p.one, p.other)), default=-1)
    rows = max(rows, int(order.max(initial=-1))) + 1
    edges = [_edges(order, rows, some, way) for way, some in enumerate(pairs)]
    stays, how = np.full(len(order), -1, np.int64), np.zeros(len(order), np.uint8)
    _best_stay(stays, how, edges)
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


def _best_stay(stays: Ints, ways: NDArray[np.uint8], edges: Sequence[_Edges], first: int = 0) -> None:
    """Write down for each place from `first` on the place of its twin that stays (-1: it stays itself), and the way.

    What is before `first` has been decided; all edges have their worse place at `first` or behind it.
    """
    stays[first:] = -1
    if not edges:
        return
    better = np.concatenate([some.better for some in edges])
    worse = np.concatenate([some.worse for some in edges])
    way = np.concatenate([np.full(len(some.better), some.way, np.uint8) for some in edges])
    sequence = np.lexsort((better, way, worse))
    gone = bytearray((stays >= 0).tobytes())
    used = bytearray(len(sequence))
    # When a place comes up all better ones are decided.
    for k, (one, other) in enumerate(zip(better[sequence].tolist(), worse[sequence].tolist(), strict=True)):
        if not gone[one] and not gone[other]:
            gone[other] = used[k] = 1
    taken = sequence[np.frombuffer(used, np.uint8) != 0]
    stays[worse[taken]] = better[taken]
    ways[worse[taken]] = way[taken]


def _as_twins(order: Ints, stays: Ints, how: NDArray[np.uint8], ways: tuple[str, ...], compared: int) -> Twins:
    places = np.flatnonzero(stays >= 0)
    rows, kept = order[places], order[stays[places]]
    sequence = np.argsort(rows)
    return Twins(rows[sequence], kept[sequence], how[places][sequence], ways, compared)


class _Search:
    """Finds twins among the places of an order, stretch by stretch, each a few times as long as all before it.

    What stays of the stretches before is known and can lead its buckets. In a stretch a record that has found a better
    twin is set aside at once; should that twin go itself, and nothing else hold the record back, then it is looked at
    again, among those that stay.
    """

    def __init__(self, table: SketchTable, order: Ints, settings: DedupSettings, known: Sequence[_Edges]) -> None:
        self.compared = 0
        self.stays, self.ways = np.full(len(order), -1, np.int64), np.zeros(len(order), np.uint8)
        self._table, self._rows, self._settings, self._known = table, order, settings, known
        self._edges: list[_Edges] = []
        self._aside, self._crowded, self._now = (np.zeros(len(order), np.bool_) for _ in range(3))
        self._looked = np.zeros(len(order), np.int32)
        self._bands = list(self._band_keys()) if settings.threshold <= 1 else []
        self._subjects = _bits(table.sets("content")) if settings.facts else np.zeros(0, np.uint64)

    def _band_keys(self) -> Iterator[U32]:
        """Yield for each band a key for each place: equal minima in the band, and equal facts, give an equal key."""
        width = rows_a_band(self._settings.threshold)
        facts = self._table.column("facts")[self._rows] if self._settings.facts else np.zeros(1, np.uint64)
        for start in range(0, PERMUTATIONS - width + 1, width):
            keys = facts
            for minima in self._table.column("digests")[:, start : start + width][self._rows].T:
                keys = (keys ^ minima) * np.uint64(0x9E3779B97F4A7C15)
                keys ^= keys >> np.uint64(29)
            yield (keys >> np.uint64(32)).astype(np.uint32)

    def run(self) -> None:
        """Decide on all places."""
        start, end = 0, _FIRST_STRETCH
        while start < len(self._rows):
            self._decide(start, min(end, len(self._rows)))
            start, end = end, end * _GROWTH

    def _decide(self, start: int, end: int) -> None:
        """Decide on the places of a stretch; those before it have been decided."""
        self._edges = [
            _Edges(e.better[mine], e.worse[mine], e.way)
            for e in self._known
            for mine in [(e.worse >= start) & (e.worse < end)]
        ]
        self._now[start:end] = True
        for turn in range(len(self._rows)):
            standing = np.flatnonzero(self.stays[:end] < 0)
            self._equal(standing, "whole", 0)
            if self._settings.on == "both":
                self._equal(standing, "question", 1)
            if self._settings.threshold <= 1 and turn < _MOST_TURNS:
                self._near(standing)
            _best_stay(self.stays, self.ways, self._edges, start)
            self._now[start:end] = self._aside[start:end] & (self.stays[start:end] < 0)
            self._aside[start:end] = self.stays[start:end] >= 0
            if not self._now[start:end].any():
                return
            self._looked[self._now] = 0

    def _equal(self, standing: Ints, name: Literal["whole", "question"], way: int) -> None:
        places = standing[~self._aside[standing]]
        keys = self._table.column(name)[self._rows[places]]
        # Stable: of equal keys the better place is first.
        places, keys = places[sequence := np.lexsort((keys[:, 1], keys[:, 0]))], keys[sequence]
        starts = np.ones(len(places), np.bool_)
        starts[1:] = (keys[1:] != keys[:-1]).any(axis=1)
        first = places[starts][np.cumsum(starts) - 1]
        follow = ~starts & (self._now[places] | self._now[first])
        self.compared += int(follow.sum())
        self._found(first[follow], places[follow], way)

    def _found(self, better: Ints, worse: Ints, way: int) -> None:
        if len(better):
            self._edges.append(_Edges(better, worse, way))
            self._aside[worse] = True

    def _near(self, standing: Ints) -> None:
        some = self._table.column("shingle_counts")[self._rows[standing]] > 0
        standing = standing[some]
        # First with those that stay for certain, then among themselves.
        if not self._now[standing].all():
            for keys in self._bands:
                places = standing[~self._aside[standing]]
                self._compare(*self._buckets(keys[places], places), crowd=True, settled=True)
        for keys in self._bands:
            places = standing[self._now[standing] & ~self._aside[standing]]
            self._compare(*self._buckets(keys[places], places), crowd=True)
        crowded = standing[self._crowded[standing] & ~self._aside[standing]]
        if not self._now[crowded].any():
            return
        for keys, places in self._rarest(crowded):
            self._compare(*self._buckets(keys, places))

    def _buckets(self, keys: U32, places: Ints) -> tuple[Ints, Ints]:
        """Return the places of all buckets that have more than one, and the bucket of each place.

        In a bucket those that stay for certain come first, then the better ones. Where only a few places are undecided,
        buckets with none of them may be missing.
        """
        now = self._now[places]
        if 4 * int(now.sum()) < len(places):
            sought = np.zeros(1 << 20, np.bool_)
            sought[keys[now] >> np.uint32(12)] = True
            some = sought[keys >> np.uint32(12)]
            keys, places = keys[some], places[some]
        bits = np.uint64(32)
        packed = (keys.astype(np.uint64) << bits) | places.astype(np.uint64)
        packed |= self._now[places].astype(np.uint64) << np.uint64(31)
        packed.sort()
        high = packed >> bits
        joined = high[1:] == high[:-1]
        shared = np.zeros(len(packed), np.bool_)
        shared[1:] = joined
        shared[:-1] |= joined
        high, packed = high[shared], packed[shared]
        bucket = np.zeros(len(high), np.int64)
        np.cumsum(high[1:] != high[:-1], out=bucket[1:])
        return (packed & np.uint64(0x7FFFFFFF)).astype(np.int64), bucket

    def _compare(self, members: Ints, bucket: Ints, *, crowd: bool = False, settled: bool = False) -> None:
        """Compare the first few of each bucket with all that follow them in it.

        With `settled` only those lead that stay for certain. With `crowd` a record is compared but so often in large
        buckets, and is marked as one for `_rarest`.
        """
        for turn in range(_LEADERS):
            left = ~self._aside[members]
            members, bucket = members[left], bucket[left]
            starts = np.flatnonzero(np.diff(bucket, prepend=-1))
            sizes = np.diff(starts, append=len(bucket))
            leaders = members[starts]
            lead = sizes > 1
            if settled:
                lead &= ~self._now[leaders]
            lead_here = np.repeat(lead, sizes)
            if not lead_here.any():
                return
            members, bucket, leaders, sizes = members[lead_here], bucket[lead_here], leaders[lead], sizes[lead]
            follow = np.ones(len(members), np.bool_)
            follow[starts_of(sizes)] = False
            members, bucket, sizes = members[follow], bucket[follow], sizes - 1
            leader, other = np.repeat(leaders, sizes), members
            asked = self._now[leader] | self._now[other]
            if crowd:
                many = np.repeat(sizes > _LEADERS - turn, sizes)
                self._crowded[other[many]] = self._crowded[leader[many]] = True
                asked &= ~many | (self._looked[other] < _CROWD_LIMIT)
            leader, other = leader[asked], other[asked]
            if crowd:
                np.add.at(self._looked, other, 1)
            else:
                # Rare words come together, and so do those who share them.
                pairs = np.unique((leader << 32) | other)
                leader, other = pairs >> 32, pairs & 0xFFFFFFFF
            same = self._same(leader, other)
            leader, other = leader[same], other[same]
            self._found(np.minimum(leader, other), np.maximum(leader, other), 2)

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
            facts, passage = table.column("facts"), table.column("passage")
            narrow(facts[one] == facts[other])
            # No set is a part of another unless its bits are.
            bits, more = self._subjects[one], self._subjects[other]
            narrow((passage[one] == passage[other]) | ((bits & ~more) == 0) | ((more & ~bits) == 0))
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

    def _rarest(self, places: Ints) -> Iterator[tuple[U32, Ints]]:
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
            keys.append((key >> np.uint64(32)).astype(np.uint32))
            owners.append(part[owner])
        if not keys:
            return
        key, place = np.concatenate(keys), np.concatenate(owners)
        slices = 1 + (len(key) >> 22)
        for k in range(slices):
            mine = key % np.uint32(slices) == k
            yield key[mine], place[mine]


def _bits(sets: tuple[U32, Ints, U32]) -> U64:
    """Return 64 bits for each set; those of a subset are a subset."""
    flat, starts, counts = sets
    bits, some = np.zeros(len(counts), np.uint64), counts > 0
    if some.any():
        bits[some] = np.bitwise_or.reduceat(np.uint64(1) << (flat & np.uint32(63)).astype(np.uint64), starts[some])
    return bits


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
