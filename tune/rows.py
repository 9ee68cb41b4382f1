"""What a student is trained on, row by row, before and after its tokenizer."""

from dataclasses import dataclass, field
from typing import Any

from synth.core.jsonl import FileDigest
from synth.core.records import Message

IGNORED = -100
"""The label that counts in no loss, in torch and in TRL."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: what the student reads and what it learns to write.

    Conversational rows have turns on both sides; the completion starts with an assistant turn and may go on with more
    turns, of which the assistant's are labelled. Plain rows have text on both sides, and the prompt may be empty: then
    every token is labelled. `source` is where the row came from ("dataset", the name of a file or run, "replay"),
    `scores` are those of the record.
    """

    id: str
    document_id: str
    prompt: tuple[Message, ...] | str
    completion: tuple[Message, ...] | str
    source: str = "dataset"
    scores: dict[str, float | None] = field(default_factory=dict)

    @property
    def conversational(self) -> bool:
        """Whether both sides are turns, which go through the chat template."""
        return not isinstance(self.completion, str)

    def to_json(self) -> dict[str, Any]:
        """Return the row in TRL's prompt/completion format, with its id."""
        sides = {"prompt": self.prompt, "completion": self.completion}
        return {"id": self.id} | {
            name: side if isinstance(side, str) else [m.to_json() for m in side] for name, side in sides.items()
        }


@dataclass(frozen=True, slots=True)
class Dataset:
    """Both sides of the split, in the order of training where `ordered`.

    `inputs` are digests by name of what was read: a run's files by their paths in it, others by their source's name.
    `notes` say in words what was mixed, left out or split.
    """

    train: tuple[Row, ...]
    validation: tuple[Row, ...]
    inputs: dict[str, FileDigest]
    ordered: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rendered:
    """A row as token ids with a label each: the id itself, or IGNORED.

    `prompt_tokens` are those before the completion. `cut` is how many tokens were cut off its end.
    """

    row: Row
    ids: tuple[int, ...]
    labels: tuple[int, ...]
    prompt_tokens: int
    cut: int = 0

    @property
    def tokens(self) -> int:
        """Length of the whole row."""
        return len(self.ids)

    @property
    def labelled(self) -> int:
        """How many tokens count in the loss."""
        return sum(label != IGNORED for label in self.labels)
