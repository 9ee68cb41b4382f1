"""Broken and hostile files, each a real one, each beside good files that are read all the same."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from synth.core.records import Document
from synth.documents.converter import Converter
from synth.documents.readers import Limits, Quarantined, read_documents
from tests import document_files as make

MIB = 1024 * 1024
SMALL = Limits(memory_bytes=256 * MIB, seconds=20)


def read(folder: Path, limits: Limits = SMALL) -> tuple[dict[str, str], dict[str, str]]:
    """Return the texts and the reasons by document id."""
    items = list(read_documents([folder], limits=limits))
    texts = {item.id: item.text for item in items if isinstance(item, Document)}
    return texts, {item.document_id: item.reason for item in items if isinstance(item, Quarantined)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with good files that come before and after the bad ones."""
    path = tmp_path / "docs"
    path.mkdir()
    content = make.sections(1)
    make.write_docx(path / "a-good.docx", content)
    make.write_docx(path / "z-good.docx", content)
    (path / "z-good.txt").write_text("It is fine.")
    return path


def test_a_zip_bomb_costs_only_itself(folder: Path) -> None:
    make.write_zip_bomb_docx(folder / "bomb.docx", 200 * MIB)
    assert (folder / "bomb.docx").stat().st_size < MIB
    texts, reasons = read(folder)
    assert set(texts) == {"a-good.docx", "z-good.docx", "z-good.txt"}
    assert list(reasons) == ["bomb.docx"] and "limit" in reasons["bomb.docx"]


def test_a_pdf_that_unpacks_without_end_costs_only_itself(folder: Path) -> None:
    make.write_pdf_bomb(folder / "bomb.pdf", 300)
    make.write_pdf(folder / "z-good.pdf", make.sections(1))
    assert (folder / "bomb.pdf").stat().st_size < MIB
    texts, reasons = read(folder)
    assert set(texts) == {"a-good.docx", "z-good.docx", "z-good.txt", "z-good.pdf"}
    assert list(reasons) == ["bomb.pdf"] and reasons["bomb.pdf"]


def test_a_file_whose_parsing_needs_more_memory_than_allowed_says_so(folder: Path) -> None:
    (folder / "big.html").write_text("<p>" + "word " * 20_000_000 + "</p>")
    (folder / "z-good.html").write_text("<p>It is fine.</p>")
    texts, reasons = read(folder, Limits(memory_bytes=32 * MIB, seconds=60))
    assert set(texts) == {"a-good.docx", "z-good.docx", "z-good.html", "z-good.txt"}
    assert reasons == {"big.html": "parsing needs more than 32 MiB of memory"}


def test_a_file_that_gives_more_text_than_allowed_says_so(folder: Path) -> None:
    (folder / "long.html").write_text("<p>" + "word " * 400_000 + "</p>")
    texts, reasons = read(folder, Limits(max_text_bytes=MIB))
    assert len(texts) == 3 and reasons == {"long.html": "gives more than 1 MiB of text; split the file"}


def test_a_parser_that_takes_too_long_is_ended_and_the_next_file_read(folder: Path) -> None:
    # html.parser and the conversion take many seconds for this; the limit does not wait for them.
    (folder / "slow.html").write_text("<p>" + "<b>word</b> " * 200_000 + "</p>")
    texts, reasons = read(folder, Limits(seconds=2))
    assert len(texts) == 3 and reasons == {"slow.html": "parsing took longer than 2 seconds"}


@pytest.mark.parametrize(
    ("name", "write"), [("xxe.docx", make.write_xxe_docx), ("xxe.xlsx", make.write_xxe_xlsx)], ids=["docx", "xlsx"]
)
def test_an_external_entity_is_never_resolved(
    folder: Path, tmp_path: Path, name: str, write: Callable[[Path, Path], None]
) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("TOPSECRET")
    write(folder / name, secret)
    texts, reasons = read(folder)
    assert {"a-good.docx", "z-good.docx", "z-good.txt"} <= set(texts)
    assert name in texts or name in reasons
    assert not any("TOPSECRET" in text for text in [*texts.values(), *reasons.values()])


def test_entities_that_multiply_are_not_resolved(folder: Path) -> None:
    make.write_laughs_docx(folder / "laughs.docx")
    texts, reasons = read(folder)
    assert {"a-good.docx", "z-good.docx", "z-good.txt"} <= set(texts)
    assert "laughs.docx" in reasons or "laugh" not in texts["laughs.docx"]


def test_parsing_reaches_for_nothing_on_the_network(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/pixel.png"
        (folder / "remote.html").write_text(
            f'<link rel="stylesheet" href="{address}"><img src="{address}"><p>Text.</p>'
        )
        texts, _ = read(folder)
        assert texts["remote.html"] == "Text."
        with pytest.raises(TimeoutError):
            server.accept()


def test_garbage_under_every_ending_is_quarantined(folder: Path) -> None:
    endings = ("pdf", "docx", "pptx", "xlsx", "parquet", "arrow")
    for ending in endings:
        (folder / f"garbage.{ending}").write_bytes(bytes(range(256)) * 40)
        (folder / f"torn.{ending}").write_bytes(b"PK\x03\x04" if ending.endswith("x") else b"%PDF-1.7\n1 0 obj")
    texts, reasons = read(folder)
    assert set(texts) == {"a-good.docx", "z-good.docx", "z-good.txt"}
    assert set(reasons) == {f"{kind}.{ending}" for ending in endings for kind in ("garbage", "torn")}
    assert all(reason and "\n" not in reason for reason in reasons.values())


def test_a_parser_that_is_killed_costs_its_file_and_a_new_process(folder: Path) -> None:
    with Converter(SMALL) as converter:
        first = list(converter.convert(str(folder / "a-good.docx"), "docx"))
        child = converter._child
        assert child is not None
        child.kill()
        child.wait()
        assert list(converter.convert(str(folder / "z-good.docx"), "docx")) == first
        assert converter._child is not None and converter._child.pid != child.pid


def workers() -> set[int]:
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
    return {int(pid) for pid in children if b"synth.documents.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()}


def test_good_files_share_one_process_which_ends_with_the_iterator(folder: Path) -> None:
    items = read_documents([folder])
    next(items)
    first = workers()
    next(items)
    assert len(first) == 1 and workers() == first
    items.close()  # type: ignore[attr-defined]
    assert not workers()


def test_the_parser_dies_with_the_process_that_started_it(folder: Path) -> None:
    code = (
        "import os, sys\nfrom synth.documents.converter import Converter\nfrom synth.documents.readers import Limits\n"
        "c = Converter(Limits())\nlist(c.convert(sys.argv[1], 'docx'))\nprint(c._child.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "a-good.docx")], capture_output=True, text=True, check=False
    )
    pid = int(done.stdout)
    deadline = time.monotonic() + 10
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_missing_converter_is_a_reason_that_names_the_extra(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A module of that name that cannot be imported, first on the path: what an environment without it is like.
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "xberg.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'xberg'\", name='xberg')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "without"))
    texts, reasons = read(folder)
    assert set(texts) == {"z-good.txt"}
    assert reasons["a-good.docx"] == "reading docx needs xberg; pip install 'synth-tune[documents]'"


def test_links_pipes_and_odd_names_neither_hang_nor_lead_out(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("TOPSECRET")
    (folder / "out.txt").symlink_to(tmp_path / "outside" / "secret.txt")
    (folder / "folder").symlink_to(tmp_path / "outside")
    (folder / "loop.txt").symlink_to(folder / "loop.txt")
    (folder / "around").symlink_to(folder)
    (folder / "gone.txt").symlink_to(folder / "nothing.txt")
    (folder / "inside.txt").symlink_to(folder / "z-good.txt")
    os.mkfifo(folder / "pipe.txt")
    (folder / "two\nlines\x1b[31m.md").write_text("Odd name.")
    (folder / "device.txt").symlink_to("/dev/zero")
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.html")).write_text("<p>Odd bytes.</p>")
    texts, reasons = read(folder)
    assert set(texts) == {
        "a-good.docx", "z-good.docx", "z-good.txt", "inside.txt", r"two\x0alines\x1b[31m.md", r"caf\xe9.html"
    }  # fmt: skip
    assert set(reasons) == {"out.txt", "folder", "loop.txt", "around", "gone.txt", "pipe.txt", "device.txt"}
    assert "leads out" in reasons["out.txt"] and "leads to itself" in reasons["loop.txt"]
    assert "not followed" in reasons["folder"] and "pipe" in reasons["pipe.txt"]
    assert "TOPSECRET" not in str(texts)
    assert next(iter(read_documents([folder / "inside.txt"]))) == Document("inside.txt", "It is fine.")


def test_a_named_pipe_or_device_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    (only,) = read_documents([tmp_path / "pipe.txt"])
    assert isinstance(only, Quarantined) and "a pipe" in only.reason


def test_an_unreadable_file_and_folder_are_quarantined(folder: Path) -> None:
    # Root may read everything, so the test reads as nobody; imports come first, for nobody may not see them either.
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom synth.documents.readers import read_documents\n"
        "os.setuid(65534) if os.geteuid() == 0 else None\n"
        "for item in read_documents([Path(sys.argv[1])], include=['*.txt']): print(item)\n"
    )
    (folder / "closed.txt").write_text("No.")
    (folder / "closed.txt").chmod(0)
    (folder / "shut").mkdir()
    (folder / "shut").chmod(0)
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == os.geteuid() and str(parent).startswith("/tmp/"):
            parent.chmod(parent.stat().st_mode | 0o755)
    done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=False)
    (folder / "shut").chmod(0o700)
    assert "Quarantined(document_id='closed.txt', reason='cannot be read (Permission denied)')" in done.stdout, done
    assert "document_id='shut', reason='the folder cannot be read (Permission denied)'" in done.stdout
    assert "Document(id='z-good.txt'" in done.stdout


AS_NOBODY = (
    "import os, sys\nfrom synth.documents.readers import read_documents\nfrom synth.core.errors import ConfigError\n"
    "os.setuid(65534) if os.geteuid() == 0 else None\n"
    "try:\n    for item in read_documents(sys.argv[1:], include=['*.txt']): print(item)\n"
    "except ConfigError as error: print('ConfigError:', error)\n"
)


def test_names_and_links_that_the_system_refuses_to_look_at_are_quarantined(folder: Path, tmp_path: Path) -> None:
    shut = tmp_path / "shut"
    shut.mkdir()
    (shut / "in.txt").write_text("No.")
    (folder / "long.txt").symlink_to("a" * 300)
    (folder / "shut.txt").symlink_to(shut / "in.txt")
    (folder / "sub").mkdir()
    (folder / "sub" / "listed.txt").write_text("No.")
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == os.geteuid() and str(parent).startswith("/tmp/"):
            parent.chmod(parent.stat().st_mode | 0o755)
    shut.chmod(0)
    (folder / "sub").chmod(0o744)  # its names can be read and nothing else

    def read_as_nobody(*sources: str) -> str:
        command = [sys.executable, "-c", AS_NOBODY, *sources]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        printed = read_as_nobody(str(folder))
        for line in (
            "Quarantined(document_id='long.txt', reason='cannot be read (File name too long)')",
            "Quarantined(document_id='shut.txt', reason='a symbolic link that leads out of the folder')",
            "Quarantined(document_id='sub/listed.txt', reason='cannot be read (Permission denied)')",
            "Document(id='z-good.txt'",
        ):
            assert line in printed, printed
        assert "ConfigError: " in (named := read_as_nobody(str(shut / "in.txt"))) and "Permission denied" in named
        assert "ConfigError: " in read_as_nobody("b" * 5000)
        (folder / ".synthignore").symlink_to(shut / "in.txt")
        assert ".synthignore: cannot be read" in read_as_nobody(str(folder))
    finally:
        for path in (shut, folder / "sub"):
            path.chmod(0o755)


def test_a_table_without_texts_ends_after_a_hundred_rows(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    other = [{"id": str(i), "body": "words"} for i in range(300)]
    (tmp_path / "rows.jsonl").write_text('{"text": "One."}\n' + "".join(f'{{"body": "{i}"}}\n' for i in range(300)))
    (tmp_path / "rows.csv").write_text("id,text\n" + "1,\n" * 300)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(other), tmp_path / "rows.parquet")
    texts, reasons = read(tmp_path)
    assert texts == {"rows.jsonl#1": "One."}
    for name in ("rows.jsonl", "rows.csv", "rows.parquet"):
        assert sum(key.startswith(f"{name}#") for key in reasons) in {1, 100}
        assert reasons[name].startswith("100 rows in a row give no text")


def test_texts_in_another_encoding_share_one_process(tmp_path: Path) -> None:
    russian = "Чайник вмещает полтора литра воды и кипятит её за четыре минуты. Гарантия действует два года. "
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_bytes(russian.encode("cp1251"))
    items = read_documents([tmp_path])
    first = (next(items), workers())[1]
    assert len(first) == 1 and (next(items), workers())[1] == first


def test_the_limit_of_cpu_time_holds_for_each_document_and_not_for_the_file() -> None:
    code = (
        "import resource, time\nfrom synth.documents import worker\n"
        "def rows(request):\n"
        "    for _ in range(3):\n"
        "        begin = time.process_time()\n"
        "        yield {'limit': resource.getrlimit(resource.RLIMIT_CPU)[0]}\n"
        "        while time.process_time() < begin + 1.1: pass\n"
        "worker.READERS['slow'], worker.LOADERS['slow'] = rows, lambda: None\n"
        "request = {'kind': 'slow', 'memory_bytes': 1 << 28, 'seconds': 1}\n"
        "worker._answer(request, {}, lambda reply: print(reply.get('limit', '')))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, _, third = map(int, done.stdout.split())
    assert third > first


def test_a_file_that_changes_while_it_is_read_is_quarantined(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("It is fine. " * 800_000)
    items = read_documents([tmp_path], limits=Limits(part_chars=MIB))
    assert isinstance(next(items), Document)
    with (tmp_path / "a.txt").open("r+b") as file:
        file.seek(6 * MIB)
        file.write(b"\xff\xfe\xfa")
    *_, last = items
    assert isinstance(last, Quarantined) and last.document_id == "a.txt"
    assert last.reason.startswith("cannot be read ('utf-8' codec") and last.reason.endswith("did it change meanwhile?")


@pytest.mark.parametrize(("kind", "megabytes"), [("txt", 100), ("csv", 40), ("jsonl", 40)])
def test_a_file_larger_than_the_memory_is_read(tmp_path: Path, kind: str, megabytes: int) -> None:
    paragraph = "The Brevo kettle holds 1.7 litres of water and boils it in four minutes. " * 8
    line = {"txt": f"{paragraph}\n\n", "csv": f'"{paragraph}",2\n', "jsonl": f'{{"text": "{paragraph}"}}\n'}[kind]
    with (tmp_path / f"big.{kind}").open("w") as file:
        file.write("note,count\n" if kind == "csv" else "")
        for _ in range(megabytes):
            file.write(line * (MIB // len(line)))
    code = (
        "import resource, sys\nfrom synth.documents.readers import read_documents\n"
        "from synth.core.records import Document\n"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + (36 << 20),) * 2)\n"
        "total = 0\n"
        "for item in read_documents([sys.argv[1]]):\n"
        "    assert isinstance(item, Document), item\n    total += len(item.text)\n"
        "print(total)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / f"big.{kind}")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0.95 * megabytes * MIB


def test_a_line_without_end_is_refused_and_not_held(tmp_path: Path) -> None:
    (tmp_path / "one.jsonl").write_text('{"text": "' + "a" * 3 * MIB + '"}\n{"text": "It is fine."}\n')
    (tmp_path / "one.csv").write_text("text\n" + "a" * 3 * MIB + "\n")
    texts, reasons = read(tmp_path, Limits(max_text_bytes=MIB))
    assert texts == {"one.jsonl#2": "It is fine."}
    assert "longer than 1 MiB" in reasons["one.jsonl#1"] and "longer than 1 MiB" in reasons["one.csv"]


def test_a_file_larger_than_the_limit_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(3 * MIB)
    _, reasons = read(tmp_path, Limits(max_file_bytes=2 * MIB))
    assert reasons == {"huge.txt": "larger than 2 MiB; split the file"}


@pytest.fixture
def texts_in_encodings() -> Iterator[dict[str, bytes]]:
    russian = "Чайник вмещает полтора литра воды и кипятит её за четыре минуты. Гарантия действует два года. "
    french = "L’été dernier, la société a reçu trois réclamations. Le garçon âgé préfère la théière bleue. "
    yield {
        "utf8-mark.txt": "\ufeffcafé".encode(),
        "utf16.txt": "café\r\nnoir".encode("utf-16"),
        "utf32.txt": "café".encode("utf-32"),
        "russian.txt": russian.encode("cp1251"),
        "french.txt": (french * 5).encode("cp1252"),
        "short.txt": "caf\xe9".encode("latin-1"),
        "utf16-no-mark.txt": "plain words".encode("utf-16-le"),
        "utf16-torn.txt": "café".encode("utf-16")[:-1],
        "late.txt": b"good text. " * 400_000 + b"\xff\xfe\xfa",
    }


def test_encodings_are_read_where_they_are_certain_and_refused_where_not(
    tmp_path: Path, texts_in_encodings: dict[str, bytes]
) -> None:
    for name, raw in texts_in_encodings.items():
        (tmp_path / name).write_bytes(raw)
    texts, reasons = read(tmp_path)
    assert texts == {
        "utf8-mark.txt": "café",
        "utf16.txt": "café\nnoir",
        "utf32.txt": "café",
        "russian.txt": texts_in_encodings["russian.txt"].decode("cp1251"),
    }
    # Read as a Baltic encoding it decodes without an error and with wrong letters: not to be guessed at.
    assert re.match(r"not UTF-8 \(byte 1\), and its encoding is not certain \(.+\?\); save it", reasons["french.txt"])
    assert "byte 3" in reasons["short.txt"] and "NUL bytes" in reasons["utf16-no-mark.txt"]
    assert "begins as utf-16" in reasons["utf16-torn.txt"] and "byte 4400000" in reasons["late.txt"]
