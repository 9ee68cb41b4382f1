"""The order in which rows are trained on, which a resumed training takes up again."""

import random
from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

_WINDOW = 50  # Batches among which rows of like length are looked for.


class EpochSampler(Sampler[int]):
    """Yields row numbers in an order that follows from the seed and the epoch alone.

    Trainer's own samplers draw from the global random state, which a resumed training meets in another state.
    Grouped, rows of like length share a batch within windows of 50 batches, and the batches are shuffled, so that
    lengths come in random order; a batch that is not full comes last. `as_given` keeps the order of the rows, in
    every epoch: that of a curriculum.
    """

    def __init__(
        self, lengths: Sequence[int], *, batch_size: int, seed: int, grouped: bool, as_given: bool = False
    ) -> None:
        self._lengths, self._batch_size, self._seed, self._grouped = lengths, batch_size, seed, grouped
        self._as_given = as_given
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; the data loader calls it."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        order = list(range(len(self._lengths)))
        if self._as_given:
            return iter(order)
        chance = random.Random(f"{self._seed}:{self._epoch}")
        chance.shuffle(order)
        if self._grouped:
            size, window = self._batch_size, self._batch_size * _WINDOW
            order = [
                row
                for start in range(0, len(order), window)
                for row in sorted(order[start : start + window], key=lambda i: -self._lengths[i])
            ]
            batches = [order[start : start + size] for start in range(0, len(order), size)]
            rest = [batches.pop()] if len(batches[-1]) < size else []
            chance.shuffle(batches)
            order = [row for batch in (*batches, *rest) for row in batch]
        return iter(order)
