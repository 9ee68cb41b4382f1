"""What a training will hold in memory, told before a step is taken, beside what this machine has.

Weights, gradients and optimizer state are counted, from the student's config and the adapter's shape. What a batch
holds on its way forward and back is found by a rehearsal (`tune.rehearsal`): the student's own code runs one step in
PyTorch's fake mode, where every tensor has a shape and none has memory. docs/memory.md says how far off that was.

torch is loaded when a plan is made, not when this module is.
"""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.table import Table
from rich.text import Text

from synth.core.console import size
from tune.config import TuneConfig

if TYPE_CHECKING:
    from torch import nn

    from tune.rehearsal import Cast
    from tune.student import Student

Precision = Literal["bf16", "fp32"]

_MIB = 2**20

# On a GPU: workspaces of cuBLAS and attention kernels, and what its allocator rounds up and cannot join. Not measured.
_GPU_EXTRA, _GPU_SPLIT = 512 * _MIB, 0.05
# On a CPU: what the libraries load at the first step, and what resident memory has beyond what torch allocates, half
# of a batch at most but once in the runs of docs/memory.md.
_CPU_EXTRA, _CPU_SPLIT = 128 * _MIB, 0.5

_NO_LIMIT = 2**60  # cgroups say "no limit" in several large numbers.


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory that a training may use: of the GPU where there is one, else of the machine or its container.

    `available` bytes may be held by this process in all; `held` of them it holds already.
    """

    kind: Literal["GPU", "RAM"]
    total: int
    available: int
    held: int


@dataclass(frozen=True, slots=True)
class Part:
    """One line of a plan: what, how many bytes of it, and why."""

    name: str
    bytes: int
    why: str


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What one process of a training holds at most, and what it may hold.

    `rows` of `length` tokens are in memory at once; `packed` ones are packed sequences. `suggested` are flags that
    change the least and make it fit: empty where it fits, or where nothing would.
    """

    method: str
    precision: Precision
    rows: int
    length: int
    packed: bool
    checkpointing: bool
    weights: int
    trained: int
    parts: tuple[Part, ...]
    memory: Memory
    suggested: tuple[str, ...] = ()

    @property
    def need(self) -> int:
        """Bytes at the fullest moment."""
        return sum(part.bytes for part in self.parts)

    @property
    def fits(self) -> bool:
        """Whether the machine has as much."""
        return self.need <= self.memory.available

    def said(self) -> str:
        """Return in a sentence or two what is needed, what is there, and what to change where that is too little."""
        text = f"about {size(self.need)} are needed and {size(self.memory.available)} of {self._place()} can be had"
        if self.fits:
            return f"{text}: it fits"
        if self.suggested:
            return f"{text}; it would fit with {' '.join(self.suggested)}"
        return f"{text}; no change of batch or method would fit: lower --max-length, or take a smaller student"

    def table(self) -> Table:
        """Return the plan as a table, the sum and what the machine has at its end."""
        table = Table(title="Memory", title_justify="left", box=None, pad_edge=False, show_header=False)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column()
        for part in self.parts:
            table.add_row(Text(size(part.bytes)), Text(part.name), Text(part.why, style="dim"))
        verdict = Text("fits", style="green") if self.fits else Text("does not fit", style="bold red")
        table.add_row(Text(size(self.need), style="bold"), Text("in all", style="bold"), verdict)
        table.add_row(Text(size(self.memory.available)), Text("available"), Text(f"of {self._place()}", style="dim"))
        return table

    def to_json(self) -> dict[str, Any]:
        """Return the plan as it stands in training.json, sizes in bytes."""
        return asdict(self) | {"need": self.need, "fits": self.fits, "suggested": list(self.suggested)}

    def _place(self) -> str:
        return f"{size(self.memory.total)} {'of the GPU' if self.memory.kind == 'GPU' else 'of memory'}"


def plan_memory(
    student: "Student",
    config: TuneConfig,
    *,
    longest: int,
    precision: Precision,
    checkpointing: bool,
    packed: int | None,
    processes: int = 1,
    rows: int | None = None,
    accumulation: int | None = None,
    memory: Memory | None = None,
) -> MemoryPlan:
    """Say what a training will hold at its fullest moment, and what to change where the machine has less.

    Counted are the weights as the trainer loads them: in bf16 or fp32 beside an adapter, in four bits with their
    scales for "qlora", in fp32 where all are trained; a gradient of four bytes for each trained weight and AdamW's two
    averages of four bytes. The batch is the worst one, every row as long as the longest. The loss needs no logits of
    the whole batch, since TRL computes it in tiles.

    Several processes are taken to hold a copy each, as plain data parallelism does it, with DDP's buckets as a second
    copy of the gradients; FSDP and ZeRO need less.

    Args:
        student: what is tuned.
        config: how.
        longest: tokens of the longest row.
        precision: arithmetic.
        checkpointing: whether activations are computed twice.
        packed: tokens of a packed sequence, or None where rows are padded.
        processes: how many train together; on a CPU they share the memory.
        rows: rows, or packed sequences, in memory at once. Default: the config's batch size, and 1 where packed.
        accumulation: batches a step. Default: the config's.
        memory: what there is. Default: this machine's.
    """
    memory = memory or machine_memory()
    if memory.kind == "RAM" and processes > 1:
        free = (memory.available - memory.held) // processes
        memory = replace(memory, available=memory.held + free)
    several = accumulation if accumulation is not None else config.gradient_accumulation
    asked = _Asked(
        student=student,
        config=config,
        precision=precision,
        checkpointing=checkpointing,
        rows=rows or (1 if packed else config.batch_size),
        length=packed or longest,
        longest=longest,
        packed=packed is not None,
        accumulation=several,
        processes=processes,
        memory=memory,
    )
    plan = _plan(asked)
    if plan.fits:
        return plan
    for flags, smaller in _smaller(asked):
        if _fits(smaller):
            return replace(plan, suggested=flags)
    return plan


def machine_memory(root: Path = Path("/")) -> Memory:
    """Return what a training on this machine may use: the GPU's memory, else RAM within the limits of its cgroups.

    Args:
        root: where /proc and /sys are looked for.
    """
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        held = torch.cuda.memory_reserved()
        return Memory("GPU", total, free + held, held)
    return _ram(root)


def _ram(root: Path) -> Memory:
    known = _numbers(root / "proc/meminfo")
    if "MemTotal" not in known:  # Not Linux.
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Memory("RAM", total, total, 0)
    total, free = known["MemTotal"] * 1024, known.get("MemAvailable", known["MemTotal"]) * 1024
    held = _numbers(root / "proc/self/status").get("VmRSS", 0) * 1024
    for limit, used in _cgroups(root):
        if limit < total:
            total = limit
        free = min(free, limit - used)
    return Memory("RAM", total, max(0, free) + held, held)


def _cgroups(root: Path) -> Iterator[tuple[int, int]]:
    """Yield the limit and the use of each cgroup that holds this process and has a limit, of version 1 or 2."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        inner = Path(path.lstrip("/"))
        # A container may see its own cgroup as the root, or its path on the host.
        for folder in (base / inner, *(base / parent for parent in inner.parents)):
            limit, used = (_number(folder / name) for name in names)
            if limit is not None and limit < _NO_LIMIT:
                # Pages of files that nobody holds are given back before anyone is killed.
                stat = _numbers(folder / "memory.stat")
                spare = stat.get("total_inactive_file", stat.get("inactive_file", 0))
                yield limit, max(0, (used or 0) - spare)


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _numbers(path: Path) -> dict[str, int]:
    """Return the numbers of a file of names and numbers, "" where it cannot be read."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.replace(":", " ").split()[:2] for line in lines)
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


@dataclass(frozen=True, slots=True)
class _Asked:
    """A training to plan for."""

    student: "Student"
    config: TuneConfig
    precision: Precision
    checkpointing: bool
    rows: int
    length: int
    longest: int
    packed: bool
    accumulation: int
    processes: int
    memory: Memory

    def cast(self) -> "Cast":
        """Return what there is to rehearse."""
        from tune.rehearsal import Cast

        return Cast(
            config=self.student.config,
            method=self.config.method,
            adapter=_adapter(self.config),
            precision=self.precision,
            checkpointing=self.checkpointing,
            attention="sdpa" if self.config.attention == "auto" else self.config.attention,
            rows=self.rows,
            length=self.length,
            packed=self.packed,
            masked=self.packed or self.rows > 1,
            on_gpu=self.memory.kind == "GPU",
        )


def _plan(asked: _Asked) -> MemoryPlan:
    counted, model = _counted(asked)
    return _with_batch(asked, counted, model)


def _fits(asked: _Asked) -> bool:
    counted, model = _counted(asked)
    # Where the weights alone are too many, no batch need be rehearsed.
    return counted.fits and _with_batch(asked, counted, model).fits


def _counted(asked: _Asked) -> tuple[MemoryPlan, "nn.Module"]:
    """Return the plan without its batch, and the model on the meta device."""
    from tune.rehearsal import build, count

    cast = asked.cast()
    model = build(cast)
    found = count(model, cast)
    trained, state = 4 * found.trained, _optimizer_bytes(str(asked.config.trainer.get("optim", "adamw")))
    several = asked.processes > 1
    # A layer in four bits is unpacked for each product.
    unpacked = found.largest * (2 if asked.precision == "bf16" else 4)
    parts = (
        Part("weights that stay", found.frozen_bytes, _frozen(asked.config.method, asked.precision)),
        Part("weights that are trained", trained, f"{found.trained:,} in fp32".replace(",", " ")),
        Part("gradients", 2 * trained if several else trained, "in fp32" + ", and the buckets of DDP" * several),
        Part("optimizer", state * found.trained, f"{state} bytes a trained weight"),
        Part("a layer unpacked", unpacked, f"in {asked.precision}"),
        Part("this process", asked.memory.held, "held already"),
    )
    plan = MemoryPlan(
        method=asked.config.method,
        precision=asked.precision,
        rows=asked.rows,
        length=asked.length,
        packed=asked.packed,
        checkpointing=asked.checkpointing,
        weights=found.weights,
        trained=found.trained,
        parts=tuple(part for part in parts if part.bytes),
        memory=asked.memory,
    )
    return plan, model


def _with_batch(asked: _Asked, plan: MemoryPlan, model: "nn.Module") -> MemoryPlan:
    from tune.rehearsal import rehearse

    gradients = sum(part.bytes for part in plan.parts if part.name == "gradients")
    what = "packed sequence" if asked.packed else "row"
    shape = f"{asked.rows} {what}{'s' * (asked.rows > 1)} of {asked.length} tokens"
    try:
        step = rehearse(model, asked.cast())
        batch = max(0, step.peak(gradients, accumulated=asked.accumulation > 1) - gradients)
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        # Code that looks at values cannot run without them. A plan is advice, so it must not stop a training.
        batch = _rule_of_thumb(asked)
        shape += ", by a rule of thumb"
    share, extra = (_GPU_SPLIT, _GPU_EXTRA) if asked.memory.kind == "GPU" else (_CPU_SPLIT, _CPU_EXTRA)
    return replace(
        plan,
        parts=(
            *plan.parts,
            Part("the batch", batch, shape + ", computed twice" * asked.checkpointing),
            Part("the rest", extra + math.ceil(share * batch), "libraries and rounding"),
        ),
    )


def _rule_of_thumb(asked: _Asked) -> int:
    """Return 34 bytes for each token, hidden unit and layer, with fused attention and 16 bits; twice that in 32.

    Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models", equation 1 without the
    attention's own term. Computed twice, each layer keeps its input and one layer is whole at a time.
    """
    config = asked.student.config.get_text_config()
    size = 1 if asked.precision == "bf16" else 2
    unit, layers = asked.rows * asked.length * config.hidden_size * size, config.num_hidden_layers
    return int(unit * (34 + 2 * layers)) if asked.checkpointing else int(unit * 34 * layers)


def _adapter(config: TuneConfig) -> Mapping[str, Any]:
    return {
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "target_modules": config.target_modules,
        "use_rslora": config.rslora,
        "use_dora": config.dora,
    }


def _frozen(method: str, precision: str) -> str:
    if method == "qlora":
        return f"linear layers in four bits, the rest in {precision}"
    return f"in {precision}"


def _optimizer_bytes(name: str) -> int:
    """Return what an optimizer of transformers keeps for each trained weight; AdamW's eight bytes where unknown."""
    if "8bit" in name:
        return 2
    if "4bit" in name or name in ("sgd", "adafactor"):
        return 0 if name in ("sgd", "adafactor") else 1
    return 8


def _smaller(asked: _Asked) -> Iterator[tuple[tuple[str, ...], _Asked]]:
    """Yield changes with their flags, the smallest first.

    Fewer rows at once with more batches a step train the same; activations computed twice cost a fifth of the time;
    an adapter, or four bits, train something else.
    """
    methods = ("full", "lora", "qlora")
    for method in methods[methods.index(asked.config.method) :]:
        named = () if method == asked.config.method else ("--method", method)
        config = asked.config.model_copy(update={"method": method})
        for checkpointing in (False, True):
            if asked.checkpointing and not checkpointing:
                continue
            twice = () if checkpointing == asked.checkpointing else ("--gradient-checkpointing",)
            there = replace(asked, config=config, checkpointing=checkpointing)
            for flags, smaller in _fewer(there):
                if smaller != asked:
                    yield (*named, *twice, *flags), smaller


def _fewer(asked: _Asked) -> Iterator[tuple[tuple[str, ...], _Asked]]:
    """Yield the same training with ever fewer tokens in memory at once."""
    yield (), asked
    if asked.packed:
        length = asked.length
        while length > asked.longest:
            length = max(asked.longest, length // 2)
            yield ("--packing-length", str(length)), replace(asked, length=length)
        return
    rows, of_a_step = asked.rows, asked.rows * asked.accumulation
    while rows > 1:
        rows //= 2
        batches = math.ceil(of_a_step / rows)
        flags = ("--batch-size", str(rows), "--gradient-accumulation", str(batches))
        yield flags, replace(asked, rows=rows, accumulation=batches)
