"""`closed_book`: what a model answers without the passage. What the student's base knows already teaches it nothing.

Ask the student's base, not the teacher, which may know the documents by heart.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from synth.core.calls import Teacher
from synth.core.prompts import load_template, read_template
from synth.core.records import Record
from synth.filters.model_base import ModelScores, in_short, not_applicable
from synth.filters.round_trip import agreement, spoken, stands_alone

KINDS = frozenset({"qa", "multi-hop"})


class ClosedBook:
    """Asks a model the record's question alone and compares its answer with the record's.

    Gives `closed_book`, the F1 of the two answers (0 to 1, SQuAD's): high where the model knew it. A rule such as
    `closed_book <= 0.8` leaves such records out. None for other kinds, later turns of a conversation and records
    whose question shows the passage.

    Args:
        template: a name in prompts/, or a file; it is given `question`. The reply is the answer as it stands.
        kinds: the kinds of record to score.
    """

    name = "closed_book"
    scores: tuple[str, ...] = ("closed_book",)

    def __init__(self, template: str | Path = "closed-book", *, kinds: Collection[str] = KINDS) -> None:
        self.template = load_template(template) if isinstance(template, str) else read_template(template)
        self.kinds = frozenset(kinds)

    @property
    def settings(self) -> dict[str, Any]:
        """What the score depends on beside the model."""
        return {"template": self.template.sha256, "kinds": sorted(self.kinds)}

    async def score(self, record: Record, model: Teacher) -> ModelScores:
        """Ask, and compare.

        Raises:
            InferenceError: no reply came.
        """
        if record.kind not in self.kinds or not stands_alone(record) or record.shows_context:
            return not_applicable(self)
        completion = await model.chat(self.template.messages(question=record.question))
        answer = spoken(completion.text)
        overlap, _ = agreement(answer, record.answer)
        said = "no answer" if answer is None else in_short(answer)
        return ModelScores({"closed_book": overlap}, f"without the passage: {said!r}", (completion.key,))
