"""The score `polarity`: does the pair say "not" where the answer's own place in the passage does?

Beside `negation`, which without evidence looks for a denial anywhere in the passage, this looks at the sentence in
which the answer stands, and at the very words that the answer was taken from. English; None for other languages.
"""

import re
from functools import lru_cache

from synth.core.records import Record
from synth.filters.base import ShareScorer
from synth.filters.passage_index import Place, best_places, index_of
from synth.filters.words import read, word_set

_NOT = word_set("not no never none neither nor nobody nothing nowhere cannot without")
# What a passage may say for a "not" of the pair.
_DENYING = _NOT | word_set(
    """
    avoid avoids avoided avoiding refuse refuses refused refusing forbidden forbid forbids prohibited prohibit prohibits
    prevent prevents prevented preventing fail fails failed failing failure lack lacks lacking lacked exclude excludes
    excluded excluding except unable impossible banned ban bans barred instead rather unlike unless decline declined
    reject rejects rejected rejecting deny denies denied hardly rarely seldom absence absent missing opposed illegal
    ineligible invalid incomplete incorrect inaccessible disallowed unavailable unlikely unknown unaware unrelated
    """
)
_PREFIXED = re.compile(r"non-[a-z]{4,}")
# How many words before and after an answer may hold the denial that a pair speaks of.
_REACH = 15
# "no later than", "whether or not", "not only": negators in form alone.
_AFTER_IDLE = word_set("only just more less later earlier longer fewer necessarily")


def _polarity(record: Record) -> float | None:
    """Give 0 where a negation of the pair has none beside its answer in the passage, or lost one; 1 otherwise."""
    if record.kind != "qa" or not index_of(record.context).english:
        return None
    if not read(record.answer).words:
        return None
    places = best_places(record.answer, record.context)
    if not places:
        return 1.0
    asked, replied = _negates(record.question), _negates(record.answer)
    whole = places[0].share == 1
    if replied and not asked:
        return 1.0 if whole else float(any(_denies(record.context, place, 2) for place in places))
    if asked:
        return float(any(_denies(record.context, place, _REACH) for place in places))
    return float(whole or not any(_negates_between(record.context, place) for place in places))


@lru_cache(maxsize=32768)
def _negates(text: str) -> bool:
    """Whether `text` says "not" in so many words; a leading no answers, and negates nothing."""
    words = read(text).words
    return any(
        (word in _NOT or word.endswith("n't")) and not (i == 0 and word == "no") and not _idle(words, i)
        for i, word in enumerate(words)
    )


def _idle(words: tuple[str, ...], place: int) -> bool:
    after = words[place + 1] if place + 1 < len(words) else ""
    return after in _AFTER_IDLE or (place > 0 and words[place - 1] in {"or", "why", "if"})


def _denies(passage: str, place: Place, reach: int) -> bool:
    """Whether the passage denies something within `reach` words of an answer, in the same sentence."""
    index = index_of(passage)
    words, sentences = index.text.words, index.sentences
    first, last = sentences[place.start], sentences[max(place.end - 1, place.start)]
    return any(
        _is_denial(words[i]) and not _idle(words, i)
        for i in range(max(0, place.start - reach), min(len(words), place.end + reach))
        if first <= sentences[i] <= last
    )


def _is_denial(word: str) -> bool:
    return word in _DENYING or word.endswith("n't") or _PREFIXED.fullmatch(word) is not None


def _negates_between(passage: str, place: Place) -> bool:
    """Whether the words that an answer was laid over negate, which the answer does not."""
    words = index_of(passage).text.words[place.start : place.end]
    return any((word in _NOT or word.endswith("n't")) and not _idle(words, i) for i, word in enumerate(words))


POLARITY = ShareScorer("polarity", _polarity)
