"""A model's scores of human pairs and their corruptions, so that a judge is held to the same measure as the rest."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from synth.calibration.columns import Extra
from synth.calibration.samples import Sample, Samples
from synth.core.errors import InferenceError
from synth.filtering.judging import JudgingTally, judge_records
from synth.filters.model_base import ModelScorer
from synth.filters.selection import shuffled_key
from synth.inference.endpoints import find_model, open_endpoint
from synth.inference.journal import Journal
from synth.inference.lazy import LazyEndpoint


def drawn(samples: Samples, pairs: int, seed: int) -> list[Sample]:
    """Return all samples of `pairs` human pairs that the seed draws, those of one passage together.

    A model is shown the passage and not the evidence, so of several forms the first stands for all.
    """
    names = sorted({sample.pair for sample in samples.samples}, key=lambda name: shuffled_key(seed, name))
    wanted = set(names[:pairs])
    form = samples.samples[0].form if samples.samples else None
    found = [sample for sample in samples.samples if sample.pair in wanted and sample.form == form]
    return sorted(found, key=lambda sample: (sample.record.passage_id, sample.pair))


async def ask_model(
    samples: Samples,
    spec: str,
    scorers: Sequence[ModelScorer],
    *,
    pairs: int,
    seed: int,
    folder: Path,
    stop: asyncio.Event,
    say: Callable[[str], None],
) -> Extra:
    """Return the scores that a model gives to a part of the samples, by the score's name and the record's id.

    Args:
        samples: what `make_samples` made.
        spec: the model: a URL, a folder, a hub id, or "bundled".
        scorers: what it is asked.
        pairs: how many human pairs are drawn, with all that became of them.
        seed: draws them.
        folder: where the journal and the server's log are kept; asked again, answered calls come from there.
        stop: set to drain the calls in flight.
        say: gets short texts about what is going on.

    Raises:
        InferenceError: the model cannot be started, or is gone.
        Interrupted: `stop` was set.
    """
    asked = drawn(samples, pairs, seed)
    twins: dict[tuple[str, str], list[str]] = {}
    for sample in samples.samples:
        twins.setdefault((sample.label, sample.pair), []).append(sample.record.id)
    source = await find_model(spec, role="teacher")
    scores: dict[str, dict[str, float | None]] = {name: {} for scorer in scorers for name in scorer.scores}
    counts = JudgingTally()

    def progress(tally: JudgingTally) -> None:
        nonlocal counts
        counts = tally
        if tally.records % 100 == 0 or tally.records == len(asked):
            failed = f", {tally.failures.total()} replies of no use" if tally.failures else ""
            say(f"{tally.records} of {len(asked)} records before {source.name}{failed}")

    opening = open_endpoint(source, log_path=folder / "judge.log", on_progress=say)
    lazy = LazyEndpoint(opening, model=source.name, revision=source.revision, stop=stop)
    async with lazy as endpoint, Journal(folder / "journal") as journal:
        numbered = ((place, sample.record) for place, sample in enumerate(asked))
        async for one in judge_records(
            numbered, scorers, endpoint, journal, seed=seed, stop=stop, on_progress=progress
        ):
            sample = asked[one.place]
            for name, value in one.scores.items():
                scores[name].update(dict.fromkeys(twins[sample.label, sample.pair], value))
    if counts.failed or counts.left:
        # Measured without them, the model would look other than it is, and other again the next time.
        raise InferenceError(
            f"{counts.failed + counts.left} calls about records got no answer; nothing was measured",
            where=source.name,
            fix="run the same command again: answered calls come from the journal",
        )
    # One vote agrees with nobody: such a score says nothing of any record.
    return {name: values for name, values in scores.items() if any(v is not None for v in values.values())}
