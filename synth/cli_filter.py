"""`synth filter`: decide again, explain a record, or show what each rule does alone."""

import contextlib
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from synth.cli_parts import Heldouts, Preset, Rule, ValidationShare, filter_config, show_filter, tables_of
from synth.core.console import AsJson, ConfigFile, Quiet, RunFolder, notice, print_json, setting, stdout
from synth.core.errors import ConfigError
from synth.core.records import Record
from synth.core.runs import Run
from synth.core.signals import signals_as_usual
from synth.filter import run_ablate, run_filter
from synth.filtering.ablate import Ablation
from synth.filtering.config import FilterConfig
from synth.filtering.explain import Story, explain


def filter_command(
    run: RunFolder,
    heldout: Heldouts = None,
    preset: Preset = None,
    rules: Annotated[str | None, setting(FilterConfig, "rules")] = None,
    rule: Rule = None,
    scorer: Annotated[list[str] | None, setting(FilterConfig, "scorer")] = None,
    scores: Annotated[str | None, setting(FilterConfig, "scores")] = None,
    tokenizer: Annotated[str | None, setting(FilterConfig, "tokenizer")] = None,
    min_question_tokens: Annotated[int | None, setting(FilterConfig, "min_question_tokens")] = None,
    max_question_tokens: Annotated[int | None, setting(FilterConfig, "max_question_tokens")] = None,
    min_answer_tokens: Annotated[int | None, setting(FilterConfig, "min_answer_tokens")] = None,
    max_answer_tokens: Annotated[int | None, setting(FilterConfig, "max_answer_tokens")] = None,
    max_total_tokens: Annotated[int | None, setting(FilterConfig, "max_total_tokens")] = None,
    near_duplicate: Annotated[float | None, setting(FilterConfig, "near_duplicate")] = None,
    duplicates_on: Annotated[str | None, setting(FilterConfig, "duplicates_on")] = None,
    embedder: Annotated[str | None, setting(FilterConfig, "embedder")] = None,
    semantic_duplicate: Annotated[float | None, setting(FilterConfig, "semantic_duplicate")] = None,
    reworded: Annotated[str | None, setting(FilterConfig, "reworded")] = None,
    contaminated_passages: Annotated[str | None, setting(FilterConfig, "contaminated_passages")] = None,
    pii: Annotated[str | None, setting(FilterConfig, "pii")] = None,
    judge: Annotated[str | None, setting(FilterConfig, "judge")] = None,
    votes: Annotated[int | None, setting(FilterConfig, "votes")] = None,
    rubric: Annotated[str | None, setting(FilterConfig, "rubric")] = None,
    student: Annotated[str | None, setting(FilterConfig, "student")] = None,
    max_per_passage: Annotated[int | None, setting(FilterConfig, "max_per_passage")] = None,
    max_per_document: Annotated[int | None, setting(FilterConfig, "max_per_document")] = None,
    max_per_kind: Annotated[list[str] | None, setting(FilterConfig, "max_per_kind")] = None,
    num_records: Annotated[int | None, setting(FilterConfig, "num_records")] = None,
    select: Annotated[str | None, setting(FilterConfig, "select")] = None,
    validation_share: ValidationShare = None,
    seed: Annotated[int | None, setting(FilterConfig, "seed")] = None,
    explain_id: Annotated[
        str | None,
        typer.Option("--explain", metavar="ID", help="Tell one record's story and decide nothing; four digits may do."),
    ] = None,
    ablate: Annotated[
        bool, typer.Option("--ablate", help="Decide again with each rule left out, show the difference, write nothing.")
    ] = False,
    processes: Annotated[
        int | None,
        typer.Option("--processes", min=1, help="How many processes score. [default: one a core, if it is worth it]"),
    ] = None,
    config: ConfigFile = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Decide again; no call to a teacher is repeated."""
    target = Run.open(run)
    if explain_id is not None:
        if ablate:
            raise ConfigError("--explain and --ablate are two questions", fix="ask one at a time")
        story = explain(target, explain_id)
        print_json(story.to_json()) if as_json else show_story(story, stdout)
        return
    settings = filter_config(
        tables_of(config),
        {
            "preset": preset,
            "rules": rules,
            "rule": rule,
            "scorer": scorer,
            "scores": scores,
            "tokenizer": tokenizer,
            "min_question_tokens": min_question_tokens,
            "max_question_tokens": max_question_tokens,
            "min_answer_tokens": min_answer_tokens,
            "max_answer_tokens": max_answer_tokens,
            "max_total_tokens": max_total_tokens,
            "near_duplicate": near_duplicate,
            "duplicates_on": duplicates_on,
            "embedder": embedder,
            "semantic_duplicate": semantic_duplicate,
            "reworded": reworded,
            "contaminated_passages": contaminated_passages,
            "pii": pii,
            "judge": judge,
            "votes": votes,
            "rubric": rubric,
            "student": student,
            "max_per_passage": max_per_passage,
            "max_per_document": max_per_document,
            "max_per_kind": max_per_kind,
            "num_records": num_records,
            "select": select,
            "validation_share": validation_share,
            "seed": seed,
        },
    )
    say = (lambda text: None) if quiet else notice
    if ablate:
        with signals_as_usual(), _prints_aside():
            kept, found = run_ablate(target, settings, heldout or (), processes=processes, say=say)
        if as_json:
            print_json({"run": str(target.path), "kept": kept, "ablation": found})
        else:
            show_ablation(kept, found)
        return
    with signals_as_usual(), _prints_aside():
        summary = run_filter(target, settings, heldout or (), processes=processes, say=say)
    if as_json:
        print_json({"run": str(target.path), "filter": summary})
    else:
        show_filter(target, summary)


def _prints_aside() -> contextlib.AbstractContextManager[object]:
    """Send what a user's scorer prints to stderr, as worker processes do: stdout is for the result."""
    return contextlib.redirect_stdout(sys.stderr)


def show_ablation(kept: int, ablations: Sequence[Ablation]) -> None:
    """Print what each step does alone."""
    table = Table(box=None, pad_edge=False)
    for name, justify in (("step", "left"), ("rejects", "right"), ("alone", "right"), ("kept without it", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for one in ablations:
        label = ", ".join(one.rules) or one.step
        table.add_row(label, str(one.rejects), str(one.alone), f"{one.kept} (+{one.gained})")
    stdout.print(table)
    stdout.print(f"kept with all of them: {kept} (--num-records aside)", markup=False)


def show_story(story: Story, console: Console) -> None:
    """Print one record's story from its passage to its decision."""

    def heading(text: str) -> None:
        console.print(f"\n{text}", style="bold", markup=False)

    def text(body: str, style: str = "") -> None:
        for line in body.splitlines() or [""]:
            console.print(f"  {line}", markup=False, style=style)

    record = story.record
    console.print(f"record {record.id} ({record.generator}, {record.kind})", style="bold", markup=False)
    text(f"records.jsonl, line {story.line}; document {record.document_id}; passage {record.passage_id}")
    heading("passage")
    if story.passage is not None and story.passage.headings:
        text(" > ".join(story.passage.headings), "dim")
    text(record.context)
    heading("pair")
    _show_turns(record, text)
    if record.evidence is not None:
        place = f"at {record.evidence.start}" if record.evidence.found else "not in the passage"
        text(f"evidence ({place}): {record.evidence.text}")
    heading("calls")
    for call in story.calls:
        usage = call["response"].get("usage", {})
        text(
            f"{call['key'][:16]}: {usage.get('prompt_tokens', 0)} tokens read, "
            f"{usage.get('completion_tokens', 0)} written, {call['response'].get('finish_reason')}",
            "dim",
        )
        text(call["response"].get("text", ""))
    if not story.calls:
        text("none of its calls is in this run's journal")
    for judgement in record.judgements:
        text(f"{judgement.scorer} ({judgement.model}): {judgement.remark}")
    heading("scores")
    ruled = {one.rule.split()[0] for one in story.rules}
    for one in story.rules:
        shown = "does not apply" if one.score is None else f"{one.score:g}"
        text(f"{'ok  ' if one.holds else 'FAIL'} {one.rule}: {shown}", "" if one.holds else "red")
    for name, value in record.scores.items():
        if name not in ruled and value is not None:
            text(f"     {name}: {value:g} (no rule)", "dim")
    heading("decision")
    _show_decision(story, text)


def _show_turns(record: Record, text: Callable[..., None]) -> None:
    for message in (*record.prompt, *record.completion):
        text(f"{message.role}: {message.content}")


def _show_decision(story: Story, text: Callable[..., None]) -> None:
    decision = story.record.decision
    if decision is None:
        text("none yet: run `synth filter` first")
    elif decision.keep:
        text(f"kept, in dataset/{story.split}.jsonl" if story.split else "kept", "green")
    for reason in decision.reasons if decision is not None else ():
        text(f"rejected: {reason}", "red")
    if story.twin is not None:
        text(f"its twin {story.twin.id} stays:")
        _show_turns(story.twin, lambda body: text(f"  {body}"))
    if story.stands_for:
        text(f"it stands for {len(story.stands_for)} twins: {', '.join(story.stands_for[:10])}")
