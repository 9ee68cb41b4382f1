"""`synth`: documents in, a dataset out. Parses, calls one library function, prints."""

import asyncio
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from synth.core.config import build, read_config
from synth.core.console import AsJson, ConfigFile, RunFolder, notice, print_json, progress, run_app, setting, stdout
from synth.core.errors import RunError
from synth.core.heldout import load_heldout
from synth.core.records import Record
from synth.core.resources import resource
from synth.core.runs import Run
from synth.filter import FilterConfig, FilterSummary, decide, run_filter
from synth.generate import GenerateConfig, GenerateSummary, Progress, run_generate
from synth.inference.endpoints import BUNDLED, find_model, open_endpoint

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
        list[Path],
        typer.Argument(metavar="DOCS", help="Files and folders of documents.", show_default=False),
    ],
    run: Annotated[
        Path | None,
        typer.Option("--run", help="The run's folder. [default: runs/<name of the first source>]"),
    ] = None,
    teacher: Annotated[
        str,
        typer.Option(
            "--teacher",
            metavar="MODEL|URL",
            help="A hub id or a folder (a vLLM server is started for it), or the URL of an endpoint that runs.",
        ),
    ] = BUNDLED,
    teacher_model: Annotated[
        str | None,
        typer.Option("--teacher-model", metavar="NAME", help="With a URL: the model's name there."),
    ] = None,
    generator: Annotated[list[str] | None, setting(GenerateConfig, "generator", "--generator")] = None,
    num_records: Annotated[int | None, setting(GenerateConfig, "num_records")] = None,
    max_rounds: Annotated[int | None, setting(GenerateConfig, "max_rounds")] = None,
    passage_chars: Annotated[int | None, setting(GenerateConfig, "passage_chars")] = None,
    temperature: Annotated[float | None, setting(GenerateConfig, "temperature")] = None,
    top_p: Annotated[float | None, setting(GenerateConfig, "top_p")] = None,
    max_tokens: Annotated[int | None, setting(GenerateConfig, "max_tokens")] = None,
    seed: Annotated[int | None, setting(GenerateConfig, "seed")] = None,
    heldout: Heldout = None,
    preset: Preset = None,
    rule: Rule = None,
    validation_share: ValidationShare = None,
    no_filter: Annotated[bool, typer.Option("--no-filter", help="Stop before the filter.")] = False,
    max_in_flight: Annotated[int, typer.Option("--max-in-flight", min=1, help="How many calls run at once.")] = 64,
    vllm_arg: Annotated[
        list[str] | None,
        typer.Option("--vllm-arg", help="Passed through to the vLLM server. May be repeated."),
    ] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Write pairs about DOCS, filter and split them."""
    tables = _tables(config, bundled=teacher == BUNDLED)
    flags = {
        "generator": tuple(generator) if generator else None,
        "num_records": num_records,
        "max_rounds": max_rounds,
        "passage_chars": passage_chars,
        "temperature": temperature,
        "top_p": top_p,
        "max_tokens": max_tokens,
        "seed": seed,
    }
    settings = build(GenerateConfig, tables.get("generate", {}), flags, where="generate")
    filter_settings = _filter_config(
        tables, preset, rule, validation_share, num_records=settings.num_records, seed=seed
    )
    # A bad line in the held-out file or an unknown score in a rule should stop us now, not after hours of calls.
    decide([], filter_settings, load_heldout(heldout) if heldout else None)
    # `module:name` means a module in the folder where the user stands, as `python -m` has it.
    sys.path.insert(0, "")
    target = Run.create(run or Path("runs") / docs[0].resolve().name)
    if teacher == BUNDLED:
        notice(BUNDLED_NOTICE)
    summary = asyncio.run(
        _generate(
            target, docs, settings, filter_settings, teacher, teacher_model, heldout, max_in_flight, vllm_arg or []
        )
    )
    filtered = None if no_filter else run_filter(target, filter_settings, heldout)
    if as_json:
        print_json({"run": str(target.path), "generate": summary, "filter": filtered})
    else:
        show_generate(target, summary)
        if filtered is not None:
            show_filter(filtered)
    if filtered is not None and settings.num_records and filtered.kept < settings.num_records:
        raise RunError(
            f"kept {filtered.kept} of the {settings.num_records} records asked for; they are in the dataset",
            where=str(target.path),
            fix="add documents, raise --max-rounds, or loosen a rule",
        )
    if not as_json and filtered is not None:
        stdout.print(f"Next: tune sft {target.path}", markup=False)


async def _generate(
    run: Run,
    docs: list[Path],
    config: GenerateConfig,
    filter_config: FilterConfig,
    teacher: str,
    teacher_model: str | None,
    heldout: Path | None,
    max_in_flight: int,
    server_args: list[str],
) -> GenerateSummary:
    stop = _stop_on_interrupt()
    source = await find_model(teacher, role="teacher", served=teacher_model)
    sealed = load_heldout(heldout) if heldout else None

    def accept(records: Sequence[Record]) -> int:
        return sum(r.decision is not None and r.decision.keep for r in decide(records, filter_config, sealed))

    with progress() as bars:
        task = bars.add_task("generate", total=None, note="")

        def on_progress(now: Progress) -> None:
            accepted = "" if now.accepted is None else f", {now.accepted} accepted"
            bars.update(task, completed=now.done, total=now.total, note=f"{now.records} records{accepted}")

        return await run_generate(
            run,
            docs,
            config,
            open_endpoint(
                source,
                log_path=run.log_path("teacher"),
                max_in_flight=max_in_flight,
                server_args=server_args,
                on_progress=lambda text: bars.update(task, note=text),
            ),
            teacher_name=source.name,
            teacher_revision=source.revision,
            max_in_flight=max_in_flight,
            accept=accept,
            stop=stop,
            on_progress=on_progress,
        )


def _stop_on_interrupt() -> asyncio.Event:
    """Drain at the first Ctrl-C, give up at the second."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None

    def interrupt() -> None:
        if stop.is_set():
            task.cancel()
            return
        stop.set()
        notice("Finishing the calls in flight; press Ctrl-C again to drop them.")

    loop.add_signal_handler(signal.SIGINT, interrupt)
    return stop


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
    return {stage: {**own.get(stage, {}), **given.get(stage, {})} for stage in {*own, *given}}


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
    """Print what the generate stage did."""
    stdout.print(
        f"Run {run.path}" + (" (was finished: nothing was asked again)" if summary.current else ""),
        markup=False,
    )
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(justify="right")
    table.add_column()
    table.add_row(str(summary.documents), f"documents, {summary.passages} passages")
    table.add_row(str(summary.calls), f"calls answered, {summary.calls_replayed} more taken from the journal")
    table.add_row(
        str(summary.completion_tokens),
        f"tokens written, {summary.prompt_tokens} read, {summary.seconds:.0f} s",
    )
    table.add_row(str(summary.quarantined), "documents and calls without a record (quarantine.jsonl)")
    table.add_row(str(summary.records), "records")
    stdout.print(table)


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
