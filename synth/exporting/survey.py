"""Reading a filtered run for an export: records beside their dataset rows, and what a dataset card says of them."""

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synth.core.errors import RunError
from synth.core.jsonl import read_lines
from synth.core.runs import Run
from synth.exporting.formats import Layout, Shape, public_name, shape_of

SPLITS = ("train", "validation")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def joined(run: Run) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """Yield `(split, dataset row, record)` for each record, in order; split and row are empty for a rejected one.

    The filter writes the dataset in the order of the records, so both are read once and side by side.

    Raises:
        RunError: the dataset and the records do not belong together.
        RecordError: a line is not JSON; the error names it.
    """
    rows = {"train": read_lines(run.train_path), "validation": read_lines(run.validation_path)}
    heads = {split: next(lines, None) for split, lines in rows.items()}
    for number, record in read_lines(run.records_path):
        if not (record.get("decision") or {}).get("keep"):
            yield "", {}, record
            continue
        for split, head in heads.items():
            if head is not None and head[1].get("id") == record["id"]:
                yield split, head[1], record
                heads[split] = next(rows[split], None)
                break
        else:
            raise _mismatch(run, f"{run.records_path}:{number}", "a kept record is not in the dataset at its place")
    for split, head in heads.items():
        if head is not None:
            where = f"{dataset_path(run, split)}:{head[0]}"
            raise _mismatch(run, where, "the row is no kept record at its place")


def _mismatch(run: Run, where: str, what: str) -> RunError:
    return RunError(what, where=where, fix=f"run `synth filter {run.path}` again")


@dataclass(frozen=True, slots=True)
class ScoreSpread:
    """How a score is spread over the kept records that have it: count, mean and `QUANTILES`."""

    count: int
    mean: float
    quantiles: tuple[float, ...]


@dataclass(slots=True)
class Survey:
    """What the records of a run come to.

    Memory grows by eight bytes for each score of a kept record, and by what a document and a passage take in a set.
    """

    rows: Counter[str] = field(default_factory=Counter)
    documents: dict[str, set[str]] = field(default_factory=lambda: {split: set() for split in SPLITS})
    passages: set[int] = field(default_factory=set)  # hashes of their ids, which are smaller
    generators: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    teachers: Counter[str] = field(default_factory=Counter)
    scores: dict[str, "array[float]"] = field(default_factory=dict)
    all_scores: set[str] = field(default_factory=set)
    contaminated: int = 0
    shape: Shape = field(default_factory=Shape)
    unsaid: int = 0
    first_unsaid: str = ""
    with_history: int = 0
    text_bytes: Counter[str] = field(default_factory=Counter)

    @property
    def shared_documents(self) -> int:
        """How many documents have rows in both splits; none, since splits are by document."""
        return len(self.documents["train"] & self.documents["validation"])

    def spread(self) -> Mapping[str, ScoreSpread]:
        """Return the spread of each score by name, in order."""
        return {name: _spread(values) for name, values in sorted(self.scores.items())}


def survey(run: Run, layout: Layout, splits: Sequence[str]) -> Survey:
    """Read the run once and count; `layout` says which turns its format cannot express.

    Raises:
        RunError: as `joined`.
        RecordError: as `joined`.
    """
    found = Survey()
    for split, row, record in joined(run):
        if not split:
            reasons = record["decision"]["reasons"] if record.get("decision") else ()
            found.contaminated += any(reason.partition(":")[0] == "contaminated" for reason in reasons)
        elif split in splits:
            _add(found, split, row, record, layout)
    return found


def _add(found: Survey, split: str, row: Mapping[str, Any], record: Mapping[str, Any], layout: Layout) -> None:
    found.rows[split] += 1
    found.documents[split].add(record["document_id"])
    found.passages.add(hash(record["passage_id"]))
    found.generators[record["generator"]] += 1
    found.kinds[record["kind"]] += 1
    found.teachers[public_name(record["provenance"]["teacher"])] += 1
    for name, value in record["scores"].items():
        found.all_scores.add(name)
        if value is not None:
            found.scores.setdefault(name, array("d")).append(value)
    prompt, completion = row["prompt"], row["completion"]
    needs = shape_of(prompt, completion)
    found.with_history += needs.history
    if needs != found.shape:
        found.shape = Shape(found.shape.system or needs.system, found.shape.history or needs.history)
    if layout.format.row(prompt, completion, found.shape) is None:
        found.unsaid += 1
        found.first_unsaid = found.first_unsaid or record["id"]
    found.text_bytes[split] += sum(len(turn["content"].encode()) + 32 for turn in (*prompt, *completion))


def _spread(values: "array[float]") -> ScoreSpread:
    ordered = sorted(values)
    last = len(ordered) - 1
    return ScoreSpread(
        len(ordered), sum(ordered) / len(ordered), tuple(ordered[round(share * last)] for share in QUANTILES)
    )


def dataset_path(run: Run, split: str) -> Path:
    """Return the dataset file of a split."""
    return run.train_path if split == "train" else run.validation_path
