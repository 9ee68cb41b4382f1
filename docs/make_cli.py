"""Write docs/cli.md from the commands themselves: `python docs/make_cli.py` (or `make docs`).

A test runs it with `--check` and fails where the page and the help texts differ.
"""

import os
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).with_name("cli.md")
COMMANDS = {
    "synth": ["generate", "filter", "calibrate", "export", "merge", "jobs", "batch export", "batch collect", "demo"],
    "tune": ["sft", "validate", "explain", "curve", "ablate", "candidates", "promote", "rollback", "export", "push"],
}


def page() -> str:
    """Return the page: the help of each command as it is printed."""
    parts = ["# The command line\n\nMade from the commands' own help by `make docs`.\n"]
    for program, commands in COMMANDS.items():
        for arguments in ([], *(command.split() for command in commands)):
            title = " ".join([program, *arguments])
            parts.append(f"## {title}\n\n```\n{_help(program, *arguments)}\n```\n")
    return "\n".join(parts)


def _help(program: str, *arguments: str) -> str:
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(
        [sys.executable, "-m", f"{program}.cli", *arguments, "--help"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    text = done.stdout.replace(f"python -m {program}.cli", program)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit("docs/cli.md is stale: run `make docs`" if PAGE.read_text() != page() else 0)
    PAGE.write_text(page())
