"""`tune validate`: parses, calls `tune.validate`, prints."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synth.core.config import build, read_config
from synth.core.console import AsJson, ConfigFile, RunFolder, notice, print_json, progress, setting, stdout
from synth.core.errors import SynthError
from synth.core.runs import Run
from tune.validation_config import ValidateConfig

if TYPE_CHECKING:
    from tune.validation import Progress


class Rejected(SynthError):
    """The verdict is a reject and `--gate` asked to be told by the exit code."""

    exit_code = 3


def _set(field: str) -> Any:  # noqa: ANN401  (typer's own type)
    return setting(ValidateConfig, field)


def validate_command(
    run: RunFolder,
    heldout: Annotated[str, _set("heldout")],
    candidate: Annotated[str | None, _set("candidate")] = None,
    contenders: Annotated[str | None, _set("contenders")] = None,
    teacher: Annotated[str | None, _set("teacher")] = None,
    teacher_model: Annotated[str | None, _set("teacher_model")] = None,
    metric: Annotated[str | None, _set("metric")] = None,
    metrics: Annotated[str | None, _set("metrics")] = None,
    must_beat: Annotated[str | None, _set("must_beat")] = None,
    margin: Annotated[float | None, _set("margin")] = None,
    retrieval_margin: Annotated[float | None, _set("retrieval_margin")] = None,
    regression: Annotated[list[str] | None, _set("regression")] = None,
    regression_margin: Annotated[float | None, _set("regression_margin")] = None,
    unsupported_margin: Annotated[float | None, _set("unsupported_margin")] = None,
    min_items: Annotated[int | None, _set("min_items")] = None,
    min_documents: Annotated[int | None, _set("min_documents")] = None,
    target_points: Annotated[float | None, _set("target_points")] = None,
    max_tokens: Annotated[int | None, _set("max_tokens")] = None,
    prompt_budget: Annotated[int | None, _set("prompt_budget")] = None,
    examples: Annotated[int | None, _set("examples")] = None,
    passages: Annotated[int | None, _set("passages")] = None,
    price_prompt: Annotated[float | None, _set("price_prompt")] = None,
    price_completion: Annotated[float | None, _set("price_completion")] = None,
    hourly_price: Annotated[float | None, _set("hourly_price")] = None,
    refusals: Annotated[list[str] | None, _set("refusals")] = None,
    judge: Annotated[str | None, _set("judge")] = None,
    judge_marks: Annotated[Path | None, _set("judge_marks")] = None,
    server: Annotated[str | None, _set("server")] = None,
    server_base: Annotated[str | None, _set("server_base")] = None,
    server_tuned: Annotated[str | None, _set("server_tuned")] = None,
    merged: Annotated[Path | None, _set("merged")] = None,
    max_in_flight: Annotated[int, typer.Option("--max-in-flight", min=1, help="How many calls run at once.")] = 64,
    vllm_arg: Annotated[
        list[str] | None, typer.Option("--vllm-arg", help="Passed through to the vLLM server. May be repeated.")
    ] = None,
    gate: Annotated[bool, typer.Option("--gate", help="End with exit code 3 where the verdict is a reject.")] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Judge a tuned student on held-out items."""
    from tune.table import report  # what asks and compares, which `tune --help` should not wait for
    from tune.validation import validate

    given = {name: value for name, value in locals().items() if name in ValidateConfig.model_fields}
    flags = {name: value for name, value in given.items() if value not in (None, [])}
    target = Run.open(run)
    table_of_file = read_config(config).get("validate", {}) if config else {}
    settings = build(ValidateConfig, table_of_file, flags, where="validate")
    with progress() as bars:
        task = bars.add_task("validate", total=None, note="starting")

        def on_progress(now: "Progress") -> None:
            if now.told:
                notice(now.told)
            bars.update(task, completed=now.done, total=now.total, note=now.note)

        verdict = validate(
            target,
            config=settings,
            max_in_flight=max_in_flight,
            server_args=vllm_arg or [],
            on_progress=on_progress,
        )
    if as_json:
        print_json({"run": str(target.path), "verdict": verdict.to_json()})
    else:
        stdout.print(report(verdict))
        for warning in verdict.warnings:
            notice(warning)
    if gate and not verdict.accepted:
        raise Rejected("the verdict is a reject", where=str(target.path))
