"""The commands for more than one run or process: `synth merge`, `synth jobs`, `synth batch`."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from synth.cli_parts import (
    Heldout,
    Preset,
    Rule,
    ValidationShare,
    filter_config,
    show_filter,
    show_generate,
    tables_of,
)
from synth.core.console import AsJson, ConfigFile, Quiet, notice, print_json, setting, stdout
from synth.core.runs import Run
from synth.filter import FilterConfig, run_filter
from synth.job import stop_on_signals
from synth.jobs import JobOutcome, check_outcomes, read_jobs, run_jobs
from synth.live import duration
from synth.merge import merge_runs


def merge_command(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="The runs of all shards, in any order.", show_default=False)
    ],
    run: Annotated[
        Path, typer.Option("--run", metavar="OUT", help="The folder of the merged run.", show_default=False)
    ],
    allow_partial: Annotated[
        bool,
        typer.Option("--allow-partial", help="Take shards that a cap ended early, or with calls that got no answer."),
    ] = False,
    heldout: Heldout = None,
    preset: Preset = None,
    rule: Rule = None,
    validation_share: ValidationShare = None,
    num_records: Annotated[int | None, setting(FilterConfig, "num_records")] = None,
    seed: Annotated[int | None, setting(FilterConfig, "seed")] = None,
    no_filter: Annotated[bool, typer.Option("--no-filter", help="Stop before the filter.")] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Join the runs of all shards into one, then filter it: twins are found across shards."""
    settings = filter_config(tables_of(config), preset, rule, validation_share, num_records=num_records, seed=seed)
    summary = merge_runs([Run.open(path) for path in runs], run, allow_partial=allow_partial)
    merged = Run.open(run)
    filtered = None if no_filter else run_filter(merged, settings, heldout)
    if as_json:
        print_json({"run": str(run), "shards": len(runs), "generate": summary, "filter": filtered})
        return
    show_generate(merged, summary)
    if filtered is not None:
        show_filter(filtered)
    stdout.print(f"Next: {'synth filter' if filtered is None else 'tune sft'} {run}", markup=False)


def jobs_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A YAML file with a list `jobs`.", show_default=False)],
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="Do this job alone. May be repeated.")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Do a list of jobs, one after another, with one server for each teacher."""
    # `module:name` means a module in the folder where the user stands, as `python -m` has it.
    sys.path.insert(0, "")
    outcomes = asyncio.run(_jobs(file, only or (), quiet=quiet))
    if as_json:
        print_json({"jobs": [outcome.to_json() for outcome in outcomes]})
    else:
        _show_outcomes(outcomes)
    check_outcomes(outcomes)


async def _jobs(file: Path, only: "list[str] | tuple[str, ...]", *, quiet: bool) -> list[JobOutcome]:
    jobs = await read_jobs(file, only)

    def failed(outcome: JobOutcome) -> None:
        if outcome.reason:
            notice(f"{outcome.name}: {outcome.state}: {outcome.reason}")

    with stop_on_signals(notice) as stop:
        return await run_jobs(jobs, stop, quiet=quiet, say=(lambda text: None) if quiet else notice, on_done=failed)


def _show_outcomes(outcomes: list[JobOutcome]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("job", "what became of it"):
        table.add_column(name)
    for name in ("calls", "replayed", "records", "kept", "time"):
        table.add_column(name, justify="right")
    table.add_column("run")
    for outcome in outcomes:
        made = outcome.result and outcome.result.generate
        kept = outcome.result and outcome.result.filter and outcome.result.filter.kept
        table.add_row(
            outcome.name,
            "was finished" if made and made.current and outcome.state == "done" else outcome.state,
            *(("", "", "") if not made else (str(made.calls), str(made.calls_replayed), str(made.records))),
            "" if kept is None else str(kept),
            duration(outcome.seconds),
            str(outcome.run),
        )
    stdout.print(table)
