"""`python bench/documents.py [--keep FOLDER] [--large MIB]`: which converter loses least, and what each costs.

Writes files of each kind with planted words (the `dev` extra has the writers), makes a fresh environment for each
converter with pip, and measures there: CPU time a file (median of three, after one to warm up) and to import, size on
disk of what pip installed, the share of the planted words that came out, and how many headings, list items and table
rows are still such. The rows named `synth` are what its readers make of the files (their time is the parent's alone).
`--keep` holds the files and environments for the next time. With `--large MIB` a text file of that
size is read, its first eight documents are split, and the memory that took is printed.
"""

import argparse
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path

CONVERTERS = {
    "xberg": ["xberg"],
    "kreuzberg": ["kreuzberg"],
    "markitdown": ["markitdown[pdf,docx,pptx,xlsx]"],
    "markdownify": ["markdownify"],
    "synth": [],
}
SIZES = {"small": 3, "large": 60}


def write_files(folder: Path) -> None:
    """Write one small and one large file of each kind."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from tests import document_files as make

    for size, count in SIZES.items():
        content = make.sections(count)
        for ending in ("html", "pdf", "docx", "pptx", "xlsx"):
            getattr(make, f"write_{ending}")(folder / f"{size}.{ending}", content)
        make.write_pdf(folder / f"{size}-columns.pdf", content, columns=2)
        planted = {
            "words": [word for section in content for word in section.words],
            "headings": [section.heading for section in content],
            "items": [item for section in content for item in section.items],
            "rows": [list(row) for section in content for row in section.table],
        }
        (folder / f"{size}.json").write_text(json.dumps(planted))


def load(name: str) -> Callable[[Path], str]:
    """Return a converter as a function from a file to Markdown."""
    if name == "xberg":
        import asyncio

        import xberg

        config = xberg.ExtractionConfig(use_cache=False, disable_ocr=True, output_format=xberg.OutputFormat("markdown"))

        async def extract(path: Path) -> str:
            kind = xberg.ExtractInputKind.BYTES
            given = xberg.ExtractInput(kind=kind, bytes=path.read_bytes(), filename=path.name)
            return str((await xberg.extract(given, config)).results[0].content)

        return lambda path: asyncio.run(extract(path))
    if name == "kreuzberg":
        import kreuzberg

        settings = kreuzberg.ExtractionConfig(use_cache=False, output_format="markdown")
        return lambda path: str(kreuzberg.extract_file_sync(str(path), config=settings).content)
    if name == "markitdown":
        from markitdown import MarkItDown

        converter = MarkItDown(enable_plugins=False)
        return lambda path: str(converter.convert_local(path).text_content)
    if name == "synth":
        from synth.documents.converter import Converter
        from synth.documents.limits import Limits

        ours = Converter(Limits())
        return lambda path: "".join(reply["text"] for reply in ours.convert(str(path.absolute()), path.suffix[1:]))
    from bs4 import BeautifulSoup
    from markdownify import MarkdownConverter

    def convert(path: Path) -> str:
        page = BeautifulSoup(path.read_text(), "html.parser")
        for tag in page(["script", "style", "nav"]):
            tag.decompose()
        return str(MarkdownConverter(heading_style="atx", strip=["a", "img"]).convert_soup(page.body))

    return convert


def measure(name: str, folder: Path) -> dict[str, object]:
    """Return what a converter costs and loses; runs in the converter's own environment."""
    began = time.process_time()
    convert = load(name)
    found: dict[str, object] = {"import_s": time.process_time() - began}
    for path in sorted(folder.glob("*.html" if name == "markdownify" else "*.*")):
        if path.suffix == ".json":
            continue
        text, seconds = convert(path), []
        for _ in range(3):
            began = time.process_time()
            convert(path)
            seconds.append(time.process_time() - began)
        planted = json.loads((folder / f"{re.split('[-.]', path.name)[0]}.json").read_text())
        came = set(re.findall(r"word\d{5}", text))
        lines = [line.strip() for line in text.splitlines()]
        headings = {line.lstrip("#").strip(" *") for line in lines if line.startswith("#")}
        items = {line[1:].strip() for line in lines if line[:2] in ("- ", "* ")}
        rows = {tuple(re.findall(r"word\d{5}", line)) for line in lines if line.startswith("|")}
        found[path.name] = {
            "ms": statistics.median(seconds) * 1000,
            "words": sum(word in came for word in planted["words"]) / len(planted["words"]),
            "headings": sum(heading in headings for heading in planted["headings"]) / len(planted["headings"]),
            "items": sum(item in items for item in planted["items"]) / len(planted["items"]),
            "rows": sum(tuple(row) in rows for row in planted["rows"]) / len(planted["rows"]),
        }
    found["memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return found


def install(folder: Path, packages: list[str]) -> Path:
    """Return the Python of an environment with these packages, made if it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def installed_mib(environment: Path) -> int:
    """Return the size of what was installed beside pip and setuptools."""
    site = next((environment / "lib").glob("python*/site-packages"))
    own = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence")
    parts = [part for part in site.iterdir() if not part.name.startswith(own)]
    files = [file for part in parts for file in (part.rglob("*") if part.is_dir() else [part])]
    return sum(file.stat().st_size for file in files if file.is_file() and "__pycache__" not in file.parts) >> 20


def compare(folder: Path) -> None:
    """Print a table of all converters."""
    files = folder / "files"
    files.mkdir(parents=True, exist_ok=True)
    write_files(files)
    print("| converter | file | ms | words | headings | list items | table rows |\n" + "| --- " * 7 + "|")
    costs = []
    for name, packages in CONVERTERS.items():
        python = install(folder / name, packages) if packages else Path(sys.executable)
        command = [str(python), "-W", "ignore", __file__, "--measure", name, "--keep", str(files)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        for file, row in found.items():
            if isinstance(row, dict):
                shares = " | ".join(f"{row[key]:.0%}" for key in ("words", "headings", "items", "rows"))
                print(f"| {name} | {file} | {row['ms']:.1f} | {shares} |", flush=True)
        if not packages:
            continue
        version = subprocess.check_output(
            [str(python), "-c", f"from importlib.metadata import version; print(version({name!r}))"], text=True
        )
        costs.append((name, version.strip(), found["import_s"], installed_mib(folder / name), found["memory_mib"]))
    print("\n| converter | version | import, s | installed, MiB | memory, MiB |\n| --- | --- | --- | --- | --- |")
    for name, version, seconds, size, memory in costs:
        print(f"| {name} | {version} | {seconds:.2f} | {size} | {memory} |")


def read_large(mebibytes: int) -> None:
    """Write a text file of that size, read and split it, and print the time and the memory it took."""
    from synth.core.records import Document
    from synth.documents.readers import Limits, read_documents
    from synth.documents.splitter import split_document

    paragraph = "The Brevo kettle holds 1.7 litres of water and boils it in four minutes. " * 8 + "\n\n"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.txt"
        with path.open("w") as file:
            for _ in range(mebibytes):
                file.write(paragraph * (1024 * 1024 // len(paragraph)))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        began, documents, passages, reading = time.perf_counter(), 0, 0, 0.0
        items = read_documents([path], limits=Limits())
        while True:
            started = time.perf_counter()
            item = next(items, None)
            reading += time.perf_counter() - started
            if item is None:
                break
            assert isinstance(item, Document), item
            documents += 1
            if documents <= 8:  # enough to see what splitting adds to the memory
                passages += sum(1 for _ in split_document(item, max_chars=1200))
        seconds = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(
            f"{mebibytes} MiB of text: {documents} documents, {seconds:.0f} s "
            f"({reading:.1f} s of it reading, the rest the first eight into {passages} passages), "
            f"{before} MiB of memory before, {after} MiB at most"
        )


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--measure", choices=CONVERTERS, help=argparse.SUPPRESS)
    parser.add_argument("--large", type=int, metavar="MIB")
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure, given.keep)))
    elif given.large:
        read_large(given.large)
    elif given.keep:
        compare(given.keep.absolute())
    else:
        with tempfile.TemporaryDirectory() as folder:
            compare(Path(folder))


if __name__ == "__main__":
    main()
