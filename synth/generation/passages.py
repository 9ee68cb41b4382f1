"""passages.jsonl: written once from the documents, then read from disk as it is asked for."""

import hashlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, overload

import orjson

from synth.core.errors import Interrupted, RunError
from synth.core.fingerprint import canonical_json
from synth.core.jsonl import FileDigest, write_jsonl
from synth.core.records import Document, Passage
from synth.documents.readers import Quarantined


@dataclass(frozen=True, slots=True)
class Reading:
    """What the documents gave: documents found = `documents` + those in `refused`.

    `digest` is over every document, read or refused; `refused` are lines of quarantine.jsonl.
    """

    documents: int
    passages: int
    duplicates: int
    refused: tuple[dict[str, Any], ...]
    digest: FileDigest
    file: FileDigest


def write_passages(
    path: Path,
    items: Iterator[Document | Quarantined],
    split: Callable[[Document], Iterator[Passage]],
    *,
    sources: str,
    on_document: Callable[[int, int], None] = lambda documents, refused: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Reading:
    """Write each passage of each document as a line; memory does not grow with the text.

    A passage that shows a teacher the same text under the same headings as an earlier one names that
    one in `duplicate_of`; it is not asked about again.

    Args:
        path: passages.jsonl.
        items: from `read_documents`.
        split: gives a document's passages.
        sources: the sources in words, for the error.
        on_document: called after each document with the numbers of documents read and refused.
        stopped: asked after each document.

    Raises:
        RunError: no document gave a passage; an older file is left as it was.
        Interrupted: `stopped` said so; an older file is left as it was.
    """
    digest = hashlib.sha256()
    refused: list[dict[str, Any]] = []
    first: dict[int, int] = {}
    documents = duplicates = 0

    def refuse(item: Quarantined) -> None:
        refused.append(item.to_json())
        digest.update(canonical_json(refused[-1]))

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal documents, duplicates
        for item in items:
            if stopped():
                raise Interrupted("stopped while documents were read", fix="run the same command again")
            if isinstance(item, Quarantined):
                refuse(item)
            else:
                digest.update(canonical_json([item.id, item.text]))
                found = False
                for passage in split(item):
                    found = True
                    shown, own = int(passage.shown_id, 16), int(passage.id, 16)
                    twin = first.setdefault(shown, own)
                    duplicates += twin != own
                    yield {**passage.to_json(), "duplicate_of": None if twin == own else f"{twin:016x}"}
                if found:
                    documents += 1
                else:
                    refuse(Quarantined(item.id, "the document has no sentence"))
            on_document(documents, len(refused))
        if not documents:
            # Raised while the file is being written, so that a wrong folder leaves an older run's passages alone.
            reasons = f"; the first reason: {refused[0]['reason']}" if refused else ""
            raise RunError(
                f"no document gave a passage ({len(refused)} could not be read{reasons})",
                where=sources,
                fix="name a folder of documents; docs/documents.md lists the formats",
            )

    file = write_jsonl(path, rows())
    return Reading(
        documents,
        file.rows,
        duplicates,
        tuple(refused),
        FileDigest(digest.hexdigest(), documents + len(refused)),
        file,
    )


class PassageFile(Sequence[Passage]):
    """The passages of passages.jsonl in order, each read from disk when it is asked for; a context manager.

    Raises:
        RunError: the file cannot be read, or a line of it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offsets = array("Q")
        self._original = bytearray()
        try:
            self._file = path.open("rb")
            offset = 0
            for line in self._file:
                self._offsets.append(offset)
                self._original.append(orjson.loads(line).get("duplicate_of") is None)
                offset += len(line)
        except (OSError, ValueError) as error:
            raise RunError(f"cannot be read ({error})", where=str(path), fix="run `synth generate` again") from error

    def __len__(self) -> int:
        return len(self._offsets)

    @overload
    def __getitem__(self, index: int) -> Passage: ...

    @overload
    def __getitem__(self, index: slice) -> list[Passage]: ...

    def __getitem__(self, index: int | slice) -> Passage | list[Passage]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        self._file.seek(self._offsets[index])
        return Passage.from_json(orjson.loads(self._file.readline()))

    def originals(self) -> list[int]:
        """Return the indices of the passages that are no duplicate of an earlier one."""
        return [index for index, original in enumerate(self._original) if original]

    def __enter__(self) -> Self:
        """Return the sequence; the file is open already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._file.close()
