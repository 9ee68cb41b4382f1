"""One training step without memory and without arithmetic, to see what it would hold.

The student is built from its config alone and a batch goes forward and back through it in PyTorch's fake mode: every
operation runs its shape rules and nothing else, while a listener adds up what is allocated and what is let go. So any
architecture that transformers knows is measured by its own code, adapters, dropout and checkpointing included, and no
formula has to know that a gate and its product are kept, or that a norm computes in fp32.

Imported by `tune.memory` alone, and only there where a plan is made: it loads torch, transformers and peft.
"""

import contextlib
import copy
import math
import warnings
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AttentionInterface, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from synth.core.errors import ConfigError

# TRL 1.16 projects so many positions onto so many words of the vocabulary at a time
# (trl/kernels/chunked_logprob.py and trl/trainer/utils.py, add_fused_lm_head).
_POSITIONS, _WORDS = 4096, 32768

# Tiles in fp32 beside the projected one that TRL holds at once where there is no Triton to fold them in one pass:
# counted in its _forward_tile (the tile, its exponentials, two masked copies) and _backward_tile (the tile scaled
# twice, its logarithms, probabilities, gradient, and two products on the way).
_TILES_FORWARD, _TILES_BACKWARD = 4.25, 7.25

# NF4 with double quantization (Dettmers et al. 2023, section 3): four bits a weight, eight bits of scale for each 64
# weights, and 32 bits for each 256 of those scales.
FOUR_BIT_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)

_PHASES = ("forward", "head forward", "head backward", "backward", "embedding backward")

_DEPTHS = (1, 2)  # Layers that are rehearsed in place of all, where all are alike.


@dataclass(frozen=True, slots=True)
class Cast:
    """What is rehearsed: the model by its config, the adapter, and the batch.

    `length` is of one sequence; a `packed` batch is laid out as one long row with `rows` sequences in it. `masked`
    says that attention gets a mask of positions by positions. `on_gpu` says whose kernels to count.
    """

    config: PretrainedConfig
    method: str
    adapter: Mapping[str, Any]
    precision: str
    checkpointing: bool
    attention: str
    rows: int
    length: int
    packed: bool
    masked: bool
    on_gpu: bool


@dataclass(frozen=True, slots=True)
class Counted:
    """The weights of a student: how many there are and what they take, in bytes.

    `frozen_bytes` are of weights that stay as they are, `trained` are weights in fp32. `largest` is the number of
    weights of the largest layer that is held in four bits, 0 where none is.
    """

    weights: int
    frozen_bytes: int
    trained: int
    largest: int


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """The most that a step holds beside weights, gradients and optimizer state: bytes by phase.

    Phases are "forward", "head forward", "head backward", "backward" and "embedding backward", the last of all.
    """

    phases: Mapping[str, float]

    def peak(self, gradients: int, *, accumulated: bool) -> int:
        """Return the most that is held, these gradients included.

        Where gradients of earlier batches are `accumulated`, they are there all the time. Where each batch starts
        without, they come into being layer by layer as activations go, so that both are never there whole together.
        """
        most = max(self.phases.values())
        if accumulated:
            return math.ceil(gradients + most)
        return math.ceil(max(most, gradients + self.phases["embedding backward"]))


def build(cast: Cast) -> nn.Module:
    """Return the student on the meta device, with its adapter, as the trainer would load it.

    Raises:
        ConfigError: the student's layers cannot have such an adapter.
    """
    arithmetic = torch.bfloat16 if cast.precision == "bf16" and cast.method != "full" else torch.float32
    config = copy.deepcopy(cast.config)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: nn.Module = AutoModelForCausalLM.from_config(
            config, dtype=arithmetic, attn_implementation=_attention(cast)
        )
        if cast.method != "full":
            try:
                model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **cast.adapter))
            except ValueError as error:
                why = " ".join(str(error).split())[:300]
                fix = "--dropout 0" if "dropout" in why else "name other --target-modules"
                raise ConfigError(f"the student cannot have this adapter ({why})", fix=fix) from error
    return model


def count(model: nn.Module, cast: Cast) -> Counted:
    """Count the weights of a model that `build` returned, those that several layers share once."""
    four_bit: dict[int, int] = {}
    if cast.method == "qlora":
        head = _causal(model).get_output_embeddings()
        four_bit = {
            id(module.weight): module.weight.numel()
            for module in model.modules()
            # As transformers' bitsandbytes does it: linear layers but the head, and so none of the adapter.
            if isinstance(module, nn.Linear) and module is not head and not module.weight.requires_grad
        }
    weights = frozen = trained = 0
    for weight in model.parameters():
        weights += weight.numel()
        if weight.requires_grad:
            trained += weight.numel()
        elif id(weight) in four_bit:
            frozen += math.ceil(weight.numel() * FOUR_BIT_BYTES)
        else:
            frozen += weight.numel() * weight.element_size()
    return Counted(weights, frozen, trained, max(four_bit.values(), default=0))


def rehearse(model: nn.Module, cast: Cast) -> Rehearsed:
    """Return what a step of the batch would hold; the model is of no use afterwards.

    Where all layers are alike, two of them and then one are rehearsed, and the rest follows along the straight line:
    what a step holds grows by the same amount with every layer, in each phase by itself.
    """
    layers = _layers(model, cast.config)
    if layers is None or len(layers) <= _DEPTHS[1]:
        return Rehearsed(_step(model, cast))
    depth, (few, more) = len(layers), _DEPTHS
    del layers[more:]
    much = _step(model, cast)
    del layers[few:]
    little = _step(model, cast)
    return Rehearsed(
        {phase: much[phase] + (much[phase] - little[phase]) * (depth - more) / (more - few) for phase in much}
    )


def _step(model: nn.Module, cast: Cast) -> dict[str, float]:
    """Take the step and return the most that was held in each phase."""
    causal = _causal(model)
    held = _Held()
    with FakeTensorMode() as fake, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _materialize(model)
        if cast.checkpointing:
            causal.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
            if cast.method != "full":
                causal.enable_input_require_grads()
        model.train()
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        for weight in trained:
            weight.grad = torch.empty_like(weight)
            held.leave_out(weight.grad)
        for tensor in (*model.parameters(), *model.buffers()):
            held.leave_out(tensor)
        causal.get_input_embeddings().register_forward_hook(held.watch_embeddings)
        rows, length = (1, cast.rows * cast.length) if cast.packed else (cast.rows, cast.length)
        with held:
            inputs: dict[str, Any] = {"input_ids": torch.zeros((rows, length), dtype=torch.long)}
            if cast.masked:
                inputs["attention_mask"] = torch.ones((rows, 1, length, length), dtype=torch.bool)
            with _arithmetic(cast):
                hidden = causal.base_model(**inputs, use_cache=False).last_hidden_state[:, :-1]
                head = causal.get_output_embeddings()
                assert isinstance(head, nn.Module), "a causal language model has an output head"
                flat = hidden.reshape(-1, hidden.size(-1))
                loss: torch.Tensor = _Head.apply(flat, head.weight, held, cast)
            loss.backward()
        del inputs, hidden, flat, loss
        for weight in trained:
            weight.grad = None
    del fake
    return held.peaks


def _arithmetic(cast: Cast) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast("cpu", torch.bfloat16) if cast.precision == "bf16" else contextlib.nullcontext()


class _Held(TorchDispatchMode):
    """Adds up the storages that operations bring forth, until they are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.phase = "forward"
        self.peaks = dict.fromkeys(_PHASES, 0.0)
        self._now = 0.0
        self._alive: dict[int, weakref.ref[Any]] = {}

    def leave_out(self, tensor: torch.Tensor) -> None:
        """Count this tensor's storage as nothing."""
        self._note(tensor, 0.0)

    def add(self, extra: float) -> None:
        """Note that so many bytes were held for a moment beside what is held now."""
        self.peaks[self.phase] = max(self.peaks[self.phase], self._now + extra)

    def watch_embeddings(self, module: nn.Module, given: object, made: torch.Tensor) -> None:
        """Note when the gradients come back to where they end."""

        def arrived(_: torch.Tensor) -> None:
            self.phase = _PHASES[-1]

        if made.requires_grad:
            made.register_hook(arrived)

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Run the operation and note what came of it."""
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor, tensor.untyped_storage().nbytes())
        self.add(0.0)
        return result

    def _note(self, tensor: torch.Tensor, size: float) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive:
            return
        self._now += size

        def let_go(_: object) -> None:
            self._now -= size
            self._alive.pop(key, None)

        self._alive[key] = weakref.ref(storage, let_go)


class _Head(torch.autograd.Function):
    """TRL's chunked loss by what it allocates: tiles of the projection, and gradients that add up in fp32."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, held: _Held, cast: Cast) -> torch.Tensor:  # noqa: ANN401
        """Project tile by tile; nothing of it is kept but the inputs."""
        ctx.save_for_backward(hidden, weight)
        ctx.held, ctx.cast = held, cast
        held.phase = "head forward"
        held.add(_tiles(hidden, weight, cast, _TILES_FORWARD) + 8 * 4 * hidden.shape[0])
        return hidden.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        """Project again, and give both gradients in the types of the inputs."""
        hidden, weight = ctx.saved_tensors
        held, cast = ctx.held, ctx.cast
        held.phase = "head backward"
        for_hidden = torch.empty_like(hidden, dtype=torch.float32) if ctx.needs_input_grad[0] else None
        for_weight = torch.empty_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        held.add(_tiles(hidden, weight, cast, _TILES_BACKWARD))
        gradients = (
            None if for_hidden is None else for_hidden.to(hidden.dtype),
            None if for_weight is None else for_weight.to(weight.dtype),
        )
        del for_hidden, for_weight
        held.phase = "backward"
        return (*gradients, None, None)


def _tiles(hidden: torch.Tensor, weight: torch.Tensor, cast: Cast, tiles: float) -> float:
    positions, words = min(hidden.shape[0], _POSITIONS), min(weight.shape[0], _WORDS)
    size = 2 if cast.precision == "bf16" else 4
    # The buffer is as wide as a chunk even where the vocabulary is narrower; the words of a chunk are cast on the way.
    projected = positions * _WORDS * size + words * hidden.shape[1] * (size if weight.element_size() != size else 0)
    return projected + (0.0 if cast.on_gpu else tiles * positions * words * 4)


class _Flash(torch.autograd.Function):
    """Attention by what a fused kernel keeps: queries, keys, values, the result, and a number a query and head."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        """Return a result of the right shape."""
        result = query.new_empty((*query.shape[:-1], value.shape[-1]))
        ctx.save_for_backward(query, key, value, result, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, ...]:  # noqa: ANN401
        """Return gradients of the right shapes."""
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _flash(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: object, **__: object
) -> tuple[torch.Tensor, None]:
    result: torch.Tensor = _Flash.apply(query, key, value)
    return result.transpose(1, 2).contiguous(), None


_FUSED = "rehearsed"  # transformers looks for a package where the name has "flash" in it.


def _attention(cast: Cast) -> str:
    # Without a mask "sdpa" is a fused kernel too, but in fake mode transformers would give it one.
    if cast.attention == "eager" or (cast.attention == "sdpa" and cast.masked):
        return cast.attention
    AttentionInterface.register(_FUSED, _flash)
    return _FUSED


class _Dropout(nn.Module):
    """Dropout as a GPU does it, with a mask of a byte an element; on a CPU the mask is as large as the input."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Drop the share."""
        result: torch.Tensor = torch.native_dropout(given, self.share, self.training)[0]
        return result


def _materialize(model: nn.Module) -> None:
    """Move the meta tensors into the fake mode that is on, tied ones together."""
    known: dict[int, torch.Tensor] = {}

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in known:
            made = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            is_weight = isinstance(tensor, nn.Parameter)
            known[id(tensor)] = nn.Parameter(made, requires_grad=tensor.requires_grad) if is_weight else made
        return known[id(tensor)]

    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = fake(tensor)  # type: ignore[assignment]


def _causal(model: nn.Module) -> PreTrainedModel:
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]


def _layers(model: nn.Module, config: PretrainedConfig) -> nn.ModuleList | None:
    """Return the list of the model's layers if they are all alike, else None."""
    text = config.get_text_config()
    depth = getattr(text, "num_hidden_layers", None)
    kinds = getattr(text, "layer_types", None) or ["same"]
    found = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    if len(found) != 1 or len(set(kinds)) != 1:
        return None
    shapes = {tuple((name, p.shape, p.dtype) for name, p in layer.named_parameters()) for layer in found[0]}
    return found[0] if len(shapes) == 1 else None
