"""`instruction`: summaries, rewrites and extractions. The student reads the instruction and the passage below it."""

import asyncio
from collections.abc import Sequence

from synth.core.calls import Teacher
from synth.core.errors import InferenceError
from synth.core.prompts import load_template
from synth.core.records import Passage, Record
from synth.core.schemas import load_schema, without_notes
from synth.generators.base import ReplyError, as_reply_error, ask_json, came_from, pick
from synth.generators.evidence import about
from synth.generators.examples import Example, copies_example
from synth.generators.lexical import same_words

TASKS = ("summary", "points", "simplify", "formal", "extract", "table", "title")
_SHORTER = {"summary", "title"}


class Instruction:
    """Writes instructions on a passage and carries them out.

    The user's turn of a record is the instruction and, below it, the passage's text.

    Args:
        pairs_per_passage: how many instructions a passage gets.
        tasks: what they ask for, in turn; a word of prompts/instruction.md or words of your own ("to …").
        examples: a user's pairs, shown as samples of style.
    """

    name = "instruction"

    def __init__(
        self, pairs_per_passage: int = 2, *, tasks: Sequence[str] = TASKS, examples: Sequence[Example] = ()
    ) -> None:
        if not tasks:
            raise ValueError("there is no task")
        self.pairs_per_passage, self.tasks, self.examples = pairs_per_passage, tuple(tasks), tuple(examples)

    async def generate(self, passage: Passage, teacher: Teacher) -> list[Record | ReplyError]:
        """Ask for one instruction and its response for each task whose turn it is, all at once."""
        start = pick(passage)
        count = min(self.pairs_per_passage, len(self.tasks))
        tasks = [self.tasks[(start + place) % len(self.tasks)] for place in range(count)]
        return list(await asyncio.gather(*(self._pair(passage, task, teacher) for task in tasks)))

    async def _pair(self, passage: Passage, task: str, teacher: Teacher) -> Record | ReplyError:
        template = load_template("instruction")
        messages = template.messages(**about(passage, examples=self.examples), task=task)
        try:
            reply, completion = await ask_json(teacher, messages, without_notes(load_schema("instruction")))
        except InferenceError as error:
            return as_reply_error(error)
        instruction, response = reply["instruction"].strip(), reply["response"].strip()
        fault = response_fault(task, instruction, response, passage.text)
        if copies_example(instruction, self.examples):
            fault = "the instruction copies an example"
        if fault:
            return ReplyError(fault, completion.text)
        return Record.create(
            passage,
            f"{instruction}\n\n{passage.text}",
            response,
            generator=self.name,
            kind=template.kind,
            provenance=came_from(template.sha256, completion),
        )


def response_fault(task: str, instruction: str, response: str, text: str) -> str | None:
    """Return why a response carries nothing out, or None."""
    if not instruction or not response:
        return "the instruction or the response is empty"
    if same_words(response) == same_words(text):
        return "the response is the passage itself"
    if same_words(text) in same_words(instruction):
        return "the instruction repeats the passage"
    if task in _SHORTER and len(response) >= len(text):
        return "the summary is longer than the passage"
    return None
