"""The prompt budget: no contender's prompt is longer than N tokens of the student's own tokenizer.

One budget for all keeps the comparison fair, and no prompt runs into the model's length. A contender that puts more
before a question than fits leaves some of it out: few-shot its last examples, retrieval and the teacher the last
sentences of their last passage. What was left out is counted.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from synth.core.errors import ConfigError
from synth.core.records import Message
from synth.core.tokens import Tokens, load_tokenizer
from tune.candidate import Candidate

# Where a chat template cannot be read: more than the turn marks of the usual templates take.
_AROUND_A_TURN = 8
_LENGTHS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length")
_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")
# Tokenizers without a limit of their own say 1e30.
_NO_LIMIT = 1e9

Count = Callable[[Sequence[Message]], int]


@dataclass(frozen=True, slots=True)
class Parts:
    """A prompt that may be made shorter: `make(n)` has the first n of its `total` parts, `make(0)` the question alone.

    `unit` says in the plural what a part is: "examples", "sentences".
    """

    total: int
    make: Callable[[int], tuple[Message, ...]]
    unit: str = "parts"


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt as it is sent: how many parts of how many it lost, and why it cannot be sent, where that is so."""

    messages: tuple[Message, ...]
    left_out: int = 0
    parts: int = 0
    unit: str = "parts"
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """At most `tokens` a prompt, by `count`, which has the chat template's own tokens in it."""

    tokens: int
    count: Count

    def fit(self, parts: Parts) -> Fitted:
        """Return the prompt with as many of its parts as fit; with an error where the question alone does not."""
        whole = parts.make(parts.total)
        if self.count(whole) <= self.tokens:
            return Fitted(whole, 0, parts.total, parts.unit)
        shortest = parts.make(0) if parts.total else whole
        alone = self.count(shortest)
        if alone > self.tokens:
            error = f"the question alone has {alone} tokens, and a prompt may have {self.tokens}"
            return Fitted(shortest, parts.total, parts.total, parts.unit, error)
        fits, too_many, messages = 0, parts.total, shortest
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            tried = parts.make(middle)
            if self.count(tried) <= self.tokens:
                fits, messages = middle, tried
            else:
                too_many = middle
        return Fitted(messages, parts.total - fits, parts.total, parts.unit)


class Asked(Protocol):
    """A prompt of a contender, for the count of what was left out."""

    @property
    def contender(self) -> str:
        """Whose prompt it is."""
        ...

    @property
    def prompt(self) -> Fitted:
        """The prompt as it is sent."""
        ...


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What the budget took from a contender's prompts.

    Attributes:
        contender: whose prompts.
        prompts: how many prompts it has.
        shortened: how many lost a part.
        left_out: how many parts they lost together.
        parts: how many parts all of its prompts would have.
        unit: what a part is, in the plural.
        too_long: how many questions do not fit even alone; they were not asked.
    """

    contender: str
    prompts: int
    shortened: int
    left_out: int
    parts: int
    unit: str
    too_long: int

    def said(self) -> str:
        """Return it in a sentence, empty where nothing was left out."""
        said = []
        if self.shortened:
            said.append(
                f"{self.shortened} of {self.prompts} prompts were too long for the budget and lost "
                f"{self.left_out} of {self.parts} {self.unit}"
            )
        if self.too_long:
            said.append(f"{self.too_long} of {self.prompts} questions do not fit even alone and were not asked")
        return f"{self.contender}: {'; '.join(said)}." if said else ""

    def to_json(self) -> dict[str, Any]:
        """Return the counts, for verdict.json."""
        return {
            "contender": self.contender,
            "prompts": self.prompts,
            "shortened": self.shortened,
            "left_out": self.left_out,
            "parts": self.parts,
            "unit": self.unit,
            "too_long": self.too_long,
        }


def trimmed(asked: Iterable[Asked]) -> dict[str, Trimmed]:
    """Return what the budget took, by contender, in the order in which they come; contenders that lost nothing too."""
    held: dict[str, list[Fitted]] = {}
    for one in asked:
        held.setdefault(one.contender, []).append(one.prompt)
    return {name: _counted(name, prompts) for name, prompts in held.items()}


def _counted(name: str, prompts: Sequence[Fitted]) -> Trimmed:
    sent = [prompt for prompt in prompts if prompt.error is None]
    return Trimmed(
        contender=name,
        prompts=len(prompts),
        shortened=sum(prompt.left_out > 0 for prompt in sent),
        left_out=sum(prompt.left_out for prompt in sent),
        parts=sum(prompt.parts for prompt in sent),
        unit=next((prompt.unit for prompt in prompts if prompt.parts), "parts"),
        too_long=len(prompts) - len(sent),
    )


def student_budget(
    candidate: Candidate, *, max_tokens: int, tokens: int | None = None, server_args: Sequence[str] = ()
) -> Budget:
    """Return the budget of a candidate: what its model's length leaves for a prompt beside `max_tokens` of the answer.

    Args:
        candidate: its saved tokenizer counts, through its chat template.
        max_tokens: the most tokens of an answer.
        tokens: another budget; it may be lower than what the length leaves, not higher.
        server_args: what is passed through to vLLM; a --max-model-len in it is the model's length.

    Raises:
        ConfigError: there is no tokenizer, nothing says how long the model is, or too little is left for a prompt.
    """
    try:
        length = model_length(candidate)
    except ConfigError:
        if tokens is None:
            raise
        length = None  # the user's own figure does without
    length = _served_length(server_args) or length
    if length is None and tokens is None:
        raise ConfigError(
            "config.json does not say how long the model's input may be",
            where=candidate.spec,
            fix="set --prompt-budget",
        )
    room = None if length is None else length - max_tokens
    if room is not None and room < 1:
        raise ConfigError(
            f"the model takes {length} tokens, so max_tokens {max_tokens} leaves none for a prompt",
            where="--max-tokens",
            fix="lower it",
        )
    if tokens is not None and room is not None and tokens > room:
        raise ConfigError(
            f"the model takes {length} tokens, of which max_tokens leaves {room} for a prompt, not {tokens}",
            where="--prompt-budget",
            fix="lower it, or lower max_tokens",
        )
    held = tokens if tokens is not None else room
    assert held is not None
    return Budget(held, prompt_count(candidate))


def model_length(candidate: Candidate) -> int | None:
    """Return the most tokens that the candidate's model takes, prompt and answer together; None where no file says.

    It is what config.json says of positions, or less where the tokenizer's settings say less.

    Raises:
        ConfigError: the model's config.json cannot be read.
    """
    path = candidate.folder / "config.json"
    config = _read(path if path.is_file() else _config_of(candidate.student, candidate.revision))
    inner = config.get("text_config")
    places = [config, inner] if isinstance(inner, Mapping) else [config]
    known = [place.get(name) for place in places for name in _LENGTHS]
    known.append(_tokenizer_config(candidate).get("model_max_length"))
    lengths = [int(one) for one in known if isinstance(one, int | float) and 0 < one < _NO_LIMIT]
    return min(lengths, default=None)


def _served_length(args: Sequence[str]) -> int | None:
    """Return the length that a server is told to serve, where it is a plain number; the last one counts."""
    found = None
    for part, following in itertools.pairwise([*args, ""]):
        flag, _, value = part.partition("=")
        if flag.replace("_", "-") == "--max-model-len" and (text := value or following).isdecimal():
            found = int(text)
    return found


def prompt_count(candidate: Candidate) -> Count:
    """Return what counts a prompt's tokens with the candidate's tokenizer, as its chat template writes it.

    Where there is no template, or it refuses the turns, eight tokens a turn are added to those of the texts.

    Raises:
        ConfigError: there is no tokenizer.
    """
    own = (candidate.folder / "tokenizer.json").is_file()
    revision = None if own or isinstance(candidate.student, Path) else candidate.revision or None
    tokens = load_tokenizer(candidate.folder if own else candidate.student, revision=revision)
    settings = _tokenizer_config(candidate)
    template = candidate.chat_template.read_text("utf-8") if candidate.chat_template else settings.get("chat_template")
    if not isinstance(template, str):
        return lambda messages: _texts(tokens, messages)
    special = {name: text for name in _SPECIAL if (text := _text(settings.get(name)))}
    return _Templated(tokens, template, special)


class _Templated:
    """Counts the tokens of a prompt as a chat template writes it."""

    def __init__(self, tokens: Tokens, template: str, special: Mapping[str, str]) -> None:
        self._tokens, self._template, self._special = tokens, template, dict(special)

    def __call__(self, messages: Sequence[Message]) -> int:
        from jinja2 import TemplateError  # with transformers: seconds, which only a validation should wait for
        from transformers.utils.chat_template_utils import render_jinja_template

        turns = [message.to_json() for message in messages]
        try:
            written, _ = render_jinja_template(
                conversations=[turns], chat_template=self._template, add_generation_prompt=True, **self._special
            )
        except (TemplateError, TypeError, ValueError):  # it knows no system turn, say; the server will say so
            return _texts(self._tokens, messages)
        return self._tokens(written[0])


def _texts(tokens: Tokens, messages: Sequence[Message]) -> int:
    return sum(tokens(message.content) + _AROUND_A_TURN for message in messages) + _AROUND_A_TURN


def _text(value: object) -> str:
    """Return a special token's text: settings have it as it is, or in a mapping."""
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _tokenizer_config(candidate: Candidate) -> Mapping[str, Any]:
    places = [candidate.folder, *([candidate.student] if isinstance(candidate.student, Path) else [])]
    found = [path for place in places if (path := place / "tokenizer_config.json").is_file()]
    return _read(found[0]) if found else {}


def _config_of(student: str | Path, revision: str) -> Path:
    if isinstance(student, Path):
        return student / "config.json"
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(student, "config.json", revision=revision or None))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise ConfigError(
            f"its config.json cannot be fetched ({str(error).splitlines()[0]})",
            where=student,
            fix=f"fetch the model where there is a network (`hf download {student}`), or set --prompt-budget",
        ) from error


def _read(path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot be read ({error})", where=str(path), fix="copy the model again") from error
    if not isinstance(value, dict):
        raise ConfigError("is no mapping", where=str(path), fix="copy the model again")
    return value
