import asyncio
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.core.calls import ChatRequest, Completion, Sampling, Usage
from synth.core.errors import RunError
from synth.core.records import Message
from synth.inference import journal as journal_module
from synth.inference.journal import Journal

REQUEST = ChatRequest((Message("user", "Why?"),), Sampling(seed=1), {"type": "object"}, index=2)


def answer(text: str) -> Completion:
    return Completion(text, "stop", Usage(3, 4))


async def write(folder: Path, texts: dict[str, str]) -> None:
    async with Journal(folder) as journal:
        for key, text in texts.items():
            await journal.append(key, REQUEST, answer(text))


async def read(folder: Path, keys: list[str]) -> tuple[dict[str, str], int, int]:
    async with Journal(folder) as journal:
        found = {key: completion.text for key in keys if (completion := journal.get(key)) is not None}
        return found, len(journal.damaged), len(journal)


async def test_a_line_holds_the_request_and_the_response_as_documented(tmp_path: Path) -> None:
    await write(tmp_path / "journal", {"k1": "Because.\n\u2028"})
    assert orjson.loads((tmp_path / "journal" / "000001.jsonl").read_bytes()) == {
        "key": "k1",
        "request": {
            "messages": [{"role": "user", "content": "Why?"}],
            "sampling": {"temperature": 0.7, "top_p": 0.95, "max_tokens": 512, "seed": 1},
            "schema": {"type": "object"},
            "index": 2,
        },
        "response": {
            "text": "Because.\n\u2028",
            "finish_reason": "stop",
            "usage": {"prompt_tokens": 3, "completion_tokens": 4},
        },
    }


async def test_what_was_appended_is_found_at_once_and_by_the_next_process(tmp_path: Path) -> None:
    async with Journal(tmp_path) as journal:
        assert journal.get("k") is None
        await journal.append("k", REQUEST, answer("a"))
        assert journal.get("k") == Completion("a", "stop", Usage(3, 4), "k")
    assert await read(tmp_path, ["k", "other"]) == ({"k": "a"}, 0, 1)


async def test_each_process_writes_a_segment_of_its_own_and_only_if_it_has_something(tmp_path: Path) -> None:
    await write(tmp_path, {"a": "1"})
    await write(tmp_path, {})
    await write(tmp_path, {"b": "2"})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000001.jsonl", "000002.jsonl"]
    assert await read(tmp_path, ["a", "b"]) == ({"a": "1", "b": "2"}, 0, 2)


async def test_of_two_appends_under_one_key_the_first_wins_on_writing_and_on_reading(tmp_path: Path) -> None:
    async with Journal(tmp_path) as journal:
        await asyncio.gather(*(journal.append("k", REQUEST, answer(str(n))) for n in range(3)))
        await journal.append("k", REQUEST, answer("late"))
    segment = tmp_path / "000001.jsonl"
    assert segment.read_bytes().count(b"\n") == 1
    (tmp_path / "000002.jsonl").write_bytes(segment.read_bytes().replace(b'"0"', b'"9"'))
    assert await read(tmp_path, ["k"]) == ({"k": "0"}, 0, 1)


async def test_many_appends_share_a_few_syncs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = 0
    fsync = os.fsync

    def counting(descriptor: int) -> None:
        nonlocal synced
        synced += 1
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", counting)
    async with Journal(tmp_path) as journal:
        await asyncio.gather(*(journal.append(f"k{n}", REQUEST, answer(str(n))) for n in range(500)))
        assert synced <= 4  # the folder's, the first line's, the rest's
        assert {journal.get(f"k{n}").text for n in range(500)} == {str(n) for n in range(500)}  # type: ignore[union-attr]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=5), st.data())
def test_cut_at_any_byte_it_keeps_every_whole_line_and_goes_on(texts: list[str], data: st.DataObject) -> None:
    keys = [f"k{n}" for n in range(len(texts))]

    async def check(folder: Path) -> None:
        await write(folder, dict(zip(keys, texts, strict=True)))
        segment = folder / "000001.jsonl"
        content = segment.read_bytes()
        cut = data.draw(st.integers(0, len(content)))
        segment.write_bytes(content[:cut])
        whole = content[:cut].count(b"\n")
        expected = dict(zip(keys[:whole], texts, strict=False))
        assert await read(folder, keys) == (expected, 0, whole)
        await write(folder, dict(zip(keys, texts, strict=True)))
        assert await read(folder, keys) == (dict(zip(keys, texts, strict=True)), 0, len(keys))

    with TemporaryDirectory() as folder:
        asyncio.run(check(Path(folder)))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=40), st.integers(0, 2))
def test_junk_between_lines_is_counted_and_costs_no_other_line(junk: bytes, place: int) -> None:
    texts = {"a": "1", "b": "2"}

    async def check(folder: Path) -> None:
        await write(folder, texts)
        segment = folder / "000001.jsonl"
        lines = segment.read_bytes().splitlines(keepends=True)
        lines.insert(place, junk + b"\n")
        segment.write_bytes(b"".join(lines))
        assert await read(folder, ["a", "b"]) == (texts, junk.count(b"\n") + 1, 2)

    with TemporaryDirectory() as folder:
        asyncio.run(check(Path(folder)))


@pytest.mark.parametrize(
    "line",
    [
        b'{"key":1,"response":{"text":"x","finish_reason":"stop","usage":{}}}',
        b'{"key":"k","response":{"text":null,"finish_reason":"stop","usage":{}}}',
        b'{"key":"k","response":{"text":"x","finish_reason":"stop","usage":{"prompt_tokens":"3"}}}',
        b'{"key":"k"}',
        b"[]",
        b"\x00\x00\x00",
    ],
)
async def test_a_line_of_the_wrong_form_is_damage(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "000001.jsonl").write_bytes(line + b"\n")
    assert await read(tmp_path, ["k"]) == ({}, 1, 0)


async def test_an_overlong_line_is_damage_and_what_follows_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(tmp_path, {"a": "1", "b": "x" * 5000, "c": "3"})
    monkeypatch.setattr(journal_module, "MAX_LINE_BYTES", 1000)
    assert await read(tmp_path, ["a", "b", "c"]) == ({"a": "1", "c": "3"}, 1, 2)


KILLED = """
import asyncio, sys
from pathlib import Path
from synth.core.calls import ChatRequest, Completion
from synth.core.records import Message
from synth.inference.journal import Journal

async def main() -> None:
    async with Journal(Path(sys.argv[1])) as journal:
        async def one(n):
            await journal.append(f"k{n}", ChatRequest((Message("user", str(n)),)), Completion("x" * (n % 997)))
            print(n, flush=True)
        for start in range(0, 10**9, 16):
            await asyncio.gather(*(one(n) for n in range(start, start + 16)))

asyncio.run(main())
"""


async def test_kill_9_loses_no_acknowledged_call(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged = [int(process.stdout.readline()) for _ in range(200)]
    process.send_signal(signal.SIGKILL)
    acknowledged += [int(line) for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    found, damaged, _ = await read(tmp_path, [f"k{n}" for n in acknowledged])
    assert found == {f"k{n}": "x" * (n % 997) for n in acknowledged}
    assert damaged == 0


LIMITED = """
import asyncio, resource, signal, sys
from pathlib import Path
from synth.core.calls import ChatRequest, Completion
from synth.core.errors import RunError
from synth.core.records import Message
from synth.inference.journal import Journal

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))

async def main() -> None:
    async with Journal(Path(sys.argv[1])) as journal:
        append = lambda n: journal.append(f"k{n}", ChatRequest((Message("user", "?"),)), Completion("x" * 100))
        results = await asyncio.gather(*(append(n) for n in range(40)), return_exceptions=True)
        late = await asyncio.gather(append(99), return_exceptions=True)
        print(sum(isinstance(r, RunError) for r in results), len(journal), *late)

asyncio.run(main())
"""


async def test_a_write_that_the_system_refuses_reaches_every_waiter_and_the_next_run_goes_on(tmp_path: Path) -> None:
    # A limit on the file's size is the nearest thing to a full disk that needs no root.
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True
    )
    failed, kept, late = done.stdout.split(maxsplit=2)
    assert int(failed) + int(kept) == 40
    assert int(failed) > 0
    assert "cannot be written (File too large)" in late
    assert "run the same command again" in late
    assert done.stderr == ""
    texts = {f"k{n}": "y" for n in range(40)}
    await write(tmp_path, texts)
    found, damaged, count = await read(tmp_path, list(texts))
    assert (damaged, count) == (0, 40)
    assert set(found.values()) <= {"x" * 100, "y"}


async def test_a_full_disk_is_a_run_error_with_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with Journal(tmp_path) as journal:
        monkeypatch.setattr(os, "fsync", full)
        for _ in range(2):
            with pytest.raises(RunError, match="No space left on device.*free some disk space"):
                await journal.append("k", REQUEST, answer("a"))
        assert journal.get("k") is None


async def test_a_waiter_that_is_cancelled_does_not_take_its_line_along(tmp_path: Path) -> None:
    async with Journal(tmp_path) as journal:
        waiter = asyncio.create_task(journal.append("k", REQUEST, answer("a")))
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
    assert await read(tmp_path, ["k"]) == ({"k": "a"}, 0, 1)


async def test_a_folder_that_is_a_file_is_a_run_error(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("not a folder")
    with pytest.raises(RunError, match="cannot be read"):
        await read(tmp_path / "journal", [])


async def test_hundreds_of_segments_need_no_more_than_a_few_open_files(tmp_path: Path) -> None:
    keys = [f"k{n}" for n in range(150)]
    await write(tmp_path, {"k": "x"})
    line = (tmp_path / "000001.jsonl").read_bytes()
    for number, key in enumerate(keys, 2):
        (tmp_path / f"{number:06d}.jsonl").write_bytes(line.replace(b'"key":"k"', f'"key":"{key}"'.encode()))
    async with Journal(tmp_path) as journal:
        before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0
        assert all(journal.get(key) is not None for key in keys)
        after = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0
    assert after - before <= 64
