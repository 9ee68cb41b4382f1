"""Duplicates: exact, near, and one question with two answers. Of twins the better scored stays.

Records are taken in one order (better first, then by id), so the result depends on no input order. Near
duplicates are found by MinHash (Broder 1997) with banded LSH over words and word pairs of question and
answer, then checked by true Jaccard similarity. A bucket is looked through only so far, which keeps
templated text, where thousands of records share their buckets, from turning quadratic.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

from rensa import RMinHash

from synth.core.records import Record, content_id
from synth.filters.words import STOPWORDS, names, numbers, stem, without_articles, word_set, words_of

_PERMUTATIONS = 64
# How many kept records of one bucket, and of all buckets of a record, are compared with it.
_BUCKET_LIMIT = 8
_CANDIDATE_LIMIT = 64
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
    asked = [without_articles(words_of(_asked(record))) for record in records]
    # The one refusal of all unanswerable questions makes no two of them alike.
    answers = [() if r.kind == "unanswerable" else without_articles(words_of(r.answer)) for r in records]
    gone: dict[int, Twin] = {}
    left = _first_of_each(order, records, lambda i: (asked[i], answers[i]), "exact", gone)
    left = _first_of_each(left, records, lambda i: (records[i].passage_id, asked[i]), "question", gone)
    if threshold <= 1:
        _near(left, records, {i: asked[i] + answers[i] for i in left}, threshold, gone)
    return gone


def _identity(record: Record) -> tuple[str, ...]:
    """What tells two records of one id apart (one call may give a pair twice, with other evidence)."""
    return (record.id, record.evidence.text if record.evidence else "", record.context)


def _first_of_each(
    order: Sequence[int],
    records: Sequence[Record],
    key: Callable[[int], Hashable],
    how: str,
    gone: dict[int, Twin],
) -> list[int]:
    first: dict[Hashable, int] = {}
    for i in order:
        known = first.setdefault(key(i), i)
        if known != i:
            gone[i] = Twin(how, records[known].id)
    return [i for i in order if i not in gone]


def _asked(record: Record) -> str:
    """Return all that the model is shown before it answers, apart from a system prompt.

    A passage that the user's turn shows counts as one word, or two tasks on it would be near duplicates.
    """
    shown = "\n".join(m.content for m in record.prompt if m.role != "system")
    return shown.replace(record.context, content_id(record.context)) if record.shows_context else shown


@dataclass(frozen=True, slots=True)
class _Sketch:
    """What two records are compared by."""

    shingles: frozenset[str]
    facts: Hashable
    content: frozenset[str]
    passage_id: str

    @classmethod
    def of(cls, record: Record, shingles: frozenset[str]) -> "_Sketch":
        asked = _asked(record)
        negative = any(w in _NEGATIVE or w.endswith("n't") for w in shingles)
        return cls(
            shingles=shingles,
            facts=(numbers(asked) | numbers(record.answer), names(asked) | names(record.answer), negative),
            content=frozenset(stem(w) for w in words_of(asked) if w not in STOPWORDS),
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


def _near(
    order: Sequence[int],
    records: Sequence[Record],
    words: Mapping[int, tuple[str, ...]],
    threshold: float,
    gone: dict[int, Twin],
) -> None:
    shingles = {i: frozenset((*words[i], *map(" ".join, pairwise(words[i])))) for i in order}
    shared = _shared_buckets(order, shingles, threshold)
    sketches = {i: _Sketch.of(records[i], shingles[i]) for i in order if i in shared}
    # Of one bucket only records with the same facts can be twins: the facts are a part of its key.
    kept: dict[tuple[int, Hashable], list[int]] = {}
    for i in order:
        if i not in shared:
            continue
        buckets = [kept.setdefault((bucket, sketches[i].facts), []) for bucket in shared[i]]
        candidates = dict.fromkeys(j for members in buckets for j in members)
        for j in islice(candidates, _CANDIDATE_LIMIT):
            if sketches[i].resembles(sketches[j], threshold):
                gone[i] = Twin("near", records[j].id)
                break
        else:
            for members in buckets:
                if len(members) < _BUCKET_LIMIT:
                    members.append(i)


def _shared_buckets(
    order: Sequence[int], shingles: Mapping[int, frozenset[str]], threshold: float
) -> dict[int, list[int]]:
    """Return the LSH buckets of each record that shares one with another."""
    rows = _rows(threshold)
    digests = RMinHash.digests_from_token_sets([list(shingles[i]) for i in order], num_perm=_PERMUTATIONS, seed=1)
    buckets: dict[int, list[int]] = {}
    count = 0
    for start in range(0, _PERMUTATIONS - rows + 1, rows):
        members: dict[tuple[int, ...], list[int]] = {}
        for i, digest in zip(order, digests, strict=True):
            key = tuple(digest[start : start + rows])
            if key in members:
                members[key].append(i)
            else:
                members[key] = [i]
        for sharing in members.values():
            if len(sharing) > 1:
                for i in sharing:
                    buckets.setdefault(i, []).append(count)
                count += 1
    return buckets


def _rows(threshold: float) -> int:
    """Return the rows a band: the most with which a pair at the threshold is found 98 times in 100."""
    for rows in range(16, 1, -1):
        if 1 - (1 - threshold**rows) ** (_PERMUTATIONS // rows) >= 0.98:
            return rows
    return 1
