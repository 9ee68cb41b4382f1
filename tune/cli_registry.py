"""What is done with judged candidates: `tune candidates`, `promote`, `rollback`, and `explain` from its own file."""

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from synth.core.console import AsJson, RunFolder, notice, print_json, stdout
from synth.core.runs import Run
from tune.cli_explain import explain_command
from tune.promotion import CandidateRow, Promotion, list_candidates, promote, rollback
from tune.registry import Event

Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for the history.", show_default=False)]


def candidates_command(
    run: RunFolder,
    history: Annotated[bool, typer.Option("--history", help="Show what was promoted and rolled back, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List a run's tuned students: losses, verdict, and which one is in use."""
    found = list_candidates(Run.open(run))
    if as_json:
        print_json(found.to_json())
        return
    if found.rows:
        stdout.print(_table(found.rows))
    if history and found.registry.history:
        stdout.print(_history(found.registry.history))
    for note in found.notes:
        notice(note)


def promote_command(
    run: RunFolder,
    candidate: Annotated[
        str | None,
        typer.Argument(
            metavar="CANDIDATE", help="Its name under students/. Default: the last one.", show_default=False
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Promote it though it was rejected, not judged, or changed. This is recorded."),
    ] = False,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Put a tuned student in use: `current` beside the run leads to it."""
    _show(promote(Run.open(run), candidate, force=force, reason=reason), as_json=as_json)


def rollback_command(run: RunFolder, reason: Reason = "", as_json: AsJson = False) -> None:
    """Put in use again what was in use before."""
    _show(rollback(Run.open(run), reason=reason), as_json=as_json)


def _show(done: Promotion, *, as_json: bool) -> None:
    for note in done.notes:
        notice(note)
    if as_json:
        print_json(done.to_json())
        return
    event = done.event
    named = f"{event.candidate} of {event.run}"
    if not done.changed:
        stdout.print(f"{named} is current already", markup=False)
        return
    before = f", in place of {done.before.candidate} of {done.before.run}" if done.before is not None else ""
    stdout.print(f"{named} is current now{before}", markup=False)
    stdout.print(f"{done.registry.link} leads to it", markup=False)
    if event.forced:
        notice(f"Forced, and recorded so: {event.reason}")


def _table(rows: tuple[CandidateRow, ...]) -> Table:
    shown = Table("", "candidate", "method", "finished", "loss / validation", "verdict", box=None, pad_edge=False)
    for row in rows:
        verdict = {"accepted": "accepted", "rejected": "rejected", "none": "not judged"}[row.verdict]
        shown.add_row(
            "current" if row.current else "",
            row.candidate,
            row.method,
            row.finished,
            row.loss,
            verdict if row.complete else f"{verdict}; files are missing",
            style="bold" if row.current else None,
        )
    return shown


def _history(events: tuple[Event, ...]) -> Table:
    shown = Table("time", "action", "run", "candidate", "verdict then", "reason", box=None, pad_edge=False)
    for event in events:
        forced = " (forced)" if event.forced else ""
        texts = (event.time, event.action + forced, event.run, event.candidate, event.verdict, event.reason)
        shown.add_row(*map(Text, texts))  # What a user wrote is no markup.
    return shown


def register(app: typer.Typer) -> None:
    """Add `candidates`, `promote`, `rollback` and `explain` to a command line."""
    app.command("candidates")(candidates_command)
    app.command("promote")(promote_command)
    app.command("rollback")(rollback_command)
    app.command("explain")(explain_command)
