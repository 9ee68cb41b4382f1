"""What the corpus level knows of all records: a few numbers each, so that a million fit in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from synth.filtering.lines import Scored
from synth.filters.sketch import SketchTable


@dataclass(frozen=True, slots=True)
class Columns:
    """One row a record, in the order of the file.

    `only`: -1 where nothing speaks against a record, an index into `steps` where one step alone does, -2 where
    several do. `tie` tells records apart whose ids are equal. `sketch` is the row in the sketches, or -1.
    """

    ids: npt.NDArray[np.uint64]
    tie: npt.NDArray[np.uint64]
    quality: npt.NDArray[np.float32]
    only: npt.NDArray[np.int16]
    document: npt.NDArray[np.int32]
    passage: npt.NDArray[np.int32]
    kind: npt.NDArray[np.int32]
    sketch: npt.NDArray[np.int32]
    steps: list[str]
    documents: tuple[str, ...]
    kinds: tuple[str, ...]
    sketches: SketchTable

    def __len__(self) -> int:
        return len(self.ids)

    def step_index(self, name: str) -> int:
        """Return the index of a step in `steps`, where it is put if it is new."""
        if name not in self.steps:
            self.steps.append(name)
        return self.steps.index(name)

    def best_first(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Return `rows` sorted by quality, the highest first, then by id: no order of the file decides."""
        best: npt.NDArray[np.intp] = rows[np.lexsort((self.tie[rows], self.ids[rows], -self.quality[rows]))]
        return best


class TableBuilder:
    """Collects the blocks of the first pass."""

    def __init__(self) -> None:
        self._blocks: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in _ARRAYS}
        self._names: dict[str, dict[str, int]] = {"steps": {}, "document": {}, "passage": {}, "kind": {}}
        self._sketches = SketchTable()
        self._sketched = 0

    def add(self, scored: Scored) -> None:
        """Add the rows of a block, after those that are there."""
        steps = self._merged("steps", scored.steps)
        only = np.where(scored.only >= 0, steps[np.maximum(scored.only, 0)] if len(steps) else 0, scored.only)
        sketched = scored.only >= -1
        place = np.where(sketched, self._sketched + np.cumsum(sketched) - 1, -1)
        self._sketched += int(sketched.sum())
        self._sketches.add(scored.sketches)
        rows: dict[str, npt.NDArray[Any]] = {
            "ids": scored.ids,
            "tie": np.frombuffer(scored.digests, dtype=">u8")[::4].astype(np.uint64),
            "quality": scored.quality,
            "only": only.astype(np.int16),
            "document": self._merged("document", scored.documents)[scored.document],
            "passage": self._merged("passage", scored.passages)[scored.passage],
            "kind": self._merged("kind", scored.kinds)[scored.kind],
            "sketch": place.astype(np.int32),
        }
        for name, values in rows.items():
            self._blocks[name].append(values)

    def finish(self) -> Columns:
        """Return all rows."""
        arrays = {
            name: np.concatenate(blocks) if blocks else np.empty(0, _ARRAYS[name])
            for name, blocks in self._blocks.items()
        }
        self._blocks.clear()
        return Columns(
            **arrays,
            steps=list(self._names["steps"]),
            documents=tuple(self._names["document"]),
            kinds=tuple(self._names["kind"]),
            sketches=self._sketches,
        )

    def _merged(self, what: str, names: Sequence[str]) -> npt.NDArray[np.int32]:
        """Return the index of each of a block's names among all names."""
        known = self._names[what]
        return np.array([known.setdefault(name, len(known)) for name in names], np.int32)


_ARRAYS = {
    "ids": np.uint64,
    "tie": np.uint64,
    "quality": np.float32,
    "only": np.int16,
    "document": np.int32,
    "passage": np.int32,
    "kind": np.int32,
    "sketch": np.int32,
}
