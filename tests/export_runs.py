"""Filtered runs for the tests of the export: real files, as the filter writes them, with records of any content."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from synth.core.jsonl import FileDigest, write_jsonl
from synth.core.records import Decision, Message, Passage, Provenance, Record
from synth.core.runs import Run, StageEntry

TEACHER = "org/teacher-7b"


def pair(
    number: int,
    question: str = "",
    answer: str = "",
    *,
    document: str = "",
    prompt: Sequence[Message] | None = None,
    scores: dict[str, float | None] | None = None,
    keep: bool = True,
    reasons: tuple[str, ...] = (),
    teacher: str = TEACHER,
) -> Record:
    """Return a decided record, by default one that was kept, about its own document."""
    text = f"SECRET CONTEXT: the lamp of series {number} costs {number} pounds."
    made = Record.create(
        Passage(document or f"lamps/{number % 4}.md", text, 0, len(text)),
        question or f"What does lamp {number} cost?",
        answer or f"{number} pounds.",
        generator="qa",
        evidence=text,
        prompt=prompt,
        scores={"groundedness": 0.5 + number % 50 / 100, "confidence": None} if scores is None else scores,
        provenance=Provenance(teacher, "", (f"call-{number}",)),
    )
    return replace(made, decision=Decision(keep, reasons or (() if keep else ("form:markup",))))


def decided_run(
    path: Path,
    records: Sequence[Record] | None = None,
    *,
    validation: Sequence[str] = ("lamps/3.md",),
    heldout: bool = False,
    teacher: str = TEACHER,
) -> Run:
    """Write a run whose filter is finished, with these decided records; documents in `validation` validate."""
    records = [pair(n, keep=n % 5 != 4) for n in range(20)] if records is None else records
    run = Run.create(path)
    kept = [r for r in records if r.decision is not None and r.decision.keep]

    def rows(validates: bool) -> list[dict[str, object]]:
        return [
            {
                "prompt": [m.to_json() for m in r.prompt],
                "completion": [m.to_json() for m in r.completion],
                "id": r.id,
                "document_id": r.document_id,
            }
            for r in kept
            if (r.document_id in validation) == validates
        ]

    outputs = {
        "records.jsonl": write_jsonl(run.records_path, (r.to_json() for r in records)),
        "dataset/train.jsonl": write_jsonl(run.train_path, rows(False)),
        "dataset/validation.jsonl": write_jsonl(run.validation_path, rows(True)),
    }
    counts = {"documents": 4, "documents_quarantined": 0, "passages": 20, "calls": 19, "calls_replayed": 1}
    run.finish_stage(
        "generate",
        StageEntry(
            config={"teacher": teacher, "teacher_revision": "0123abcd", "seed": 0},
            counts={**counts, "records": len(records)},
            usage={"prompt_tokens": 1000, "completion_tokens": 200},
        ),
    )
    removed = len(records) - len(kept)
    run.finish_stage(
        "filter",
        StageEntry(
            config={"seed": 0, "rules": ["form >= 1", "groundedness >= 0.6"]},
            inputs={"heldout": FileDigest("ab" * 32, 7)} if heldout else {},
            outputs=outputs,
            counts={"records": len(records), "kept": len(kept), "rejected": removed, "rejected:form": removed},
        ),
    )
    return run
