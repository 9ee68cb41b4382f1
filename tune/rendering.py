"""A row as the student's tokens, with the labels that TRL would give them.

What TRL does in `SFTTrainer._prepare_dataset` is done here once, so that its result can be looked at before a trainer
exists: conversational rows go through the chat template, plain ones get the end-of-sequence token, and the loss counts
the completion alone. A row on which TRL would go on with a warning is a fault here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Literal

from jinja2 import TemplateError

from synth.core.records import Message
from tune.findings import visible
from tune.rows import IGNORED, Rendered, Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FaultKind = Literal["refused", "prefix", "eaten"]

_ROWS_AT_ONCE = 256

# A template is a program: beside refusing it can stumble over a turn in most ways that an expression can.
_STUMBLES = (TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)

_PLAIN = "use --chat-template plain, or mend the student's template"


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a row cannot be trained on: the template refuses it, writes its prompt in two ways, or leaves a turn out."""

    row: Row
    kind: FaultKind
    message: str
    fix: str


def render(rows: Sequence[Row], tokenizer: "PreTrainedTokenizerBase") -> list[Rendered | Fault]:
    """Return each row's ids and labels as TRL would make them, or why there are none; the order is that of `rows`.

    The ids of the prompt are those that the student is given at inference, followed by the completion's. Labels are
    the completion's tokens to the end; of a completion of several turns, those of the assistant's turns. Where the
    prompt is empty text, every token is labelled.
    """
    renderer = _Renderer(tokenizer)
    found: list[Rendered | Fault] = []
    waiting = iter(rows)
    while some := list(islice(waiting, _ROWS_AT_ONCE)):
        found += renderer.render(some)
    return found


@dataclass(frozen=True, slots=True)
class _Texts:
    """What has to be tokenized of a row: the text up to each labelled part and through it, and the whole."""

    row: Row
    edges: tuple[tuple[str, str], ...]
    whole: str


class _Renderer:
    """Renders rows; remembers which turns the template leaves out, by the roles of a conversation."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer
        self._eaten: dict[tuple[str, ...], int | None] = {}
        # One int object for each id, in place of one for each token: an eighth of the memory for a large dataset.
        self._ids: dict[int, int] = {}

    def render(self, rows: Sequence[Row]) -> Iterator[Rendered | Fault]:
        """Yield the rows in their order, tokenized together."""
        texts = [_broken(row) or (self._turns(row) if row.conversational else self._plain(row)) for row in rows]
        tokens: dict[tuple[bool, str], tuple[int, ...]] = {}
        for conversational in (True, False):
            wanted = dict.fromkeys(
                text
                for one in texts
                if not isinstance(one, Fault) and one.row.conversational is conversational
                for text in (one.whole, *(edge for pair in one.edges for edge in pair))
            )
            if wanted:
                # A template writes special tokens itself, plain text gets those that the tokenizer adds.
                ids = self._tokenizer(list(wanted), add_special_tokens=not conversational)["input_ids"]
                for text, several in zip(wanted, ids, strict=True):
                    tokens[conversational, text] = tuple(self._ids.setdefault(i, i) for i in several)
        for one in texts:
            yield one if isinstance(one, Fault) else self._labelled(one, tokens)

    def _turns(self, row: Row) -> _Texts | Fault:
        data = row.to_json()
        turns: list[dict[str, str]] = data["prompt"] + data["completion"]
        first = len(data["prompt"])
        answers = [i for i, turn in enumerate(turns) if i >= first and turn["role"] == "assistant"]
        try:
            whole = self._text(turns, asking=False)
            if first == len(turns) - 1 and answers:
                edges: tuple[tuple[str, str], ...] = ((self._text(turns[:first], asking=True), whole),)
            else:
                edges = tuple(
                    (self._text(turns[:i], asking=True), self._text(turns[: i + 1], asking=False)) for i in answers
                )
            left_out = self._left_out(turns, whole)
        except _STUMBLES as error:
            said = visible(" ".join(str(error).split())[:200])
            return Fault(
                row,
                "refused",
                f"the student's chat template refuses it ({said or type(error).__name__})",
                "write prompts the template knows (some know no system turn), or use --chat-template plain",
            )
        if left_out is not None:
            role = turns[left_out]["role"]
            return Fault(
                row,
                "eaten",
                f"the student's chat template leaves out the {role} turn ({_shortened(turns[left_out]['content'])!r})",
                "put its text into the user turn, or use --chat-template plain" if role == "system" else _PLAIN,
            )
        return _Texts(row, edges, whole)

    def _plain(self, row: Row) -> _Texts:
        prompt, completion = str(row.prompt), str(row.completion)
        eos = self._tokenizer.eos_token
        whole = prompt + completion + ("" if completion.endswith(eos) else eos)
        return _Texts(row, ((prompt, whole),) if prompt else (), whole)

    def _text(self, turns: Sequence[Mapping[str, str]], *, asking: bool) -> str:
        text: str = self._tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=asking)
        return text

    def _left_out(self, turns: Sequence[Mapping[str, str]], whole: str) -> int | None:
        """Return the number of the first turn whose text is not in the whole, if there is one."""
        roles = tuple(turn["role"] for turn in turns)
        if roles not in self._eaten:
            # Texts that nothing else in the conversation holds: a short turn could be found in another one.
            probes = [f"turn-{number}-of-{len(roles)}-probe" for number in range(len(roles))]
            asked = [{"role": role, "content": probe} for role, probe in zip(roles, probes, strict=True)]
            text = self._text(asked, asking=False)
            self._eaten[roles] = next((i for i, probe in enumerate(probes) if probe not in text), None)
        by_form = self._eaten[roles]
        if by_form is not None:
            return by_form
        return next((i for i, turn in enumerate(turns) if not _stands_in(turn, whole)), None)

    def _labelled(self, texts: _Texts, tokens: Mapping[tuple[bool, str], tuple[int, ...]]) -> Rendered | Fault:
        row = texts.row
        whole = tokens[row.conversational, texts.whole]
        if not row.conversational and not texts.edges:
            return Rendered(row, whole, whole, 0)
        labels = [IGNORED] * len(whole)
        first = len(whole)
        for before, through in texts.edges:
            start, end = tokens[row.conversational, before], tokens[row.conversational, through]
            if whole[: len(start)] != start or whole[: len(end)] != end:
                # Of two differences the first one is what the user should see.
                return self._unstable(row, start if whole[: len(start)] != start else end, whole)
            labels[len(start) : len(end)] = end[len(start) :]
            first = min(first, len(start))
        return Rendered(row, whole, tuple(labels), first)

    def _unstable(self, row: Row, part: Sequence[int], whole: Sequence[int]) -> Fault:
        same = next((i for i, (a, b) in enumerate(zip(part, whole, strict=False)) if a != b), len(whole))
        at = max(same - 3, 0)
        # A stretch can begin within a character.
        alone, among = (self._tokenizer.decode(list(ids[at : at + 12])).lstrip("\ufffd") for ids in (part, whole))
        if not row.conversational:
            return Fault(
                row,
                "prefix",
                f"the end of its prompt melts into its completion's first token ({alone!r} becomes {among!r})",
                "end prompts with a space or a line break, or begin completions with one",
            )
        return Fault(
            row,
            "prefix",
            "the student's chat template writes the prompt alone otherwise than before its completion "
            f"({alone!r} becomes {among!r})",
            _PLAIN,
        )


def one_answer_each(row: Row) -> tuple[Row, ...]:
    """Return a row for each assistant turn of the completion, with all turns before it as its prompt.

    Some templates write the last answer of a conversation otherwise than earlier ones, as it is while it is being
    written: such rows show the student each answer as it will be asked for it. They are called `<row id>#<number>`.
    """
    if isinstance(row.prompt, str) or isinstance(row.completion, str):
        return (row,)
    turns = (*row.prompt, *row.completion)
    ends = [i for i in range(len(row.prompt), len(turns)) if turns[i].role == "assistant"]
    if len(ends) < 2:
        return (row,)
    return tuple(
        replace(row, id=f"{row.id}#{number}", prompt=turns[:end], completion=turns[end : end + 1])
        for number, end in enumerate(ends, 1)
    )


def _broken(row: Row) -> Fault | None:
    """Return a fault where the row holds what no encoding has; one such text would stop the tokenizer for all rows."""
    texts = (text for side in (row.prompt, row.completion) for text in _contents(side))
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        half = str(error.object)[error.start].encode("unicode_escape").decode()
        message = f"its text is damaged: it holds half a character ({half})"
        return Fault(row, "refused", message, "write the file again in UTF-8, or leave the row out")
    return None


def _contents(side: Sequence[Message] | str) -> list[str]:
    return [side] if isinstance(side, str) else [turn.content for turn in side]


def _stands_in(turn: Mapping[str, str], whole: str) -> bool:
    """Say whether the turn's text is in the whole; templates may strip it, or its thoughts where it is an answer."""
    content = turn["content"].strip()
    if content in whole:
        return True
    if turn["role"] == "assistant" and "</think>" in content:
        content = content.rpartition("</think>")[2].strip()
    return content in whole or "".join(content.split()) in "".join(whole.split())


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 40 else f"{line[:39]}…"
