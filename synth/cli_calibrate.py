"""The command `synth calibrate`: thresholds from human pairs."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich.table import Table

from synth.core.console import AsJson, Quiet, notice, print_json, progress, setting, stdout
from synth.core.errors import ConfigError
from synth.core.signals import stop_on_signals
from synth.filtering.config import FilterConfig
from synth.filters.model_scorers import model_scorers

if TYPE_CHECKING:
    from synth.calibration.columns import Extra
    from synth.calibration.result import Calibration

# The table on the screen has as many scores as fit beside the names of the corruptions; the rules file has all.
_NAMES_WIDTH, _SCORE_WIDTH = 35, 15


def calibrate_command(
    human: Annotated[
        list[Path],
        typer.Option(
            "--human",
            metavar="FILE",
            help="Human questions with answers and passages: SQuAD JSON, JSONL or CSV. May be repeated.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The rules file to write.")] = Path("rules.json"),
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot", metavar="FILE", help="Where to draw the ROC curves, .png or .svg. [default: beside --out]"
        ),
    ] = None,
    no_plot: Annotated[bool, typer.Option("--no-plot", help="Draw nothing.")] = False,
    keep: Annotated[
        float, typer.Option("--keep", metavar="SHARE", help="The share of human pairs that the rules have to keep.")
    ] = 0.95,
    scorer: Annotated[
        list[str] | None,
        typer.Option(
            "--scorer",
            metavar="NAME|MODULE:NAME",
            help="A score to measure. May be repeated. [default: all that need no model]",
        ),
    ] = None,
    corruption: Annotated[
        list[str] | None,
        typer.Option(
            "--corruption", metavar="NAME", help="A corruption to measure on. May be repeated. [default: all]"
        ),
    ] = None,
    form: Annotated[
        list[str] | None,
        typer.Option(
            "--form",
            metavar="passage|sentence",
            help="How the records name their evidence: not at all, or by the sentence of the answer. May be repeated. "
            "[default: both]",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Decides the corruptions and the halves.")] = 0,
    resamples: Annotated[
        int, typer.Option("--resamples", min=100, help="Draws of documents behind each interval.")
    ] = 1000,
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge",
            metavar="MODEL|URL",
            help="A model to calibrate too: what it says in round trips and as a judge is measured on a part of the "
            "pairs, and refused where it is worse than chance.",
        ),
    ] = None,
    judge_pairs: Annotated[
        int, typer.Option("--judge-pairs", min=10, help="How many human pairs, with their corruptions, it is shown.")
    ] = 200,
    votes: Annotated[int | None, setting(FilterConfig, "votes")] = None,
    rubric: Annotated[Path | None, setting(FilterConfig, "rubric")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Choose rules that keep human pairs and reject broken ones; `synth filter --rules` takes the file."""
    from synth.calibrate import calibrate, find_corruptions
    from synth.calibration.asking import ask_model
    from synth.calibration.humans import load_humans
    from synth.calibration.plot import check_plot, plot_curves
    from synth.calibration.samples import Form, make_samples
    from synth.calibration.scorers import allow_modules_here, find_scorers

    allow_modules_here()
    forms = tuple(dict.fromkeys(form or get_args(Form)))
    if unknown := [name for name in forms if name not in get_args(Form)]:
        raise ConfigError(f"no form is called {unknown[0]!r}", where="--form", fix="take passage or sentence")
    picture = None if no_plot else (plot or out.with_suffix(".png"))
    if picture is not None:
        check_plot(picture)
    humans = load_humans(human)
    samples = make_samples(humans, corruptions=find_corruptions(corruption or ()), forms=forms, seed=seed)
    extra = None
    if judge is not None:
        scorers = model_scorers(("round_trip", "judge"), votes=votes or 1, rubric=rubric)
        say = (lambda text: None) if quiet else notice

        async def ask() -> "Extra":
            folder = out.with_name(f"{out.name}.judge")
            with stop_on_signals(say) as stop:
                return await ask_model(
                    samples, judge, scorers, pairs=judge_pairs, seed=seed, folder=folder, stop=stop, say=say
                )

        extra = asyncio.run(ask())
    with progress(hidden=quiet) as bars:
        task = bars.add_task("scoring", total=None, note="")
        found = calibrate(
            humans,
            samples=samples,
            extra=extra,
            scorers=find_scorers(scorer) if scorer else None,
            corruptions=tuple(corruption or ()),
            forms=forms,
            keep=keep,
            seed=seed,
            resamples=resamples,
            watch=lambda done, total: bars.update(task, completed=done, total=total, note=f"{done} of {total} records"),
        )
    found.file.write(out)
    if picture is not None:
        plot_curves(found, picture)
    if as_json:
        print_json({"out": str(out), "plot": None if picture is None else str(picture), **found.to_json()})
        return
    show_calibration(found)
    if not quiet:
        stdout.print(f"Written: {out}" + (f" and {picture}" if picture else ""), markup=False)
        stdout.print(f"Next: synth filter RUN --rules {out}", markup=False)


def show_calibration(found: "Calibration") -> None:
    """Print the AUC of each score on each corruption, the rules, and what they keep and reject."""
    file = found.file
    for form in file.forms:
        stdout.print(auc_table(found, form))
    for refusal in file.refused:
        notice(f"{refusal}.")
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column()
    table.add_column()
    for rule in file.rules:
        table.add_row("rule", str(rule))
    if not file.rules:
        table.add_row("rule", "none: no score rejects broken pairs and keeps enough of the human ones")
    kept = file.kept
    checked = "no document was left to check with" if kept.check is None else f"{kept.check:.1%} of the others"
    table.add_row(
        "kept", f"{kept.all:.1%} of the human pairs (chosen on {kept.search:.1%}; before loosening {checked})"
    )
    table.add_row("rejected", ", ".join(f"{name} {share:.0%}" for name, share in file.rejected.items()))
    if found.combined_auc is not None:
        verdict = "is used" if file.combined else "is not used"
        table.add_row(
            "combined",
            f"{verdict}: mean AUC {found.combined_auc:.3f}, {found.best_single} has {found.best_single_auc:.3f}",
        )
    skipped = {name: count for name, count in found.skipped.items() if count}
    if skipped:
        table.add_row("not spoiled", ", ".join(f"{name} {count}" for name, count in skipped.items()) + " pairs")
    stdout.print(table)


def auc_table(found: "Calibration", form: str) -> Table:
    """Return the table of AUCs in a form: a row a corruption, a column a score, the most useful ones."""
    cells = {(c.corruption, c.score): c for c in found.file.table if c.form == form}
    corruptions = list(dict.fromkeys(corruption for corruption, _ in cells))
    fitting = max(3, (stdout.width - _NAMES_WIDTH) // _SCORE_WIDTH)
    scores = useful_scores(found, form)[:fitting]
    refused = {(r.score, r.corruption) for r in found.file.refused if r.form == form}
    table = Table(
        title=f"ROC AUC, evidence: {'none' if form == 'passage' else 'the sentence'}", pad_edge=False, box=None
    )
    table.add_column("corruption", no_wrap=True)
    table.add_column("pairs", justify="right")
    for score in scores:
        table.add_column(score, justify="right", no_wrap=True)
    for corruption in corruptions:
        row = [cells.get((corruption, score)) for score in scores]
        count = max(cell.spoiled for (name, _), cell in cells.items() if name == corruption)
        table.add_row(
            corruption,
            str(count),
            *("-" if c is None else f"{c.auc:.3f}{'!' if (c.score, corruption) in refused else ''}" for c in row),
        )
    return table


def useful_scores(found: "Calibration", form: str) -> list[str]:
    """Return the scores, those first that do best on the corruption that they do best on."""
    from synth.filters.rules_file import COMBINED

    best: dict[str, float] = {}
    for cell in found.file.table:
        if cell.form == form:
            best[cell.score] = max(best.get(cell.score, 0.0), cell.auc)
    return sorted(best, key=lambda score: (score != COMBINED, -best[score], score))
