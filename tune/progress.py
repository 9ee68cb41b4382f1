"""Where a training stands, for whoever shows it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training stands after a step; losses are None before they are first known.

    `loss` is of this step and `validation_loss` the last one measured, in nats a token; `seconds` are of training,
    those before a resume included; `seconds_left` is None until it can be told. `tokens` were trained on so far,
    `tokens_per_second` since this process started. `memory` is the most that was held so far, in bytes: of the GPU
    where there is one, else of the process.
    """

    step: int
    total: int
    epoch: float
    loss: float | None
    validation_loss: float | None
    tokens_per_second: float
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens: int = 0
    memory: int = 0
    seconds: float = 0.0
    seconds_left: float | None = None
