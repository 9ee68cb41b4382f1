"""Human pairs spoiled in known ways: the pairs that a good score ranks below the human ones.

Each corruption is a small pure function of a pair, of the file that the pair is from (its other answers and
questions, its numbers and names) and of a random number generator that is seeded by the pair. It returns None where
it cannot spoil the pair: no number can be swapped where there is none. A spoiled pair that is right by accident is
left out as well (`is_right`). docs/calibration.md says in plain words what each one does.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import TypeVar

from synth.calibration.humans import HumanPair, Humans
from synth.filters.words import NUMBER_WORDS, STOPWORDS, words_of

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")

_TOKEN = re.compile(r"\d+(?:[.,:]\d+)*|[^\W\d_]+(?:[-'’][^\W\d_]+)*")
_YEAR = re.compile(r"1\d{3}|20\d\d")
_GAP = re.compile(r"[ \t]+|[ \t]*&[ \t]*|\.[ \t]")
# What stands before the first word of a sentence, of a line or of a quotation.
_OPENING = re.compile(r"(?:^|[.!?:;\n\"“(•*])[\s\"“(*]*$")
_ARTICLES = frozenset({"a", "an", "the"})
_NEGATED_FORM = {
    **{word: word + "n't" for word in ("is", "are", "was", "were", "do", "does", "did", "has", "have", "had")},
    **{word: word + "n't" for word in ("could", "should", "would", "must")},
    "can": "can't",
    "will": "won't",
    "may": "may not",
    "might": "might not",
    "shall": "shall not",
}
_PLAIN_FORM = {negated: plain for plain, negated in _NEGATED_FORM.items()} | {"cannot": "can"}
_AUXILIARY = re.compile(rf"\b(?:{'|'.join(_NEGATED_FORM)})\b(?!['’]|\s+not\b)", re.IGNORECASE)
_YES_NO = re.compile(rf"\W*(?:{'|'.join(_NEGATED_FORM)})\b", re.IGNORECASE)
_CONTRACTED = re.compile(r"\b(?:[a-z]+n['’]t|cannot)\b", re.IGNORECASE)
_NOT = re.compile(r"\b(?:not|never)\s+", re.IGNORECASE)
# An answer of fewer words is no clause, even where it holds "is" or "will".
_CLAUSE_WORDS = 4
_TRIES = 12


@dataclass(frozen=True, slots=True)
class Spoiled:
    """A pair after its corruption, and where its answer was taken from in the passage (-1: from elsewhere)."""

    question: str
    answer: str
    start: int = -1


class Pool:
    """What corruptions take from: the pairs of a file by passage and by document, its numbers and its names."""

    def __init__(self, humans: Humans) -> None:
        pairs = humans.pairs
        self.pairs = pairs
        self.of_passage = _grouped((p.context, p) for p in pairs)
        self.of_document = _grouped((p.document_id, p) for p in pairs)
        self.of_shape = _grouped((shape(p.answer), p) for p in pairs)
        texts = list(dict.fromkeys((p.context, p.document_id) for p in pairs))
        self.numbers = _grouped((number_kind(n), (n, d)) for text, d in texts for n in numbers_in(text))
        self.names = _grouped((len(n.split()), (n, d)) for text, d in texts for n in names_in(text, text))
        self.asked = {context: {normal(p.question) for p in group} for context, group in self.of_passage.items()}


def _grouped(items: Iterable[tuple[_K, _V]]) -> dict[_K, list[_V]]:
    groups: dict[_K, list[_V]] = defaultdict(list)
    for key, value in items:
        groups[key].append(value)
    return dict(groups)


@lru_cache(maxsize=65536)
def normal(text: str) -> str:
    """Return `text` as answers are compared: its words in lower case, without punctuation and articles."""
    return " ".join(word for word in words_of(text) if word not in _ARTICLES)


@lru_cache(maxsize=65536)
def shape(answer: str) -> tuple[str, int]:
    """Return what kind of answer this is (number, name, clause or phrase) and its length in four bands."""
    words = answer.split()
    band = sum(len(words) > bound for bound in (1, 3, 8))
    if numbers_in(answer):
        return "number", band
    if _AUXILIARY.search(answer) and len(words) >= _CLAUSE_WORDS:
        return "clause", band
    first = _TOKEN.search(answer)
    named = first is not None and first[0][0].isupper() and first[0].lower() not in STOPWORDS
    return ("name" if named else "phrase"), band


@lru_cache(maxsize=65536)
def numbers_in(text: str) -> tuple[str, ...]:
    """Return the numbers of `text` in order, in digits or as one word ("one" is more often a pronoun)."""
    return tuple(m[0] for m in _TOKEN.finditer(text) if _is_number(m[0]))


def _is_number(token: str) -> bool:
    return token[0].isdigit() or (token.lower() in NUMBER_WORDS and token.lower() != "one")


def number_kind(number: str) -> str:
    """Return what a number may be swapped for: a year for a year, else the same form and number of digits."""
    if not number[0].isdigit():
        return "word"
    return "year" if _YEAR.fullmatch(number) else re.sub(r"\d", "0", number)


def names_in(text: str, passage: str) -> list[str]:
    """Return the names of `text` in order: runs of words that `passage` has with a capital inside a sentence.

    A word that it has in lower case as well is no name, and neither is one that only opens its sentences.
    """
    known = _named_words(passage)
    found: list[str] = []
    end = -1
    for match in _TOKEN.finditer(text):
        if match[0] not in known:
            end = -1
            continue
        gap = text[end : match.start()] if end >= 0 else ""
        if end >= 0 and _GAP.fullmatch(gap):
            found[-1] += gap + match[0]
        else:
            found.append(match[0])
        end = match.end()
    return found


@lru_cache(maxsize=4096)
def _named_words(passage: str) -> frozenset[str]:
    tokens = [(m[0], m.start()) for m in _TOKEN.finditer(passage)]
    lower = {word for word, _ in tokens if word[0].islower()}
    return frozenset(
        word
        for word, start in tokens
        if word[0].isupper()
        and word.lower() not in STOPWORDS
        and word.lower() not in lower
        and not _OPENING.search(passage, max(0, start - 4), start)
    )


def is_right(spoiled: Spoiled, pair: HumanPair, pool: Pool) -> bool:
    """Whether a spoiled pair may be right after all.

    It is where nothing changed, where the answer is an accepted one, where it overlaps an accepted one in the
    passage, or where someone asked the swapped-in question about this very passage.
    """
    if normal(spoiled.question) != normal(pair.question):
        return normal(spoiled.question) in pool.asked[pair.context]
    answer = normal(spoiled.answer)
    if not answer or answer in {normal(accepted) for accepted in pair.answers}:
        return True
    end = spoiled.start + len(spoiled.answer)
    return spoiled.start >= 0 and any(
        0 <= start < end and spoiled.start < start + len(accepted)
        for accepted, start in zip(pair.answers, pair.starts, strict=True)
    )


def other_question(pair: HumanPair, pool: Pool, rng: Random) -> Spoiled | None:
    """Answer with the answer to another question about the same passage, of the same kind where there is one."""
    others = [p for p in pool.of_passage[pair.context] if p.id != pair.id]
    alike = [p for p in others if shape(p.answer)[0] == shape(pair.answer)[0]]
    for other in _shuffled(alike, rng) + _shuffled([p for p in others if p not in alike], rng):
        spoiled = Spoiled(pair.question, other.answer, other.starts[0])
        if not is_right(spoiled, pair, pool):
            return spoiled
    return None


def other_passage(pair: HumanPair, pool: Pool, rng: Random) -> Spoiled | None:
    """Answer with the answer to a question about another document, of the same kind and length where there is one."""
    for candidates in (pool.of_shape[shape(pair.answer)], pool.pairs):
        for _ in range(_TRIES):
            other = rng.choice(candidates)
            spoiled = Spoiled(pair.question, other.answer, pair.context.find(other.answer))
            if other.document_id != pair.document_id and not is_right(spoiled, pair, pool):
                return spoiled
    return None


def number_swapped(pair: HumanPair, pool: Pool, rng: Random) -> Spoiled | None:
    """Put another document's number, of the same form, in the place of a number of the answer."""
    return _swapped(pair, pool, rng, numbers_in(pair.answer), lambda n: pool.numbers.get(number_kind(n), ()))


def number_swapped_within(pair: HumanPair, pool: Pool, rng: Random) -> Spoiled | None:
    """Put another number of the same passage, of the same form if there is one, in the place of one of the answer."""
    here = [(number, "") for number in numbers_in(pair.context)]
    return _swapped(pair, pool, rng, numbers_in(pair.answer), lambda n: _alike(n, here, number_kind))


def name_swapped(pair: HumanPair, pool: Pool, rng: Random) -> Spoiled | None:
    """Put another document's name, of as many words, in the place of a name of the answer."""
    named = names_in(pair.answer, pair.context)
    return _swapped(pair, pool, rng, named, lambda n: pool.names.get(len(n.split()), ()))


def name_swapped_within(pair: HumanPair, pool: Pool, rng: Random) -> Spoiled | None:
    """Put another name of the same passage, of as many words where there is one, in the place of one of the answer."""
    here = [(name, "") for name in names_in(pair.context, pair.context)]
    named = names_in(pair.answer, pair.context)
    return _swapped(pair, pool, rng, named, lambda n: _alike(n, here, lambda name: len(name.split())))


def _alike(old: str, candidates: Sequence[tuple[str, str]], key: Callable[[str], object]) -> Sequence[tuple[str, str]]:
    alike = [c for c in candidates if key(c[0]) == key(old) and normal(c[0]) != normal(old)]
    return alike or candidates


def _swapped(
    pair: HumanPair,
    pool: Pool,
    rng: Random,
    olds: Sequence[str],
    candidates: Callable[[str], Sequence[tuple[str, str]]],
) -> Spoiled | None:
    if not olds:
        return None
    old = rng.choice(olds)
    choices = candidates(old)
    for _ in range(_TRIES if choices else 0):
        new, document = rng.choice(choices)
        if document == pair.document_id or normal(new) in normal(pair.answer):
            continue
        answer = re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", _constant(new), pair.answer, count=1)
        spoiled = Spoiled(pair.question, answer, pair.context.find(answer))
        if not is_right(spoiled, pair, pool):
            return spoiled
    return None


def _constant(text: str) -> Callable[[object], str]:
    """Return a replacement that is taken as it is, backslashes and all."""
    return lambda _: text


def negated(pair: HumanPair, pool: Pool, rng: Random) -> Spoiled | None:
    """Turn the pair's meaning round: take its "not" away, or put one in, by a change of one verb form.

    In the answer where it holds a negation or is a clause, in the question otherwise. English.
    """
    answer = _affirmed(pair.answer)
    if answer is None and len(pair.answer.split()) >= _CLAUSE_WORDS:
        answer = _denied(pair.answer)
    if answer is not None:
        return Spoiled(pair.question, answer)
    question = _affirmed(pair.question) or _denied(pair.question)
    if _YES_NO.match(pair.question):
        return None  # "Don't you ship abroad?" asks what "Do you ship abroad?" asks
    return Spoiled(question, pair.answer, pair.starts[0]) if question is not None else None


def _affirmed(text: str) -> str | None:
    """Return `text` without its first negation, or None where it has none or has several."""
    contracted, plain = _CONTRACTED.findall(text), _NOT.findall(text)
    if len(contracted) + len(plain) != 1:
        return None
    if plain:
        return _NOT.sub("", text, count=1)
    form = contracted[0].lower().replace("’", "'")
    return _CONTRACTED.sub(_cased(contracted[0], _PLAIN_FORM[form]), text) if form in _PLAIN_FORM else None


def _denied(text: str) -> str | None:
    """Return `text` with its first auxiliary verb negated, or None where it has none or negates already."""
    if _CONTRACTED.search(text) or _NOT.search(text):
        return None
    denied = _AUXILIARY.sub(lambda m: _cased(m[0], _NEGATED_FORM[m[0].lower()]), text, count=1)
    return denied if denied != text else None


def _cased(old: str, new: str) -> str:
    return new[0].upper() + new[1:] if old[0].isupper() else new


def truncated(pair: HumanPair, pool: Pool, rng: Random) -> Spoiled | None:
    """Cut the answer off after one of its words, as a limit on tokens does."""
    words = list(_TOKEN.finditer(pair.answer))
    if len(words) < 2:
        return None
    answer = pair.answer[: words[rng.randrange(len(words) - 1)].end()]
    accepted = {normal(a) for a in pair.answers}
    return None if not normal(answer) or normal(answer) in accepted else Spoiled(pair.question, answer, pair.starts[0])


def question_of_another_passage(pair: HumanPair, pool: Pool, rng: Random) -> Spoiled | None:
    """Ask a question about another document, with this passage and this answer."""
    for _ in range(_TRIES):
        other = rng.choice(pool.pairs)
        spoiled = Spoiled(other.question, pair.answer, pair.starts[0])
        if other.document_id != pair.document_id and not is_right(spoiled, pair, pool):
            return spoiled
    return None


def unanswerable(pair: HumanPair, pool: Pool, rng: Random) -> Spoiled | None:
    """Ask about another passage of the same document, with an answer of the kind that it wants from this passage."""
    others = [p for p in pool.of_document[pair.document_id] if p.context != pair.context]
    for _ in range(_TRIES if others else 0):
        other = rng.choice(others)
        alike = [p for p in pool.of_passage[pair.context] if shape(p.answer)[0] == shape(other.answer)[0]]
        if not alike or normal(other.question) in pool.asked[pair.context]:
            continue
        taken = rng.choice(alike)
        if not {normal(a) for a in other.answers} & {normal(a) for a in taken.answers}:
            return Spoiled(other.question, taken.answer, taken.starts[0])
    return None


def _shuffled(pairs: Sequence[HumanPair], rng: Random) -> list[HumanPair]:
    return rng.sample(pairs, len(pairs))


Corrupt = Callable[[HumanPair, Pool, Random], Spoiled | None]


@dataclass(frozen=True, slots=True)
class Corruption:
    """A corruption by name.

    `visible`: a reader sees the fault by comparing the pair with the passage, without understanding the question.
    """

    name: str
    corrupt: Corrupt
    visible: bool = False


CORRUPTIONS: Mapping[str, Corruption] = {
    corruption.name: corruption
    for corruption in (
        Corruption("other_passage", other_passage, visible=True),
        Corruption("number_swapped", number_swapped, visible=True),
        Corruption("name_swapped", name_swapped, visible=True),
        Corruption("negated", negated, visible=True),
        Corruption("number_swapped_within", number_swapped_within),
        Corruption("name_swapped_within", name_swapped_within),
        Corruption("truncated", truncated),
        Corruption("question_of_another_passage", question_of_another_passage),
        Corruption("other_question", other_question),
        Corruption("unanswerable", unanswerable),
    )
}
"""All corruptions, those that lexical scores see best first."""
