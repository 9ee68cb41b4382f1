"""The slots of sentence constructions: what may fill `{mass}`, `{agent}` or `{vp}`, and one fact's filling."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import quantities
from lexicon import code, gerund, inflect_first, name, participle, person, plural, third_person, words
from phrases import Phrase, Scene

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

SLOT = re.compile(r"\{([A-Za-z]\w*(?:\.[bsdg])?)\}")
CHOICE = re.compile(r"\[([^\]|]*)\|([^\]|]*)\]")


def capitalised(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def fix_article(text: str) -> str:
    """`a apple` → `an apple`."""
    text = re.sub(r"\b([Aa]) (?=[aeio]|u(?!n[ist]|s[eu])|hour)", r"\1n ", text)
    return re.sub(r"\b([Aa])n (?=[^aeiouhAEIOUHFLMNRSX8]|one\b|uni|use)", r"\1 ", text)


LIGHT = words("light_colours")


def _stock(list_name: str) -> Callable[[Scene], str]:
    return lambda scene: scene.rng.choice(words(list_name))


def _measure(sample: Callable[[Random], str]) -> Callable[[Scene], str]:
    return lambda scene: sample(scene.rng)


def _pick(options: str) -> Callable[[Scene], str]:
    choices = options.split("|")
    return lambda scene: scene.rng.choice(choices)


def _item(scene: Scene) -> str:
    noun = scene.rng.choice(words("items"))
    return f"{scene.adjective()} {noun}" if scene.chance(0.25) else noun


def _ability(scene: Scene) -> str:
    return scene.rng.choice(words("abilities"))


def _shop(scene: Scene) -> str:
    topic = scene.topic
    if topic and topic.short.removeprefix("the ") in words("shops") and scene.chance(0.5):
        return topic.full
    noun = scene.rng.choice(words("shops"))
    return scene.rng.choice([f"the {noun}", f"our {noun}", f"the {name(scene.rng)} {noun}"])


def _people(scene: Scene) -> str:
    return scene.rng.choice(words("people")) if scene.chance(0.85) else plural(scene.rng.choice(words("roles")))


def _service(scene: Scene) -> str:
    rng = scene.rng
    if scene.chance(0.25):
        kind = rng.choice(["plan", "card", "membership", "pass", "subscription", "package", "ticket", "service"])
        return f"the {name(rng)} {kind}"
    return rng.choice(words("services"))


def _opening(rng: Random) -> str:
    text = f"at {quantities.clock(rng)}"
    if rng.random() < 0.25:
        one, other = rng.sample(["weekdays", "Saturdays", "Sundays", "Mondays", "Fridays", "Thursdays", "holidays"], 2)
        return f"{text} on {one} and at {quantities.clock(rng)} on {other}"
    return text


def _event(scene: Scene) -> str:
    if scene.chance(0.2):
        kind = scene.rng.choice(["tour", "course", "workshop", "class", "festival", "lecture", "walk"])
        return f"the {name(scene.rng)} {kind}"
    return scene.rng.choice(words("events"))


SLOTS: dict[str, Callable[[Scene], str | Phrase]] = {
    "mass": _measure(quantities.mass), "len": _measure(quantities.length), "vol": _measure(quantities.volume),
    "power": _measure(quantities.power), "qty": _measure(quantities.any_quantity), "pct": _measure(quantities.percent),
    "dims": _measure(quantities.dimensions), "temp": _measure(quantities.temperature),
    "num": _measure(quantities.number),
    "price": _measure(quantities.price), "dur": _measure(quantities.duration), "freq": _measure(quantities.frequency),
    "ndur": _measure(quantities.adjective_duration), "clock": _measure(quantities.clock),
    "when": _measure(quantities.when),
    "span": _measure(quantities.span), "day": _measure(quantities.day_phrase), "addr": _measure(quantities.address),
    "phone": _measure(quantities.phone), "email": _measure(quantities.email), "code": _measure(code),
    "name": _measure(name), "person": _measure(person),
    "at": lambda scene: _opening(scene.rng),
    "year": lambda scene: str(scene.rng.randint(1890, 2030)),
    "age": lambda scene: str(scene.rng.randint(3, 25)),
    "batt": _pick("AA batteries|AAA batteries|button cells|rechargeable cells|C batteries|lithium batteries"),
    "wday": _pick("Mondays|Tuesdays|Wednesdays|Thursdays|Fridays|Saturdays|Sundays|weekdays|public holidays"),
    "times": _pick("once|twice|three times|four times|five times|two times|six times"),
    "times2": _pick("once|twice|three times|four times|ten times"),
    "per": _pick("a day|a week|a month|a year|per season|per visit"),
    "turn": _pick("clockwise|to the left|to the right|a quarter turn|half a turn|two full turns|anticlockwise|upwards|"
                  "until it clicks|towards you|forward|a quarter turn to the left|all the way down"),
    "dim": _pick("long|wide|high|deep|tall|thick"), "dim2": _pick("long|wide|high|deep|tall|thick"),
    "side": _pick("top|bottom|front|back|inside|outside|underside|rim|edge|left side|right side"),
    "attr": _pick("pressure|speed|range|output|flow|volume|noise level|torque|brightness|diameter|pull|reach|yield"),
    "modes": _pick("modes|levels|settings|programs|speeds|sizes|positions|stages"),
    "ml": _pick("eco|turbo|sleep|boost|quick|gentle|normal|low|medium|high|off|silent|night|warm|cold|small|large|"
                "party|level 1|level 2|level 3|position A|position B|summer|winter|half|full|travel|auto"),
    "placed": _pick("located|mounted|stored|found|kept|placed|fitted|hidden|printed|installed|fixed"),
    "made": _pick("made|built|designed|invented|produced|developed|sold|tested|printed"),
    "pastd": _pick("founded|opened|built|designed|started|renovated|bought"),
    "rated": _pick("certified|tested|built|made"), "booked": _pick("booked|ordered|cancelled|changed|renewed|reserved"),
    "noise": _pick("click|hum|hiss|soft click|loud beep|ticking sound|buzzing noise|gurgling sound"),
    "usenoun": _pick("use|ride|wash|flight|trip|charge|start|night|meal"),
    "sameday": _pick("on the same day|the same day|the next day|the next working day|within 24 hours|overnight"),
    "payto": _pick("to the original payment card|by bank transfer|in cash|to your account|as store credit|by cheque|"
                   "to the card you paid with|with your next bill|as a voucher"),
    "inmode": _pick("in standby|in eco mode|at full speed|on the highest setting|while charging|in sleep mode"),
    "unit_time": _pick("month|year|day|week|night|hour|person|bag|visit"),
    "whennotused": _pick("when it is not in use|in winter|after use|overnight|between uses|when you travel"),
    "damages": _pick("damages the seal|scratches the surface|dulls the blade|may cause rust|harms the coating"),
    "extra": _pick("including the case|without the cable|batteries included|so you can carry it with one hand|"
                   "lid included|which makes it easy to carry|including the stand"),
    "extra2": _pick("payable in advance|including tax|which you get back at the end|plus postage|no matter the weight"),
    "in": _pick("in|within|in just|in under"),
    "facing": _pick("up|down|outwards|the wall|north|south|the window|the door|forwards|to the left|the floor|"
                    "the front"),
    "fee": _stock("fees"), "state": _stock("state_phrases"), "stateadj": _stock("states"), "mat": _stock("materials"),
    "stuff": _stock("stuff"), "col": _stock("colours"), "lightcol": _stock("light_colours"),
    "comp": _stock("comparatives"),
    "goods": _stock("goods"), "money": _stock("money"), "topic": _stock("topics"), "pay": _stock("payments"),
    "byhow": _stock("hows"), "limit": _stock("limits"), "shop": _stock("shops"), "vi": _stock("intransitive"),
    "items": _item, "does": _ability, "event": _event, "eventn": _pick("delivery|purchase|the invoice date|"
    "the date of sale|receiving your order|the end of the course|collection"),
    "service": _service, "people": _people, "place": Scene.place, "loc": Scene.place, "city": Scene.city,
    "role": lambda scene: f"{scene.rng.choice(['the', 'our'])} {scene.rng.choice(['head', 'chief', 'senior'])} "
    f"{scene.rng.choice(words('roles'))}",
    "agent": Scene.agent, "np": Scene.object, "y": Scene.object, "noun": Scene.noun, "adj": Scene.adjective,
    "vp": Scene.action, "vping": Scene.gerund_action, "cond": Scene.condition, "reason": Scene.reason,
    "part": Scene.part,
}  # fmt: skip
BARE = {
    "part0": lambda scene: scene.rng.choice(words("parts")),
    "np0": lambda scene: scene.rng.choice(words("things")),
    "place0": _shop,
    "does0": _ability,
    "person0": _stock("roles"),
}


class Filling:
    """The slot values of one fact, drawn as they are first asked for and kept."""

    def __init__(self, scene: Scene, thing: Phrase | None = None) -> None:
        self.scene = scene
        self.values: dict[str, Phrase] = {} if thing is None else {"x": thing}
        self.verb = scene.verb()

    def value(self, slot: str, *, initial: bool) -> Phrase:
        """The phrase in this slot."""
        if slot not in self.values:
            self.values[slot] = self._draw(slot, initial=initial)
        return self.values[slot]

    def _draw(self, slot: str, *, initial: bool) -> Phrase:
        if slot == "x":
            return self.scene.subject(initial=initial)
        if slot.startswith("v."):
            forms = {"b": str, "s": third_person, "d": participle, "g": gerund}
            text = forms[slot[2]](self.verb)
            return Phrase(text, text)
        if slot in {"vpx", "vpxing"}:
            thing = self.value("x", initial=False)
            shape = gerund if slot == "vpxing" else str
            return Phrase(shape(f"{self.verb} {thing.said}"), shape(f"{self.verb} {thing.asked}"))
        if slot == "xcond":
            return self._trouble(self.value("x", initial=False))
        kind = slot if slot in BARE else re.sub(r"\d$", "", slot)
        if slot in {"dov", "doo"}:
            verb, thing = self.scene.verb(), self.scene.object()
            self.values |= {"dov": Phrase(verb, verb), "doo": Phrase(thing, thing)}
            return self.values[slot]
        if slot == "does" and self.scene.chance(0.7):
            verb, thing = self.value("dov", initial=False), self.value("doo", initial=False)
            text = f"{inflect_first(verb.said)} {thing.said}"
            return Phrase(text, text)
        drawn = (BARE.get(slot) or SLOTS[kind])(self.scene)
        return drawn if isinstance(drawn, Phrase) else Phrase(drawn, drawn)

    def _trouble(self, thing: Phrase) -> Phrase:
        rng, many = self.scene.rng, thing.is_plural
        event, be = rng.choice(words("intransitive")), "are" if many else "is"
        verb = rng.choice([
            f"{'do' if many else 'does'} not {event}", event if many else inflect_first(event),
            f"{be} {rng.choice([*words('states'), 'blocked', 'damaged', 'lost', 'broken', 'stuck'])}",
            f"{'make' if many else 'makes'} a {SLOTS['noise'](self.scene)}", f"will not {event}",
            f"{'show' if many else 'shows'} a {rng.choice(LIGHT)} light",
            f"{'need' if many else 'needs'} {self.scene.object()}",
            f"{be} too {self.scene.adjective()}", f"{'stay' if many else 'stays'} dark",
        ])  # fmt: skip
        said = {"it": "it", "them": "they"}.get(thing.said, thing.said)
        return Phrase(f"{said} {verb}", f"{thing.asked} {verb}")

    def fill(self, template: str, *, asked: bool) -> str:
        """The template with its slots filled, as the passage says it or as a question asks it."""

        def put(match: re.Match[str]) -> str:
            phrase = self.value(match[1], initial=match.start() == 0)
            return phrase.asked if asked else phrase.said

        text = SLOT.sub(put, template)
        many = "x" in self.values and self.values["x"].is_plural
        return fix_article(CHOICE.sub(lambda match: match[2] if many else match[1], text))
