"""The same clock and the same token counter in any SFTTrainer, ours or a bare one, from outside."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import TrainerCallback
from trl import SFTTrainer


class Enough(Exception):
    """Enough steps were seen; nothing needs to be saved."""


class Clock(TrainerCallback):
    """Takes the time and the processor time after each step, and ends the training after so many."""

    def __init__(self, steps: int | None = None) -> None:
        self.wall: list[float] = []
        self.processor: list[float] = []
        self.losses: list[float] = []
        self._steps = steps

    def on_step_end(self, args: object, state: Any, control: object, **_: object) -> None:  # noqa: ANN401
        """Note the step.

        Raises:
            Enough: it was the last one wanted.
        """
        self.wall.append(time.monotonic())
        self.processor.append(time.process_time())
        if self._steps is not None and state.global_step >= self._steps:
            raise Enough

    def on_train_end(self, args: object, state: Any, control: object, **_: object) -> None:  # noqa: ANN401
        """Keep the loss of every step that was logged."""
        self.losses = [entry["loss"] for entry in state.log_history if "loss" in entry]


class Window(TrainerCallback):
    """Counts time, tokens and memory between two steps, with the GPU idle at both ends.

    `tokens` are real ones, padding left out; `squares` is the sum over rows of their length times itself, `labelled`
    the tokens that are predicted and count in the loss, `places` all positions computed, padding included.
    """

    def __init__(self, warm_up: int, steps: int) -> None:
        self._first, self._last = warm_up, warm_up + steps
        self._began: float | None = None
        self.steps = steps
        self.seconds = 0.0
        self.memory = 0
        self.weights = ""
        self.attention = ""
        self._sums: torch.Tensor | None = None

    def count(self, inputs: dict[str, Any]) -> None:
        """Add a batch; sums stay on the device, so that nobody waits for them."""
        if self._began is None:
            return
        labels = inputs["labels"]
        padded = "attention_mask" in inputs
        lengths = inputs["attention_mask"].sum(1) if padded else inputs["cu_seq_lens_q"].diff()
        lengths = lengths.to(labels.device, torch.float64)
        labelled = (labels[:, 1:] != -100).sum().to(torch.float64)
        places = torch.full_like(labelled, labels.numel())
        sums = torch.stack([lengths.sum(), (lengths * lengths).sum(), labelled, places])
        self._sums = sums if self._sums is None else self._sums + sums

    @property
    def counted(self) -> dict[str, float]:
        """The sums by name."""
        assert self._sums is not None, "no batch was counted"
        return dict(zip(("tokens", "squares", "labelled", "places"), self._sums.tolist(), strict=True))

    def on_step_end(self, args: object, state: Any, control: object, **also: Any) -> None:  # noqa: ANN401
        """Open the window after the first steps, and close it after the last.

        Raises:
            Enough: it is closed.
        """
        if state.global_step == self._first:
            _wait()
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            self._began = time.monotonic()
        elif state.global_step == self._last:
            _wait()
            assert self._began is not None
            self.seconds = time.monotonic() - self._began
            self.memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
            model = also["model"]
            kinds = sorted({str(weight.dtype).removeprefix("torch.") for weight in model.parameters()})
            self.weights = "+".join(kinds)
            self.attention = model.config._attn_implementation
            raise Enough


@contextmanager
def watched(callback: Clock | Window) -> Iterator[None]:
    """Put the callback into every SFTTrainer that is built meanwhile."""
    build, step = SFTTrainer.__init__, SFTTrainer.training_step

    def build_watched(self: Any, *arguments: Any, **named: Any) -> None:  # noqa: ANN401
        build(self, *arguments, **named)
        self.add_callback(callback)

    def step_counted(self: Any, model: Any, inputs: dict[str, Any], *more: Any, **named: Any) -> Any:  # noqa: ANN401
        callback.count(inputs)  # type: ignore[union-attr]
        return step(self, model, inputs, *more, **named)

    SFTTrainer.__init__ = build_watched
    if isinstance(callback, Window):
        SFTTrainer.training_step = step_counted
    try:
        yield
    finally:
        SFTTrainer.__init__, SFTTrainer.training_step = build, step


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
