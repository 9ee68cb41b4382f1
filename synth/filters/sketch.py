"""What records are compared by when duplicates are looked for, as columns of numbers.

`sketch` reads records in a worker process and gives a small block of numpy columns, `SketchTable` collects the
blocks in the order of the rows. No text is left in them: words are 64-bit hashes, sets of words are sorted 32-bit
hashes, and each record has the MinHash (Broder 1997) of its words and word pairs, of which 16 bits a permutation are
kept (Li and König 2010). Texts are cut at spaces and each piece is read but once, so that a record costs some tens
of microseconds.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from hashlib import blake2b
from struct import Struct
from typing import Any, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from synth.core.errors import ConfigError
from synth.core.records import Record, content_id
from synth.filters.words import NUMBER_WORDS, STOPWORDS, fold, names, numbers, read, stem, word_set

U16: TypeAlias = NDArray[np.uint16]
U32: TypeAlias = NDArray[np.uint32]
U64: TypeAlias = NDArray[np.uint64]
Ints: TypeAlias = NDArray[np.int64]

PERMUTATIONS = 80
_NEGATIVE = word_set("no not never none cannot without")
_ARTICLES = word_set("a an the")
_TITLE_WORDS = STOPWORDS - {"a", "i"}
# A word after one of these opens a sentence, where a capital says nothing; the second are looked through.
_SENTENCE_END = frozenset('.!?:"(\n•')
_THROUGH = " '*_"
_MOST_PIECES = 300_000
_AT_ONCE = 4096

_ARTICLE, _CONTENT, _NEGATES, _CAPITAL, _UPPER, _TITLE, _CODE, _OPENS, _FIRST = (1 << bit for bit in range(9))


@dataclass(frozen=True, slots=True)
class DedupSettings:
    """What makes two records twins.

    Attributes:
        threshold: the Jaccard similarity of words and word pairs from which two are near duplicates; above 1 none is.
        on: the text that is compared. With "answer" what cannot be answered has no twin.
        facts: whether two records with other numbers, names or a negation, or about two passages and two subjects, are
            never near duplicates.
    """

    threshold: float = 0.7
    on: Literal["both", "question", "answer"] = "both"
    facts: bool = True

    def __post_init__(self) -> None:
        if not self.threshold > 0:
            raise ConfigError(f"near_duplicate is {self.threshold}; it has to be above 0 (above 1: no near duplicates)")
        if self.on not in {"both", "question", "answer"}:
            raise ConfigError(f"duplicates are compared on {self.on!r}; say both, question or answer")


@dataclass(frozen=True, slots=True)
class SketchBlock:
    """The columns of some records, a row for each, in their order.

    `whole` and `question` hold two 64-bit hashes a row: of all words compared (without articles), and of the question
    with its passage. `shingles` and `content` are sets, sorted, one after the other; `shingle_counts` and
    `content_counts` say how many each row has. `digests` is [rows, PERMUTATIONS].
    """

    whole: U64
    question: U64
    passage: U64
    facts: U64
    shingles: U32
    shingle_counts: U32
    content: U32
    content_counts: U32
    digests: U16

    def __len__(self) -> int:
        return len(self.passage)

    @property
    def nbytes(self) -> int:
        """The size of all columns in bytes."""
        return sum(getattr(self, column.name).nbytes for column in fields(self))

    @classmethod
    def joined(cls, blocks: Sequence[Self]) -> Self:
        """Return the rows of all blocks in one."""
        return cls(*(np.concatenate([getattr(block, c.name) for block in blocks]) for c in fields(cls)))


class SketchTable:
    """The sketches of many records, row by row.

    Blocks are added in the order of the rows.
    """

    def __init__(self, blocks: Sequence[SketchBlock] = ()) -> None:
        # Bytes grow in place. Arrays that are joined at the end stand in memory twice while they are.
        self._bytes: dict[str, bytearray] = {column.name: bytearray() for column in fields(SketchBlock)}
        self._starts: dict[str, Ints] = {}
        self._rows = 0
        for block in blocks:
            self.add(block)

    def add(self, block: SketchBlock) -> None:
        """Append the rows of a block."""
        for name, held in self._bytes.items():
            new = np.ascontiguousarray(getattr(block, name)).data.cast("B") if len(getattr(block, name)) else b""
            try:
                held += new
            except BufferError:  # a column was asked for already, and is in use
                self._bytes[name] = held + new
        self._starts.clear()
        self._rows += len(block)

    def __len__(self) -> int:
        return self._rows

    @property
    def nbytes(self) -> int:
        """The size of all columns in bytes."""
        return sum(map(len, self._bytes.values()))

    def column(self, name: str) -> NDArray[Any]:
        """Return a column of `SketchBlock` over all rows."""
        held, none = self._bytes[name], getattr(_empty(), name)
        return np.frombuffer(held, none.dtype).reshape(-1, *none.shape[1:]) if held else none

    def sets(self, name: Literal["shingles", "content"]) -> tuple[U32, Ints, U32]:
        """Return all sets of the rows one after the other, where each starts, and how many values it has."""
        counts = self.column("shingle_counts" if name == "shingles" else "content_counts")
        if name not in self._starts:
            self._starts[name] = starts_of(counts)
        return self.column(name), self._starts[name], counts

    def select(self, rows: Ints) -> "SketchTable":
        """Return a table of these rows, in this order."""
        columns = {name: self.column(name)[rows] for name in self._bytes if name not in {"shingles", "content"}}
        for name in ("shingles", "content"):
            flat, starts, counts = self.sets(name)
            columns[name] = flat[spread(starts[rows], counts[rows])]
        return SketchTable([SketchBlock(**columns)])


def sketch(records: Sequence[Record], settings: DedupSettings) -> SketchBlock:
    """Return the columns that `find_twins` compares these records by, a row for each, in order.

    Made for worker processes: give it a few thousand records at a time. What it remembers between calls is how
    words are read, which changes no result.
    """
    if not records:
        return _empty()
    parts = [_sketch(records[start : start + _AT_ONCE], settings) for start in range(0, len(records), _AT_ONCE)]
    return parts[0] if len(parts) == 1 else SketchBlock.joined(parts)


def starts_of(counts: NDArray[Any]) -> Ints:
    """Return where each run of `counts` values starts when they follow one another."""
    starts = np.zeros(len(counts), np.int64)
    np.cumsum(counts[:-1], out=starts[1:])
    return starts


def spread(starts: NDArray[Any], counts: NDArray[Any]) -> Ints:
    """Return start, start + 1, … for each run of `counts` values, one run after the other."""
    steps = np.arange(int(counts.sum(dtype=np.int64)), dtype=np.int64)
    return steps + np.repeat(starts - starts_of(counts), counts)


def mixed(values: U64) -> U64:
    """Return well mixed 64-bit values, one to one (the finisher of splitmix64, Steele and others 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def asked(record: Record) -> str:
    """Return all that the model is shown before it answers, apart from a system prompt.

    A passage that the user's turn shows counts as one word, or two tasks on it would be near duplicates.
    """
    if (
        len(record.prompt) == 1
        and (turn := record.prompt[0]).role == "user"
        and len(turn.content) < len(record.context)
    ):
        return turn.content  # as most are: too short to show the passage
    turns = [m.content for m in record.prompt if m.role != "system"]
    shown = turns[0] if len(turns) == 1 else "\n".join(turns)
    return shown.replace(record.context, content_id(record.context)) if record.shows_context else shown


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


class _Vocabulary(dict[str, int]):
    """How each piece of text between two spaces is read: its words and what the scorers' tables say of them.

    A piece is looked up by number. Columns of pieces point into columns of words and of numbers ("21" and "three").
    """

    def __init__(self) -> None:
        super().__init__()
        self.first_word, self.words, self.first_number, self.numbers = (array("q") for _ in range(4))
        # Whether the next word opens a sentence: 0 no, 1 yes, 2 as before this piece.
        self.ends = array("B")
        self.hash, self.number = array("Q"), array("Q")
        self.stem, self.flags = array("I"), array("H")

    def __missing__(self, piece: str) -> int:
        self[piece] = place = len(self)
        self.first_word.append(len(self.hash))
        self.first_number.append(len(self.number))
        core = piece.rstrip(".,;:!?")
        if core.isascii() and core.isalpha():
            # Most pieces are one plain word; reading them by the rules for all is ten times slower.
            word = core.lower()
            self._add(core, word, stem(word), _FIRST)
            found = numbers(word) if word in NUMBER_WORDS else frozenset()
            self.words.append(1)
        else:
            folded, text, codes = fold(piece), read(piece), names(piece)
            for token, word, root, (start, _) in zip(text.tokens, text.words, text.stems, text.spans, strict=True):
                before = folded[:start].rstrip(_THROUGH)
                coded = word in codes and any(c.isdigit() for c in token) and any(c.isalpha() for c in token)
                opens = bool(before) and before[-1] in _SENTENCE_END
                self._add(token, word, root, _CODE * coded | _OPENS * opens | _FIRST * (not before))
            found = numbers(piece)
            self.words.append(len(text.words))
        self.numbers.append(len(found))
        self.number.extend(_hash(f"number {value}") for value in found)
        rest = fold(piece).rstrip(_THROUGH)
        self.ends.append((rest[-1] in _SENTENCE_END) if rest else 2)
        return place

    def _add(self, token: str, word: str, root: str, flags: int) -> None:
        capital = token[0].isupper()
        self.hash.append(_hash(word))
        self.stem.append(_hash(root) & 0xFFFFFFFF)
        self.flags.append(
            flags
            | _ARTICLE * (word in _ARTICLES)
            | _CONTENT * (word not in STOPWORDS)
            | _NEGATES * (word in _NEGATIVE or word.endswith("n't"))
            | _CAPITAL * capital
            | _UPPER * token.isupper()
            | _TITLE * (capital and token.lower() in _TITLE_WORDS)
        )


@lru_cache(maxsize=1)
def _vocabulary() -> _Vocabulary:
    """Return what this process has read; a cache, emptied when it has grown."""
    return _Vocabulary()


@lru_cache(maxsize=1)
def _empty() -> SketchBlock:
    none, ids, counts = np.empty(0, np.uint64), np.empty(0, np.uint32), np.empty(0, np.uint32)
    pairs, digests = np.empty((0, 2), np.uint64), np.empty((0, PERMUTATIONS), np.uint16)
    return SketchBlock(pairs, pairs, none, none, ids, counts, ids, counts, digests)


def _sketch(records: Sequence[Record], settings: DedupSettings) -> SketchBlock:
    rows = len(records)
    columns = _texts(records, settings)
    width = len(columns)
    if len(_vocabulary()) > _MOST_PIECES:
        _vocabulary.cache_clear()
    vocabulary = _vocabulary()
    pieces: list[int] = []
    ends: list[int] = []
    # The texts of a record follow each other, and so do the records.
    for texts in zip(*columns, strict=True):
        for text in texts:
            pieces.extend(map(vocabulary.__getitem__, text.split(" ")))
            ends.append(len(pieces))
    words = _Words.of(vocabulary, np.array(pieces, np.int64), np.array(ends, np.int64))
    row_of_text = np.repeat(np.arange(rows), width)
    row_of_word = row_of_text[words.text]

    passages = {record.passage_id: 0 for record in records}
    passages = {passage: _hash(passage) for passage in passages}
    passage = np.array([passages[record.passage_id] for record in records], np.uint64)
    counted = (words.flags & _ARTICLE) == 0
    texts_hash = _hash_texts(words.hash[counted], words.text[counted], rows * width).reshape(rows, width, 2)
    whole = texts_hash[:, 0].copy()
    for place in range(1, width):
        whole = mixed(whole + np.uint64(place)) + texts_hash[:, place]
    if settings.on == "answer":
        for i, record in enumerate(records):
            if record.kind == "unanswerable":
                whole[i] = _hash(f"unanswerable {record.id}")
    shingles, shingle_counts = _shingles(words.hash[counted], row_of_word[counted], rows)
    first = words.text % width == 0
    telling = first & ((words.flags & _CONTENT) != 0)
    content, content_counts = _as_sets(row_of_word[telling], words.stem[telling], rows)
    return SketchBlock(
        whole=whole,
        question=mixed(texts_hash[:, 0] + mixed(passage)[:, None]),
        passage=passage,
        facts=_hash_facts(words, row_of_text, rows),
        shingles=shingles,
        shingle_counts=shingle_counts,
        content=content,
        content_counts=content_counts,
        digests=_digests(shingles, shingle_counts),
    )


def _texts(records: Sequence[Record], settings: DedupSettings) -> list[list[str]]:
    """Return the compared texts of the records, a list for each kind of text."""
    # The one refusal of all unanswerable questions makes no two of them alike.
    answers = ["" if record.kind == "unanswerable" else record.answer for record in records]
    if settings.on == "answer":
        return [answers]
    questions = [asked(record) for record in records]
    return [questions] if settings.on == "question" else [questions, answers]


@dataclass(frozen=True, slots=True)
class _Words:
    """The words of some texts, text by text: the number of its text, and what the vocabulary says of each."""

    text: Ints
    hash: U64
    stem: U32
    flags: U16
    numbers: U64
    text_of_number: Ints
    is_name: NDArray[np.bool_]

    @classmethod
    def of(cls, vocabulary: _Vocabulary, pieces: Ints, ends: Ints) -> Self:
        """Look up all pieces of the texts that end at `ends`."""
        texts = len(ends)
        text = np.repeat(np.arange(texts), np.diff(ends, prepend=0))
        end = np.frombuffer(vocabulary.ends, np.uint8)[pieces]
        if not (seen := end != 2).all():
            pieces, text, end = pieces[seen], text[seen], end[seen]
        opens = np.ones(len(pieces), np.bool_)
        np.logical_or(end[:-1] == 1, text[1:] != text[:-1], out=opens[1:])
        counts = np.frombuffer(vocabulary.words, np.int64)[pieces]
        places = spread(np.frombuffer(vocabulary.first_word, np.int64)[pieces], counts)
        flags = np.frombuffer(vocabulary.flags, np.uint16)[places]
        of_word = np.repeat(text, counts)
        opens = np.where((flags & _FIRST) != 0, np.repeat(opens, counts), (flags & _OPENS) != 0)
        capital = (flags & _CAPITAL) != 0
        is_name = (flags & _CODE) != 0
        is_name |= (
            capital & ((flags & _CONTENT) != 0) & ~opens & _capitals_tell(flags, capital, of_word, texts)[of_word]
        )
        number_counts = np.frombuffer(vocabulary.numbers, np.int64)[pieces]
        numbered = spread(np.frombuffer(vocabulary.first_number, np.int64)[pieces], number_counts)
        return cls(
            text=of_word,
            hash=np.frombuffer(vocabulary.hash, np.uint64)[places],
            stem=np.frombuffer(vocabulary.stem, np.uint32)[places],
            flags=flags,
            numbers=np.frombuffer(vocabulary.number, np.uint64)[numbered],
            text_of_number=np.repeat(text, number_counts),
            is_name=is_name,
        )


def _capitals_tell(flags: U16, capital: NDArray[np.bool_], text: Ints, texts: int) -> NDArray[np.bool_]:
    """Whether capitals name something in each text: not in title case, nor in capitals throughout."""
    inner = np.zeros(len(text), np.bool_)
    np.equal(text[1:], text[:-1], out=inner[1:])
    size, inside = np.bincount(text, minlength=texts), np.bincount(text[inner], minlength=texts)
    shouting = np.bincount(text[inner & ((flags & _UPPER) != 0)], minlength=texts)
    titled = np.bincount(text[inner & ((flags & _TITLE) != 0)], minlength=texts)
    mostly = 2 * np.bincount(text[capital], minlength=texts) > size
    titles = (titled > 0) | ((inside >= 3) & (shouting == inside))
    tells: NDArray[np.bool_] = ~(mostly & titles)
    return tells


def _hash_texts(words: U64, text: Ints, texts: int) -> U64:
    """Return two 64-bit hashes of the words, in order, of each text: shape [texts, 2]."""
    counts = np.bincount(text, minlength=texts)
    starts = starts_of(counts)
    place = (np.arange(len(words)) - np.repeat(starts, counts) + 1).astype(np.uint64)
    result = np.empty((texts, 2), np.uint64)
    for column, factor in enumerate((0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F)):
        sums = np.zeros(len(words) + 1, np.uint64)
        np.cumsum(mixed(words + place * np.uint64(factor)), out=sums[1:])
        result[:, column] = sums[starts + counts] - sums[starts]
    return result


def _shingles(words: U64, row: Ints, rows: int) -> tuple[U32, U32]:
    """Return the words and word pairs of each row as sets of 32-bit hashes."""
    pairs = mixed(words[:-1] * np.uint64(0x9E3779B97F4A7C15) + words[1:])
    together = row[:-1] == row[1:]
    hashes = np.concatenate([words, pairs[together]]) >> np.uint64(32)
    return _as_sets(np.concatenate([row, row[:-1][together]]), hashes.astype(np.uint32), rows)


def _as_sets(row: Ints, values: U32, rows: int) -> tuple[U32, U32]:
    """Return the different values of each row, sorted, row after row, and how many each has."""
    keys = (row.astype(np.uint64) << np.uint64(32)) | values
    keys.sort()
    different = np.ones(len(keys), np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=different[1:])
    keys = keys[different]
    counts = np.bincount((keys >> np.uint64(32)).astype(np.int64), minlength=rows)
    return keys.astype(np.uint32), counts.astype(np.uint32)


def _hash_facts(words: _Words, row_of_text: Ints, rows: int) -> U64:
    """Return a hash of the numbers, the names and the presence of a negation in each row."""
    named, negated = words.is_name, (words.flags & _NEGATES) != 0
    row = np.concatenate(
        [row_of_text[words.text_of_number], row_of_text[words.text[named]], row_of_text[words.text[negated]]]
    )
    values = np.concatenate(
        [words.numbers, mixed(words.hash[named] + np.uint64(1)), np.full(int(negated.sum()), 7, np.uint64)]
    )
    order = np.lexsort((values, row))
    row, values = row[order], values[order]
    different = np.ones(len(row), np.bool_)
    different[1:] = (row[1:] != row[:-1]) | (values[1:] != values[:-1])
    row, values = row[different], mixed(values[different])
    counts = np.bincount(row, minlength=rows)
    starts = starts_of(counts)
    sums = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values, out=sums[1:])
    total: U64 = sums[starts + counts] - sums[starts]
    return total


def _digests(shingles: U32, counts: U32) -> U16:
    """Return the low 16 bits of the MinHash of each row's shingles; two different minima agree 1 time in 65,536."""
    offsets = np.zeros(len(counts) + 1, np.uint64)
    np.cumsum(counts, out=offsets[1:])
    tokens = mixed(shingles.astype(np.uint64))
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(tokens, offsets, PERMUTATIONS, 1)
    # The matrix gives lists of numbers, which numpy reads half as fast as `struct` packs them.
    packed = b"".join([_ROW.pack(*row) for row in matrix.to_rows()])
    return np.frombuffer(packed, "<u4").astype(np.uint16).reshape(len(counts), PERMUTATIONS)


_ROW = Struct(f"<{PERMUTATIONS}I")
