"""Readers: from files and folders, and datasets of the hub, to a stream of both good and bad news.

A file that cannot be read becomes a `Quarantined`, and the stream goes on. Markdown, plain text, JSONL and CSV are
read here, a piece at a time. What needs a parser of others is read by a child process under limits (`worker.py`).
"""

import errno
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synth.core.errors import ConfigError, DocumentError, SynthError
from synth.core.records import Document
from synth.documents.converter import Converter
from synth.documents.files import Found, find_files, safe_id
from synth.documents.limits import Limits
from synth.documents.rows import Row, read_csv, read_jsonl, until_hopeless
from synth.documents.texts import cut_into_parts, find_utf, first_heading, read_chunks

__all__ = ["KINDS", "Limits", "Quarantined", "check_source", "read_documents"]

KINDS: Mapping[str, str] = {
    ".md": "text",
    ".markdown": "text",
    ".txt": "text",
    ".html": "html",
    ".htm": "html",
    ".pdf": "pdf",
    ".docx": "docx",
    ".pptx": "pptx",
    ".xlsx": "xlsx",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
"""File endings and what reads them."""

_HUB = re.compile(r"hub:(?P<name>[\w.-]+(?:/[\w.-]+)?)(?::(?P<split>[\w.\[\]:%+-]*?))?(?::(?P<column>[^:]+))?")


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A document that gave nothing, with the reason."""

    document_id: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return the line of quarantine.jsonl."""
        return {"document_id": self.document_id, "passage_id": None, "generator": None, "reason": self.reason}


def read_documents(
    sources: Sequence[str | Path],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> Iterator[Document | Quarantined]:
    """Yield every document of `sources` in a stable order, and a `Quarantined` for each bad one.

    A folder is read recursively; names that begin with a dot are passed over. A document's id is its path
    below the folder that was named, so a run does not depend on where the folder lies.

    Args:
        sources: files, folders, and datasets of the hub as `hub:owner/name[:split][:column]`.
        include: patterns as in .gitignore, on the path below a named folder; only what matches one is read.
        exclude: patterns of what is not read. A `.synthignore` in a named folder holds such patterns too.
        limits: what reading one file may cost.

    Raises:
        ConfigError: a source is not there, a pattern is none, or a dataset of the hub cannot be opened.
        DocumentError: a dataset of the hub broke off. (A file that breaks off is quarantined.)
    """
    for source in sources:
        check_source(source)
    seen: set[bytes] = set()
    with ExitStack() as stack:
        reading = _Reading(limits, stack)
        for source in sources:
            for item in reading.read_source(source, include, exclude):
                if isinstance(item, Document):
                    # A digest in place of the name: rows are many, and their names would be what memory holds.
                    mark = hashlib.blake2b(item.id.encode(), digest_size=8).digest()
                    if mark in seen:
                        yield Quarantined(
                            item.id, "another document has the same id; rename one or name their common folder"
                        )
                        continue
                    seen.add(mark)
                yield item


def check_source(source: str | Path) -> None:
    """Return if `source` is a file or a folder, or has the form of a dataset of the hub.

    Raises:
        ConfigError: it does not, or the system does not let us look at it.
    """
    try:
        os.stat(source)  # noqa: PTH116 - a text that is no path at all has to reach it, too
    except (OSError, ValueError) as error:
        if _HUB.fullmatch(str(source)):
            return
        code = error.errno if isinstance(error, OSError) else errno.ENOENT
        missing = code in (errno.ENOENT, errno.ENOTDIR)
        raise ConfigError(
            "there is no such file or folder" if missing else f"cannot be read ({os.strerror(code or 0)})",
            where=str(source),
            fix="name a folder of documents, or a dataset as hub:owner/name",
        ) from error


@dataclass(slots=True)
class _Reading:
    """Reads files one after the other, with one child process for all that need one."""

    limits: Limits
    stack: ExitStack
    converters: dict[bool, Converter] = field(default_factory=dict)

    def read_source(
        self, source: str | Path, include: Sequence[str], exclude: Sequence[str]
    ) -> Iterator[Document | Quarantined]:
        """Yield the documents of a file, of a folder or of a dataset of the hub."""
        if _HUB.fullmatch(str(source)) and not os.path.lexists(source):
            yield from self.read_hub(str(source))
            return
        for found in find_files(Path(source), include, exclude):
            yield from self.read_file(found)

    def read_file(self, found: Found) -> Iterator[Document | Quarantined]:
        """Yield the documents of one file, and what is wrong with it."""
        name = found.document_id
        try:
            if found.refused:
                raise DocumentError(found.refused)
            for item in self._read(found.path, name):
                if isinstance(item, Document) and not item.text.strip():
                    yield Quarantined(item.id, "the document is empty")
                else:
                    yield item
        except SynthError as error:
            yield Quarantined(name, error.what)
        except OSError as error:
            yield Quarantined(name, f"cannot be read ({error.strerror or error})")
        except ValueError as error:  # not in the encoding that it was in when it was looked at
            yield Quarantined(name, f"cannot be read ({error}); did it change meanwhile?")

    def read_hub(self, source: str) -> Iterator[Document | Quarantined]:
        """Yield one document a row of a dataset of the hub, or raise."""
        match = _HUB.fullmatch(source)
        assert match is not None
        begun = False
        try:
            replies = self._converter(network=True).convert(
                match["name"], "hub", split=match["split"] or "train", column=match["column"]
            )
            for item in _from_replies(replies, f"hub:{match['name']}"):
                begun = True
                yield item
        except DocumentError as error:
            if begun:
                raise DocumentError(
                    f"broke off ({error.what})", where=source, fix="run the same command again"
                ) from error
            fix = "check the name and the network, or download it and name its folder"
            raise ConfigError(error.what, where=source, fix=fix) from error

    def _converter(self, *, network: bool = False) -> Converter:
        if network not in self.converters:
            self.converters[network] = self.stack.enter_context(Converter(self.limits, network=network))
        return self.converters[network]

    def _read(self, path: Path, name: str) -> Iterator[Document | Quarantined]:
        kind = KINDS.get(path.suffix.lower())
        if kind is None:
            known = " ".join(sorted(KINDS))
            ending = safe_id(path.suffix) or "files without an ending"
            raise DocumentError(f"no reader for {ending} (known: {known})")
        size = path.stat().st_size
        if size > self.limits.max_file_bytes:
            raise DocumentError(f"larger than {self.limits.max_file_bytes >> 20:,} MiB; split the file")
        if size == 0:
            raise DocumentError("the document is empty")
        with path.open("rb"):  # says who may not read it before a child is asked to
            pass
        if kind == "text":
            yield from self._text(path, name)
        elif kind == "jsonl":
            yield from self._rows(read_jsonl(path, self.limits.max_text_bytes), name)
        elif kind == "csv":
            yield from self._csv(path, name)
        else:
            yield from _from_replies(self._converter().convert(str(path.absolute()), kind), name)

    def _text(self, path: Path, name: str) -> Iterator[Document]:
        yield from self._in_parts(read_chunks(path, self._encoding(path)), name, title=None)

    def _encoding(self, path: Path) -> str:
        found = find_utf(path)
        if found is None:
            # charset-normalizer can take long over odd bytes, so it works against the clock too.
            # Read to the end of the reply: a child that was left in the middle of one has to be started again.
            (reply,) = self._converter().convert(str(path.absolute()), "encoding")
            found = reply["encoding"]
        return str(found)

    def _csv(self, path: Path, name: str) -> Iterator[Document | Quarantined]:
        rows, table = read_csv(path, self._encoding(path), self.limits.max_text_bytes)
        if rows is not None:
            yield from self._rows(rows, name)
        elif table is not None:
            yield from self._in_parts(table, name, title="")

    def _rows(self, rows: Iterator[Row], name: str) -> Iterator[Document | Quarantined]:
        for row in until_hopeless(rows):
            document_id = f"{name}#{safe_id(row.name)}"
            if row.refused:
                yield Quarantined(document_id, row.refused)
            elif "\0" in row.text:
                yield Quarantined(document_id, "holds NUL characters")
            elif not row.text.strip():
                yield Quarantined(document_id, "the document is empty")
            else:
                yield from self._in_parts([row.text], document_id, title=row.title)

    def _in_parts(self, chunks: Iterable[str], name: str, *, title: str | None) -> Iterator[Document]:
        for number, part in enumerate(cut_into_parts(chunks, self.limits.part_chars), 1):
            part_name = name if number == 1 else f"{name}#part-{number}"
            yield Document(part_name, part, first_heading(part) if title is None else title)


def _from_replies(replies: Iterator[dict[str, Any]], name: str) -> Iterator[Document | Quarantined]:
    for reply in replies:
        document_id = name + safe_id(reply["name"])
        if "refused" in reply:
            yield Quarantined(document_id, reply["refused"])
        elif "\0" in reply["text"]:
            yield Quarantined(document_id, "holds NUL characters")
        else:
            yield Document(document_id, reply["text"], reply["title"] or first_heading(reply["text"]))
