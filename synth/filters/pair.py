"""What the scorers read of a record, made once for all of them."""

from typing import TYPE_CHECKING

from synth.core.records import Record
from synth.filters.words import Text, read

if TYPE_CHECKING:
    from collections.abc import Sequence

# More than a portion of records; they are in memory anyway while their portion is scored.
_MOST = 4096


class Pair:
    """A record as words: its question, its answer, its evidence (None where it names none) and its context.

    `asked` and `answered` are the texts of the last turns; `shows_context` is the record's.
    """

    __slots__ = (
        "answer",
        "answered",
        "asked",
        "context",
        "evidence",
        "faults",
        "is_qa",
        "kind",
        "laid",
        "question",
        "record",
        "shows_context",
    )

    def __init__(self, record: Record) -> None:
        self.record = record
        self.kind = kind = record.kind
        self.is_qa = kind == "qa"
        self.asked, self.answered = asked, answered = record.question, record.answer
        self.question, self.answer, self.context = read(asked), read(answered), read(record.context)
        self.evidence: Text | None = None if record.evidence is None else read(record.evidence.text)
        self.shows_context = len(record.context) <= len(asked) and record.shows_context
        self.laid: object = None
        """What alignment.py makes of the pair; kept here since two scorers ask for it."""
        self.faults: dict[object, Sequence[str]] = {}
        """What was found wrong with the pair, by what found it."""


_PAIRS: dict[int, Pair] = {}


def pair_of(record: Record) -> Pair:
    """Return what the scorers read of `record`; a record that was read of late is not read again."""
    pair = _PAIRS.get(id(record))
    # The pair holds its record, so no other one can have its id meanwhile.
    if pair is None or pair.record is not record:
        if len(_PAIRS) >= _MOST:
            _PAIRS.clear()
        _PAIRS[id(record)] = pair = Pair(record)
    return pair


def forget_pairs() -> None:
    """Let go of all records."""
    _PAIRS.clear()
