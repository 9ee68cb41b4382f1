"""What a generator's records depend on beside the documents and the teacher, as one digest."""

import hashlib
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synth.core.fingerprint import canonical_json
from synth.core.prompts import PromptTemplate
from synth.core.resources import resource_folder
from synth.generators.base import Generator


def generator_digest(generator: Generator) -> str:
    """Return a SHA-256 that changes with a generator's options, its templates and schemas, and a user's own code.

    So a run whose rubric, template or generator was edited is not taken for finished. What is asked as before comes
    from the journal.
    """
    return hashlib.sha256(canonical_json(_content(generator))).hexdigest()


def _content(value: object) -> Any:  # noqa: ANN401  (any JSON)
    """Return what a value means as JSON; of a generator, its class, that class's code and its public attributes."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int | float):
        return repr(value)  # JSON has no form for large or infinite ones
    if isinstance(value, Mapping):
        return {str(key): _content(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_content(part) for part in value]
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    if isinstance(value, PromptTemplate):
        return value.sha256
    cls = type(value)
    if not (hasattr(value, "generate") or hasattr(value, "parse")):
        # Whatever a generator carries along; it may be large or hold itself.
        return cls.__qualname__
    own = getattr(value, "__dict__", {})
    attributes = {
        name: _content(part) if part is not value else "itself"
        for name, part in sorted(own.items())
        if not name.startswith("_")
    }
    return [cls.__qualname__, _code(cls), attributes]


def _code(cls: type) -> str:
    """Return a digest of the file that a class is in; of one of this package, of the templates and schemas it reads."""
    if cls.__module__.startswith("synth."):
        files = [path for kind in ("prompts", "schemas") for path in resource_folder(kind).iterdir() if path.is_file()]
    else:
        try:
            files = [Path(inspect.getfile(sys.modules[cls.__module__]))]
        except (KeyError, TypeError):
            # A class of an interactive session has no file.
            return ""
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
