"""What looks on at a training: it reports every step, and says when to save and when to stop."""

import math
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback

from synth.core.errors import RunError
from tune.progress import Progress

_EXPLODED = 3  # Steps over which the loss has to be high before it counts as exploded.
_EASY = 2.0  # Nats a token: a loss that begins below counts as this one.

Agree = Callable[[Sequence[bool]], Sequence[bool]]


class Watch(TrainerCallback):  # type: ignore[misc]
    """Reports every step, stops on a loss that is no number or explodes, and says when to save and when to stop.

    Args:
        on_progress: called after every step and every validation loss.
        save_every: seconds between checkpoints; 0 saves at every step.
        early_stopping: validation losses without a new lowest one after which the training stops; 0 for never.
    """

    def __init__(
        self, on_progress: Callable[[Progress], None] | None, save_every: float, *, early_stopping: int = 0
    ) -> None:
        self._on_progress, self._save_every, self._interval = on_progress, save_every, save_every
        self._early_stopping = early_stopping
        self._stop_asked = threading.Event()
        self._tokens_before = 0
        self._seen: dict[str, float] = {}
        self._began = self._last_saved = time.monotonic()
        self._step_began = 0
        self.seconds_before = 0.0
        self.first_step_at: float | None = None
        self.interrupted = self.stopped_early = False
        self.agree: Agree = lambda flags: flags

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of training, those before a resume included."""
        return self.seconds_before + time.monotonic() - self._began

    def ask_to_stop(self) -> None:
        """Let the step that runs end, save, and stop. Safe to call from a signal handler."""
        self._stop_asked.set()

    def saved(self, seconds: float) -> None:
        """Note that writing a checkpoint took so long, and keep such writes below a twentieth of the time."""
        self._last_saved = time.monotonic()
        self._interval = max(self._save_every, 20 * seconds) if self._save_every else 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: object) -> None:  # noqa: ANN401
        """Start the clocks."""
        self._began = self._last_saved = time.monotonic()
        self._step_began = state.global_step
        self._tokens_before = int(next((e["num_tokens"] for e in reversed(state.log_history) if "num_tokens" in e), 0))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: object) -> Any:  # noqa: ANN401
        """Ask for what is due: a validation at the end, a checkpoint, a stop."""
        if self.first_step_at is None:
            self.first_step_at = time.monotonic()
        if state.global_step >= state.max_steps and args.eval_strategy != "no":
            control.should_evaluate = True  # The last weights are judged, whatever the interval.
        due = time.monotonic() - self._last_saved >= self._interval
        stop, due = self.agree([self._stop_asked.is_set(), due])
        if stop:
            self.interrupted = control.should_training_stop = True
        # After the last step there is nothing to go on to: Trainer would take one more.
        if (stop or due) and state.global_step < state.max_steps:
            control.should_save = True
        return control

    def on_log(self, args: Any, state: Any, control: Any, **also: Any) -> None:  # noqa: ANN401
        """Take up the losses and report them.

        Raises:
            RunError: one of them is not a number any more, or the training loss explodes.
        """
        logs: Mapping[str, float] = also["logs"]
        for key in ("loss", "eval_loss", "grad_norm"):
            if not math.isfinite(logs.get(key, 0.0)):
                raise RunError(
                    f"the {key.replace('_', ' ')} is {logs[key]} at step {state.global_step}",
                    fix="lower --learning-rate, or train with --precision fp32",
                )
        if "loss" not in logs and "eval_loss" not in logs:
            return  # Trainer's summary at the end.
        if "loss" in logs:
            _check_explosion(state)
        self._seen.update(logs)
        self._report(state)

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: object) -> Any:  # noqa: ANN401
        """Stop where the validation loss has not fallen for as long as the settings say."""
        losses = [entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry]
        since_best = len(losses) - 1 - losses.index(min(losses))
        if self._early_stopping and since_best >= self._early_stopping and state.global_step < state.max_steps:
            self.stopped_early = control.should_training_stop = True
            # A checkpoint of this step would be gone on from, past the end.
            control.should_save = False
        return control

    def _report(self, state: Any) -> None:  # noqa: ANN401
        if self._on_progress is None:
            return
        passed = max(time.monotonic() - self._began, 1e-9)
        done = state.global_step - self._step_began
        tokens = int(self._seen.get("num_tokens", 0))
        self._on_progress(
            Progress(
                step=state.global_step,
                total=state.max_steps,
                epoch=state.epoch or 0.0,
                loss=self._seen.get("loss"),
                validation_loss=self._seen.get("eval_loss"),
                tokens_per_second=(tokens - self._tokens_before) / passed,
                learning_rate=self._seen.get("learning_rate"),
                grad_norm=self._seen.get("grad_norm"),
                tokens=tokens,
                memory=held_memory(),
                seconds=self.seconds,
                seconds_left=passed / done * (state.max_steps - state.global_step) if done else None,
            )
        )


def _check_explosion(state: Any) -> None:  # noqa: ANN401
    """Stop a training whose loss stands far above where it began: its weights are ruined, more steps would not help."""
    first = next(entry["loss"] for entry in state.log_history if "loss" in entry)
    latest = (entry["loss"] for entry in reversed(state.log_history) if "loss" in entry)
    recent = list(islice(latest, _EXPLODED + 1))
    # Some rows are easier than others, and the first step may have met those alone.
    start = max(first, _EASY)
    if len(recent) > _EXPLODED and min(recent[:_EXPLODED]) > min(1.5 * start + 1, start + 3):
        raise RunError(
            f"the loss explodes: it began at {first:.2f} and was at least {min(recent[:_EXPLODED]):.2f} over the last "
            f"{_EXPLODED} steps (now at step {state.global_step})",
            fix="lower --learning-rate to a third, or lengthen --warmup; see the rows with `tune sft RUN --preflight`",
        )


def held_memory() -> int:
    """Return the most memory that was held so far, in bytes: of the GPU where there is one, else of the process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_reserved())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def stopping_on_signals(watch: Watch) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the step that runs, save and stop; a second one stops at once.

    Only the main thread of a process may set signal handlers; elsewhere nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    known = (signal.SIGINT, signal.SIGTERM)

    def stop(number: int, frame: FrameType | None) -> None:
        watch.ask_to_stop()
        for one in known:
            signal.signal(one, _at_once)

    before = {number: signal.signal(number, stop) for number in known}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _at_once(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
