"""`tune curve` and `tune ablate`: what more data, and what each filter rule, is worth."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from synth.core.config import build, read_config
from synth.core.console import AsJson, ConfigFile, Quiet, RunFolder, notice, print_json, setting, stdout
from synth.core.runs import Run
from tune.series_config import AblateConfig, CurveConfig, SeriesConfig

InFlight = Annotated[int, typer.Option("--max-in-flight", min=1, help="How many calls run at once.")]
VllmArgs = Annotated[
    list[str] | None, typer.Option("--vllm-arg", help="Passed through to the vLLM server. May be repeated.")
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads of each training. Default: one a core.")
]


def curve_command(
    run: RunFolder,
    heldout: Annotated[str, setting(CurveConfig, "heldout")],
    shares: Annotated[str | None, setting(CurveConfig, "shares")] = None,
    candidate: Annotated[str | None, setting(CurveConfig, "candidate")] = None,
    gain: Annotated[float | None, setting(CurveConfig, "gain")] = None,
    equal_steps: Annotated[bool | None, setting(CurveConfig, "equal_steps", "--equal-steps")] = None,
    metric: Annotated[str | None, setting(CurveConfig, "metric")] = None,
    max_tokens: Annotated[int | None, setting(CurveConfig, "max_tokens")] = None,
    threads: Threads = None,
    max_in_flight: InFlight = 64,
    vllm_arg: VllmArgs = None,
    quiet: Quiet = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Score students on nested shares of the dataset: generate more, or stop."""
    from tune.curve import curve  # loads what asks and compares, which `tune --help` should not wait for
    from tune.curve_view import curve_table, text_plot
    from tune.series import Asking

    flags = {
        "heldout": heldout,
        "shares": shares,
        "candidate": candidate,
        "gain": gain,
        "equal_steps": equal_steps,
        "metric": metric,
        "max_tokens": max_tokens,
    }
    target, tables = Run.open(run), _tables(config)
    found = curve(
        target,
        build(CurveConfig, _shared(tables, CurveConfig), flags, where="curve"),
        settings=_training(tables, threads),
        asking=Asking(max_in_flight, vllm_arg or []),
        on_note=_shown(quiet),
    )
    if as_json:
        print_json({"run": str(target.path), "curve": found.to_json()})
        return
    stdout.print(curve_table(found))
    stdout.print()
    stdout.print(text_plot(found), markup=False)
    stdout.print()
    stdout.print(found.advice.said, markup=False)
    for note in found.notes:
        notice(note)


def ablate_command(
    run: RunFolder,
    heldout: Annotated[str, setting(AblateConfig, "heldout")],
    rules: Annotated[str | None, setting(AblateConfig, "rules")] = None,
    candidate: Annotated[str | None, setting(AblateConfig, "candidate")] = None,
    metric: Annotated[str | None, setting(AblateConfig, "metric")] = None,
    max_tokens: Annotated[int | None, setting(AblateConfig, "max_tokens")] = None,
    threads: Threads = None,
    max_in_flight: InFlight = 64,
    vllm_arg: VllmArgs = None,
    quiet: Quiet = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Score students without each filter rule: what a rule is worth."""
    from tune.ablation import ablate, ablation_table
    from tune.series import Asking

    flags = {
        "heldout": heldout,
        "rules": rules,
        "candidate": candidate,
        "metric": metric,
        "max_tokens": max_tokens,
    }
    target, tables = Run.open(run), _tables(config)
    found = ablate(
        target,
        build(AblateConfig, _shared(tables, AblateConfig), flags, where="ablate"),
        settings=_training(tables, threads),
        asking=Asking(max_in_flight, vllm_arg or []),
        on_note=_shown(quiet),
    )
    if as_json:
        print_json({"run": str(target.path), "ablation": found.to_json()})
        return
    stdout.print(ablation_table(found))
    stdout.print()
    stdout.print(found.text, markup=False)
    for note in found.notes:
        notice(note)


def _tables(path: Path | None) -> Mapping[str, Mapping[str, Any]]:
    return read_config(path) if path else {}


def _shared(tables: Mapping[str, Mapping[str, Any]], model: type[BaseModel]) -> dict[str, Any]:
    """Return what a config file says of validations and holds here too: how long answers may be, how intervals are."""
    named = {"candidate", "metric"}  # Those of one verdict, not of its students.
    shared = SeriesConfig.model_fields.keys() & model.model_fields.keys()
    return {key: value for key, value in tables.get("validate", {}).items() if key in shared - named}


def _training(tables: Mapping[str, Mapping[str, Any]], threads: int | None) -> dict[str, Any]:
    return {**tables.get("sft", {}), **({} if threads is None else {"threads": threads})}


def _shown(quiet: bool) -> Callable[[str], None]:
    return (lambda text: None) if quiet else notice


def register(app: typer.Typer) -> None:
    """Add `curve` and `ablate` to a command line."""
    app.command("curve")(curve_command)
    app.command("ablate")(ablate_command)
