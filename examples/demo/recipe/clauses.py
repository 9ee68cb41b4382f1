"""Facts built from clause parts: who does what to what, where, when, how, how long, how often, why.

The constructions in constructions/ are idioms; these clauses carry any words at all in the common orders of English,
so that what the network learns is where the parts stand and which question asks for each.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import quantities
from constructions import Fact
from lexicon import participle, third_person, words
from phrases import Phrase
from slots import capitalised, fix_article

if TYPE_CHECKING:
    from phrases import Scene


@dataclass(frozen=True, slots=True)
class Adjunct:
    """A sentence part, the question word that asks for it, and the span that answers."""

    said: str
    asked: str
    wh: str
    answer: str
    tail: str = ""
    """What the question keeps at its end: `What should you wipe it with?`"""


@dataclass(frozen=True, slots=True)
class Core:
    """Subject and verb of a clause, said and asked, before any adjunct."""

    said: str
    auxiliary: str
    subject: str
    rest: str
    lead: str = ""
    subject_question: str = ""
    thing: str = ""
    """The object, or empty; `verb` is then what stands before it in a question about it."""
    verb: str = ""


def _adjunct(scene: Scene, kind: str) -> Adjunct:
    rng = scene.rng
    if kind == "place":
        text = scene.place()
        return Adjunct(text, text, "where", text)
    if kind == "goal":
        text = f"{rng.choice(['into', 'onto', 'to', 'through', 'from', 'towards', 'over', 'against'])} {scene.object()}"
        return Adjunct(text, text, "where", text)
    if kind == "time":
        text = quantities.when(rng)
        return Adjunct(text, text, "when", text)
    if kind == "event":
        action = scene.gerund_action()
        word = rng.choice(["before", "after", "while"])
        return Adjunct(f"{word} {action.said}", f"{word} {action.asked}", "when", f"{word} {action.said}")
    if kind == "condition":
        clause, word = (
            scene.condition(),
            rng.choice(["if", "when", "as soon as", "once", "while", "until", "unless"]),
        )
        wh = "how long" if word == "until" else "when"
        return Adjunct(f"{word} {clause.said}", f"{word} {clause.asked}", wh, f"{word} {clause.said}")
    if kind == "length":
        span = quantities.duration(rng)
        return Adjunct(f"for {span}", f"for {span}", "how long", span)
    if kind == "frequency":
        text = quantities.frequency(rng)
        return Adjunct(text, text, "how often", text)
    if kind == "tool":
        thing = scene.object()
        if scene.chance(0.5):
            return Adjunct(f"with {thing}", f"with {thing}", "how", f"with {thing}")
        return Adjunct(f"with {thing}", f"with {thing}", "what", thing, " with")
    if kind == "manner":
        text = rng.choice(words("manners"))
        return Adjunct(text, text, "how", text)
    if kind == "purpose":
        action = scene.action()
        if scene.chance(0.4):
            action = scene.gerund_action()
            return Adjunct(f"for {action.said}", f"for {action.asked}", "what", action.said, " for")
        return Adjunct(f"to {action.said}", f"to {action.asked}", "why", f"to {action.said}")
    if kind == "reason":
        word, text = rng.choice(["because", "because", "since", "as"]), scene.reason()
        return Adjunct(f"{word} {text}", f"{word} {text}", "why", f"{word} {text}")
    if kind == "result":
        clause = scene.condition()
        return Adjunct(f"so that {clause.said}", f"so that {clause.asked}", "why", f"so that {clause.said}")
    text = f"at {quantities.temperature(rng)}"
    return Adjunct(text, text, "at what temperature", text.removeprefix("at "))


KINDS = {"place": 5, "goal": 3, "time": 4, "event": 2, "condition": 4, "length": 4, "frequency": 3, "tool": 4,
         "manner": 3, "purpose": 3, "reason": 2.5, "result": 1.5, "heat": 1}  # fmt: skip


def _object(scene: Scene) -> Phrase:
    if scene.topic and scene.chance(0.45):
        return scene.subject(initial=False)
    return scene.other()


def _core(scene: Scene) -> Core:
    rng, verb = scene.rng, scene.verb()
    if scene.chance(0.12):
        verb = f"{verb} {rng.choice(['up', 'down', 'out', 'off', 'in', 'back', 'away'])}"
    bare, _, particle = verb.partition(" ")
    particle = f" {particle}" if particle else ""
    draw = rng.random()
    if draw < 0.42:
        thing = _object(scene)
        said, asked = f"{bare} {thing.said}{particle}", f"{bare} {thing.asked}{particle}"
        open_verb = f"{verb}"
        if draw < 0.18:
            return Core(said, "should", "you", asked, thing=thing.said, verb=open_verb)
        if draw < 0.25:
            negation, asks = rng.choice(
                [("do not", "not"), ("never", "never"), ("don't", "not"), ("please do not", "not")]
            )
            return Core(
                f"{negation} {said}",
                "should",
                "you",
                f"{asks} {asked}",
                thing=thing.said,
                verb=f"{asks} {open_verb}",
            )
        if draw < 0.34:
            modal = rng.choice(["can", "must", "should", "may", "will"])
            return Core(f"you {modal} {said}", modal, "you", asked, thing=thing.said, verb=open_verb)
        if draw < 0.39:
            return Core(f"we {said}", "do", "we", asked, thing=thing.said, verb=open_verb)
        people = rng.choice(words("people"))
        modal = rng.choice(["can", "must", "should", "may", ""])
        return Core(f"{people} {modal} {said}".replace("  ", " "), modal or "do", people, asked, people,
                    f"who {modal} {said}".replace("  ", " "), thing.said, open_verb)  # fmt: skip
    subject = scene.subject(initial=True)
    many = subject.is_plural
    if draw < 0.6:
        thing = Phrase(*(scene.object(),) * 2)
        form = verb if many else f"{third_person(bare)}{particle}"
        form = f"{form.split()[0]} {thing.said}{particle}"
        return Core(f"{subject.said} {form}", "do" if many else "does", subject.asked, f"{bare} {thing.said}{particle}",
                    subject.said, f"what {form}", thing.said, verb)  # fmt: skip
    if draw < 0.7:
        event = rng.choice(words("intransitive"))
        first, _, rest = event.partition(" ")
        form = event if many else f"{third_person(first)} {rest}".strip()
        modal = rng.choice(["", "", "will", "can", "may", "should", "must"])
        if modal:
            return Core(f"{subject.said} {modal} {event}", modal, subject.asked, event, subject.said)
        return Core(f"{subject.said} {form}", "do" if many else "does", subject.asked, event, subject.said)
    done = f"{participle(bare)}{particle}"
    modal = rng.choice(["must", "should", "can", "may", "will", "must not", "cannot", "can't", "", "", "", "", "was"])
    be = "were" if modal == "was" and many else "was" if modal == "was" else "are" if many else "is"
    if modal in {"", "was"}:
        return Core(f"{subject.said} {be} {done}", be, subject.asked, done, subject.said, f"what {be} {done}")
    positive = {"must not": "must", "cannot": "can", "can't": "can"}.get(modal)
    asked = f"not be {done}" if positive else f"be {done}"
    return Core(f"{subject.said} {modal} be {done}", positive or modal, subject.asked, asked, subject.said,
                f"what {modal} be {done}")  # fmt: skip


def clause(scene: Scene) -> Fact | None:
    """One clause with one to three adjuncts and a question for most of its parts."""
    rng = scene.rng
    core = _core(scene)
    kinds: list[str] = []
    for _ in range(rng.choice([1, 1, 1, 2, 2, 3])):
        kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
        if kind not in kinds and not ({kind, *kinds} >= {"reason", "result"}):
            kinds.append(kind)
    adjuncts = sorted((_adjunct(scene, kind) for kind in kinds), key=lambda adjunct: len(adjunct.said))
    front: Adjunct | None = None
    if adjuncts[-1].wh in {"when", "where", "why", "how often"} and scene.chance(0.3):
        front = adjuncts[-1]
    elif len(adjuncts) > 1 and adjuncts[0].wh in {"when", "how often"} and scene.chance(0.2):
        front = adjuncts[0]
    behind = [adjunct for adjunct in adjuncts if adjunct is not front]
    text = " ".join([core.said, *(adjunct.said for adjunct in behind)])
    if front:
        text = f"{front.said}, {text}"
    text = fix_article(text)
    if len(text) > 170:
        return None
    pairs: list[tuple[str, str]] = []
    denies = core.rest.startswith(("not ", "never "))
    for adjunct in adjuncts:
        if denies and adjunct.wh in {"how", "how often", "how long"}:
            continue
        rest = core.rest
        others = [other.asked for other in adjuncts if other is not adjunct]
        if others and scene.chance(0.3):
            rest = " ".join([rest, *others])
        question = f"{adjunct.wh} {core.auxiliary} {core.subject} {rest}{adjunct.tail}?"
        pairs.append((question, adjunct.answer))
    context = " ".join(adjunct.asked for adjunct in (behind or adjuncts)[:2])
    if core.thing and core.thing not in {"it", "them"}:
        pairs.append((f"what {core.auxiliary} {core.subject} {core.verb} {context}?", core.thing))
    if core.subject_question and core.lead not in {"it", "they"} and not core.lead.startswith(("its ", "their ")):
        pairs.append((f"{core.subject_question} {context}?", core.lead))
    return _checked(text, core.lead, pairs)


def _checked(text: str, lead: str, pairs: list[tuple[str, str]]) -> Fact | None:
    shown, kept = capitalised(text), []
    for question, answer in pairs:
        asked, wanted = capitalised(fix_article(question)), fix_article(answer)
        found = next(
            (a for a in (wanted, capitalised(wanted)) if re.search(rf"(?<!\w){re.escape(a)}(?!\w)", shown)),
            None,
        )
        if found and wanted.lower() not in asked.lower() and len(asked) < 125 and len(found) < 90:
            kept.append((asked, found))
    return Fact(text, "", tuple(kept)) if kept else None
