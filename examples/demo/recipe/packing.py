"""Batches in which several completions share one prompt.

A prompt is encoded once and each completion sees the prompt and itself, at the positions it has when it is the only
one; completions may share a stem in the same way. The loss is that of separate rows, for less than half the work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

    from transformers import PreTrainedTokenizerFast


STEM_WEIGHT = 0.15


@dataclass(frozen=True, slots=True)
class Completion:
    """A reply, or the stem of replies that differ only in their tails."""

    stem: str
    tails: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and completions that could each follow it."""

    prompt: str
    completions: tuple[Completion, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """An example as one sequence: the tree of its parts, laid out part after part.

    Token i has the id `ids[i]`, stands in completion `branches[i]` (0: the prompt) and tail `twigs[i]` (0: the stem),
    has position `positions[i]` in its reply, and follows token `parents[i]`.
    """

    ids: list[int]
    branches: list[int]
    twigs: list[int]
    positions: list[int]
    parents: list[int]


@dataclass(frozen=True, slots=True)
class Batch:
    """Tensors for one step: `sources` are flat positions whose output must be the token in `targets`."""

    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    sources: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    """What each prediction counts: a shared stem, which serving mostly forces, counts little."""


def encode(tokenizer: PreTrainedTokenizerFast, examples: list[Example]) -> list[Row]:
    """Tokenize examples into rows."""
    texts: list[str] = []
    for example in examples:
        texts.append(example.prompt)
        for completion in example.completions:
            texts += [completion.stem, *completion.tails]
    encoded = iter(tokenizer(texts, add_special_tokens=False).input_ids)
    rows = []
    for example in examples:
        row = Row([], [], [], [], [])
        _append(row, next(encoded), 0, 0, parent=-1, position=0)
        prompt = len(row.ids)
        for branch, completion in enumerate(example.completions, 1):
            _append(row, next(encoded), branch, 0, parent=prompt - 1, position=prompt)
            stem, position = len(row.ids) - 1, row.positions[-1] + 1
            for twig in range(1, len(completion.tails) + 1):
                _append(row, next(encoded), branch, twig, parent=stem, position=position)
        rows.append(row)
    return rows


def _append(row: Row, ids: list[int], branch: int, twig: int, *, parent: int, position: int) -> None:
    start = len(row.ids)
    row.ids.extend(ids)
    row.branches.extend([branch] * len(ids))
    row.twigs.extend([twig] * len(ids))
    row.positions.extend(range(position, position + len(ids)))
    row.parents.extend([parent, *range(start, start + len(ids) - 1)])


def collate(rows: list[Row]) -> Batch:
    """Pad rows to one length and write out the attention mask and the prediction targets."""
    width = max(len(row.ids) for row in rows)

    def padded(lists: list[list[int]], fill: int) -> torch.Tensor:
        return torch.tensor([values + [fill] * (width - len(values)) for values in lists])

    ids, positions = padded([row.ids for row in rows], 0), padded([row.positions for row in rows], 0)
    branch, twig = padded([row.branches for row in rows], -1), padded([row.twigs for row in rows], -1)
    parents = padded([row.parents for row in rows], 0)
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    own_branch = branch[:, :, None] == branch[:, None, :]
    own_twig = (twig[:, :, None] == twig[:, None, :]) | (twig[:, None, :] == 0)
    mask = causal & ((own_branch & own_twig) | (branch[:, None, :] == 0))
    predicted = branch > 0
    sources = (parents + torch.arange(len(rows))[:, None] * width)[predicted]
    has_tails = torch.zeros_like(predicted)
    for at, row in enumerate(rows):
        forked = {branch for branch, twig in zip(row.branches, row.twigs, strict=True) if twig}
        has_tails[at, : len(row.ids)] = torch.tensor([branch in forked for branch in row.branches])
    weights = torch.where(has_tails & (twig == 0), STEM_WEIGHT, 1.0)[predicted]
    return Batch(ids, positions, mask[:, None], sources, ids[predicted], weights)


def batches(
    tokenizer: PreTrainedTokenizerFast, draw: Callable[[], Example], rng: Random, tokens: int
) -> Iterator[Batch]:
    """Endless batches of about `tokens` padded tokens, of examples of like length."""
    while True:
        rows = sorted(encode(tokenizer, [draw() for _ in range(192)]), key=lambda row: len(row.ids))
        groups: list[list[Row]] = [[]]
        for row in rows:
            if groups[-1] and (len(groups[-1]) + 1) * len(row.ids) > tokens:
                groups.append([])
            groups[-1].append(row)
        rng.shuffle(groups)
        for group in groups:
            yield collate(group)
