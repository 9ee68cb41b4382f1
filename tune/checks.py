"""The single checks of preflight: each looks at all rows and returns one finding, whatever the others found."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from synth.core.heldout import HeldoutSet
from synth.core.records import Message, folded
from tune.findings import NAMED, Check, listed
from tune.heldout import leaked_questions
from tune.rendering import Fault, FaultKind
from tune.rows import IGNORED, Dataset, Rendered, Row
from tune.student import PLAIN_TEMPLATE_NAME, Student

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_OTHER_STUDENT = (
    "use --chat-template plain, or an instruction-tuned student whose template ends a turn with one of its stop tokens"
)


def template_named(student: Student, *, asked: bool) -> Check:
    """Say which chat template writes the rows."""
    if student.template != PLAIN_TEMPLATE_NAME:
        return Check("chat template", "ok", f"{student.name}'s own")
    why = "" if asked else f", since {student.name} has none of its own"
    return Check("chat template", "note", f"chat template: the plain one, saved with the student{why}")


def written(faults: Sequence[Fault], rows: int) -> Iterator[Check]:
    """Say which rows the template refuses or writes in two ways, and whose turns it leaves out."""
    titles: dict[FaultKind, tuple[str, str]] = {
        "refused": ("rendering", f"the template writes all {rows} rows"),
        "prefix": ("same prompt at inference", "every prompt is written as it will be asked"),
        "eaten": ("every turn is written", "no turn is left out"),
    }
    for kind, (name, fine) in titles.items():
        found = [fault for fault in faults if fault.kind == kind]
        if not found:
            yield Check(name, "ok", fine)
            continue
        # One finding for each way out; the message is the first row's, whose words stand in it.
        by_fix: dict[str, list[Fault]] = {}
        for fault in found:
            by_fix.setdefault(fault.fix, []).append(fault)
        for fix, several in by_fix.items():
            others = len({fault.message for fault in several}) - 1 if kind == "refused" else 0
            also = f", and for {others} other {'reason' if others == 1 else 'reasons'}" if others else ""
            yield _failed(name, [fault.row.id for fault in several], several[0].message + also, fix)


def conversations(parted: Mapping[str, int]) -> Iterator[Check]:
    """Say which conversations became several rows."""
    if parted:
        yield Check(
            "conversations",
            "note",
            f"{listed(list(parted))}: made into {sum(parted.values())} rows, one an answer, since the student's chat "
            "template writes the last answer of a conversation otherwise than earlier ones",
            rows=len(parted),
            ids=tuple(parted)[:NAMED],
        )


def answers_written(rows: Sequence[Row]) -> Check:
    """Find rows with nothing to learn: an answer that is white space or nothing."""
    empty = [row.id for row in rows if _has_no_answer(row)]
    name = "completions"
    if not empty:
        return Check(name, "ok", "none is empty")
    return _failed(name, empty, "the completion is empty", "reject it in the filter, or delete it from the file")


def _has_no_answer(row: Row) -> bool:
    if isinstance(row.completion, str):
        return not row.completion.strip()
    answers = [turn.content for turn in row.completion if turn.role == "assistant"]
    return not answers or any(not answer.strip() for answer in answers)


def labelled(rows: Sequence[Rendered]) -> Check:
    """Find rows of which no token counts in the loss."""
    masked = [row.row.id for row in rows if not row.labelled]
    name = "labels"
    if masked:
        return _failed(
            name,
            masked,
            "all labels are masked, so nothing would be learnt from it",
            "the student's chat template writes no assistant turn; use --chat-template plain",
        )
    tokens, counted = sum(row.tokens for row in rows), sum(row.labelled for row in rows)
    share = f" ({counted / tokens:.0%})" if tokens else ""
    return Check(name, "ok", f"{counted} of {tokens} tokens count in the loss{share}")


@dataclass(slots=True)
class Stops:
    """How the answers of all rows end; `ends` counts the stop tokens that they end on."""

    unended: dict[str, int] = field(default_factory=dict)
    inside: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    ends: Counter[int] = field(default_factory=Counter)

    @classmethod
    def of(cls, rows: Sequence[Rendered], student: Student) -> "Stops":
        """Look at every answer of every row; the last answer of a row that was cut has no end to look at."""
        found = cls()
        blank = _BlankTokens(student.tokenizer)
        singles = student.stop_ids | {student.tokenizer.bos_token_id} - {None}
        for row in rows:
            if any(_twice_in_a_row(row.ids, token) for token in singles):
                found.doubled.append(row.row.id)
            answers = _answers(row)
            for number, answer in enumerate(answers, 1):
                end = len(answer)
                while end and answer[end - 1] in blank:
                    end -= 1
                cut = bool(row.cut) and number == len(answers) and row.labels[-1] != IGNORED
                if end and answer[end - 1] in student.stop_ids:
                    end -= 1
                    found.ends[answer[end]] += 1
                elif not cut:
                    found.unended.setdefault(row.row.id, answer[end - 1 if end else -1])
                if any(token in student.stop_ids for token in answer[:end]):
                    found.inside.append(row.row.id)
                    break
        return found

    def checks(self, student: Student, cut: int) -> Iterator[Check]:
        """Say what is wrong with the ends of answers."""
        name, shown = "stop token", student.tokenizer.convert_ids_to_tokens
        if self.unended:
            stops = " or ".join(repr(token) for token in shown(sorted(student.stop_ids)))
            last = shown([next(iter(self.unended.values()))])[0]
            said = f"the last labelled token is {last!r}, and the student stops only on {stops}"
            yield _failed(name, list(self.unended), f"{said}, so it would never learn to stop", _OTHER_STUDENT)
        else:
            ends = ", ".join(f"{shown([token])[0]} ({count})" for token, count in self.ends.most_common())
            exempt = f"; the ends of {cut} cut rows are not there to learn from" if cut else ""
            yield Check(name, "note" if cut else "ok", f"answers end on {ends or 'nothing'}{exempt}", rows=cut)
        doubled = set(self.doubled)
        inside = [name for name in self.inside if name not in doubled]
        yield (
            _failed(
                "stop token inside",
                inside,
                "an answer holds a stop token in the middle, so replies would break off there",
                "reject the row in the filter: its text spells a special token",
            )
            if inside
            else Check("stop token inside", "ok", "no answer holds one before its end")
        )
        yield (
            _failed(
                "doubled special tokens",
                self.doubled,
                "a special token of its beginning or end stands there twice in a row",
                "take it out of the rows' texts, or use --chat-template plain where the template writes it twice",
            )
            if self.doubled
            else Check("doubled special tokens", "ok", "none")
        )


def _twice_in_a_row(ids: Sequence[int], token: int) -> bool:
    if ids.count(token) < 2:
        return False
    return any(a == b == token for a, b in zip(ids, ids[1:], strict=False))


def _answers(row: Rendered) -> list[tuple[int, ...]]:
    """Return the labelled stretches of a row."""
    first = row.prompt_tokens
    if IGNORED not in row.labels[first:]:
        return [row.labels[first:]] if first < len(row.labels) else []
    return [tuple(part) for masked, part in groupby(row.labels, lambda label: label == IGNORED) if not masked]


class _BlankTokens:
    """Remembers which tokens are white space alone."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, bool] = {}

    def __contains__(self, token: int) -> bool:
        if token not in self._known:
            self._known[token] = not self._tokenizer.decode([token]).strip()
        return self._known[token]


def specials_in_text(rows: Sequence[Row], tokenizer: "PreTrainedTokenizerBase") -> Check:
    """Find rows whose own text spells a special token, which the tokenizer takes for one."""
    special = {t.content for t in tokenizer.added_tokens_decoder.values() if t.special}
    special |= set(tokenizer.all_special_tokens)
    found = {row.id: token for row in rows if (token := next((t for t in special if _spells(row, t)), None))}
    name = "special tokens in texts"
    if not found:
        return Check(name, "ok", "no text spells one")
    first = next(iter(found.values()))
    return Check(
        name,
        "note",
        f"{listed(list(found))}: the text spells a special token ({first}), and the student reads it as one",
        rows=len(found),
        ids=tuple(found)[:NAMED],
        fix="take it out of the text where it is not meant",
    )


def _spells(row: Row, token: str) -> bool:
    sides = (row.prompt, row.completion)
    return any(token in text for side in sides for text in ([side] if isinstance(side, str) else _contents(side)))


def _contents(turns: Sequence[Message]) -> list[str]:
    return [turn.content for turn in turns]


def padding(student: Student) -> Check:
    """Say what padding is made of, and that it cannot hide the stop token."""
    tokenizer = student.tokenizer
    name = "padding"
    # TRL builds the labels before it pads, and pads labels with -100 whatever the token is: equal tokens are harmless
    # here, unlike with collators that mask every padding token they find. `prove` shows it on the batches.
    harmless = "labels are made before padding, so the stop token stays labelled"
    if tokenizer.pad_token_id is None:
        return Check(
            name, "note", f"the tokenizer has no padding token, so TRL pads with {tokenizer.eos_token}; {harmless}"
        )
    if tokenizer.pad_token_id in student.stop_ids:
        return Check(name, "note", f"{tokenizer.pad_token} pads and ends replies too; {harmless}")
    return Check(name, "ok", f"{tokenizer.pad_token}, which ends no reply")


def vocabulary(student: Student, rows: Sequence[Rendered]) -> Check:
    """Compare the tokenizer with the embedding: a token beyond it has no weights."""
    name = "vocabulary"
    config = student.config.get_text_config()
    size, known = getattr(config, "vocab_size", None), len(student.tokenizer)
    if size is None:
        return Check(name, "note", f"the student's config names no vocabulary size; its tokenizer knows {known} tokens")
    beyond = [row.row.id for row in rows if max(row.ids, default=0) >= size]
    fix = "take the tokenizer that belongs to these weights"
    if beyond:
        return _failed(name, beyond, f"has tokens beyond the student's {size} embeddings", fix)
    lost = sorted(token for token in student.stop_ids if token >= size)
    if lost:
        said = f"the stop token {student.tokenizer.convert_ids_to_tokens(lost)[0]!r} is beyond the {size} embeddings"
        return Check(name, "error", said, fix=fix)
    if known > size:
        return Check(name, "note", f"the tokenizer knows {known} tokens, the student {size}; no row holds the others")
    if known < size:
        return Check(name, "note", f"{size} embeddings for {known} tokens: the student is padded, which is harmless")
    return Check(name, "ok", f"{size} embeddings for as many tokens")


def sides_apart(dataset: Dataset) -> Iterator[Check]:
    """Find what stands on both sides of the split: documents, whole rows, and prompts."""
    documents = {row.document_id for row in dataset.train}
    shared = [row for row in dataset.validation if row.document_id in documents]
    flatters = "so the validation loss would flatter the student"
    name = "documents apart"
    if shared:
        named = list(dict.fromkeys(row.document_id for row in shared))
        yield Check(
            name,
            "error",
            f"{listed([row.id for row in shared])} to validate on are of documents that are trained on "
            f"({', '.join(named[:NAMED])}{', …' if len(named) > NAMED else ''}), {flatters}",
            rows=len(shared),
            ids=tuple(row.id for row in shared[:NAMED]),
            fix="split again by document: `synth filter` does for a run, --validation-share for any rows",
        )
    else:
        yield Check(name, "ok", "no document stands in both training and validation")
    asked: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for row in dataset.train:
        asked.setdefault(_key(row.prompt), set()).add(_key(row.completion))
    same = [row.id for row in dataset.validation if _key(row.completion) in asked.get(_key(row.prompt), ())]
    alike = [row.id for row in dataset.validation if any(_key(row.prompt)) and _key(row.prompt) in asked]
    name = "texts apart"
    if same:
        yield _failed(
            name,
            same,
            f"the same row is trained on, {flatters}",
            "delete the copies, or split again with --validation-share",
        )
    elif alike:
        yield Check(
            name,
            "note",
            f"{listed(alike)} to validate on have a prompt that is trained on too, with another answer",
            rows=len(alike),
            ids=tuple(alike[:NAMED]),
        )
    else:
        yield Check(name, "ok", "no prompt stands in both training and validation")


def _key(side: Sequence[Message] | str) -> tuple[str, ...]:
    """Return what is said, without case and white space."""
    texts = [side] if isinstance(side, str) else [part for turn in side for part in (turn.role, turn.content)]
    return tuple(folded(text) for text in texts)


def heldout_apart(dataset: Dataset, heldout: HeldoutSet) -> Iterator[Check]:
    """Find held-out questions in the rows, and held-out documents among theirs."""
    name = "held-out questions"
    leaked = leaked_questions(heldout.items, [_asking(row) for row in dataset.train])
    seen = leaked_questions(heldout.items, [_asking(row) for row in dataset.validation])
    if leaked:
        yield Check(
            name,
            "error",
            f"{len(leaked)} of {len(heldout.items)} held-out questions are trained on word for word, such as "
            f"{leaked[0].question!r}",
            rows=len(leaked),
            ids=tuple(item.id for item in leaked[:NAMED]),
            fix=f"run `synth filter` with --heldout {heldout.path.name}, or take these rows out of the file",
        )
    elif seen:
        yield Check(
            name,
            "note",
            f"{len(seen)} of {len(heldout.items)} held-out questions are validated on: they help to choose the weights",
            rows=len(seen),
            ids=tuple(item.id for item in seen[:NAMED]),
            fix=f"run `synth filter` with --heldout {heldout.path.name}",
        )
    else:
        yield Check(name, "ok", f"none of {len(heldout.items)} stands in the rows word for word")
    documents = {row.document_id for row in (*dataset.train, *dataset.validation)}
    of_them = [item for item in heldout.items if item.document_id in documents]
    if of_them:
        yield Check(
            "held-out documents",
            "note",
            f"{len(of_them)} of {len(heldout.items)} held-out questions are about documents of the dataset",
            rows=len(of_them),
            ids=tuple(item.id for item in of_them[:NAMED]),
        )


def _asking(row: Row) -> dict[str, list[dict[str, str]]]:
    """Return the row's questions as user turns: of plain text its lines, with and without a word and a colon before."""
    if row.conversational:
        turns = [turn for side in (row.prompt, row.completion) for turn in side if not isinstance(turn, str)]
        return {"prompt": [turn.to_json() for turn in turns]}
    text = str(row.prompt) or str(row.completion)
    lines = [text, *text.splitlines()]
    lines += [after for line in lines[1:] if (after := line.partition(":")[2])]
    return {"prompt": [{"role": "user", "content": line} for line in lines]}


def _failed(name: str, ids: Sequence[str], message: str, fix: str) -> Check:
    return Check(name, "error", f"{listed(ids)}: {message}", rows=len(ids), ids=tuple(ids[:NAMED]), fix=fix)
