"""`tune`: a dataset in, a tuned student and a verdict out. Each command parses, calls one library function, prints."""

import typer

from synth.core.entry import run_app
from tune.cli_curve import register as register_curve
from tune.cli_export import register as register_export
from tune.cli_registry import register as register_registry
from tune.cli_sft import sft_command
from tune.cli_validate import validate_command

app = typer.Typer(
    name="tune",
    help="From a dataset to a student, and from a student to a verdict on held-out questions.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.command("sft")(sft_command)
app.command("validate")(validate_command)
register_export(app)
register_registry(app)
register_curve(app)


def main() -> None:
    """Run `tune`."""
    run_app(app, "tune")


if __name__ == "__main__":
    main()
