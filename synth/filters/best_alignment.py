"""The scores `alignment` and `rouge_l`: how much of the answer stands in the passage, in its order.

`alignment` looks at the one best place, so that words picked here and there do not add up; `rouge_l` at the whole
passage. Both count words (crudely stemmed) and know nothing of meaning: an answer in the teacher's own words is low
in both, and a wrong one that is copied is high.
"""

from synth.core.records import Record
from synth.filters.base import ShareScorer
from synth.filters.passage_index import best_places, common_in_order, index_of, is_reply
from synth.filters.words import read

# Kinds whose answer is not taken from the passage.
_OWN_WORDS = frozenset({"unanswerable", "grading", "reasoning"})


def _alignment(record: Record) -> float | None:
    """Measure the share of the answer's words that stand in its order at its best place in the passage."""
    if record.kind in _OWN_WORDS or is_reply(record.answer):
        return None
    places = best_places(record.answer, record.context)
    return places[0].share if places else 0.0


def _rouge_l(record: Record) -> float | None:
    """Measure ROUGE-L precision (Lin 2004): the longest common subsequence with the passage, per word of the answer."""
    words = read(record.answer).stems
    if record.kind in _OWN_WORDS or is_reply(record.answer):
        return None
    places = best_places(record.answer, record.context)
    if places and places[0].share == 1:
        return 1.0
    return common_in_order(words, index_of(record.context).text.stems) / len(words)


ALIGNMENT = ShareScorer("alignment", _alignment)
ROUGE_L = ShareScorer("rouge_l", _rouge_l)
