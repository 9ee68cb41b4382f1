"""Human pairs and their corruptions as records, so that any scorer can be asked about them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Literal

from synth.calibration.corruptions import CORRUPTIONS, Corruption, Pool, Spoiled
from synth.calibration.humans import HumanPair, Humans
from synth.core.records import Passage, Record
from synth.core.sentences import split_sentences

Form = Literal["passage", "sentence"]
FORMS: tuple[Form, ...] = ("passage", "sentence")
HUMAN = "human"


@dataclass(frozen=True, slots=True)
class Sample:
    """A record with what it is: a human pair, or what became of the pair in one corruption.

    `form` says what the record names as its evidence: nothing ("passage"), or the sentence that its answer is from.
    """

    record: Record
    pair: str
    document_id: str
    label: str
    form: Form


@dataclass(frozen=True, slots=True)
class Samples:
    """The samples of a human file, human pairs first, and how many pairs each corruption could not spoil."""

    samples: tuple[Sample, ...]
    skipped: dict[str, int]


def make_samples(
    humans: Humans,
    *,
    corruptions: Iterable[Corruption] = CORRUPTIONS.values(),
    forms: Sequence[Form] = FORMS,
    seed: int = 0,
) -> Samples:
    """Return the human pairs of `humans` and their corruptions as records, the same ones for the same seed."""
    pool = Pool(humans)
    samples = [_sample(pair, None, HUMAN, form) for pair in humans.pairs for form in forms]
    skipped = {}
    for corruption in corruptions:
        spoilt = [(pair, _spoil(corruption, pair, pool, seed)) for pair in humans.pairs]
        skipped[corruption.name] = sum(spoiled is None for _, spoiled in spoilt)
        samples += [
            _sample(pair, spoiled, corruption.name, form)
            for pair, spoiled in spoilt
            if spoiled is not None
            for form in forms
        ]
        if corruption.name == "unanswerable":
            samples += [_sample(pair, None, corruption.name, form) for pair in humans.unanswerable for form in forms]
    return Samples(tuple(samples), skipped)


def _spoil(corruption: Corruption, pair: HumanPair, pool: Pool, seed: int) -> Spoiled | None:
    # Seeded by the pair, so that its corruption does not hang on the pairs before it.
    return corruption.corrupt(pair, pool, Random(f"{seed}:{corruption.name}:{pair.id}"))


def _sample(pair: HumanPair, spoiled: Spoiled | None, label: str, form: Form) -> Sample:
    question = pair.question if spoiled is None else spoiled.question
    answer = pair.answer if spoiled is None else spoiled.answer
    start = pair.starts[0] if spoiled is None or spoiled.start < 0 else spoiled.start
    passage = Passage(pair.document_id, pair.context, 0, len(pair.context))
    evidence = _sentence_at(pair.context, start) if form == "sentence" else None
    # The id of a record says nothing of its evidence: here the name of the generator does.
    record = Record.create(passage, question, answer, generator=f"{label}:{form}", evidence=evidence)
    return Sample(record, pair.id, pair.document_id, label, form)


def _sentence_at(text: str, place: int) -> str | None:
    """Return the sentence of `text` that holds `place`; None where there is no such place."""
    if place < 0:
        return None
    return next((sentence for sentence, end in _sentences(text) if place < end), None)


@lru_cache(maxsize=64)
def _sentences(text: str) -> tuple[tuple[str, int], ...]:
    return tuple((sentence.text, sentence.end) for sentence in split_sentences(text))
