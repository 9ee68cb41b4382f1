"""What is shown while a student is tuned."""

import io
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from synth.core.console import size
from tests.conftest import CHECKOUT
from tune.live import Curve, TrainingView
from tune.progress import Progress

FIRST = Progress(
    step=1,
    total=400,
    epoch=0.01,
    loss=4.0,
    validation_loss=None,
    tokens_per_second=3214.4,
    learning_rate=2e-4,
    grad_norm=0.5,
    tokens=3300,
    memory=3 * 2**30,
    seconds=2.0,
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would stand on stderr, line by line."""
    texts: list[str] = []
    monkeypatch.setattr("tune.live.notice", texts.append)
    return texts


def terminal(monkeypatch: pytest.MonkeyPatch, *, width: int = 100, encoding: str = "utf-8") -> io.TextIOWrapper:
    """Put a terminal in the place of stderr and return what is written to it."""
    written = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict", write_through=True)
    monkeypatch.setattr("tune.live.stderr", Console(file=written, force_terminal=True, width=width, soft_wrap=True))
    return written


def text_of(written: io.TextIOWrapper) -> str:
    raw = written.buffer.getvalue()  # type: ignore[attr-defined]
    return re.sub(r"\x1b\[[0-9;]*m", "", raw.decode(written.encoding))


def steps_of(lines: list[str]) -> list[int]:
    return [int(line.split()[0]) for line in lines]


def test_without_a_terminal_a_line_says_all_that_is_known(said: list[str]) -> None:
    with TrainingView(clock=Clock()) as view:
        view(FIRST)
        view(replace(FIRST, step=40, loss=3.0, validation_loss=2.5, seconds=80, seconds_left=720, tokens=132_000))
    assert said == [
        "1 of 400 steps (0 %, 2 s so far, time left unknown) · 0.01 epochs · 4.0000 loss · "
        "3214 tokens/s (3 300 trained on) · 2.00e-04 learning rate · 0.50 gradient norm · 3 GiB of memory at most",
        "40 of 400 steps (10 %, 1 min 20 s so far, 12 min 00 s left) · 0.01 epochs · 3.0000 loss · "
        "2.5000 validation loss (the lowest so far) · 3214 tokens/s (132 000 trained on) · 2.00e-04 learning rate · "
        "0.50 gradient norm · 3 GiB of memory at most",
    ]


def test_what_is_not_known_yet_is_left_out(said: list[str]) -> None:
    with TrainingView(clock=Clock()) as view:
        view(Progress(step=1, total=0, epoch=0.5, loss=None, validation_loss=None, tokens_per_second=0.0))
    assert said == ["1 of 0 steps (0 s) · 0.50 epochs · 0 tokens/s (0 trained on)"]


def test_a_quick_training_says_a_line_at_each_tenth_and_at_both_ends(said: list[str]) -> None:
    with TrainingView(clock=Clock()) as view:
        for step in range(1, 406):
            view(replace(FIRST, step=step, total=405))
    steps = steps_of(said)
    assert steps == [1, 42, 83, 124, 165, 206, 247, 288, 329, 370, 405]


def test_a_slow_training_says_a_line_a_minute_and_after_hours_fewer(said: list[str]) -> None:
    clock = Clock()
    at: list[float] = []
    with TrainingView(clock=clock) as view:
        for step in range(1, 3 * 24 * 360):  # Three days of ten-second steps.
            before = len(said)
            view(replace(FIRST, step=step, total=10**6))
            at += [clock.now] * (len(said) - before)
            clock.now += 10
    waits = [b - a for a, b in zip(at, at[1:], strict=False)]
    assert waits[:10] == [60.0] * 10
    assert max(waits) == 900.0 and waits == sorted(waits)
    assert len(said) < 400


def test_every_new_validation_loss_has_its_line_and_the_lowest_is_named(said: list[str]) -> None:
    losses = {50: 2.5, 51: 2.25, 52: 2.75}
    validation: float | None = None
    with TrainingView(clock=Clock()) as view:
        for step in range(1, 55):
            validation = losses.get(step, validation)
            view(replace(FIRST, step=step, total=10_000, validation_loss=validation))
    assert steps_of(said) == [1, 50, 51, 52]
    assert "2.5000 validation loss (the lowest so far)" in said[1]
    assert "2.2500 validation loss (the lowest so far)" in said[2]
    assert "2.7500 validation loss (lowest 2.2500 by step 51)" in said[3]


def test_the_last_validation_loss_is_said_though_the_last_step_was_shown_before(said: list[str]) -> None:
    with TrainingView(clock=Clock()) as view:
        view(FIRST)
        view(replace(FIRST, step=400))
        view(replace(FIRST, step=400, validation_loss=2.0))
        view(replace(FIRST, step=400, validation_loss=2.0))
    assert steps_of(said) == [1, 400, 400] and "2.0000 validation loss" in said[-1]


def test_the_next_fold_starts_afresh(said: list[str]) -> None:
    with TrainingView(clock=Clock()) as view:
        view(replace(FIRST, step=400, validation_loss=1.0))
        view(FIRST)
        view(replace(FIRST, step=2, validation_loss=1.5))
    assert steps_of(said) == [400, 1, 2]
    assert "1.5000 validation loss (the lowest so far)" in said[-1], "the other fold's is no measure"


def test_quiet_says_nothing(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    written = terminal(monkeypatch)
    with TrainingView(quiet=True) as view:
        view.say("loading")
        view(FIRST)
    assert not said and not text_of(written)


def test_on_a_terminal_all_numbers_are_drawn_and_wiped_away_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    written = terminal(monkeypatch)
    clock = Clock()
    with TrainingView(clock=clock) as view:
        view.say("loading the student")
        for step in range(1, 9):
            view(replace(FIRST, step=step, loss=4.0 - step / 4, validation_loss=3.0, seconds_left=9.0))
            clock.now += 1
    shown = text_of(written)
    assert "loading the student" in shown
    last = shown[shown.rindex("8 of 400") :]
    for part in ("steps (2 %", "9 s left", "2.0000  loss", "3.0000  validation loss", "3214  tokens/s", "2.00e-04"):
        assert part in last
    assert "█▇▆▅▄▃▂▁ loss, between 2.000 and 3.750" in last
    assert shown.rstrip("\x1b[?25h").endswith("\x1b[1A\x1b[2K"), "the view is wiped away"


def test_where_an_error_ends_the_training_the_last_state_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    written = terminal(monkeypatch)
    with pytest.raises(ValueError, match="ended"), TrainingView(clock=Clock()) as view:
        view(FIRST)
        view(replace(FIRST, step=2, loss=9999.0))  # Not drawn yet: the clock stands still.
        raise ValueError("ended")
    shown = text_of(written)
    assert "9999.0000  loss" in shown[shown.rindex("2 of 400") :]
    assert not shown.endswith("\x1b[1A\x1b[2K")


def test_an_error_before_the_first_step_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    written = terminal(monkeypatch)
    with pytest.raises(ValueError, match="ended"), TrainingView(clock=Clock()) as view:
        view.say("loading")
        raise ValueError("ended")
    assert text_of(written).rsplit("loading", 1)[1].count("\x1b[2K") >= 1


def test_it_draws_no_more_often_than_twice_a_second_but_shows_each_validation_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = terminal(monkeypatch)
    clock = Clock()
    with TrainingView(clock=clock) as view:
        for step in range(1, 102):
            view(replace(FIRST, step=step, validation_loss=2.0 if step > 60 else None))
            clock.now += 0.01
    drawn = {int(step) for step in re.findall(r"(\d+) of 400", text_of(written))}
    assert drawn == {1, 51, 61}


class Stepping(Clock):
    """A clock on which looking at the time takes a tenth of a second, so that a drawing takes that long."""

    def __call__(self) -> float:
        self.now += 0.1
        return self.now


def test_a_slow_terminal_is_drawn_on_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    written = terminal(monkeypatch)
    with TrainingView(clock=Stepping()) as view:
        for step in range(1, 401):
            view(replace(FIRST, step=step))
    drawn = {int(step) for step in re.findall(r"(\d+) of 400", text_of(written))}
    assert len(drawn) == 3 and {1, 400} < drawn, "a drawing of 0.1 s is worth a pause of 20 s"


@pytest.mark.parametrize("width", [8, 20, 30, 60, 300])
def test_no_line_is_wider_than_the_terminal_and_no_number_is_cut_where_there_is_room(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    written = terminal(monkeypatch, width=width)
    with TrainingView(clock=Clock()) as view:
        view.say("loading a student with a name that is longer than any terminal " * 5)
        view(FIRST)
        view(replace(FIRST, step=400, loss=1.0, validation_loss=2.0))
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text_of(written)).replace("\r", "\n").split("\n")
    assert max(map(len, lines)) <= width
    assert width < 20 or any("2.00e-04" in line for line in lines)


def test_a_terminal_without_unicode_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    written = terminal(monkeypatch, encoding="ascii")
    with TrainingView(clock=Clock()) as view:
        for step in (1, 2, 400):
            view(replace(FIRST, step=step, loss=4.0 / step))
    assert "#~_ loss, between 0.010 and 4.000" in text_of(written)


def test_a_curve_of_any_length_is_a_line_that_falls_where_the_numbers_fall() -> None:
    curve = Curve()
    for i in range(100_000):
        curve.add(100_000.0 - i)
    drawn = curve.drawn(40)
    assert len(drawn) == 40 and drawn[0] == "█" and drawn[-1] == "▁"
    assert list(drawn) == sorted(drawn, reverse=True)
    assert len(curve.points) <= 513, "memory is bounded"
    assert curve.span[0] == pytest.approx(1.0, abs=300) and curve.span[1] == pytest.approx(1e5, abs=300)


def test_a_curve_of_one_point_or_of_equal_ones_is_no_error() -> None:
    curve = Curve()
    assert curve.drawn(40) == ""
    curve.add(2.0)
    assert curve.drawn(40) == ""
    curve.add(2.0)
    curve.add(float("nan"))
    assert curve.drawn(40) == "▁▁" and curve.span == (2.0, 2.0)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=1200), st.integers(0, 80))
def test_a_curve_never_outgrows_its_width(numbers: list[float], width: int) -> None:
    curve = Curve()
    for number in numbers:
        curve.add(number)
    drawn = curve.drawn(width)
    assert len(drawn) <= width and set(drawn) <= set("▁▂▃▄▅▆▇█")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "0.977 KiB"), (1536, "1.5 KiB"), (1023.9 * 2**20, "1 GiB")]
    + [(80 * 2**30, "80 GiB"), (999.6 * 2**30, "0.976 TiB"), (5e15, "4547 TiB")],
)
def test_sizes_are_words_of_three_digits(count: float, text: str) -> None:
    assert size(count) == text


def test_the_view_loads_no_torch() -> None:
    code = "import sys, tune.live; print(sorted({'torch', 'transformers', 'trl'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
