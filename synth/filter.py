"""The filter stage: records in, scores, decisions and the dataset out.

A record is judged by rules over its scores, then against the held-out sets, then against its twins, and what is left
may be more than was asked for. Every reason is written beside its record; nothing is edited and nothing is dropped,
so running again with other rules costs no teacher call.

The records pass twice, in blocks, and never stand in memory all at once: the first pass says what can be said of
each alone (in several processes), the second writes what the corpus level has decided.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from synth.core.embedding import load_embedder
from synth.core.errors import RunError
from synth.core.heldout import HeldoutSet
from synth.core.records import Decision, Record
from synth.core.runs import Run
from synth.core.signals import signals_as_usual, stop_on_signals
from synth.filtering.ablate import Ablation, ablate
from synth.filtering.config import FilterConfig
from synth.filtering.corpus import settle
from synth.filtering.ledger import FilterSummary
from synth.filtering.lines import score_records_alone
from synth.filtering.meaning import read_meaning, reason
from synth.filtering.passes import Filtering, Heldout, Progress
from synth.filtering.plan import Plan, check_rules
from synth.filtering.table import TableBuilder
from synth.filters.base import Scorer

T = TypeVar("T")


def decide(
    records: Sequence[Record],
    config: FilterConfig,
    heldout: HeldoutSet | Sequence[HeldoutSet] | None = None,
    *,
    scorers: Sequence[Scorer] = (),
) -> list[Record]:
    """Return the records, in order, with their scores and a decision; the order decides nothing.

    No model is asked but the embedder, where one is named.

    Args:
        records: from records.jsonl; decisions they have are forgotten.
        config: the rules and the bounds.
        heldout: the questions that no pair may ask, or None.
        scorers: more scorers, for rules that name them.

    Raises:
        ConfigError: a rule cannot be read or names an unknown score.
    """
    sets = [] if heldout is None else [heldout] if isinstance(heldout, HeldoutSet) else heldout
    plan = Plan.of(config, sets, scorers=scorers)
    check_rules(plan, {name for record in records for name in record.scores})
    if not records:
        return []
    judged, scored = score_records_alone(records, plan)
    builder = TableBuilder()
    builder.add(scored)
    columns = builder.finish()
    more: dict[int, str] = {}
    meaning = None
    if config.embedder is not None:
        told = [(row, one.record) for row, one in enumerate(judged) if columns.sketch[row] >= 0]
        meaning, leaks = read_meaning(told, load_embedder(config.embedder), config.duplicates_on, plan.index)
        for row, leak in leaks.items() if config.reworded == "reject" else ():
            if (leak.file, leak.item_id) not in {(known.file, known.item_id) for known in judged[row].leaks}:
                more[row] = reason(leak)
                columns.only[row] = -2
    more.update(settle(columns, config, meaning))
    found = []
    for row, one in enumerate(judged):
        reasons = (*one.reasons, *((more[row],) if row in more else ()))
        found.append(one.record.decided(Decision(not reasons, reasons)))
    return found


def run_filter(
    run: Run,
    config: FilterConfig,
    heldout: Heldout = None,
    *,
    processes: int | None = None,
    say: Progress = lambda text: None,
) -> FilterSummary:
    """Decide on a run's records and write records.jsonl, the dataset and the stage's entry.

    A stage that is current is left as it is. The run is locked meanwhile.

    Args:
        run: a run whose stage "generate" is finished.
        config: the rules and the bounds.
        heldout: the held-out sets that the dataset must not leak; their text goes into no file.
        processes: how many processes score; None takes one a core where there are records enough.
        say: gets short texts about what is going on.

    Raises:
        ConfigError: a rule is wrong.
        RecordError: a line of records.jsonl or of a held-out file is wrong; the error names it.
        RunError: the run is locked, there is nothing to filter, or no record was kept; then the decisions
            stand in records.jsonl and there is no dataset; or a model is named inside an event loop.
        Interrupted: Ctrl-C while a model was asked.
    """
    return _run(config, lambda stop: filter_run(run, config, heldout, processes=processes, say=say, stop=stop), say)


def run_ablate(
    run: Run,
    config: FilterConfig,
    heldout: Heldout = None,
    *,
    processes: int | None = None,
    say: Progress = lambda text: None,
) -> tuple[int, list[Ablation]]:
    """Decide once more with each step left out; the run stays as it is.

    `num_records` is left aside: where more are accepted than wanted, no rule would seem to matter. Models are asked as
    `run_filter` asks them, about the records that all else accepts; what they would say of one that only the step left
    out rejects, nobody knows, and it counts as kept.

    Args:
        run: as in `run_filter`.
        config: as in `run_filter`.
        heldout: as in `run_filter`.
        processes: as in `run_filter`.
        say: as in `run_filter`.

    Returns:
        How many records are kept with all steps, and what changes without each.

    Raises:
        SynthError: as `run_filter` does.
    """
    unbounded = config.model_copy(update={"num_records": None})

    async def ablated(stop: asyncio.Event | None) -> tuple[int, list[Ablation]]:
        with run.lock(), Filtering.prepare(run, unbounded, heldout) as stage:
            with _ending_at_once(stop):
                stage.first_pass(processes, say)
                stage.read_meaning(say)
            await stage.ask(stop or asyncio.Event(), say)
            columns, _ = stage.found()
            return ablate(columns, unbounded, stage.plan.rules, stage.ledger.failing, stage.meaning)

    return _run(config, ablated, say)


async def filter_run(
    run: Run,
    config: FilterConfig,
    heldout: Heldout = None,
    *,
    processes: int | None = None,
    say: Progress = lambda text: None,
    stop: asyncio.Event | None = None,
) -> FilterSummary:
    """Do what `run_filter` does, inside an event loop.

    It waits only for models; the rest holds the loop, and Ctrl-C ends it at once, since its files are whole or as
    they were.

    Args:
        run: as in `run_filter`.
        config: as in `run_filter`.
        heldout: as in `run_filter`.
        processes: as in `run_filter`.
        say: as in `run_filter`.
        stop: set to drain the calls in flight and raise Interrupted.

    Raises:
        SynthError: as `run_filter` does.
        Interrupted: `stop` was set.
    """
    with run.lock(), Filtering.prepare(run, config, heldout) as stage:
        with _ending_at_once(stop):
            stage.warn(say)
            if stage.is_current():
                return FilterSummary.from_counts(run.stages()["filter"].counts)
            stage.first_pass(processes, say)
            stage.read_meaning(say)
        await stage.ask(stop or asyncio.Event(), say)
        with _ending_at_once(stop):
            return stage.second_pass()


def _ending_at_once(stop: asyncio.Event | None) -> contextlib.AbstractContextManager[None]:
    """Let signals end the process where they would only set `stop`; a caller without one has its own way with them."""
    return contextlib.nullcontext() if stop is None else signals_as_usual()


def _run(config: FilterConfig, work: Callable[[asyncio.Event | None], Coroutine[Any, Any, T]], say: Progress) -> T:
    """Do the work of a stage, in an event loop of its own where a model is waited for.

    Raises:
        RunError: that is so, and an event loop runs already.
    """
    if config.judge is None and config.student is None:
        return _without_waiting(work(None))
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop()
        raise RunError(
            "an event loop runs here already, and models are waited for in one of its own",
            fix="use `await filter_run(...)`, or call it in a thread",
        )

    async def until_stopped() -> T:
        with stop_on_signals(say) as stop:
            return await work(stop)

    return asyncio.run(until_stopped())


def _without_waiting(work: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine gives that has nothing to wait for; it needs no event loop, nor minds one."""
    try:
        work.send(None)
    except StopIteration as done:
        found: T = done.value
        return found
    finally:
        work.close()
    raise AssertionError("the filter waited although no model was named")
