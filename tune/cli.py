"""`tune`: a dataset in, a tuned student and a verdict out. Parses, calls one library function, prints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from synth.core.config import build, read_config
from synth.core.console import AsJson, ConfigFile, RunFolder, notice, print_json, progress, setting, stdout
from synth.core.entry import run_app
from synth.core.errors import SynthError
from synth.core.runs import Run
from tune.cli_export import register as register_export
from tune.cli_sft import sft_command
from tune.table import table
from tune.validate import Progress as Answered
from tune.validate import ValidateConfig, validate

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


app.command("sft")(sft_command)
register_export(app)


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


def _table(stage: str, path: Path | None) -> Mapping[str, Any]:
    return read_config(path).get(stage, {}) if path else {}


def main() -> None:
    """Run `tune`."""
    run_app(app, "tune")


if __name__ == "__main__":
    main()
