"""`unanswerable`: questions that fit a passage and that it leaves open. The right answer is a refusal.

Their kind is "unanswerable", so that they can be counted, mixed and left out apart from the rest.
"""

import asyncio
from collections.abc import Sequence

from synth.core.calls import Teacher
from synth.core.errors import InferenceError
from synth.core.prompts import load_template
from synth.core.records import Passage, Record
from synth.core.schemas import load_schema, without_notes
from synth.generators.base import ReplyError, as_reply_error, ask_json, came_from, pick
from synth.generators.evidence import about, sentences_of
from synth.generators.examples import Example, copies_example
from synth.generators.lexical import word_starts

REFUSAL = "I do not have that information."
ANGLES = (
    "a price or a cost",
    "where it comes from or who made it",
    "a date or how long something takes",
    "who is responsible or whom to ask",
    "a size, a weight or a limit",
    "an exception or a special case",
    "what to do when it goes wrong",
    "how it compares with another of its kind",
)
# A sentence with so large a share of a question's words may well answer it.
_COVERED = 0.8


class Unanswerable:
    """Writes questions that a passage does not answer, each with the same refusal.

    The teacher says what is missing and asks for it; words and a second call check that it is missing indeed.

    Args:
        pairs_per_passage: how many questions a passage gets at most.
        refusal: the answer of each record.
        angles: what the questions may ask about, in turn. Empty: whatever the teacher likes.
        verify: ask the teacher, in a call of its own, whether the passage answers the question after all.
        examples: a user's pairs, shown as samples of style.
    """

    name = "unanswerable"

    def __init__(
        self,
        pairs_per_passage: int = 1,
        *,
        refusal: str = REFUSAL,
        angles: Sequence[str] = ANGLES,
        verify: bool = True,
        examples: Sequence[Example] = (),
    ) -> None:
        self.pairs_per_passage, self.refusal, self.angles = pairs_per_passage, refusal, tuple(angles)
        self.verify, self.examples = verify, tuple(examples)

    async def generate(self, passage: Passage, teacher: Teacher) -> list[Record | ReplyError]:
        """Ask for the questions, all at once, and check each."""
        made = (self._question(passage, place, teacher) for place in range(self.pairs_per_passage))
        return list(await asyncio.gather(*made))

    async def _question(self, passage: Passage, place: int, teacher: Teacher) -> Record | ReplyError:
        template = load_template("unanswerable")
        angles = self.angles or ("",)
        messages = template.messages(
            **about(passage, examples=self.examples), angle=angles[(pick(passage) + place) % len(angles)]
        )
        try:
            reply, completion = await ask_json(teacher, messages, without_notes(load_schema("unanswerable")))
            question = reply["question"].strip()
            if copies_example(question, self.examples):
                raise ReplyError("the question copies an example", completion.text)
            fault = answerable(question, reply["missing"], passage)
            if fault:
                raise ReplyError(fault, completion.text)
            calls = [completion]
            if self.verify:
                asked = load_template("unanswerable-check").messages(
                    passage=passage.text, headings=passage.headings, question=question
                )
                schema = without_notes(load_schema("unanswerable-check"))
                verdict, check = await ask_json(teacher, asked, schema)
                calls.append(check)
                if verdict["answered"]:
                    raise ReplyError("the teacher found an answer in the passage", completion.text)
        except InferenceError as error:
            return as_reply_error(error)
        return Record.create(
            passage,
            question,
            self.refusal,
            generator=self.name,
            kind=template.kind,
            provenance=came_from(template.sha256, *calls),
        )


def answerable(question: str, missing: str, passage: Passage) -> str | None:
    """Return why the question is no unanswerable one of the passage, as far as words show, or None."""
    asked, sought = word_starts(question), word_starts(missing)
    topic = word_starts(" ".join([passage.text, *passage.headings, passage.document_id]))
    if not asked & topic:
        return "the question is not about the passage"
    for sentence in sentences_of(passage):
        words = word_starts(sentence.text)
        if len(asked & words) >= _COVERED * len(asked):
            return "a sentence of the passage has nearly all words of the question"
        if sought and sought <= words:
            return "what is said to be missing stands in the passage"
    return None
