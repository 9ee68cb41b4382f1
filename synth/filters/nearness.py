"""The scores `nearness` and `same_sentence`: does the answer stand where the passage speaks of what is asked?

Copied answers that belong to another question are in the passage word for word, so no count of the answer's words
sees them. What is left without a model is the place: around a right answer stand the words of its question, and the
rare ones tell more than those that are all over the passage. A passage with one topic says them everywhere, and there
these scores tell little.
"""

from functools import lru_cache
from math import exp

from synth.core.records import Record
from synth.filters.base import ShareScorer
from synth.filters.passage_index import PassageIndex, Place, best_places, content_stems, index_of, is_reply

# The distance in words over which a word of the question loses most of its weight.
_REACH = 8.0
_DECAY = tuple(exp(-distance / _REACH) for distance in range(65))
_OTHER_SENTENCE = 0.5


def _nearness(record: Record) -> float | None:
    """Measure how near the answer the question's content words stand, the rare ones counting more.

    1 where all of them stand beside it, 0 where no word of the answer is in the passage. A word of the question that
    the passage does not have counts as far away. A mere yes or no stands nowhere and has no score.
    """
    if record.kind != "qa":
        return None
    asked = content_stems(record.question)
    places = best_places(record.answer, record.context)
    if not asked or is_reply(record.answer):
        return None
    if not places:
        return 0.0
    index = index_of(record.context)
    return max(_around(place, asked, index) for place in places[:8])


def _around(place: Place, asked: tuple[str, ...], index: PassageIndex) -> float:
    got = total = 0.0
    own = index.sentences[place.start]
    for word in asked:
        found = index.near(word)
        if not found:
            total += 1.0
            continue
        weight = 1.0 / len(found) ** 0.5
        total += weight
        best = 0.0
        for at in found:
            distance = place.start - at if at < place.start else max(0, at - place.end + 1)
            value = _DECAY[min(distance, 64)] * (1.0 if index.sentences[at] == own else _OTHER_SENTENCE)
            best = max(best, value)
        got += weight * best
    return got / total


def _same_sentence(record: Record) -> float | None:
    """Measure how the sentence of the answer does against the passage's best one, by the question's words in each."""
    if record.kind != "qa":
        return None
    places = best_places(record.answer, record.context)
    asked = content_stems(record.question)
    if not asked or is_reply(record.answer):
        return None
    index = index_of(record.context)
    weights = _by_sentence(asked, record.context)
    top = max(weights.values(), default=0.0)
    if not top:
        return None
    return max((weights.get(index.sentences[place.start], 0.0) for place in places[:8]), default=0.0) / top


@lru_cache(maxsize=8192)
def _by_sentence(asked: tuple[str, ...], passage: str) -> dict[int, float]:
    index = index_of(passage)
    weights: dict[int, float] = {}
    for word in asked:
        holding = {index.sentences[at] for at in index.near(word)}
        for sentence in holding:
            weights[sentence] = weights.get(sentence, 0.0) + 1.0 / len(holding)
    return weights


NEARNESS = ShareScorer("nearness", _nearness)
SAME_SENTENCE = ShareScorer("same_sentence", _same_sentence)
