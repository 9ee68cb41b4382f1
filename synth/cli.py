"""`synth`: documents in, a dataset out.

The commands are imported when they are called, so that `synth --help` is there at once. Each of them
parses, calls one library function, and prints.
"""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from synth.core.entry import run_app
from synth.core.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from typer._click import Command, Context, HelpFormatter

COMMANDS: Mapping[str, tuple[str, str]] = {
    "generate": ("synth.cli_one:generate_command", "Write pairs about DOCS, filter and split them."),
    "filter": ("synth.cli_filter:filter_command", "Decide again; no call to a teacher is repeated."),
    "export": (
        "synth.cli_export:export_command",
        "Write the dataset in another tool's format, with a dataset card, or push it to the hub.",
    ),
    "merge": (
        "synth.cli_many:merge_command",
        "Join the runs of all shards into one, then filter it: twins are found across shards.",
    ),
    "jobs": ("synth.cli_many:jobs_command", "Do a list of jobs, one after another, with one server for each teacher."),
    "batch": (
        "synth.cli_many:batch_app",
        "Ask through batch files: for `vllm run-batch` and for the batch services of hosted models.",
    ),
    "calibrate": (
        "synth.cli_calibrate:calibrate_command",
        "Choose rules that keep human pairs and reject broken ones; `synth filter --rules` takes the file.",
    ),
    "demo": ("synth.cli_one:demo_command", "Run the whole chain offline, on bundled models."),
}
"""Where each command is, and its help in one line (a test compares it with the command's own)."""


class LazyCommands(TyperGroup):
    """A group that imports a command when it is called."""

    def list_commands(self, ctx: "Context") -> list[str]:
        """Return the names in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: "Context", cmd_name: str) -> "Command":
        """Import a command.

        Raises:
            ConfigError: there is none of that name; near matches are named.
        """
        if cmd_name not in COMMANDS:
            raise ConfigError(f"no command is called {cmd_name!r}", fix=did_you_mean(cmd_name, COMMANDS))
        found: Command = command(cmd_name)
        return found

    def format_commands(self, ctx: "Context", formatter: "HelpFormatter") -> None:
        """Write the names and what they do, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def command(name: str) -> Any:  # noqa: ANN401  (typer's own type)
    """Import one of `COMMANDS`."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if isinstance(found, typer.Typer):
        return typer.main.get_command(found)
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    alone.command(name)(found)
    return typer.main.get_command(alone)


app = typer.Typer(
    name="synth",
    cls=LazyCommands,
    help="From your documents to a dataset: a teacher writes pairs, a filter decides, nothing is lost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _synth() -> None:
    """Make a group of the commands, which typer cannot see before they are imported."""


def main() -> None:
    """Run `synth`."""
    run_app(app, "synth")


if __name__ == "__main__":
    main()
