"""The error tree.

SynthError            anything this project raises on purpose; the CLI prints it without a traceback
├── ConfigError       a flag, a config file or a name is wrong (exit code 2)
├── DocumentError     a document cannot be read
├── RecordError       a line of a JSONL file or a held-out file is wrong
├── InferenceError    a server or an endpoint failed
│   └── RefusedError  the endpoint answered, and refuses this one request
└── RunError          a run directory is missing, locked, full or inconsistent
"""

import difflib
from collections.abc import Iterable
from typing import ClassVar


class SynthError(Exception):
    """What went wrong, where, and the fix, in one line for a person.

    Args:
        what: the fault in plain words.
        where: a file, a line (`records.jsonl:812`), a URL or a flag.
        fix: what the reader can do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(what)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}; {self.fix}" if self.fix else text


class ConfigError(SynthError):
    """A flag, a config file or a name that the user gave is wrong."""

    exit_code = 2


class DocumentError(SynthError):
    """A document cannot be read; the job goes on without it."""


class RecordError(SynthError):
    """A line of a JSONL or held-out file is not what its schema says."""


class InferenceError(SynthError):
    """A model server or an endpoint did not do its work."""


class RefusedError(InferenceError):
    """The endpoint answered and refuses this request; asking again would not change it, and other requests may pass."""


class RunError(SynthError):
    """A run directory is missing, locked, full or inconsistent."""


class Interrupted(RunError):
    """The user stopped a stage before its end; what was answered is kept."""

    exit_code = 130


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the fix for an unknown name: its near matches, or else all the known ones."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"known: {', '.join(names)}" if names else "none is known"
