"""`tune`: a dataset in, a tuned student and a verdict out. Parses, calls one library function, prints."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synth.core.config import build, read_config
from synth.core.console import AsJson, ConfigFile, RunFolder, notice, print_json, progress, setting, stdout
from synth.core.entry import run_app
from synth.core.errors import SynthError
from synth.core.resources import resource
from synth.core.runs import Run
from synth.inference.endpoints import BUNDLED
from tune.cli_export import register
from tune.config import TuneConfig
from tune.validate import Progress as Answered
from tune.validate import ValidateConfig, validate
from tune.verdict import table

if TYPE_CHECKING:
    from tune.progress import Progress

app = typer.Typer(
    name="tune",
    help="From a dataset to a student, and from a student to a verdict on held-out questions.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class Rejected(SynthError):
    """The verdict is a reject and `--gate` asked to be told by the exit code."""

    exit_code = 3


@app.command("sft")
def sft_command(
    run: RunFolder,
    student: Annotated[str | None, setting(TuneConfig, "student")] = None,
    method: Annotated[str | None, setting(TuneConfig, "method")] = None,
    candidate: Annotated[str | None, setting(TuneConfig, "candidate")] = None,
    rank: Annotated[int | None, setting(TuneConfig, "rank")] = None,
    alpha: Annotated[int | None, setting(TuneConfig, "alpha")] = None,
    learning_rate: Annotated[float | None, setting(TuneConfig, "learning_rate")] = None,
    epochs: Annotated[int | None, setting(TuneConfig, "epochs")] = None,
    batch_size: Annotated[int | None, setting(TuneConfig, "batch_size")] = None,
    gradient_accumulation: Annotated[int | None, setting(TuneConfig, "gradient_accumulation")] = None,
    max_length: Annotated[int | None, setting(TuneConfig, "max_length")] = None,
    on_overflow: Annotated[str | None, setting(TuneConfig, "on_overflow")] = None,
    question_variants: Annotated[int | None, setting(TuneConfig, "question_variants")] = None,
    precision: Annotated[str | None, setting(TuneConfig, "precision")] = None,
    seed: Annotated[int | None, setting(TuneConfig, "seed")] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Tune a student on the run's dataset."""
    flags = {
        "student": student,
        "method": method,
        "candidate": candidate,
        "rank": rank,
        "alpha": alpha,
        "learning_rate": learning_rate,
        "epochs": epochs,
        "batch_size": batch_size,
        "gradient_accumulation": gradient_accumulation,
        "max_length": max_length,
        "on_overflow": on_overflow,
        "question_variants": question_variants,
        "precision": precision,
        "seed": seed,
    }
    target = Run.open(run)
    table = _table("sft", config)
    bundled = (student or table.get("student", BUNDLED)) == BUNDLED
    settings = build(TuneConfig, _table("sft", _bundled_settings()) if bundled else {}, table, flags, where="sft")
    from tune.sft import train  # torch and TRL load here, not with `tune --help`.

    with progress() as bars:
        task = bars.add_task("sft", total=None, note="loading")

        def on_progress(now: "Progress") -> None:
            loss = "" if now.loss is None else f"loss {now.loss:.3f}, "
            bars.update(task, completed=now.step, total=now.total, note=f"{loss}{now.tokens_per_second:.0f} tokens/s")

        result = train(target, settings, on_progress=on_progress, on_message=notice)
    if as_json:
        print_json({"run": str(target.path), "sft": result})
        return
    done = "trained" if result.trained else "was finished: nothing was trained again"
    stdout.print(f"Candidate {result.candidate} ({done}) in {result.path}", markup=False)
    validation = "" if result.validation_loss is None else f", on validation {result.validation_loss:.3f}"
    stdout.print(
        f"{result.steps} steps in {result.seconds:.0f} s; loss {result.train_loss:.3f} on training rows{validation}",
        markup=False,
    )
    stdout.print(f"Next: tune validate {target.path} --heldout FILE", markup=False)


@app.command("validate")
def validate_command(
    run: RunFolder,
    heldout: Annotated[Path, setting(ValidateConfig, "heldout")],
    candidate: Annotated[str | None, setting(ValidateConfig, "candidate")] = None,
    contenders: Annotated[str | None, setting(ValidateConfig, "contenders")] = None,
    must_beat: Annotated[str | None, setting(ValidateConfig, "must_beat")] = None,
    margin: Annotated[float | None, setting(ValidateConfig, "margin")] = None,
    max_tokens: Annotated[int | None, setting(ValidateConfig, "max_tokens")] = None,
    examples: Annotated[int | None, setting(ValidateConfig, "examples")] = None,
    passages: Annotated[int | None, setting(ValidateConfig, "passages")] = None,
    server: Annotated[str | None, setting(ValidateConfig, "server")] = None,
    server_base: Annotated[str | None, setting(ValidateConfig, "server_base")] = None,
    server_tuned: Annotated[str | None, setting(ValidateConfig, "server_tuned")] = None,
    merged: Annotated[Path | None, setting(ValidateConfig, "merged")] = None,
    max_in_flight: Annotated[int, typer.Option("--max-in-flight", min=1, help="How many calls run at once.")] = 64,
    vllm_arg: Annotated[
        list[str] | None, typer.Option("--vllm-arg", help="Passed through to the vLLM server. May be repeated.")
    ] = None,
    gate: Annotated[bool, typer.Option("--gate", help="End with exit code 3 where the verdict is a reject.")] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Judge a tuned student on held-out questions."""
    flags = {
        "heldout": heldout,
        "candidate": candidate,
        "contenders": contenders,
        "must_beat": must_beat,
        "margin": margin,
        "max_tokens": max_tokens,
        "examples": examples,
        "passages": passages,
        "server": server,
        "server_base": server_base,
        "server_tuned": server_tuned,
        "merged": merged,
    }
    target = Run.open(run)
    settings = build(ValidateConfig, _table("validate", config), flags, where="validate")
    with progress() as bars:
        task = bars.add_task("validate", total=None, note="starting")

        def on_progress(now: Answered) -> None:
            bars.update(task, completed=now.done, total=now.total, note=now.note)

        verdict = validate(
            target, settings, max_in_flight=max_in_flight, server_args=vllm_arg or [], on_progress=on_progress
        )
    if as_json:
        print_json({"run": str(target.path), "verdict": verdict.to_json()})
    else:
        stdout.print(table(verdict))
        stdout.print(verdict.text, markup=False)
        for warning in verdict.warnings:
            notice(warning)
    if gate and not verdict.accepted:
        raise Rejected("the verdict is a reject", where=str(target.path))


register(app)


def _bundled_settings() -> Path:
    return resource("demo", "demo.toml")


def _table(stage: str, path: Path | None) -> Mapping[str, Any]:
    return read_config(path).get(stage, {}) if path else {}


def main() -> None:
    """Run `tune`."""
    run_app(app, "tune")


if __name__ == "__main__":
    main()
