"""`multi-hop`: questions that take two passages, the second found by what it has in common with the first."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from synth.core.calls import Teacher
from synth.core.errors import ConfigError, InferenceError
from synth.core.prompts import load_template
from synth.core.records import Passage, Record
from synth.core.schemas import load_schema
from synth.generators.base import ReplyError, as_reply_error, ask_json, came_from
from synth.generators.evidence import Choice, EvidenceMode, about, sentences_of, with_choice
from synth.generators.examples import Example, copies_example
from synth.generators.lexical import content_words
from synth.generators.related import RelatedPassages

FIRST, SECOND = "first_evidence", "second_evidence"


class MultiHop:
    """Writes questions about a passage and a related one from another place; the answer needs both.

    A record's context holds both passages, one after the other; its evidence is the sentence of the first, and
    its further evidence that of the second.

    Args:
        pairs_per_passage: how many related passages a passage is asked about with, one question each.
        evidence: how the reply names its sentences.
        examples: a user's pairs, shown as samples of style.
    """

    name = "multi-hop"

    def __init__(
        self, pairs_per_passage: int = 1, *, evidence: EvidenceMode = "enum", examples: Sequence[Example] = ()
    ) -> None:
        self.pairs_per_passage, self.evidence, self.examples = pairs_per_passage, evidence, tuple(examples)
        self._related: RelatedPassages | None = None

    def prepare(self, passages: Sequence[Passage]) -> None:
        """Index the passages, so that each can be asked for its relations."""
        self._related = RelatedPassages(passages)

    async def generate(self, passage: Passage, teacher: Teacher) -> list[Record | ReplyError]:
        """Ask for one question for each related passage, all at once; a passage without relations gives none.

        Raises:
            ConfigError: `prepare` was not called.
        """
        if self._related is None:
            raise ConfigError("multi-hop has not seen the passages", fix="call prepare(generator, passages) first")
        related = self._related.find(passage, self.pairs_per_passage)
        return list(await asyncio.gather(*(self._pair(passage, other, teacher) for other in related)))

    async def _pair(self, passage: Passage, other: Passage, teacher: Teacher) -> Record | ReplyError:
        template = load_template("multi-hop")
        first, second = self._choices(passage, other)
        if not first.offered or not second.offered:
            return ReplyError("one of the passages has no whole sentence", "")
        messages = template.messages(
            **about(passage, first, self.examples),
            related=other.text,
            related_headings=other.headings,
            related_sentences=second.offered,
        )
        schema = with_choice(with_choice(load_schema("multi-hop"), [FIRST], first), [SECOND], second)
        try:
            reply, completion = await ask_json(teacher, messages, schema)
            quoted = first.sentence(reply[FIRST], passage.text), second.sentence(reply[SECOND], other.text)
            question, answer = reply["question"].strip(), reply["answer"].strip()
            if copies_example(question, self.examples):
                raise ReplyError("the question copies an example", completion.text)
            if not needs_both(f"{question} {answer}", (quoted[0], passage.text), (quoted[1], other.text)):
                raise ReplyError("one of the two passages is enough for the answer", completion.text)
        except InferenceError as error:
            return as_reply_error(error)
        return Record.create(
            passage,
            question,
            answer,
            generator=self.name,
            kind=template.kind,
            context=f"{passage.text}\n\n{other.text}",
            evidence=quoted[0],
            more_evidence=[quoted[1]],
            scores={"confidence": completion.confidence(after='"question"')},
            provenance=came_from(template.sha256, completion),
        )

    def _choices(self, passage: Passage, other: Passage) -> tuple[Choice, Choice]:
        """Offer the sentences of both in one and the same way: the prompt explains it once."""
        both = [Choice.of(sentences_of(one), self.evidence) for one in (passage, other)]
        if any(choice.mode == "index" for choice in both):
            both = [replace(choice, mode="index") for choice in both]
        return both[0], both[1]


def needs_both(pair: str, first: tuple[str, str], second: tuple[str, str]) -> bool:
    """Whether a question with its answer uses a word of each quotation that the other passage does not have.

    Args:
        pair: question and answer.
        first: a quotation and the passage that it is from.
        second: likewise.
    """
    used = content_words(pair)
    own = content_words(first[0]) - content_words(second[1]), content_words(second[0]) - content_words(first[1])
    return all(used & words for words in own)
