"""The rows of each format, as the tools that read them expect them.

A format takes the turns of a record (the prompt's and the completion's) and gives a row, or None where it has no
way to say them. Nothing is bent to fit: the stage counts what has no row and refuses.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Turns = Sequence[Mapping[str, str]]
Row = dict[str, Any]
# The type of a column in the words of a dataset card: "string", or what `features` below is made of.
Column = Mapping[str, Any]

_TURNS: Column = {"list": [{"name": "role", "dtype": "string"}, {"name": "content", "dtype": "string"}]}
_TEXT: Column = {"dtype": "string"}


@dataclass(frozen=True, slots=True)
class Shape:
    """What the rows of this dataset need beyond the least: systems turns, turns before the last question."""

    system: bool = False
    history: bool = False


@dataclass(frozen=True, slots=True)
class Format:
    """A way to write rows.

    `row` gives the columns of the format itself or None where it cannot say these turns; `columns` their types.
    `parquet` says whether files are parquet (else JSONL), `lean` whether rows have by default no more columns.
    """

    name: str
    row: Callable[[Turns, Turns, Shape], Row | None]
    columns: Callable[[Shape], Mapping[str, Column]]
    parquet: bool = False
    lean: bool = True


def _messages(prompt: Turns, completion: Turns, shape: Shape) -> Row:
    return {"messages": [_turn(turn) for turn in (*prompt, *completion)]}


def _prompt_completion(prompt: Turns, completion: Turns, shape: Shape) -> Row:
    return {"prompt": [_turn(turn) for turn in prompt], "completion": [_turn(turn) for turn in completion]}


def _turn(turn: Mapping[str, str]) -> Row:
    return {"role": turn["role"], "content": turn["content"]}


_SHAREGPT = {"system": "system", "user": "human", "assistant": "gpt"}


def _sharegpt(prompt: Turns, completion: Turns, shape: Shape) -> Row:
    return {
        "conversations": [
            {"from": _SHAREGPT[turn["role"]], "value": turn["content"]} for turn in (*prompt, *completion)
        ]
    }


def _alpaca(prompt: Turns, completion: Turns, shape: Shape) -> Row | None:
    """The last exchange is instruction and output; LLaMA-Factory reads earlier ones from `history`, `system` beside."""
    turns = [*prompt, *completion]
    system = turns.pop(0)["content"] if turns and turns[0]["role"] == "system" else ""
    asked, told = turns[::2], turns[1::2]
    if not told or len(asked) != len(told):
        return None
    if any(turn["role"] != "user" for turn in asked) or any(turn["role"] != "assistant" for turn in told):
        return None
    pairs = [[a["content"], t["content"]] for a, t in zip(asked, told, strict=True)]
    row: Row = {"instruction": pairs[-1][0], "input": "", "output": pairs[-1][1]}
    if shape.system:
        row["system"] = system
    if shape.history:
        row["history"] = pairs[:-1]
    return row


def _alpaca_columns(shape: Shape) -> Mapping[str, Column]:
    names = ["instruction", "input", "output", *(["system"] if shape.system else [])]
    return {**dict.fromkeys(names, _TEXT), **({"history": {"list": {"list": "string"}}} if shape.history else {})}


def _same(columns: Mapping[str, Column]) -> Callable[[Shape], Mapping[str, Column]]:
    return lambda shape: columns


_PAIR = {"prompt": _TURNS, "completion": _TURNS}
_SPOKEN: Column = {"list": [{"name": "from", "dtype": "string"}, {"name": "value", "dtype": "string"}]}

FORMATS: Mapping[str, Format] = {
    form.name: form
    for form in (
        Format("messages", _messages, _same({"messages": _TURNS})),
        Format("prompt-completion", _prompt_completion, _same(_PAIR)),
        Format("alpaca", _alpaca, _alpaca_columns),
        Format("sharegpt", _sharegpt, _same({"conversations": _SPOKEN})),
        Format("parquet", _prompt_completion, _same(_PAIR), parquet=True, lean=False),
        Format("hub", _prompt_completion, _same(_PAIR), parquet=True, lean=False),
    )
}
"""The formats by name."""


def shape_of(prompt: Turns, completion: Turns) -> Shape:
    """Return what these turns need of a format."""
    turns = [*prompt, *completion]
    system = any(turn["role"] == "system" for turn in turns)
    return Shape(system, sum(turn["role"] == "assistant" for turn in turns) > 1)


@dataclass(frozen=True, slots=True)
class Layout:
    """A format with the columns of this dataset: what a row holds and of which type each column is.

    `scores` are the names of the scores, in order, where rows carry them and where they came from; else None.
    """

    format: Format
    shape: Shape = field(default_factory=Shape)
    scores: tuple[str, ...] | None = None

    @property
    def columns(self) -> Mapping[str, Column]:
        """The types of the columns, in order."""
        columns = dict(self.format.columns(self.shape))
        if self.scores is not None:
            columns |= dict.fromkeys(_ORIGIN, _TEXT)
            if self.scores:  # a struct of nothing is no column
                columns["scores"] = {"struct": [{"name": name, "dtype": "float64"} for name in self.scores]}
        return columns

    def row(self, kept: Mapping[str, Any], record: Mapping[str, Any]) -> Row | None:
        """Return the row of a dataset row and its record, or None where the format cannot say its turns."""
        row = self.format.row(kept["prompt"], kept["completion"], self.shape)
        if row is None or self.scores is None:
            return row
        # All rows have the same keys, so that a reader finds the same types in any part of the file.
        row |= {name: record[name] for name in _ORIGIN if name != "teacher"}
        row["teacher"] = public_name(record["provenance"]["teacher"])
        if self.scores:
            row["scores"] = {name: _number(record["scores"].get(name)) for name in self.scores}
        return row


_ORIGIN = ("id", "document_id", "passage_id", "kind", "generator", "teacher")


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)


def public_name(name: str) -> str:
    """Return a model's name without the folders it lay in: a path of this machine is nobody's business."""
    path = name.replace("\\", "/").rstrip("/")
    local = path.startswith(("/", ".", "~")) or path.count("/") > 1 or path[1:2] == ":"
    return path.rpartition("/")[2] if local else path
