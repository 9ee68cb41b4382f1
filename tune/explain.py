"""One held-out item's story: what each contender answered, and where the dataset would have had to teach it.

Read from the run's own files. The held-out file is not opened: what is shown of it stands in the answers.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from synth.core.errors import RunError, did_you_mean
from synth.core.jsonl import parse_line, read_blocks, read_lines
from synth.core.record_file import parse_record
from synth.core.records import Passage, Record
from synth.core.runs import Run, StageEntry
from synth.inference.journal import read_calls
from tune.candidate import choose_candidate
from tune.nearest import nearest_rows
from tune.passage_index import PassageIndex
from tune.registry import CURRENT, current_in
from tune.story import ContenderAnswer, ItemStory, NearRecord, Source, conclusions, holds

__all__ = ["ContenderAnswer", "ItemStory", "NearRecord", "Source", "explain"]

_BLOCK_BYTES = 1 << 20
_LEAST_PREFIX = 4


def explain(run: Run, item_id: str, candidate: str | None = None, *, top: int = 3) -> ItemStory:
    """Tell the story of one item of the held-out set that a candidate was judged on.

    Args:
        run: the run of the candidate.
        item_id: the item's id, or the only one that begins so (four characters or more).
        candidate: its name, or "current"; by default the one that was finished last of those that were judged.
        top: how many training records and how many passages are shown.

    Raises:
        RunError: no such candidate was judged, it was asked no such item, or a file of the run cannot be read.
    """
    name, entry = _judged(run, candidate)
    lines = _lines_of(run, name, entry, item_id)
    first = lines[0]
    rows = {split: _rows(path) for split, path in (("train", run.train_path), ("validation", run.validation_path))}
    passages = _passages(run)
    references = tuple(first["references"])
    wanted = first.get("wanted")
    # A label such as "3" is no text that a passage would hold.
    answers = () if wanted is not None else references
    found = _best(list(passages.values()), " ".join([first["question"], *answers]), top)
    near = nearest_rows([first["question"]], rows["train"], top)[0] if rows["train"] else []
    asked = {place.passage.id: place.asked for place, _ in found}
    records = _records(run, [row.row_id for row in near], [*asked.values()])
    splits = {str(row["id"]): split for split, held in rows.items() for row in held}
    quarantined = _quarantined(run, {*asked.values()})
    sources = tuple(
        Source(
            passage=place.passage,
            score=round(score, 4),
            holds_answer=any(holds(place.passage.text, text) for text in answers) if answers else None,
            same_document=place.passage.document_id == first["document_id"],
            records=tuple(record for record in records.values() if record.passage_id == place.asked),
            splits={record.id: splits.get(record.id, "") for record in records.values()},
            quarantined=quarantined.get(place.asked, {}),
        )
        for place, score in found
    )
    by_id = {str(row["id"]): row for row in rows["train"]}
    keys = [key for row in near if row.row_id in records for key in records[row.row_id].provenance.call_keys]
    calls = read_calls(run.journal_path, keys)
    nearest = []
    for row in near:
        record = records.get(row.row_id)
        made = () if record is None else record.provenance.call_keys
        place = None if record is None else passages.get(record.passage_id)
        nearest.append(
            NearRecord(
                id=row.row_id,
                question=row.text,
                answer=_last_turn(by_id[row.row_id]["completion"]),
                document_id=str(by_id[row.row_id].get("document_id", "")),
                similarity=row.similarity,
                record=record,
                passage=None if place is None else place.passage,
                calls=tuple(calls[key] for key in made if key in calls),
            )
        )
    story = ItemStory(
        candidate=name,
        item_id=first["id"],
        document_id=first["document_id"],
        question=first["question"],
        references=references,
        unanswerable=bool(first.get("unanswerable", not references)),
        wanted=wanted,
        answers=tuple(ContenderAnswer(line["contender"], line["answer"], _values(line), line) for line in lines),
        nearest=tuple(nearest),
        sources=sources,
        said=(),
    )
    return replace(story, said=(*_trained_on_other_rows(run, name), *conclusions(story, rows)))


def _judged(run: Run, candidate: str | None) -> tuple[str, StageEntry]:
    """Return the judged candidate that is meant, and the entry of its validation."""
    stages = run.stages()
    judged = {stage.partition(":")[2]: entry for stage, entry in stages.items() if stage.startswith("validate:")}
    if candidate is None:
        if not judged:
            raise RunError(
                "no candidate was judged yet",
                where=str(run.path),
                fix=f"run `tune validate {run.path} --heldout FILE` first",
            )
        candidate = max(judged, key=lambda name: (stages[f"sft:{name}"].finished, name))
    elif candidate == CURRENT:
        candidate = current_in(run).candidate
    name, _ = choose_candidate(run, candidate)
    if name not in judged:
        raise RunError(
            f"the candidate {name!r} was not judged yet",
            where=str(run.path),
            fix=f"run `tune validate {run.path} --candidate {name} --heldout FILE` first",
        )
    return name, judged[name]


def _lines_of(run: Run, name: str, entry: StageEntry, item_id: str) -> list[dict[str, Any]]:
    """Return each contender's line about the item, in the order that they were named in."""
    paths = [run.path / path for path in entry.outputs if _holds_answers(PurePosixPath(path))]
    lines = [line for path in paths for _, line in read_lines(path)]
    ids = dict.fromkeys(line["id"] for line in lines)
    wanted = [item_id] if item_id in ids else [one for one in ids if one.startswith(item_id)]
    if len(wanted) != 1 or (wanted[0] != item_id and len(item_id) < _LEAST_PREFIX):
        some = ", ".join([*ids][:5])
        near = did_you_mean(item_id, ids)
        several = f"{len(wanted)} ids begin so; write more of it"
        raise RunError(
            f"the candidate {name!r} was asked no item {item_id!r}",
            where=str(run.answers_path(name)),
            fix=several
            if len(wanted) > 1 and len(item_id) >= _LEAST_PREFIX
            else near
            if near.startswith("did")
            else f"its {len(ids)} items are called {some}{' and so on' if len(ids) > 5 else ''}",
        )
    order = [*entry.config.get("contenders", ())]
    own = [line for line in lines if line["id"] == wanted[0]]
    return sorted(own, key=lambda line: order.index(line["contender"]) if line["contender"] in order else len(order))


def _holds_answers(path: PurePosixPath) -> bool:
    """Whether a file of a validation has its answers: one a contender, or one for all as runs of 0.1 have it."""
    return path.suffix == ".jsonl" and (path.parent.name == "answers" or path.name == "answers.jsonl")


def _values(line: Mapping[str, Any]) -> dict[str, float]:
    values = line["values"] if "values" in line else {name: line.get(name) for name in ("f1", "em")}
    return {name: value for name, value in values.items() if value is not None}


def _rows(path: Path) -> list[Mapping[str, Any]]:
    return [row for _, row in read_lines(path)] if path.is_file() else []


@dataclass(frozen=True, slots=True)
class _Place:
    """A passage, and the id of the one that the teacher was asked about in its stead: an equal one's, or its own."""

    passage: Passage
    asked: str


def _passages(run: Run) -> dict[str, _Place]:
    found = {}
    for _, row in read_lines(run.passages_path) if run.passages_path.is_file() else ():
        passage = Passage.from_json(row)
        found[passage.id] = _Place(passage, row.get("duplicate_of") or passage.id)
    return found


def _best(places: Sequence[_Place], query: str, top: int) -> list[tuple[_Place, float]]:
    """Return the passages that share most with the query by BM25, best first; of equal texts one."""
    asked = [place for place in places if place.asked == place.passage.id]
    index = PassageIndex([place.passage.text for place in asked])
    scores = index.scores(query)
    return [(asked[number], float(scores[number])) for number in index.best(query, top)]


def _records(run: Run, ids: Sequence[str], passage_ids: Sequence[str]) -> dict[str, Record]:
    """Return the records with these ids or from these passages, by id; the other lines are not parsed."""
    found = {}
    for number, line in _lines_with(run.records_path, [*ids, *passage_ids]):
        _, record = parse_record(line, where=f"{run.records_path}:{number}")
        if record.id in ids or record.passage_id in passage_ids:
            found[record.id] = record
    return found


def _quarantined(run: Run, passage_ids: set[str]) -> dict[str, dict[str, int]]:
    """Return how often each reason was given for calls about these passages, by passage."""
    counts: dict[str, Counter[str]] = {}
    for number, line in _lines_with(run.quarantine_path, sorted(passage_ids)):
        row = parse_line(line, where=f"{run.quarantine_path}:{number}")
        if row.get("passage_id") in passage_ids:
            counts.setdefault(row["passage_id"], Counter())[str(row.get("reason"))] += 1
    return {passage_id: dict(counter.most_common()) for passage_id, counter in counts.items()}


def _lines_with(path: Path, texts: Sequence[str]) -> Iterator[tuple[int, bytes]]:
    if not texts or not path.is_file():
        return
    wanted = re.compile(b"|".join(re.escape(text.encode()) for text in texts))
    for block in read_blocks(path, _BLOCK_BYTES):
        for number, line in block:
            if wanted.search(line):
                yield number, line


def _trained_on_other_rows(run: Run, name: str) -> list[str]:
    """Return the doubt that the dataset on disk is not the one that the candidate learned from."""
    inputs = run.stages()[f"sft:{name}"].inputs
    if "dataset/train.jsonl" not in inputs:
        return ["The candidate was tuned on rows from elsewhere; those shown here are the run's own."]
    now = run.stages().get("filter")
    digest = None if now is None else now.outputs.get("dataset/train.jsonl")
    if digest is not None and digest != inputs["dataset/train.jsonl"]:
        return ["The dataset was filtered again since the candidate was tuned: the rows shown here are those of now."]
    return []


def _last_turn(completion: Any) -> str:  # noqa: ANN401  (a text, or messages)
    return completion if isinstance(completion, str) else str(completion[-1]["content"]) if completion else ""
