"""Lists of jobs: all faults first, one server a teacher, each job on its own, and on again after a stop."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from synth import ConfigError, Endpoint, InferenceError, RunError, ScriptedTeacher
from synth.core.errors import Interrupted
from synth.core.jsonl import read_lines
from synth.jobs import SharedTeacher, run_jobs
from synth.jobs_file import read_jobs
from tests.conftest import CHECKOUT, Command
from tests.stub_endpoint import stub_endpoint
from tests.test_cli import HELDOUT, big_folder


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def jobs_file(tmp_path: Path, url: str, other: str | None = None) -> Path:
    """Three jobs, the first and the last of one teacher."""
    for name, documents in (("a", 6), ("b", 8), ("c", 10)):
        if not (tmp_path / name).exists():
            big_folder(tmp_path / name, documents)
    return write(
        tmp_path / "jobs.yaml",
        f"""
defaults:
  teacher: {url}
  filter:
    rule: ["relevance >= 0", "groundedness >= 0"]
jobs:
  - documents: a
    run: runs/a
  - name: other-teacher
    documents: [b]
    run: runs/b
    teacher: {other or url}
    vllm_args: ["--seed=1"]
    generate: {{seed: 3}}
  - documents: c
    run: runs/c
    no_filter: true
    generate: {{max_tokens: 90}}
""",
    )


def test_a_list_of_jobs_runs_and_runs_again_without_a_call(tmp_path: Path, command: Command) -> None:
    with stub_endpoint() as stub:
        file = jobs_file(tmp_path, stub.url)
        done = command("synth", "jobs", file, "--json")
        assert done.returncode == 0, done.stderr
        asked = len(stub.bodies)
        again = command("synth", "jobs", file)
        assert again.returncode == 0 and len(stub.bodies) == asked == 48
    rows = json.loads(done.stdout)["jobs"]
    assert [(row["name"], row["state"], row["generate"]["records"]) for row in rows] == [
        ("a", "done", 12),
        ("other-teacher", "done", 16),
        ("c", "done", 20),
    ]
    assert rows[0]["filter"]["kept"] > 0 and rows[2]["filter"] is None
    assert again.stdout.count("was finished") == 3
    # The settings of each job reached its calls; the jobs of one teacher follow each other.
    assert [body["max_tokens"] for body in stub.bodies] == [512] * 12 + [90] * 20 + [512] * 16


def test_a_job_that_fails_is_reported_and_the_others_go_on(tmp_path: Path, command: Command) -> None:
    with stub_endpoint() as stub:
        file = jobs_file(tmp_path, stub.url, other="http://127.0.0.1:9/v1")
        done = command("synth", "jobs", file, "--json", "--quiet")
        assert done.returncode == 1 and "1 of 3 jobs failed: other-teacher" in done.stderr
        assert "127.0.0.1:9" in done.stderr and "Traceback" not in done.stderr
        assert [row["state"] for row in json.loads(done.stdout)["jobs"]] == ["done", "failed", "done"]
        # Once its endpoint is up, running the same file again does the rest.
        asked = len(stub.bodies)
        done = command("synth", "jobs", jobs_file(tmp_path, stub.url), "--only", "other-teacher", "--json")
        assert done.returncode == 0 and len(stub.bodies) == asked + 16, done.stderr
        assert [row["name"] for row in json.loads(done.stdout)["jobs"]] == ["other-teacher"]


def test_ctrl_c_lists_what_was_not_run_and_the_same_command_goes_on(tmp_path: Path, command: Command) -> None:
    with stub_endpoint(delay=0.15) as stub:
        file = jobs_file(tmp_path, stub.url)
        file.write_text(file.read_text().replace("defaults:", "defaults:\n  max_in_flight: 2"))
        process = subprocess.Popen(
            [sys.executable, "-m", "synth.cli", "jobs", str(file), "--json"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 120
        while len(stub.bodies) < 16 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=120)
        assert process.returncode == 130 and "2 of 3 jobs not done" in errors and "Traceback" not in errors
        states = {row["name"]: row["state"] for row in json.loads(printed)["jobs"]}
        assert states == {"a": "done", "c": "interrupted", "other-teacher": "not run"}
        done = command("synth", "jobs", file)
        assert done.returncode == 0, done.stderr
        assert len(stub.bodies) == 48
    assert sum(1 for _ in read_lines(tmp_path / "runs" / "c" / "records.jsonl")) == 20


def test_a_second_ctrl_c_drops_the_calls_in_flight_without_a_traceback(tmp_path: Path) -> None:
    with stub_endpoint(delay=600) as stub:
        process = subprocess.Popen(
            [sys.executable, "-m", "synth.cli", "jobs", str(jobs_file(tmp_path, stub.url))],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 120
        while len(stub.bodies) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        while "Ctrl-C again" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130
    assert "the calls in flight were dropped" in errors and "Traceback" not in errors


def test_all_faults_of_the_file_are_found_before_the_first_job(tmp_path: Path, command: Command) -> None:
    big_folder(tmp_path / "docs", 2)
    write(tmp_path / "bad.jsonl", HELDOUT + '{"question": "No answer?"}\n')
    file = write(
        tmp_path / "jobs.yaml",
        """
defaults: {teacher: bundled, generate: {seeed: 1}}
job: []
jobs:
  - {documents: docs, run: r1, generate: {temprature: 1}, filter: {preset: extractiv}}
  - {documents: none, run: r2, generator: qaa, heldout: bad.jsonl}
  - {name: third, documents: docs, run: r2, filter: {rule: ["grounded >= 1"]}, teecher: x, max_in_flight: 0}
  - {documents: docs, run: r5, teacher: ./no-folder}
  - {run: r6}
""",
    )
    done = command("synth", "jobs", file)
    assert done.returncode == 2 and "Traceback" not in done.stderr and not done.stdout
    for fault in (
        "defaults, generate: unknown setting 'seeed' (did you mean seed?)",
        "the file: unknown setting 'job' (did you mean jobs?)",
        "job r1, generate: unknown setting 'temprature' (did you mean temperature?)",
        "job r1, filter: preset: Input should be 'general', 'extractive' or 'none'",
        "job r2: none: there is no such file or folder",
        "job r2: no generator is called 'qaa'; did you mean qa",
        "job r2: bad.jsonl:2: ",
        "unknown setting 'teecher' (did you mean teacher",
        "job third: max_in_flight: Input should be greater than or equal to 1",
        "several jobs have the run 'r2'",
        "job r5: --teacher: './no-folder' is no folder, no hub id",
        "job r6: documents: Field required",
    ):
        assert fault in done.stderr, fault
    assert done.stderr.count("seeed") == 1
    assert not list(tmp_path.glob("r?"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jobs: [", "not valid YAML"),
        ("- a\n- b", "is no mapping with a list `jobs`"),
        ("jobs: {}", "there is no list `jobs`"),
        ("jobs: [qa]", "job 1 is no mapping"),
        (
            "defaults: {documents: d, teacher: bundled}\njobs: [{run: a/x}, {run: b/x}]",
            "several jobs have the name 'x'",
        ),
        (
            "defaults: {documents: d, teacher: bundled}\njobs: [{name: a, run: x}, {name: b, run: ./x}]",
            "several jobs have the run",
        ),
        (
            "defaults: {documents: d, teacher: bundled, run: x}\njobs: [{name: a}, {name: b}]",
            "several jobs have the run 'x'",
        ),
        (
            "defaults: {documents: d, teacher: bundled}\njobs: [{name: a, run: d/../x}, {name: b, run: x}]",
            "several jobs have the run 'd/../x'",
        ),
    ],
)
async def test_a_file_that_makes_no_sense_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    with pytest.raises(ConfigError, match=message):
        await read_jobs(write(tmp_path / "jobs.yaml", text))


async def test_a_job_overrides_the_defaults_key_by_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    big_folder(tmp_path / "docs", 1)
    text = """
defaults:
  teacher: http://127.0.0.1:9/v1
  generator: examples:Other
  generate: {seed: 4, max_tokens: 80, options: {qa: {pairs_per_passage: 2}, x: {y: 1}}}
  filter: {preset: extractive}
jobs:
  - {documents: docs, run: r1, generate: {generator: [qa], seed: 5, options: {qa: {evidence: index}}}, filter: {seed: 9}}
  - {documents: docs, run: r2, generator: qa, generate: {shard: 0/2}}
  - {documents: docs, run: r3, teacher: bundled, generator: qa, generate: {max_tokens: 99}}
"""
    first, second, third = (named.job for named in await read_jobs(write(tmp_path / "jobs.yaml", text)))
    assert first.generate.generator == ("qa",) and (first.generate.seed, first.generate.max_tokens) == (5, 80)
    assert first.generate.options == {"qa": {"pairs_per_passage": 2, "evidence": "index"}, "x": {"y": 1}}
    assert first.filter and (first.rules.preset, first.rules.seed) == ("extractive", 9)
    assert not second.filter and second.generate.seed == 4
    # The bundled model brings its own settings, which the file overrides.
    assert (third.generate.passage_chars, third.generate.max_tokens) == (450, 99)
    assert third.filter and third.rules.rule == ("confidence >= 0.8",)


class Opened:
    """Counts how often an endpoint is opened and closed."""

    def __init__(self) -> None:
        self.opened = self.closed = 0
        self.errors: list[BaseException] = []

    def opening(self) -> AbstractAsyncContextManager[Endpoint]:
        @asynccontextmanager
        async def opening() -> AsyncIterator[Endpoint]:
            self.opened += 1
            try:
                yield ScriptedTeacher(["one"] * 9)
            except InferenceError as error:
                self.errors.append(error)
                raise
            finally:
                self.closed += 1

        return opening()


async def test_a_shared_teacher_opens_once_and_again_after_it_was_gone() -> None:
    counts = Opened()
    shared = SharedTeacher(counts.opening)
    for _ in range(3):
        async with shared as endpoint:
            assert endpoint.model == "scripted"
    assert (counts.opened, counts.closed) == (1, 0)
    with pytest.raises(InferenceError, match="gone"):
        async with shared:
            raise InferenceError("the teacher is gone")
    assert (counts.opened, counts.closed, len(counts.errors)) == (1, 1, 1)
    async with shared:
        pass
    await shared.close()
    await shared.close()
    assert (counts.opened, counts.closed) == (2, 2)


async def test_a_shared_teacher_is_opened_again_after_any_failure_and_kept_after_a_stop() -> None:
    counts = Opened()
    shared = SharedTeacher(counts.opening)
    for error, opened in ((Interrupted("stopped"), 1), (RunError("nothing came of it"), 1), (OSError("gone"), 2)):
        with pytest.raises(type(error)):
            async with shared:
                raise error
        assert counts.opened == opened
    await shared.close()
    assert (counts.opened, counts.closed) == (2, 2)


async def test_jobs_that_differ_in_how_a_teacher_is_opened_share_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c", "d"):
        big_folder(tmp_path / name, 2)
    with stub_endpoint() as stub:
        text = f"""
defaults: {{teacher: "{stub.url}", no_filter: true, timeout: 30, retries: 1}}
jobs:
  - {{documents: a, run: runs/a}}
  - {{documents: b, run: runs/b, timeout: 40}}
  - {{documents: c, run: runs/c, max_in_flight: 3, stall_seconds: 180}}
  - {{documents: d, run: runs/d, retries: 2, stall_seconds: 90}}
"""
        jobs = await read_jobs(write(tmp_path / "jobs.yaml", text))
        settings = [(named.job.timeout, named.job.retries, named.job.stall_seconds) for named in jobs]
        assert settings == [(30, 1, 180), (40, 1, 180), (30, 1, 180), (30, 2, 90)]
        begun: list[str] = []
        outcomes = await run_jobs(jobs, asyncio.Event(), quiet=True, say=begun.append)
    assert [outcome.state for outcome in outcomes] == ["done"] * 4
    assert [text.partition(":")[0] for text in begun] == ["a", "c", "b", "d"]


async def test_a_shared_teacher_that_was_never_needed_is_never_opened() -> None:
    counts = Opened()
    await SharedTeacher(counts.opening).close()
    assert counts.opened == 0


@pytest.mark.vllm
def test_one_server_answers_the_jobs_of_one_teacher(tmp_path: Path, command: Command) -> None:
    for name in ("a", "b"):
        big_folder(tmp_path / name, 3)
    entries = "".join(f"  - {{documents: {name}, run: {name}-run, no_filter: true}}\n" for name in ("a", "b"))
    file = write(tmp_path / "jobs.yaml", f"defaults: {{teacher: bundled}}\njobs:\n{entries}")
    done = command("synth", "jobs", file, "--json")
    assert done.returncode == 0, done.stderr
    assert [row["generate"]["calls"] > 0 for row in json.loads(done.stdout)["jobs"]] == [True, True]
    assert done.stderr.count("starting vLLM") == 1
    assert [path.parent.parent.name for path in tmp_path.glob("*/logs/teacher.log")] == ["a-run"]
    again = command("synth", "jobs", file)
    assert again.returncode == 0 and "starting vLLM" not in again.stderr and again.stdout.count("was finished") == 2
