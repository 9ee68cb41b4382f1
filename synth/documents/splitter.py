"""The splitter: from a document to passages that end where sentences end and never cross a heading.

Each section (the text under one heading) is cut into passages of whole sentences, as even in length as
the limit allows. Only a sentence that is itself longer than the limit is cut inside, by
semantic-text-splitter: its own Markdown mode, tried first, left headings at the end of the chunk before
them and cut sentences in two at the passage sizes that small teachers need.
"""

import math
import re
from collections.abc import Iterator

from semantic_text_splitter import TextSplitter

from synth.core.records import Document, Passage
from synth.core.sentences import split_sentences

_HEADING = re.compile(r"^(#{1,6})[ \t]+(.*?)[ \t]*#*$", re.MULTILINE)
_FENCE = re.compile(r"^(```|~~~).*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)


def split_document(document: Document, *, max_chars: int) -> Iterator[Passage]:
    """Yield the passages of a document in order; `document.text[p.start:p.end] == p.text`.

    Headings stand in a passage's heading path, not in its text; sections without a sentence give none.

    Args:
        document: Markdown or plain text.
        max_chars: the most characters a passage has.
    """
    for start, end, path in _sections(document.text):
        for begin, stop in _pack(_atoms(document.text, start, end, max_chars), max_chars):
            yield Passage(document.id, document.text[begin:stop], begin, stop, path)


def _sections(text: str) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Yield (start, end, heading path) of the text under each heading, and of what stands before the first."""
    fences = [(m.start(), m.end()) for m in _FENCE.finditer(text)]
    headings = [m for m in _HEADING.finditer(text) if not any(a <= m.start() < b for a, b in fences)]
    yield 0, headings[0].start() if headings else len(text), ()
    path: list[tuple[int, str]] = []
    for index, heading in enumerate(headings):
        level = len(heading[1])
        path = [entry for entry in path if entry[0] < level] + [(level, heading[2])]
        end = headings[index + 1].start() if index + 1 < len(headings) else len(text)
        yield heading.end(), end, tuple(title for _, title in path)


def _atoms(text: str, start: int, end: int, max_chars: int) -> list[tuple[int, int]]:
    """Return the spans that are not cut: sentences, or pieces of one that is longer than the limit."""
    atoms = []
    for sentence in split_sentences(text[start:end]):
        if len(sentence.text) <= max_chars:
            atoms.append((start + sentence.start, start + sentence.end))
            continue
        for offset, piece in TextSplitter(max_chars).chunk_indices(sentence.text):
            begin = start + sentence.start + offset
            atoms.append((begin, begin + len(piece)))
    return atoms


def _pack(atoms: list[tuple[int, int]], max_chars: int) -> Iterator[tuple[int, int]]:
    """Join neighbouring spans into spans of at most `max_chars`, as even as that allows."""
    if not atoms:
        return
    total = atoms[-1][1] - atoms[0][0]
    even = min(max_chars, math.ceil(total / math.ceil(total / max_chars)) + max_chars // 10)
    begin, stop = atoms[0]
    for start, end in atoms[1:]:
        if end - begin > even:
            yield begin, stop
            begin = start
        stop = end
    yield begin, stop
