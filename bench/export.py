"""How long an export takes and how much memory it needs, by the number of rows.

    python bench/export.py [--rows 10000 100000 1000000] [--formats messages parquet]

Writes runs of records of about 900 bytes (with context and six scores) to a temporary folder, exports each in a process
of its own, and prints seconds, rows a second and the peak of resident memory. Nothing is kept.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))
from synth.core.jsonl import write_jsonl  # noqa: E402
from synth.core.runs import Run, StageEntry  # noqa: E402

SCORES = ("form", "evidence", "groundedness", "facts", "relevance", "answer_type")
EXPORT = """
import sys
from pathlib import Path
from synth.core.runs import Run
from synth.export import ExportConfig, run_export
summary = run_export(Run.open(Path(sys.argv[1])), ExportConfig(format=sys.argv[2]))
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(sum(summary.rows.values()), peak)
"""


def records(count: int) -> Iterator[dict[str, Any]]:
    """Yield decided records; every fifth is rejected."""
    for n in range(count):
        answer = f"It costs {n} pounds with a plug and {n + 7} pounds without one. " * 2
        yield {
            "id": f"{n:016x}",
            "prompt": [{"role": "user", "content": f"How much does the Orla lamp of series {n} cost with a plug?"}],
            "completion": [{"role": "assistant", "content": answer}],
            "context": f"The Orla lamp of series {n} stands in the window. " + answer,
            "kind": "qa",
            "document_id": f"lamps/{n // 200}.md",
            "passage_id": f"{n // 4:016x}",
            "generator": "qa",
            "evidence": {"text": answer, "start": -1, "end": -1},
            "scores": {name: round(n % 97 / 97, 4) for name in SCORES},
            "decision": {"keep": n % 5 != 0, "reasons": [] if n % 5 else ["form:markup"]},
            "provenance": {
                "teacher": "org/teacher-7b",
                "prompt_sha256": "",
                "call_keys": [f"{n:064x}"],
                "usage": {"prompt_tokens": 300, "completion_tokens": 60},
            },
        }


def make_run(path: Path, count: int) -> Run:
    """Write a run as the filter leaves it; one document in ten validates."""
    run = Run.create(path)
    outputs = {"records.jsonl": write_jsonl(run.records_path, records(count))}
    for file, validates in ((run.train_path, False), (run.validation_path, True)):
        rows = (
            {name: r[name] for name in ("prompt", "completion", "id", "document_id")}
            for n, r in enumerate(records(count))
            if r["decision"]["keep"] and (n // 200 % 10 == 0) == validates
        )
        outputs[file.relative_to(path).as_posix()] = write_jsonl(file, rows)
    run.finish_stage("generate", StageEntry(config={"teacher": "org/teacher-7b"}))
    run.finish_stage("filter", StageEntry(config={"rules": []}, outputs=outputs, counts={"records": count}))
    return run


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--formats", nargs="+", default=["messages", "parquet"])
    arguments = parser.parse_args()
    for count in arguments.rows:
        with tempfile.TemporaryDirectory() as folder:
            run = make_run(Path(folder) / "run", count)
            for name in arguments.formats:
                started = time.perf_counter()
                done = subprocess.run(
                    [sys.executable, "-c", EXPORT, str(run.path), name],
                    cwd=CHECKOUT,
                    capture_output=True,
                    text=True,
                    check=True,
                )
                seconds = time.perf_counter() - started
                rows, peak = map(int, done.stdout.split())
                print(
                    f"{name}: {count} records, {rows} rows, {seconds:.1f} s, {rows / seconds:,.0f} rows/s, "
                    f"peak {peak / 1024:.0f} MB",
                    flush=True,
                )


if __name__ == "__main__":
    main()
