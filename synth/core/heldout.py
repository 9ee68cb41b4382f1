"""The held-out set: human questions that no prompt and no trainer ever sees.

Read by decontamination and by validation only. Three formats, told apart by the file's name and
content: JSONL (`question`, `answers` or `answer`, optional `id`, `document_id`, `context`), SQuAD JSON
(v1.1 and v2.0), and CSV/TSV with the columns `question` and `answer` (or `answers`, split at `|`).
"""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from synth.core.errors import RecordError, RunError
from synth.core.jsonl import FileDigest, digest_file, read_lines
from synth.core.records import content_id
from synth.core.schemas import check

# What the items of a set ask for: an answer, a label (a class or a grade), or a text that is compared with references.
Task = Literal["qa", "labels", "free"]


@dataclass(frozen=True, slots=True)
class HeldoutItem:
    """A human question with every answer that counts as right.

    `document_id` groups questions about one text: intervals are clustered by it. Where the file names
    none, the question's own id stands in. `unanswerable` items have no answer: a refusal is right. `label` is the right
    label of an item of a label set, and its one answer.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    document_id: str
    context: str = ""
    unanswerable: bool = False
    label: str | None = None


@dataclass(frozen=True, slots=True)
class HeldoutSet:
    """The items in file order and the digest of the file that they came from.

    `labels` are those of a label set, in the order of grades where all are numbers.
    """

    items: tuple[HeldoutItem, ...]
    digest: FileDigest
    path: Path
    task: Task = "qa"
    labels: tuple[str, ...] = ()


def load_heldout(path: Path) -> HeldoutSet:
    """Read a held-out file.

    Raises:
        RecordError: a line or an entry is wrong (the error names it), or there is no question at all.
        RunError: the file cannot be read.
    """
    digest = digest_file(path)
    suffix = path.suffix.lower()
    if suffix in {".csv", ".tsv"}:
        entries = _read_table(path, "\t" if suffix == ".tsv" else ",")
    elif suffix == ".json":
        entries = _read_squad(path)
    else:
        entries = ((f"{path}:{number}", value) for number, value in read_lines(path))
    items, seen = [], dict[str, str]()
    for where, entry in entries:
        item = _item(entry, where)
        if item.id in seen:
            raise RecordError(f"the id {item.id!r} stands at {seen[item.id]} too", where=where, fix="make ids unique")
        seen[item.id] = where
        items.append(item)
    if not items:
        raise RecordError("the held-out file has no question", where=str(path), fix="see docs/verdict.md for formats")
    return HeldoutSet(tuple(items), digest, path)


def _item(entry: Any, where: str) -> HeldoutItem:  # noqa: ANN401  (checked against the schema below)
    check(entry, "heldout", where=where)
    answers = entry.get("answers") or [entry["answer"]]
    key = entry.get("id") or content_id(entry["question"], answers)
    return HeldoutItem(
        id=str(key),
        question=entry["question"],
        answers=tuple(answers),
        document_id=entry.get("document_id") or str(key),
        context=entry.get("context") or "",
    )


def _read_table(path: Path, delimiter: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            for row in reader:
                where = f"{path}:{reader.line_num}"
                if None in row:
                    raise RecordError("more columns than the header names", where=where, fix="quote the field")
                entry: dict[str, Any] = {key: value for key, value in row.items() if value}
                if "answers" in entry:
                    entry["answers"] = [part.strip() for part in entry["answers"].split("|") if part.strip()]
                yield where, entry
    except (csv.Error, UnicodeDecodeError) as error:
        raise RecordError(f"not a readable table ({error})", where=str(path), fix="save it as UTF-8 CSV") from error
    except OSError as error:
        raise RunError(f"cannot be read ({error.strerror})", where=str(path)) from error


def _read_squad(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        data = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise RecordError(f"not valid JSON ({error})", where=str(path), fix="mend the file") from error
    try:
        for a, article in enumerate(data["data"]):
            for p, paragraph in enumerate(article["paragraphs"]):
                for q, qa in enumerate(paragraph["qas"]):
                    if qa.get("is_impossible"):
                        continue
                    yield (
                        f"{path}: data[{a}].paragraphs[{p}].qas[{q}]",
                        {
                            "id": str(qa["id"]),
                            "question": qa["question"],
                            "answers": list(dict.fromkeys(answer["text"] for answer in qa["answers"])),
                            "document_id": f"{article.get('title') or a}",
                            "context": paragraph["context"],
                        },
                    )
    except (KeyError, TypeError) as error:
        raise RecordError(
            f"not in SQuAD's form (no {error})", where=str(path), fix="see docs/verdict.md for the formats"
        ) from error
