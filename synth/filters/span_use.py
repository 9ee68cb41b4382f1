"""The score `span_use`: do question and answer share the words of the evidence between them as a pair should?

For teachers that copy, beside `question_fit`. The question takes some words of the sentence, the answer others,
and they meet: a word that both of them use, a predicate that neither uses, or a whole clause lying between
what is asked and what is answered, are signs that the two do not belong together.
"""

import re
from collections.abc import Callable, Mapping, Sequence

from synth.core.records import Record
from synth.filters.alignment import AUXILIARY, BE, QUESTION_WORDS, Laid, is_number, laid_faults
from synth.filters.base import FaultScorer
from synth.filters.words import STOPWORDS, word_set

_SHARED = word_set(
    "the a an of to in on at for and or by with from it its you your that this is are was were be as than not no"
)
_COMMON = _SHARED | QUESTION_WORDS
_ADVERBIAL = word_set("when where how why")
_TIME = re.compile(
    r"second|minute|hour|day|week|fortnight|month|year|season|quarter|morning|evening|night|noon|january|february|"
    r"march|april|may|june|july|august|september|october|november|december|spring|summer|autumn|winter|o'clock"
)
# Content words that may lie between what is asked and its answer: "cut the grass to 8 centimetres with a mower".
_GAP = 1


def _used_twice(pair: Laid) -> bool:
    """A word that the evidence has once stands in the question and in the answer."""
    asked, answered, has = pair.question.stems, pair.answer.stems, pair.source.stems
    own = (pair.answer.stem_set & pair.question.stem_set & pair.source.stem_set) - _COMMON
    return any(asked.count(word) + answered.count(word) > has.count(word) for word in own)


def _far_answer(pair: Laid) -> bool:
    """Other matter lies between the words asked about and the answer that follows them."""
    if pair.wh not in _ADVERBIAL or pair.start < 1:
        return False
    asked = pair.asked
    before = [i for i in range(pair.start) if pair.source.stems[i] in asked and pair.source.words[i] not in STOPWORDS]
    if not before:
        return False
    between = range(before[-1] + 1, pair.start)
    words = [pair.source.words[i] for i in between]
    return sum(word not in STOPWORDS and not is_number(word) for word in words) > _GAP


def _other_measure(pair: Laid) -> bool:
    """A time is asked for, and the answer is a number of something else."""
    if not (pair.wh == "when" or (pair.wh == "how" and "long" in pair.question.words[:3])):
        return False
    words = pair.answer.words
    clause = bool({"if", "when", "once", "until", "after", "before", "while", "as"} & set(words))
    return any(map(is_number, words)) and not clause and not any(_TIME.search(word) for word in words)


def _no_predicate(pair: Laid) -> bool:
    """The question says "is" of its subject, and what the evidence says that it is stands in neither part."""
    if pair.auxiliary not in BE:
        return False
    used = pair.question.stem_set | pair.answer.stem_set
    said = []
    for i, word in enumerate(pair.source.words[:-1]):
        if word == pair.auxiliary and not pair.start <= i < pair.end:
            after = next((j for j in range(i + 1, len(pair.source.words)) if pair.source.words[j] not in STOPWORDS), -1)
            said.append(after >= 0 and pair.source.stems[after] in used)
    return bool(said) and not any(said)


def _no_verb(pair: Laid) -> bool:
    """No verb is left: "How much single glazing?" asks nothing."""
    return pair.wh in _ADVERBIAL and AUXILIARY.isdisjoint(pair.question.words)


_CHECKS: Mapping[str, Callable[[Laid], bool]] = {
    "used_twice": _used_twice,
    "far_answer": _far_answer,
    "other_measure": _other_measure,
    "no_predicate": _no_predicate,
    "no_verb": _no_verb,
}


def _faults(record: Record) -> Sequence[str] | None:
    return laid_faults(record, _CHECKS)


SPAN_USE = FaultScorer("span_use", _faults)
