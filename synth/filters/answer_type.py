"""The score `answer_type`: can the answer be an answer to this kind of question?

Read from the question word and the shape of the answer, in English, and only where the two cannot go
together: "How many" with no number, "Where" with a duration, "Who" with a date. A short answer that cuts
a name or a quantity of the evidence in two is a fault of the same kind.
"""

import re
from collections.abc import Callable, Sequence

from synth.core.records import Record
from synth.filters.base import FaultScorer
from synth.filters.memo import Memo
from synth.filters.pair import pair_of
from synth.filters.words import NUMBER_WORDS, STOPWORDS, Text, word_set

_TIME_UNIT = r"(?:second|minute|hour|day|week|fortnight|month|year|decade|centur|season|quarter|weekend|night|morning)"
_NUMBER = rf"(?:\d[\d.,:]*|{'|'.join(NUMBER_WORDS)}|half|couple|few|several|many)"
_DURATION = re.compile(
    rf"^(?:about|around|roughly|up to|at least|at most|over|under|nearly|almost|only|just|exactly|less than|"
    rf"more than|no more than|no longer than|an? |for|after|within|in|every)*\s*(?:{_NUMBER}|an?|the (?:first|last))?"
    rf"(?:[ -](?:and|to|or|{_NUMBER}))*[ -]*(?:full |working |whole |business )?{_TIME_UNIT}\w*$"
)
_FREQUENCY = re.compile(
    r"\b(?:every|each|once|twice|thrice|times?|per|daily|hourly|weekly|monthly|quarterly|yearly|annually|always|never|"
    r"often|rarely|seldom|sometimes|occasionally|regularly|frequently|continuously|constantly|whenever|usually|after|"
    r"when|before|a (?:day|week|month|year)|biennial|annual|bi\w+|any time|on \w+days?|in the|as needed|if)\b"
)
_PLACE = re.compile(r"^(?:behind|beside|beneath|underneath|next to|inside|opposite|on top of|alongside|in front of)\b")
_QUANTITY = re.compile(
    rf"\b(?:{_NUMBER}|no|none|all|most|some|nothing|free|one|a|an|both|pair|dozens?|hundreds?|thousands?|millions?|"
    r"double|twice|once|single|enough|little|much|any|unlimited|every|each|\w+(?:ty|teen)|\w+ths?|majority|"
    r"billions?|quarter|third|plenty|lot|low|high|full|only|zero|minimum|maximum|reasonable|substantial\w*|significant\w*)\b"
    r"|\d|[$€£%]"
)
_TIME = re.compile(
    rf"\b{_TIME_UNIT}|\d{{1,2}}[:.]\d\d|\b\d{{4}}\b|\b(?:noon|midnight|today|tomorrow|once|until|while|during|before|"
    r"after|when|whenever|if|as|upon|by|on|at|in|since|within|january|february|march|april|may|june|july|august|september|"
    r"october|november|december|monday|tuesday|wednesday|thursday|friday|saturday|sunday|spring|summer|autumn|fall|"
    r"winter|early|late|first|last|always|never|then|immediately|annually|daily|weekly|monthly|am|pm|ad|bc|now|time)\b|\d"
)
_LENGTH = re.compile(
    rf"\b{_TIME_UNIT}|\d|\b(?:{_NUMBER}|until|till|while|as long|so long|forever|indefinitely|permanent\w*|overnight|"
    r"long|briefly|lifetime|life|ever|since|from|moment|once|all|always|through\w*|term|duration|period|for|time|ages)\b"
)
_CAUSE = re.compile(
    r"\b(?:because|since|as|so|to|for|due|in order|owing|thanks|that|by|if|when|otherwise|it|they|he|she|from|of|"
    r"with|without|can|could|may|might|will|would|is|are|was|were|has|have|had|not|no|\w+ing|\w+ed)\b"
)
_UNITS_ALONE = re.compile(
    rf"^(?:about|around|up to|at least|exactly|over|under|at|of|for|within|after|nearly|roughly)*\s*"
    rf"(?:[$€£]\s*)?{_NUMBER}(?:[ -](?:to|and|{_NUMBER}))*[ -]*"
    r"(?:percent|per cent|%|kilo\w*|grams?|kg|g|mm|cm|m|km|\w*metres?|\w*meters?|\w*litres?|\w*liters?|volts?|v|"
    r"watts?|w|amps?|degrees?|bar|pounds?|dollars?|euros?|pence|cents?|[$€£%]|hertz|decibels?|miles?|inches|feet|pages?)?$"
)
_PRICE = re.compile(rf"^\W*{_NUMBER} (?:dollars?|euros?|pounds?|pence|cents?|volts?|watts?|degrees|per ?cent|%)")
_RATE = re.compile(rf"^\W*{_NUMBER} (?!{_TIME_UNIT})\w+ (?:per|an?|each|every) {_TIME_UNIT}\w*$")
# What the longer patterns hold too, and most answers to such questions have.
_DIGIT = re.compile(r"\d")
_OPEN_PREPOSITION = re.compile(
    r"^(?:in|on|at|under|behind|inside|beside|beneath|near|into|onto|above|below|until|after|before|within)\b"
)


def _how_many(answer: str) -> bool:
    return not (_DIGIT.search(answer) or _QUANTITY.search(answer))


def _how_often(answer: str) -> bool:
    return not _FREQUENCY.search(answer) or bool(_PRICE.search(answer))


def _how_long(answer: str) -> bool:
    return (
        not (_DIGIT.search(answer) or _LENGTH.search(answer))
        or bool(_PRICE.search(answer))
        or bool(_RATE.search(answer))
    )


def _who(answer: str) -> bool:
    return bool(_UNITS_ALONE.search(answer) or _DURATION.search(answer) or _OPEN_PREPOSITION.search(answer))


def _where(answer: str) -> bool:
    return bool(
        _UNITS_ALONE.search(answer)
        or _DURATION.search(answer)
        or answer.startswith(("because ", "every ", "once ", "when ", "if ", "while "))
    )


def _when(answer: str) -> bool:
    if answer.startswith("by ") and not _TIME.search(answer.removeprefix("by ")):
        return True
    return bool(_PLACE.search(answer)) or not (_DIGIT.search(answer) or _TIME.search(answer))


def _why(answer: str) -> bool:
    return bool(_UNITS_ALONE.search(answer) or _DURATION.search(answer)) or not _CAUSE.search(answer)


def _how(answer: str) -> bool:
    return bool(_UNITS_ALONE.search(answer) or _DURATION.search(answer)) and not answer.startswith(("for ", "at "))


# The first row whose pattern the question matches decides; no row means that anything may answer.
_ROWS: Sequence[tuple[str, re.Pattern[str], Callable[[str], bool]]] = [
    (name, re.compile(pattern), misfit)
    for name, pattern, misfit in (
        ("how many", r"\bhow many\b", _how_many),
        ("how much", r"\bhow much\b", _how_many),
        ("how often", r"\bhow (?:often|frequently)\b", _how_often),
        ("how long", r"\bhow long\b", _how_long),
        (
            "how far",
            r"\bhow (?:far|tall|heavy|deep|wide|high|fast|hot|cold|old|big|large|thick)\b",
            lambda a: not _QUANTITY.search(a) and not re.search(r"\b(?:very|as|than|too|to|so)\b", a),
        ),
        (
            "what year",
            r"\b(?:what|which) (?:year|century|decade)\b",
            lambda a: not re.search(r"\d|century|decade|year", a),
        ),
        ("who", r"^(?:who|whom)\b", _who),
        ("where", r"^where\b", _where),
        ("when", r"^when\b|\bwhat time\b", _when),
        ("why", r"^why\b", _why),
        ("how", r"^how (?:do|does|did|can|should|is|are|was|were|must|will)\b", _how),
        ("what colour", r"\b(?:what|which) colou?r\b", lambda a: bool(_UNITS_ALONE.search(a) or _DURATION.search(a))),
    )
]


def _answer_type_faults(record: Record) -> Sequence[str] | None:
    pair = pair_of(record)
    if not pair.is_qa:
        return None
    question = pair.question
    name = _asked_for(question)
    faults = [f"no answer to {name!r}"] if name and _MISFITS[name](pair.answer.line[1:-1]) else []
    return faults + (_cuts(question, pair.answer, pair.evidence) if pair.evidence else [])


def _asked_for(question: Text) -> str:
    """Return the name of the row that decides what may answer the question, or an empty text."""
    words = question.words
    asking = list(filter(_ASKS.__getitem__, words))
    if not asking:
        return ""
    if len(asking) == 1:
        # With one word to ask, and a plain word after it, only one row can match.
        word = asking[0]
        place = words.index(word)
        if not place and word in _FIRST_WORDS:
            return _FIRST_WORDS[word]
        if word in _NEXT_WORDS and place + 1 < len(words) and words[place + 1].isalpha():
            name = _NEXT_WORDS[word].get(words[place + 1], "")
            return name if not place or name != "how" else ""
    asked = question.line[1:-1]
    return next((name for name, pattern, _ in _ROWS if pattern.search(asked)), "")


def _asks(word: str) -> bool:
    """Whether a row may match where this word stands: each of them has one of these."""
    return "how" in word or "wh" in word


_ASKS = Memo(_asks)
_MISFITS = {name: misfit for name, _, misfit in _ROWS}
# The rows of a question in which one word asks: by that word where it comes first, or by the word after it.
_FIRST_WORDS = {"who": "who", "whom": "who", "where": "where", "when": "when", "why": "why"}
_MANY = {word: f"how {word}" for word in ("many", "much", "often", "long")} | {"frequently": "how often"}
_FAR = dict.fromkeys(word_set("far tall heavy deep wide high fast hot cold old big large thick"), "how far")
_MANNER = dict.fromkeys(word_set("do does did can should is are was were must will"), "how")
_YEAR = dict.fromkeys(("year", "century", "decade"), "what year")
_COLOUR = dict.fromkeys(("color", "colour"), "what colour")
_NEXT_WORDS = {"how": _MANY | _FAR | _MANNER, "what": {"time": "when"} | _YEAR | _COLOUR, "which": _YEAR | _COLOUR}


def _cuts(question: Text, answer: Text, source: Text) -> list[str]:
    """Find an answer that starts after the number of its quantity, or stops inside a name.

    What stands in the question ("Which room …?" with "Fern" of "the Fern Room") may be left out.
    """
    start = source.find(answer)
    if start < 0 or source.holds_twice(answer):
        return []
    end, asked = start + len(answer.words), question.word_set
    faults = []
    if start and _is_number(source.words[start - 1]) and _touch(source, start) and not _is_number(answer.words[0]):
        faults.append("cut after a number")
    named = answer.tokens[-1][0].isupper() and answer.words[-1] not in STOPWORDS
    if named and end < len(source.tokens):
        follows = source.tokens[end]
        goes_on = (follows[0].isupper() or follows[0].isdigit()) and follows.casefold() not in asked
        # Last, since it takes the most time.
        if goes_on and _touch(source, end):
            faults.append("cut inside a name")
    return faults


def _is_number(word: str) -> bool:
    return word[0].isdigit() or word in NUMBER_WORDS


def _touch(text: Text, place: int) -> bool:
    """Whether nothing but space parts the words of the evidence around `place`."""
    spans = text.spans
    return not text.raw[spans[place - 1][1] : spans[place][0]].strip()


ANSWER_TYPE = FaultScorer("answer_type", _answer_type_faults)
