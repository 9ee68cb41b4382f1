"""Ours beside synthetic-data-kit, distilabel and data-designer: one server, the same documents, as many pairs.

    python bench/peers/compare.py --peer-python synthetic-data-kit=PYTHON --peer-python distilabel=PYTHON \
        --peer-python data-designer=PYTHON [--server stub|vllm] [--shape short|long] [--in-flight 64] [--rounds 3]

Each tool runs in its own Python, as its documentation tells a user to (run_*.py), from the start of its process to
its end. The tools take turns, in another order each round; ours runs once before that, uncounted, and the number of
pairs that it makes is the number that the others are asked for. A run that takes longer than --timeout is ended.

Calls are counted at the server. A record is valid when its question and its answer are strings that are not blank
and no record before it is the same. What is printed are medians over the rounds, as a Markdown table; "ours to it"
is the median of the ratios of valid records a second, run by run of one round. Processor time is that of the tool and
of the processes that it waited for; it says most where other jobs share the machine.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from job import Job, cut

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
OURS = "ours"
PEERS = ("synthetic-data-kit", "distilabel", "data-designer")
_METRIC = re.compile(r'^http_requests_total\{[^}]*handler="/v1/chat/completions"[^}]*\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run of one tool. `most_open` and `talking` are known where the server is the stub."""

    tool: str
    version: str
    ended: str
    wall: float
    cpu: float
    calls: int
    records: int
    valid: int
    most_open: int | None = None
    talking: float | None = None

    @property
    def rate(self) -> float:
        """Valid records per second of wall time."""
        return self.valid / self.wall

    @property
    def yielded(self) -> float:
        """Valid records per call."""
        return self.valid / self.calls if self.calls else 0.0


class Server(Protocol):
    """An endpoint that says how many calls it has got since the last time it was asked."""

    url: str
    model: str

    def counts(self) -> tuple[int, int | None, float | None]:
        """Return the calls, how many were open at most, and the seconds from the first to the last; begin again."""
        ...


class StubServer:
    """The stub of this folder, in a process of its own."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}"
        self.url, self.model = f"{self._base}/v1", "stub"

    def counts(self) -> tuple[int, int | None, float | None]:
        """Return the counts and begin again."""
        stats = json.loads(_get(f"{self._base}/stats"))
        urllib.request.urlopen(urllib.request.Request(f"{self._base}/reset", method="POST")).read()
        return stats["calls"], stats["most_open"], stats["seconds"]


class RealServer:
    """A vLLM server; its own metrics count the requests, refused ones too."""

    def __init__(self, url: str, model: str) -> None:
        self.url, self.model = url, model
        self._before = 0

    def counts(self) -> tuple[int, int | None, float | None]:
        """Return the number of requests and begin again."""
        text = _get(self.url.removesuffix("/v1") + "/metrics")
        now = int(sum(float(value) for value in _METRIC.findall(text)))
        calls, self._before = now - self._before, now
        return calls, None, None


@contextlib.contextmanager
def stub(delay: float, token_delay: float) -> Iterator[Server]:
    """Start the stub and stop it at the end."""
    from synth.inference.vllm_command import free_port

    port = free_port()
    command = [sys.executable, str(HERE / "stub_server.py"), "--port", str(port)]
    command += ["--delay", str(delay), "--token-delay", str(token_delay)]
    process = subprocess.Popen(command)
    try:
        server = StubServer(port)
        for _ in range(200):
            with contextlib.suppress(OSError):
                server.counts()
                break
            time.sleep(0.05)
        yield server
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def real(model: Path, log: Path) -> Iterator[Server]:
    """Start vLLM on a model and stop it at the end."""
    from synth.inference.server import VLLMServer

    # distilabel asks by a forced tool call. vLLM refuses one unless a parser is named, and holds the arguments to
    # their schema only where the tool says `strict`, which distilabel's does not, or the server says it for all.
    arguments = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--tool-strict-level", "parameter"]
    with VLLMServer(model, log_path=log, args=arguments) as server:
        counted = RealServer(server.base_url, server.served)
        counted.counts()
        yield counted


def make_documents(source: Path, folder: Path, *, shape: str, copies: int, most: int | None) -> list[Path]:
    """Write numbered copies of the documents below `source`, as they are ("short") or one file a copy ("long").

    The number stands in every paragraph, so that no two passages, and no two prompts, are the same.
    """
    folder.mkdir()
    originals = sorted(path for path in source.rglob("*") if path.suffix in {".md", ".txt"})[:most]
    for copy in range(1, copies + 1):
        texts = {path.stem: numbered(path.read_text(encoding="utf-8"), copy) for path in originals}
        if shape == "long":
            texts = {"handbook": "\n\n".join(texts.values())}
        for name, text in texts.items():
            (folder / f"{name}-{copy:03}.txt").write_text(text, encoding="utf-8")
    return sorted(folder.iterdir())


def numbered(text: str, copy: int) -> str:
    """Return a text with the number of its copy at the end of each paragraph that is no heading."""
    paragraphs = []
    for paragraph in text.strip().split("\n\n"):
        if paragraph.startswith("#"):
            paragraphs.append(paragraph)
        elif paragraph.endswith("."):
            paragraphs.append(f"{paragraph[:-1]} in edition {copy}.")
        else:
            paragraphs.append(f"{paragraph} (edition {copy})")
    return "\n\n".join(paragraphs)


def run_tool(tool: str, python: str, job: Job, server: Server, folder: Path, timeout: float) -> Outcome:
    """Run a tool once, from the start of its process to its end, and count what it made."""
    folder.mkdir(parents=True)
    job = replace(job, out=folder / "pairs.json")
    order = folder / "job.json"
    order.write_text(json.dumps(asdict(job), default=str), encoding="utf-8")
    server.counts()
    script = HERE / f"run_{tool.replace('-', '_')}.py"
    with (folder / "log").open("wb") as log:
        began = time.monotonic()
        process = subprocess.Popen(
            [python, str(script), str(order)],
            cwd=folder,
            env=environment(folder, ours=tool == OURS),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        late = threading.Event()
        timer = threading.Timer(timeout, end, (process.pid, late))
        timer.start()
        try:
            # wait4 gives the processor time of this child and of all that it waited for.
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.monotonic() - began
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            timer.cancel()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    calls, most_open, talking = server.counts()
    made: dict[str, Any] = {"version": "", "pairs": []}
    with contextlib.suppress(OSError):
        made = json.loads(job.out.read_text(encoding="utf-8"))
    code = process.returncode
    ended = "timeout" if late.is_set() else "done" if code == 0 else f"exit {code}"
    return Outcome(
        tool,
        made["version"],
        ended,
        wall,
        usage.ru_utime + usage.ru_stime,
        calls,
        len(made["pairs"]),
        valid_pairs(made["pairs"]),
        most_open,
        talking,
    )


def end(group: int, late: threading.Event) -> None:
    """End a tool that takes too long, with the processes that it started."""
    late.set()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def environment(folder: Path, *, ours: bool) -> dict[str, str]:
    """Return a bare environment: caches and settings in `folder`, no proxy, no hub, no usage statistics."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    off = {"HF_HUB_OFFLINE": "1", "NEMO_TELEMETRY_ENABLED": "false", "DO_NOT_TRACK": "1"}
    found = {"PYTHONPATH": str(ROOT)} if ours else {}
    return kept | off | found | {"HOME": str(folder), "NO_PROXY": "127.0.0.1,localhost", "PYTHONUNBUFFERED": "1"}


def valid_pairs(pairs: Sequence[Sequence[Any]]) -> int:
    """Count the pairs of two strings that are not blank, each but once."""
    good = {(q.strip(), a.strip()) for q, a in pairs if isinstance(q, str) and isinstance(a, str)}
    return sum(bool(question and answer) for question, answer in good)


def _get(url: str) -> str:
    with urllib.request.urlopen(url) as reply:
        text: str = reply.read().decode()
        return text


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the medians of each tool as a Markdown table; a ratio is that of two runs of one round."""
    rows = [
        "| tool | wall s | CPU ms/valid | calls | open at most | first to last call s | records | valid "
        "| valid/s | ours to it | valid/call | ended well |",
        "| --- |" + " ---: |" * 11,
    ]
    tools = dict.fromkeys(outcome.tool for outcome in outcomes)
    ours = [outcome for outcome in outcomes if outcome.tool == OURS]
    for tool in tools:
        runs = [outcome for outcome in outcomes if outcome.tool == tool]
        ratios = [mine.rate / run.rate for mine, run in zip(ours, runs, strict=True) if run.rate]

        def middle(values: Sequence[float | None], form: str) -> str:
            known = [value for value in values if value is not None]
            return format(statistics.median(known), form) if known else "–"

        columns = [
            f"{tool} {next((run.version for run in runs if run.version), '')}".strip(),
            middle([run.wall for run in runs], ".1f"),
            middle([run.cpu * 1000 / run.valid if run.valid else None for run in runs], ".1f"),
            middle([run.calls for run in runs], ".0f"),
            middle([run.most_open for run in runs], ".0f"),
            middle([run.talking for run in runs], ".1f"),
            middle([run.records for run in runs], ".0f"),
            middle([run.valid for run in runs], ".0f"),
            middle([run.rate for run in runs], ".1f"),
            f"{statistics.median(ratios):.1f}×" if ratios and tool != OURS else "–",
            middle([run.yielded for run in runs], ".2f"),
            f"{sum(run.ended == 'done' for run in runs)} of {len(runs)}",
        ]
        rows.append("| " + " | ".join(columns) + " |")
    return "\n".join(rows)


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", action="append", default=[], metavar="NAME=PATH", help="may be repeated")
    parser.add_argument("--server", choices=("stub", "vllm"), default="stub")
    parser.add_argument("--delay", type=float, default=0.05, help="of the stub: seconds until a reply comes")
    parser.add_argument("--token-delay", type=float, default=0.0, help="of the stub: seconds more for each token")
    parser.add_argument("--model", type=Path, default=ROOT / "examples/demo/models/teacher", help="for vLLM")
    parser.add_argument("--documents", type=Path, default=ROOT / "examples/demo/handbook")
    parser.add_argument("--most-documents", type=int, metavar="N", help="take the first N documents only")
    parser.add_argument("--copies", type=int, default=4, help="numbered copies of the documents")
    parser.add_argument("--shape", choices=("short", "long"), default="short", help="files as they are, or one a copy")
    parser.add_argument("--passage-chars", type=int, default=1200)
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--in-flight", type=int, help="the same for all; each tool's own default without it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one run of one tool")
    parser.add_argument("--keep", type=Path, help="a folder for the outcomes, the logs and the pairs")
    options = parser.parse_args()
    pythons = dict(part.split("=", 1) for part in options.peer_python)
    if unknown := set(pythons) - set(PEERS):
        parser.error(f"no such peer: {', '.join(sorted(unknown))} (known: {', '.join(PEERS)})")
    sys.path.insert(0, str(ROOT))
    # An end from outside should leave by the exits below, which stop the server and the tool at work.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with contextlib.ExitStack() as stack:
        work = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work = work.resolve()
        work.mkdir(parents=True, exist_ok=True)
        documents = make_documents(
            options.documents,
            work / "documents",
            shape=options.shape,
            copies=options.copies,
            most=options.most_documents,
        )
        if options.server == "stub":
            server = stack.enter_context(stub(options.delay, options.token_delay))
        else:
            server = stack.enter_context(real(options.model, work / "vllm.log"))
        tools = {OURS: sys.executable, **pythons}
        job = Job(
            documents=work / "documents",
            url=server.url,
            model=server.model,
            pairs=0,
            pairs_a_passage=0,
            passage_chars=options.passage_chars,
            max_tokens=options.max_tokens,
            in_flight=options.in_flight,
            out=work,
        )
        first = run_tool(OURS, sys.executable, job, server, work / "first" / OURS, options.timeout)
        if first.ended != "done":
            sys.exit(f"our own run ended with {first.ended}:\n{(work / 'first' / OURS / 'log').read_text()}")
        texts = [path.read_text(encoding="utf-8") for path in documents]
        passages = sum(len(cut(text, options.passage_chars)) for text in texts)
        job = replace(job, pairs=first.records, pairs_a_passage=max(1, round(first.records / passages)))
        outcomes = []
        for turn in range(options.rounds):
            names = list(tools)
            shift = turn % len(names)
            for tool in names[shift:] + names[:shift]:
                folder = work / f"round-{turn + 1}" / tool
                outcome = run_tool(tool, tools[tool], job, server, folder, options.timeout)
                outcomes.append(outcome)
                print(f"round {turn + 1}: {outcome}", file=sys.stderr)
        outcomes.sort(key=lambda outcome: list(tools).index(outcome.tool))
        print(
            f"{len(documents)} documents, {sum(map(len, texts))} characters, {passages} passages of paragraphs; "
            f"{job.pairs} pairs asked for, {job.pairs_a_passage} a passage; "
            f"in flight: {options.in_flight or 'as each tool has it'}; server: {options.server}"
        )
        print(table(outcomes))
        if options.keep:
            (work / "outcomes.json").write_text(json.dumps([asdict(o) for o in outcomes], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
