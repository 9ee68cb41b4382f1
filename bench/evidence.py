"""`python bench/evidence.py [--teacher bundled] [--passages 30]`: enum, index or free evidence, on a real server.

Starts the teacher (or asks a URL), has `qa` ask about passages of the demo's handbook in each mode, with the same
seed, and prints per mode: calls, valid records, those that the filter's general rules keep, and tokens. The prompts
have no kinds of question and no difficulties. The bundled teacher has learned from prompts that list sentences and
from replies that quote one, so it favours enum; let a model that you know decide for others.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from synth import Endpoint, FilterConfig, Passage, Record, Sampling, decide, find_model, open_endpoint
from synth.core.resources import resource_folder
from synth.documents.readers import Quarantined, read_documents
from synth.documents.splitter import split_document
from synth.generators.evidence import EvidenceMode
from synth.generators.qa import QA
from synth.inference.journal import Journal
from synth.inference.teacher import JournaledTeacher

MODES: tuple[EvidenceMode, ...] = ("enum", "index", "free")


def handbook(count: int) -> list[Passage]:
    """Return passages of the demo's handbook, spread over its documents."""
    documents = [d for d in read_documents([resource_folder("demo") / "handbook"]) if not isinstance(d, Quarantined)]
    passages = [p for d in documents for p in split_document(d, max_chars=450)]
    return passages[:: max(1, len(passages) // count)][:count]


async def measure(mode: EvidenceMode, passages: Sequence[Passage], endpoint: Endpoint, journal: Journal) -> str:
    """Ask in one mode and return a row of the table."""
    generator = QA(question_types=(), difficulties=(), evidence=mode)
    sampling = Sampling(temperature=0.4, max_tokens=160)
    started = time.monotonic()
    records: list[Record] = []
    failed = calls = prompt_tokens = completion_tokens = 0
    for passage in passages:
        teacher = JournaledTeacher(endpoint, journal, seed=0, sampling=sampling)
        made = await generator.generate(passage, teacher)
        records += [item for item in made if isinstance(item, Record)]
        failed += sum(not isinstance(item, Record) for item in made)
        calls += len(teacher.calls)
        prompt_tokens += sum(c.usage.prompt_tokens for c in teacher.calls)
        completion_tokens += sum(c.usage.completion_tokens for c in teacher.calls)
    seconds = time.monotonic() - started
    kept = sum(r.decision.keep for r in decide(records, FilterConfig()) if r.decision)
    asked = len(records) + failed
    return (
        f"| {mode} | {asked} | {calls} | {len(records) / asked:.2f} | {kept / asked:.2f} "
        f"| {prompt_tokens / calls:.0f} | {completion_tokens / max(1, len(records)):.1f} | {seconds:.0f} s |"
    )


async def main() -> None:
    """Print one row a mode."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--teacher", default="bundled")
    parser.add_argument("--passages", type=int, default=30)
    given = parser.parse_args()
    source = await find_model(given.teacher, role="teacher")
    passages = handbook(given.passages)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        async with open_endpoint(source, log_path=log) as endpoint, Journal(Path(folder) / "journal") as journal:
            print(f"{source.name}, {len(passages)} passages")
            print(
                "| mode | pairs asked for | calls | valid records | kept by the filter | prompt tokens a call "
                "| output tokens a record | time |"
            )
            print("| --- |" + " --- |" * 7)
            for mode in MODES:
                print(await measure(mode, passages, endpoint, journal), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
