"""The training loop that teacher and student share.

Under `torchrun --nproc-per-node N` each process trains on its own batches with one thread and every few steps the
weights are averaged (local SGD, Stich 2019): matrices this small gain little from threads within one product, and on a
busy machine processes that meet at every step mostly wait for each other.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import distributed
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from packing import Batch
    from transformers import Qwen2ForCausalLM


STEPS_APART = 8
"""Steps between two averages of the weights."""


@dataclass(slots=True)
class Clock:
    """How far training has come, as a share of its time."""

    minutes: float
    spent: float = 0.0
    """Seconds before this start, from the checkpoint."""
    started: float = 0.0

    stopped: bool = False

    def start(self) -> None:
        """Start counting; SIGTERM ends the training early, with its checkpoint."""
        self.started = time.monotonic()
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "stopped", True))

    @property
    def elapsed(self) -> float:
        """Seconds of training, this start and those before it."""
        return self.spent + (time.monotonic() - self.started if self.started else 0.0)

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        return min(1.0, self.elapsed / (60 * self.minutes))


def join_workers(threads: int) -> int:
    """Join the other processes that torchrun started, if any; this process's rank."""
    if "WORLD_SIZE" not in os.environ:
        torch.set_num_threads(threads)
        return 0
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    return distributed.get_rank()


def _average(model: Qwen2ForCausalLM, *, finished: bool) -> bool:
    """Average the weights over the workers; whether any of them has finished."""
    if not distributed.is_initialized():
        return finished
    weights = [parameter.data for parameter in model.parameters()]
    flat = torch.cat([weight.flatten() for weight in weights] + [torch.tensor([float(finished)])])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    start = 0
    for weight in weights:
        weight.copy_(flat[start : start + weight.numel()].view_as(weight))
        start += weight.numel()
    return bool(flat[-1] > 0)


def loss_of(model: Qwen2ForCausalLM, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted cross-entropy of the completions' tokens, and the share of them that is the likeliest token."""
    hidden = model.model(
        input_ids=batch.ids, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
    ).last_hidden_state
    logits = model.lm_head(hidden.flatten(0, 1)[batch.sources])
    losses = functional.cross_entropy(logits, batch.targets, reduction="none")
    hits = (logits.argmax(-1) == batch.targets).float()
    total = batch.weights.sum()
    return (losses * batch.weights).sum() / total, (hits * batch.weights).sum() / total


def train(
    model: Qwen2ForCausalLM,
    batches: Iterator[Batch],
    clock: Clock,
    *,
    peak: float,
    checkpoint: Path,
    save_every: float = 180.0,
) -> None:
    """AdamW with a cosine over the clock's time, clipping at 1; the checkpoint holds weights, optimizer and time."""
    matrices = [p for p in model.parameters() if p.ndim == 2 and p is not model.model.embed_tokens.weight]
    others = [p for p in model.parameters() if p.ndim != 2 or p is model.model.embed_tokens.weight]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}],
        lr=peak,
        betas=(0.9, 0.98),
    )
    step = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        clock.spent, step = saved["spent"], saved["step"]
    clock.start()
    saved_at = reported_at = time.monotonic()
    seen, losses, hits = 0, [], []
    model.train()
    is_first = not distributed.is_initialized() or distributed.get_rank() == 0
    for batch in batches:
        rate = peak * min(1.0, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * clock.progress)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, accuracy = loss_of(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        seen += batch.ids.numel()
        losses.append(loss.item())
        hits.append(accuracy.item())
        if step % STEPS_APART == 0 and _average(model, finished=clock.stopped or clock.progress >= 1):
            break
        now = time.monotonic()
        if now - reported_at > 20 and is_first:
            pace = seen / (now - reported_at)
            tail = f"loss {sum(losses) / len(losses):.3f} accuracy {sum(hits) / len(hits):.4f} {pace:.0f} tokens/s"
            print(f"{clock.elapsed:6.0f} s step {step} {tail}", file=sys.stderr, flush=True)
            reported_at, seen, losses, hits = now, 0, [], []
        if now - saved_at > save_every and is_first:
            _save(model, optimizer, clock, step, checkpoint)
            saved_at = now
    if is_first:
        _save(model, optimizer, clock, step, checkpoint)


def _save(model: Qwen2ForCausalLM, optimizer: torch.optim.Optimizer, clock: Clock, step: int, checkpoint: Path) -> None:
    fresh = checkpoint.with_suffix(".new")
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "spent": clock.elapsed,
        "step": step,
    }
    torch.save(state, fresh)
    fresh.rename(checkpoint)
