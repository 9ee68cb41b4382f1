"""Asking about the passages of a run, once each or until enough is accepted."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

from synth.core.calls import EndpointStats
from synth.core.errors import Interrupted
from synth.core.records import Record
from synth.generation.config import GenerateConfig
from synth.generation.gate import Gate
from synth.generation.output import OutputFiles
from synth.generation.passages import PassageFile
from synth.generation.tally import Progress
from synth.generation.units import Unit, UnitRunner, in_order
from synth.generators.base import Generator

# Units in work or waiting for their turn to be written, for each call that may be in flight. More hide a slow
# reply at the head of the line; fewer need less memory.
AHEAD = 8

Accept = Callable[[Sequence[Record]], int]
"""Says how many of these records the filter would keep."""


class Work:
    """Asks about the passages, once each or until enough is accepted, and writes what comes."""

    def __init__(
        self,
        runner: UnitRunner,
        passages: PassageFile,
        generators: Sequence[Generator],
        asked: Sequence[int],
        config: GenerateConfig,
        files: OutputFiles,
        stop: asyncio.Event,
        gate: Gate,
        max_in_flight: int,
        journaled: int,
    ) -> None:
        self._runner, self._passages, self._generators, self._asked = runner, passages, generators, asked
        self._config, self._files, self._stop, self._gate = config, files, stop, gate
        self._ahead, self._journaled = AHEAD * max_in_flight, journaled
        self._shown: tuple[int, int, int | None] | None = None
        self.on_progress: Callable[[Progress], None] = lambda _: None
        self.stats: Callable[[], EndpointStats] = EndpointStats
        self._done = 0
        self.wanting = False

    async def once(self) -> None:
        """Ask about each passage once."""
        total = len(self._asked) * len(self._generators)
        self._tell(0, total, ())
        async for records in self._results(self._asked, 0):
            self._tell(self._done, total, records)
        self._end(total)

    async def until(self, accept: Accept) -> None:
        """Ask, in a seeded order and in waves, with new seeds each round, until enough is accepted."""
        wanted = self._config.num_records
        assert wanted is not None
        order = list(self._asked)
        random.Random(self._config.seed).shuffle(order)
        found: list[Record] = []
        accepted = 0
        self.wanting = True
        for number in range(self._config.max_rounds):
            rest = order
            while rest and accepted < wanted:
                units = _wave(wanted, accepted, self._done)
                wave, rest = _cut(rest, -(-units // len(self._generators)))
                due = self._done + len(wave) * len(self._generators)
                async for records in self._results(wave, number):
                    found += records
                    self._tell(min(accepted, wanted), wanted, records, accepted)
                accepted = await asyncio.to_thread(accept, found)
                self._tell(min(accepted, wanted), wanted, (), accepted)
                if accepted < wanted and self._end(due):
                    return
            if accepted >= wanted:
                self._files.tally.units_left = 0  # enough came, so nothing is missing
                self.wanting = False
                break

    async def _results(self, indices: Iterable[int], number: int) -> AsyncIterator[tuple[Record, ...]]:
        units = (Unit(self._passages[i], generator, number) for i in indices for generator in self._generators)
        results = in_order(
            units,
            self._runner.run,
            ahead=self._ahead,
            stopped=self._stopped,
        )
        async with contextlib.aclosing(results):
            async for result in results:
                self._done += 1
                yield self._files.write(result)

    def _stopped(self) -> bool:
        """Whether no unit is to be begun: at once after a stop; after a cap when the journal has given what it has."""
        if self._gate.shut_down:
            return True
        return self._gate.cap is not None and self._files.tally.calls_replayed >= self._journaled

    def tick(self) -> None:
        """Tell again where the work is; calls in flight change although no unit ends."""
        # Before the teacher is open there is nothing to tell, and its start has words of its own.
        if self._shown is not None and self.stats().endpoints:
            done, total, accepted = self._shown
            self._tell(done, total, (), accepted)

    def _tell(self, done: int, total: int, new: tuple[Record, ...], accepted: int | None = None) -> None:
        self._shown = (done, total, accepted)
        self.on_progress(
            Progress(done, total, self._files.tally, new, accepted, self._gate.in_flight, self._gate.cost, self.stats())
        )

    def _end(self, due: int) -> bool:
        """Whether a cap ended the work before `due` units were finished.

        Raises:
            Interrupted: the user did.
        """
        tally = self._files.tally
        tally.units_left += due - self._done
        if tally.units_left and self._stop.is_set():
            raise Interrupted(
                f"stopped after {due - tally.units_left} of {due} units of work; "
                f"{tally.records} records so far are in records.jsonl",
                fix="run the same command again: answered calls come from the journal",
            )
        return tally.units_left > 0


def _cut(items: list[int], size: int) -> tuple[list[int], list[int]]:
    return items[:size], items[size:]


def _wave(wanted: int, accepted: int, units: int) -> int:
    """Return how many units to do next: what is missing at the yield seen so far, and a tenth more."""
    if not accepted:
        return max(8, wanted // 4)
    return max(8, int((wanted - accepted) * units / accepted * 1.1))
