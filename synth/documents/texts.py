"""Text out of files: which encoding it is in, and long texts in parts, never more than a part in memory."""

import codecs
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from synth.core.errors import DocumentError

_CHUNK = 1024 * 1024
_SAMPLE = 256 * 1024

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_HEADING_LINE = re.compile(r"\n(?=#{1,6}[ \t])")
_BLANK_LINE = re.compile(r"\n[ \t]*\n")


def encoding_by_mark(head: bytes) -> str | None:
    """Return the encoding that a byte order mark at the start of a file names."""
    return next((name for mark, name in _MARKS if head.startswith(mark)), None)


def find_utf(path: Path) -> str | None:
    """Return the Unicode encoding that the whole file is in, or None where it is in another.

    The file is read once from end to end, so that a bad byte at its end costs no half-read document.

    Raises:
        DocumentError: it holds NUL bytes, or is not in the encoding that its byte order mark names.
    """
    with path.open("rb") as file:
        marked = encoding_by_mark(file.read(4))
    encoding = marked or "utf-8"
    try:
        for text in read_chunks(path, encoding):
            if "\0" in text:
                raise DocumentError("holds NUL bytes; not a text file, or UTF-16 without its byte order mark")
    except UnicodeDecodeError as error:
        if marked:
            raise DocumentError(f"begins as {marked} and is not ({error.reason}); save it as UTF-8") from error
        return None
    return encoding


def first_bad_byte(path: Path) -> int:
    """Return the place of the first byte that is not UTF-8, or -1."""
    decoder, position = codecs.getincrementaldecoder("utf-8")(), 0
    with path.open("rb") as file:
        while True:
            raw = file.read(_CHUNK)
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(raw, final=not raw)
            except UnicodeDecodeError as error:
                return position - pending + error.start
            if not raw:
                return -1
            position += len(raw)


def read_chunks(path: Path, encoding: str) -> Iterator[str]:
    """Yield the text of a file, with one kind of line end, in pieces of about a million characters."""
    with path.open(encoding=encoding, errors="strict") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def guess_encoding(path: Path) -> str:
    """Return the encoding of a file that is not in Unicode, where only one reading of it is likely.

    Text in one of the many 8-bit encodings can be read in another without an error and with wrong letters, so a guess
    is taken only where charset-normalizer finds one reading, or several that give the same text.

    Raises:
        DocumentError: there is more than one reading, or none.
    """
    from charset_normalizer import from_bytes

    sample, whole = _sample(path)
    fix = "save it as UTF-8"
    bad = f"not UTF-8 (byte {first_bad_byte(path)})"
    if b"\0" in sample:
        raise DocumentError("holds NUL bytes; not a text file")
    matches = from_bytes(sample)
    best = matches.best()
    if best is None:
        raise DocumentError(f"{bad} and in no encoding known here; {fix}")
    names = list(dict.fromkeys([match.encoding for match in matches]))
    foreign = sum(byte > 127 for byte in sample)
    # One to three strange letters, or a text without a language that fits, are too little to go by.
    if len({str(match) for match in matches}) > 1 or foreign < 16 or best.chaos > 0.1 or best.coherence < 0.1:
        raise DocumentError(f"{bad}, and its encoding is not certain ({', '.join(names[:3])}?); {fix}")
    # A sample may have missed the letters that tell two encodings of one family apart.
    readings = {best.encoding, *best.could_be_from_charset}
    if not whole and len(readings) > 1:
        raise DocumentError(f"{bad}, and its encoding is not certain ({', '.join(sorted(readings)[:3])}?); {fix}")
    try:
        for _ in read_chunks(path, best.encoding):
            pass
    except UnicodeDecodeError as error:
        raise DocumentError(f"{bad}, and only partly {best.encoding}; {fix}") from error
    return best.encoding


def _sample(path: Path) -> tuple[bytes, bool]:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= 4 * _SAMPLE:
            return file.read(), True
        parts = []
        for start in (0, size // 2, size - _SAMPLE):
            file.seek(start)
            parts.append(file.read(_SAMPLE))
        return b"".join(parts), False


def cut_into_parts(chunks: Iterable[str], size: int) -> Iterator[str]:
    """Yield the text of `chunks` in parts of at most `size` characters; joined they are the text.

    A part ends before a heading where there is one in its last quarter, else at a blank line, a line end or a space
    in its last half, else where it is full. A text that fits is one part, whatever stands in it.
    """
    held: list[str] = []
    length = 0
    for chunk in chunks:
        held.append(chunk)
        length += len(chunk)
        if length <= size:
            continue
        text = "".join(held)
        while len(text) > size:
            end = _end_of_part(text, size)
            yield text[:end]
            text = text[end:]
        held, length = [text], len(text)
    rest = "".join(held)
    if rest:
        yield rest


def _end_of_part(text: str, size: int) -> int:
    for pattern, begin in ((_HEADING_LINE, size * 3 // 4), (_BLANK_LINE, size // 2)):
        ends = [match.end() for match in pattern.finditer(text, begin, size)]
        if ends:
            return ends[-1]
    for mark in ("\n", " "):
        found = text.rfind(mark, size // 2, size)
        if found > 0:
            return found + 1
    return size


def first_heading(text: str) -> str:
    """Return the first Markdown heading in the first twenty lines of a text, or nothing."""
    for line in text[:20_000].splitlines()[:20]:
        if line.startswith("#"):
            return line.lstrip("#").strip()
    return ""
