"""Replies for a `ScriptedTeacher` that follow the schema of each call, whatever the generator."""

import json
from collections.abc import Mapping
from typing import Any

from synth import ChatRequest


def schema_reply(request: ChatRequest) -> str:
    """Return the smallest reply that the call's schema accepts: first choices, shortest lists, a word a text."""
    assert request.schema is not None
    return json.dumps(smallest(request.schema, "reply"))


def smallest(schema: Mapping[str, Any], name: str, place: int = 0) -> Any:  # noqa: ANN401  (any JSON)
    """Return a small value that `schema` accepts; texts hold their field's name and place."""
    if "enum" in schema:
        return schema["enum"][place % len(schema["enum"])]
    match schema["type"]:
        case "object":
            return {key: smallest(part, key, place) for key, part in schema["properties"].items()}
        case "array":
            return [smallest(schema["items"], name, i) for i in range(max(1, schema.get("minItems", 0)))]
        case "integer":
            return schema.get("minimum", 0)
        case "boolean":
            return False
        case _:
            return f"{name} {place}"
