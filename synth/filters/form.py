"""The score `form`: is the pair whole, clean and able to stand alone? Reads no model and no meaning.

A table of small named checks; each names one defect, and a new defect is one more row. Checks on
wording are for English and stay silent on other languages; the rest hold for any text.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import eq

from synth.core.records import Record
from synth.filters.base import FaultScorer
from synth.filters.memo import Memo
from synth.filters.pair import Pair, pair_of
from synth.filters.words import STOPWORDS, Text, names, numbers, read, word_set

_MARKUP = re.compile(
    r"</?(?:think|thought|reason(?:ing)?>|scratchpad|reflection)|\[/?THINK\]|```|<\|[^|>]*\|>|</?(?:div|span|p|br|b|i|table|tr|td|ul|li|a|html|body|passage|answer|question)\b[^<>]*>"
    r"|\[/?INST\]|<</?SYS>>|[{,]\s*\"(?:question|answer|evidence)\"\s*:|\"\s*[}\]]\s*$|\\n|\\u[0-9a-f]{4}"
    r"|^\s*(?:question|answer|q|a|user|assistant)\s*:",
    re.IGNORECASE,
)
_ENCODING = re.compile(
    "[\N{REPLACEMENT CHARACTER}\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
    "|\u00c3[\u0080-\u00bf\u2018-\u2122]|\u00e2\u20ac|\u00c2[\u00a0-\u00bf]"
)
_SOURCE = r"(?:passage|text|excerpt|context|paragraph|document|article|snippet|section|information)"
_BOILERPLATE = re.compile(
    rf"\b(?:(?:according to|based on|as (?:stated|mentioned|described) in|in|from|by) (?:the|this) "
    rf"(?:above |given |provided |following )?{_SOURCE}\b"
    rf"|the (?:above|given|provided) {_SOURCE}\b|(?:the|this) (?:passage|excerpt|snippet)\b"
    rf"|(?:the|this) {_SOURCE} (?:says|states|mentions|describes|does not (?:say|state|mention|specify))"
    r"|(?:mentioned|described|stated|listed|given) (?:above|below|earlier|previously)"
    r"|as an? (?:ai|language model|large language)"
    r"|i(?:'m| am) (?:sorry|unable)|i can(?:not|'t) (?:answer|help|assist)"
    r"|i (?:do not|don't) (?:know\b|have (?:enough|access))|(?:not enough|insufficient) information"
    r"|(?:happy|glad) to help|hope (?:this|that) helps|here (?:is|are) (?:the|your|an?) (?:question|answer))",
    re.IGNORECASE,
)
_BOILERPLATE_SMALL = re.compile(_BOILERPLATE.pattern)
_MARKUP_SIGN = re.compile(r"[<\"\\\[:`]")
# Each alternative of the pattern of phrases holds one of these, and few texts do.
_PHRASE_CORE = re.compile(
    rf"(?:the|this|above|given|provided|following) {_SOURCE}"
    r"|(?:mentioned|described|stated|listed|given) (?:above|below|earlier|previously)"
    r"|(?:ai|language model|large language)\b|sorry|unable|i can|i do|not enough|insufficient|to help|hope th"
    r"|here (?:is|are) "
)
# What a piece of plain text has to hold before the pattern of phrases can match around it.
_PHRASE_SIGN = re.compile(
    rf"{_SOURCE}|know|enough|access|insufficient|help|^here|above|below|earlier|previously|^ai|language|sorry|unable|cannot|can't",
    re.IGNORECASE,
)
_QUESTION_END = re.compile(r"[?？؟;]['\")\]»”’*_\s]*$")
_REPLIES = frozenset({("yes",), ("no",), ("not",)})
_PRONOUNS = word_set("it they them he she him")
_POINTERS = word_set("this these those")
_POINTING = _PRONOUNS | _POINTERS
_ANNOUNCED = word_set("to that when if")
_DETERMINERS = word_set("the a an your each every any all no some both another its my our")
_FRAME = word_set(
    """
    happen happens happening much many long often far old soon kind type sort time
    """
)
_DANGLING_END = word_set(
    """
    and or but nor the a an of than such because your its their which whose at from for
    """
)
_DANGLING_START = word_set("otherwise however therefore moreover and or but nor which whose such than though of")
_EMPTY_WORDS = word_set(
    """
    just such so then also it too very that this is are was were be been am do does did you they he she we i
    them him her us its your
    """
)


@dataclass(frozen=True, slots=True)
class FormLimits:
    """Length bands, in words (runs of letters or digits)."""

    min_question_words: int = 3
    max_question_words: int = 60
    max_answer_words: int = 300


def form_scorer(limits: FormLimits) -> FaultScorer:
    """Return the scorer `form`: 1 where a record has none of the defects of the table, else 0."""
    every = tuple({**_CHECKS, **_length_checks(limits)}.items())
    of_plain = tuple((name, faulty) for name, faulty in every if name not in _PATTERNS)
    of_whole = tuple((name, faulty) for name, faulty in every if name in _PATTERNS)

    def find(record: Record) -> list[str]:
        pair = pair_of(record)
        plain = _signs(pair.question) == _signs(pair.answer) == _PLAIN
        whole = _is_surely_whole(pair, limits)
        if whole and plain:
            return []
        checks = of_whole if whole else of_plain if plain else every
        return [name for name, faulty in checks if faulty(pair)]

    return FaultScorer("form", find)


def _length_checks(limits: FormLimits) -> Mapping[str, Callable[[Pair], bool]]:
    return {
        "short_question": lambda p: 0 < len(p.question.words) < limits.min_question_words and p.is_qa,
        "long_question": lambda p: len(p.question.words) > limits.max_question_words and p.is_qa,
        "long_answer": lambda p: len(p.answer.words) > limits.max_answer_words,
    }


def _is_surely_whole(pair: Pair, limits: FormLimits) -> bool:
    """Whether only the checks of patterns can find a fault; the others have a line each, in the table's order."""
    question, answer = pair.question, pair.answer
    asked, replied = question.words, answer.words
    return (
        # Words that are no mere signs.
        bool(asked and replied)
        and pair.answered[0].isalnum()
        and pair.asked[-1] == "?"
        and answer.plain_line not in question.plain_line
        and not (pair.shows_context or _loops(question) or _loops(answer))
        and _POINTING.isdisjoint(question.word_set)
        and replied[0] not in _DANGLING_START
        and replied[-1] not in _DANGLING_END
        and not answer.word_set <= _EMPTY_WORDS
        and limits.min_question_words <= len(asked) <= limits.max_question_words
        and len(replied) <= limits.max_answer_words
    )


def _not_a_question(pair: Pair) -> bool:
    asked = pair.asked
    return not asked.endswith("?") and pair.is_qa and bool(asked.strip()) and not _QUESTION_END.search(asked)


def _answer_in_question(pair: Pair) -> bool:
    """The question gives its answer away; a choice ("red or green?") and yes or no are let be."""
    question, answer = pair.question, pair.answer
    return question.holds(answer) and pair.is_qa and "or" not in question.words and answer.plain not in _REPLIES


def _own_texts(pair: Pair) -> tuple[Text, Text]:
    """Return what was written: the question without the passage that it may show, and the answer."""
    asked = read(pair.asked.replace(pair.record.context, "")) if pair.shows_context else pair.question
    return asked, pair.answer


def _repeats(pair: Pair) -> bool:
    asked, answer = _own_texts(pair)
    return _loops(asked) or _loops(answer)


def _loops(text: Text) -> bool:
    """Whether up to four words stand three times in a row, or fewer than half of many trigrams are new."""
    words = text.words
    if len(words) - len(text.word_set) < 2:
        return False  # three in a row, or that many old trigrams, repeat two words at least
    if len(set(zip(words, words[1:], strict=False))) == len(words) - 1:
        return False  # and a pair of words
    for size in range(1, 5):
        # One byte a word: whether it is the word that stands `size` places before it.
        same = bytes(map(eq, words[size:], words))
        if same.find(b"\1" * (2 * size)) >= 0:
            return True
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    return len(trigrams) >= 12 and len(set(trigrams)) * 2 < len(trigrams)


def _sign(piece: str) -> str:
    if _MARKUP_SIGN.search(piece):
        return "markup"
    return "phrase" if _PHRASE_SIGN.search(piece) else ""


_SIGNS = Memo(_sign)
_PLAIN = frozenset(("",))


def _signs(text: Text) -> set[str]:
    """Return what the three patterns may match in `text`, `_PLAIN` if nothing: cheap to see, and true of most texts."""
    found = set(map(_SIGNS.__getitem__, text.pieces))
    found.add("" if text.raw.isascii() and text.raw.isprintable() else "encoding")
    return found


def _markup(pair: Pair) -> bool:
    return any("markup" in _signs(text) and _MARKUP.search(text.raw) for text in _own_texts(pair))


def _encoding(pair: Pair) -> bool:
    return any("encoding" in _signs(text) and _ENCODING.search(text.raw) for text in _own_texts(pair))


def _boilerplate(pair: Pair) -> bool:
    """The pair talks about its source or its writer, in words that are not the source's own.

    Where the user's turn shows the source, both may talk about it; a refusal may say that it refuses.
    """
    texts = (pair.question,) if pair.kind == "unanswerable" else (pair.question, pair.answer)
    found = [phrase for text in texts if _signs(text) != _PLAIN for phrase in _phrases(text.squeezed)]
    if not found or pair.shows_context:
        return False
    context = pair.context.squeezed.casefold()
    return any(phrase.casefold() not in context for phrase in found)


def _phrases(text: str) -> list[str]:
    if text.isascii():  # then small letters are all that the pattern has to be tried on
        text = text.lower()
        return _BOILERPLATE_SMALL.findall(text) if _PHRASE_CORE.search(text) else []
    return [match.group() for match in _BOILERPLATE.finditer(text)]


def _dangling_question(pair: Pair) -> bool:
    """A pronoun that nothing in the question explains: "How often should they be cleaned?".

    Only where no determiner, name, number or plural stands before it and no clause follows that an "it"
    could announce ("How long does it take to ..."); a later turn of a conversation may use any pronoun.
    """
    text = pair.question
    if _POINTING.isdisjoint(text.word_set) or not pair.is_qa or sum(m.role == "user" for m in pair.record.prompt) > 1:
        return False
    for i, word in enumerate(text.words):
        if word not in _POINTING:
            continue
        following = text.words[i + 1 : i + 2]
        pointer = word in _POINTERS and (not following or following[0] in STOPWORDS or following == ("mean",))
        if word not in _PRONOUNS and not pointer:
            continue
        before = text.words[:i]
        if not _DETERMINERS.isdisjoint(before) or (word == "it" and not _ANNOUNCED.isdisjoint(text.words[i + 1 :])):
            return False
        said = [w for w in before if w not in STOPWORDS and w not in _FRAME]
        opening = pair.asked[: text.spans[i][0]]
        return len(said) <= 1 and not any(w.endswith("s") for w in said) and not (names(opening) | numbers(opening))
    return False


def _fragment(pair: Pair) -> bool:
    """The answer is a piece cut at a joint: "and the lid", "such", "the card or"."""
    answer = pair.answer
    words = answer.words
    if not words or not pair.is_qa:
        return False
    return (
        words[0] in _DANGLING_START
        or (words[-1] in _DANGLING_END and not (words[-1] == "a" and answer.tokens[-1] == "A"))
        or answer.word_set <= _EMPTY_WORDS
    )


_CHECKS: Mapping[str, Callable[[Pair], bool]] = {
    "empty_question": lambda pair: not pair.asked.strip(),
    "empty_answer": lambda pair: not any(map(str.isalnum, pair.answered)),
    "not_a_question": _not_a_question,
    "answer_in_question": _answer_in_question,
    "repetition": _repeats,
    "markup": _markup,
    "encoding": _encoding,
    "boilerplate": _boilerplate,
    "dangling_question": _dangling_question,
    "fragment_answer": _fragment,
}
# Those that find nothing in plain texts.
_PATTERNS = frozenset({"markup", "encoding", "boilerplate"})
