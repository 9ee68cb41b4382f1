"""Sentences of a text with their places, Markdown furniture left out."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import sentencex

_LIST_MARK = re.compile(r"^(?:[-*+]|\d+[.)])\s+")
_HEADING = re.compile(r"^#{1,6}\s")
_TABLE_RULE = re.compile(r"^[|\s:=-]+$")
# sentencex takes time that grows with the square of some paragraphs; longer ones go to it in windows.
_WINDOW = 8192


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence and its place: `source[start:end] == text` (offsets in characters)."""

    text: str
    start: int
    end: int


def split_sentences(text: str, language: str = "en") -> list[Sentence]:
    """Return the sentences of `text` in order, each a verbatim slice without surrounding space.

    Headings and table rules are no sentences; a list item is one, without its mark. Paragraphs of one
    sentence that run over several lines stay one sentence.

    Args:
        text: plain text or Markdown.
        language: ISO 639-1 code; sentencex falls back to English rules for one it does not know.
    """
    found: list[Sentence] = []
    for block in re.finditer(r"(?:(?!\n[ \t]*\n).)+", text, re.DOTALL):
        offset = block.start()
        for line in _list_items(block.group()):
            found += _sentences_of(line, offset, language)
            offset += len(line)
    return found


def _list_items(block: str) -> list[str]:
    """Split a paragraph before each line that starts a list item or is a heading; nothing is lost."""
    parts: list[list[str]] = []
    for line in block.splitlines(keepends=True):
        opens = not parts or _LIST_MARK.match(line.lstrip()) or _HEADING.match(line)
        if opens or _HEADING.match(parts[-1][0]):
            parts.append([line])
        else:
            parts[-1].append(line)
    return ["".join(lines) for lines in parts]


def _sentences_of(part: str, offset: int, language: str) -> list[Sentence]:
    stripped = part.strip()
    if not stripped or _HEADING.match(stripped) or _TABLE_RULE.match(stripped):
        return []
    mark = _LIST_MARK.match(stripped)
    lead = len(part) - len(part.lstrip()) + (mark.end() if mark else 0)
    found, position = [], 0
    body = part[lead:]
    # sentencex breaks at each line end; line ends inside a paragraph are only space.
    flat = body.replace("\n", " ")
    for piece in _segments(language, flat):
        start = flat.index(piece, position)
        position = start + len(piece)
        core = piece.strip()
        if any(c.isalnum() for c in core):
            begin = offset + lead + start + piece.index(core)
            found.append(Sentence(part[begin - offset : begin - offset + len(core)], begin, begin + len(core)))
    return found


def _segments(language: str, text: str) -> Iterator[str]:
    """Yield the segments of one paragraph; the last one of a window, which may go on, begins the next window."""
    start = 0
    while len(text) - start > _WINDOW:
        pieces = sentencex.segment(language, text[start : start + _WINDOW])
        whole = pieces[:-1] or pieces
        yield from whole
        # Counted from the end: what sentencex leaves out between two segments is counted with them.
        start += _WINDOW - len(pieces[-1]) if len(pieces) > 1 else _WINDOW
    yield from sentencex.segment(language, text[start:])
