"""The process that parses: `python -m synth.documents.worker`, requests on stdin, replies on stdout, JSON lines.

Whatever a library of others does with a user's file happens here, under a limit of memory, without a network where
the system lets a process give it up. The parent (`converter.py`) keeps the clock. A request names a file and its
kind; the replies are `ready` once the parser is loaded, the file's documents (`text`, `title`, `name`, or `refused`),
and then `done` or `failed`.

This module imports nothing heavy: a parser is loaded with the first file that needs it.
"""

import asyncio
import ctypes
import functools
import io
import json
import os
import re
import resource
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import orjson

from synth.core.errors import DocumentError
from synth.documents.rows import Row, row_of, until_hopeless
from synth.documents.texts import cut_into_parts, encoding_by_mark, guess_encoding

if TYPE_CHECKING:
    import xberg

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_BATCH_ROWS = 64

# A PDF has no headings, only large or bold print; xberg makes the largest a heading and leaves the others as a
# paragraph of bold words. Short, alone and without the mark of a sentence's end, such a paragraph is a heading.
_BOLD_LINE = re.compile(r"(?<=\n)\n\*\*([^*\n]{1,100}[^*\n.!?:;,])\*\*\n(?=\n)")
EXTRA = "pip install 'synth-tune[documents]'"

Reply = dict[str, Any]


def main() -> None:
    """Answer requests until stdin ends. With `--network` the network stays reachable (datasets of the hub)."""
    # Native code of others may print; only this pipe carries replies.
    replies = io.FileIO(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - open as long as the process is
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if "--network" not in sys.argv:
        _give_up_the_network()
    requests: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    loaded: dict[str, int] = {}
    while True:
        request = json.loads(requests.get())
        _answer(request, loaded, lambda reply: _write_all(replies, orjson.dumps(reply) + b"\n"))


def _read_requests(requests: "SimpleQueue[bytes]") -> None:
    """Pass requests on; when the parent has gone, go too, whatever a parser is doing."""
    for line in sys.stdin.buffer:
        requests.put(line)
    os._exit(0)


def _write_all(pipe: io.FileIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[pipe.write(view) :]


def _give_up_the_network() -> None:
    """Move to a network namespace without an interface. Where the system refuses, parsers still are asked for none."""
    flags = _CLONE_NEWNET if os.geteuid() == 0 else _CLONE_NEWUSER | _CLONE_NEWNET
    unshare = getattr(ctypes.CDLL(None), "unshare", None)
    if unshare is not None:
        unshare(flags)


def _answer(request: Reply, loaded: dict[str, int], send: Callable[[Reply], None]) -> None:
    kind, memory = request["kind"], request["memory_bytes"]
    try:
        if kind not in loaded:
            _limit_memory(None)
            LOADERS[kind]()
            loaded[kind] = _mapped_bytes()
        # What the parser maps to be there at all is not the file's fault.
        _limit_memory(max(loaded.values()) + memory)
        _limit_cpu(request["seconds"])
        send({"ready": True})
        for reply in READERS[kind](request):
            send(reply)
            _limit_cpu(request["seconds"])  # as the parent's clock: for each document, not for the file
        send({"done": True, "retire": _mapped_bytes() > max(loaded.values()) + memory // 2})
    except MemoryError:
        _limit_memory(None)
        send({"failed": f"parsing needs more than {memory >> 20:,} MiB of memory", "retire": True})
    except RecursionError:
        send({"failed": "nested too deeply to be parsed"})
    except DocumentError as error:
        send({"failed": error.what})
    except ImportError as error:
        send({"failed": f"reading {kind} needs {error.name or error}; {EXTRA}"})
    except OSError as error:
        send({"failed": f"cannot be read ({error.strerror or error})"})
    except Exception as error:  # a parser may raise anything; the file is bad, the job goes on
        send({"failed": _reason(error)})


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"cannot be parsed ({lines[0][:300] if lines else type(error).__name__})"


def _mapped_bytes() -> int:
    with Path("/proc/self/statm").open(encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _limit_memory(size: int | None) -> None:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    soft = hard if size is None else size if hard == resource.RLIM_INFINITY else min(size, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _limit_cpu(seconds: float) -> None:
    """End this process even where the parent died while native code was in a loop: the parent's clock is gone then."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = int(used.ru_utime + used.ru_stime + seconds * (os.cpu_count() or 1)) + 60
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _parts(text: str, title: str, request: Reply) -> Iterator[Reply]:
    # A lone surrogate, which no JSON may carry, can come out of a broken file.
    clean = text.encode("utf-8", "replace")
    if len(clean) > request["max_text_bytes"]:
        raise DocumentError(f"gives more than {request['max_text_bytes'] >> 20:,} MiB of text; split the file")
    for number, part in enumerate(cut_into_parts([clean.decode("utf-8")], request["part_chars"]), 1):
        yield {"text": part, "title": title, "name": f"#part-{number}" if number > 1 else ""}


def _read_html(request: Reply) -> Iterator[Reply]:
    from bs4 import BeautifulSoup
    from markdownify import MarkdownConverter

    path = Path(request["path"])
    page = BeautifulSoup(_html_text(path), "html.parser")
    for tag in page(["script", "style", "nav", "header", "footer", "noscript", "template", "iframe"]):
        tag.decompose()
    title = page.title.get_text(strip=True) if page.title else ""
    text = MarkdownConverter(heading_style="atx", strip=["a", "img"]).convert_soup(page.body or page).strip()
    yield from _parts(text, title, request)


def _html_text(path: Path) -> str:
    from bs4.dammit import EncodingDetector

    raw = path.read_bytes()
    declared = EncodingDetector.find_declared_encoding(raw, is_html=True, search_entire_document=False)
    for encoding in (encoding_by_mark(raw[:4]), "utf-8", declared):
        try:
            text = raw.decode(encoding) if encoding else None
        except (UnicodeDecodeError, LookupError):
            continue
        if text is not None:
            break
    else:
        text = raw.decode(guess_encoding(path))
    if "\0" in text:
        raise DocumentError("holds NUL bytes; not a text file")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read_office(request: Reply) -> Iterator[Reply]:
    import xberg

    path = Path(request["path"])
    # The bytes are given, not an address: there is nothing to fetch.
    given = xberg.ExtractInput(
        kind=xberg.ExtractInputKind.BYTES, bytes=path.read_bytes(), filename=f"document.{request['kind']}"
    )
    result = asyncio.run(_extract(given))
    if not result.results:
        reason = getattr(result.errors[0], "message", str(result.errors[0])) if result.errors else "nothing came of it"
        raise DocumentError(f"cannot be parsed ({reason})")
    document = result.results[0]
    text = document.content
    if not text.strip():
        raise DocumentError("no text in it (pictures of pages are not read, and neither are streams of unusual size)")
    if request["kind"] == "pdf":
        text = _BOLD_LINE.sub(r"\n## \1\n", text)
    yield from _parts(text, getattr(document.metadata, "title", None) or "", request)


async def _extract(given: "xberg.ExtractInput") -> "xberg.ExtractionResult":
    import xberg

    return await xberg.extract(given, _xberg_config())


@functools.cache
def _xberg_config() -> "xberg.ExtractionConfig":
    import xberg

    # Page furniture is left out; headings, tables and notes stay. Pictures of text are not read.
    return xberg.ExtractionConfig(use_cache=False, disable_ocr=True, output_format=xberg.OutputFormat("markdown"))


def _read_parquet(request: Reply) -> Iterator[Reply]:
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(request["path"], memory_map=False) as file:
        yield from _table(file.schema_arrow.names, file.iter_batches(batch_size=_BATCH_ROWS), request)


def _read_arrow(request: Reply) -> Iterator[Reply]:
    import pyarrow

    with pyarrow.OSFile(request["path"]) as source:
        if source.read(6) == b"ARROW1":
            with pyarrow.ipc.open_file(source) as file:
                batches = (file.get_batch(i) for i in range(file.num_record_batches))
                yield from _table(file.schema.names, batches, request)
        else:
            source.seek(0)
            with pyarrow.ipc.open_stream(source) as stream:
                yield from _table(stream.schema.names, iter(stream), request)


def _table(names: list[str], batches: Iterator[Any], request: Reply) -> Iterator[Reply]:
    column = request.get("column")
    wanted = [name for name in names if name == column or name.lower() in ("text", "content", "id", "title")]
    values = (
        value
        for batch in batches
        for start in range(0, batch.num_rows, _BATCH_ROWS)
        for value in batch.select(wanted).slice(start, _BATCH_ROWS).to_pylist()
    )
    for row in until_hopeless(row_of(value, number, column) for number, value in enumerate(values, 1)):
        yield from _row_replies(row, request)


def _row_replies(row: Row, request: Reply) -> Iterator[Reply]:
    name = "#" + row.name.encode("utf-8", "replace").decode()
    try:
        if row.refused:
            raise DocumentError(row.refused)
        for reply in _parts(row.text, row.title.encode("utf-8", "replace").decode(), request):
            yield {**reply, "name": name + reply["name"]}
    except DocumentError as error:
        yield {"refused": error.what, "name": name}


def _read_hub(request: Reply) -> Iterator[Reply]:
    """Stream a dataset of the hub. Code that comes with a dataset never runs: it is never trusted."""
    import datasets

    try:
        rows = datasets.load_dataset(request["path"], split=request["split"], streaming=True)
    except MemoryError:
        raise
    except Exception as error:  # the library's own, the hub's, and those of four HTTP stacks
        raise DocumentError(_reason(error).replace("cannot be parsed", "cannot be opened")) from error
    found = (row_of(value, number, request["column"]) for number, value in enumerate(rows, 1))
    try:
        for row in until_hopeless(found):
            yield from _row_replies(row, request)
    except DocumentError as error:  # nothing broke off, and asking again would change nothing
        yield {"refused": error.what, "name": ""}


def _guess(request: Reply) -> Iterator[Reply]:
    yield {"encoding": guess_encoding(Path(request["path"]))}


def _load_html() -> None:
    import bs4.dammit
    import charset_normalizer
    import markdownify

    assert bs4.dammit and charset_normalizer and markdownify


def _load_office() -> None:
    import xberg

    # The first call starts its threads and maps their memory; what they take is not to count against a file.
    given = xberg.ExtractInput(kind=xberg.ExtractInputKind.BYTES, bytes=b"<p>Hello.</p>", filename="hello.html")
    asyncio.run(_extract(given))


def _load_arrow() -> None:
    import pyarrow.parquet

    assert pyarrow.parquet


def _load_hub() -> None:
    import datasets

    assert datasets


def _load_guess() -> None:
    import charset_normalizer

    assert charset_normalizer


OFFICE = ("pdf", "docx", "pptx", "xlsx")
READERS: dict[str, Callable[[Reply], Iterator[Reply]]] = {
    "html": _read_html,
    "parquet": _read_parquet,
    "arrow": _read_arrow,
    "hub": _read_hub,
    "encoding": _guess,
    **dict.fromkeys(OFFICE, _read_office),
}
LOADERS: dict[str, Callable[[], None]] = {
    "html": _load_html,
    "parquet": _load_arrow,
    "arrow": _load_arrow,
    "hub": _load_hub,
    "encoding": _load_guess,
    **dict.fromkeys(OFFICE, _load_office),
}

if __name__ == "__main__":
    main()
