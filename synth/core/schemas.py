"""JSON Schemas: the contracts in files that any language reads."""

from functools import cache
from typing import Any

import orjson
from jsonschema import Draft202012Validator
from jsonschema.protocols import Validator

from synth.core.errors import RecordError
from synth.core.resources import resource


@cache
def load_schema(name: str) -> dict[str, Any]:
    """Return the schema schemas/`name`.schema.json. Do not change the returned value: it is shared."""
    schema: dict[str, Any] = orjson.loads(resource("schemas", f"{name}.schema.json").read_bytes())
    return schema


@cache
def validator(name: str) -> Validator:
    """Return a compiled validator for schemas/`name`.schema.json."""
    schema = load_schema(name)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def first_fault(value: Any, schema: Validator) -> str | None:  # noqa: ANN401  (any JSON)
    """Return the first fault of `value` in words, with the path to it, or None where there is none."""
    fault = min(schema.iter_errors(value), key=lambda e: list(map(str, e.absolute_path)), default=None)
    if fault is None:
        return None
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault.absolute_path)
    message = fault.message if len(fault.message) < 200 else f"{fault.message[:200]}…"
    return f"{path.lstrip('.')!r}: {message}" if path else message


def check(value: Any, name: str, *, where: str) -> None:  # noqa: ANN401  (any JSON)
    """Raise a RecordError at `where` unless `value` is what schemas/`name`.schema.json says."""
    fault = first_fault(value, validator(name))
    if fault is not None:
        raise RecordError(fault, where=where, fix=f"see schemas/{name}.schema.json")
