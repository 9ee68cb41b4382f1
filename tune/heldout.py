"""Opening the sealed set for validation, and saying what could have leaked out of it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from synth.core.errors import RecordError, RunError
from synth.core.heldout import HeldoutItem, HeldoutSet, load_heldout
from synth.core.jsonl import FileDigest, read_lines
from synth.core.records import folded
from synth.core.runs import Run
from tune.nearest import user_turns, words_of

# The stage at which a held-out set first stood in the manifest.
Sealed = Literal["generate", "filter", "later", "unknown"]

# The share of the words of both that near questions have in common, and the fewest words of one: of short questions
# most words are those of any.
NEAR = 0.8
LEAST_WORDS = 4
# Questions and turns that are compared at once.
_QUESTIONS = 1024
_TURNS = 4096


@dataclass(frozen=True, slots=True)
class Places:
    """Where the held-out questions' documents stand in the dataset, in numbers of questions."""

    train: int
    validation: int
    neither: int

    def to_json(self) -> dict[str, int]:
        """Return the counts as they stand in verdict.json."""
        return {"train": self.train, "validation": self.validation, "neither": self.neither}


@dataclass(frozen=True, slots=True)
class Overlap:
    """A training row that asks a held-out question: in the same words, or in nearly the same.

    `text` is the user's turn of the row.
    """

    how: Literal["exact", "near"]
    row_id: str
    text: str

    def to_json(self) -> dict[str, str]:
        """Return the overlap as it stands in files."""
        return {"how": self.how, "row_id": self.row_id, "text": self.text}


@dataclass(frozen=True, slots=True)
class OpenedSet:
    """The held-out set with the training rows it was checked against, and what is doubtful about it.

    `overlap` has, by id, the items that a row of the dataset asks; the others are the clean ones. `sealed` says at
    which stage the set first stood in the manifest, "unknown" where the run has neither generated nor filtered.
    """

    heldout: HeldoutSet
    rows: tuple[Mapping[str, Any], ...]
    places: Places
    overlap: Mapping[str, Overlap]
    sealed: Sealed
    warnings: tuple[str, ...]

    @property
    def clean_ids(self) -> frozenset[str]:
        """The ids of the items that no row of the dataset asks."""
        return frozenset(item.id for item in self.heldout.items if item.id not in self.overlap)


def open_heldout(run: Run, source: Path | str) -> OpenedSet:
    """Read the held-out set, and find which questions of it the dataset asks, in the same words or nearly.

    A run that was made for rows from elsewhere (`tune sft --data`) has no dataset to look in; then that is a doubt.

    Raises:
        ConfigError: the held-out set is a dataset of the hub that cannot be loaded.
        RecordError: the held-out file is wrong.
        RunError: it is not there, or there is no training set.
    """
    heldout = load_answered(source)
    has_dataset = run.train_path.is_file() or "filter" in run.stages()
    rows = tuple(row for _, row in read_lines(run.train_path)) if has_dataset else ()
    if not rows and has_dataset:
        raise RunError("no row was trained on", where=str(run.train_path), fix=f"run `synth filter {run.path}`")
    validation = [row for _, row in read_lines(run.validation_path)] if run.validation_path.is_file() else []
    overlap = find_overlap(heldout.items, (*rows, *validation))
    sealed = sealed_at(run, heldout.digest)
    places = _places(heldout.items, rows, validation)
    doubts = (
        *_overlapping(heldout, overlap),
        *_leaks(run, heldout),
        *_late(sealed, heldout),
        *_form(heldout),
        *_strange(heldout, places, rows),
    )
    return OpenedSet(heldout, rows, places, overlap, sealed, doubts)


def load_answered(source: Path | str) -> HeldoutSet:
    """Read a set that answers are to be judged by.

    Raises:
        ConfigError: it is a dataset of the hub that cannot be loaded.
        RecordError: the file is wrong, or keeps its answers secret: no student should be praised for saying nothing.
        RunError: it is not there.
    """
    heldout = load_heldout(source)
    if heldout.unsaid == len(heldout.items):
        raise RecordError(
            "no item has an answer, and none is said to be unanswerable",
            where=heldout.name,
            fix='take a file or a split with answers, or say "unanswerable": true where a refusal is right',
        )
    return heldout


def leaked_questions(items: Sequence[HeldoutItem], rows: Sequence[Mapping[str, Any]]) -> list[HeldoutItem]:
    """Return the items whose question is a user turn of a row; case and white space do not count."""
    asked = {folded(turn) for row in rows for turn in user_turns(row)}
    return [item for item in items if folded(item.question) in asked]


def find_overlap(items: Sequence[HeldoutItem], rows: Iterable[Mapping[str, Any]]) -> dict[str, Overlap]:
    """Return for the items that a training row asks the row that comes nearest, in the order of the items.

    Exact is a user's turn that is the question (case, punctuation and white space do not count), or that holds all its
    words in a row where they are four or more. Near is a turn that shares 0.8 of the words of both (the Jaccard index
    of their sets), has the same numbers in the same order, and no fewer than four words. The first of equal rows is
    named.
    """
    questions = [tuple(words_of(item.question)) for item in items]
    exact = _Standing(questions)
    vocabulary = frozenset(word for words in questions for word in words)
    seen = set[str]()
    found: dict[int, Overlap] = {}
    turns: list[tuple[str, str, tuple[str, ...]]] = []
    for row in rows:
        for turn in user_turns(row):
            if turn in seen:
                continue
            seen.add(turn)
            words = tuple(words_of(turn))
            for number in exact.within(words):
                found.setdefault(number, Overlap("exact", str(row["id"]), turn))
            own = frozenset(words)
            # Most turns have too many words that no question has.
            if len(own) >= LEAST_WORDS and len(own & vocabulary) >= NEAR * len(own):
                turns.append((str(row["id"]), turn, words))
    left = [number for number in range(len(items)) if number not in found]
    for number, place in _near([questions[number] for number in left], [words for *_, words in turns]).items():
        row_id, turn, _ = turns[place]
        found[left[number]] = Overlap("near", row_id, turn)
    return {items[number].id: found[number] for number in sorted(found)}


class _Standing:
    """Finds the questions whose words stand in a turn: as the whole of it, or four and more of them in a row."""

    def __init__(self, questions: Sequence[tuple[str, ...]]) -> None:
        self._whole: dict[tuple[str, ...], list[int]] = {}
        # How long the questions are that begin with these words: of one template there are many, of few lengths.
        self._lengths: dict[tuple[str, ...], set[int]] = {}
        for number, words in enumerate(questions):
            if words:  # and not marks alone
                self._whole.setdefault(words, []).append(number)
            if len(words) >= LEAST_WORDS:
                self._lengths.setdefault(words[:LEAST_WORDS], set()).add(len(words))

    def within(self, words: tuple[str, ...]) -> Iterator[int]:
        """Yield the numbers of the questions that stand in a turn of these words, some more than once."""
        yield from self._whole.get(words, ())
        for place, four in enumerate(zip(*(words[skip:] for skip in range(LEAST_WORDS)), strict=False)):
            for length in self._lengths.get(four, ()):
                yield from self._whole.get(words[place : place + length], ())


def _near(questions: Sequence[tuple[str, ...]], turns: Sequence[tuple[str, ...]]) -> dict[int, int]:
    """Return for each question that is near a turn the place of the nearest; of equally near ones the first.

    Every pair is compared, by products of matrices of words, so that a thousand questions of one template are no
    slower.
    """
    import numpy as np
    from scipy.sparse import csr_array

    nearest: dict[int, int] = {}
    # Each sequence of numbers by a number of its own.
    sequences: dict[tuple[str, ...], int] = {}
    stated = np.array([sequences.setdefault(_numbers(words), len(sequences)) for words in questions])
    said = np.array([sequences.get(_numbers(words), -1) for words in turns])
    for start in range(0, len(questions), _QUESTIONS):
        sets = [frozenset(words) for words in questions[start : start + _QUESTIONS]]
        columns = {word: place for place, word in enumerate(sorted(frozenset().union(*sets)))}
        has = np.zeros((len(columns), len(sets)), dtype=np.float32)
        for place, one in enumerate(sets):
            has[[columns[word] for word in one], place] = 1
        sizes = np.array([len(one) if len(one) >= LEAST_WORDS else np.inf for one in sets], dtype=np.float32)
        best = np.zeros(len(sets), dtype=np.float32)
        for first in range(0, len(turns), _TURNS):
            block = [frozenset(words) for words in turns[first : first + _TURNS]]
            known = [[columns[word] for word in one if word in columns] for one in block]
            ends = np.cumsum([0, *map(len, known)])
            cells = np.array([column for one in known for column in one], dtype=np.int32)
            rows = csr_array((np.ones(len(cells), dtype=np.float32), cells, ends), shape=(len(block), len(columns)))
            common = rows @ has
            lengths = np.array([len(one) for one in block], dtype=np.float32)
            shares = common / (lengths[:, None] + sizes[None, :] - common)
            shares[said[first : first + len(block), None] != stated[None, start : start + len(sets)]] = 0
            places = shares.argmax(axis=0)
            most = shares[places, np.arange(len(sets))]
            # A hair less, for the rounding of 0.8.
            for number in np.flatnonzero((most >= NEAR - 1e-6) & (most > best)):
                best[number] = most[number]
                nearest[start + int(number)] = first + int(places[number])
    return nearest


def _numbers(words: Sequence[str]) -> tuple[str, ...]:
    """Return the words that hold a digit: a question about model 4 is another one than that about model 9."""
    return tuple(word for word in words if any(map(str.isdigit, word)))


def sealed_at(run: Run, digest: FileDigest) -> Sealed:
    """Return the stage at which a held-out set first stood in the manifest."""
    stages = run.stages()
    for name in ("generate", "filter"):
        if name in stages and digest.sha256 in _seals(stages[name].inputs):
            return "generate" if name == "generate" else "filter"
    return "later" if {"generate", "filter"} & stages.keys() else "unknown"


def _seals(inputs: Mapping[str, FileDigest]) -> set[str]:
    return {digest.sha256 for name, digest in inputs.items() if name.partition(":")[0] == "heldout"}


def _places(
    items: Sequence[HeldoutItem], train: Sequence[Mapping[str, Any]], validation: Sequence[Mapping[str, Any]]
) -> Places:
    trained, validated = ({row["document_id"] for row in rows} for rows in (train, validation))
    in_train = sum(item.document_id in trained for item in items)
    in_validation = sum(item.document_id in validated - trained for item in items)
    return Places(in_train, in_validation, len(items) - in_train - in_validation)


def _overlapping(heldout: HeldoutSet, overlap: Mapping[str, Overlap]) -> Iterator[str]:
    """Say how many questions were trained on."""
    if not overlap:
        return
    exact = sum(one.how == "exact" for one in overlap.values())
    ways = [f"{exact} word for word"] * bool(exact) + [f"{len(overlap) - exact} nearly"] * (len(overlap) > exact)
    first = next(item for item in heldout.items if item.id in overlap)
    yield (
        f"{len(overlap)} of {len(heldout.items)} held-out questions stand in the dataset ({', '.join(ways)}), "
        f"such as {_short(first.question)!r} in row {overlap[first.id].row_id}: their answers may be learnt by heart. "
        f"`synth filter --heldout {heldout.name}` and `tune sft` again make a student that did not see them."
    )


def _leaks(run: Run, heldout: HeldoutSet) -> Iterator[str]:
    """Say what keeps the reader from trusting that nothing leaked in other words."""
    entry = run.stages().get("filter")
    if entry is None and not run.train_path.is_file():
        yield (
            "The run has no dataset of its own, so that no held-out question was trained on is not proved here; "
            f"`tune sft` proves it when it is given `--heldout {heldout.name}`."
        )
        return
    used = _seals(entry.inputs if entry else {})
    if heldout.digest.sha256 not in used:
        against = "another one was used" if used else "none was used"
        yield (
            f"The dataset was not decontaminated against this held-out file ({against}): questions that say the same "
            f"in other words may have been trained on. `synth filter {run.path.name} --heldout {heldout.name}` "
            "removes them."
        )


def _late(sealed: Sealed, heldout: HeldoutSet) -> Iterator[str]:
    """Say where the set was first seen only after the pairs were made."""
    if sealed == "filter":
        yield (
            f"{heldout.name} was first seen when the dataset was filtered, after the pairs were made: that it was not "
            "changed or chosen in view of them is not proved. `synth generate --heldout` seals it from the start."
        )
    elif sealed == "later":
        yield (
            f"{heldout.name} was first seen now, after the dataset was made: that it was not changed or chosen in view "
            "of it is not proved. `synth generate --heldout` seals it from the start."
        )


def _form(heldout: HeldoutSet) -> Iterator[str]:
    """Say what about the items themselves makes the figures doubtful."""
    items = heldout.items
    if not any(item.names_document for item in items):
        yield (
            "The held-out file names no documents (document_id), so each question counts as a document of its own "
            "and the intervals are too narrow where questions share one."
        )
    again = len(items) - len({(folded(item.question), item.context, item.answers) for item in items})
    if again:
        yield f"{again} of {len(items)} held-out items are there twice, word for word, and count twice."
    if heldout.unsaid:
        yield (
            f"{heldout.unsaid} of {len(items)} held-out items have no answer and are not said to be unanswerable: a "
            "refusal counts as right there."
        )
    if all(item.unanswerable for item in items):
        yield "All held-out items are unanswerable, so that a student which refuses everything is always right."
    if heldout.task == "labels" and len(heldout.labels) == 1:
        yield f"All held-out items have the label {heldout.labels[0]!r}, so that nothing is told apart."


def _strange(heldout: HeldoutSet, places: Places, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Say where the set and the run seem to call the same documents by other names."""
    named = next((item.document_id for item in heldout.items if item.names_document), None)
    known = next((str(row["document_id"]) for row in rows if row.get("document_id")), None)
    if named is not None and known is not None and places.neither == len(heldout.items):
        yield (
            f"No held-out item is about a document of the dataset, by document_id: there they are called such as "
            f"{known!r}, here {named!r}. If they are the same, name them as passages.jsonl does."
        )


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= 100 else plain[:99] + "…"
