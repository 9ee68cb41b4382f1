"""The splitter: from a document to passages that end where sentences end and never cross a heading.

Each section (the text under one heading) is cut into passages of whole sentences, as even in length as
the limits allow. A table or a code fence that fits into a passage is kept in one piece; a longer one is cut
between its rows or lines. A list is cut between its items; with a limit in tokens it too is kept whole where
it fits (the limit in characters came first, and what was generated with it has to stay reproducible). Only a
sentence that is itself longer than the limit is cut inside, by semantic-text-splitter: its own Markdown mode,
tried first, left headings at the end of the chunk before them and cut sentences in two at the passage sizes
that small teachers need.

Time grows with the length of the text, whatever stands in it.
"""

import math
import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from semantic_text_splitter import TextSplitter

from synth.core.errors import ConfigError
from synth.core.records import Document, Passage
from synth.core.sentences import split_sentences
from synth.core.tokens import Tokenizer, Tokens

_HEADING = re.compile(r"^(#{1,6})[ \t]+([^\n]*)$", re.MULTILINE)
_FENCE_OPENS = re.compile(r"^ {0,3}(```|~~~)[^\n]*$", re.MULTILINE)
_FENCE_CLOSES = re.compile(r"^ {0,3}(```|~~~)[`~]*[ \t]*$", re.MULTILINE)
_TABLE_RULE = re.compile(r"^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t:-]*)+$")
_LIST_ITEM = re.compile(r"^[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]+\S")

# Of a sentence longer than this it does not matter where it is cut first.
_WINDOW = 8192

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Limit:
    """What one passage may hold."""

    max_chars: int | None
    max_tokens: int | None
    tokens: Tokens | None
    counted: dict[str, int] = field(default_factory=dict)
    """The tokens of each atom of the section at hand: looked up when atoms are made, and again when they are packed."""

    def sizes(self, texts: list[str]) -> list[float]:
        """Return the share of the limit that each text takes: up to 1 it fits. Tokens are counted once a text."""
        if self.max_tokens is not None:
            new = [text for text in dict.fromkeys(texts) if text not in self.counted]
            counts = self.tokens.count_all(new) if isinstance(self.tokens, Tokenizer) else map(self._count, new)
            self.counted.update(zip(new, counts, strict=True))
        return [max(self._of_chars(len(text)), self._of_tokens(text)) for text in texts]

    def fits(self, text: str) -> bool:
        """Return whether `text` may be one passage. Characters are looked at first: they cost nothing."""
        return self._of_chars(len(text)) <= 1 and self._of_tokens(text) <= 1

    def pieces(self, sentence: str) -> Iterator[Span]:
        """Yield the places of pieces that fit, of a sentence that does not."""
        for begin, stop in self._cut(sentence):
            if self.fits(sentence[begin:stop]):
                yield begin, stop
            else:
                # Not seen from the tokenizers tried, but a tokenizer is not ours: halve until it fits.
                yield from self._halves(sentence, begin, stop)

    def _cut(self, text: str) -> Iterator[Span]:
        splitters: list[TextSplitter] = []
        if self.max_tokens is not None and isinstance(self.tokens, Tokenizer):
            splitters.append(TextSplitter.from_huggingface_tokenizer(self.tokens.inner, self.max_tokens))
        elif self.max_tokens is not None and self.tokens is not None:
            splitters.append(TextSplitter.from_callback(self.tokens, self.max_tokens))
        if self.max_chars is not None:
            splitters.append(TextSplitter(self.max_chars))
        spans = list(_windows(text, min(_WINDOW, 16 * (self.max_tokens or _WINDOW))))
        for splitter in splitters:
            spans = [(start + shift, piece) for start, whole in spans for shift, piece in splitter.chunk_indices(whole)]
        for start, piece in spans:
            yield start, start + len(piece)

    def _halves(self, text: str, begin: int, stop: int) -> Iterator[Span]:
        if stop - begin <= 1 or self.fits(text[begin:stop]):
            yield begin, stop
            return
        middle = (begin + stop) // 2
        yield from self._halves(text, begin, middle)
        yield from self._halves(text, middle, stop)

    def _of_chars(self, count: int) -> float:
        return count / self.max_chars if self.max_chars else 0.0

    def _of_tokens(self, text: str) -> float:
        if self.max_tokens is None:
            return 0.0
        known = self.counted.get(text)
        return (self._count(text) if known is None else known) / self.max_tokens

    def _count(self, text: str) -> int:
        assert self.tokens is not None
        return self.tokens(text)


def split_document(
    document: Document,
    *,
    max_chars: int | None = None,
    max_tokens: int | None = None,
    tokenizer: Tokens | None = None,
) -> Iterator[Passage]:
    """Yield the passages of a document in order; `document.text[p.start:p.end] == p.text`.

    Headings stand in a passage's heading path, not in its text; sections without a sentence give none.

    Args:
        document: Markdown or plain text.
        max_chars: the most characters a passage has.
        max_tokens: the most tokens a passage has, as `tokenizer` counts them. Both limits may be given; both hold.
        tokenizer: counts tokens (`load_tokenizer` makes one from a model).

    Raises:
        ConfigError: there is no limit, a limit below 1, or a limit in tokens without a tokenizer.
    """
    if max_chars is None and max_tokens is None:
        raise ConfigError("a passage needs a limit", fix="give max_chars, max_tokens or both")
    if max_tokens is not None and tokenizer is None:
        raise ConfigError("a limit in tokens needs a tokenizer", fix="load_tokenizer(model) makes one")
    if any(value is not None and value < 1 for value in (max_chars, max_tokens)):
        raise ConfigError("a limit of a passage is at least 1")
    limit = _Limit(max_chars, max_tokens, tokenizer if max_tokens is not None else None)
    text = document.text
    fences = _fences(text)
    for start, end, path in _sections(text, fences):
        for begin, stop in _pack(text, _atoms(text, start, end, fences, limit), limit):
            yield Passage(document.id, text[begin:stop], begin, stop, path)
        limit.counted.clear()


def _fences(text: str) -> list[Span]:
    """Return the spans of the code fences in order. A fence that is not closed is none."""
    closers: dict[str, list[re.Match[str]]] = {"```": [], "~~~": []}
    for match in _FENCE_CLOSES.finditer(text):
        closers[match[1]].append(match)
    starts = {mark: [match.start() for match in matches] for mark, matches in closers.items()}
    found: list[Span] = []
    for match in _FENCE_OPENS.finditer(text):
        if found and match.start() < found[-1][1]:
            continue
        index = bisect_left(starts[match[1]], match.end())
        if index < len(starts[match[1]]):
            found.append((match.start(), closers[match[1]][index].end()))
    return found


def _sections(text: str, fences: list[Span]) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Yield (start, end, heading path) of the text under each heading, and of what stands before the first."""
    ends = [end for _, end in fences]
    headings = []
    for match in _HEADING.finditer(text):
        fence = bisect_left(ends, match.start() + 1)
        if fence == len(fences) or match.start() < fences[fence][0]:
            headings.append(match)
    yield 0, headings[0].start() if headings else len(text), ()
    path: list[tuple[int, str]] = []
    for index, heading in enumerate(headings):
        level = len(heading[1])
        title = heading[2].rstrip(" \t").rstrip("#").rstrip(" \t")
        path = [entry for entry in path if entry[0] < level] + [(level, title)]
        end = headings[index + 1].start() if index + 1 < len(headings) else len(text)
        yield heading.end(), end, tuple(title for _, title in path)


def _atoms(text: str, start: int, end: int, fences: list[Span], limit: _Limit) -> list[Span]:
    """Return the spans that are not cut: blocks that fit, sentences, or pieces of what is longer than the limit."""
    atoms: list[Span] = []
    for begin, stop, kind in _blocks(text, start, end, fences, lists=limit.max_tokens is not None):
        if kind == "prose":
            atoms += _sentences(text, begin, stop, limit)
            continue
        begin, stop = _trimmed(text, begin, stop)
        if limit.fits(text[begin:stop]):
            if any(character.isalnum() for character in text[begin:stop]):
                atoms.append((begin, stop))
        elif kind == "list":
            atoms += _sentences(text, begin, stop, limit)
        else:
            for line_begin, line_stop in _lines(text, begin, stop):
                atoms += _whole_or_pieces(text, *_trimmed(text, line_begin, line_stop), limit)
    return atoms


def _blocks(text: str, start: int, end: int, fences: list[Span], *, lists: bool) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, kind) of the runs of prose, tables, fences and, if asked, lists of a section, in order."""
    position = start
    index = bisect_left(fences, (start, 0))
    while index < len(fences) and fences[index][0] < end:
        begin, stop = fences[index]
        yield from _blocks_between_fences(text, position, begin, lists)
        yield begin, min(stop, end), "fence"
        position, index = stop, index + 1
    if position < end:
        yield from _blocks_between_fences(text, position, end, lists)


def _blocks_between_fences(text: str, start: int, end: int, lists: bool) -> Iterator[tuple[int, int, str]]:
    lines = list(_lines(text, start, end))
    prose, index = start, 0
    while index < len(lines):
        stop = _table_end(text, lines, index)
        kind = "table"
        if stop == index and lists:
            stop, kind = _list_end(text, lines, index), "list"
        if stop == index:
            index += 1
            continue
        begin, finish = lines[index][0], lines[stop - 1][1]
        if prose < begin:
            yield prose, begin, "prose"
        yield begin, finish, kind
        prose, index = finish, stop
    if prose < end:
        yield prose, end, "prose"


def _table_end(text: str, lines: list[Span], index: int) -> int:
    """Return the number of the line after the table that begins at `index`, or `index` where none does."""
    if index + 1 >= len(lines) or "|" not in text[slice(*lines[index])]:
        return index
    rule = text[slice(*lines[index + 1])].rstrip()
    if "|" not in rule or not _TABLE_RULE.match(rule):
        return index
    stop = index + 2
    while stop < len(lines) and "|" in text[slice(*lines[stop])]:
        stop += 1
    return stop


def _list_end(text: str, lines: list[Span], index: int) -> int:
    """Return the number of the line after the list that begins at `index`, or `index` where none does.

    A list goes on over blank lines where the next line is an item or is indented.
    """
    if not _LIST_ITEM.match(text[slice(*lines[index])]):
        return index
    stop = index + 1
    while stop < len(lines):
        ahead = stop
        while ahead < len(lines) and not text[slice(*lines[ahead])].strip():
            ahead += 1
        if ahead == len(lines):
            return stop
        line = text[slice(*lines[ahead])]
        if ahead > stop and not (_LIST_ITEM.match(line) or line.startswith(("  ", "\t"))):
            return stop
        stop = ahead + 1
    return stop


def _windows(text: str, size: int) -> Iterator[tuple[int, str]]:
    """Yield (start, piece) of pieces that semantic-text-splitter, whose time grows with the square, cuts quickly."""
    start = 0
    while len(text) - start > size:
        space = text.rfind(" ", start + size // 2, start + size)
        stop = space if space > 0 else start + size
        yield start, text[start:stop]
        start = stop
    yield start, text[start:]


def _lines(text: str, start: int, end: int) -> Iterator[Span]:
    while start < end:
        newline = text.find("\n", start, end)
        stop = end if newline < 0 else newline + 1
        yield start, stop
        start = stop


def _trimmed(text: str, start: int, end: int) -> Span:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())


def _sentences(text: str, start: int, end: int, limit: _Limit) -> Iterator[Span]:
    sentences = split_sentences(text[start:end])
    limit.sizes([sentence.text for sentence in sentences])
    for sentence in sentences:
        yield from _whole_or_pieces(text, start + sentence.start, start + sentence.end, limit)


def _whole_or_pieces(text: str, start: int, end: int, limit: _Limit) -> Iterator[Span]:
    if start >= end:
        return
    if limit.fits(text[start:end]):
        yield start, end
        return
    for begin, stop in limit.pieces(text[start:end]):
        yield start + begin, start + stop


def _pack(text: str, atoms: list[Span], limit: _Limit) -> Iterator[Span]:
    """Join neighbouring spans into passages that fit, as even as that allows."""
    if not atoms:
        return
    if limit.max_tokens is None:
        assert limit.max_chars is not None
        yield from _pack_chars(atoms, limit.max_chars)
        return
    # An atom is counted once and a passage once: counting each passage on the way would cost several times as much.
    sizes = limit.sizes([text[start:end] for start, end in atoms])
    total = sum(sizes)
    even = min(1.0, total / math.ceil(total) + 0.1) if total else 1.0
    first, filled = 0, 0.0
    for index, size in enumerate(sizes):
        if index > first and filled + size > even:
            yield from _checked(text, atoms[first:index], limit)
            first, filled = index, 0.0
        filled += size
    yield from _checked(text, atoms[first:], limit)


def _checked(text: str, atoms: list[Span], limit: _Limit) -> Iterator[Span]:
    """Yield the passage that these atoms make, or two where together they do not fit: seams and gaps count too."""
    begin, stop = atoms[0][0], atoms[-1][1]
    if len(atoms) == 1 or limit.fits(text[begin:stop]):
        yield begin, stop
        return
    middle = len(atoms) // 2
    yield from _checked(text, atoms[:middle], limit)
    yield from _checked(text, atoms[middle:], limit)


def _pack_chars(atoms: list[Span], max_chars: int) -> Iterator[Span]:
    total = atoms[-1][1] - atoms[0][0]
    even = min(max_chars, math.ceil(total / math.ceil(total / max_chars)) + max_chars // 10)
    begin, stop = atoms[0]
    for (_, before), (start, end) in pairwise(atoms):
        if end - begin > even:
            yield begin, before
            begin = start
        stop = end
    yield begin, stop
