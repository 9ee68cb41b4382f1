"""What can be said of a record only beside the others: twins, and what is too many."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synth.filtering.config import FilterConfig
from synth.filtering.lines import sketch_settings
from synth.filtering.table import Columns
from synth.filters.dedup import find_twins
from synth.filters.selection import find_surplus
from synth.filters.semantic import semantic_twins


@dataclass(frozen=True, slots=True)
class Meaning:
    """Embeddings of the records, one row a record of the table, of unit length (zeros where none was made)."""

    vectors: npt.NDArray[np.float32]


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
        reasons.update(_twins(columns, order, config))
        if config.semantic_duplicate is not None and meaning is not None:
            left = _left(order, reasons)
            reasons.update(_semantic_twins(columns, left, config.semantic_duplicate, meaning))
    if without != "surplus":
        left = _left(order, reasons)
        surplus = find_surplus(
            columns.ids[left],
            quality=columns.quality[left],
            document=columns.document[left],
            passage=columns.passage[left],
            kind=columns.kind[left],
            documents=columns.documents,
            config=config,
            vectors=None if meaning is None else meaning.vectors[left],
        )
        reasons.update({int(row): "surplus" for row in left[surplus]})
    return reasons


def _left(order: npt.NDArray[np.intp], reasons: Mapping[int, str]) -> npt.NDArray[np.intp]:
    if not reasons:
        return order
    return order[~np.isin(order, np.fromiter(reasons, np.intp, len(reasons)))]


def _twins(columns: Columns, order: npt.NDArray[np.intp], config: FilterConfig) -> dict[int, str]:
    rows = columns.sketch[order]
    row_of = dict(zip(rows.tolist(), order.tolist(), strict=True))
    twins = find_twins(columns.sketches, rows, sketch_settings(config))
    return {
        row_of[gone]: f"duplicate:{twin.how} of {int(columns.ids[row_of[twin.row]]):016x}"
        for gone, twin in twins.items()
    }


def _semantic_twins(
    columns: Columns, order: npt.NDArray[np.intp], threshold: float, meaning: Meaning
) -> dict[int, str]:
    facts = columns.sketches.facts[columns.sketch[order]]
    twins = semantic_twins(meaning.vectors[order], np.arange(len(order)), threshold, facts=facts)
    return {
        int(order[gone]): f"duplicate:semantic of {int(columns.ids[order[twin]]):016x} ({similarity:.2f})"
        for gone, (twin, similarity) in twins.items()
    }
