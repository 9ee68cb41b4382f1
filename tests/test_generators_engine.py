"""The real engine takes the schema of every built-in generator, sentences listed or numbered, and keeps to it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from synth import Endpoint, GenerateConfig, Run, run_generate
from synth.core.jsonl import read_lines
from synth.generators.find import BUILT_IN
from synth.inference.client import Client

RUBRIC = Path(__file__).resolve().parent.parent / "examples" / "generators" / "rubric.md"


@pytest.mark.vllm
@pytest.mark.parametrize("mode", ["enum", "index"])
async def test_the_engine_answers_every_call_of_every_generator_with_what_the_schema_says(
    engine: Any,  # noqa: ANN401  (the server's type needs the optional extra)
    manuals: Path,
    tmp_path: Path,
    mode: str,
) -> None:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Endpoint]:
        async with Client(engine.base_url, engine.served, model="bundled") as client:
            yield client

    (manuals / "descaler.md").write_text("The Brevo kettle takes one sachet of Limexa. A sachet costs 3 pounds.\n")
    specs = (*BUILT_IN, "qa+evolve+persona")
    everyone = {"grading": {"rubric": str(RUBRIC)}, "*": {"evidence": mode, "pairs_per_passage": 1}}
    config = GenerateConfig(generator=specs, options=everyone, max_tokens=120, passage_chars=450)
    run = Run.create(tmp_path / "run")
    summary = await run_generate(run, [manuals], config, opened(), teacher_name="bundled")
    refused = [row for _, row in read_lines(run.quarantine_path)]
    asked = {row["generator"] for row in refused} | {row["generator"] for _, row in read_lines(run.records_path)}
    # The teacher has learned one prompt and fails at most of these. That is a reply of no use, not a refused call.
    assert asked == set(specs)
    assert summary.calls >= len(specs)
    assert all(row["raw"] for row in refused), refused
    assert not [row["reason"] for row in refused if "is not JSON" in row["reason"]], refused
