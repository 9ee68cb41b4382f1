"""How a command line begins and ends: the exit code, and errors without a traceback."""

import sys
from typing import TYPE_CHECKING, NoReturn

from synth.core.errors import SynthError

if TYPE_CHECKING:
    import typer


_INTERRUPTED = 130


def _interrupted(name: str) -> NoReturn:
    sys.stderr.write(f"{name}: interrupted; run the same command again to go on\n")
    sys.exit(_INTERRUPTED)


def run_app(app: "typer.Typer", name: str) -> None:
    """Run a command line and end the process with its exit code: 0, 1, 2, 3 or 130."""
    try:
        app()
    except SynthError as error:
        # Imported here: rich takes longer than `--help` may.
        from synth.core.console import stderr

        stderr.print(f"[bold red]{name}:[/] ", end="")
        stderr.print(str(error), markup=False)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _interrupted(name)
    except SystemExit as ended:
        # Newer versions of typer turn Ctrl-C into this, without a word.
        if ended.code != _INTERRUPTED:
            raise
        _interrupted(name)
    except BrokenPipeError:
        sys.exit(1)
