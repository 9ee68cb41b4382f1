"""What `tune explain` tells: the answers to one item, the rows near it, the passages behind it, and what follows."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from synth.core.records import Passage, Record
from tune.phrases import counted

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class ContenderAnswer:
    """What a contender was asked and said. `values` are its scores, 0 to 1; `line` is all of it as it is on file."""

    contender: str
    text: str | None
    values: Mapping[str, float]
    line: Mapping[str, Any] = field(repr=False)

    @property
    def doubts(self) -> list[str]:
        """What there is to say against the answer beside its scores."""
        said = []
        if self.line.get("error"):
            said.append(f"no answer: {self.line['error']}")
        if self.line.get("finish_reason") == "length":
            said.append("cut off at max_tokens")
        if self.line.get("refused"):
            said.append("a refusal")
        if self.line.get("supported") is False:
            said.append("no passage supports it")
        return said


@dataclass(frozen=True, slots=True)
class NearRecord:
    """A training row that asks something near, and where it came from.

    `similarity` is the cosine of the two questions' words, 0 to 1. `record` and `passage` are None for a row that
    did not come from this run's records; `calls` are the journal's entries of the teacher's calls that made it.
    """

    id: str
    question: str
    answer: str
    document_id: str
    similarity: float
    record: Record | None
    passage: Passage | None
    calls: tuple[Mapping[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the row and its origin as JSON values."""
        return {
            "id": self.id,
            "question": self.question,
            "answer": self.answer,
            "document_id": self.document_id,
            "similarity": self.similarity,
            "record": None if self.record is None else self.record.to_json(),
            "passage": None if self.passage is None else self.passage.to_json(),
            "calls": [dict(call) for call in self.calls],
        }


@dataclass(frozen=True, slots=True)
class Source:
    """A passage that should have produced a record for the item, and what came of it.

    Attributes:
        passage: found by BM25 with the question and its answers.
        score: of BM25, higher is better; comparable within one story.
        holds_answer: whether an answer stands in it word for word; None for items without one.
        same_document: whether the held-out file names its document.
        records: all that were made from it.
        splits: where those that were kept stand, by id: "train", "validation", or "" where they stand in neither.
        quarantined: the reasons of calls about it that gave no record, and how often.
    """

    passage: Passage
    score: float
    holds_answer: bool | None
    same_document: bool
    records: tuple[Record, ...]
    splits: Mapping[str, str]
    quarantined: Mapping[str, int]

    @property
    def kept(self) -> list[Record]:
        """The records that were kept."""
        return [record for record in self.records if record.decision is not None and record.decision.keep]

    @property
    def reasons(self) -> dict[str, int]:
        """How many rejected records each rule spoke against, most first; several may speak against one record."""
        counts: Counter[str] = Counter()
        for record in self.records:
            if record.decision is not None and not record.decision.keep:
                counts.update({reason.partition(":")[0] for reason in record.decision.reasons})
        return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))

    def to_json(self) -> dict[str, Any]:
        """Return the passage and what came of it as JSON values."""
        return {
            "passage": self.passage.to_json(),
            "score": self.score,
            "holds_answer": self.holds_answer,
            "same_document": self.same_document,
            "records": len(self.records),
            "kept": len(self.kept),
            "rejected": sum(record.decision is not None and not record.decision.keep for record in self.records),
            "reasons": self.reasons,
            "quarantined": dict(self.quarantined),
            "pairs": [_pair(record, self.splits.get(record.id)) for record in self.records],
        }


@dataclass(frozen=True, slots=True)
class ItemStory:
    """All that the run knows of one held-out item. `said` is what follows from it, in plain words."""

    candidate: str
    item_id: str
    document_id: str
    question: str
    references: tuple[str, ...]
    unanswerable: bool
    wanted: str | None
    answers: tuple[ContenderAnswer, ...]
    nearest: tuple[NearRecord, ...]
    sources: tuple[Source, ...]
    said: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the story as JSON values."""
        return {
            "candidate": self.candidate,
            "item": {
                "id": self.item_id,
                "document_id": self.document_id,
                "question": self.question,
                "references": list(self.references),
                "unanswerable": self.unanswerable,
                "wanted": self.wanted,
            },
            "answers": [dict(answer.line) for answer in self.answers],
            "nearest": [row.to_json() for row in self.nearest],
            "sources": [source.to_json() for source in self.sources],
            "said": list(self.said),
        }


def conclusions(story: ItemStory, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    """Yield what follows: whether the documents hold the answer, what the dataset made of it, who knew it."""
    if not rows["train"]:
        yield "The run has no training set of its own, so what the candidate was trained on cannot be shown."
    if story.unanswerable:
        yield "No answer is right here: a refusal is."
    yield from _said_of_scores(story.answers)
    # Another document may hold the same words and speak of something else.
    holders = sorted((source for source in story.sources if source.holds_answer), key=lambda s: not s.same_document)
    if not story.sources:
        yield "No passage of the run shares a word with it."
    elif story.references and story.wanted is None and not holders:
        yield (
            "None of these passages holds the answer word for word: the documents may not say it, or say it in other "
            "words."
        )
    for source in holders[:1]:
        yield from _said_of(source, story.references)
    if rows["train"] and not story.nearest:
        yield "No training question shares a word with it."
    documents = {split: {str(row.get("document_id")) for row in held} for split, held in rows.items()}
    if story.document_id in documents["validation"] - documents["train"]:
        yield "Its document is one of those that were kept for the validation loss, so no row about it was trained on."


def _said_of_scores(answers: Sequence[ContenderAnswer]) -> Iterator[str]:
    """Say who answered best, by the first measure on file, and how far the tuned student is from it."""
    metric = next((name for answer in answers for name in answer.values), "")
    values = {answer.contender: answer.values[metric] for answer in answers if metric in answer.values}
    if not values:
        return
    best = max(values.values())
    leaders = ", ".join(name for name, value in values.items() if value == best)
    own = f"; tuned: {values['tuned']:.2f}" if "tuned" in values and values["tuned"] < best else ""
    yield f"No contender scored above 0 ({metric})." if best == 0 else f"Best by {metric}: {leaders} ({best:.2f}){own}."


def _said_of(source: Source, references: Sequence[str]) -> Iterator[str]:
    """Say what became of the passage that holds the answer."""
    where = f"The passage {source.passage.id} of {source.passage.document_id} holds the answer"
    kept = source.kept
    teaching = [record for record in kept if any(holds(record.answer, text) for text in references)]
    undecided = sum(record.decision is None for record in source.records)
    if not source.records:
        reasons = ", ".join(source.quarantined)
        yield f"{where}, and gave no record" + (f" ({reasons})." if reasons else ".")
    elif undecided:
        yield f"{where}; {counted(undecided, 'record')} of it are not filtered yet."
    elif not kept:
        made = counted(len(source.records), "record")
        yield f"{where}; {made} came of it, and none was kept ({_counted(source.reasons)})."
    elif not teaching:
        lost = [record for record in source.records if any(holds(record.answer, text) for text in references)]
        yield (
            f"{where}; {len(kept)} of {counted(len(source.records), 'record')} stayed, and none with this answer"
            + (f"; {counted(len(lost), 'record')} with it went." if lost else ".")
        )
    else:
        trained = sum(source.splits.get(record.id) == "train" for record in teaching)
        yield (
            f"{where}, and {counted(len(teaching), 'kept record')} with this answer came of it, "
            f"{trained} of them in the training set."
        )


def holds(text: str, part: str) -> bool:
    """Whether the words of `part` stand in `text` in a row; case and punctuation do not count."""
    words = _plain(part)
    return bool(words.strip()) and words in _plain(text)


def _plain(text: str) -> str:
    return f" {' '.join(_WORD.findall(text.casefold()))} "


def _pair(record: Record, split: str | None) -> dict[str, Any]:
    decision = record.decision
    return {
        "id": record.id,
        "question": record.question,
        "answer": record.answer,
        "kept": None if decision is None else decision.keep,
        "reasons": [] if decision is None else list(decision.reasons),
        "split": (split or None) if decision is not None and decision.keep else None,
    }


def _counted(reasons: Mapping[str, int]) -> str:
    shown = [f"{reason} {count}" for reason, count in [*reasons.items()][:4]]
    return ", ".join(shown) + (", …" if len(reasons) > 4 else "")
