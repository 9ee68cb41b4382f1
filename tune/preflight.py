"""What has to be true before a step is trained.

Every row's labels are its completion, whole, with a token at the end that replies stop on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from synth.core.errors import RecordError
from tune.data import Measured
from tune.student import Student

_ROWS_AT_ONCE = 64
_IGNORED = -100  # The label that counts in no loss, in torch and TRL.


@dataclass(frozen=True, slots=True)
class Labels:
    """What the labels of a set of rows were proven to be; counts are in tokens."""

    rows: int
    tokens: int
    labelled: int
    stop_token: str
    stop_id: int


def check_labels(
    prepared: Sequence[Any],
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]],
    measured: Sequence[Measured],
    student: Student,
) -> Labels:
    """Prove on the batches that TRL will train on that each row is whole and labelled as it should be.

    Every row goes through TRL's own collator: its prompt is masked, its completion is labelled from the first token
    to the last, and the last one (white space aside) is a token that generation stops on.

    Args:
        prepared: the trainer's dataset, tokenized by TRL, in the order of `measured`.
        collate: the trainer's collator.
        measured: the rows as this project rendered them.
        student: whose stop tokens count.

    Raises:
        RecordError: a row is not so; the error names it and the fix. Nothing was trained.
    """
    if len(prepared) != len(measured):
        raise RecordError(
            f"TRL kept {len(prepared)} of {len(measured)} rows", fix="report this: rows must never vanish"
        )
    tokens = labelled = 0
    stops: dict[int, int] = {}
    blank = _BlankTokens(student.tokenizer)
    for start in range(0, len(measured), _ROWS_AT_ONCE):
        rows = measured[start : start + _ROWS_AT_ONCE]
        examples = [prepared[start + i] for i in range(len(rows))]
        batch = collate([{"input_ids": e["input_ids"], "labels": e["labels"]} for e in examples])
        for i, row in enumerate(rows):
            if examples[i]["id"] != row.row.id:
                raise RecordError(f"row {row.row.id}: TRL put another row in its place", fix="report this")
            real = int(batch["attention_mask"][i].sum())
            ids = batch["input_ids"][i].tolist()[:real]
            stop = _check_row(row, ids, batch["labels"][i].tolist(), student, blank)
            stops[stop] = stops.get(stop, 0) + 1
            tokens += row.tokens
            labelled += row.tokens - row.prompt_tokens
    stop = max(stops, key=lambda i: stops[i])
    return Labels(len(measured), tokens, labelled, student.tokenizer.convert_ids_to_tokens(stop), stop)


class _BlankTokens:
    """Remembers which tokens are white space alone."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, bool] = {}

    def __contains__(self, token: int) -> bool:
        if token not in self._known:
            self._known[token] = not self._tokenizer.decode([token]).strip()
        return self._known[token]


def _check_row(measured: Measured, ids: list[int], labels: list[int], student: Student, blank: _BlankTokens) -> int:
    """Return the stop token that ends the row's labels."""
    where = f"row {measured.row.id}"
    if len(ids) != measured.tokens:
        raise RecordError(
            f"{where}: TRL would train on {len(ids)} of its {measured.tokens} tokens",
            fix="report this: no row may be cut",
        )
    answer = labels[measured.prompt_tokens : len(ids)]
    if all(label == _IGNORED for label in answer):
        raise RecordError(
            f"{where}: all its labels are masked, it would teach nothing",
            fix="the student's chat template writes no assistant turn; use --chat-template plain",
        )
    if any(label != _IGNORED for label in labels[: measured.prompt_tokens]) or any(
        label != _IGNORED for label in labels[len(ids) :]
    ):
        raise RecordError(
            f"{where}: tokens of the prompt or the padding are labelled, the student would learn to write questions",
            fix="use --chat-template plain, or report this",
        )
    if answer != ids[measured.prompt_tokens :]:
        raise RecordError(f"{where}: a part of the completion is masked", fix="report this")
    while answer and answer[-1] in blank:
        answer.pop()
    if not answer or answer[-1] not in student.stop_ids:
        tokens = student.tokenizer.convert_ids_to_tokens(answer[-1:] + sorted(student.stop_ids))
        raise RecordError(
            f"{where}: its last labelled token is {tokens[0]!r}, and the student stops only on "
            f"{' or '.join(map(repr, tokens[1:]))}, so it would never learn to stop",
            fix="use --chat-template plain, or an instruction-tuned student whose template ends a turn with one",
        )
    if any(token in student.stop_ids for token in answer[:-1]):
        raise RecordError(
            f"{where}: its completion holds a stop token in the middle, so replies would break off there",
            fix="reject the row in the filter: its text spells a special token",
        )
    return answer[-1]
