"""`persona`: whatever is asked, somebody asks it. A modifier; the persona stands in no record.

The idea is that of Persona Hub (Ge et al. 2024, "Scaling Synthetic Data Creation with 1,000,000,000 Personas").
Here it wraps the teacher that another generator sees.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synth.core.calls import Completion, Sampling, Teacher
from synth.core.errors import ConfigError
from synth.core.prompts import load_template
from synth.core.records import Message, Passage, Record
from synth.core.resources import resource
from synth.generators.base import Generator, ReplyError, pick, prepare, renamed


class Persona:
    """Has the inner generator's questions asked by a person, one for each passage, chosen by the passage alone.

    Args:
        inner: the generator that asks.
        personas: descriptions, or a file with one a line. Empty: those of prompts/personas.txt.
    """

    name = "persona"

    def __init__(self, inner: Generator, *, personas: Sequence[str] | str = ()) -> None:
        self.inner = inner
        self.personas = read_personas(Path(personas)) if isinstance(personas, str) else tuple(personas)
        if not self.personas:
            self.personas = read_personas(resource("prompts", "personas.txt"))
        self.name = f"{inner.name}+persona"

    def prepare(self, passages: Sequence[Passage]) -> None:
        """Let the inner generator see the passages."""
        prepare(self.inner, passages)

    async def generate(self, passage: Passage, teacher: Teacher) -> list[Record | ReplyError]:
        """Return what the inner generator makes of the passage when the teacher has the persona in mind.

        Raises:
            ReplyError: as the inner generator does.
        """
        template = load_template("persona")
        note = template.render(persona=self.personas[pick(passage, "persona") % len(self.personas)])
        made = await self.inner.generate(passage, _Speaker(teacher, note))
        seen = hashlib.sha256(note.encode()).hexdigest()
        return [renamed(item, self.name, seen) if isinstance(item, Record) else item for item in made]


class _Speaker:
    """A teacher whose system message has a note at its end."""

    def __init__(self, teacher: Teacher, note: str) -> None:
        self._teacher, self._note = teacher, note

    async def chat(
        self,
        messages: Sequence[Message],
        *,
        schema: Mapping[str, Any] | None = None,
        sampling: Sampling | None = None,
    ) -> Completion:
        """Ask the teacher, with the note in the system message."""
        first, rest = messages[0], list(messages[1:])
        if first.role == "system":
            noted = [Message("system", f"{first.content}\n\n{self._note}"), *rest]
        else:
            noted = [Message("system", self._note), *messages]
        return await self._teacher.chat(noted, schema=schema, sampling=sampling)


def read_personas(path: Path) -> tuple[str, ...]:
    """Return the lines of a file that are neither empty nor begin with #.

    Raises:
        ConfigError: the file cannot be read or has no persona.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the personas cannot be read ({error})", where=str(path)) from error
    found = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if not found:
        raise ConfigError("there is no persona", where=str(path), fix="write one a line")
    return found
