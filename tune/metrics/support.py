"""Does a passage support an answer? By its words and numbers, not by its meaning: cheap, and the same every time.

The passages that are looked in are the item's own (`context`), or else the best of its document where the run has that,
and the run's best for the question by BM25. The answer's words are left out of that search: with them it finds whatever
passage holds the answer, be it about something else.

Measured on XQuAD (1,190 questions, 240 passages): of human answers 99.9 % are supported, of answers to questions about
other documents 2.5 % (item with its passage), 3.6 % (its document known) or 2.5 % (neither; then 97.8 % of human ones).
"""

from collections.abc import Sequence

from synth.core.heldout import HeldoutItem
from synth.core.records import Passage
from tune.metrics.refusal import is_refusal
from tune.metrics.words import read, squeezed
from tune.passage_index import PassageIndex

# How many of the run's passages are looked in for a question, and how many of the item's own document.
TOP = 3
OWN = 20
# The share of an answer's content words that one passage has to hold.
SHARE = 0.8


class Support:
    """Looks for the passages that support an answer.

    An answer is supported when it stands in a passage as it is, word for word; or when one passage holds all its
    numbers and at least 80 % of its content words. Words are compared by crude English stems, numbers by value ("six"
    is 6, "1,000" is 1000). What the question has said already counts for nothing either way, unless the answer says
    nothing else: "The kettle is descaled by the butler" is as good as "the butler".

    Args:
        passages: of the run; none where there are none to look in.
        top: how many of them are looked in for each question.
        own: how many of the item's own document are, where the item has no passage.
    """

    def __init__(self, passages: Sequence[Passage] = (), *, top: int = TOP, own: int = OWN) -> None:
        self._of_document: dict[str, list[int]] = {}
        for place, passage in enumerate(passages):
            self._of_document.setdefault(passage.document_id, []).append(place)
        self._top, self._own = top, own
        self._found: dict[tuple[str, str, str], tuple[str, ...]] = {}
        self._index = PassageIndex([passage.text for passage in passages])

    def passages_for(self, item: HeldoutItem, answer: str = "") -> tuple[str, ...]:
        """Return the texts to look in: the item's own passage, its document's best, the run's best for its question.

        Of equally good ones the first counts. With an `answer`, those that hold it come first.
        """
        # Asked of every contender, and BM25 over a large run takes its time.
        key = (item.question, item.document_id, item.context)
        if key not in self._found:
            self._found[key] = self._look_in(item)
        if not answer:
            return self._found[key]
        return tuple(sorted(self._found[key], key=lambda text: not _holds(text, answer, item.question)))

    def supported(self, item: HeldoutItem, answer: str) -> bool | None:
        """Return whether a passage supports the answer; None for a refusal, a mere yes or no, and without a passage."""
        if is_refusal(answer) or not _says_something(answer):
            return None
        texts = self.passages_for(item)
        return any(_holds(text, answer, item.question) for text in texts) if texts else None

    def _look_in(self, item: HeldoutItem) -> tuple[str, ...]:
        texts, best = self._index.texts, self._index.best(item.question, self._top)
        if item.context.strip():
            return tuple(dict.fromkeys([item.context, *(texts[place] for place in best)]))
        scores = self._index.scores(item.question)
        own = sorted(self._of_document.get(item.document_id, ()), key=lambda place: (-scores[place], place))
        return tuple(dict.fromkeys(texts[place] for place in [*own[: self._own], *best]))


def _says_something(answer: str) -> bool:
    said = read(answer)
    return bool(said.stems or said.numbers)


def _holds(passage: str, answer: str, question: str) -> bool:
    """Whether one passage supports the answer to a question."""
    said, asked, text = read(answer), read(question), read(passage)
    # Scripts without spaces have no words to compare: there the text itself is looked for.
    if said.line in text.line or (not answer.isascii() and squeezed(answer) in squeezed(passage)):
        return True
    numbers, stems = said.numbers - asked.numbers, said.stems - asked.stems
    if not numbers and not stems:
        # An answer in words of the question alone chooses between them.
        numbers, stems = said.numbers, said.stems
    return numbers <= text.numbers and len(stems & text.stems) >= SHARE * len(stems)
