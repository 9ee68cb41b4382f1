"""Passages of an invented handbook, each sentence with its question and answer pairs.

python passages.py 5        # print five passages with their pairs
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from random import Random

from clauses import clause
from constructions import Construction, Fact, constructions, realise
from lexicon import name, words
from phrases import Phrase, Scene, Topic, place_topic, product_topic
from slots import capitalised, fix_article

COMMANDS = ("if ", "when ", "before ", "after ", "while ", "to ", "never ", "do ", "don't ", "always ", "please ",
            "there ", "for ", "on ", "because ", "as soon", "without", "should ", "first ", "at ", "with ")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sentence:
    """A whole sentence of a passage with the pairs that it answers; fillers have none."""

    text: str
    pairs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Passage:
    """Handbook prose."""

    heading: str
    sentences: tuple[Sentence, ...]

    @property
    def text(self) -> str:
        """Heading and sentences as one text."""
        body = " ".join(sentence.text for sentence in self.sentences)
        return f"{self.heading}\n\n{body}" if self.heading else body


def _one_of(rng: Random, themes: tuple[tuple[str, float], ...]) -> Construction:
    theme = rng.choices([theme for theme, _ in themes], [weight for _, weight in themes])[0]
    return rng.choice(constructions(theme))


CLAUSES = 0.3
"""Share of facts that are free clauses."""


def _fact(scene: Scene, themes: tuple[tuple[str, float], ...]) -> Fact:
    while True:
        if scene.rng.random() < CLAUSES:
            fact = clause(scene)
            if fact is not None:
                return fact
            continue
        fact = realise(_one_of(scene.rng, themes), scene)
        if fact is not None:
            return fact


def _joined(scene: Scene, first: Fact, themes: tuple[tuple[str, float], ...]) -> Fact:
    """Add a second fact about the same subject: coordination, a relative clause or a semicolon."""
    rng = scene.rng
    said = first.lead
    pronoun = "they" if said in {"they"} else "it"
    for _ in range(12):
        many = any(first.sentence.startswith(f"{said} {verb} ") for verb in PLURAL_VERBS)
        asked = _asked_form(first, scene)
        second = realise(_one_of(rng, themes), scene, Phrase(said, asked or said, many))
        if second is None or second.lead != said or not second.sentence.startswith(f"{said} "):
            continue
        rest = second.sentence.removeprefix(said)
        rest_first = first.sentence.removeprefix(said)
        pronoun = "they" if many else "it"
        text = rng.choice([
            f"{first.sentence} and{rest}", f"{first.sentence} and{rest}", f"{first.sentence}, and {pronoun}{rest}",
            f"{first.sentence} but{rest}", f"{first.sentence}; {pronoun}{rest}", f"{said}, which{rest_first},{rest}",
        ])  # fmt: skip
        if len(text) > 170:
            continue
        shown = capitalised(text)
        pairs = tuple(pair for pair in first.pairs + second.pairs if pair[1] in shown)
        if len(pairs) >= 2:
            return Fact(text, said, pairs)
    return first


PLURAL_VERBS = words("plural_verbs")


def _compound(rng: Random, first: Fact, second: Fact) -> Fact:
    """Two facts in one sentence."""
    link = rng.choice([", and ", ", and ", ", but ", "; ", ": ", ", so ", " while ", " and "])
    text = f"{first.sentence}{link}{second.sentence}"
    if len(text) > 190 or first.sentence.endswith("?"):
        return first
    pairs = first.pairs + tuple((question, answer[:1].lower() + answer[1:] if answer not in second.sentence else answer)
                                for question, answer in second.pairs)  # fmt: skip
    return Fact(text, "", tuple(pair for pair in pairs if pair[1] in capitalised(text)))


CONTRACTIONS = (("do not ", "don't "), ("cannot ", "can't "), ("is not ", "isn't "), ("are not ", "aren't "),
                ("does not ", "doesn't "), ("will not ", "won't "), ("you will ", "you'll "), ("we will ", "we'll "),
                ("it is ", "it's "), ("that is ", "that's "), ("you have ", "you've "))  # fmt: skip


def _contracted(text: str) -> str:
    for full, short in CONTRACTIONS:
        text = text.replace(full, short).replace(capitalised(full), capitalised(short))
    return text


def _asked_form(fact: Fact, scene: Scene) -> str | None:
    """How the questions name the subject of `fact`."""
    topic = scene.topic
    if topic and fact.lead in {topic.full, topic.short, topic.subject}:
        return topic.full
    if topic and fact.lead.startswith(f"{topic.possessive} "):
        return f"the {fact.lead.removeprefix(topic.possessive).strip()} of {topic.full}"
    return None


def _dressed(scene: Scene, fact: Fact) -> Sentence:
    """Capitalise, close with a full stop, and now and then open or close with an aside."""
    rng, text = scene.rng, fact.sentence
    starts_plain = not text.lower().startswith(COMMANDS) and not text.startswith(("you ", "use "))
    if rng.random() < 0.1 and starts_plain:
        text = f"{rng.choice(words('openers'))} {text}"
    elif rng.random() < 0.07:
        closer = rng.choice(words("closers"))
        text += closer if closer.startswith(",") else f" {closer}"
    if rng.random() < 0.25:
        text = _contracted(text)
    shown = capitalised(text)
    pairs = []
    for question, answer in fact.pairs:
        found = answer if answer in shown else answer[:1].lower() + answer[1:]
        if found in shown:
            pairs.append((question, found))
    return Sentence(shown + ("" if shown.endswith((".", "?")) else "."), tuple(pairs))


def _heading(rng: Random, topic: Topic | None) -> str:
    about = topic.full.removeprefix("the ").removeprefix("your ") if topic else f"{name(rng)}"
    title = rng.choice(words("titles"))
    text = rng.choice([about, f"{about}: {title.lower()}", f"{title}", f"{title} of {about}", f"{about} - {title}"])
    return rng.choice(["# ", "## ", "", ""]) + capitalised(text)


PRODUCT = (("product", 1.0), ("care", 1.1), ("prose", 0.5), ("plain", 0.15), ("service", 0.15))
SERVICE = (("service", 1.5), ("prose", 0.5), ("care", 0.25), ("plain", 0.1), ("product", 0.1))


def passage(seed: int, shortest: int = 1, longest: int = 6) -> Passage:
    """A passage of `shortest` to `longest` sentences; the same seed gives the same passage."""
    rng = Random(seed)
    is_product = rng.random() < 0.68
    topic = None if rng.random() < 0.12 else product_topic(rng) if is_product else place_topic(rng)
    themes = PRODUCT if is_product else SERVICE
    scene = Scene(rng, topic, topic_named=False)
    heading = _heading(rng, topic) if rng.random() < 0.25 else ""
    if heading and topic and topic.full.removeprefix("the ").lower() in heading.lower() and rng.random() < 0.5:
        scene.topic_named = True
    sentences: list[Sentence] = []
    for _ in range(rng.randint(shortest, longest)):
        if rng.random() < 0.05 and longest > 1:
            filler = rng.choice(words("fillers")).format(y=scene.object(), name=name(rng))
            sentences.append(Sentence(capitalised(fix_article(filler)) + ("" if filler.endswith("?") else ".")))
        fact = _fact(scene, themes)
        if fact.lead and rng.random() < 0.3:
            fact = _joined(scene, fact, themes)
        elif rng.random() < 0.12:
            fact = _compound(rng, fact, _fact(scene, themes))
        sentences.append(_dressed(scene, fact))
    return Passage(heading, tuple(sentences))


def main() -> None:
    """Print passages with their pairs."""
    for seed in range(int(sys.argv[1])):
        drawn = passage(seed)
        print(drawn.text)
        for sentence in drawn.sentences:
            for question, answer in sentence.pairs:
                print(f"    {question} -> {answer}")
        print()


if __name__ == "__main__":
    main()
