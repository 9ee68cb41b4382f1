"""The contenders: what a user could do with a question instead of tuning, and the tuned student itself.

A contender is a function from a question to messages, and the weights that they go to. Base, few-shot and
retrieval ask through the templates answer.md and answer-with-context.md in prompts/, so that a better
prompt for them is a better opponent; the tuned student is asked as it was trained.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from synth.core.errors import RunError
from synth.core.prompts import load_template
from synth.core.records import Message, Passage, content_id

# Unlike the library's own pattern this keeps words of one character: "gate 3" is not "gate 4".
_WORD = r"(?u)\b\w+\b"

WeightsName = Literal["base", "tuned"]

STUDENT = "tuned"
ANSWER, ANSWER_WITH_CONTEXT = "answer", "answer-with-context"


@dataclass(frozen=True, slots=True)
class Kind:
    """What is known of a contender by its name: plain words for it, and whose weights answer."""

    words: str
    weights: WeightsName


KINDS: Mapping[str, Kind] = {
    "base": Kind("the untuned model", "base"),
    "few-shot": Kind("few-shot prompts", "base"),
    "retrieval": Kind("retrieval with the untuned model", "base"),
    "tuned": Kind("the tuned student", "tuned"),
    "tuned-retrieval": Kind("retrieval with the tuned student", "tuned"),
}


@dataclass(frozen=True, slots=True)
class Contender:
    """One row of the validation table: `ask` makes the messages of a question."""

    name: str
    weights: WeightsName
    ask: Callable[[str], tuple[Message, ...]]


@dataclass(frozen=True, slots=True)
class Example:
    """A question and an answer of the training set, for few-shot prompts."""

    question: str
    answer: str


def make_contenders(
    names: Sequence[str],
    *,
    rows: Sequence[Mapping[str, Any]],
    passages: Sequence[Passage],
    examples: int = 4,
    top: int = 2,
) -> list[Contender]:
    """Return the named contenders in the given order.

    Args:
        names: keys of `KINDS`.
        rows: the lines of dataset/train.jsonl.
        passages: what retrieval looks in.
        examples: question/answer turns of a few-shot prompt.
        top: passages that retrieval puts before the question.

    Raises:
        RunError: a contender has nothing to work with: no example, or no passage.
    """
    asks: dict[str, Callable[[], Callable[[str], tuple[Message, ...]]]] = {
        "base": lambda: ask_alone,
        "few-shot": lambda: FewShot(choose_examples(rows, examples)),
        "retrieval": lambda: Retrieval(passages, top),
        "tuned": lambda: AsTrained(shared_system(rows)),
        "tuned-retrieval": lambda: Retrieval(passages, top, shared_system(rows)),
    }
    return [Contender(name, KINDS[name].weights, asks[name]()) for name in names]


def prompt_digests(names: Sequence[str]) -> dict[str, str]:
    """Return the SHA-256 of the templates that these contenders ask through, by name."""
    used = {ANSWER} if {"base", "few-shot", "retrieval"} & {*names} else set()
    used |= {ANSWER_WITH_CONTEXT} if {"retrieval", "tuned-retrieval"} & {*names} else set()
    return {name: load_template(name).sha256 for name in sorted(used)}


def ask_alone(question: str) -> tuple[Message, ...]:
    """Return the question alone, through prompts/answer.md."""
    return load_template(ANSWER).messages(question=question)


@dataclass(frozen=True, slots=True)
class AsTrained:
    """The question as the student saw questions in training: after the system message, where there was one."""

    system: Message | None = None

    def __call__(self, question: str) -> tuple[Message, ...]:
        """Return the messages of a question."""
        return (*((self.system,) if self.system else ()), Message("user", question))


@dataclass(frozen=True, slots=True)
class FewShot:
    """The examples as earlier turns, then the question."""

    examples: tuple[Example, ...]

    def __call__(self, question: str) -> tuple[Message, ...]:
        """Return the messages of a question."""
        *system, user = ask_alone(question)
        turns: list[Message] = []
        for example in self.examples:
            turns += [ask_alone(example.question)[-1], Message("assistant", example.answer)]
        return (*system, *turns, user)


class Retrieval:
    """The best passages by BM25, then the question; the question alone where no passage shares a word with it.

    BM25 as Lucene has it, by bm25s with its own defaults (k1 1.5, b 0.75, English stop words left out) but for
    words of one character, which count.
    Equal scores go to the passage that comes first.
    """

    def __init__(self, passages: Sequence[Passage], top: int, system: Message | None = None) -> None:
        """Index the passages.

        Args:
            passages: what to look in.
            top: how many passages stand before a question at most.
            system: goes before the user's message, for a student that was trained with one.

        Raises:
            RunError: there is no passage with a word in it.
        """
        import bm25s  # brings numba with it, so it is loaded only where there is something to look up

        self._tokenize = bm25s.tokenize
        self._texts = [passage.text for passage in passages]
        self._top, self._system = top, system
        tokens = self._tokens(self._texts)
        if not any(tokens):
            raise RunError(
                "there is no passage to look in",
                where="passages.jsonl",
                fix="run `synth generate` again, or leave retrieval out of --contenders",
            )
        self._index = bm25s.BM25()
        self._index.index(tokens, show_progress=False)

    def find(self, question: str) -> list[str]:
        """Return the best passages that share a word with the question, best first."""
        words = self._tokens([question])[0]
        if not words:
            return []
        scores = self._index.get_scores(words)
        best = np.argsort(-scores, kind="stable")[: self._top]
        return [self._texts[place] for place in best if scores[place] > 0]

    def __call__(self, question: str) -> tuple[Message, ...]:
        """Return the messages of a question."""
        found = self.find(question)
        if not found:
            return AsTrained(self._system)(question) if self._system else ask_alone(question)
        asked = load_template(ANSWER_WITH_CONTEXT).messages(passages=found, question=question)
        return (self._system, asked[-1]) if self._system else asked

    def _tokens(self, texts: list[str]) -> list[list[str]]:
        tokens: list[list[str]] = self._tokenize(texts, token_pattern=_WORD, return_ids=False, show_progress=False)
        return tokens


def choose_examples(rows: Sequence[Mapping[str, Any]], count: int) -> tuple[Example, ...]:
    """Return `count` examples, one a document while there are enough documents, whatever the order of the rows.

    Only rows of one question and one answer are taken: a later turn of a conversation makes no sense alone.

    Raises:
        RunError: the training set has no such row.
    """
    single = [row for row in rows if [m["role"] for m in row["prompt"] if m["role"] != "system"] == ["user"]]
    if not single:
        raise RunError(
            "no row is a single question with its answer",
            where="dataset/train.jsonl",
            fix="leave few-shot out of --contenders and --must-beat",
        )
    # By a hash, so that the choice depends on the rows alone and not on how documents or ids are named.
    queues: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(single, key=lambda row: content_id("example", row["id"])):
        queues.setdefault(row["document_id"], []).append(row)
    order = sorted(queues, key=lambda document: content_id("document", document))
    chosen: list[Mapping[str, Any]] = []
    for turn in range(max(map(len, queues.values()))):
        chosen += [queues[document][turn] for document in order if turn < len(queues[document])]
        if len(chosen) >= count:
            break
    return tuple(Example(row["prompt"][-1]["content"], row["completion"][-1]["content"]) for row in chosen[:count])


def shared_system(rows: Sequence[Mapping[str, Any]]) -> Message | None:
    """Return the system message that every training row begins with, or None where there is no such one."""
    firsts = {(row["prompt"][0]["role"], row["prompt"][0]["content"]) for row in rows}
    if len(firsts) != 1:
        return None
    role, content = firsts.pop()
    return Message(role, content) if role == "system" else None
