"""Duplicates: exact, near, and one question with two answers. Of twins the better scored stays.

Records are taken in one order (better first, then by id), so the result depends on no input order. Near
duplicates are found by MinHash (Broder 1997) with banded LSH over words and word pairs of question and
answer, then checked by true Jaccard similarity. A bucket is looked through only so far, which keeps
templated text, where thousands of records share their buckets, from turning quadratic.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from rensa import RMinHash

from synth.core.records import Record
from synth.filters.words import STOPWORDS, names, numbers, read, without_articles, word_set

_PERMUTATIONS = 64
# How many kept records of one bucket, and of all buckets of a record, are compared with it.
_BUCKET_LIMIT = 16
_CANDIDATE_LIMIT = 128
_NEGATIVE = word_set("no not never none cannot without")


@dataclass(frozen=True, slots=True)
class Twin:
    """Why a record goes: how it resembles which record that stays ("exact", "near" or "question")."""

    how: str
    id: str

    def __str__(self) -> str:
        return f"{self.how} of {self.id}"


def find_duplicates(
    records: Sequence[Record], quality: Callable[[Record], float], threshold: float = 0.7
) -> dict[int, Twin]:
    """Return the twin that stays for the index of each record that goes.

    Args:
        records: the records that are good enough to keep, in any order.
        quality: higher is better; of equal ones the lower id stays.
        threshold: the Jaccard similarity from which two pairs are near duplicates; above 1 none is.
    """
    order = sorted(range(len(records)), key=lambda i: (-quality(records[i]), *_identity(records[i])))
    gone: dict[int, Twin] = {}
    left = _first_of_each(order, records, _pair_key, "exact", gone)
    left = _first_of_each(left, records, _question_key, "question", gone)
    if threshold <= 1:
        _near(left, records, threshold, gone)
    return gone


def _identity(record: Record) -> tuple[str, ...]:
    """What tells two records of one id apart (one call may give a pair twice, with other evidence)."""
    return (record.id, record.evidence.text if record.evidence else "", record.context)


def _first_of_each(
    order: Sequence[int],
    records: Sequence[Record],
    key: Callable[[Record], Hashable],
    how: str,
    gone: dict[int, Twin],
) -> list[int]:
    first: dict[Hashable, int] = {}
    for i in order:
        known = first.setdefault(key(records[i]), i)
        if known != i:
            gone[i] = Twin(how, records[known].id)
    return [i for i in order if i not in gone]


def _asked(record: Record) -> str:
    """Return all that the model is shown before it answers, apart from a system prompt."""
    return "\n".join(m.content for m in record.prompt if m.role != "system")


def _pair_key(record: Record) -> Hashable:
    return (without_articles(read(_asked(record)).words), without_articles(read(record.answer).words))


def _question_key(record: Record) -> Hashable:
    return (record.passage_id, without_articles(read(_asked(record)).words))


@dataclass(frozen=True, slots=True)
class _Sketch:
    """What two records are compared by."""

    shingles: frozenset[str]
    facts: Hashable
    content: frozenset[str]
    passage_id: str

    @classmethod
    def of(cls, record: Record) -> "_Sketch":
        asked, answer = read(_asked(record)), read(record.answer)
        words = without_articles(asked.words) + without_articles(answer.words)
        pairs = (f"{a} {b}" for a, b in zip(words, words[1:], strict=False))
        texts = (_asked(record), record.answer)
        negative = any(w in _NEGATIVE or w.endswith("n't") for w in words)
        return cls(
            shingles=frozenset((*words, *pairs)),
            facts=(
                frozenset[str]().union(*map(numbers, texts)),
                frozenset[str]().union(*map(names, texts)),
                negative,
            ),
            content=frozenset(s for s, w in zip(asked.stems, asked.words, strict=True) if w not in STOPWORDS),
            passage_id=record.passage_id,
        )

    def resembles(self, other: "_Sketch", threshold: float) -> bool:
        """Whether the two say the same in nearly the same words.

        Never where numbers, names or a negation differ; and about two passages only where one question
        has no content word of its own, since "the kettle" for "the toaster" is another subject there.
        """
        if self.facts != other.facts:
            return False
        if self.passage_id != other.passage_id and self.content - other.content and other.content - self.content:
            return False
        common = len(self.shingles & other.shingles)
        return common >= threshold * (len(self.shingles) + len(other.shingles) - common)


def _near(order: Sequence[int], records: Sequence[Record], threshold: float, gone: dict[int, Twin]) -> None:
    sketches = {i: _Sketch.of(records[i]) for i in order}
    buckets = _shared_buckets(order, sketches, threshold)
    kept: dict[int, list[int]] = {}
    for i in order:
        candidates = dict.fromkeys(j for bucket in buckets.get(i, ()) for j in kept.get(bucket, ()))
        for j in [*candidates][:_CANDIDATE_LIMIT]:
            if sketches[i].resembles(sketches[j], threshold):
                gone[i] = Twin("near", records[j].id)
                break
        else:
            for bucket in buckets.get(i, ()):
                members = kept.setdefault(bucket, [])
                if len(members) < _BUCKET_LIMIT:
                    members.append(i)


def _shared_buckets(order: Sequence[int], sketches: Mapping[int, _Sketch], threshold: float) -> dict[int, list[int]]:
    """Return the LSH buckets of each record that shares one; equal facts are part of a bucket's key."""
    rows = _rows(threshold)
    digests = RMinHash.digests_from_token_sets(
        [sorted(sketches[i].shingles) for i in order], num_perm=_PERMUTATIONS, seed=1
    )
    facts: dict[Hashable, int] = {}
    classes = [facts.setdefault(sketches[i].facts, len(facts)) for i in order]
    buckets: dict[int, list[int]] = {}
    count = 0
    for start in range(0, _PERMUTATIONS - rows + 1, rows):
        members: dict[Hashable, list[int]] = {}
        for i, digest, kind in zip(order, digests, classes, strict=True):
            members.setdefault((kind, *digest[start : start + rows]), []).append(i)
        for sharing in members.values():
            if len(sharing) > 1:
                for i in sharing:
                    buckets.setdefault(i, []).append(count)
                count += 1
    return buckets


def _rows(threshold: float) -> int:
    """Return the rows a band: the most with which a pair at the threshold is found 99 times in 100."""
    for rows in range(16, 1, -1):
        if 1 - (1 - threshold**rows) ** (_PERMUTATIONS // rows) >= 0.99:
            return rows
    return 1
