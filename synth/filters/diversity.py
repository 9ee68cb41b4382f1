"""How varied a corpus is: distinct n-grams, topics, and how many directions its vectors take.

All are for reading side by side, before and after a filter or between two teachers: distinct-n falls as a corpus grows,
so only corpora of one size compare.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synth.core.errors import ConfigError
from synth.filters.decontamination import atoms

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from synth.core.embedding import Vectors

# N-grams of one length that are held: 8 MiB of hashes. Beyond, a share of them chosen by hash stands for all.
_HELD = 1 << 20
# Texts whose n-grams are counted at a time.
_BATCH = 8192
# Rows that are enough to place the topics; all rows are then counted under them.
_SAMPLE = 100_000


class DistinctCounter:
    """Counts n-grams of texts in bounded memory: distinct-n (Li et al. 2016) is distinct ÷ all.

    Up to a million different ones of a length the count is exact. Beyond, it is estimated from those whose hash falls
    into a share of all hashes, which is halved each time there are too many: within some 0.2 %. The count depends on
    the texts alone, not on their order.
    """

    def __init__(self, lengths: Sequence[int] = (1, 2, 3)) -> None:
        self._lengths = tuple(lengths)
        self._all = dict.fromkeys(self._lengths, 0)
        self._halvings = dict.fromkeys(self._lengths, 0)
        self._held: dict[int, NDArray[np.uint64]] = {}
        self._hashes: dict[str, int] = {}

    def add(self, texts: Iterable[str]) -> None:
        """Count the n-grams of `texts`, each within its text."""
        batch: list[str] = []
        for text in texts:
            batch.append(text)
            if len(batch) == _BATCH:
                self._count(batch)
                batch = []
        if batch:
            self._count(batch)

    def distinct(self, length: int) -> float | None:
        """Return the share of n-grams of `length` that differ from each other, or None where there is none."""
        count = self._all[length]
        if not count:
            return None
        return float(min(1.0, len(self._held[length]) * 2 ** self._halvings[length] / count))

    def _count(self, texts: Sequence[str]) -> None:
        import numpy as np

        read = [atoms(text) for text in texts]
        words = np.array([self._hash(word) for text in read for word in text], dtype=np.uint64)
        sizes = np.array([len(text) for text in read], dtype=np.int64)
        ends = np.repeat(np.cumsum(sizes), sizes)
        for length in self._lengths:
            count = len(words) - length + 1
            if count <= 0:
                continue
            inside = np.arange(count) + length <= ends[:count]
            grams = np.zeros(count, dtype=np.uint64)
            for offset in range(length):
                grams = _mixed(grams ^ words[offset : offset + count])
            grams = grams[inside]
            self._all[length] += len(grams)
            self._hold(length, grams)

    def _hold(self, length: int, grams: "NDArray[np.uint64]") -> None:
        import numpy as np

        held = self._held.get(length)
        mask = np.uint64((1 << self._halvings[length]) - 1)
        fresh = grams[(grams & mask) == 0]
        held = np.unique(fresh if held is None else np.concatenate([held, fresh]))
        while len(held) > _HELD:
            self._halvings[length] += 1
            held = held[(held & np.uint64((1 << self._halvings[length]) - 1)) == 0]
        self._held[length] = held

    def _hash(self, word: str) -> int:
        known = self._hashes.get(word)
        if known is None:
            known = int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest())
            if len(self._hashes) < _HELD:
                self._hashes[word] = known
        return known


def _mixed(values: "NDArray[np.uint64]") -> "NDArray[np.uint64]":
    """Return 64-bit hashes whose bits all hang on all bits of `values` (the finaliser of splitmix64)."""
    import numpy as np

    with np.errstate(over="ignore"):
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))


@dataclass(frozen=True, slots=True)
class TopicSpread:
    """How records spread over topics, which are clusters of their vectors.

    `entropy` is in nats; `effective` is e to it: so many equally large topics would be as varied. `topics` has each
    record's topic (-1 where it has no vector) and `shares` each topic's share of the records.
    """

    entropy: float
    effective: float
    shares: tuple[float, ...]
    topics: "NDArray[np.int64]"

    def topic_share(self) -> list[float | None]:
        """Return for each record the share of its topic: high where the corpus has much of the kind."""
        return [None if topic < 0 else self.shares[topic] for topic in self.topics.tolist()]

    def to_json(self) -> dict[str, Any]:
        """Return the numbers for a manifest or a report."""
        return {
            "topics": len(self.shares),
            "entropy": round(self.entropy, 4),
            "effective_topics": round(self.effective, 2),
            "largest_share": round(max(self.shares, default=0.0), 4),
        }


def topic_spread(vectors: "Vectors", topics: int | None = None, seed: int = 0) -> TopicSpread | None:
    """Return how rows of length 1 spread over clusters, or None where there are fewer than two rows with words.

    Args:
        vectors: a row a record; rows of 0 belong to no topic.
        topics: the number of clusters; unless told the root of half the rows, from 2 to 100.
        seed: of MiniBatchKMeans (Sculley 2010), which sees a hundred thousand rows at most.

    Raises:
        ConfigError: scikit-learn is not installed.
    """
    import numpy as np

    rows = np.flatnonzero(np.linalg.norm(vectors, axis=1) > 0.5)
    if len(rows) < 2:
        return None
    try:
        from sklearn.cluster import MiniBatchKMeans
    except ImportError as error:
        raise ConfigError(
            "scikit-learn is not installed", where="topics", fix="pip install 'synth-tune[semantic]'"
        ) from error
    wanted = topics or max(2, min(100, round((len(rows) / 2) ** 0.5)))
    sample = rows[np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLE)).astype(np.int64)]
    # No more clusters than different rows, which scikit-learn warns of.
    count = min(wanted, len(np.unique(vectors[sample[:_BATCH]], axis=0)))
    model = MiniBatchKMeans(n_clusters=count, random_state=seed, n_init=3, batch_size=4096).fit(vectors[sample])
    labels = np.full(len(vectors), -1, dtype=np.int64)
    for start in range(0, len(rows), _SAMPLE):
        some = rows[start : start + _SAMPLE]
        labels[some] = model.predict(vectors[some])
    shares = np.bincount(labels[rows], minlength=count) / len(rows)
    entropy = float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())
    return TopicSpread(entropy, float(np.exp(entropy)), tuple(map(float, shares)), labels)


def effective_number(vectors: "Vectors") -> float | None:
    """Return how many rows of wholly different direction would be as varied: the Vendi score (Friedman and Dieng 2023).

    It is e to the entropy of the eigenvalues of the rows' likeness, from 1 (all alike) to the number of dimensions.
    None where there is no row of length 1.
    """
    import numpy as np

    rows = vectors[np.linalg.norm(vectors, axis=1) > 0.5]
    if not len(rows):
        return None
    likeness = np.zeros((vectors.shape[1], vectors.shape[1]))
    for start in range(0, len(rows), _SAMPLE):
        likeness += rows[start : start + _SAMPLE].T.astype(np.float64) @ rows[start : start + _SAMPLE]
    values = np.linalg.eigvalsh(likeness / len(rows))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))
