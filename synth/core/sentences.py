"""Sentences of a text with their places, Markdown furniture left out."""

import re
from dataclasses import dataclass

import sentencex

_LIST_MARK = re.compile(r"^(?:[-*+]|\d+[.)])\s+")
_HEADING = re.compile(r"^#{1,6}\s")
_TABLE_RULE = re.compile(r"^[|\s:=-]+$")


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
    parts: list[str] = []
    for line in block.splitlines(keepends=True):
        opens = not parts or _LIST_MARK.match(line.lstrip()) or _HEADING.match(line)
        if opens or _HEADING.match(parts[-1]):
            parts.append(line)
        else:
            parts[-1] += line
    return parts


def _sentences_of(part: str, offset: int, language: str) -> list[Sentence]:
    stripped = part.strip()
    if not stripped or _HEADING.match(stripped) or _TABLE_RULE.match(stripped):
        return []
    mark = _LIST_MARK.match(stripped)
    lead = len(part) - len(part.lstrip()) + (mark.end() if mark else 0)
    found, position = [], 0
    body = part[lead:]
    # sentencex breaks at each line end; line ends inside a paragraph are only space.
    for piece in sentencex.segment(language, body.replace("\n", " ")):
        start = body.replace("\n", " ").index(piece, position)
        position = start + len(piece)
        core = piece.strip()
        if any(c.isalnum() for c in core):
            begin = offset + lead + start + piece.index(core)
            found.append(Sentence(part[begin - offset : begin - offset + len(core)], begin, begin + len(core)))
    return found
