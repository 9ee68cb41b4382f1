"""Does an answer say that it cannot answer? And is that said where it should be?

English alone, by its usual forms: "I do not have that information.", "The text does not say.", "unanswerable". What
answers after it has refused, as in "I am not sure, but it is 40", is an answer; so is "No, it is not mentioned".
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from tune.metrics.refusal_phrases import ADVICE, BEGINNING, REFUSALS, SORRY, WHOLE
from tune.scores import Score

# A refusal is short. Longer texts say something, whatever they begin with.
_MOST_WORDS = 60
_MOST_WORDS_AFTER = 30

_QUOTES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-"})
_MARKUP = re.compile(r"[*_`#>\"\[\]]|</?\w+>")
_LABEL = re.compile(r"^(?:answer|response)\s*[:=]\s*")
_SENTENCES = re.compile(r"(?<=[.!?])\s+|\n+")
_TURN = re.compile(r"\s*[,;:]?\s*(?:\b(?:but|however|although|though)\b|[\s,;]-\s)[\s,]*")
_EDGES = " .!?,;:-()'"


@dataclass(frozen=True, slots=True)
class RefusalQuality:
    """Whether refusals stand where they belong; None where there is nothing to take a share of.

    Attributes:
        answers: how many answers were looked at.
        unanswerable: how many of them are to unanswerable items.
        refused: how many of them are refusals.
        recall: the share of unanswerable items that were refused.
        precision: the share of refusals that are to unanswerable items.
        false_rate: the share of answerable items that were refused.
    """

    answers: int
    unanswerable: int
    refused: int
    recall: float | None
    precision: float | None
    false_rate: float | None


def refusal_quality(scores: Sequence[Score]) -> RefusalQuality:
    """Return what the refusals of one contender are worth."""
    refused = sum(score.refused for score in scores)
    unanswerable = sum(score.unanswerable for score in scores)
    right = sum(score.refused and score.unanswerable for score in scores)
    return RefusalQuality(
        len(scores),
        unanswerable,
        refused,
        _share(right, unanswerable),
        _share(right, refused),
        _share(refused - right, len(scores) - unanswerable),
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def is_refusal(text: str, extra_phrases: Sequence[str] = ()) -> bool:
    """Return whether `text` says that it cannot answer, and nothing else.

    A text without a letter, a digit or a symbol is one: SQuAD v2.0's empty answer. Of the rest the first sentence has
    to be a refusal, and what follows has to be advice ("Please ask at the desk.") or another refusal.

    Args:
        text: the answer.
        extra_phrases: a refusal of one's own, in any language: a text that begins with one is a refusal, case and
            markup apart.
    """
    plain = _plain(text)
    if not any(unicodedata.category(character)[0] in "LNS" for character in plain):
        return True
    if any(_begins(plain, _plain(phrase).strip(_EDGES)) for phrase in extra_phrases):
        return True
    if len(plain.split()) > _MOST_WORDS:
        return False
    first, *rest = [sentence for sentence in _SENTENCES.split(plain) if sentence.strip(_EDGES)]
    if first.strip(_EDGES) in SORRY and rest:
        first, *rest = rest
    return _refuses(first) and _adds_nothing(rest)


def _plain(text: str) -> str:
    """Return `text` in lower case with straight quotes, without markup and empty lines."""
    folded = unicodedata.normalize("NFKC", text).translate(_QUOTES)
    lines = (" ".join(line.split()) for line in _MARKUP.sub("", folded).lower().splitlines())
    return _LABEL.sub("", "\n".join(line for line in lines if line))


def _begins(text: str, phrase: str) -> bool:
    text = text.lstrip(_EDGES)
    return bool(phrase) and text.startswith(phrase) and not text[len(phrase) :][:1].isalnum()


def _refuses(sentence: str) -> bool:
    """Whether a sentence is a refusal and no answer comes after its "but"."""
    said = sentence.strip(_EDGES)
    if said in WHOLE:
        return True
    while found := BEGINNING.match(said):
        said = said[found.end() :].lstrip(_EDGES)
    if said in WHOLE:
        return True
    if not any(pattern.match(said) for pattern in REFUSALS):
        return False
    turn = _TURN.search(said)
    return turn is None or _adds_nothing([said[turn.end() :]])


def _adds_nothing(sentences: Sequence[str]) -> bool:
    """Whether what follows a refusal is advice or more refusal."""
    rest = [sentence.strip(_EDGES) for sentence in sentences]
    if sum(len(sentence.split()) for sentence in rest) > _MOST_WORDS_AFTER:
        return False
    return all(bool(ADVICE.match(sentence)) or _refuses(sentence) for sentence in rest if sentence)
