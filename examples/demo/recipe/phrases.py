"""Noun phrases, actions and conditions for one passage, which is about one topic.

A phrase has two forms: as it stands in the passage (`It`, `the lid`, `its lid`) and as a question that stands alone
must say it (`the Tavik kettle`, `the lid of the Tavik kettle`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lexicon import code, gerund, name, plural, pseudo_word, words

if TYPE_CHECKING:
    from random import Random


@dataclass(frozen=True, slots=True)
class Phrase:
    """A phrase as the passage has it, as a question has it, and its grammatical number."""

    said: str
    asked: str
    is_plural: bool = False


@dataclass(frozen=True, slots=True)
class Topic:
    """What a passage is about: its full name, its short name (`the kettle`), and its number."""

    full: str
    short: str
    is_plural: bool

    @property
    def subject(self) -> str:
        """`it` or `they`."""
        return "they" if self.is_plural else "it"

    @property
    def object(self) -> str:
        """`it` or `them`."""
        return "them" if self.is_plural else "it"

    @property
    def possessive(self) -> str:
        """`its` or `their`."""
        return "their" if self.is_plural else "its"


def product_topic(rng: Random) -> Topic:
    """A product, mostly with an invented name."""
    noun = rng.choice(words("products")) if rng.random() < 0.9 else pseudo_word(rng)
    many = rng.random() < 0.18 and not noun.endswith("s")
    head = plural(noun) if many else noun
    draw = rng.random()
    if draw < 0.45:
        brand = name(rng)
    elif draw < 0.6:
        brand = f"{name(rng)} {code(rng)}"
    elif draw < 0.7:
        brand = code(rng)
    elif draw < 0.78:
        brand = f"{name(rng)} {rng.choice(['Pro', 'Mini', 'Plus', 'Max', 'Lite', 'One', 'Home', 'Go', 'Classic'])}"
    elif draw < 0.88:
        brand = rng.choice(words("adjectives"))
    else:
        brand = rng.choice(words("things")).split()[-1]
    if draw < 0.7 and rng.random() < 0.2 and not many:
        full = rng.choice([f"the {brand}", brand])
    else:
        full = f"{rng.choice(['the', 'the', 'the', 'the', 'your'])} {brand} {head}"
    return Topic(full, f"the {head.split()[-1] if rng.random() < 0.5 else head}", many or head.endswith("earbuds"))


def place_topic(rng: Random) -> Topic:
    """A shop, a service or an institution."""
    noun = rng.choice(words("shops"))
    full = rng.choice([f"the {name(rng)} {noun}", f"the {name(rng)} {noun}", f"{name(rng)} {noun.title()}",
                       f"our {noun}", f"the {noun}"])  # fmt: skip
    return Topic(full, f"the {noun}", is_plural=False)


class Scene:
    """Draws the phrases of one passage; the topic comes back in most of them."""

    def __init__(self, rng: Random, topic: Topic | None, *, topic_named: bool) -> None:
        self.rng = rng
        self.topic = topic
        self.topic_named = topic_named
        """Whether the passage has said the topic's full name, so that a short form can be understood."""

    def chance(self, share: float) -> bool:
        """True with this probability."""
        return self.rng.random() < share

    def noun(self) -> str:
        """A noun, one in ten of them invented."""
        draw = self.rng.random()
        if draw < 0.2:
            return pseudo_word(self.rng)
        return self.rng.choice(words("things") if draw < 0.65 else words("parts"))

    def adjective(self) -> str:
        """An adjective."""
        return self.rng.choice(words("adjectives")) if self.chance(0.88) else pseudo_word(self.rng)

    def verb(self) -> str:
        """The base form of a verb."""
        verbs = words("verbs")
        draw = self.rng.random()
        if draw < 0.1:
            return pseudo_word(self.rng, 1)
        return self.rng.choice(verbs[:60] if draw < 0.5 else verbs)

    def part(self, *, named: bool = True) -> Phrase:
        """A part of the topic: `the lid`, `its lid`, `the lid of the kettle`."""
        rng, topic = self.rng, self.topic
        noun = rng.choice(words("parts")) if self.chance(0.88) else pseudo_word(rng)
        if self.chance(0.12):
            noun = f"{self.adjective()} {noun}"
        many = self.chance(0.15) and not noun.endswith(("s", "feet"))
        head = plural(noun) if many else noun
        if topic is None or not self.topic_named or not named:
            return Phrase(f"the {head}", f"the {head}", many)
        full = f"the {head} of {topic.full}"
        draw = rng.random()
        if draw < 0.25:
            return Phrase(f"{topic.possessive} {head}", full, many)
        if draw < 0.35:
            return Phrase(full, full, many)
        if draw < 0.45:
            return Phrase(f"the {head} of {topic.short}", full, many)
        if draw < 0.52:
            return Phrase(f"{topic.short}'{'' if topic.is_plural else 's'} {head}", full, many)
        return Phrase(f"the {head}", f"the {head}" if self.chance(0.6) else full, many)

    def other(self) -> Phrase:
        """A noun phrase that has nothing to do with the topic."""
        rng = self.rng
        noun = self.noun()
        if self.chance(0.2) and " " not in noun:
            noun = f"{self.adjective()} {noun}"
        elif self.chance(0.12) and " " not in noun:
            noun = f"{self.noun().split()[-1]} {noun}"
        draw = rng.random()
        if draw < 0.4:
            text, many = f"the {noun}", False
        elif draw < 0.6:
            text, many = (
                f"{rng.choice(['', '', 'the ', 'all ', 'most ', 'our ', 'your ', 'some '])}{plural(noun)}",
                True,
            )
        elif draw < 0.72:
            text, many = f"{rng.choice(['a', 'each', 'every', 'your', 'our', 'this', 'any'])} {noun}", False
        elif draw < 0.82:
            text, many = f"the {name(rng)} {noun}", False
        elif draw < 0.88:
            text, many = (
                f"the {noun} {rng.choice(['of', 'on', 'in', 'under', 'behind', 'for'])} the {self.noun()}",
                False,
            )
        elif draw < 0.92:
            text, many = f"{plural(noun)} {rng.choice(['with', 'from', 'for', 'in'])} {self.object()}", True
        elif draw < 0.95:
            text, many = f"the {code(rng)}", False
        else:
            text, many = name(rng), False
        return Phrase(text, text, many)

    def subject(self, *, initial: bool) -> Phrase:
        """The thing that a fact is about; `initial` when it opens its sentence."""
        topic, rng = self.topic, self.rng
        draw = rng.random()
        if topic is None or draw < 0.2:
            return self.other() if topic is None or self.chance(0.7) else self.part(named=False)
        if draw < 0.45:
            return self.part()
        self_named, self.topic_named = self.topic_named, True
        form = rng.random()
        if not self_named or form < 0.4:
            return Phrase(topic.full, topic.full, topic.is_plural)
        if form < 0.65:
            return Phrase(topic.short, topic.full, topic.is_plural)
        return Phrase(topic.subject if initial else topic.object, topic.full, topic.is_plural)

    def object(self) -> str:
        """A noun phrase for the end of a sentence: `a soft cloth`, `two hooks`, `your order number`."""
        rng = self.rng
        noun = self.noun()
        if self.chance(0.2) and " " not in noun:
            noun = f"{self.adjective()} {noun}"
        if self.chance(0.06):
            both = f"{noun} {rng.choice(['and', 'or'])} {rng.choice(['a', 'the'])} {self.noun()}"
            return f"{rng.choice(['a', 'the', 'your'])} {both}"
        draw = rng.random()
        if draw < 0.38:
            return f"a {noun}"
        if draw < 0.62:
            return f"the {noun}"
        if draw < 0.72:
            return f"{rng.choice(['two', 'three', 'four', 'two spare', 'both', 'all'])} {plural(noun)}"
        if draw < 0.82:
            return noun if noun in words("things")[-160:] else plural(noun)
        if draw < 0.88:
            return f"{rng.choice(['your', 'our', 'its', 'any', 'a second', 'an extra', 'no'])} {noun}"
        if draw < 0.94:
            return f"a {noun} {rng.choice(['of', 'for', 'with', 'from', 'in'])} {rng.choice(words('stuff'))}"
        return f"the {name(rng)} {noun}"

    def agent(self) -> str:
        """Someone who does things: `a trained nurse`, `our help desk`."""
        rng, role = self.rng, self.rng.choice(words("roles"))
        return rng.choice([f"a {role}", f"the {role}", f"a trained {role}", f"{name(rng)} {name(rng)}",
                           f"our {role}", f"the {name(rng)} team", f"the {rng.choice(words('shops'))}",
                           f"our {rng.choice(words('shops'))}", "an adult", "an authorised dealer",
                           f"{name(rng)} {rng.choice(['Works', 'Labs', 'Supply', 'Tools', 'Care', 'Brothers'])}",
                           ])  # fmt: skip

    def place(self) -> str:
        """An adverbial of place."""
        rng, draw = self.rng, self.rng.random()
        if draw < 0.5:
            return rng.choice(words("places"))
        if draw < 0.75:
            where = rng.choice(["under", "behind", "above", "below", "inside", "beside", "near", "next to", "in", "on",
                                "on top of", "at the back of", "at the end of", "between", "opposite"])  # fmt: skip
            if where == "between":
                return f"between the {self.noun()} and the {self.noun()}"
            return f"{where} the {self.noun()}"
        if draw < 0.85:
            return (
                f"in {rng.choice(['room', 'hall', 'zone', 'locker', 'building'])} {rng.choice([code(rng), 'B', '12'])}"
            )
        if draw < 0.95:
            return f"{rng.choice(['in', 'near', 'at'])} {name(rng)}{rng.choice(['', ' Street', ' Hall', ' Park'])}"
        return f"on {rng.choice(['page', 'shelf', 'floor', 'level'])} {rng.randint(2, 40)}"

    def city(self) -> str:
        """A place with a name."""
        return name(self.rng) if self.chance(0.8) else f"the {self.rng.choice(words('cities'))}"

    def _about_topic(self, text: str) -> Phrase:
        """Let `it` in a stock phrase mean the topic, and say so in the question."""
        if not re.search(r"\bit\b", text) or self.topic is None or not self.topic_named:
            return Phrase(text, text)
        if self.topic.is_plural and not re.search(r"\b(it \w+ed|is|has|fits?|may|starts)\b", text):
            text = re.sub(r"\bit\b", "them", text)
            return Phrase(text, re.sub(r"\bthem\b", self.topic.full, text))
        return Phrase(text, text if self.topic.is_plural else re.sub(r"\bit\b", self.topic.full, text, count=1))

    def action(self) -> Phrase:
        """A base-form verb phrase: `rinse the tray under warm water`."""
        if self.chance(0.4):
            return self._about_topic(self.rng.choice(words("actions")))
        verb = self.verb()
        thing = self.part() if self.chance(0.4) and self.topic_named else self.other()
        tail = self.rng.choice(["", "", "", "", f" with {self.object()}", f" {self.place()}"])
        if self.chance(0.08) and self.topic and self.topic_named:
            thing = Phrase(self.topic.object, self.topic.full)
        return Phrase(f"{verb} {thing.said}{tail}", f"{verb} {thing.asked}{tail}")

    def condition(self) -> Phrase:
        """A finite clause: `the battery is low`."""
        rng, draw = self.rng, self.rng.random()
        if draw < 0.5:
            return self._about_topic(rng.choice(words("problems")))
        thing = self.subject(initial=False) if self.chance(0.3) and self.topic else self.other()
        if thing.said in {"it", "them"} or draw > 0.85:
            thing = self.part()
        verb = rng.choice([
            f"{'are' if thing.is_plural else 'is'} {rng.choice(words('states'))}",
            f"{'do' if thing.is_plural else 'does'} not {rng.choice(words('intransitive'))}",
            f"{'are' if thing.is_plural else 'is'} {self.place()}",
            f"{'turn' if thing.is_plural else 'turns'} {rng.choice(words('colours'))}",
            f"{'need' if thing.is_plural else 'needs'} {self.object()}",
            f"{'have' if thing.is_plural else 'has'} {self.object()}",
        ])  # fmt: skip
        return Phrase(f"{thing.said} {verb}", f"{thing.asked} {verb}")

    def reason(self) -> str:
        """A clause that gives a reason."""
        return self.rng.choice(words("reasons")) if self.chance(0.7) else self.condition().said

    def gerund_action(self) -> Phrase:
        """An action as a gerund: `rinsing the tray`."""
        action = self.action()
        return Phrase(gerund(action.said), gerund(action.asked))
