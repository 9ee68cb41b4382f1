"""The human pairs that a filter is calibrated on: questions with their answers and the passages they are about.

Any format of a held-out set (see synth/core/heldout.py) that carries passages. SQuAD files tell more, and it is
used: where each answer stands, and (v2.0) the questions that their passages cannot answer.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from synth.core.errors import ConfigError, RecordError
from synth.core.heldout import load_heldout


@dataclass(frozen=True, slots=True)
class HumanPair:
    """A human question about a passage, and every answer that counts as right.

    `starts` are the places of the answers in `context` (characters), in step with `answers`; -1 where an answer does
    not stand there word for word.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    context: str
    document_id: str
    starts: tuple[int, ...]

    @property
    def answer(self) -> str:
        """The first of the answers: the one that makes the human record."""
        return self.answers[0]


@dataclass(frozen=True, slots=True)
class HumanFile:
    """What one human file gives.

    `unanswerable` are pairs whose passage does not answer the question, with the answer that a person gave as a
    plausible one. `without_passage` counts the questions that name no passage and are of no use here.
    """

    path: Path
    sha256: str
    pairs: tuple[HumanPair, ...]
    unanswerable: tuple[HumanPair, ...]
    without_passage: int


@dataclass(frozen=True, slots=True)
class Humans:
    """The human pairs of one file or several."""

    files: tuple[HumanFile, ...]
    pairs: tuple[HumanPair, ...]
    unanswerable: tuple[HumanPair, ...]

    @property
    def where(self) -> str:
        """The files, for errors."""
        return ", ".join(str(file.path) for file in self.files)


def load_humans(paths: Path | Sequence[Path]) -> Humans:
    """Read human files: SQuAD JSON, JSONL or CSV.

    Of several files, documents and pairs of equal names are told apart by the number of their file.

    Raises:
        ConfigError: there is no file, or one stands there twice.
        RecordError: an entry is wrong, or no question has a passage.
        RunError: a file cannot be read.
    """
    files = tuple(_load(path) for path in ([paths] if isinstance(paths, Path) else paths))
    if not files:
        raise ConfigError("no human file is given", fix="name one with --human FILE")
    if len({file.sha256 for file in files}) < len(files):
        raise ConfigError("the same human file is given twice", where=", ".join(str(file.path) for file in files))
    if len(files) == 1:
        return Humans(files, files[0].pairs, files[0].unanswerable)
    return Humans(
        files,
        tuple(_marked(pair, number) for number, file in enumerate(files) for pair in file.pairs),
        tuple(_marked(pair, number) for number, file in enumerate(files) for pair in file.unanswerable),
    )


def _marked(pair: HumanPair, number: int) -> HumanPair:
    return replace(pair, id=f"{number}:{pair.id}", document_id=f"{number}:{pair.document_id}")


def _load(path: Path) -> HumanFile:
    """Read one human file.

    Raises:
        RecordError: an entry is wrong, or no question has a passage.
        RunError: the file cannot be read.
    """
    found = load_heldout(path)
    if found.task == "labels":
        raise RecordError(
            "the file has labels, and calibration needs answers",
            where=str(path),
            fix="name a file of questions with their answers and passages",
        )
    squad = path.suffix.lower() == ".json"
    places = _places(path) if squad else {}
    pairs = tuple(
        HumanPair(
            item.id,
            item.question,
            item.answers,
            item.context,
            item.document_id,
            tuple(_start(answer, item.context, places.get((item.id, answer), -1)) for answer in item.answers),
        )
        for item in found.items
        if item.context.strip() and not item.unanswerable
    )
    if not pairs:
        raise RecordError(
            "no question has a passage and an answer",
            where=str(path),
            fix="give each question its passage as `context`",
        )
    unanswerable = tuple(_impossible(path)) if squad else ()
    without_passage = sum(not item.context.strip() for item in found.items)
    return HumanFile(path, found.digest.sha256, pairs, unanswerable, without_passage)


def _start(answer: str, context: str, said: int) -> int:
    return said if context.startswith(answer, said) and said >= 0 else context.find(answer)


def _entries(path: Path) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield the document, the passage and each question of a SQuAD file that `load_heldout` has read."""
    for number, article in enumerate(orjson.loads(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))["data"]):
        for paragraph in article["paragraphs"]:
            for qa in paragraph["qas"]:
                yield str(article.get("title") or number), paragraph["context"], qa


def _places(path: Path) -> dict[tuple[str, str], int]:
    places: dict[tuple[str, str], int] = {}
    for _, _, qa in _entries(path):
        for answer in qa.get("answers") or ():
            start = answer.get("answer_start", -1)
            if isinstance(start, int):
                places.setdefault((str(qa["id"]), answer["text"]), start)
    return places


def _impossible(path: Path) -> Iterator[HumanPair]:
    for document, context, qa in _entries(path):
        plausible = [a["text"] for a in qa.get("plausible_answers") or () if str(a.get("text", "")).strip()]
        if qa.get("is_impossible") and plausible and str(qa.get("question", "")).strip():
            answer = plausible[0]
            yield HumanPair(str(qa["id"]), qa["question"], (answer,), context, document, (context.find(answer),))
