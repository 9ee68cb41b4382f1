"""A scorer of your own: the share of an answer's sentences that are short enough to be read aloud.

Run in this folder:

    synth filter RUN --scorer plain_english:PlainEnglish --rule "plain_english >= 0.8"
"""

import re
from collections.abc import Sequence

from synth import Record

LONGEST = 25  # words a sentence


class PlainEnglish:
    """Gives `plain_english`, from 0 to 1; None for an answer of a few words, of which it says nothing."""

    name = "plain_english"

    def score(self, records: Sequence[Record]) -> list[float | None]:
        """Return one score a record, in order."""
        return [self._share(record.answer) for record in records]

    def explain(self, record: Record) -> list[str]:
        """Say what is wrong where the rule fails; without this method the reason is the number."""
        longest = max(len(sentence.split()) for sentence in self._sentences(record.answer))
        return [f"a sentence of {longest} words"]

    def _share(self, answer: str) -> float | None:
        sentences = self._sentences(answer)
        if len(answer.split()) < LONGEST:
            return None
        return sum(len(sentence.split()) <= LONGEST for sentence in sentences) / len(sentences)

    def _sentences(self, text: str) -> list[str]:
        return [part for part in re.split(r"(?<=[.!?])\s+", text) if part.strip()]
