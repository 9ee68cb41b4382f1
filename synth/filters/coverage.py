"""The score `coverage`: the share of the answer's facts (numbers, dates, names, units) that the passage holds.

Beside `facts`, which is 0 at the first fault of question or answer, this is a share and looks at the answer alone; and
it takes a short answer's capital for a name, which `facts` cannot.
"""

import re
from functools import lru_cache

from synth.core.records import Record
from synth.filters.base import ShareScorer
from synth.filters.groundedness import measures
from synth.filters.passage_index import index_of
from synth.filters.words import STOPWORDS, numbers, read, stem

# Up to this many words, an answer is no sentence, and its first capital is a name's.
_SHORT = 5
_JOINT = re.compile(r"[-'./]")


def _coverage(record: Record) -> float | None:
    if record.kind in {"unanswerable", "grading", "reasoning"}:
        return None
    figures, named = _facts(record.answer)
    units = measures(record.answer) if figures else frozenset()
    total = len(figures) + len(named) + len(units)
    if not total:
        return None
    index = index_of(record.context)
    held = len(figures & _numbers(record.context))
    held += sum(stem(n) in index.places or _parts_held(n, index.places) for n in named)
    held += len(units & measures(record.context)) if units else 0
    return held / total


@lru_cache(maxsize=1024)
def _numbers(passage: str) -> frozenset[str]:
    """Return the numbers of a passage, those inside codes and joined words ("2-3", "24-hour") as well."""
    return numbers(passage) | frozenset(re.findall(r"\d+", passage))


def _parts_held(name: str, places: dict[str, list[int]]) -> bool:
    parts = [part for part in _JOINT.split(name) if part]
    return len(parts) > 1 and all(stem(part) in places for part in parts)


@lru_cache(maxsize=32768)
def _facts(answer: str) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the numbers of an answer and the words in it that look like names."""
    text = read(answer)
    short = len(text.words) <= _SHORT
    named = [
        word
        for i, (token, word) in enumerate(zip(text.tokens, text.words, strict=True))
        if (token[0].isupper() or (token[0].isalpha() and any(map(str.isdigit, token))))
        and word not in STOPWORDS
        and (i or short)
    ]
    return numbers(answer), tuple(dict.fromkeys(named))


COVERAGE = ShareScorer("coverage", _coverage)
