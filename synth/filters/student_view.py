"""`answer_loss` and `ifd`: how hard an answer is for the student, with its question and without.

Instruction-following difficulty: Li, Zhang, Li, Chen, Chen, Cheng, Wang, Zhou and Xiao, "From Quantity to Quality:
Boosting LLM Performance with Self-Guided Data Selection for Instruction Tuning" (NAACL 2024), section 2.2: the loss
of the answer given the question, divided by its loss alone. Near or above 1 the question is no help to the student.
"""

import contextlib
import importlib
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from jinja2 import TemplateError

from synth.core.errors import ConfigError
from synth.core.records import Record
from synth.filters.model_base import ModelScores, in_short

# Tokens, of which the last so many are the answer's.
_Sequence = tuple[tuple[int, ...], int]
_Tokens = tuple[Sequence[int], int]


class LossReader(Protocol):
    """Something that reads token sequences as a language model does."""

    def losses(self, sequences: Sequence[_Tokens]) -> list[float]:
        """Return the mean loss (nats) of the last so many tokens of each sequence, given all before them."""
        ...


class StudentView:
    """Reads answers with a student's base, loaded here with transformers, and measures how much they surprise it.

    Gives `answer_loss`, the mean loss of the answer's tokens after the prompt, in nats a token, and `ifd`, that
    divided by the loss of the same tokens after the head of an assistant's turn alone. The chat template of the
    model is applied; the answer's own tokens are counted, not those that end its turn. None, with a remark that says
    why, where the answer has no token, the whole is longer than the student takes, or its template refuses the turns.

    Args:
        model: a local folder or a hub id.
        revision: of the hub.
        max_length: the longest prompt and answer in tokens; the model's own limit where that is less or none is given.
        batch_tokens: how many tokens, padding included, are read at once.
        device: as torch names it; a GPU where there is one unless given.
        reader: reads in place of the weights, which are not loaded then: `synth.inference.prompt_logprobs`, for a
            student that a vLLM server serves. `model` is where its tokenizer is.

    Raises:
        ConfigError: transformers is not installed, the model cannot be loaded, or it has no chat template.
    """

    name = "student_view"
    scores: tuple[str, ...] = ("answer_loss", "ifd")

    def __init__(
        self,
        model: str | Path,
        *,
        revision: str | None = None,
        max_length: int | None = None,
        batch_tokens: int = 4096,
        device: str | None = None,
        reader: LossReader | None = None,
    ) -> None:
        self._tokenizer, own = _tokenizer(str(model), revision)
        limits = [limit for limit in (max_length, own) if limit is not None]
        self._max_length = min(limits) if limits else None
        if reader is not None and self._max_length is not None:
            self._max_length -= 1  # a server has to write one token
        self._reader = reader or _Weights(str(model), revision, device, batch_tokens)

    def score(self, records: Sequence[Record]) -> list[ModelScores]:
        """Return `answer_loss` and `ifd` of each record, in order; the batches do not change them."""
        pairs = [self._sequences(record) for record in records]
        # The same answer is often given to many questions; alone it is read once.
        losses = self._losses({sequence for pair in pairs if not isinstance(pair, str) for sequence in pair})
        found = []
        for pair in pairs:
            if isinstance(pair, str):
                found.append(ModelScores(dict.fromkeys(self.scores), pair))
                continue
            asked, alone = losses[pair[0]], losses[pair[1]]
            found.append(ModelScores({"answer_loss": asked, "ifd": asked / alone if alone else None}))
        return found

    def _sequences(self, record: Record) -> tuple[_Sequence, _Sequence] | str:
        """Return the answer after its prompt and after nothing but the head of its turn, or why it cannot be read."""
        messages = [message.to_json() for message in (*record.prompt, *record.completion[:-1])]
        try:
            prompt = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            bare = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
        except TemplateError as error:
            # Some templates know no system message, or refuse two turns of one role.
            return f"the student's chat template refuses the conversation: {in_short(str(error), 100)}"
        # Many templates refuse an empty conversation, so the head is what the generation prompt adds to this one.
        head = prompt[len(bare) :] if prompt.startswith(bare) else ""
        # Apart, so that the answer has the same tokens after either.
        answer = self._tokens(record.answer)
        before, start = self._tokens(prompt), self._tokens(head) or self._first()
        if not answer or not before:
            return "the answer is empty"
        if self._max_length is not None and len(before) + len(answer) > self._max_length:
            return f"longer than the {self._max_length} tokens that the student takes"
        return ((*before, *answer), len(answer)), ((*start, *answer), len(answer))

    def _tokens(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _first(self) -> list[int]:
        """Return a token for the answer's first one to follow, where the template has no head of a turn."""
        known = (self._tokenizer.bos_token_id, self._tokenizer.eos_token_id)
        return [token for token in known if token is not None][:1] or [0]

    def _losses(self, sequences: set[_Sequence]) -> dict[_Sequence, float]:
        """Return the mean loss of the counted tokens of each."""
        ordered = sorted(sequences, key=lambda sequence: (len(sequence[0]), sequence))
        return dict(zip(ordered, self._reader.losses(ordered), strict=True))


class _Weights:
    """A model loaded here."""

    def __init__(self, model: str, revision: str | None, device: str | None, batch_tokens: int) -> None:
        self._torch = _library("torch")
        self._device = device or ("cuda" if self._torch.cuda.is_available() else "cpu")
        self._model = _load(model, revision, self._torch, self._device)
        self._keeps = "logits_to_keep" in inspect.signature(self._model.forward).parameters
        self._batch_tokens = batch_tokens

    def losses(self, sequences: Sequence[_Tokens]) -> list[float]:
        return [loss for batch in _batches(sequences, self._batch_tokens) for loss in self._read(batch)]

    def _read(self, batch: Sequence[_Tokens]) -> list[float]:
        torch = self._torch
        width = max(len(tokens) for tokens, _ in batch)
        # Padding stands to the right: a causal model's token never sees what follows it.
        rows = torch.tensor([[*tokens, *[0] * (width - len(tokens))] for tokens, _ in batch], device=self._device)
        mask = torch.tensor([[1] * len(t) + [0] * (width - len(t)) for t, _ in batch], device=self._device)
        first = min(len(tokens) - counted for tokens, counted in batch) - 1 if self._keeps else 0
        with torch.inference_mode():
            # Logits are by far the largest thing here, so none are made for the part that nobody's answer stands in.
            kept = {"logits_to_keep": torch.arange(first, width, device=self._device)} if self._keeps else {}
            logits = self._model(input_ids=rows, attention_mask=mask, use_cache=False, **kept).logits
            found = []
            for row, (tokens, counted) in enumerate(batch):
                start, end = len(tokens) - counted, len(tokens)
                predicted = logits[row, start - 1 - first : end - 1 - first].float()
                found.append(float(torch.nn.functional.cross_entropy(predicted, rows[row, start:end])))
        return found


def _batches(sequences: Sequence[_Tokens], most: int) -> Iterator[list[_Tokens]]:
    """Cut sequences, the shortest first, into batches of at most `most` tokens with padding, or of one sequence."""
    batch: list[_Tokens] = []
    for sequence in sequences:
        if batch and (len(batch) + 1) * len(sequence[0]) > most:
            yield batch
            batch = []
        batch.append(sequence)
    if batch:
        yield batch


@contextlib.contextmanager
def _no_bar(logging: Any) -> Iterator[None]:  # noqa: ANN401
    """Keep the bar of the loader off the screen, which is the progress display's."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _library(name: str) -> Any:  # noqa: ANN401  (an untyped module)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"{name} is not installed", fix="install the extra: pip install 'synth-tune[tune]'"
        ) from error


def _tokenizer(model: str, revision: str | None) -> tuple[Any, int | None]:
    """Return the tokenizer and how many tokens the model takes, where it says so."""
    transformers = _library("transformers")
    with _loading(model):
        tokenizer = transformers.AutoTokenizer.from_pretrained(model, revision=revision)
        config = transformers.AutoConfig.from_pretrained(model, revision=revision)
    if not tokenizer.chat_template:
        raise ConfigError("has no chat template", where=f"student {model}", fix="take a student that has one")
    return tokenizer, getattr(config, "max_position_embeddings", None)


def _load(model: str, revision: str | None, torch: Any, device: str) -> Any:  # noqa: ANN401
    transformers = _library("transformers")
    # On a CPU half precision is slow, and too coarse for a loss.
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    with _loading(model), _no_bar(transformers.utils.logging):
        loaded = transformers.AutoModelForCausalLM.from_pretrained(model, revision=revision, dtype=dtype)
    return loaded.to(device).eval()


@contextlib.contextmanager
def _loading(model: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"cannot be loaded ({reason})", where=f"student {model}", fix="name a folder or a hub id"
        ) from error
