"""`qa`: question/answer pairs, each backed by a sentence of the passage that is quoted first.

One call writes one pair. The passage's sentences are dealt out over its calls, and each call's schema
lists the sentences that it may quote, so the decoder cannot invent a quotation and the pairs spread over
the passage instead of crowding on its first line.
"""

import asyncio
import copy
from typing import Any

from synth.core.calls import Teacher
from synth.core.errors import InferenceError
from synth.core.prompts import load_template
from synth.core.records import Passage, Provenance, Record
from synth.core.schemas import load_schema
from synth.core.sentences import Sentence, split_sentences
from synth.generators.base import ReplyError, ask_json

MIN_WORDS = 3


class QA:
    """Writes at most `pairs_per_passage` question/answer pairs about a passage."""

    name = "qa"

    def __init__(self, pairs_per_passage: int = 6) -> None:
        self.pairs_per_passage = pairs_per_passage

    async def generate(self, passage: Passage, teacher: Teacher) -> list[Record | ReplyError]:
        """Ask for one pair for each share of the passage's sentences, all at once."""
        sentences = [s for s in split_sentences(passage.text) if len(s.text.split()) >= MIN_WORDS]
        shares = deal(sentences, self.pairs_per_passage)
        return list(await asyncio.gather(*(self._pair(passage, share, teacher) for share in shares)))

    async def _pair(self, passage: Passage, share: list[Sentence], teacher: Teacher) -> Record | ReplyError:
        template = load_template("qa")
        # Line ends inside a sentence are only space: a model should not have to copy them.
        offered = {" ".join(sentence.text.split()): sentence for sentence in share}
        messages = template.messages(passage=passage.text, headings=passage.headings, sentences=list(offered))
        try:
            reply, completion = await ask_json(teacher, messages, qa_schema(list(offered)))
        except InferenceError as error:
            return error if isinstance(error, ReplyError) else ReplyError(str(error), "")
        return Record.create(
            passage,
            reply["question"].strip(),
            reply["answer"].strip(),
            generator=self.name,
            kind=template.kind,
            evidence=offered[reply["evidence"]].text,
            # The evidence is chosen from a list; how sure the teacher is shows in what it wrote after that.
            scores={"confidence": completion.confidence(after='"question"')},
            provenance=Provenance(
                teacher="",
                prompt_sha256=template.sha256,
                call_keys=(completion.key,),
                prompt_tokens=completion.usage.prompt_tokens,
                completion_tokens=completion.usage.completion_tokens,
            ),
        )


def deal(sentences: list[Sentence], shares: int) -> list[list[Sentence]]:
    """Cut `sentences` into at most `shares` runs of neighbours, as even as can be, none empty."""
    count = min(shares, len(sentences))
    return [sentences[i * len(sentences) // count : (i + 1) * len(sentences) // count] for i in range(count)]


def qa_schema(sentences: list[str]) -> dict[str, Any]:
    """Return the reply's schema with the sentences that may be quoted as an enumeration."""
    schema = copy.deepcopy(load_schema("qa"))
    schema["properties"]["evidence"] = {"type": "string", "enum": sentences}
    for note in ("$schema", "title", "description"):
        schema.pop(note, None)
    return schema
