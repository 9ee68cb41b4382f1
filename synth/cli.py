"""`synth`: documents in, a dataset out. Parses, calls one library function, prints."""

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from synth.core.config import build, read_config
from synth.core.console import AsJson, ConfigFile, Quiet, RunFolder, notice, print_json, run_app, setting, stdout
from synth.core.resources import resource
from synth.core.runs import Run
from synth.filter import FilterConfig, FilterSummary, run_filter
from synth.generate import GenerateConfig, GenerateSummary
from synth.inference.endpoints import BUNDLED
from synth.job import (
    Job,
    JobResult,
    check_number,
    joined_options,
    judge_of,
    parse_options,
    run_job,
    stop_on_signals,
)
from synth.live import LiveView
from synth.preview import Preview, preview, show_preview

app = typer.Typer(
    name="synth",
    help="From your documents to a dataset: a teacher writes pairs, a filter decides, nothing is lost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

BUNDLED_NOTICE = (
    "The bundled teacher is a demo: a few million parameters that learned one small skill. "
    "It shows the chain at work and is no teacher for your documents; name one with --teacher."
)

Heldout = Annotated[
    Path | None,
    typer.Option("--heldout", metavar="FILE", help="Human questions that must not leak into the dataset."),
]
Preset = Annotated[str | None, setting(FilterConfig, "preset")]
Rule = Annotated[list[str] | None, setting(FilterConfig, "rule")]
ValidationShare = Annotated[float | None, setting(FilterConfig, "validation_share")]


@app.command("generate")
def generate_command(
    docs: Annotated[
        list[str],
        typer.Argument(metavar="DOCS", help="Files, folders, hub datasets (hub:owner/name).", show_default=False),
    ],
    run: Annotated[
        Path | None,
        typer.Option("--run", help="The run's folder. [default: runs/<name of the first source>]"),
    ] = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            "--teacher",
            metavar="MODEL|URL",
            help="A hub id or a folder (a vLLM server is started for it), or the URL of an endpoint that runs; several "
            "URLs are balanced. [default: the bundled demo model]",
        ),
    ] = None,
    teacher_model: Annotated[
        str | None,
        typer.Option("--teacher-model", metavar="NAME", help="With a URL: the model's name there."),
    ] = None,
    generator: Annotated[list[str] | None, setting(GenerateConfig, "generator", "--generator")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="NAME.KEY=VALUE", help="A generator's own setting. May be repeated."),
    ] = None,
    evidence: Annotated[str | None, setting(GenerateConfig, "evidence")] = None,
    examples: Annotated[str | None, setting(GenerateConfig, "examples")] = None,
    rubric: Annotated[
        str | None, typer.Option("--rubric", metavar="FILE", help="The rubric that `grading` marks against.")
    ] = None,
    num_records: Annotated[int | None, setting(GenerateConfig, "num_records")] = None,
    max_rounds: Annotated[int | None, setting(GenerateConfig, "max_rounds")] = None,
    include: Annotated[list[str] | None, setting(GenerateConfig, "include", "--include")] = None,
    exclude: Annotated[list[str] | None, setting(GenerateConfig, "exclude", "--exclude")] = None,
    passage_chars: Annotated[int | None, setting(GenerateConfig, "passage_chars")] = None,
    passage_tokens: Annotated[int | None, setting(GenerateConfig, "passage_tokens")] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option("--tokenizer", metavar="MODEL", help="With a URL and --passage-tokens: whose tokens are counted."),
    ] = None,
    max_passages: Annotated[int | None, setting(GenerateConfig, "max_passages")] = None,
    shard: Annotated[str | None, setting(GenerateConfig, "shard")] = None,
    temperature: Annotated[float | None, setting(GenerateConfig, "temperature")] = None,
    top_p: Annotated[float | None, setting(GenerateConfig, "top_p")] = None,
    max_tokens: Annotated[int | None, setting(GenerateConfig, "max_tokens")] = None,
    seed: Annotated[int | None, setting(GenerateConfig, "seed")] = None,
    max_calls: Annotated[int | None, setting(GenerateConfig, "max_calls")] = None,
    max_tokens_total: Annotated[int | None, setting(GenerateConfig, "max_tokens_total")] = None,
    max_cost: Annotated[float | None, setting(GenerateConfig, "max_cost")] = None,
    deadline: Annotated[str | None, setting(GenerateConfig, "deadline")] = None,
    heldout: Heldout = None,
    preset: Preset = None,
    rule: Rule = None,
    validation_share: ValidationShare = None,
    no_filter: Annotated[bool, typer.Option("--no-filter", help="Stop before the filter.")] = False,
    max_in_flight: Annotated[
        int, typer.Option("--max-in-flight", min=1, help="How many calls run at once at each endpoint, at most.")
    ] = 64,
    vllm_arg: Annotated[
        list[str] | None,
        typer.Option("--vllm-arg", help="Passed through to the vLLM server. May be repeated."),
    ] = None,
    preview_passages: Annotated[
        int | None,
        typer.Option(
            "--preview", metavar="K", min=1, help="Try K passages, show prompts, replies and decisions; write no run."
        ),
    ] = None,
    config: ConfigFile = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write pairs about DOCS, filter and split them."""
    teachers = tuple(teacher or (BUNDLED,))
    tables = _tables(config, bundled=teachers == (BUNDLED,))
    given = tables.get("generate", {})
    shared = {"*": {"rubric": rubric}} if rubric else {}
    flags = {
        "generator": tuple(generator) if generator else None,
        "options": joined_options(given.get("options", {}), shared, parse_options(option or ())),
        "evidence": evidence,
        "examples": examples,
        "num_records": num_records,
        "max_rounds": max_rounds,
        "include": tuple(include) if include else None,
        "exclude": tuple(exclude) if exclude else None,
        "passage_chars": passage_chars,
        "passage_tokens": passage_tokens,
        "max_passages": max_passages,
        "shard": shard,
        "temperature": temperature,
        "top_p": top_p,
        "max_tokens": max_tokens,
        "seed": seed,
        "max_calls": max_calls,
        "max_tokens_total": max_tokens_total,
        "max_cost": max_cost,
        "deadline": deadline,
    }
    settings = build(GenerateConfig, given, flags, where="generate")
    filter_settings = _filter_config(
        tables, preset, rule, validation_share, num_records=settings.num_records, seed=seed
    )
    job = Job(
        documents=tuple(docs),
        run=run or Path("runs") / default_name(docs[0]),
        generate=settings,
        # A shard is filtered after its merge, when its twins in the other shards are known.
        filter=None if no_filter or settings.shard else filter_settings,
        teacher=teachers,
        teacher_model=teacher_model,
        tokenizer=tokenizer,
        heldout=heldout,
        max_in_flight=max_in_flight,
        vllm_args=tuple(vllm_arg or ()),
    )
    # `module:name` means a module in the folder where the user stands, as `python -m` has it.
    sys.path.insert(0, "")
    if teachers == (BUNDLED,) and not quiet:
        notice(BUNDLED_NOTICE)
    if preview_passages is not None:
        found = asyncio.run(_preview(job, preview_passages, filter_settings, quiet=quiet))
        print_json(found.to_json()) if as_json else show_preview(found, stdout)
        return
    result = asyncio.run(_run(job, filter_settings, quiet=quiet))
    if as_json:
        print_json({"run": str(result.run.path), "generate": result.generate, "filter": result.filter})
    else:
        show_generate(result.run, result.generate)
        if result.filter is not None:
            show_filter(result.filter)
    check_number(job, result)
    if not as_json and not quiet:
        stdout.print(f"Next: {next_step(job, result)}", markup=False)


async def _run(job: Job, judged_by: FilterConfig, *, quiet: bool) -> JobResult:
    with LiveView(judge_of(judged_by), quiet=quiet) as view, stop_on_signals(notice) as stop:
        return await run_job(job, view, stop)


async def _preview(job: Job, passages: int, judged_by: FilterConfig, *, quiet: bool) -> Preview:
    with LiveView(quiet=quiet) as view, stop_on_signals(notice) as stop:
        return await preview(replace(job, filter=judged_by), passages, view, stop)


def default_name(source: str) -> str:
    """Return the name of the run over `source`: the folder's, or the hub dataset's."""
    return source.removeprefix("hub:").replace("/", "-") if source.startswith("hub:") else Path(source).resolve().name


def next_step(job: Job, result: JobResult) -> str:
    """Return the command that a user wants after this job."""
    path, summary = result.run.path, result.generate
    if summary.capped:
        return f"run the same command with a higher --{summary.capped.replace('_', '-')} to go on"
    if summary.calls_failed:
        return f"run the same command again to ask the {summary.calls_failed} calls that got no answer"
    if job.generate.shard is not None:
        return f"synth merge, when all {job.generate.part.count} shards are done"
    return f"tune sft {path}" if result.filter is not None else f"synth filter {path}"


@app.command("filter")
def filter_command(
    run: RunFolder,
    heldout: Heldout = None,
    preset: Preset = None,
    rule: Rule = None,
    validation_share: ValidationShare = None,
    num_records: Annotated[int | None, setting(FilterConfig, "num_records")] = None,
    seed: Annotated[int | None, setting(FilterConfig, "seed")] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Decide again; no call to a teacher is repeated."""
    target = Run.open(run)
    settings = _filter_config(_tables(config), preset, rule, validation_share, num_records=num_records, seed=seed)
    summary = run_filter(target, settings, heldout)
    if as_json:
        print_json({"run": str(target.path), "filter": summary})
    else:
        show_filter(summary)


@app.command("demo")
def demo_command(
    run: Annotated[Path, typer.Option("--run", help="The run's folder.")] = Path("runs/demo"),
) -> None:
    """Run the whole chain offline, on bundled models."""
    from synth.demo import demo

    demo(run)


def _tables(config: Path | None, *, bundled: bool = False) -> Mapping[str, Mapping[str, Any]]:
    """Return the tables of the config file; the bundled models bring their own settings, which the file overrides."""
    own = read_config(resource("demo", "demo.toml")) if bundled else {}
    given = read_config(config) if config else {}
    tables: dict[str, dict[str, Any]] = {
        stage: {**own.get(stage, {}), **given.get(stage, {})} for stage in {*own, *given}
    }
    options = [source.get("generate", {}).get("options", {}) for source in (own, given)]
    if any(options):
        tables["generate"]["options"] = joined_options(*options)
    return tables


def _filter_config(
    tables: Mapping[str, Mapping[str, Any]],
    preset: str | None,
    rule: list[str] | None,
    validation_share: float | None,
    *,
    num_records: int | None,
    seed: int | None,
) -> FilterConfig:
    flags = {
        "preset": preset,
        "rule": tuple(rule) if rule else None,
        "validation_share": validation_share,
        "num_records": num_records,
        "seed": seed,
    }
    return build(FilterConfig, tables.get("filter", {}), flags, where="filter")


def show_generate(run: Run, summary: GenerateSummary) -> None:
    """Print what the generate stage did; every count is accounted for."""
    stdout.print(
        f"Run {run.path}" + (" (was finished: nothing was asked again)" if summary.current else ""),
        markup=False,
    )
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(justify="right")
    table.add_column()
    found = summary.documents + summary.documents_quarantined
    asked = summary.calls + summary.calls_replayed + summary.calls_failed
    twins = f", {summary.passages_duplicate} of them asked about once with their twins" * bool(
        summary.passages_duplicate
    )
    table.add_row(str(found), f"documents: {summary.documents} read, {summary.documents_quarantined} in quarantine")
    table.add_row(str(summary.passages), f"passages{twins}")
    table.add_row(
        str(asked),
        f"calls: {summary.calls} answered, {summary.calls_replayed} from the journal, "
        f"{summary.calls_failed} without answer",
    )
    table.add_row(
        "",
        f"of the answers {summary.calls_used} are in records, {summary.calls_quarantined} in quarantine, "
        f"{summary.calls_between} steps between or asked for again",
    )
    table.add_row(
        str(summary.completion_tokens),
        f"tokens written, {summary.prompt_tokens} read, {summary.seconds:.0f} s"
        + (f", cost {summary.cost:.2f}" if summary.cost is not None else ""),
    )
    table.add_row(
        str(summary.quarantined), "lines in quarantine.jsonl: documents and replies without a record, and why"
    )
    table.add_row(str(summary.records), "records")
    stdout.print(table)
    if summary.capped:
        notice(f"{summary.capped} was reached: {summary.units_left} units of work were left.")
    for place in summary.damaged:
        notice(f"journal/{place} could not be read; its call was made again.")


def show_filter(summary: FilterSummary) -> None:
    """Print the funnel of the filter: it adds up from all records to those kept."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(justify="right")
    table.add_column()
    for reason, count in summary.funnel:
        table.add_row(f"-{count}", reason)
    table.add_row(f"{summary.kept}", f"kept: {summary.train} to train on, {summary.validation} for validation")
    stdout.print(table)


def main() -> None:
    """Run `synth`."""
    run_app(app, "synth")


if __name__ == "__main__":
    main()
