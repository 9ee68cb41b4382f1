"""What a generate stage shows while it runs: a live view on a terminal, a line every few seconds elsewhere.

All of it goes to stderr. Rates are over the last seconds, not over the whole run.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.live import Live
from rich.table import Table
from rich.text import Text

from synth.core.console import duration, notice, stderr
from synth.core.errors import SynthError
from synth.core.records import Record
from synth.generation.tally import Progress

_LINE_EVERY = 5.0
_DRAW_EVERY = 0.25
_WINDOW = 15.0

# Scoring a record costs about a millisecond; more than this share of a core would be taken from the engine.
_JUDGING_SHARE = 0.03

Judge = Callable[[Sequence[Record]], Sequence[str | None]]
"""Gives for each record None (accepted) or why the filter's rules would reject it."""


@dataclass(frozen=True, slots=True)
class _Moment:
    at: float
    done: int
    prompt_tokens: int
    completion_tokens: int


class LiveView:
    """Shows the stage's progress while the block runs; use it as a context manager.

    Args:
        judge: what the filter's rules say of records as they come; None shows no such counts. Records are
            judged in a thread of its own that takes a few percent of a core, so the counts lag behind and
            say of how many they are.
        quiet: show nothing.
        clock: seconds, for tests.
    """

    def __init__(
        self, judge: Judge | None = None, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._quiet, self._clock = quiet, clock
        self._judging = None if judge is None or quiet else _Judging(judge)
        self._live = Live(console=stderr, auto_refresh=False, transient=True) if self._drawn() else None
        self._said = ""
        self._shown_at = float("-inf")
        self._moments: deque[_Moment] = deque()

    def _drawn(self) -> bool:
        return stderr.is_terminal and not self._quiet

    def __enter__(self) -> Self:
        """Begin to show."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()
        if self._judging is not None:
            self._judging.stop()

    def say(self, text: str) -> None:
        """Tell what is going on beside the counts, such as the start of a server."""
        self._said = text
        if self._live is not None:
            self._live.update(Text(text), refresh=True)
        elif not self._quiet:
            notice(text)

    def update(self, now: Progress) -> None:
        """Show where the stage is; cheap enough to be called for each unit."""
        if self._quiet:
            return
        if self._judging is not None and now.new:
            self._judging.add(now.new)
        at = self._clock()
        if at - self._shown_at < (_DRAW_EVERY if self._live is not None else _LINE_EVERY):
            return
        self._shown_at = at
        self._moments.append(_Moment(at, now.done, now.tally.prompt_tokens, now.tally.completion_tokens))
        while at - self._moments[0].at > _WINDOW:
            self._moments.popleft()
        parts = self.parts(now)
        if self._live is None:
            notice(" · ".join(f"{value} {name}" for name, value in parts))
            return
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column(justify="right")
        table.add_column()
        for name, value in parts:
            table.add_row(Text(value), Text(name))
        self._live.update(table, refresh=True)

    def parts(self, now: Progress) -> list[tuple[str, str]]:
        """Return what is shown as (what, number) pairs."""
        tally, endpoint = now.tally, now.endpoint
        found = tally.documents + tally.documents_quarantined
        parts = [("documents" + _aside(tally.documents_quarantined, "in quarantine"), f"{found}")]
        if not now.total:
            return parts
        parts.append(("passages", f"{tally.passages}"))
        unit = "records accepted" if now.accepted is not None else "units of work"
        parts.append((f"{unit} ({_share(now.done, now.total)}, {self._eta(now)})", f"{now.done} of {now.total}"))
        parts.append(("records" + _aside(tally.quarantined, "in quarantine"), f"{tally.records}"))
        if self._judging is not None and self._judging.judged:
            parts.append(("by the rules so far", self._judging.words()))
        asides = _aside(tally.calls_replayed, "from the journal") + _aside(tally.calls_failed, "failed")
        parts.append(("calls answered" + asides, f"{tally.calls}"))
        if endpoint.limit:
            up = f", {endpoint.endpoints_up} of {endpoint.endpoints} endpoints up" if endpoint.endpoints > 1 else ""
            again = f", {endpoint.restarts} restarts" if endpoint.restarts else ""
            parts.append((f"calls in flight{up}{again}", f"{endpoint.in_flight} of {endpoint.limit}"))
        first, last = self._moments[0], self._moments[-1]
        if last.at > first.at:
            read = (last.prompt_tokens - first.prompt_tokens) / (last.at - first.at)
            wrote = (last.completion_tokens - first.completion_tokens) / (last.at - first.at)
            parts.append(("tokens/s read and written", f"{read:.0f} and {wrote:.0f}"))
        if endpoint.prefix_cache_queries:
            share = _share(endpoint.prefix_cache_hits, endpoint.prefix_cache_queries)
            parts.append(("of prompt tokens from the prefix cache", share))
        if now.cost is not None:
            parts.append(("spent", f"{now.cost:.2f}"))
        return parts

    def _eta(self, now: Progress) -> str:
        first, last = self._moments[0], self._moments[-1]
        if last.at <= first.at or last.done <= first.done:
            return "time left unknown"
        seconds = (now.total - now.done) * (last.at - first.at) / (last.done - first.done)
        return f"{duration(seconds)} left"


class _Judging:
    """Judges records in a thread, using a small share of the time."""

    def __init__(self, judge: Judge) -> None:
        self.judged = self.accepted = 0
        self.reasons: Counter[str] = Counter()
        self._judge = judge
        self._waiting: deque[Record] = deque()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="judging", daemon=True)
        self._thread.start()

    def add(self, records: Sequence[Record]) -> None:
        # A long queue would keep records in memory; what does not fit is left to the filter.
        if len(self._waiting) < 10_000:
            self._waiting.extend(records)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def words(self) -> str:
        with self._lock:
            reasons = Counter(self.reasons)
        often = ", ".join(f"{name} {count}" for name, count in reasons.most_common(3))
        rejected = f", rejected {self.judged - self.accepted} ({often})" if often else ""
        return f"of {self.judged} judged {self.accepted} accepted{rejected}"

    def _work(self) -> None:
        pause = 0.1
        while not self._stopping.wait(pause):
            batch = [self._waiting.popleft() for _ in range(min(16, len(self._waiting)))]
            if not batch:
                pause = 0.1
                continue
            began = time.thread_time()
            try:
                found = self._judge(batch)
            except SynthError:
                return  # the filter will say what is wrong; these counts are a courtesy
            with self._lock:
                for reason in found:
                    self.judged += 1
                    if reason is None:
                        self.accepted += 1
                    else:
                        self.reasons[reason] += 1
            pause = (time.thread_time() - began) / _JUDGING_SHARE


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "0 %"


def _aside(count: int, what: str) -> str:
    return f" ({count} {what})" if count else ""
