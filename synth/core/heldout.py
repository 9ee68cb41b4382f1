"""The held-out set: human questions that no prompt and no trainer ever sees.

Read by decontamination and by validation only. It is a file (JSONL, SQuAD JSON v1.1 or v2.0, CSV, TSV, parquet), or a
dataset of the hub or its folder; heldout_files.py and heldout_hub.py read them. What an item has says what it asks for,
and all items of a set ask for the same:

- an answer: `answers` (or `answer`); an empty list, or `unanswerable`, says that a refusal is right;
- a label: `label`, a class or a grade, of the text in `question` (or `text`);
- a text: `references` (or `reference`), which the reply is compared with.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import orjson

from synth.core.errors import RecordError, RunError, did_you_mean
from synth.core.heldout_files import SUFFIXES, Entry, read_file
from synth.core.jsonl import FileDigest, digest_file
from synth.core.records import content_id, folded
from synth.core.schemas import check

# What the items of a set ask for: an answer, a label (a class or a grade), or a text that is compared with references.
Task = Literal["qa", "labels", "free"]

_TASKS: Mapping[str, Task] = {
    "answer": "qa",
    "answers": "qa",
    "unanswerable": "qa",
    "label": "labels",
    "reference": "free",
    "references": "free",
}
_WORDS: Mapping[Task, str] = {"qa": "answers", "labels": "labels", "free": "references"}
_SINGLE: Mapping[str, str] = {"answers": "answer", "references": "reference"}
_HUB = re.compile(
    r"(?:hub:)?(?P<repo>[\w.-]+/[\w.-]+|(?<=hub:)[\w.-]+)(?:@(?P<revision>[\w./-]+))?"
    r"(?::(?P<config>[\w.-]+)(?=:))?(?::(?P<split>[\w.\[\]:%+-]+))?",
    re.ASCII,
)
_NUMBER = re.compile(r"[+-]?\d{1,40}(\.\d{1,40})?", re.ASCII)


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

    @property
    def names_document(self) -> bool:
        """Whether the file says which document the item is about; copies without an id of their own share one."""
        return self.document_id not in (self.id, self.id.rpartition("#")[0])

    @property
    def worded_answers(self) -> tuple[str, ...]:
        """The answers that give the item away where they stand elsewhere: none of a label, which any text may hold."""
        return () if self.label is not None else self.answers


@dataclass(frozen=True, slots=True)
class HeldoutSet:
    """The items in file order and the digest of the file that they came from.

    `labels` are those of a label set, in the order of grades where all are numbers. `path` is the source as it was
    named: of a dataset of the hub its name there, and then `digest` is of the items as canonical JSON. `unsaid` items
    have no answer and are not said to be unanswerable: splits that keep their answers secret look like that.
    """

    items: tuple[HeldoutItem, ...]
    digest: FileDigest
    path: Path
    task: Task = "qa"
    labels: tuple[str, ...] = ()
    unsaid: int = 0

    @property
    def name(self) -> str:
        """The source's name as reports show it: a file's without its folders, a dataset's in full."""
        return self.path.name if self.path.exists() else str(self.path)


def load_heldout(source: Path | str) -> HeldoutSet:
    """Read a held-out set.

    Args:
        source: a file, a folder of a dataset, or a dataset of the hub as `owner/name[@revision][[:config]:split]`, with
            `hub:` before it where a path has that name.

    Raises:
        ConfigError: the dataset of the hub cannot be loaded, or has no such split, or no column of an item.
        RecordError: a line or an entry is wrong (the error names it), or there is no question at all.
        RunError: the file is not there or cannot be read.
    """
    path, match = Path(source), _HUB.fullmatch(str(source))
    if path.is_file():
        digest = digest_file(path)
        found = _set(read_file(path), path)
        if path.suffix.lower() == ".parquet":  # whose lines mean nothing
            digest = FileDigest(digest.sha256, len(found.items))
        return HeldoutSet(found.items, digest, path, found.task, found.labels, found.unsaid)
    if path.is_dir() or (match is not None and not _meant_as_file(path)):
        from synth.core.heldout_hub import read_hub

        if match is None or path.is_dir():
            entries = read_hub(str(path), None, None, None, shown=str(source))
        else:
            entries = read_hub(match["repo"], match["revision"], match["config"], match["split"], shown=str(source))
        return _set(entries, path)
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    names = [other.name for other in beside if other.suffix.lower() in SUFFIXES]
    raise RunError(
        "cannot be read (there is no such file)",
        where=str(path),
        fix=f"{did_you_mean(path.name, names)}; " * bool(names) + "a dataset of the hub is owner/name",
    )


def _meant_as_file(path: Path) -> bool:
    """Whether a name that is no path here was meant as one: its ending is a file's, or its folder is there."""
    if str(path).startswith("hub:"):
        return False
    return path.is_absolute() or path.suffix.lower() in SUFFIXES or (path.parent != Path() and path.parent.is_dir())


def _set(entries: Iterable[Entry], path: Path) -> HeldoutSet:
    """Make the set of a source whose entries are these, with the digest of its items."""
    items, seen, first = list[HeldoutItem](), dict[str, str](), ""
    alike = Counter[str]()
    task: Task | None = None
    unsaid = 0
    for where, entry in entries:
        asked = _task(entry, where)
        if task is None:
            task, first = asked, where
        if asked != task:
            raise RecordError(
                f"the item has {_WORDS[asked]}, and that of {first} has {_WORDS[task]}",
                where=where,
                fix="make it two files: all items of one ask for the same thing",
            )
        item = _item(entry, where, alike)
        if item.id in seen:
            raise RecordError(f"the id {item.id!r} stands at {seen[item.id]} too", where=where, fix="make ids unique")
        seen[item.id] = where
        items.append(item)
        unsaid += item.unanswerable and not entry.get("unanswerable")
    if task is None:
        raise RecordError("the held-out file has no question", where=str(path), fix="see docs/verdict.md for formats")
    labels = _labels(items, seen) if task == "labels" else ()
    return HeldoutSet(tuple(items), _digest(items), path, task, labels, unsaid)


def _task(entry: Any, where: str) -> Task:  # noqa: ANN401  (checked against the schema later)
    """Return what an entry asks for."""
    fix = "see schemas/heldout.schema.json"
    if not isinstance(entry, Mapping):
        raise RecordError("the item is no object with names and values", where=where, fix=fix)
    there = [key for key in _TASKS if entry.get(key) is not None and not (key == "unanswerable" and not entry[key])]
    tasks = {_TASKS[key] for key in there}
    if len(tasks) == 1:
        return tasks.pop()
    if not there:
        raise RecordError(
            "the item has no 'answer', 'answers', 'label', 'reference' or 'references'",
            where=where,
            fix=f'{fix}; a question without an answer has "unanswerable": true',
        )
    named = " and ".join(repr(key) for key in there)
    raise RecordError(f"the item has {named}, but asks for one thing", where=where, fix=f"keep one of them; {fix}")


def _item(entry: Mapping[str, Any], where: str, alike: Counter[str]) -> HeldoutItem:
    """Build an item. `alike` counts the items without an id of their own that say the same."""
    given = {key: value for key, value in entry.items() if value is not None}
    if "question" in given and "text" in given:
        raise RecordError(
            "the item has 'question' and 'text', which are two names for one thing",
            where=where,
            fix="keep one of them; the passage that a question is about is 'context'",
        )
    check(given, "heldout", where=where)
    question = given.get("question") or given["text"]
    label = _label(given["label"], where) if "label" in given else None
    answers = (label,) if label is not None else _answers(given, where)
    key = own = given.get("id")
    if key is None:
        key = own = content_id(question, list(answers))
        alike[own] += 1
        if alike[own] > 1:
            key = f"{own}#{alike[own]}"
    document = given.get("document_id", "")
    return HeldoutItem(
        id=str(key),
        question=question,
        answers=answers,
        # Copies of one question are no questions about several texts.
        document_id=str(own) if document == "" else str(document),
        context=given.get("context", ""),
        unanswerable=not answers,
        label=label,
    )


def _answers(given: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Return the answers or references of an item, each once; none where it says that there is none."""
    for several, one in _SINGLE.items():
        if several in given and one in given:
            raise RecordError(f"the item has {one!r} and {several!r}", where=where, fix="keep one of them")
    found = given.get("answers", given.get("references"))
    if found is None:
        found = [text for one in _SINGLE.values() if (text := given.get(one)) is not None]
    if found and given.get("unanswerable"):
        raise RecordError(
            "the item is said to be unanswerable and has an answer", where=where, fix="take one of the two out"
        )
    if not found and given.get("unanswerable") is False:
        raise RecordError(
            "the item is said not to be unanswerable and has no answer", where=where, fix="add the answer"
        )
    return tuple(dict.fromkeys(found))


def _label(value: str | float | bool, where: str) -> str:
    """Return a label as text: 3 and 3.0 are the same grade, and a truth value is true or false."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value.strip()
    if not math.isfinite(value):
        raise RecordError(f"the label is {value}", where=where, fix="give each item a label")
    return str(int(value)) if value == int(value) else repr(value)


def _labels(items: Sequence[HeldoutItem], places: Mapping[str, str]) -> tuple[str, ...]:
    """Return the labels of the items in order: by size where all are numbers, else by name."""
    firsts: dict[str, HeldoutItem] = {}
    known: dict[str, str] = {}
    for item in items:
        assert item.label is not None
        firsts.setdefault(item.label, item)
    for label, item in firsts.items():
        twin = known.setdefault(folded(label), label)
        if twin != label:
            raise RecordError(
                f"the label {label!r} differs from {twin!r} of {places[firsts[twin].id]} in case, white space or "
                "Unicode form alone",
                where=places[item.id],
                fix="write each label in one way",
            )
    if all(_NUMBER.fullmatch(label) for label in firsts):
        return tuple(sorted(firsts, key=lambda label: (Decimal(label), label)))
    return tuple(sorted(firsts))


def _digest(items: Sequence[HeldoutItem]) -> FileDigest:
    """Return SHA-256 of the items as canonical JSON, one a line, and their number."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(orjson.dumps(item, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE))
    return FileDigest(digest.hexdigest(), len(items))
