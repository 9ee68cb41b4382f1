"""Sentence constructions with their questions: constructions/*.txt, read and filled.

A construction is a block of lines. `S` is one way to say a fact. `Q question => answer` is a question that the answer,
copied from the sentence, answers; it goes with each `S` that has all its slots and (unless it is marked `Q*`) its
content words. `{x}` is the thing that the fact is about and `[is|are]` agrees with it; slots.py lists the other slots;
a digit makes a slot of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from lexicon import words
from slots import CHOICE, SLOT, Filling, capitalised, fix_article

if TYPE_CHECKING:
    from phrases import Phrase, Scene

FOLDER = Path(__file__).parent / "constructions"
FUNCTION_WORDS = frozenset(words("question_words"))


@dataclass(frozen=True, slots=True)
class Question:
    """A question template and the template of its answer."""

    text: str
    answer: str
    is_free: bool


@dataclass(frozen=True, slots=True)
class Construction:
    """The ways to say one kind of fact and to ask about it."""

    sentences: tuple[str, ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class Fact:
    """A sentence without its full stop, and the questions it answers."""

    sentence: str
    lead: str
    """The subject that opens the sentence, or empty."""
    pairs: tuple[tuple[str, str], ...]


@cache
def constructions(theme: str) -> tuple[Construction, ...]:
    """The constructions of `constructions/<theme>.txt`."""
    text = (FOLDER / f"{theme}.txt").read_text(encoding="utf-8")
    return tuple(_parse(block) for block in re.split(r"\n\s*\n", text) if re.search(r"^S ", block, re.M))


def _parse(block: str) -> Construction:
    sentences: list[str] = []
    questions: list[Question] = []
    for line in block.strip().splitlines():
        kind, _, rest = line.partition(" ")
        text, _, answer = rest.partition(" => ")
        if kind == "S":
            sentences.append(_lower_first(rest.removesuffix(".")))
        elif kind in {"Q", "Q*"}:
            questions.append(Question(text, answer, kind == "Q*"))
    return Construction(tuple(sentences), tuple(questions))


def _lower_first(text: str) -> str:
    return re.sub(r"^\{?[A-Z]", lambda match: match[0].lower(), text)


def _content_words(template: str) -> set[str]:
    bare = CHOICE.sub(r"\1 \2", SLOT.sub(" ", template)).lower().replace("'ll", "").replace("n't", "")
    return {word[:4] for word in re.findall(r"[a-z']+", bare) if word not in FUNCTION_WORDS and len(word) > 2}


def _slots(template: str) -> set[str]:
    """The slots of a template; the forms of one verb are one slot, and `{does}` is a verb and its object."""
    found = {re.sub(r"^v\.[bsdg]$", "v", slot) for slot in SLOT.findall(template)}
    return found | {"dov", "doo"} if "does" in found else found


def _little_words(template: str) -> set[str]:
    bare = CHOICE.sub(r"\1 \2", SLOT.sub(" ", template)).lower()
    found = set(re.findall(r"[a-z']+", bare))
    for short, full in (("can't", "can"), ("cannot", "can"), ("don't", "do"), ("won't", "will")):
        if short in found:
            found |= {full, "not"}
    for word in tuple(found):
        if word.endswith("'ll"):
            found |= {"will", word.removesuffix("'ll")}
    return found - {"never"} | {"not"} if "never" in found else found


def _same_sense(question: Question, sentence: str) -> bool:
    """Whether negation, modal verb and the small words of time and condition agree."""
    said = _little_words(sentence)
    whole = _little_words(question.text) | _little_words(question.answer)
    asked = _little_words(question.text.partition(" ")[2])
    if ("not" in said) != ("not" in whole) and not question.text.startswith("What cannot"):
        return False
    if "should" in asked and said & {"can", "may", "will"}:
        return False
    strict = {
        "must",
        "may",
        "can",
        "will",
        "before",
        "after",
        "until",
        "if",
        "when",
        "while",
        "within",
        "because",
        "by",
        "we",
    }
    return asked & strict <= said


def _is_partial(answer: str, sentence: str) -> bool:
    """Whether the answer stops before the second part of a list: `{vp}` of `{vp} and {vp2}`."""
    return any(
        f"{{{slot}}}" in answer and f"{{{slot}2}}" not in answer
        for slot in re.findall(r"\{(\w+)\}(?:,| and| or| \w+ and) \{\1\d\}", sentence)
    )


@cache
def matching(construction: Construction, sentence: str) -> tuple[Question, ...]:
    """The questions that this way of saying the fact answers."""
    have, said = _slots(sentence), _content_words(sentence)
    return tuple(
        question
        for question in construction.questions
        if _slots(question.text) | _slots(question.answer) <= have
        and not _is_partial(question.answer, sentence)
        and have & {"part0", "side"} <= _slots(question.text) | _slots(question.answer)
        and (question.is_free or (_same_sense(question, sentence) and _content_words(question.text) <= said))
    )


PRONOUNS = frozenset(["it", "they", "them", "its", "their", "the", "a"])


def _span(answer: str, sentence: str) -> str | None:
    """The answer as the capitalised sentence spells it, or None if it is no whole-word span of it."""
    for candidate in (answer, capitalised(answer)):
        if re.search(rf"(?<![\w$€£-]){re.escape(candidate)}(?![\w%])", sentence):
            return candidate
    return None


def realise(construction: Construction, scene: Scene, thing: Phrase | None = None) -> Fact | None:
    """One fact of this construction, or None when no question fits it."""
    named = scene.topic_named
    sentence = scene.rng.choice(construction.sentences)
    questions = matching(construction, sentence)
    filling = Filling(scene, thing)
    text = filling.fill(sentence, asked=False)
    shown = capitalised(text)
    pairs: list[tuple[str, str]] = []
    for question in questions:
        asked = capitalised(filling.fill(question.text, asked=True))
        answer = _span(filling.fill(question.answer, asked=False), shown)
        if answer and answer.lower() not in PRONOUNS and len(asked) < 120 and len(answer) < 90:
            pairs.append((asked, answer))
    pairs = [(asked, answer) for asked, answer in pairs if answer.lower() not in asked.lower()]
    if not pairs or len(text) > 170:
        scene.topic_named = named
        return None
    lead = filling.values["x"].said if sentence.startswith("{x} [") else ""
    return Fact(text, fix_article(lead), tuple(pairs))
