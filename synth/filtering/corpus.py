"""What can be said of a record only beside the others: twins, and what is too many."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from synth.filtering.config import FilterConfig
from synth.filtering.lines import dedup_settings
from synth.filtering.meaning import Meaning
from synth.filtering.table import Columns
from synth.filters import selection
from synth.filters.dedup import Pairs, find_twins
from synth.filters.semantic import semantic_twins


def settle(
    columns: Columns, config: FilterConfig, meaning: Meaning | None = None, *, without: str | None = None
) -> dict[int, str]:
    """Return the reason for each row that goes because of the others.

    Args:
        columns: all records; those that a rule rejects take no part.
        config: the bounds.
        meaning: embeddings, where the settings need them.
        without: a step to leave out, as if it did not exist: its own rejections are taken back.
    """
    taking_part = columns.only == -1
    if without in columns.steps:
        taking_part |= columns.only == columns.steps.index(without)
    order = columns.best_first(np.flatnonzero(taking_part))
    reasons: dict[int, str] = {}
    if without != "duplicate":
        reasons.update(_twins(columns, order, config, meaning))
    if without != "surplus":
        left = _left(order, reasons)
        reasons.update(_surplus(columns, left, config, meaning))
    return reasons


def _surplus(
    columns: Columns, left: npt.NDArray[np.intp], config: FilterConfig, meaning: Meaning | None
) -> dict[int, str]:
    if not config.has_bounds:
        return {}
    rows = selection.Columns(
        ids=[f"{number:016x}" for number in columns.ids[left].tolist()],
        documents=columns.document[left].astype(np.int64),
        passages=columns.passage[left].astype(np.int64),
        kinds=columns.kind[left].astype(np.int64),
        quality=columns.quality[left].astype(np.float64),
        document_names=columns.documents,
        kind_names=columns.kinds,
    )
    causes = selection.select(
        rows,
        config.bounds(),
        seed=config.seed,
        mode=config.select,
        vectors=None if meaning is None else meaning.vectors[columns.sketch[left]],
    )
    names = ["", *(f"surplus:{cause}" for cause in selection.CAUSES[1:])]
    return {int(left[place]): names[causes[place]].removesuffix(":number") for place in np.flatnonzero(causes)}


def _left(order: npt.NDArray[np.intp], reasons: Mapping[int, str]) -> npt.NDArray[np.intp]:
    if not reasons:
        return order
    return order[~np.isin(order, np.fromiter(reasons, np.intp, len(reasons)))]


def _twins(
    columns: Columns, order: npt.NDArray[np.intp], config: FilterConfig, meaning: Meaning | None
) -> dict[int, str]:
    rows = columns.sketch[order].astype(np.int64)
    row_of = np.full(len(columns.sketches), -1, np.int64)
    row_of[rows] = order
    more = []
    if config.semantic_duplicate is not None and meaning is not None:
        more.append(_semantic_pairs(columns, order, config.semantic_duplicate, meaning))
    twins = find_twins(columns.sketches, rows, dedup_settings(config), more)
    return {
        int(row_of[gone]): f"duplicate:{how} of {int(columns.ids[row_of[stays]]):016x}" for gone, stays, how in twins
    }


def _semantic_pairs(columns: Columns, order: npt.NDArray[np.intp], threshold: float, meaning: Meaning) -> Pairs:
    """Return twins by their vectors as pairs of sketches; numbers, names and negation have to be the same."""
    rows = columns.sketch[order].astype(np.int64)
    facts = columns.sketches.column("facts").view(np.int64)
    twins = semantic_twins(meaning.vectors, rows, threshold, facts=facts)
    gone = np.fromiter(twins, np.int64, len(twins))
    stays = np.array([stay for stay, _ in twins.values()], np.int64)
    return Pairs("semantic", gone, stays)
