"""`tune explain`: one held-out item, from the answers back to the passages."""

import re
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console

from synth.core.console import AsJson, RunFolder, print_json, stdout
from synth.core.runs import Run
from tune.explain import explain
from tune.story import ContenderAnswer, ItemStory, NearRecord, Source

# A text of a document or a model must not steer the terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_MOST_PAIRS = 5

Say = Callable[..., None]


def explain_command(
    run: RunFolder,
    item: Annotated[
        str,
        typer.Argument(
            metavar="ITEM", help="The item's id in the held-out file; its beginning may do.", show_default=False
        ),
    ],
    candidate: Annotated[
        str | None,
        typer.Option(
            "--candidate", help="A judged candidate, or `current`. Default: the last one.", show_default=False
        ),
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="How many records and passages to show.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Tell why a held-out question was answered as it was."""
    story = explain(Run.open(run), item, candidate, top=top)
    print_json(story.to_json()) if as_json else show_item(story, stdout)


def show_item(story: ItemStory, console: Console) -> None:
    """Print one item's story, from the question to the passages that should have produced a record."""

    def say(text: str, style: str = "", indent: int = 2) -> None:
        for line in text.splitlines() or [""]:
            console.print(" " * indent + _CONTROL.sub("\ufffd", line), markup=False, style=style)

    def heading(text: str) -> None:
        console.print()
        say(text, "bold", 0)

    say(f"item {story.item_id} (document {story.document_id}), candidate {story.candidate}", "bold", 0)
    say(story.question)
    if story.wanted is not None:
        say(f"right: the label {story.wanted}")
    elif story.unanswerable:
        say("right: a refusal")
    else:
        say(f"right: {' | '.join(story.references)}")
    heading("answers")
    for answer in story.answers:
        _show_answer(answer, say)
    heading("nearest training records")
    for row in story.nearest:
        _show_near(row, say)
    if not story.nearest:
        say("none")
    heading("passages that should have produced one (by BM25)")
    for source in story.sources:
        _show_source(source, say)
    if not story.sources:
        say("none")
    heading("in short")
    for sentence in story.said:
        say(sentence)


def _show_answer(answer: ContenderAnswer, say: Say) -> None:
    scores = ", ".join(f"{name} {value:.2f}" for name, value in answer.values.items())
    doubts = "; ".join(answer.doubts)
    about = "; ".join(part for part in (scores, doubts) if part)
    say(f"{answer.contender}: {'-' if answer.text is None else answer.text or '(nothing)'}")
    if about:
        say(about, "dim", 4)


def _show_near(row: NearRecord, say: Say) -> None:
    say(f"{row.similarity:.2f}  {row.question}")
    say(f"answer: {row.answer}", indent=4)
    if row.record is None:
        say(f"row {row.id} of {row.document_id}; not from this run's records", "dim", 4)
        return
    say(
        f"record {row.id} of {row.document_id}, made by {row.record.generator} ({row.record.provenance.teacher})",
        "dim",
        4,
    )
    if row.record.evidence is not None:
        say(f"evidence: {row.record.evidence.text}", "dim", 4)
    if row.passage is not None:
        say(f"passage {row.passage.id}: {_one_line(row.passage.text)}", "dim", 4)
    for call in row.calls:
        usage = call["response"].get("usage", {})
        tokens = f"{usage.get('prompt_tokens', 0)} tokens read, {usage.get('completion_tokens', 0)} written"
        say(f"call {call['key'][:16]} ({tokens}): {_one_line(call['response'].get('text', ''))}", "dim", 4)
    if not row.calls:
        say("its calls are not in this run's journal", "dim", 4)


def _show_source(source: Source, say: Say) -> None:
    marks = [
        *(["the item's own document"] if source.same_document else []),
        *(["holds the answer"] if source.holds_answer else []),
    ]
    about = f" ({', '.join(marks)})" if marks else ""
    say(f"{source.score:.2f}  {source.passage.id} of {source.passage.document_id}{about}")
    say(_one_line(source.passage.text), indent=4)
    total, kept = len(source.records), len(source.kept)
    why = ", ".join(f"{reason} {count}" for reason, count in source.reasons.items())
    say(f"{total} records, {kept} kept" + (f"; against the others spoke: {why}" if why else ""), indent=4)
    for reason, count in source.quarantined.items():
        say(f"{count} x no record: {reason}", "dim", 4)
    for record in source.kept[:_MOST_PAIRS]:
        say(f"{source.splits.get(record.id) or 'kept'}: {record.question} -> {record.answer}", "green", 4)
    if kept > _MOST_PAIRS:
        say(f"and {kept - _MOST_PAIRS} more (--json has all)", "dim", 4)


def _one_line(text: str, most: int = 300) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= most else f"{plain[:most]}…"
