"""`synth export`: the dataset in the format of another tool."""

from pathlib import Path
from typing import Annotated

import typer

from synth.core.config import build
from synth.core.console import AsJson, RunFolder, notice, print_json, setting, stdout
from synth.core.runs import Run
from synth.export import ExportConfig, ExportSummary, run_export


def export_command(
    run: RunFolder,
    format: Annotated[str, setting(ExportConfig, "format", "--format")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Where to. [default: RUN/exports/<format>]")
    ] = None,
    split: Annotated[list[str] | None, setting(ExportConfig, "split")] = None,
    scores: Annotated[bool | None, setting(ExportConfig, "scores", "--scores/--no-scores")] = None,
    licence: Annotated[str | None, setting(ExportConfig, "licence")] = None,
    language: Annotated[list[str] | None, setting(ExportConfig, "language")] = None,
    title: Annotated[str | None, setting(ExportConfig, "title")] = None,
    mask_pii: Annotated[bool | None, setting(ExportConfig, "mask_pii", "--mask-pii")] = None,
    repo: Annotated[str | None, setting(ExportConfig, "repo")] = None,
    private: Annotated[bool | None, setting(ExportConfig, "private", "--private")] = None,
    max_shard_mb: Annotated[int | None, setting(ExportConfig, "max_shard_mb")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the dataset in another tool's format, with a dataset card, or push it to the hub."""
    target = Run.open(run)
    chosen = tuple(split) if split and "all" not in split else None
    flags = {
        "format": format,
        "split": chosen,
        "scores": scores,
        "licence": licence,
        "language": tuple(language) if language else None,
        "title": title,
        "mask_pii": mask_pii,
        "repo": repo,
        "private": private,
        "max_shard_mb": max_shard_mb,
    }
    summary = run_export(target, build(ExportConfig, flags, where="export"), out)
    if as_json:
        print_json({"run": str(target.path), "export": summary})
    else:
        show_export(summary)


def show_export(summary: ExportSummary) -> None:
    """Print what was written, and on stderr what a reader may not expect."""
    for split, rows in summary.rows.items():
        stdout.print(f"{rows} {split} rows", markup=False)
    stdout.print(f"{len(summary.files)} files and the card {summary.card} in {summary.folder}", markup=False)
    if summary.url:
        stdout.print(f"Pushed: {summary.url}", markup=False)
    if summary.masked is not None:
        stdout.print(f"{summary.masked} rows have masked values", markup=False)
    for split in summary.empty:
        notice(f"The dataset has no {split} rows, so there is no file of them.")
    if summary.with_history:
        notice(
            f"{summary.with_history} rows are the last turn of a conversation: the earlier turns are in the column "
            "`history`, which LLaMA-Factory reads and other readers of alpaca rows ignore."
        )
