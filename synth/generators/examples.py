"""A user's own pairs as samples of style: shown to the teacher, never put into the dataset."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from synth.core.errors import RecordError, did_you_mean
from synth.core.records import content_id
from synth.generators.lexical import same_words

SHOWN = 3
_NAMES = (("question", "answer"), ("prompt", "completion"), ("instruction", "output"))


class Example(NamedTuple):
    """A question and an answer that a user wrote."""

    question: str
    answer: str


def load_examples(path: Path) -> tuple[Example, ...]:
    """Read examples from JSONL or CSV: `question` and `answer`, or TRL's `prompt` and `completion`.

    Raises:
        RecordError: the file cannot be read, has no example, or a line lacks a question or an answer; it is named.
    """
    read = _csv_rows if path.suffix.lower() in {".csv", ".tsv"} else _json_rows
    try:
        examples = tuple(_example(row, f"{path}:{line}") for line, row in read(path))
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"cannot be read ({error})", where=str(path)) from error
    if not examples:
        raise RecordError("there is no example", where=str(path), fix='write a line {"question": "…", "answer": "…"}')
    return examples


def _json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise RecordError(f"not JSON ({error})", where=f"{path}:{number}") from error
            if not isinstance(row, dict):
                raise RecordError("not an object", where=f"{path}:{number}")
            yield number, row


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        try:
            for row in reader:
                yield reader.line_num, row
        except csv.Error as error:
            raise RecordError(f"not CSV ({error})", where=f"{path}:{reader.line_num}") from error


def _example(row: Mapping[str, Any], where: str) -> Example:
    for question, answer in _NAMES:
        if question in row:
            return Example(_text(row, question, "user", where), _text(row, answer, "assistant", where))
    found = [str(name) for name in row]
    raise RecordError("'question' is missing", where=where, fix=did_you_mean("question", found))


def _text(row: Mapping[str, Any], name: str, role: str, where: str) -> str:
    """Return a field as text; of a list of messages, the last one of `role`."""
    value = row.get(name)
    if isinstance(value, list):
        turns = [m.get("content") for m in value if isinstance(m, dict) and m.get("role") == role]
        value = turns[-1] if turns else None
    if not isinstance(value, str) or not value.strip():
        raise RecordError(f"{name!r} is {'empty' if value == '' else 'missing or no text'}", where=where)
    return value.strip()


def shown_examples(examples: Sequence[Example], key: str) -> list[dict[str, str]]:
    """Return at most three examples for a prompt, chosen by `key` alone, such as a passage's id."""
    chosen = sorted(examples, key=lambda example: content_id(key, list(example)))[:SHOWN]
    return [{"question": example[0], "answer": example[1]} for example in chosen]


def copies_example(question: str, examples: Iterable[Example]) -> bool:
    """Whether a question is one of the examples, word for word."""
    words = same_words(question)
    return any(words == same_words(example[0]) for example in examples)
