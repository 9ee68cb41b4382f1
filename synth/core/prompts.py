"""Prompt templates: Jinja in prompts/, in a sandbox, with front matter that says what they are for.

A template is a text file. Its front matter (YAML between two lines of `---`) may name a `schema` in
schemas/, the `kind` of record, and a `system` message; its body is the user message. Values such as a
passage's text are data: they are never rendered as templates themselves, they cannot close the tag that
the filter `fence` puts around them, and the control tokens of chat templates in them are made harmless.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import StrictUndefined, Template, TemplateError, UndefinedError, pass_context
from jinja2.runtime import Context
from jinja2.sandbox import SandboxedEnvironment

from synth.core.errors import ConfigError, did_you_mean
from synth.core.records import Message
from synth.core.resources import resource

# What a tokenizer would read as a turn's end or begin, wherever it stands in a message.
_CONTROL = re.compile(
    r"<(?=[|｜][^|｜\s<>]{1,64}[|｜]>)|<(?=/?(?:s|think|bos|eos|pad|unk|start_of_turn|end_of_turn)>)|<(?=</?SYS>>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CALLS)\])"
)
_TEXTS = ("kind", "system", "items")
_HELD = "texts that hold a tag's beginning"


@pass_context
def _fence(context: Context, text: str, tag: str = "passage") -> str:
    """Return `text` between two tags that no value of the template can close or open."""
    return fence(text, *context[_HELD], tag=tag)


def fence(text: str, *beside: str, tag: str = "passage") -> str:
    """Return `text` as data for a prompt: between two tags that it cannot close, its control tokens harmless.

    Args:
        text: a passage, say.
        beside: what else of other people's stands in the prompt and must not hold the tag either.
        tag: the tag's name, where it is free; else a longer one.
    """
    data = harmless(text)
    name = free_tag(tag, [data, *beside])
    return f"<{name}>\n{data}\n</{name}>"


def free_tag(tag: str, texts: Iterable[str]) -> str:
    """Return `tag`, or a longer name made from it, such that no text holds `<name` or `</name`, in any case or spacing.

    The longer name depends on the texts alone, so the same values give the same prompt.
    """
    held = [text for text in texts if "<" in text]
    name, seed = tag, ""
    while any(re.search(rf"<[\s/]*{re.escape(name)}", text, re.IGNORECASE) for text in held):
        seed = hashlib.sha256("\n".join([seed, *held]).encode()).hexdigest()
        name = f"{tag}-{seed[:8]}"
    return name


def harmless(text: str) -> str:
    """Return `text` with a space inside each control token of a chat template, such as `<|im_end|>`.

    Servers turn such tokens in a message into the real ones, which would let a document end its turn.
    """
    return _CONTROL.sub(r"\g<0> ", text) if "<" in text or "[" in text else text


def _as_data(value: object, held: list[str]) -> object:
    """Return a value for a template, its texts harmless, and note in `held` those that could close a tag."""
    if isinstance(value, str):
        if "<" not in value and "[" not in value:
            return value
        text = harmless(value)
        if "<" in text:
            held.append(text)
        return text
    if isinstance(value, Mapping):
        return {key: _as_data(part, held) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _as_data(value._asdict(), held)
    if isinstance(value, list | tuple):
        return [_as_data(part, held) for part in value]
    return value


_ENVIRONMENT = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True)
_ENVIRONMENT.filters["fence"] = _fence


@cache
def _compiled(body: str) -> Template:
    """Return a template ready to render: compiling takes milliseconds, rendering a few microseconds."""
    return _ENVIRONMENT.from_string(body)


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A template with its front matter. `sha256` changes with any edit of the file.

    `schema` is a name in schemas/, a file beside the template, or the schema itself; `items` says where in the
    reply the list of pairs is, and `record` which field of a pair is the question, the answer and the evidence.
    """

    name: str
    body: str
    sha256: str
    schema: str | Mapping[str, Any] | None = None
    kind: str = "qa"
    system: str | None = None
    items: str | None = None
    record: Mapping[str, str] = field(default_factory=dict)

    def render(self, **values: object) -> str:
        """Return the body with `values` put in, without the space around it.

        Raises:
            ConfigError: the template asks for a value that is not given, or is not valid Jinja.
        """
        try:
            held: list[str] = []
            given = {name: _as_data(value, held) for name, value in values.items()}
            given[_HELD] = held
            return _compiled(self.body).render(**given).strip()
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
        ConfigError: the file cannot be read, the front matter is not YAML, or it has a key or a value that means
            nothing.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read ({error})", where=str(path)) from error
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
    _check_front(front, path)
    return PromptTemplate(name=path.name, body=body, sha256=hashlib.sha256(text.encode()).hexdigest(), **front)


def _check_front(front: Mapping[Any, Any], path: Path) -> None:
    known = ("schema", *_TEXTS, "record")
    parts = ("question", "answer", "evidence")
    for key, value in front.items():
        if key not in known:
            raise ConfigError(f"front matter has {key!r}", where=str(path), fix=did_you_mean(str(key), known))
        if key in _TEXTS and not (isinstance(value, str) and value.strip()):
            raise ConfigError(f"{key!r} of the front matter is no text", where=str(path))
    if not isinstance(front.get("schema", ""), str | dict):
        raise ConfigError("'schema' is neither a name nor a mapping", where=str(path))
    record = front.get("record", {})
    if not isinstance(record, dict) or not all(isinstance(value, str) for value in record.values()):
        raise ConfigError("'record' is no mapping of texts", where=str(path), fix=f"keys: {', '.join(parts)}")
    for key in record:
        if key not in parts:
            raise ConfigError(f"'record' has {key!r}", where=str(path), fix=did_you_mean(str(key), parts))


def render(name: str, **values: object) -> str:
    """Return the body of prompts/`name`.md with `values` put in."""
    return load_template(name).render(**values)
