"""The commands that make a run: `synth generate`, `synth demo`."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

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
    default_name,
    filter_config,
    show_filter,
    show_generate,
    tables_of,
)
from synth.core.config import build
from synth.core.console import AsJson, ConfigFile, Quiet, notice, print_json, setting, stdout
from synth.core.resources import BUNDLED
from synth.core.signals import stop_on_signals
from synth.generate import GenerateConfig
from synth.job import (
    Job,
    JobResult,
    calm_collector,
    check_flags,
    check_number,
    joined_options,
    judge_of,
    parse_options,
    run_job,
)
from synth.live import LiveView
from synth.preview import Preview, preview, show_preview

BUNDLED_NOTICE = (
    "The bundled teacher is a demo: a few million parameters that learned one small skill. "
    "It shows the chain at work and is no teacher for your documents; name one with --teacher."
)


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
    generator: Generators = None,
    option: GeneratorOption = None,
    evidence: Annotated[str | None, setting(GenerateConfig, "evidence")] = None,
    examples: Annotated[str | None, setting(GenerateConfig, "examples")] = None,
    rubric: Annotated[
        str | None, typer.Option("--rubric", metavar="FILE", help="The rubric that `grading` marks against.")
    ] = None,
    num_records: Annotated[int | None, setting(GenerateConfig, "num_records")] = None,
    max_rounds: Annotated[int | None, setting(GenerateConfig, "max_rounds")] = None,
    include: Annotated[list[str] | None, setting(GenerateConfig, "include", "--include")] = None,
    exclude: Annotated[list[str] | None, setting(GenerateConfig, "exclude", "--exclude")] = None,
    passage_chars: PassageChars = None,
    passage_tokens: PassageTokens = None,
    tokenizer: TokenizerOf = None,
    max_passages: MaxPassages = None,
    shard: ShardOf = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    max_tokens: MaxTokens = None,
    logprobs: Annotated[bool | None, setting(GenerateConfig, "logprobs", "--logprobs/--no-logprobs")] = None,
    seed: Seed = None,
    max_calls: Annotated[int | None, setting(GenerateConfig, "max_calls")] = None,
    max_tokens_total: Annotated[int | None, setting(GenerateConfig, "max_tokens_total")] = None,
    max_cost: Annotated[float | None, setting(GenerateConfig, "max_cost")] = None,
    deadline: Annotated[str | None, setting(GenerateConfig, "deadline")] = None,
    heldout: Heldouts = None,
    preset: Preset = None,
    rules: RulesFlag = None,
    rule: Rule = None,
    validation_share: ValidationShare = None,
    no_filter: Annotated[bool, typer.Option("--no-filter", help="Stop before the filter.")] = False,
    max_in_flight: Annotated[
        int, typer.Option("--max-in-flight", min=1, help="How many calls run at once at each endpoint, at most.")
    ] = 64,
    timeout: Annotated[
        float,
        typer.Option("--timeout", metavar="SECONDS", min=0.1, help="The longest that one try of a call may take."),
    ] = 600,
    retries: Annotated[int, typer.Option("--retries", min=0, help="How often a call that fails is tried again.")] = 5,
    stall_seconds: Annotated[
        float,
        typer.Option(
            "--stall-seconds",
            metavar="SECONDS",
            min=1,
            help="With a server of ours: how long it may make no progress before it is started again.",
        ),
    ] = 180,
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
    tables = tables_of(config, bundled=teachers == (BUNDLED,))
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
        "logprobs": logprobs,
        "seed": seed,
        "max_calls": max_calls,
        "max_tokens_total": max_tokens_total,
        "max_cost": max_cost,
        "deadline": deadline,
    }
    settings = build(GenerateConfig, given, flags, where="generate")
    filter_settings = filter_config(
        tables,
        {
            "preset": preset,
            "rules": rules,
            "rule": rule,
            "validation_share": validation_share,
            "num_records": settings.num_records,
            "seed": seed,
        },
    )
    job = Job(
        documents=tuple(docs),
        run=run or Path("runs") / default_name(docs[0]),
        generate=settings,
        rules=filter_settings,
        # A shard is filtered after its merge, when its twins in the other shards are known.
        filter=not (no_filter or settings.shard),
        teacher=teachers,
        teacher_model=teacher_model,
        tokenizer=tokenizer,
        heldout=tuple(heldout or ()),
        max_in_flight=max_in_flight,
        timeout=timeout,
        retries=retries,
        stall_seconds=stall_seconds,
        vllm_args=tuple(vllm_arg or ()),
    )
    check_flags(job)
    # `module:name` means a module in the folder where the user stands, as `python -m` has it.
    sys.path.insert(0, "")
    if teachers == (BUNDLED,) and not quiet:
        notice(BUNDLED_NOTICE)
    if preview_passages is not None:
        found = asyncio.run(_preview(job, preview_passages, quiet=quiet))
        print_json(found.to_json()) if as_json else show_preview(found, stdout)
        return
    calm_collector()
    result = asyncio.run(_run(job, quiet=quiet))
    if as_json:
        print_json({"run": str(result.run.path), "generate": result.generate, "filter": result.filter})
    else:
        show_generate(result.run, result.generate)
        if result.filter is not None:
            show_filter(result.run, result.filter)
    check_number(job, result)
    if not as_json and not quiet:
        stdout.print(f"Next: {next_step(job, result)}", markup=False)


async def _run(job: Job, *, quiet: bool) -> JobResult:
    with LiveView(judge_of(job.rules), quiet=quiet) as view, stop_on_signals(notice) as stop:
        return await run_job(job, view, stop)


async def _preview(job: Job, passages: int, *, quiet: bool) -> Preview:
    with LiveView(quiet=quiet) as view, stop_on_signals(notice) as stop:
        return await preview(job, passages, view, stop)


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


def demo_command(
    run: Annotated[Path, typer.Option("--run", help="The run's folder.")] = Path("runs/demo"),
    records: Annotated[
        int | None,
        typer.Option("--records", min=1, help="How many pairs to make. Fewer take less time, and teach less."),
    ] = None,
) -> None:
    """Run the whole chain offline, on bundled models."""
    from synth.demo import RECORDS, demo

    demo(run, records or RECORDS)
