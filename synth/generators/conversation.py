"""`conversation`: a user and an assistant talk about a passage; the record asks for the last answer."""

from collections.abc import Sequence

from synth.core.calls import Teacher
from synth.core.prompts import load_template
from synth.core.records import Message, Passage, Record
from synth.core.schemas import load_schema
from synth.generators.base import ReplyError, ask_json, came_from
from synth.generators.evidence import Choice, EvidenceMode, about, sentences_of, with_choice
from synth.generators.examples import Example, copies_example
from synth.generators.lexical import same_words


class Conversation:
    """Writes one conversation about a passage, each answer backed by a sentence.

    The record's prompt has all turns up to the user's last; its completion is the last answer.

    Args:
        turns: how many questions the user asks at most, from 2 to 8; fewer where the passage has fewer sentences.
        evidence: how the reply names its sentences.
        examples: a user's pairs, shown as samples of style.
    """

    name = "conversation"

    def __init__(self, turns: int = 3, *, evidence: EvidenceMode = "enum", examples: Sequence[Example] = ()) -> None:
        if not 2 <= turns <= 8:
            raise ValueError(f"turns is from 2 to 8, not {turns}")
        self.turns, self.evidence, self.examples = turns, evidence, tuple(examples)

    async def generate(self, passage: Passage, teacher: Teacher) -> list[Record]:
        """Ask for the whole conversation in one call; a passage of one sentence gives none.

        Raises:
            ReplyError: the reply is of no use, or a question comes twice or copies an example.
        """
        sentences = sentences_of(passage)
        count = min(self.turns, len(sentences))
        if count < 2:
            return []
        template = load_template("conversation")
        choice = Choice.of(sentences, self.evidence)
        messages = template.messages(**about(passage, choice, self.examples), turns=count)
        schema = with_choice(load_schema("conversation"), ["turns", "evidence"], choice)
        schema["properties"]["turns"] |= {"minItems": count, "maxItems": count}
        reply, completion = await ask_json(teacher, messages, schema)
        turns = reply["turns"]
        quoted = [choice.sentence(turn["evidence"], passage.text) for turn in turns]
        questions = [turn["question"].strip() for turn in turns]
        if len({same_words(question) for question in questions}) < len(questions):
            raise ReplyError("a question comes twice", completion.text)
        if any(copies_example(question, self.examples) for question in questions):
            raise ReplyError("a question copies an example", completion.text)
        said = [
            Message(role, text)
            for turn, question in zip(turns, questions, strict=True)
            for role, text in (("user", question), ("assistant", turn["answer"].strip()))
        ]
        if not all(message.content for message in said):
            raise ReplyError("a turn is empty", completion.text)
        return [
            Record.create(
                passage,
                questions[-1],
                said[-1].content,
                generator=self.name,
                kind=template.kind,
                evidence=quoted[-1],
                more_evidence=[text for text in dict.fromkeys(quoted[:-1]) if text != quoted[-1]],
                prompt=said[:-1],
                provenance=came_from(template.sha256, completion),
            )
        ]
