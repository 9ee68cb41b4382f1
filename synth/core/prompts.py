"""Prompt templates: Jinja in prompts/, in a sandbox, with front matter that says what they are for.

A template is a text file. Its front matter (YAML between two lines of `---`) may name a `schema` in
schemas/, the `kind` of record, and a `system` message; its body is the user message. Values such as a
passage's text are data: they are never rendered as templates themselves.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import StrictUndefined, TemplateError, UndefinedError
from jinja2.sandbox import SandboxedEnvironment

from synth.core.errors import ConfigError, did_you_mean
from synth.core.records import Message
from synth.core.resources import resource

_ENVIRONMENT = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True)
_FIELDS = ("schema", "kind", "system")


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A template with its front matter. `sha256` changes with any edit of the file."""

    name: str
    body: str
    sha256: str
    schema: str | None = None
    kind: str = "qa"
    system: str | None = None

    def render(self, **values: object) -> str:
        """Return the body with `values` put in, without the space around it.

        Raises:
            ConfigError: the template asks for a value that is not given, or is not valid Jinja.
        """
        try:
            return _ENVIRONMENT.from_string(self.body).render(**values).strip()
        except UndefinedError as error:
            raise ConfigError(
                f"{error.message}",
                where=f"prompts/{self.name}",
                fix=f"values given: {', '.join(sorted(values))}",
            ) from error
        except TemplateError as error:
            raise ConfigError(f"not a valid template ({error})", where=f"prompts/{self.name}") from error

    def messages(self, **values: object) -> tuple[Message, ...]:
        """Return the system message, where there is one, and the rendered user message."""
        user = Message("user", self.render(**values))
        return (Message("system", self.system.strip()), user) if self.system else (user,)


@cache
def load_template(name: str) -> PromptTemplate:
    """Return the template prompts/`name`.md."""
    return read_template(resource("prompts", f"{name}.md"))


def read_template(path: Path) -> PromptTemplate:
    """Read a template file.

    Raises:
        ConfigError: the front matter is not YAML, or has a key that means nothing.
    """
    text = path.read_text(encoding="utf-8")
    front: Any = {}
    body = text
    if text.startswith("---\n"):
        head, closed, body = text[4:].partition("\n---\n")
        try:
            front = yaml.safe_load(head) if closed else None
        except yaml.YAMLError as error:
            raise ConfigError(f"front matter is not YAML ({error})", where=str(path)) from error
        if not isinstance(front, dict):
            raise ConfigError("front matter is not closed or not a mapping", where=str(path), fix="end it with ---")
    for key in front:
        if key not in _FIELDS:
            raise ConfigError(f"front matter has {key!r}", where=str(path), fix=did_you_mean(key, _FIELDS))
    return PromptTemplate(name=path.name, body=body, sha256=hashlib.sha256(text.encode()).hexdigest(), **dict(front))


def render(name: str, **values: object) -> str:
    """Return the body of prompts/`name`.md with `values` put in."""
    return load_template(name).render(**values)
