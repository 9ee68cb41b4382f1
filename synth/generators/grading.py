"""`grading`: each passage is a text that was handed in, and is marked against a user's rubric.

The case is essay marking: the student learns to give a label of the rubric, and why.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from synth.core.calls import Teacher
from synth.core.errors import ConfigError
from synth.core.prompts import load_template
from synth.core.records import Passage, Record
from synth.core.schemas import load_schema
from synth.generators.base import ReplyError, ask_json, came_from
from synth.generators.evidence import Choice, EvidenceMode, about, sentences_of, with_choice
from synth.generators.lexical import content_words

_BULLET = re.compile(
    r"^\s*(?:[-*+]|#{1,6}|\|)\s*(?:\*\*|__|`)?([^*_`:|–—]{1,40}?)(?:\*\*|__|`)?\s*(?:[:|–—]|\s-\s)", re.MULTILINE
)
_TABLE_RULE = re.compile(r"^[\s:-]*$")


class Grading:
    """Marks a passage's text against a rubric: a label and a justification that rests on a sentence of the text.

    The user's turn of a record is the rubric and the text; the completion is the label on a line of its own, and
    the justification below it. Let `passage_chars` be larger than the texts, so that each is marked as a whole.

    Args:
        rubric: a text file (Markdown, say), or the rubric itself.
        labels: the marks it gives. Empty: those that stand before a colon or a dash in its list, headings or table.
        evidence: how the reply names its sentence.

    Raises:
        ConfigError: there is no rubric, or fewer than two labels.
    """

    name = "grading"

    def __init__(self, *, rubric: str = "", labels: Sequence[str] = (), evidence: EvidenceMode = "enum") -> None:
        self.rubric = read_rubric(rubric)
        self.labels = tuple(dict.fromkeys(labels)) or labels_of(self.rubric)
        self.evidence = evidence
        if len(self.labels) < 2:
            raise ConfigError(
                f"the rubric has {len(self.labels)} labels that can be told from its text",
                where="generator grading",
                fix='name them with the option labels, such as ["good", "fair", "poor"]',
            )

    async def generate(self, passage: Passage, teacher: Teacher) -> list[Record]:
        """Ask for the mark in one call.

        Raises:
            ReplyError: the reply is of no use, or the justification has no word of the text or of the rubric.
        """
        sentences = sentences_of(passage)
        if not sentences:
            return []
        template = load_template("grading")
        choice = Choice.of(sentences, self.evidence)
        messages = template.messages(**about(passage, choice), rubric=self.rubric, labels=self.labels)
        schema = with_choice(load_schema("grading"), ["evidence"], choice)
        schema["properties"]["label"] = {"type": "string", "enum": list(self.labels)}
        reply, completion = await ask_json(teacher, messages, schema)
        justification = reply["justification"].strip()
        words = content_words(justification)
        if not words & content_words(passage.text) or not words & content_words(self.rubric):
            raise ReplyError("the justification refers to no word of the text or of the rubric", completion.text)
        return [
            Record.create(
                passage,
                f"Mark the text against the rubric. Give the label, then say why.\n\n{self.rubric}\n\n{passage.text}",
                f"{reply['label']}\n\n{justification}",
                generator=self.name,
                kind=template.kind,
                evidence=choice.sentence(reply["evidence"], passage.text),
                provenance=came_from(template.sha256, completion),
            )
        ]


def read_rubric(rubric: str) -> str:
    """Return the text of a rubric: of the file, where there is one of that name, or else what was given.

    Raises:
        ConfigError: nothing was given, or a file that is named is not there or not text.
    """
    if not rubric.strip():
        raise ConfigError(
            "there is no rubric to mark against", where="generator grading", fix="give it as the option rubric: a file"
        )
    if "\n" in rubric.strip() or len(rubric) > 255:
        return rubric.strip()
    path = Path(rubric)
    if path.is_file():
        try:
            text = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the rubric cannot be read ({error})", where=rubric) from error
        if not text:
            raise ConfigError("the rubric is empty", where=rubric)
        return text
    if path.suffix in {".md", ".txt"}:
        raise ConfigError("there is no such rubric", where=rubric)
    return rubric.strip()


def labels_of(rubric: str) -> tuple[str, ...]:
    """Return what stands before a colon, a dash or a cell's end at the head of the rubric's items, rows or headings."""
    found = [match.group(1).strip() for match in _BULLET.finditer(rubric)]
    return tuple(dict.fromkeys(label for label in found if label and not _TABLE_RULE.match(label)))
