"""A pair laid beside the sentence that it was taken from: the parts of the question, the place of the answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from synth.core.records import Record
from synth.filters.words import NUMBER_WORDS, Text, read, word_set

QUESTION_WORDS = word_set("what which who whom where when why how")
BE = word_set("is are was were")
DO = word_set("do does did")
MODAL = word_set("can cannot could may might must shall should will would")
AUXILIARY = BE | DO | MODAL | {"has", "have", "had"}


@dataclass(frozen=True, slots=True)
class Laid:
    """A pair laid beside its source: `wh lead auxiliary rest`, and where the answer stands in the source."""

    wh: str
    lead: tuple[str, ...]
    auxiliary: str
    rest: tuple[str, ...]
    question: Text
    answer: Text
    source: Text
    raw: str
    start: int

    @property
    def end(self) -> int:
        """The place in the source after the answer."""
        return self.start + len(self.answer.words)

    @property
    def asked(self) -> frozenset[str]:
        """The stems of the question."""
        return self.question.stem_set

    @classmethod
    def of(cls, record: Record) -> "Laid | None":
        """Take a record apart; None where its question does not open with a question word."""
        question, answer = read(record.question), read(record.answer)
        words = question.words
        first = next((i for i, w in enumerate(words[:2]) if w in QUESTION_WORDS), None)
        if first is None or record.evidence is None:
            return None
        place = next((i for i in range(first + 1, min(first + 4, len(words))) if words[i] in AUXILIARY), None)
        cut = first if place is None else place
        source = read(record.evidence.text)
        return cls(
            wh=words[first],
            lead=words[first + 1 : place] if place is not None else (),
            auxiliary=words[place] if place is not None else "",
            rest=words[cut + 1 :],
            question=question,
            answer=answer,
            source=source,
            raw=record.evidence.text,
            start=source.find(answer),
        )

    def follows(self, place: int) -> str:
        """Return the word of the source at `place`, or an empty text past its end or after a comma."""
        if not 0 <= place < len(self.source.words):
            return ""
        before = self.raw[self.source.spans[place - 1][1] : self.source.spans[place][0]] if place else ""
        return "" if set(before) & set(",;:()") else self.source.words[place]


def is_number(word: str) -> bool:
    """Whether a word is a number in digits or in letters."""
    return word[0].isdigit() or word in NUMBER_WORDS


def laid_faults(record: Record, checks: Mapping[str, Callable[[Laid], bool]]) -> list[str] | None:
    """Return the names of the checks that find a fault in the pair; None where it cannot be laid beside a sentence."""
    if record.kind != "qa" or not read(record.answer).words:
        return None
    pair = Laid.of(record)
    return None if pair is None else [name for name, faulty in checks.items() if faulty(pair)]
