"""Is the pair about the passage? The scores `evidence`, `groundedness`, `facts` and `relevance`.

Each looks for words, not for meaning: cheap, and every rejection can say why.
A record without evidence is read against its whole passage.
"""

import re
from collections.abc import Sequence

from synth.core.records import Evidence, Record
from synth.filters.base import FaultScorer, ShareScorer
from synth.filters.memo import Memo
from synth.filters.pair import Pair, pair_of
from synth.filters.words import STOPWORDS, Text, numbers, read, stem, word_set

_REPLY = word_set("yes no yeah nope correct true false")
# Words that a question needs for its form and no passage has to hold.
_FRAME = word_set(
    """
    happen happens color colour kind type sort name call called purpose reason way time day year month
    number amount percentage use used using difference mean
    """
)
_FORMAL = STOPWORDS | _FRAME
# Kinds whose answer is no statement of the passage.
_NOT_FROM_THE_SOURCE = frozenset({"unanswerable", "grading"})
_RESULT = re.compile(r"=\s*[£$€]?\s?(\d[\d.,]*\d|\d)")
_STEP = re.compile(r"^(?:\d+\. |Answer: )", re.MULTILINE)
# What anybody may calculate with: the parts of a year, a day and an hour.
_COMMON_NUMBERS = word_set("2 7 10 12 24 52 60 100 365 1000 3600")
_COUNTING = word_set("2 3")
_JOINT = re.compile(r"[-._]")
_DIGITS = re.compile(r"\d+")
_RUN = re.compile(r"[^\W_]+")
_UNITS = {
    form: forms.split()[0]
    for forms in (
        "g gram grams",
        "kg kilogram kilograms kilo kilos",
        "mm millimetre millimetres millimeter millimeters",
        "cm centimetre centimetres centimeter centimeters",
        "m metre metres meter meters",
        "km kilometre kilometres kilometer kilometers",
        "ml millilitre millilitres milliliter milliliters",
        "l litre litres liter liters",
        "v volt volts",
        "w watt watts",
        "a amp amps ampere amperes",
        "hz hertz",
        "db decibel decibels",
        "s second seconds sec secs",
        "min minute minutes mins",
        "h hour hours hr hrs",
        "day days",
        "week weeks",
        "month months",
        "year years",
        "$ dollar dollars usd",
        "€ euro euros eur",
        "£ pound pounds gbp",
        "% percent percentage",
        "degree degrees °",
        "bar bars",
        "am",
        "pm",
        "page pages",
        "time times",
    )
    for form in forms.split()
}
_UNIT_WORDS = frozenset(_UNITS)


def _evidence_faults(record: Record) -> Sequence[str] | None:
    """Find a quotation that the passage does not hold, white space apart."""
    pair = pair_of(record)
    if pair.evidence is None:
        return None
    if not record.more_evidence and _stands_at(record.evidence, record.context):
        return []
    faults = [_quotation_fault(pair.evidence, pair.context)]
    faults += [_quotation_fault(read(more.text), pair.context) for more in record.more_evidence]
    return [fault for fault in dict.fromkeys(faults) if fault]


def _stands_at(quotation: Evidence | None, context: str) -> bool:
    """Whether a quotation surely stands in `context`, as whole words, where its offset says: no search is needed."""
    return (
        quotation is not None
        and quotation.start >= 0
        and quotation.text[:1].isalnum()
        and quotation.text.isascii()
        and context.isascii()
        and context.startswith(quotation.text, quotation.start)
        and not _joined(context, quotation.start)
        and not _joined(context, quotation.start + len(quotation.text))
    )


def _quotation_fault(quotation: Text, context: Text) -> str:
    quoted, text = quotation.squeezed, context.squeezed
    if not any(map(str.isalnum, quoted)):
        return "empty"
    start = text.find(quoted)
    if start >= 0 and not _joined(text, start) and not _joined(text, start + len(quoted)):
        return ""
    # The first place is inside a word; one search says whether there is another that is not.
    return "" if start >= 0 and _walled(quoted) in _walled(text) else "not in the passage"


def _joined(text: str, place: int) -> bool:
    """Whether `place` is inside a word."""
    return 0 < place < len(text) and text[place - 1].isalnum() and text[place].isalnum()


def _walled(text: str) -> str:
    """Return `text` with a character that no file can hold at both ends of each run of letters and digits."""
    return _RUN.sub("\ud800\\g<0>\ud800", text)


def _groundedness(record: Record) -> float | None:
    """Measure the share of the answer that its source holds.

    1 where the answer stands in the evidence (or else the passage) as whole words in a row, case and
    articles apart. Otherwise the share of its content words, crudely stemmed, that are in the evidence,
    or in the question and the passage both (a full sentence repeats its question): ROUGE-1 precision
    (Lin 2004) over content words. A mere yes or no has no score, and neither have a refusal and a mark, which
    no source holds. Steps of reasoning draw on the whole passage, and what they calculate is known from there on.
    """
    if record.kind in _NOT_FROM_THE_SOURCE:
        return None
    pair = pair_of(record)
    reasoned = pair.kind == "reasoning"
    source = pair.context if reasoned else _source(pair)
    answer = _stated(pair)
    if not answer.plain or _REPLY.issuperset(answer.plain):
        return None
    if source.holds(answer):
        return 1.0
    stems = [s for s, w in zip(answer.stems, answer.words, strict=True) if w not in STOPWORDS and w not in _REPLY]
    if not stems:
        return 0.0
    near, question, context = source.stem_set, pair.question.stem_set, pair.context.stem_set
    if reasoned:
        near = near | question | {s for found in _calculated(pair) for s in read(found).stems}
    return sum([s in near or (s in question and s in context) for s in stems]) / len(stems)


def _source(pair: Pair) -> Text:
    """Return what the answer has to rest on, as the record's `source` says."""
    if pair.evidence is not None and not pair.record.more_evidence:
        return pair.evidence
    return read(pair.record.source)


def _stated(pair: Pair) -> Text:
    """Return the answer without the numbers of its steps and the word before its result, which state nothing."""
    return read(_STEP.sub("", pair.answered)) if pair.kind == "reasoning" else pair.answer


def _calculated(pair: Pair) -> list[str]:
    """Return what the steps of a reasoning record calculate; its generator has worked it out again."""
    return _RESULT.findall(pair.answered)


def _fact_faults(record: Record) -> Sequence[str] | None:
    """Find numbers, units and names of the pair that neither the passage nor its document's name holds.

    A question that is to be refused may name what no passage knows. Where the user's turn shows the passage, as a
    text to sum up or to mark, the rest of that turn is the user's own and its facts are as good.
    """
    if record.kind == "unanswerable":
        return None
    pair = pair_of(record)
    faults: list[str] = []
    shows_context, reasoned = pair.shows_context, pair.kind == "reasoning"
    shown = pair.question if shows_context else pair.context
    for role, text in (("question", pair.question), ("answer", _stated(pair))):
        if role == "question" and shows_context:
            continue
        # Nearly always the passage holds all of them.
        if not text.numbers <= shown.numbers:
            unknown = text.numbers - shown.numbers - _title_of(record).numbers
            if unknown and reasoned:
                # A case that is made up for the question, and what is calculated from it, claim nothing of the passage.
                unknown -= pair.question.numbers | _COMMON_NUMBERS
                unknown -= {number for result in _calculated(pair) for number in numbers(result)}
            if role == "question" and unknown & _COUNTING:
                # "What are two examples of …?" counts what is wanted and states nothing.
                unknown -= _COUNTING.difference(_DIGITS.findall(text.raw))
            faults += [f"number {n} of the {role}" for n in sorted(unknown)]
        if not text.marked <= shown.word_set and (new := text.names - shown.word_set):
            title = _title_of(record)
            known = _VOCABULARY[shown.raw] | title.word_set
            faults += [f"name {n} of the {role}" for n in sorted(new) if n not in _UNITS and not _is_known(n, known)]
    if not (reasoned or _UNIT_WORDS.isdisjoint(pair.answer.word_set)):
        units, known_units = measures(pair.answered), measures(shown.raw)
        if not units <= known_units:
            measured = {number for number, _ in known_units}
            faults += [f"unit {u} of {n}" for n, u in sorted(units - known_units) if n in measured]
    return faults


def _title_of(record: Record) -> Text:
    return read(_TITLES[record.document_id])


def _is_known(name: str, words: frozenset[str]) -> bool:
    return name in words or words.issuperset(_JOINT.split(name)) or stem(name) in words


def _vocabulary(text: str) -> frozenset[str]:
    """Return the words of a passage, with their stems and parts."""
    seen = read(text)
    joined = [word for word in seen.word_set if not word.isalnum()]
    return seen.word_set | seen.stem_set | {part for word in joined for part in _JOINT.split(word)}


def _title(document_id: str) -> str:
    """Return the words of a document's path, since a heading may name what the passage calls "it"."""
    return re.sub(r"[-._/]+", " ", document_id.casefold())


_VOCABULARY = Memo(_vocabulary)
_TITLES = Memo(_title)


def measures(text: str) -> frozenset[tuple[str, str]]:
    """Return the `(number, unit)` pairs of `text` whose unit is a known one, as ("24", "v")."""
    return _MEASURES[text]


def _measures_of(text: str) -> frozenset[tuple[str, str]]:
    seen = read(text)
    found: set[tuple[str, str]] = set()
    if _UNIT_WORDS.isdisjoint(seen.word_set):
        return frozenset()
    words = seen.words
    for place, unit in enumerate(words):
        if unit not in _UNITS:
            continue
        # A sign may stand before its number.
        beside = words[max(place - 1, 0) : place] if unit.isalpha() else words[max(place - 1, 0) : place + 2]
        found.update((value, _UNITS[unit]) for number in beside for value in numbers(number))
    return frozenset(found)


_MEASURES = Memo(_measures_of)


def _relevance(record: Record) -> float | None:
    """Measure the share of the question's content words that come from its source.

    A word of the evidence (or of the passage, where there is no evidence) counts 1, one of the rest of
    the passage or of the document's name a half. Words that only give a question its form do not count.
    """
    pair = pair_of(record)
    if not pair.is_qa:
        return None
    question = pair.question
    stems = [
        s
        for s, w, before in zip(question.stems, question.words, ("", *question.words), strict=False)
        if w not in _FORMAL and before != "how"
    ]
    if not stems:
        return None
    context, title = pair.context.stem_set, _title_of(record).stem_set
    near = None if pair.evidence is None else pair.evidence.stem_set
    total = 0.0
    for s in stems:
        if near is not None and s in near:
            total += 1.0
        elif s in context or s in title:
            total += 1.0 if near is None else 0.5
    return total / len(stems)


EVIDENCE = FaultScorer("evidence", _evidence_faults)
GROUNDEDNESS = ShareScorer("groundedness", _groundedness)
FACTS = FaultScorer("facts", _fact_faults)
RELEVANCE = ShareScorer("relevance", _relevance)
