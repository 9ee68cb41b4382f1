"""The contenders: what a user could do with a question instead of tuning, and the tuned student itself.

A contender is a function from an item of the held-out set to messages, and the weights that they go to. Base,
few-shot, retrieval and the teacher ask through the templates answer.md, answer-with-context.md and, for label sets,
label.md in prompts/, so that a better prompt for them is a better opponent; tuned students are asked as they were
trained. All of them stay within one prompt budget (tune/budget.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from synth.core.errors import ConfigError, RunError, did_you_mean
from synth.core.heldout import HeldoutItem
from synth.core.prompts import load_template
from synth.core.records import Message, Passage, content_id, folded
from tune.budget import Budget, Fitted, Parts
from tune.passage_index import PassageIndex

WeightsName = str
"""Whose weights answer: "base", "tuned", "teacher", or "candidate:NAME" for an earlier candidate of the run."""

STUDENT = "tuned"
CANDIDATE = "candidate:"
ANSWER, ANSWER_WITH_CONTEXT, LABEL = "answer", "answer-with-context", "label"

# Contenders that look something up in the run's passages; the teacher only where an item has no context of its own.
LOOK_UP = frozenset({"retrieval", "tuned-retrieval", "teacher"})


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
    "teacher": Kind("the teacher with the passage", "teacher"),
}


def find_kind(name: str) -> Kind:
    """Return what is known of a contender: one of `KINDS`, or "candidate:NAME".

    Raises:
        ConfigError: there is no such contender.
    """
    if name in KINDS:
        return KINDS[name]
    if name.startswith(CANDIDATE) and len(name) > len(CANDIDATE):
        return Kind(f"the candidate {name.removeprefix(CANDIDATE)}", name)
    known = [*KINDS, f"{CANDIDATE}NAME"]
    raise ConfigError(f"no contender is called {name!r}", where="--contenders", fix=did_you_mean(name, known))


@dataclass(frozen=True, slots=True)
class Contender:
    """One row of the validation table: `parts` makes the messages of an item, and says how they are made shorter."""

    name: str
    weights: WeightsName
    parts: Callable[[HeldoutItem], Parts]

    def ask(self, item: HeldoutItem) -> tuple[Message, ...]:
        """Return the messages of an item at full length."""
        parts = self.parts(item)
        return parts.make(parts.total)

    def prompt(self, item: HeldoutItem, budget: Budget | None = None) -> Fitted:
        """Return the prompt as it is sent: at full length without a budget."""
        parts = self.parts(item)
        return Fitted(parts.make(parts.total), 0, parts.total, parts.unit) if budget is None else budget.fit(parts)


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
    labels: Sequence[str] = (),
    may_refuse: bool = False,
    elsewhere: bool = False,
) -> list[Contender]:
    """Return the named contenders in the given order.

    Args:
        names: keys of `KINDS`, or "candidate:NAME".
        rows: the lines of dataset/train.jsonl.
        passages: what retrieval looks in, and the teacher for an item without a context of its own.
        examples: question/answer turns of a few-shot prompt.
        top: passages that stand before the question.
        labels: those of a label set; all but the tuned students are told them.
        may_refuse: whether some item has no answer, so that all but the tuned students are told what to say then.
        elsewhere: whether the items are of another kind than what the student was tuned for: it is then told all
            that the untuned model is.

    Raises:
        ConfigError: there is no such contender.
        RunError: a contender has nothing to work with: no example, or no passage.
    """
    words = Wording(tuple(labels), may_refuse)

    @cache
    def index() -> PassageIndex:
        return PassageIndex([passage.text for passage in passages])

    def retrieval() -> PassageIndex:
        if not index().has_words:
            raise RunError(
                "there is no passage to look in",
                where="passages.jsonl",
                fix="run `synth generate` again, or leave retrieval out of --contenders",
            )
        return index()

    asks: dict[str, Callable[[], Callable[[HeldoutItem], Parts]]] = {
        "base": lambda: Alone(words),
        "few-shot": lambda: FewShot(choose_examples(rows, examples, labels), words),
        "retrieval": lambda: Retrieval(retrieval(), top, words),
        "tuned": lambda: Alone(words, shared_system(rows)) if elsewhere else AsTrained(shared_system(rows)),
        # Its own turns were of questions alone, so it is told no labels: it has to know them from its training.
        "tuned-retrieval": lambda: Retrieval(retrieval(), top, Wording(may_refuse=may_refuse), shared_system(rows)),
        "teacher": lambda: Retrieval(index(), top, words, own_context=True),
    }
    made = []
    for name in names:
        kind = find_kind(name)
        made.append(Contender(name, kind.weights, asks.get(name, asks[STUDENT])()))
    return made


def prompt_digests(names: Sequence[str], labels: Sequence[str] = ()) -> dict[str, str]:
    """Return the SHA-256 of the templates that these contenders ask through, by name."""
    told = {"base", "few-shot", "retrieval", "teacher"} & {*names}
    used = {LABEL if labels else ANSWER} if told else set()
    with_context = {"tuned-retrieval"} if labels else LOOK_UP
    used |= {ANSWER_WITH_CONTEXT} if with_context & {*names} else set()
    return {name: load_template(name).sha256 for name in sorted(used)}


@dataclass(frozen=True, slots=True)
class Wording:
    """How a question is put: with the labels of a label set, and with leave to refuse where some item has no answer."""

    labels: tuple[str, ...] = ()
    may_refuse: bool = False

    def alone(self, question: str) -> tuple[Message, ...]:
        """Return the question alone, through prompts/answer.md or prompts/label.md."""
        if self.labels:
            return load_template(LABEL).messages(question=question, labels=self.labels, passages=[])
        return load_template(ANSWER).messages(question=question, may_refuse=self.may_refuse)

    def with_passages(self, question: str, passages: Sequence[str]) -> tuple[Message, ...]:
        """Return the question below the passages, through prompts/answer-with-context.md or prompts/label.md."""
        if self.labels:
            return load_template(LABEL).messages(question=question, labels=self.labels, passages=passages)
        template = load_template(ANSWER_WITH_CONTEXT)
        return template.messages(question=question, passages=passages, may_refuse=self.may_refuse)


@dataclass(frozen=True, slots=True)
class Alone:
    """The question alone, after a system message where one is given."""

    words: Wording
    system: Message | None = None

    def __call__(self, item: HeldoutItem) -> Parts:
        """Return the prompt of an item."""
        *system, user = self.words.alone(item.question)
        return Parts(0, lambda _: (*([self.system] if self.system else system), user))


@dataclass(frozen=True, slots=True)
class AsTrained:
    """The question as the student saw questions in training: after the system message, where there was one."""

    system: Message | None = None

    def __call__(self, item: HeldoutItem) -> Parts:
        """Return the prompt of an item."""
        messages = (*((self.system,) if self.system else ()), Message("user", item.question))
        return Parts(0, lambda _: messages)


@dataclass(frozen=True, slots=True)
class FewShot:
    """The examples as earlier turns, then the question; an example of the very same question is left out."""

    examples: tuple[Example, ...]
    words: Wording

    def __call__(self, item: HeldoutItem) -> Parts:
        """Return the prompt of an item; each example is a part."""
        asked = folded(item.question)
        examples = [example for example in self.examples if folded(example.question) != asked]
        shown = Wording(self.words.labels)

        def make(count: int) -> tuple[Message, ...]:
            *system, user = self.words.alone(item.question)
            turns: list[Message] = []
            for example in examples[:count]:
                turns += [shown.alone(example.question)[-1], Message("assistant", example.answer)]
            return (*system, *turns, user)

        return Parts(len(examples), make, "examples")


@dataclass(frozen=True, slots=True)
class Retrieval:
    """The best passages, then the question; the question alone where no passage shares a word with it.

    `system` goes before the user's message, for a student that was trained with one. With `own_context` an item's own
    context stands in the place of what the index finds.
    """

    index: PassageIndex
    top: int
    words: Wording
    system: Message | None = None
    own_context: bool = False

    def __call__(self, item: HeldoutItem) -> Parts:
        """Return the prompt of an item; each sentence of the passages is a part."""
        if self.own_context and item.context.strip():
            found = [item.context]
        else:
            found = [self.index.texts[place] for place in self.index.best(item.question, self.top)]
        places = [(place, end) for place, text in enumerate(found) for end in _ends(text)]

        def make(count: int) -> tuple[Message, ...]:
            if not count:
                alone = self.words.alone(item.question)
                return (self.system, Message("user", item.question)) if self.system else alone
            last, end = places[count - 1]
            asked = self.words.with_passages(item.question, [*found[:last], found[last][:end]])
            return (self.system, asked[-1]) if self.system else asked

        return Parts(len(places), make, "sentences")


@lru_cache(maxsize=10_000)
def _ends(text: str) -> list[int]:
    """Return where a text may be cut: after each of its sentences, and at its end."""
    from synth.core.sentences import split_sentences  # only where there is a passage to cut

    ends = [sentence.end for sentence in split_sentences(text)]
    return [*ends[:-1], len(text)]


def choose_examples(rows: Sequence[Mapping[str, Any]], count: int, labels: Sequence[str] = ()) -> tuple[Example, ...]:
    """Return `count` examples, one a document while there are enough documents, whatever the order of the rows.

    Only rows of one question and one answer are taken: a later turn of a conversation makes no sense alone. For a
    label set those whose answer is a label, or begins with one on a line of its own: the label is the example's
    answer, and they are spread over the labels in place of the documents.

    Raises:
        RunError: the training set has no such row.
    """
    by_name = {folded(label): label for label in labels}
    # By a hash, so that the choice depends on the rows alone and not on how documents or ids are named.
    queues: dict[str, list[Example]] = {}
    for row in sorted(rows, key=lambda row: content_id("example", row["id"])):
        if [m["role"] for m in row["prompt"] if m["role"] != "system"] != ["user"]:
            continue
        answer = row["completion"][-1]["content"]
        if labels:
            first = answer.strip().partition("\n")[0]
            if (label := by_name.get(folded(first))) is None:
                continue
            answer = label
        group = answer if labels else row["document_id"]
        queues.setdefault(group, []).append(Example(row["prompt"][-1]["content"], answer))
    if not queues:
        what = (
            f"no row's answer is one of the labels {', '.join(labels)}"
            if labels
            else ("no row is a single question with its answer")
        )
        raise RunError(what, where="dataset/train.jsonl", fix="leave few-shot out of --contenders and --must-beat")
    order = sorted(queues, key=lambda group: content_id("label" if labels else "document", group))
    chosen: list[Example] = []
    for turn in range(max(map(len, queues.values()))):
        chosen += [queues[group][turn] for group in order if turn < len(queues[group])]
        if len(chosen) >= count:
            break
    return tuple(chosen[:count])


def shared_system(rows: Sequence[Mapping[str, Any]]) -> Message | None:
    """Return the system message that every training row begins with, or None where there is no such one."""
    firsts = {(row["prompt"][0]["role"], row["prompt"][0]["content"]) for row in rows}
    if len(firsts) != 1:
        return None
    role, content = firsts.pop()
    return Message(role, content) if role == "system" else None
