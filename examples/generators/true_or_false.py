"""A generator of one call: what to ask, and what to make of the reply.

    synth generate manuals/ --teacher Qwen/Qwen3-4B --generator examples/generators/true_or_false.py:TrueOrFalse

`prompt` returns the user message (or a list of messages), `parse` the records. With a `schema` the reply is
parsed JSON that follows it; without one it would be the text. A ValueError of `parse` puts the reply into
quarantine.jsonl. Everything else is the runtime's.
"""

from collections.abc import Iterable
from typing import Any

from synth import Passage, Record, fence


class TrueOrFalse:
    """Writes statements to be judged, half of them wrong."""

    name = "true-or-false"
    max_tokens = 400
    schema = {
        "type": "object",
        "properties": {
            "statements": {
                "type": "array",
                "minItems": 2,
                "maxItems": 4,
                "items": {
                    "type": "object",
                    "properties": {
                        "quote": {"type": "string", "minLength": 1, "maxLength": 300},
                        "statement": {"type": "string", "minLength": 1, "maxLength": 200},
                        "true": {"type": "boolean"},
                    },
                    "required": ["quote", "statement", "true"],
                    "additionalProperties": False,
                },
            }
        },
        "required": ["statements"],
        "additionalProperties": False,
    }

    def prompt(self, passage: Passage) -> str:
        """Ask for statements about the passage."""
        return (
            f"{fence(passage.text)}\n\n"
            "Write two to four statements about what the passage says, half of them wrong in one detail. "
            "Quote the sentence that decides first. Each statement makes sense without the passage."
        )

    def parse(self, passage: Passage, reply: Any) -> Iterable[Record]:  # noqa: ANN401  (what the schema says)
        """Turn each statement into a question whose answer is the sentence that decides."""
        statements = reply["statements"]
        if len({one["true"] for one in statements}) < 2:
            raise ValueError("the statements are all true or all false")
        for one in statements:
            yield Record.create(
                passage,
                f"True or false: {one['statement']}",
                f"{'True' if one['true'] else 'False'}. {one['quote']}",
                generator=self.name,
                kind="true-or-false",
                evidence=one["quote"],
            )
