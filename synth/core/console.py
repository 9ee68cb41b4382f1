"""What both command lines share: errors without tracebacks, help from config docstrings, two streams.

Data goes to stdout, progress and notices to stderr.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder.", show_default=False)]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="A TOML file with a table a stage. Flags win.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress; errors and the result stay.")]

stdout = Console(soft_wrap=True, highlight=False, emoji=False)
stderr = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)


def setting(model: type[BaseModel], field: str, *flags: str) -> Any:  # noqa: ANN401  (typer's own type)
    """Return a flag whose help is the field's docstring and whose absence leaves the setting alone."""
    info = model.model_fields[field]
    text = " ".join((info.description or "").split())
    default = "" if info.is_required() or info.default is None else f" [default: {_shown(info.default)}]"
    return typer.Option(*(flags or (f"--{field.replace('_', '-')}",)), help=f"{text}{default}", show_default=False)


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def print_json(results: Mapping[str, Any]) -> None:
    """Print results as one JSON object on stdout; dataclasses are written as objects, paths as text."""
    stdout.out(orjson.dumps(results, default=str, option=orjson.OPT_INDENT_2).decode())


def notice(text: str) -> None:
    """Say something on stderr that is neither data nor an error."""
    stderr.print(text, markup=False)


@contextmanager
def progress(*, hidden: bool = False) -> Iterator[Progress]:
    """Show progress bars on stderr while the block runs; on no terminal they leave no trace."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(
        *columns,
        TimeElapsedColumn(),
        console=stderr,
        transient=True,
        disable=hidden or not stderr.is_terminal,
    ) as bars:
        yield bars


def duration(seconds: float) -> str:
    """Return a length of time in words, such as "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def size(count: float) -> str:
    """Return a number of bytes in words of three digits, such as "1.25 GiB"."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 999.5:  # At 999.6 the three digits would come out as 1e+03.
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB" if count < 999.5 else f"{count:.0f} TiB"
