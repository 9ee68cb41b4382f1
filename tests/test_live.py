"""What is shown while a stage runs."""

import io

import pytest
from rich.console import Console

from synth import EndpointStats, Record
from synth.core.records import Passage
from synth.generation.tally import Progress, Tally
from synth.live import LiveView, duration


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would stand on stderr, line by line."""
    texts: list[str] = []
    monkeypatch.setattr("synth.live.notice", texts.append)
    return texts


def tally(**counts: int) -> Tally:
    return Tally(documents=4, documents_quarantined=1, passages=12, **counts)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_without_a_terminal_a_line_says_all_that_counts_every_few_seconds(said: list[str]) -> None:
    clock = Clock()
    view = LiveView(clock=clock)
    with view:
        for step in range(21):
            counts = tally(
                units=step, records=2 * step, calls=2 * step, prompt_tokens=300 * step, completion_tokens=60 * step
            )
            stats = EndpointStats(
                in_flight=7, limit=64, endpoints=2, endpoints_up=1, prefix_cache_hits=80, prefix_cache_queries=100
            )
            view.update(Progress(step, 40, counts, cost=0.5 * step, endpoint=stats))
            clock.now += 1
    assert len(said) == 5, "every five seconds"
    last = said[-1]
    assert "5 documents (1 in quarantine)" in last and "20 of 40 units of work (50 %, 20 s left)" in last
    assert "40 records" in last and "40 calls answered" in last
    assert "7 of 64 calls in flight, 1 of 2 endpoints up" in last
    assert "300 and 60 tokens/s read and written" in last
    assert "80 % of prompt tokens from the prefix cache" in last and "10.00 spent" in last


def test_while_documents_are_read_their_number_is_all_there_is_to_say(said: list[str]) -> None:
    with LiveView() as view:
        view.update(Progress(0, 0, tally()))
    assert said == ["5 documents (1 in quarantine)"]


def test_quiet_says_nothing(said: list[str]) -> None:
    with LiveView(quiet=True) as view:
        view.say("starting vLLM")
        view.update(Progress(1, 2, tally()))
    assert not said


def test_records_are_judged_beside_the_work_and_the_count_says_of_how_many(said: list[str]) -> None:
    passage = Passage("d.md", "The lamp costs 40 pounds.", 0, 25)
    records = tuple(Record.create(passage, f"What costs {i}?", "40 pounds", generator="qa") for i in range(30))
    clock = Clock()
    with LiveView(lambda batch: [None if r.question[11] in "02468" else "form" for r in batch], clock=clock) as view:
        view.update(Progress(1, 2, tally(), new=records))
        judging = view._judging
        assert judging is not None
        for _ in range(400):
            if judging.judged == 30:
                break
            judging._stopping.wait(0.02)
        clock.now += 10
        view.update(Progress(2, 2, tally()))
    even = sum(r.question[11] in "02468" for r in records)
    assert f"of 30 judged {even} accepted, rejected {30 - even} (form {30 - even}) by the rules so far" in said[-1]


def test_on_a_terminal_it_draws_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    console = Console(file=terminal, force_terminal=True, width=100)
    monkeypatch.setattr("synth.live.stderr", console)
    clock = Clock()
    with LiveView(clock=clock) as view:
        view.say("ready in 40 s")
        view.update(Progress(1, 2, tally(records=3)))
        clock.now += 1
        view.update(Progress(2, 2, tally(records=6)))
    shown = terminal.getvalue()
    assert "ready in" in shown and "2 of 2" in shown and "6" in shown
    assert shown.endswith("\x1b[1A\x1b[2K"), "the table is wiped away"


@pytest.mark.parametrize(("seconds", "text"), [(3.4, "3 s"), (75, "1 min 15 s"), (3600 * 26 + 300, "26 h 05 min")])
def test_lengths_of_time_are_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text
