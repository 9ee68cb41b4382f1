"""`tune export` and `tune push`: a candidate leaves its run."""

from pathlib import Path
from typing import Annotated

import typer

from synth.core.config import build, read_config
from synth.core.console import AsJson, ConfigFile, notice, print_json, progress, setting, stdout
from tune.export_config import ExportConfig

Source = Annotated[
    Path, typer.Argument(metavar="RUN", help="The run's folder, or a candidate's in it.", show_default=False)
]


def export_command(
    run: Source,
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="The folder to make.", show_default=False)],
    candidate: Annotated[str | None, setting(ExportConfig, "candidate")] = None,
    merge: Annotated[bool | None, setting(ExportConfig, "merge", "--merge")] = None,
    dtype: Annotated[str | None, setting(ExportConfig, "dtype")] = None,
    quantize: Annotated[str | None, setting(ExportConfig, "quantize")] = None,
    gguf_type: Annotated[str | None, setting(ExportConfig, "gguf_type")] = None,
    llama_cpp: Annotated[Path | None, setting(ExportConfig, "llama_cpp")] = None,
    quantize_python: Annotated[Path | None, setting(ExportConfig, "quantize_python")] = None,
    parity: Annotated[bool | None, setting(ExportConfig, "parity", "--parity/--no-parity")] = None,
    vllm_arg: Annotated[
        list[str] | None, typer.Option("--vllm-arg", help="Passed through to the vLLM server. May be repeated.")
    ] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a model folder of a tuned student: merged, checked, quantized."""
    from tune.export import export  # loads what serves and asks, which `tune --help` should not wait for

    flags = {
        "candidate": candidate,
        "merge": merge,
        "dtype": dtype,
        "quantize": quantize,
        "gguf_type": gguf_type,
        "llama_cpp": llama_cpp,
        "quantize_python": quantize_python,
        "parity": parity,
    }
    table = read_config(config).get("export", {}) if config else {}
    settings = build(ExportConfig, table, flags, where="export")
    with progress() as bars:
        task = bars.add_task("export", total=None, note="")
        done = export(
            run, to, settings, server_args=vllm_arg or [], on_progress=lambda text: bars.update(task, note=text)
        )
    for note in done.notes:
        notice(note)
    if as_json:
        print_json({"export": {"path": done.path, "candidate": done.candidate, "dtype": done.dtype,
                               "parity": [one.to_json() for one in done.parity]}})  # fmt: skip
        return
    stdout.print(f"Candidate {done.candidate} in {done.path}", markup=False)
    for one in done.parity:
        stdout.print(f"{one}", markup=False)
        if one.first_difference is not None:
            first = one.first_difference
            stdout.print(
                f"First difference: to {first.prompt!r}, {first.candidate!r} became {first.exported!r}", markup=False
            )


def push_command(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="The run's folder, a candidate's, or an exported one.", show_default=False),
    ],
    to: Annotated[str, typer.Option("--to", metavar="OWNER/NAME", help="The model on the hub.", show_default=False)],
    candidate: Annotated[
        str | None, typer.Option("--candidate", help="The candidate under students/. Default: the last one.")
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Make the model private; one that is public is refused.")
    ] = False,
    revision: Annotated[str | None, typer.Option("--revision", help="The branch. Default: main.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent, and send nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Upload a tuned student, or an exported one, to the hub."""
    from tune.push import check_repo, pack, push

    if not dry_run:
        check_repo(to)
    parcel = pack(run, candidate)
    for name, size in parcel.files.items():
        notice(f"{size:>14,}  {name}")
    if parcel.left:
        notice(f"left here, no part of it: {', '.join(parcel.left)}")
    if dry_run:
        if as_json:
            print_json({"push": {"repo": to, "files": dict(parcel.files), "left": parcel.left}})
        else:
            stdout.print(f"{len(parcel.files)} files, {parcel.size:,} bytes would be sent", markup=False)
        return
    with progress() as bars:
        task = bars.add_task("push", total=None, note="")
        done = push(
            parcel, to, private=private, revision=revision, on_progress=lambda text: bars.update(task, note=text)
        )
    if as_json:
        print_json({"push": done})
    else:
        stdout.print(f"Pushed: {done.url}", markup=False)


def register(app: typer.Typer) -> None:
    """Add `export` and `push` to a command line."""
    app.command("export")(export_command)
    app.command("push")(push_command)
