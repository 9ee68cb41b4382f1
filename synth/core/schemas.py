"""JSON Schemas: the contracts in files that any language reads."""

from collections.abc import Mapping
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


def without_notes(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return `schema` as it goes to the server: without what is only for people to read."""
    return {key: value for key, value in schema.items() if key not in {"$schema", "$id", "title", "description"}}


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


def fault_of(value: Any, schema: Mapping[str, Any]) -> str | None:  # noqa: ANN401  (any JSON)
    """Return the first fault of `value` under a schema that is used once, or None where there is none."""
    return None if _plainly_valid(value, schema) else first_fault(value, Draft202012Validator(dict(schema)))


# The keywords that `_plainly_valid` understands; those that only describe are among them.
_PLAIN = frozenset(
    ("type", "enum", "const", "minLength", "maxLength", "minimum", "maximum", "properties", "required")
    + ("additionalProperties", "items", "minItems", "maxItems", "title", "description", "$schema", "$id")
)
_TYPES: Mapping[str, type] = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}


def _plainly_valid(value: Any, schema: Mapping[str, Any]) -> bool:  # noqa: ANN401  (any JSON)
    """Whether the schema surely accepts `value`; jsonschema decides the rest.

    jsonschema takes 0.1 ms and more for a reply, this some microseconds, and nearly all replies are plain.
    """
    if not isinstance(schema, Mapping) or not isinstance(schema.get("type"), str):
        return False  # a boolean, or a list of types
    if not schema.keys() <= _PLAIN or type(value) is not _TYPES.get(schema.get("type", "")):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if "const" in schema and value != schema["const"]:
        return False
    if type(value) is str:
        return bool(schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)))
    if type(value) is int:
        return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))
    if type(value) is list:
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            return False
        return "items" not in schema or all(_plainly_valid(item, schema["items"]) for item in value)
    if type(value) is dict:
        properties = schema.get("properties", {})
        return value.keys() <= properties.keys() and all(
            _plainly_valid(value[name], properties[name]) if name in value else name not in schema.get("required", ())
            for name in {*properties, *schema.get("required", ())}
        )
    return True


def check(value: Any, name: str, *, where: str) -> None:  # noqa: ANN401  (any JSON)
    """Raise a RecordError at `where` unless `value` is what schemas/`name`.schema.json says."""
    fault = first_fault(value, validator(name))
    if fault is not None:
        raise RecordError(fault, where=where, fix=f"see schemas/{name}.schema.json")
