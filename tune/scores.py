"""One answer, scored: what the table, the statistics and the verdict are made from."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Score:
    """One answer of one contender to one item of the held-out set.

    Attributes:
        item_id: the item.
        document_id: the document that it is about: differences are clustered by it.
        contender: who answered.
        values: by metric (`f1`, `em`, `rouge_l`, `correct`, a user's own), from 0 to 1; a metric that could not
            be measured here is missing.
        words: the length of the answer.
        cut_off: whether max_tokens cut it off.
        unanswerable: whether the right answer is a refusal.
        refused: whether the answer is a refusal.
        supported: whether a passage supports the answer; None for a refusal, and where there is no passage to look in.
        confidence: the mean probability of its tokens (geometric), 0 to 1; None where the endpoint gives none.
        label: the label that was read from the answer, of label sets; None where none could be read.
        wanted: the right label, of label sets.
        prompt_tokens: of the call.
        completion_tokens: of the call.
        seconds: from sending the call to its reply; None where it was not timed.
        in_flight: how many calls were on the way at once at most when it was timed; 0 where that is not known.
    """

    item_id: str
    document_id: str
    contender: str
    values: Mapping[str, float] = field(default_factory=dict)
    words: int = 0
    cut_off: bool = False
    unanswerable: bool = False
    refused: bool = False
    supported: bool | None = None
    confidence: float | None = None
    label: str | None = None
    wanted: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float | None = None
    in_flight: int = 0
