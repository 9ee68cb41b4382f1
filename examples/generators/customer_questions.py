r"""A generator of your own: two dependent calls a passage.

    synth generate manuals/ --teacher Qwen/Qwen3-4B \
        --generator examples/generators/customer_questions.py:CustomerQuestions

The first call lists the facts that a customer could need; the second words one question for each, as a
customer would type it. The answer is the fact itself, so the question can be as colloquial as the teacher
likes. Nothing here knows of concurrency, retries, the journal or resuming: the runtime owns those.
"""

import asyncio

from synth import Message, Passage, Record, Teacher, ask_json, fence

FACTS = {
    "type": "object",
    "properties": {
        "facts": {
            "type": "array",
            "maxItems": 5,
            "items": {
                "type": "object",
                "properties": {
                    "quote": {"type": "string", "minLength": 1, "maxLength": 400},
                    "fact": {"type": "string", "minLength": 1, "maxLength": 120},
                },
                "required": ["quote", "fact"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["facts"],
    "additionalProperties": False,
}
QUESTION = {
    "type": "object",
    "properties": {"question": {"type": "string", "minLength": 1, "maxLength": 200}},
    "required": ["question"],
    "additionalProperties": False,
}


class CustomerQuestions:
    """Writes the questions that a customer would type, one for each fact of a passage."""

    name = "customer-questions"

    async def generate(self, passage: Passage, teacher: Teacher) -> list[Record]:
        """Ask for the facts, then for a question about each of them."""
        reading = (
            f"{fence(passage.text)}\n\n"
            "List up to five facts of the passage that a customer could need. "
            "Quote the sentence, then give the fact in a few of its own words."
        )
        reply, _ = await ask_json(teacher, [Message("user", reading)], FACTS)
        return list(await asyncio.gather(*(self._record(passage, teacher, **fact) for fact in reply["facts"])))

    async def _record(self, passage: Passage, teacher: Teacher, quote: str, fact: str) -> Record:
        wording = (
            f"{fence(passage.text)}\n\n"
            f"A customer types a question into a chat; its answer is: {fact}\n"
            "Write that question. Name the product; do not give the answer away."
        )
        reply, _ = await ask_json(teacher, [Message("user", wording)], QUESTION)
        return Record.create(passage, reply["question"], fact, generator=self.name, evidence=quote)
