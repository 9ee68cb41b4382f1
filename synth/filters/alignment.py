"""A pair laid beside the sentence that it was taken from: the parts of the question, the place of the answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from synth.core.records import Record
from synth.filters.pair import Pair, pair_of
from synth.filters.words import NUMBER_WORDS, Text, word_set

QUESTION_WORDS = word_set("what which who whom where when why how")
BE = word_set("is are was were")
DO = word_set("do does did")
MODAL = word_set("can cannot could may might must shall should will would")
AUXILIARY = BE | DO | MODAL | {"has", "have", "had"}
_PAUSE = frozenset(",;:()")


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
    def of(cls, pair: Pair, source: Text) -> "Laid | None":
        """Take a pair apart; None where its question does not open with a question word."""
        question, answer = pair.question, pair.answer
        words = question.words
        first = next((i for i, w in enumerate(words[:2]) if w in QUESTION_WORDS), None)
        if first is None:
            return None
        place = next((i for i in range(first + 1, min(first + 4, len(words))) if words[i] in AUXILIARY), None)
        cut = first if place is None else place
        return cls(
            wh=words[first],
            lead=words[first + 1 : place] if place is not None else (),
            auxiliary=words[place] if place is not None else "",
            rest=words[cut + 1 :],
            question=question,
            answer=answer,
            source=source,
            raw=source.raw,
            start=source.find(answer),
        )

    def follows(self, place: int) -> str:
        """Return the word of the source at `place`, or an empty text past its end or after a comma."""
        words = self.source.words
        if not 0 <= place < len(words):
            return ""
        if not place:
            return words[0]
        spans = self.source.spans
        before = self.raw[spans[place - 1][1] : spans[place][0]]
        return words[place] if before == " " or _PAUSE.isdisjoint(before) else ""


def is_number(word: str) -> bool:
    """Whether a word is a number in digits or in letters."""
    return word[0].isdigit() or word in NUMBER_WORDS


def laid_faults(record: Record, checks: Mapping[str, Callable[[Laid], bool]]) -> list[str] | None:
    """Return the names of the checks that find a fault in the pair; None where it cannot be laid beside a sentence."""
    pair = pair_of(record)
    if not pair.is_qa or pair.evidence is None or not pair.answer.words:
        return None
    if pair.laid is None:
        pair.laid = Laid.of(pair, pair.evidence) or _NOT_LAID
    laid = pair.laid
    return [name for name, faulty in checks.items() if faulty(laid)] if isinstance(laid, Laid) else None


_NOT_LAID = object()
