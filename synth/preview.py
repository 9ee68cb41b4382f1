"""The preview: a few passages through the real chain, everything shown, nothing kept."""

import asyncio
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from synth.core.errors import Interrupted, RunError
from synth.core.jsonl import read_lines
from synth.core.record_file import read_records
from synth.core.records import Record
from synth.core.runs import Run
from synth.filter import decide
from synth.job import Job, check_job, run_job
from synth.live import LiveView


@dataclass(frozen=True, slots=True)
class Preview:
    """What a few passages gave: the journal's lines, the records with their decisions, and the quarantine."""

    passages: int
    calls: tuple[Mapping[str, Any], ...]
    records: tuple[Record, ...]
    quarantine: tuple[Mapping[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return {
            "passages": self.passages,
            "calls": list(self.calls),
            "records": [record.to_json() for record in self.records],
            "quarantine": list(self.quarantine),
        }


async def preview(job: Job, passages: int, view: LiveView, stop: asyncio.Event) -> Preview:
    """Ask about `passages` passages, drawn with the seed, in a folder that is gone afterwards.

    Raises:
        SynthError: as `run_job` does; a preview without a record is no error.
    """
    sealed = check_job(job)
    config = job.generate.model_copy(update={"max_passages": passages, "num_records": None, "shard": None})
    with tempfile.TemporaryDirectory(prefix="synth-preview-") as folder:
        run = Run(Path(folder) / "run")
        asked = 0
        try:
            result = await run_job(replace(job, run=run.path, generate=config, filter=False), view, stop)
            asked = min(passages, result.generate.units)
        except Interrupted:
            raise
        except RunError:
            # No record came of it. The calls and the quarantine say why, unless there are none.
            if not (run.records_path.is_file() and run.quarantine_path.is_file()):
                raise
            asked = min(passages, sum(row["duplicate_of"] is None for _, row in read_lines(run.passages_path)))
        calls = [row for path in sorted(run.journal_path.glob("*.jsonl")) for _, row in read_lines(path)]
        records = decide(list(read_records(run.records_path)), job.rules, sealed)
        return Preview(
            asked,
            tuple(calls),
            tuple(records),
            tuple(row for _, row in read_lines(run.quarantine_path)),
        )


def show_preview(found: Preview, console: Console) -> None:
    """Print prompts, raw replies, what came of them, and the filter's decisions."""

    def heading(text: str) -> None:
        console.print(f"\n── {text} ", style="bold", markup=False)

    def block(text: str) -> None:
        for line in text.splitlines() or [""]:
            console.print(f"   {line}", markup=False)

    by_call: dict[str, list[Record]] = {}
    for record in found.records:
        by_call.setdefault(record.provenance.call_keys[-1] if record.provenance.call_keys else "", []).append(record)
    shown = set()
    for number, call in enumerate(found.calls, 1):
        heading(f"call {number} of {len(found.calls)}")
        for message in call["request"]["messages"]:
            console.print(f"{message['role']}:", style="cyan", markup=False)
            block(message["content"])
        if call["response"].get("reasoning"):
            console.print("thinking:", style="cyan")
            block(call["response"]["reasoning"])
        usage = call["response"]["usage"]
        console.print(
            f"reply ({call['response']['finish_reason']}, {usage['prompt_tokens']} tokens read, "
            f"{usage['completion_tokens']} written):",
            style="cyan",
            markup=False,
        )
        block(call["response"]["text"])
        for record in by_call.get(call["key"], ()):
            shown.add(record.id)
            _show_record(record, console)
    for record in found.records:
        if record.id not in shown:
            _show_record(record, console)
    for row in found.quarantine:
        heading(f"quarantine: {row['document_id']}")
        block(row["reason"])
    kept = sum(record.decision is not None and record.decision.keep for record in found.records)
    console.print(
        f"\n{found.passages} passages, {len(found.calls)} calls, {len(found.records)} records, {kept} would be kept, "
        f"{len(found.quarantine)} in quarantine. No run was written.",
        markup=False,
    )


def _show_record(record: Record, console: Console) -> None:
    decision = record.decision
    assert decision is not None
    verdict = "keep" if decision.keep else f"reject: {', '.join(decision.reasons)}"
    console.print(
        f"record ({record.generator}, {record.kind}): {verdict}",
        style="green" if decision.keep else "red",
        markup=False,
    )
    for message in (*record.prompt, *record.completion):
        console.print(f"   {message.role}: {message.content}", markup=False)
    if record.evidence is not None:
        console.print(f"   evidence: {record.evidence.text}", markup=False)
