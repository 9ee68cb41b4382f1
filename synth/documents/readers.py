"""Readers: from a file to documents, and from folders to a stream of both good and bad news.

A reader is a function from a path to the documents in it; `READERS` maps file endings to them. A file
that cannot be read becomes a `Quarantined`, and the stream goes on.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synth.core.errors import ConfigError, DocumentError, RecordError, SynthError
from synth.core.jsonl import read_lines
from synth.core.records import Document

MAX_DOCUMENT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A document that gave nothing, with the reason."""

    document_id: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return the line of quarantine.jsonl."""
        return {"document_id": self.document_id, "passage_id": None, "generator": None, "reason": self.reason}


def read_text(path: Path, document_id: str) -> Iterator[Document | Quarantined]:
    """Read Markdown or plain text in UTF-8."""
    text = _decoded(path)
    yield Document(document_id, text, _first_heading(text))


def read_html(path: Path, document_id: str) -> Iterator[Document | Quarantined]:
    """Read HTML as Markdown: headings, lists and tables stay, scripts and page furniture go."""
    from bs4 import BeautifulSoup
    from markdownify import MarkdownConverter

    page = BeautifulSoup(_decoded(path), "html.parser")
    for tag in page(["script", "style", "nav", "header", "footer", "noscript", "template", "iframe"]):
        tag.decompose()
    title = page.title.get_text(strip=True) if page.title else ""
    text = MarkdownConverter(heading_style="atx", strip=["a", "img"]).convert_soup(page.body or page).strip()
    yield Document(document_id, text, title or _first_heading(text))


def read_jsonl(path: Path, document_id: str) -> Iterator[Document | Quarantined]:
    """Read one document a line: `text` (or `content`), and where given `id` and `title`."""
    lines = read_lines(path)
    number = 0
    while True:
        try:
            number, row = next(lines)
        except StopIteration:
            return
        except RecordError as error:
            yield Quarantined(document_id, str(error))
            return
        text = row.get("text", row.get("content")) if isinstance(row, dict) else None
        name = f"{document_id}#{row['id'] if isinstance(row, dict) and row.get('id') else number}"
        if isinstance(text, str):
            yield Document(name, text, str(row.get("title") or ""))
        else:
            yield Quarantined(name, "the line has no 'text' with a string in it")


READERS: Mapping[str, Callable[[Path, str], Iterator[Document | Quarantined]]] = {
    ".md": read_text,
    ".markdown": read_text,
    ".txt": read_text,
    ".html": read_html,
    ".htm": read_html,
    ".jsonl": read_jsonl,
}


def read_documents(sources: Sequence[Path]) -> Iterator[Document | Quarantined]:
    """Yield every document below `sources` in a stable order, and a `Quarantined` for each bad one.

    A folder is read recursively; names that begin with a dot are passed over. A document's id is its path
    below the folder that was named, so a run does not depend on where the folder lies.

    Raises:
        ConfigError: a source is not there, or two sources give a document the same id.
    """
    seen: set[str] = set()
    for source in sources:
        if not source.exists():
            raise ConfigError("there is no such file or folder", where=str(source), fix="name a folder of documents")
    for path, document_id in _files(sources):
        for item in _read_file(path, document_id):
            name = item.id if isinstance(item, Document) else item.document_id
            if isinstance(item, Document) and name in seen:
                yield Quarantined(name, "another document has the same id; rename one or name their common folder")
                continue
            seen.add(name)
            yield item


def _files(sources: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    for source in sources:
        if source.is_file():
            yield source, source.name
            continue
        for folder, folders, names in os.walk(source):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                if not name.startswith("."):
                    path = Path(folder) / name
                    yield path, path.relative_to(source).as_posix()


def _read_file(path: Path, document_id: str) -> Iterator[Document | Quarantined]:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        known = " ".join(sorted(READERS))
        yield Quarantined(document_id, f"no reader for {path.suffix or 'files without an ending'} (known: {known})")
        return
    try:
        if path.is_symlink() and not _stays_inside(path, document_id):
            raise DocumentError("a symbolic link that leads out of the folder")
        for item in reader(path, document_id):
            if isinstance(item, Document) and not item.text.strip():
                yield Quarantined(item.id, "the document is empty")
            else:
                yield item
    except SynthError as error:
        yield Quarantined(document_id, error.what)
    except OSError as error:
        yield Quarantined(document_id, f"cannot be read ({error.strerror})")


def _stays_inside(path: Path, document_id: str) -> bool:
    root = path.parents[len(Path(document_id).parts) - 1].resolve()
    return path.resolve().is_relative_to(root)


def _decoded(path: Path) -> str:
    if path.stat().st_size > MAX_DOCUMENT_BYTES:
        raise DocumentError(f"larger than {MAX_DOCUMENT_BYTES >> 20} MiB; split the file")
    raw = path.read_bytes()
    if b"\0" in raw:
        raise DocumentError("holds NUL bytes; not a text file")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DocumentError(f"not UTF-8 (byte {error.start}); save it as UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _first_heading(text: str) -> str:
    for line in text.splitlines()[:20]:
        if line.startswith("#"):
            return line.lstrip("#").strip()
    return ""
