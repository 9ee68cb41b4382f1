"""`qa`: question/answer pairs, each backed by a sentence of the passage that is quoted first.

One call writes one pair. The passage's sentences are dealt out over its calls, and each call's schema
lists the sentences that it may quote, so the decoder cannot invent a quotation and the pairs spread over
the passage instead of crowding on its first line. The kind of question and its difficulty go round from
call to call, starting at a place that the passage itself decides.
"""

import asyncio
from collections.abc import Sequence

from synth.core.calls import Teacher
from synth.core.errors import InferenceError
from synth.core.prompts import load_template
from synth.core.records import Passage, Record
from synth.core.schemas import load_schema
from synth.core.sentences import Sentence
from synth.generators.base import ReplyError, as_reply_error, ask_json, came_from, pick
from synth.generators.evidence import Choice, EvidenceMode, about, sentences_of, with_choice
from synth.generators.examples import Example, copies_example

QUESTION_TYPES = ("fact", "procedure", "reason", "condition", "definition", "description")
DIFFICULTIES = ("easy", "medium", "hard")


class QA:
    """Writes at most `pairs_per_passage` question/answer pairs about a passage.

    Args:
        pairs_per_passage: how many calls a passage gets at most.
        question_types: what the questions ask for, in turn; a word of prompts/qa.md or words of your own. Empty:
            whatever the teacher likes.
        difficulties: how hard they are, in turn; likewise.
        evidence: how the reply names its sentence.
        examples: a user's pairs, shown as samples of style.
    """

    name = "qa"

    def __init__(
        self,
        pairs_per_passage: int = 6,
        *,
        question_types: Sequence[str] = QUESTION_TYPES,
        difficulties: Sequence[str] = DIFFICULTIES,
        evidence: EvidenceMode = "enum",
        examples: Sequence[Example] = (),
    ) -> None:
        if pairs_per_passage < 1:
            raise ValueError("pairs_per_passage is at least 1")
        self.pairs_per_passage = pairs_per_passage
        self.question_types, self.difficulties = tuple(question_types), tuple(difficulties)
        self.evidence, self.examples = evidence, tuple(examples)

    async def generate(self, passage: Passage, teacher: Teacher) -> list[Record | ReplyError]:
        """Ask for one pair for each share of the passage's sentences, all at once."""
        shares = deal(sentences_of(passage), self.pairs_per_passage)
        return list(await asyncio.gather(*(self._pair(passage, i, share, teacher) for i, share in enumerate(shares))))

    async def _pair(self, passage: Passage, place: int, share: list[Sentence], teacher: Teacher) -> Record | ReplyError:
        template = load_template("qa")
        choice = Choice.of(share, self.evidence)
        question_type, difficulty = self._wanted(passage, place)
        messages = template.messages(**about(passage, choice, self.examples), type=question_type, difficulty=difficulty)
        try:
            reply, completion = await ask_json(teacher, messages, with_choice(load_schema("qa"), ["evidence"], choice))
            if copies_example(reply["question"], self.examples):
                return ReplyError("the question copies an example", completion.text)
            evidence = choice.sentence(reply["evidence"], passage.text)
        except InferenceError as error:
            return as_reply_error(error)
        return Record.create(
            passage,
            reply["question"].strip(),
            reply["answer"].strip(),
            generator=self.name,
            kind=template.kind,
            evidence=evidence,
            # The evidence is chosen from a list; how sure the teacher is shows in what it wrote after that.
            scores={"confidence": completion.confidence(after='"question"')},
            provenance=came_from(template.sha256, completion),
        )

    def _wanted(self, passage: Passage, place: int) -> tuple[str, str]:
        """Return the type and the difficulty of the question at `place`: neighbours differ, and passages do too."""
        types, levels = self.question_types or ("",), self.difficulties or ("",)
        start = pick(passage)
        return types[(start + place) % len(types)], levels[(start // len(types) + place) % len(levels)]


def deal(sentences: list[Sentence], shares: int) -> list[list[Sentence]]:
    """Cut `sentences` into at most `shares` runs of neighbours, as even as can be, none empty."""
    count = min(shares, len(sentences))
    return [sentences[i * len(sentences) // count : (i + 1) * len(sentences) // count] for i in range(count)]
