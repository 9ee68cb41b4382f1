"""What is shown while a student is tuned: a live view on a terminal, now and then a line elsewhere.

All of it goes to stderr. Nothing here knows of torch.
"""

import math
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from synth.core.console import duration, notice, size, stderr
from tune.progress import Progress

_DRAW_EVERY = 0.5
# Drawing takes some milliseconds, a whole step of a tiny student: it may take this share of the time, no more.
_DRAW_SHARE = 0.005
_LINE_EVERY = 60.0
_LINE_SHARE = 0.1  # Of the steps.
_SLOWER = 0.05  # Of the time so far: a training of three days does not write four thousand lines.
_SILENT_FOR = 900.0  # But a log without a line for longer would look dead.

_CURVE_WIDTH = 40
_BLOCKS, _PLAIN_BLOCKS = "▁▂▃▄▅▆▇█", "_.-~=+*#"


class TrainingView:
    """Shows a training's progress while the block runs; use it as a context manager and call it with each step.

    On a terminal it is a view that is drawn anew and wiped away at the end, unless an error ends the block: then the
    last state stays above the message. Elsewhere it is a line at the first and the last step, at every new validation
    loss, and in between after a tenth of the steps or after a minute, later less often: the waits grow to a
    twentieth of the time so far, at most a quarter of an hour.

    Args:
        quiet: show nothing.
        clock: seconds, for tests.
    """

    def __init__(self, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet, self._clock = quiet, clock
        drawn = stderr.is_terminal and not quiet
        self._live = Live(console=stderr, auto_refresh=False, transient=True) if drawn else None
        self._began = self._shown_at = clock()
        self._pause = _DRAW_EVERY
        self._last: Progress | None = None
        self._shown: Progress | None = None
        self._curve = Curve()
        self._lowest: tuple[float, int] | None = None

    def __enter__(self) -> Self:
        """Begin to show."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wipe the view away, or leave it where an error ended the training."""
        if self._live is None:
            return
        if kind is not None and self._last is not None:
            self._live.transient = False
            self._live.update(self.view(self._last), refresh=True)
        elif kind is not None:
            self._live.update(Text(), refresh=True)
        self._live.stop()

    def say(self, text: str) -> None:
        """Tell what goes on before the first step, such as the loading of weights."""
        if self._live is not None:
            self._live.update(_line(Text(text)), refresh=True)
        elif not self._quiet:
            notice(text)

    def __call__(self, now: Progress) -> None:
        """Show where the training is; cheap enough to be called after each step."""
        if self._quiet:
            return
        if self._last is not None and (now.step < self._last.step or now.total != self._last.total):
            # Another training begins, such as that of the next fold.
            self._curve, self._lowest, self._shown = Curve(), None, None
        validated = now.validation_loss is not None and (
            self._last is None or now.validation_loss != self._last.validation_loss
        )
        if now.loss is not None and (self._last is None or now.step != self._last.step):
            self._curve.add(now.loss)
        if now.validation_loss is not None and (self._lowest is None or now.validation_loss < self._lowest[0]):
            self._lowest = now.validation_loss, now.step
        self._last = now
        at = self._clock()
        if self._live is not None:
            if self._shown is None or validated or now.step >= now.total or at - self._shown_at >= self._pause:
                self._live.update(self.view(now), refresh=True)
                self._shown, self._shown_at = now, self._clock()
                self._pause = max(_DRAW_EVERY, (self._shown_at - at) / _DRAW_SHARE)
        elif self._due(now, at, validated=validated):
            self._shown, self._shown_at = now, at
            notice(" · ".join(f"{value} {name}" for name, value in self.parts(now)))

    def _due(self, now: Progress, at: float, *, validated: bool) -> bool:
        if self._shown is None or validated:
            return True
        if now.step >= now.total:
            return self._shown.step < now.step
        wait = min(max(_LINE_EVERY, _SLOWER * (at - self._began)), _SILENT_FOR)
        # A tenth of a day is as long to wait as any other time.
        return at - self._shown_at >= wait or now.step - self._shown.step >= max(1.0, _LINE_SHARE * now.total)

    def parts(self, now: Progress) -> list[tuple[str, str]]:
        """Return what is shown as (what, number) pairs; numbers that are not known yet are left out."""
        share = f"{100 * now.step / now.total:.0f} %, " if now.total else ""
        left = "time left unknown" if now.seconds_left is None else f"{duration(now.seconds_left)} left"
        times = f"{duration(now.seconds)} so far, {left}" if now.step < now.total else duration(now.seconds)
        parts = [
            (f"steps ({share}{times})", f"{now.step} of {now.total}"),
            ("epochs", f"{now.epoch:.2f}"),
        ]
        if now.loss is not None:
            parts.append(("loss", f"{now.loss:.4f}"))
        if now.validation_loss is not None and self._lowest is not None:
            lowest, step = self._lowest
            is_lowest = now.validation_loss <= lowest
            aside = "the lowest so far" if is_lowest else f"lowest {lowest:.4f} by step {step}"
            parts.append((f"validation loss ({aside})", f"{now.validation_loss:.4f}"))
        parts.append((f"tokens/s ({now.tokens:,} trained on)".replace(",", " "), f"{now.tokens_per_second:.0f}"))
        if now.learning_rate is not None:
            parts.append(("learning rate", f"{now.learning_rate:.2e}"))
        if now.grad_norm is not None:
            parts.append(("gradient norm", f"{now.grad_norm:.2f}"))
        if now.memory:
            parts.append(("of memory at most", size(now.memory)))
        return parts

    def view(self, now: Progress) -> RenderableType:
        """Return what a terminal shows: a bar, the numbers, and the curve of the loss."""
        table = Table(show_header=False, box=None, pad_edge=False)
        parts = self.parts(now)
        table.add_column(justify="right", no_wrap=True, min_width=max(len(value) for _, value in parts))
        table.add_column(no_wrap=True, overflow="ellipsis")
        for name, value in parts:
            table.add_row(Text(value), Text(name))
        width = min(_CURVE_WIDTH, stderr.width)
        rows = [_line(ProgressBar(total=max(now.total, 1), completed=now.step, width=width)), table]
        curve = self._curve.drawn(width, plain=stderr.options.ascii_only)
        if curve:
            low, high = self._curve.span
            rows.append(_line(Text(f"{curve} loss, between {low:.3f} and {high:.3f}")))
        return Group(*rows)


class Curve:
    """A series of numbers of any length, remembered in a bounded number of equal stretches' means."""

    _MOST = 512

    def __init__(self) -> None:
        self._means: list[float] = []
        self._every = 1
        self._open: list[float] = []

    def add(self, value: float) -> None:
        """Take up the next number; one that is not finite is left out."""
        if not math.isfinite(value):
            return
        self._open.append(value)
        if len(self._open) < self._every:
            return
        self._means.append(sum(self._open) / len(self._open))
        self._open.clear()
        if len(self._means) == self._MOST:
            self._means = [(a + b) / 2 for a, b in zip(self._means[::2], self._means[1::2], strict=True)]
            self._every *= 2

    @property
    def points(self) -> Sequence[float]:
        """The means, oldest first; the last may be of fewer numbers than the others."""
        return (*self._means, sum(self._open) / len(self._open)) if self._open else tuple(self._means)

    @property
    def span(self) -> tuple[float, float]:
        """Lowest and highest of the points."""
        return min(self.points), max(self.points)

    def drawn(self, width: int, *, plain: bool = False) -> str:
        """Return the curve as one line of at most so many characters, "" where there are fewer than two points.

        Args:
            width: characters.
            plain: use ASCII alone.
        """
        points, blocks = self.points, _PLAIN_BLOCKS if plain else _BLOCKS
        if len(points) < 2 or width < 2:
            return ""
        cells = min(width, len(points))
        edges = [round(i * len(points) / cells) for i in range(cells + 1)]
        means = [sum(points[a:b]) / (b - a) for a, b in zip(edges, edges[1:], strict=False)]
        low, high = min(means), max(means)
        scale = (len(blocks) - 1) / (high - low) if high > low else 0.0
        return "".join(blocks[round((mean - low) * scale)] for mean in means)


def _line(content: RenderableType) -> Table:
    """Return the content cut to one line of the terminal: lines that wrap would not be wiped away."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True, overflow="ellipsis")
    table.add_row(content)
    return table
