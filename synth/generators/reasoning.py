"""`reasoning`: an answer with the steps to it, and the steps are checked.

Each step names the sentence that it rests on. What is calculated is worked out again, and a number that is
neither in those sentences nor in the question nor calculated is a fault: a trace with one gives no record.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from synth.core.calls import Teacher
from synth.core.prompts import load_template
from synth.core.records import Passage, Record
from synth.core.schemas import load_schema
from synth.generators.base import ReplyError, ask_json, came_from
from synth.generators.evidence import Choice, EvidenceMode, about, sentences_of, with_choice
from synth.generators.examples import Example, copies_example
from synth.generators.lexical import agrees, calculations, content_words, numbers

# What anybody may calculate with: halves and hundreds, and the parts of a year, a day and an hour.
_COMMON = {Fraction(n) for n in (2, 7, 10, 12, 24, 52, 60, 100, 365, 1000, 3600)}


class Reasoning:
    """Writes one question about a passage that takes steps to answer, with the steps.

    The record's completion is the numbered steps and then the answer.

    Args:
        steps: how many steps at most, from 2 to 6.
        evidence: how the reply names its sentences.
        examples: a user's pairs, shown as samples of style.
    """

    name = "reasoning"

    def __init__(self, steps: int = 4, *, evidence: EvidenceMode = "enum", examples: Sequence[Example] = ()) -> None:
        if not 2 <= steps <= 6:
            raise ValueError(f"steps is from 2 to 6, not {steps}")
        self.steps, self.evidence, self.examples = steps, evidence, tuple(examples)

    async def generate(self, passage: Passage, teacher: Teacher) -> list[Record]:
        """Ask for the question, the steps and the answer in one call, and check the steps.

        Raises:
            ReplyError: the reply is of no use, or its trace has a fault; the error names it.
        """
        sentences = sentences_of(passage)
        if not sentences:
            return []
        template = load_template("reasoning")
        choice = Choice.of(sentences, self.evidence)
        messages = template.messages(**about(passage, choice, self.examples), steps=self.steps)
        schema = with_choice(load_schema("reasoning"), ["steps", "evidence"], choice)
        schema["properties"]["steps"] |= {"maxItems": self.steps}
        reply, completion = await ask_json(teacher, messages, schema)
        cited = [choice.sentence(step["evidence"], passage.text) for step in reply["steps"]]
        if copies_example(reply["question"], self.examples):
            raise ReplyError("the question copies an example", completion.text)
        fault = trace_fault(reply, cited)
        if fault:
            raise ReplyError(fault, completion.text)
        trace = "\n".join(f"{i}. {step['step'].strip()}" for i, step in enumerate(reply["steps"], 1))
        # The last step is nearest to the answer: its sentence is the evidence, the others stand beside it.
        return [
            Record.create(
                passage,
                reply["question"].strip(),
                f"{trace}\n\nAnswer: {reply['answer'].strip()}",
                generator=self.name,
                kind=template.kind,
                evidence=cited[-1],
                more_evidence=[text for text in dict.fromkeys(cited[:-1]) if text != cited[-1]],
                provenance=came_from(template.sha256, completion),
            )
        ]


def trace_fault(reply: Mapping[str, Any], cited: Sequence[str]) -> str | None:
    """Return the first fault of a trace, or None.

    Args:
        reply: `question`, `steps` with a `step` each, and `answer`.
        cited: the sentence that each step rests on, in step.
    """
    known = numbers(" ".join([reply["question"], *cited])) | _COMMON
    for number, (step, sentence) in enumerate(zip(reply["steps"], cited, strict=True), 1):
        text = step["step"]
        for written, value, said in calculations(text):
            if value is None or not agrees(value, said):
                return f"step {number} miscalculates: {written}"
        results = {said for _, _, said in calculations(text)}
        if unknown := numbers(text) - known - results:
            return f"step {number} has a number from nowhere: {_shown(unknown)}"
        known |= results
        if not results and not content_words(text) & content_words(sentence):
            return f"step {number} has no word of the sentence that it rests on"
    if unknown := numbers(reply["answer"]) - known:
        return f"the answer has a number from nowhere: {_shown(unknown)}"
    stated = content_words(" ".join([*cited, *(step["step"] for step in reply["steps"])]))
    said_words = {word for word in content_words(reply["answer"]) if not word[0].isdigit()} - {"yes", "no"}
    if said_words and not said_words & (stated | content_words(reply["question"])):
        return "the answer does not follow from the steps: no word of it is in them"
    return None


def _shown(values: set[Fraction]) -> str:
    return ", ".join(f"{float(value):g}" for value in sorted(values))
