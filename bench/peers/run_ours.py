"""Ours, as its README has it: `synth generate DOCS --teacher URL --run RUN --no-filter --json`."""

import json
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from job import read_job, write_pairs

from synth.cli import main

job = read_job()
run = Path("run")
flags = ["--max-in-flight", str(job.in_flight)] if job.in_flight else []
sys.argv = ["synth", "generate", str(job.documents), "--teacher", job.url, "--run", str(run), "--no-filter", "--json"]
sys.argv += ["--passage-chars", str(job.passage_chars), "--max-tokens", str(job.max_tokens), *flags]
try:
    main()
except SystemExit as end:
    if end.code:
        raise
records = (json.loads(line) for line in (run / "records.jsonl").read_text(encoding="utf-8").splitlines())
pairs = [(record["prompt"][-1]["content"], record["completion"][-1]["content"]) for record in records]
try:
    released = version("synth-tune")
except PackageNotFoundError:
    released = "checkout"
write_pairs(job, released, pairs)
