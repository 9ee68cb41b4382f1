"""What a job survives: kills, full disks, damaged journals, a bad server."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from synth.core.jsonl import read_lines
from tests.conftest import CHECKOUT, Command
from tests.fault_server import Fault, fault_server
from tests.stub_endpoint import stub_endpoint

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(CHECKOUT)}


def folder_of(path: Path, documents: int) -> Path:
    path.mkdir()
    for i in range(documents):
        (path / f"d{i:03}.md").write_text(
            f"# Pump {i}\n\nPump N{i} weighs {i + 2} grams without its box. Our shop {i} sells it for {i * 3 + 1} pounds.\n"
        )
    return path


def test_killed_200_times_at_random_moments_the_records_are_those_of_an_uninterrupted_run(tmp_path: Path) -> None:
    """tests/killing.py compares the bytes after every job, and the calls with what was in flight at each kill."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.killing", str(tmp_path / "work"), "200", "7"],
        cwd=CHECKOUT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert result["kills"] >= 200 and result["jobs"] > 1 and result["calls"] >= 80


def test_sigterm_drains_as_ctrl_c_does_and_leaves_the_records_so_far(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "docs", 60)
    with stub_endpoint(delay=0.1) as stub:
        arguments = ["generate", folder, "--run", tmp_path / "r", "--max-in-flight", 2, "--teacher", stub.url]
        process = subprocess.Popen(
            [sys.executable, "-m", "synth.cli", *map(str, arguments)],
            env=ENVIRONMENT,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 60
        while len(stub.bodies) < 12 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        asked = len(stub.bodies)
    assert process.returncode == 130 and "run the same command again" in errors
    answered = [row for path in (tmp_path / "r" / "journal").iterdir() for _, row in read_lines(path)]
    records = [row for _, row in read_lines(tmp_path / "r" / "records.jsonl")]
    assert len(answered) == asked < 120
    assert 0 < len(records) <= asked and f"{len(records)} records so far" in errors


def test_a_disk_that_is_full_ends_in_an_error_and_resuming_works_after_there_is_space(
    tmp_path: Path, command: Command
) -> None:
    folder = folder_of(tmp_path / "docs", 60)

    def small_disk() -> None:
        # A write past this size fails as on a full disk; the signal would only kill the process before it can say so.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    with stub_endpoint() as stub:
        arguments = ["generate", folder, "--run", tmp_path / "r", "--teacher", stub.url, "--no-filter"]
        full = subprocess.run(
            [sys.executable, "-m", "synth.cli", *map(str, arguments)],
            env=ENVIRONMENT,
            preexec_fn=small_disk,
            capture_output=True,
            text=True,
            check=False,
        )
        assert full.returncode == 1 and "cannot be written" in full.stderr and "Traceback" not in full.stderr
        assert "free some disk space" in full.stderr
        assert not list((tmp_path / "r").glob("**/*.part"))
        answered = sum(
            line.endswith(b"\n")
            for path in (tmp_path / "r" / "journal").iterdir()
            for line in path.read_bytes().splitlines(keepends=True)
        )
        assert 0 < answered < 120
        again = command("synth", *arguments)
        assert again.returncode == 0, again.stderr
        # What the first command had sent may reach the endpoint after its end: of its 120 calls at most all.
        assert 120 <= len(stub.bodies) <= 120 + 120 - answered
        whole = command("synth", *[*arguments[:3], tmp_path / "whole", *arguments[4:]])
        assert whole.returncode == 0, whole.stderr
    assert (tmp_path / "r" / "records.jsonl").read_bytes() == (tmp_path / "whole" / "records.jsonl").read_bytes()


def test_a_small_file_system_that_fills_up_damages_nothing(tmp_path: Path, command: Command) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a file system needs privileges that this machine does not give")
    try:
        with stub_endpoint() as stub:
            folder = folder_of(tmp_path / "docs", 200)
            arguments = ["generate", folder, "--run", disk / "r", "--teacher", stub.url, "--no-filter"]
            full = command("synth", *arguments)
            assert full.returncode == 1 and "No space left" in full.stderr
            # What is there can be read, and going on elsewhere pays only for what is missing.
            subprocess.run(["cp", "-a", str(disk / "r"), str(tmp_path / "moved")], check=True)
            journal = (tmp_path / "moved" / "journal").glob("*.jsonl")
            kept = sum(path.read_bytes().count(b"\n") for path in journal)
            done = command("synth", "generate", folder, "--run", tmp_path / "moved", *arguments[4:])
            assert done.returncode == 0, done.stderr
            assert kept > 0 and len(stub.bodies) <= 400 + 400 - kept
            assert len(list(read_lines(tmp_path / "moved" / "records.jsonl"))) == 400
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_damaged_line_of_the_journal_is_named_and_its_call_repeated(tmp_path: Path, command: Command) -> None:
    folder = folder_of(tmp_path / "docs", 5)
    with stub_endpoint() as stub:
        arguments = ["generate", folder, "--run", "r", "--teacher", stub.url, "--no-filter"]
        assert command("synth", *arguments).returncode == 0
        records = (tmp_path / "r" / "records.jsonl").read_bytes()
        segment = tmp_path / "r" / "journal" / "000001.jsonl"
        rows = segment.read_bytes().splitlines(keepends=True)
        rows[3] = rows[3][:30] + b"\xff\x00" + rows[3][60:]
        segment.write_bytes(b"".join(rows) + b'{"key": "torn')
        (tmp_path / "r" / "run.json").unlink()
        asked = len(stub.bodies)
        (tmp_path / "r" / "run.json").write_text('{"version": 1, "stages": {}}')
        done = command("synth", *arguments)
    assert done.returncode == 0 and "journal/000001.jsonl:4 could not be read" in done.stderr
    assert len(stub.bodies) == asked + 1
    assert (tmp_path / "r" / "records.jsonl").read_bytes() == records
    assert segment.read_bytes() == b"".join(rows), "the torn end is cut off"


def test_a_job_on_a_server_with_every_fault_ends_with_each_call_in_a_file_and_the_next_run_mends_it(
    tmp_path: Path, command: Command
) -> None:
    """Calls fail by turns in each of the ways of tests/fault_server.py; every tenth does so however often it is tried."""
    folder = folder_of(tmp_path / "docs", 60)
    kinds = [*Fault]
    order: dict[int, int] = {}
    tries: Counter[int] = Counter()
    healthy = False

    def plan(_: int, body: dict[str, Any]) -> Fault | None:
        # The seed tells calls apart and stays when one is tried again.
        call = order.setdefault(int(body["seed"]), len(order))
        tries[call] += 1
        if healthy or (call % 10 and tries[call] > 1):
            return None
        return kinds[call // 10 % len(kinds)] if call % 10 == 0 else kinds[call % len(kinds)] if call % 3 == 0 else None

    arguments = ["generate", folder, "--run", "r", "--no-filter", "--timeout", 1, "--retries", 2, "--max-in-flight", 16]
    with fault_server(plan) as server:
        done = command("synth", *arguments, "--teacher", server.url, "--json")
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert set(server.faults) == {*kinds, None}
        summary = json.loads(done.stdout)["generate"]
        records = [row for _, row in read_lines(tmp_path / "r" / "records.jsonl")]
        refused = [row for _, row in read_lines(tmp_path / "r" / "quarantine.jsonl")]
        assert len(records) == summary["records"] and len(refused) == summary["quarantined"]
        # Each of the 120 pairs asked for is a record or a line with its reason.
        assert len(records) + len(refused) == 120 and len(refused) >= 8
        assert all(row["reason"] for row in refused) and summary["calls_failed"] >= 5
        answers = summary["calls"] + summary["calls_replayed"]
        assert answers == summary["calls_used"] + summary["calls_quarantined"] + summary["calls_between"]
        cut = [row for row in refused if "cut off at max_tokens" in row["reason"]]
        assert all(row["raw"] for row in cut)
        # The server is well again: what got no answer is asked for again, and nothing else.
        healthy, before = True, len(server.asked)
        again = command("synth", *arguments, "--teacher", server.url, "--json")
        assert again.returncode == 0, again.stderr
        assert len(server.asked) - before == summary["calls_failed"]
        assert json.loads(again.stdout)["generate"]["calls_failed"] == 0
    assert len(list(read_lines(tmp_path / "r" / "records.jsonl"))) >= 120 - summary["calls_quarantined"]
