"""The commands for more than one run or process: `synth merge`, `synth jobs`, `synth batch`."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from synth.batch import (
    BYTES_PER_FILE,
    REQUESTS_PER_FILE,
    BatchJob,
    CollectSummary,
    ExportSummary,
    collect_batch,
    export_batch,
)
from synth.cli_parts import (
    GeneratorOption,
    Generators,
    Heldouts,
    MaxPassages,
    MaxTokens,
    PassageChars,
    PassageTokens,
    Preset,
    Rule,
    RulesFlag,
    Seed,
    ShardOf,
    Temperature,
    TokenizerOf,
    TopP,
    ValidationShare,
    filter_config,
    show_filter,
    show_generate,
    tables_of,
)
from synth.core.config import build
from synth.core.console import AsJson, ConfigFile, Quiet, RunFolder, duration, notice, print_json, setting, stdout
from synth.core.errors import ConfigError
from synth.core.runs import Run
from synth.core.signals import stop_on_signals
from synth.filter import run_filter
from synth.filtering.config import FilterConfig
from synth.generate import GenerateConfig
from synth.job import joined_options, parse_options
from synth.jobs import JobOutcome, check_outcomes, run_jobs
from synth.jobs_file import read_jobs
from synth.live import LiveView
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
    heldout: Heldouts = None,
    preset: Preset = None,
    rules: RulesFlag = None,
    rule: Rule = None,
    validation_share: ValidationShare = None,
    num_records: Annotated[int | None, setting(FilterConfig, "num_records")] = None,
    seed: Annotated[int | None, setting(FilterConfig, "seed")] = None,
    no_filter: Annotated[bool, typer.Option("--no-filter", help="Stop before the filter.")] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Join the runs of all shards into one, then filter it: twins are found across shards."""
    flags = {
        "preset": preset,
        "rules": rules,
        "rule": rule,
        "validation_share": validation_share,
        "num_records": num_records,
        "seed": seed,
    }
    settings = filter_config(tables_of(config), flags)
    summary = merge_runs([Run.open(path) for path in runs], run, allow_partial=allow_partial)
    merged = Run.open(run)
    filtered = None if no_filter else run_filter(merged, settings, heldout or ())
    if as_json:
        print_json({"run": str(run), "shards": len(runs), "generate": summary, "filter": filtered})
        return
    show_generate(merged, summary)
    if filtered is not None:
        show_filter(merged, filtered)
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


batch_app = typer.Typer(
    name="batch",
    help="Ask through batch files: for `vllm run-batch` and for the batch services of hosted models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@batch_app.command("export")
def batch_export_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder.", show_default=False)],
    docs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DOCS]...", help="Files, folders, hub datasets; the first time.", show_default=False),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option("--teacher", metavar="NAME", help="The model's name at the batch service; the first time."),
    ] = None,
    revision: Annotated[
        str, typer.Option("--revision", metavar="TEXT", help="A revision of its weights, where known.")
    ] = "",
    generator: Generators = None,
    option: GeneratorOption = None,
    passage_chars: PassageChars = None,
    passage_tokens: PassageTokens = None,
    tokenizer: TokenizerOf = None,
    max_passages: MaxPassages = None,
    shard: ShardOf = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    max_tokens: MaxTokens = None,
    seed: Seed = None,
    logprobs: Annotated[
        bool,
        typer.Option("--logprobs", help="Ask for log probabilities, for the score `confidence`; vLLM gives them."),
    ] = False,
    tries: Annotated[
        int, typer.Option("--tries", min=1, help="How often a request that comes back with an error is sent.")
    ] = 3,
    again: Annotated[
        bool,
        typer.Option("--again", help="Write also requests of earlier rounds without output; they may be paid twice."),
    ] = False,
    requests_per_file: Annotated[
        int, typer.Option("--requests-per-file", min=1, help="The most requests of a file.")
    ] = REQUESTS_PER_FILE,
    bytes_per_file: Annotated[
        int, typer.Option("--bytes-per-file", min=1, help="The most bytes of a file.")
    ] = BYTES_PER_FILE,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Put a copy of the round's folder here.")
    ] = None,
    config: ConfigFile = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write the calls that RUN still needs as batch files; the first time from DOCS, later from RUN alone."""
    sys.path.insert(0, "")
    given = tables_of(config).get("generate", {})
    flags = {
        "generator": tuple(generator) if generator else None,
        "options": joined_options(given.get("options", {}), parse_options(option or ())) or None,
        "passage_chars": passage_chars,
        "passage_tokens": passage_tokens,
        "max_passages": max_passages,
        "shard": shard,
        "temperature": temperature,
        "top_p": top_p,
        "max_tokens": max_tokens,
        "seed": seed,
    }
    job = None
    if docs and teacher:
        settings = build(GenerateConfig, given, flags, where="generate")
        job = BatchJob(tuple(docs), teacher, settings, revision, tokenizer, logprobs, tries)
    elif docs or teacher or given or any(value is not None for value in flags.values()):
        raise ConfigError(
            "settings of a batch stand with DOCS and --teacher, both of them",
            where="synth batch export",
            fix="name both to begin a batch, or RUN alone for the next round",
        )
    target = Run.create(run) if job is not None else Run.open(run)
    summary = asyncio.run(_export(target, job, again, requests_per_file, bytes_per_file, out, quiet=quiet))
    if as_json:
        print_json({"run": str(run), "export": summary})
    elif summary.finished is not None:
        show_generate(target, summary.finished)
        stdout.print(f"Every call is answered. Next: synth filter {run}", markup=False)
    else:
        for path in summary.files:
            stdout.print(str(path), markup=False)
        if not quiet:
            waits = f"; {summary.outstanding} of earlier rounds have no output yet" if summary.outstanding else ""
            notice(f"Round {summary.round}: {summary.requests} requests in {len(summary.files)} files{waits}.")
            notice(f"Next: run them, then synth batch collect {run} OUTPUT…")


@batch_app.command("collect")
def batch_collect_command(
    run: RunFolder,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILES", help="Output files (and error files) of the service.", show_default=False),
    ],
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Take the output of a batch back into RUN; each reply is checked as one that came over HTTP."""
    sys.path.insert(0, "")
    target = Run.open(run)
    summary = asyncio.run(_collect(target, files, quiet=quiet))
    if as_json:
        print_json({"run": str(run), "collect": summary})
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(justify="right")
    table.add_column()
    for count, what in (
        (summary.lines, "lines"),
        (summary.answered, "answers taken"),
        (summary.waiting, "answers that wait for their turn"),
        (summary.repeated, "collected before"),
        (summary.failed, "errors; sent again in the next round"),
        (summary.unknown, "of no request of this run"),
        (summary.unreadable, "not readable"),
    ):
        if count or what == "lines":
            table.add_row(str(count), what)
    stdout.print(table)
    for problem in summary.problems[:_PROBLEMS]:
        notice(problem)
    if len(summary.problems) > _PROBLEMS:
        notice(f"… and {len(summary.problems) - _PROBLEMS} more; --json lists them all")
    if summary.finished is not None:
        show_generate(target, summary.finished)
        stdout.print(f"Every call is answered. Next: synth filter {run}", markup=False)
        return
    if summary.outstanding:
        stdout.print(f"{summary.outstanding} requests have no output yet: collect that too.", markup=False)
    if summary.next_round:
        stdout.print(f"{summary.next_round} more calls are needed. Next: synth batch export {run}", markup=False)


_PROBLEMS = 10


async def _export(
    run: Run,
    job: BatchJob | None,
    again: bool,
    requests_per_file: int,
    bytes_per_file: int,
    out: Path | None,
    *,
    quiet: bool,
) -> ExportSummary:
    with LiveView(quiet=quiet) as view, stop_on_signals(notice) as stop:
        return await export_batch(
            run,
            job,
            again=again,
            requests_per_file=requests_per_file,
            bytes_per_file=bytes_per_file,
            out=out,
            stop=stop,
            on_progress=view.update,
        )


async def _collect(run: Run, files: list[Path], *, quiet: bool) -> CollectSummary:
    with LiveView(quiet=quiet) as view, stop_on_signals(notice) as stop:
        return await collect_batch(run, files, stop=stop, on_progress=view.update)
