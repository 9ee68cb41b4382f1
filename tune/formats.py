"""Rows of other makers in this project's form: the formats of TRL, ShareGPT and Alpaca, told apart by their columns.

A row that could be read in more than one way is read as `messages`, else `conversations`, else `prompt` and
`completion`, else `instruction` and `output`, else `text`. What cannot be trained on is an error, never left out.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from synth.core.errors import RecordError, did_you_mean
from synth.core.records import Message, content_id, folded
from tune.rows import Row

Sides = tuple[tuple[Message, ...] | str, tuple[Message, ...] | str]

COLUMNS = frozenset(
    {
        "id", "document_id", "scores", "messages", "conversations", "prompt", "completion", "instruction", "input",
        "output", "text", "system", "history", "chosen", "rejected", "tools", "functions", "chat_template_kwargs",
        "image", "images", "audio", "audios", "video", "videos",
    }
)  # fmt: skip
"""The columns that are looked at."""

# What the row's meaning would lose if it were left out, and why it is not read.
_UNREAD = {
    "tools": "tools are not trained on",
    "functions": "tools are not trained on",
    "history": "earlier turns are read from messages, and beside instruction and output",
    "chat_template_kwargs": "the chat template is given nothing but the turns",
    **{name: "only text is trained on" for name in ("image", "images", "audio", "audios", "video", "videos")},
}
_UNREAD_IN_TURN = {
    **{name: "tools are not trained on" for name in ("tool_calls", "tool_call_id", "function_call")},
    **{name: "put it in the content, as the student shall write it" for name in ("reasoning_content", "thinking")},
    **{name: "only text is trained on" for name in ("images", "audio", "video")},
}

_ROLES = {
    "system": "system", "developer": "developer", "user": "user", "human": "user", "assistant": "assistant",
    "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant",
}  # fmt: skip
_PLAIN_ROLES = frozenset({"system", "user", "assistant"})
_TOOL_ROLES = frozenset({"tool", "function", "function_call", "observation", "ipython", "tool_call", "tool_response"})

# Names that other makers give to what is called otherwise here.
_RENAMED = {
    "question": "prompt", "query": "prompt", "input": "prompt", "request": "prompt", "inputs": "prompt",
    "answer": "completion", "response": "completion", "output": "completion", "reply": "completion",
    "target": "completion", "targets": "completion", "answers": "completion", "chosen": "completion",
    "conversation": "messages", "dialog": "messages", "dialogue": "messages", "chat": "messages", "turns": "messages",
    "content": "text", "document": "text", "passage": "text",
}  # fmt: skip
_KNOWN = "messages, prompt and completion, text, conversations, or instruction and output"
_LONGEST_NAME = 200


def to_row(value: Any, source: str) -> Row:  # noqa: ANN401  (any JSON)
    """Return one row of any known format.

    Its id is the row's own `id`, else a digest of its content; its document is the row's `document_id`, else a digest
    of the prompt, so that rows that ask the same count as one document.

    Raises:
        RecordError: the row is of no known format, or would teach nothing. The error names no place: the caller knows.
    """
    if not isinstance(value, dict):
        raise RecordError(f"not an object but {_kind(value)}", fix=f"write rows with {_KNOWN}")
    columns = {name: item for name, item in value.items() if item is not None}
    for name in sorted(_UNREAD.keys() & columns.keys()):
        if columns[name] and not (name == "history" and "instruction" in columns):
            why = _UNREAD[name]
            raise RecordError(f"the row has {name!r}: {why}", fix=f"leave {name!r} out if the row is right without it")
    prompt, completion = _sides(columns, value)
    asked = prompt or completion  # Plain text is asked by nobody, so it is its own document.
    return Row(
        id=_name(columns.get("id")) or content_id(_plain(prompt), _plain(completion)),
        document_id=_name(columns.get("document_id")) or asked_key(asked),
        prompt=prompt,
        completion=completion,
        source=source,
        scores=_scores(columns.get("scores")),
    )


def prompt_key(row: Row) -> str:
    """Return a key that two rows share if and only if they ask the same, case and white space apart."""
    return asked_key(row.prompt or row.completion)


def asked_key(side: Sequence[Message] | str) -> str:
    """Return a digest of what a side of a row says, case and white space apart."""
    if isinstance(side, str):
        return content_id(folded(side))
    return content_id([[m.role, folded(m.content)] for m in side])


def _plain(side: tuple[Message, ...] | str) -> object:
    return side if isinstance(side, str) else [m.to_json() for m in side]


def _name(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    name = str(value)
    return name if name.strip() and len(name) <= _LONGEST_NAME else ""


def _scores(value: object) -> dict[str, float | None]:
    if not isinstance(value, dict):
        return {}
    numbers = {k: v for k, v in value.items() if isinstance(k, str) and (v is None or _is_number(v))}
    return {k: None if v is None else float(v) for k, v in numbers.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _sides(columns: Mapping[str, Any], value: Mapping[str, Any]) -> Sides:
    """Return prompt and completion, by the first format whose columns are there."""
    if "messages" in columns:
        return _conversation(_turns(columns["messages"], "messages"), columns)
    if "conversations" in columns:
        return _conversation(_turns(columns["conversations"], "conversations"), columns)
    if "prompt" in columns and "completion" in columns:
        return _pair(columns["prompt"], columns["completion"])
    if "chosen" in columns or "rejected" in columns:
        raise RecordError(
            "a preference pair (prompt, chosen, rejected), and supervised tuning learns from one completion",
            fix="name the column 'completion' that the student shall learn, and leave the other out",
        )
    if "instruction" in columns and "output" in columns:
        return _alpaca(columns)
    if "text" in columns:
        return "", _text(columns["text"], "text")
    raise _unknown(value)


def _unknown(value: Mapping[str, Any]) -> RecordError:
    """Return the error for a row without a known format, with the nearest one."""
    wanted = ("messages", "conversations", "prompt", "completion", "instruction", "output", "text")
    empty = [name for name in wanted if name in value and value[name] is None]
    names = sorted(str(name) for name in value)
    shown = ", ".join(name[:40] for name in names[:12]) + (", …" if len(names) > 12 else "")
    if empty:
        return RecordError(f"{' and '.join(map(repr, empty))} is null", fix=f"a row has {_KNOWN}")
    renamed: dict[str, str] = {}
    for name in names:
        near = _RENAMED.get(name.casefold())
        if near is None and name not in COLUMNS:
            guess = did_you_mean(name, wanted)
            near = guess.removeprefix("did you mean ").removesuffix("?") if guess.startswith("did you") else None
        if near is not None and near not in value and near not in renamed.values():
            renamed[name] = near
    fix = " and ".join(f"{old!r} to {new!r}" for old, new in renamed.items())
    return RecordError(
        f"of no known format: its columns are {shown or 'none'}",
        fix=f"rename {fix} (known: {_KNOWN})" if fix else f"write rows with {_KNOWN}",
    )


def _turns(value: object, name: str) -> list[Message]:
    if not isinstance(value, list):
        raise RecordError(f"{name!r} is not a list of turns but {_kind(value)}", fix="see docs/training-data.md")
    return [_turn(turn, number, name) for number, turn in enumerate(value, 1)]


def _turn(turn: object, number: int, name: str) -> Message:
    # Nearly all turns are of this form, and need no more than that.
    if isinstance(turn, dict) and len(turn) == 2 and "role" in turn and "content" in turn:
        plain, text = turn["role"], turn["content"]
        if isinstance(text, str) and isinstance(plain, str) and plain in _PLAIN_ROLES:
            return Message(plain, text)
    where = f"turn {number} of {name!r}"
    if not isinstance(turn, dict):
        raise RecordError(f"{where} is not an object but {_kind(turn)}", fix="write turns as role and content")
    for key in sorted(_UNREAD_IN_TURN.keys() & turn.keys()):
        if turn[key]:
            raise RecordError(f"{where} has {key!r}: {_UNREAD_IN_TURN[key]}", fix="mend or remove the row")
    if turn.get("weight") == 0:
        raise RecordError(
            f"{where} has weight 0, and every assistant turn of a completion is trained on",
            fix="put the turns before the first one to learn in 'prompt', and the rest in 'completion'",
        )
    role = turn.get("role", turn.get("from"))
    content = turn.get("content", turn.get("value"))
    if not isinstance(role, str):
        raise RecordError(f"{where} has no role", fix="write turns as role and content, or from and value")
    if role.casefold() in _TOOL_ROLES:
        raise RecordError(f"{where} is of a tool ({role}): tools are not trained on", fix="leave the row out")
    known = _ROLES.get(role.casefold())
    if known is None:
        raise RecordError(f"{where} has the unknown role {role[:40]!r}", fix=did_you_mean(role.casefold()[:40], _ROLES))
    return Message(known, _text(content, f"content of {where}"))


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise RecordError(f"the {name} is not text but {_kind(value)}", fix="only text is trained on")
    if name == "text" and not value.strip():
        raise RecordError("the text is empty", fix="remove the row")
    return value


def _conversation(turns: list[Message], columns: Mapping[str, Any]) -> Sides:
    """Split a conversation before its first assistant turn."""
    system = columns.get("system")
    if isinstance(system, str) and system.strip() and not any(turn.role == "system" for turn in turns):
        turns = [Message("system", system), *turns]
    first = next((place for place, turn in enumerate(turns) if turn.role == "assistant"), None)
    if first is None:
        raise RecordError("the conversation has no assistant turn, so there is nothing to learn", fix="remove the row")
    return _checked(tuple(turns[:first]), tuple(turns[first:]))


def _pair(prompt: object, completion: object) -> Sides:
    if isinstance(prompt, str) and isinstance(completion, str):
        if not prompt.strip():
            raise RecordError("the prompt is empty", fix="to learn every token, give the row as 'text' alone")
        if not completion.strip():
            raise RecordError("the completion is empty, so there is nothing to learn", fix="remove the row")
        return prompt, completion
    if isinstance(prompt, list) and isinstance(completion, list):
        return _checked(tuple(_turns(prompt, "prompt")), tuple(_turns(completion, "completion")))
    raise RecordError(
        f"the prompt is {_kind(prompt)} and the completion is {_kind(completion)}",
        fix="write both as text, or both as lists of turns",
    )


def _alpaca(columns: Mapping[str, Any]) -> Sides:
    """Read instruction, input and output; `history` holds earlier questions and answers, learned like any others."""
    asked = _text(columns["instruction"], "instruction")
    more = _text(columns.get("input", ""), "input")
    turns = []
    for number, pair in enumerate(columns.get("history", ()), 1):
        if not isinstance(pair, list) or len(pair) != 2:
            raise RecordError(f"entry {number} of 'history' is not a question and an answer", fix="mend the row")
        turns += [Message(role, _text(text, "history")) for role, text in zip(("user", "assistant"), pair, strict=True)]
    turns.append(Message("user", f"{asked}\n\n{more}" if more.strip() else asked))
    turns.append(Message("assistant", _text(columns["output"], "output")))
    return _conversation(turns, columns)


def _checked(prompt: tuple[Message, ...], completion: tuple[Message, ...]) -> Sides:
    """Return the sides, if they are ones that a student can be asked and can learn to write."""
    if not any(turn.content.strip() for turn in prompt):
        raise RecordError("the prompt is empty", fix="begin with a system or user turn, or remove the row")
    if prompt[-1].role == "assistant":
        raise RecordError("the prompt ends with an assistant turn", fix="move that turn to the completion")
    if not completion or completion[0].role != "assistant":
        found = f"starts with a {completion[0].role} turn" if completion else "is empty"
        raise RecordError(f"the completion {found}", fix="start it with an assistant turn, or remove the row")
    if completion[-1].role != "assistant":
        raise RecordError(
            f"the conversation ends with a {completion[-1].role} turn, which nobody answers",
            fix="cut it off after its last assistant turn",
        )
    if not all(turn.content.strip() for turn in completion if turn.role == "assistant"):
        which = "the completion is" if len(completion) == 1 else "an assistant turn is"
        raise RecordError(f"{which} empty, so there is nothing to learn", fix="remove the row")
    return prompt, completion


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
