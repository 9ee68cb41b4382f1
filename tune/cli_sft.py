"""`tune sft`: parses, calls `tune.check`, `tune.train`, `tune.train_folds` or the launcher, prints."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from synth.core.config import build, read_config
from synth.core.console import AsJson, ConfigFile, Quiet, RunFolder, notice, print_json, setting, stdout
from synth.core.errors import ConfigError, SynthError
from synth.core.resources import BUNDLED, resource
from synth.core.runs import Run
from tune.config import TuneConfig
from tune.live import TrainingView
from tune.ranks import is_main, keep_silent
from tune.ranks import processes as running_processes

if TYPE_CHECKING:
    from tune.progress import Progress
    from tune.sft import StudentResult

# What an adapter that is trained further keeps, so that the bundled student's settings do not stand against it.
_OF_PARENT = ("rank", "alpha", "method", "student")

_FIRST_WORD = 10.0  # Seconds that the other processes leave the first one to tell an error.


def _set(field: str, *flags: str) -> Any:  # noqa: ANN401  (typer's own type)
    return setting(TuneConfig, field, *flags)


def _switch(field: str) -> Any:  # noqa: ANN401  (typer's own type)
    name = field.replace("_", "-")
    return setting(TuneConfig, field, f"--{name}/--no-{name}")


def sft_command(
    run: RunFolder,
    student: Annotated[str | None, _set("student")] = None,
    revision: Annotated[str | None, _set("revision")] = None,
    from_: Annotated[str | None, _set("from_", "--from")] = None,
    method: Annotated[str | None, _set("method")] = None,
    candidate: Annotated[str | None, _set("candidate")] = None,
    data: Annotated[str | None, _set("data")] = None,
    mix: Annotated[list[str] | None, _set("mix")] = None,
    validation_share: Annotated[float | None, _set("validation_share")] = None,
    folds: Annotated[int | None, _set("folds")] = None,
    fold: Annotated[int | None, _set("fold")] = None,
    subset: Annotated[float | None, _set("subset")] = None,
    curriculum: Annotated[str | None, _set("curriculum")] = None,
    replay: Annotated[str | None, _set("replay")] = None,
    replay_share: Annotated[float | None, _set("replay_share")] = None,
    heldout: Annotated[
        Path | None,
        typer.Option("--heldout", help="Held-out questions: read for one thing alone, that none is trained on."),
    ] = None,
    preflight: Annotated[
        bool,
        typer.Option("--preflight", help="Stop before the first step: every check, three rows, the memory it takes."),
    ] = False,
    rank: Annotated[int | None, _set("rank")] = None,
    alpha: Annotated[int | None, _set("alpha")] = None,
    dropout: Annotated[float | None, _set("dropout")] = None,
    target_modules: Annotated[str | None, _set("target_modules")] = None,
    rslora: Annotated[bool | None, _switch("rslora")] = None,
    dora: Annotated[bool | None, _switch("dora")] = None,
    learning_rate: Annotated[float | None, _set("learning_rate")] = None,
    schedule: Annotated[str | None, _set("schedule")] = None,
    warmup: Annotated[float | None, _set("warmup")] = None,
    epochs: Annotated[int | None, _set("epochs")] = None,
    steps: Annotated[int | None, _set("steps")] = None,
    batch_size: Annotated[int | None, _set("batch_size")] = None,
    gradient_accumulation: Annotated[int | None, _set("gradient_accumulation")] = None,
    max_length: Annotated[int | None, _set("max_length")] = None,
    on_overflow: Annotated[str | None, _set("on_overflow")] = None,
    packing: Annotated[bool | None, _switch("packing")] = None,
    packing_length: Annotated[int | None, _set("packing_length")] = None,
    precision: Annotated[str | None, _set("precision")] = None,
    attention: Annotated[str | None, _set("attention")] = None,
    kernels: Annotated[bool | None, _switch("kernels")] = None,
    gradient_checkpointing: Annotated[bool | None, _switch("gradient_checkpointing")] = None,
    evaluate_every: Annotated[float | None, _set("evaluate_every")] = None,
    early_stopping: Annotated[int | None, _set("early_stopping")] = None,
    keep: Annotated[str | None, _set("keep")] = None,
    chat_template: Annotated[str | None, _set("chat_template")] = None,
    question_variants: Annotated[int | None, _set("question_variants")] = None,
    seed: Annotated[int | None, _set("seed")] = None,
    save_every: Annotated[float | None, _set("save_every")] = None,
    report_to: Annotated[list[str] | None, _set("report_to")] = None,
    hourly_price: Annotated[float | None, _set("hourly_price")] = None,
    launcher: Annotated[str | None, _set("launcher")] = None,
    accelerate_config: Annotated[Path | None, _set("accelerate_config")] = None,
    processes: Annotated[int | None, _set("processes")] = None,
    threads: Annotated[int | None, _set("threads")] = None,
    quiet: Quiet = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Tune a student on the run's dataset, or on other data."""
    given = {name: value for name, value in locals().items() if name in TuneConfig.model_fields}
    flags = {("from" if name == "from_" else name): value for name, value in given.items() if value not in (None, [])}
    settings = _settings(flags, config, run)
    target = Run.create(run) if settings.data or settings.mix else Run.open(run)
    keep_silent(target.path)
    if preflight:
        _preflight(target, settings, heldout, as_json=as_json)
    elif settings.launcher == "accelerate" and running_processes() == 1:
        from tune.launch import launch

        raise typer.Exit(launch(target.path, sys.argv[1:], settings))
    elif settings.folds is not None and settings.fold is None:
        _folds(target, settings, heldout, quiet=quiet, as_json=as_json)
    else:
        _train(target, settings, heldout, quiet=quiet, as_json=as_json)


def _settings(flags: dict[str, Any], config: Path | None, run: Path) -> TuneConfig:
    """Join the bundled student's settings where it is taken, the config file's and the flags."""
    table = dict(read_config(config).get("sft", {})) if config else {}
    bundled: dict[str, Any] = {}
    parent = flags.get("from") or table.get("from")
    student = flags.get("student") or table.get("student")
    if parent is not None and student is None:
        from tune.lineage import student_of

        student = student_of(Run.open(run), parent)
    if (student or BUNDLED) == BUNDLED:
        bundled = dict(read_config(resource("demo", "demo.toml")).get("sft", {}))
        if parent is not None:
            bundled = {name: value for name, value in bundled.items() if name not in _OF_PARENT}
    if "target_modules" in flags and "," in flags["target_modules"]:
        flags["target_modules"] = flags["target_modules"].split(",")
    return build(TuneConfig, bundled, table, flags, where="sft")


def _preflight(run: Run, settings: TuneConfig, heldout: Path | None, *, as_json: bool) -> None:
    from tune.preview import preflight_view
    from tune.sft import check  # torch and TRL load here, not with `tune --help`.

    found = check(run, settings, heldout=heldout)
    if as_json:
        print_json({"run": str(run.path), "candidate": found.candidate, **found.to_json()})
    else:
        for note in found.notes:
            notice(note)
        stdout.print(preflight_view(found.preflight, found.student))
        if found.setup is not None:
            stdout.print(found.setup.said(), markup=False)
        if found.memory is not None:
            stdout.print(found.memory.table())
            stdout.print(found.memory.said(), markup=False)
    found.preflight.raise_if_faulty()


def _train(run: Run, settings: TuneConfig, heldout: Path | None, *, quiet: bool, as_json: bool) -> None:
    from tune.sft import train

    with TrainingView(quiet=quiet or not is_main()) as view:
        try:
            result = train(run, settings, heldout=heldout, on_progress=view, on_message=notice)
        except SynthError:
            if not is_main():
                # The first process, which most often meets the same, is the one that tells the user; where another ends
                # before it, it is stopped before it can.
                time.sleep(_FIRST_WORD)
            raise
    if not is_main():
        return
    if as_json:
        print_json({"run": str(run.path), "sft": result})
        return
    _print(result)
    # Without a dataset and passages of its own the run has nothing for the other contenders.
    alone = "" if run.train_path.is_file() else " --contenders base,tuned --must-beat base"
    stdout.print(f"Next: tune validate {run.path} --heldout FILE{alone}", markup=False)


def _folds(run: Run, settings: TuneConfig, heldout: Path | None, *, quiet: bool, as_json: bool) -> None:
    from tune.folds import train_folds

    if settings.launcher != "none":
        raise ConfigError("folds are trained one by one", where="--launcher", fix="start each with --fold N")
    with TrainingView(quiet=quiet) as view:

        def show(fold: int, now: "Progress") -> None:
            view(now)

        folds = train_folds(run, settings, heldout=heldout, on_progress=show, on_message=notice)
    if as_json:
        print_json({"run": str(run.path), "folds": folds.to_json()})
        return
    for student in folds.students:
        _print(student)
    stdout.print(
        f"Validation loss over {len(folds.students)} folds: {folds.mean:.3f} on average, spread {folds.spread:.3f} "
        "(standard deviation)",
        markup=False,
    )


def _print(result: "StudentResult") -> None:
    done = "trained" if result.trained else "was finished: nothing was trained again"
    stdout.print(f"Candidate {result.candidate} ({done}) in {result.path}", markup=False)
    validation = "" if result.validation_loss is None else f", on validation {result.validation_loss:.3f}"
    kept = "" if result.kept_step == result.steps else f" The weights are those after step {result.kept_step}."
    stdout.print(
        f"{result.steps} steps in {result.seconds:.0f} s; loss {result.train_loss:.3f} on training rows{validation}."
        f"{kept}",
        markup=False,
    )
