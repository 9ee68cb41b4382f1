"""The score `negation`: is a "not" of the source still a "not" in the pair, and none where there was none?

Words decide, clause by clause. A negation of the evidence counts where the pair uses what it negates
("Do not place it on carpet" and a question about placing); then the question or the answer has to carry
a negation as well. Two negations in one clause may cancel out, so there either way passes.
"""

import re
from collections.abc import Sequence

from synth.core.records import Record
from synth.core.sentences import split_sentences
from synth.filters.base import FaultScorer
from synth.filters.memo import Memo
from synth.filters.pair import pair_of
from synth.filters.words import STOPWORDS, Text, read, word_set

_NEGATORS = word_set(
    """
    not no never none neither nor nobody nothing nowhere cannot without avoid avoids avoided avoiding refuse
    refuses refused refusing forbidden forbid forbids prohibited prohibit prohibits
    """
)
# What a pair may say in the place of a negation.
_EQUIVALENT = _NEGATORS | word_set(
    """
    prevent prevents prevented fail fails failed failing lack lacks lacking exclude excludes excluded except
    excluding ineligible unable impossible banned ban bans disallowed barred stop stops free instead rather
    against only unless wrong dangerous harmful danger risk decline declines declined reject rejects
    rejected deny denies denied invalid hardly rarely seldom absence missing
    """
)
# What a source may say for the negation of a pair.
_BORNE_OUT = _EQUIVALENT - word_set("stop stops free")
_PREFIXED = re.compile(
    r"(?:non-?|un(?!der|i|til|less|to))[a-z]{5,}|dis(?:allow|continu|connect|qualif)\w*"
    r"|in(?:valid|eligible|accessible|complete|correct)\w*|im(?:possible|proper)\w*"
)
_EXCEPTION = word_set("until till unless before except other")
_CLAUSE = re.compile(r"[,;:()]|\s-+\s|\b(?:but|although|though|whereas|while|because|and (?=(?:never|not|do not)\b))\b")
# "no later than", "not only", "whether or not", "No. 5": negators in form alone.
_NOT_NEGATING = re.compile(
    r"\b(?:(?:no|not)\s+(?:more|less|fewer|later|earlier|longer|larger|bigger|higher|lower|greater|sooner|shorter|heavier)"
    r"\s+than|not\s+only|not\s+just|not\s+necessarily|whether\s+or\s+not|or\s+not|if\s+not|why\s+not|no\.\s*\d+)",
    re.IGNORECASE,
)


def _negation_faults(record: Record) -> Sequence[str] | None:
    """Find a negation that was lost or added on the way from the source to the pair."""
    pair = pair_of(record)
    if not pair.is_qa:
        return None
    shown = pair.evidence or pair.context
    if _is_silent(pair.question) and _is_silent(pair.answer) and _is_silent(shown):
        return []
    said = _negated(pair.asked) or _negated(pair.answered)
    if not said and not _negators(shown.raw):
        return []
    source = record.evidence.text if record.evidence else _sentence_of(record)
    # A free-form answer may draw its negation from elsewhere in the passage; a quotation may not.
    if said and not _denies(source if record.evidence else record.context, _BORNE_OUT):
        return ["added"]
    negating = _NEGATING_CLAUSES[source]
    if not negating:
        return []
    answer, replied = pair.answer.plain, frozenset(pair.answer.content)
    used = replied.union(pair.question.content)
    for clause, count in negating:
        if _uses(clause, used, replied) and _lost(clause, count, record, answer):
            return ["lost"]
    return []


def _lost(clause: str, count: int, record: Record, answer: Sequence[str]) -> bool:
    asked, replied = _negated(record.question), _negated(record.answer)
    if count == 1 and _EXCEPTION.isdisjoint(read(clause).words):
        return not (_denies(record.question) or _denies(record.answer))
    if asked:
        return False
    # Of two negations the answer may keep both or none: one alone turns the meaning round.
    opens = bool(answer) and answer[0] in _EXCEPTION | {"without"}
    return opens or (replied and 0 < len(_negators(record.answer)) < count)


def _sentence_of(record: Record) -> str:
    """Return the sentence of the passage that holds the answer, where just one does, or an empty text."""
    answer = read(record.answer)
    holding = [s for s in _SENTENCES[record.context] if read(s).holds(answer)]
    return holding[0] if len(holding) == 1 else ""


def _sentences(text: str) -> tuple[str, ...]:
    return tuple(sentence.text for sentence in split_sentences(text))


def _negating_clauses(text: str) -> tuple[tuple[str, int], ...]:
    """Return the clauses of `text` that hold negators, each with their number."""
    clauses = [piece for piece in _CLAUSE.split(_NOT_NEGATING.sub(" ", text)) if piece and piece.strip()]
    return tuple((clause, len(places)) for clause in clauses if (places := _negators(clause)))


def _places(text: str) -> tuple[int, ...]:
    if not any(map(_NEGATES.__getitem__, read(text).words)):
        return ()
    words = read(_NOT_NEGATING.sub(" ", text)).words
    return tuple(i for i, w in enumerate(words) if _NEGATES[w])


def _negates(word: str) -> bool:
    return word in _NEGATORS or word.endswith("n't")


_SENTENCES, _NEGATING_CLAUSES = Memo(_sentences), Memo(_negating_clauses)
_PLACES, _NEGATES = Memo(_places), Memo(_negates)


def _is_silent(text: Text) -> bool:
    """Whether no word of `text` can negate."""
    return _NEGATORS.isdisjoint(text.word_set) and "n't " not in text.plain_line


def _negators(text: str) -> tuple[int, ...]:
    """Return the places of the words of `text` that negate."""
    return () if _is_silent(read(text)) else _PLACES[text]


def _negated(text: str) -> bool:
    """Whether `text` says "not" in so many words; a leading yes or no answers and negates nothing."""
    places = _negators(text)
    return bool(places) and not (places == (0,) and read(text).words[0] == "no")


def _denies(text: str, equivalent: frozenset[str] = _EQUIVALENT) -> bool:
    """Whether `text` negates, or says in other words what a negation would say."""
    if _negators(text):
        return True
    words = read(text).word_set
    return not equivalent.isdisjoint(words) or any(map(_PREFIXES.__getitem__, words))


def _is_prefixed(word: str) -> bool:
    return _PREFIXED.fullmatch(word) is not None


_PREFIXES = Memo(_is_prefixed)


def _uses(clause: str, used: frozenset[str], replied: frozenset[str]) -> bool:
    """Whether the pair uses a content word that the first negator of `clause` governs (those after it).

    A negator at the end of its clause governs what stands before it. "Without" governs no verb, so it
    counts only where the answer names what is left out.
    """
    text: Text = read(clause)
    first = _negators(clause)[0]
    if text.words[first] == "without":
        used = replied
    governed = [s for s, w in zip(text.stems[first + 1 :], text.words[first + 1 :], strict=True) if w not in STOPWORDS]
    return bool(set(governed or text.content) & used)


NEGATION = FaultScorer("negation", _negation_faults)
