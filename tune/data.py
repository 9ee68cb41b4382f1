"""The rows of a run's dataset, read and checked.

Nothing is empty, nothing was edited behind the manifest's back, no document stands on both sides of the split, and
nothing is longer than the student can read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from synth.core.errors import RecordError, RunError
from synth.core.jsonl import FileDigest, digest_file, read_lines
from synth.core.records import Message
from synth.core.runs import Run

_NAMED = 5  # How many rows an error names before it only counts.


@dataclass(frozen=True, slots=True)
class Row:
    """One line of dataset/*.jsonl: the turns the student reads and the turn it learns to write."""

    id: str
    document_id: str
    prompt: tuple[Message, ...]
    completion: tuple[Message, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the row as TRL wants it (conversational prompt and completion), with its id."""
        return {
            "id": self.id,
            "prompt": [m.to_json() for m in self.prompt],
            "completion": [m.to_json() for m in self.completion],
        }


@dataclass(frozen=True, slots=True)
class Dataset:
    """Both sides of the split, and the digests of the files they came from."""

    train: tuple[Row, ...]
    validation: tuple[Row, ...]
    inputs: dict[str, FileDigest]


@dataclass(frozen=True, slots=True)
class Measured:
    """A row as the student's template writes it, with the lengths of its prompt and of the whole in tokens."""

    row: Row
    prompt_tokens: int
    tokens: int


def dataset_inputs(run: Run) -> dict[str, FileDigest]:
    """Return the digests of the dataset's files, after proving that they are the ones the filter wrote.

    Raises:
        RunError: the filter did not run yet, or a file is missing or has changed since.
    """
    entry = run.stage("filter", made_by=f"synth filter {run.path}")
    inputs = {}
    for path in (run.train_path, run.validation_path):
        name = path.relative_to(run.path).as_posix()
        recorded = entry.outputs.get(name)
        if recorded is None and not path.exists():
            continue
        if recorded is None or digest_file(path) != recorded:
            raise RunError(
                "the file is not the one that the filter wrote",
                where=str(path),
                fix=f"`synth filter {run.path}` writes it anew; to train on rows of your own, change the records "
                "or the filter's rules, so that the manifest stays true",
            )
        inputs[name] = recorded
    return inputs


def read_dataset(run: Run) -> Dataset:
    """Read and check the rows that the filter kept.

    Raises:
        RunError: no filter stage, files changed by hand, no row to train on, or a document on both sides.
        RecordError: a line is not a row; the error names the file and the line.
    """
    inputs = dataset_inputs(run)
    train = _read_rows(run.train_path)
    validation = _read_rows(run.validation_path) if run.validation_path.exists() else ()
    if not train:
        raise RunError(
            "there is no row to train on",
            where=str(run.train_path),
            fix=f"see what the filter rejected and why in {run.records_path}",
        )
    both = {row.document_id for row in train} & {row.document_id for row in validation}
    if both:
        raise RunError(
            f"{_some(sorted(both), 'document')} stand in the training and in the validation rows, "
            "so the validation loss would flatter the student",
            where=str(run.validation_path),
            fix=f"run `synth filter {run.path}` again: it splits by document",
        )
    return Dataset(train, validation, inputs)


def _read_rows(path: Path) -> tuple[Row, ...]:
    return tuple(_row(value, f"{path}:{number}") for number, value in read_lines(path))


def _row(value: Any, where: str) -> Row:  # noqa: ANN401  (any JSON)
    try:
        row = Row(
            id=value["id"],
            document_id=value["document_id"],
            prompt=tuple(Message.from_json(m) for m in value["prompt"]),
            completion=tuple(Message.from_json(m) for m in value["completion"]),
        )
        whole = all(isinstance(m.content, str) for m in (*row.prompt, *row.completion))
    except (KeyError, TypeError) as error:
        raise RecordError(
            f"not a row with id, document_id, prompt and completion ({type(error).__name__}: {error})",
            where=where,
            fix="run `synth filter` again",
        ) from error
    if not whole or not row.prompt or not any(m.content.strip() for m in row.prompt):
        raise RecordError(f"row {row.id}: the prompt is empty", where=where, fix="reject it in the filter")
    if [m.role for m in row.completion] != ["assistant"]:
        raise RecordError(
            f"row {row.id}: the completion is not one assistant turn", where=where, fix="reject it in the filter"
        )
    if not row.completion[0].content.strip():
        raise RecordError(f"row {row.id}: the completion is empty", where=where, fix="reject it in the filter")
    return row


def measure(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase) -> list[Measured]:
    """Render every row with the tokenizer's chat template, and count its tokens.

    Raises:
        RecordError: the template refuses a row, or writes a prompt alone otherwise than before its completion, so
            that the student would be trained on another prompt than it is asked at inference.
    """
    return [_measure(row, tokenizer) for row in rows]


def _measure(row: Row, tokenizer: PreTrainedTokenizerBase) -> Measured:
    data = row.to_json()
    try:
        prompt = _ids(tokenizer, data["prompt"], add_generation_prompt=True)
        whole = _ids(tokenizer, data["prompt"] + data["completion"], add_generation_prompt=False)
    except (TemplateError, TypeError, ValueError) as error:
        raise RecordError(
            f"row {row.id}: the student's chat template refuses it ({error})",
            fix="write prompts the template knows (some know no system turn), or use --chat-template plain",
        ) from error
    if whole[: len(prompt)] != prompt:
        raise RecordError(
            f"row {row.id}: the student's chat template writes the prompt alone otherwise than before its "
            f"completion (ends {tokenizer.decode(prompt[-12:])!r} and {tokenizer.decode(whole[-12:])!r})",
            fix="use --chat-template plain, or mend the student's template",
        )
    return Measured(row, len(prompt), len(whole))


def _ids(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], *, add_generation_prompt: bool
) -> list[int]:
    # The very call that TRL makes, so that the two cannot differ.
    encoded = tokenizer.apply_chat_template(
        messages, tokenize=True, return_dict=True, add_generation_prompt=add_generation_prompt
    )
    ids: list[int] = encoded["input_ids"]
    return ids


def within(rows: Sequence[Measured], max_length: int | None, *, drop: bool) -> tuple[list[Measured], list[Measured]]:
    """Split the rows into those of at most `max_length` tokens and the longer ones; no row is cut.

    Raises:
        RecordError: some are longer and `drop` is false; the first of them are named with their lengths.
    """
    if max_length is None:
        return list(rows), []
    fits = [row for row in rows if row.tokens <= max_length]
    longer = [row for row in rows if row.tokens > max_length]
    if longer and not drop:
        named = _some([f"{m.row.id} ({m.tokens} tokens)" for m in longer], "row")
        raise RecordError(
            f"longer than {max_length} tokens: {named}",
            fix="raise --max-length, take a student with a longer context, or leave them out with --on-overflow drop",
        )
    return fits, longer


def _some(names: Sequence[str], noun: str) -> str:
    more = len(names) - _NAMED
    listed = ", ".join(names[:_NAMED])
    plural = noun if len(names) == 1 else f"{noun}s"
    return f"{len(names)} {plural}: {listed}" + (f" and {more} more" if more > 0 else "")
