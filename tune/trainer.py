"""TRL's trainer as this project wants it.

It is given rows that are rendered and labelled already. Its order of rows survives a resume, its checkpoints are whole,
it keeps the best weights, and it leaves the network and the terminal alone.
"""

import dataclasses
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from safetensors import SafetensorError
from transformers import GenerationConfig
from transformers.trainer_callback import PrinterCallback
from trl import SFTTrainer

from synth.core.errors import RunError
from synth.core.jsonl import write_json
from tune.checkpoints import Best, best_weights, checkpoint_folder, keep_best, last_complete, seal_checkpoint
from tune.order import EpochSampler
from tune.parallel import are_split, whole_weights
from tune.ranks import is_main
from tune.rows import IGNORED
from tune.student import Student
from tune.trackers import tensorboard_writer
from tune.watch import Watch

# peft would ask the hub whether the vocabulary has grown, unless it is told not to save embeddings.
ADAPTER_ONLY: Mapping[str, Any] = {"save_embedding_layers": False}


@dataclasses.dataclass(frozen=True, slots=True)
class Places:
    """Where a training writes: checkpoints and the best weights, TensorBoard's files, and the seal they carry.

    `seal` says which training a checkpoint is of; no other may go on from it.
    """

    checkpoints: Path
    tensorboard: Path
    seal: str


def generation_settings(student: Student) -> GenerationConfig:
    """Return the settings that replies are generated with: the base's own, or its stop tokens alone."""
    # Trainer adds the tokenizer's special tokens to the model's; replies shall stop where the base's do.
    return student.generation or GenerationConfig(eos_token_id=sorted(student.stop_ids))


@dataclasses.dataclass(frozen=True, slots=True)
class Order:
    """How the rows are met: those of like length together, or in the order they are given in."""

    grouped: bool
    as_given: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Shipped:
    """How whole weights leave: in the base's own dtype, with its generation settings."""

    dtype: torch.dtype
    generation: GenerationConfig


class StudentTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer with a resumable order, sealed checkpoints, and the best weights kept beside them."""

    def __init__(
        self,
        *,
        watch: Watch,
        places: Places,
        order: Order,
        keep: str,
        shipped: Shipped,
        **options: Any,  # noqa: ANN401
    ) -> None:
        self.watch, self.places, self._order, self._keep, self._shipped = watch, places, order, keep, shipped
        self._shipping = False
        self._best_at_checkpoint: int | None = None
        super().__init__(callbacks=[watch], **options)
        self._validated_loss, self._validated_tokens = 0.0, 0
        watch.agree = self._agree
        self.remove_callback(PrinterCallback)

    def train_from(self, step: int | None) -> None:
        """Train, from the checkpoint after `step` where one is named, with TensorBoard's files written beside."""
        folder = None if step is None else checkpoint_folder(self.places.checkpoints, step)
        if is_main():
            self.add_callback(tensorboard_writer(self.places.tensorboard, step))
        if folder is not None:
            history = json.loads((folder / "trainer_state.json").read_bytes())["log_history"]
            self._best_at_checkpoint = _best_step(history)
            # TRL counts from nought again in each process.
            self._total_train_tokens = int(next((e["num_tokens"] for e in reversed(history) if "num_tokens" in e), 0))
        self.train(resume_from_checkpoint=None if folder is None else str(folder))

    def ship(self, folder: Path) -> None:
        """Write the weights as they are served, without optimizer: the adapter, or all of them in the base's dtype."""
        self._shipping = True
        try:
            if are_split():
                weights = whole_weights(self)
                if is_main():
                    self._save(str(folder), weights)
            else:
                self.save_model(str(folder), _internal_call=True)
        finally:
            self._shipping = False

    def best(self) -> Best | None:
        """Return the kept weights of the lowest validation loss, or None where the last ones shall be taken.

        Raises:
            RunError: the weights that were kept are not there, or not whole.
        """
        step = _best_step(self.state.log_history)
        if self._keep == "last" or step in (None, self.state.global_step):
            return None
        kept = best_weights(self.places.checkpoints, step, self.places.seal)
        if kept is None:
            raise RunError(
                f"the weights after step {step}, those of the lowest validation loss, are missing or damaged",
                where=str(self.places.checkpoints),
                fix=f"delete {self.places.checkpoints.parent} and train again, or take --keep last",
            )
        return kept

    def evaluate(self, *positional: Any, **named: Any) -> dict[str, float]:  # noqa: ANN401
        """Measure the validation loss, and keep the weights where it is the lowest so far."""
        metrics: dict[str, float] = super().evaluate(*positional, **named)
        losses = [entry["eval_loss"] for entry in self.state.log_history if "eval_loss" in entry]
        lowest = losses and losses[-1] < min(losses[:-1], default=math.inf)
        # The last weights need no copy, and an only validation has nothing to compare with.
        if self._keep == "best" and lowest and self.state.global_step < self.state.max_steps:
            self._guarded("the best weights", self._keep_best)
        return metrics

    def compute_loss(self, model: Any, inputs: dict[str, Any], *positional: Any, **named: Any) -> Any:  # noqa: ANN401
        """Return TRL's loss, and add up what a validation loss by tokens takes."""
        found = super().compute_loss(model, inputs, *positional, **named)
        if not self.model.training:
            counted = int((inputs["labels"][..., 1:] != IGNORED).sum())
            loss = found[0] if isinstance(found, tuple) else found
            divisor = float(counted)
            if self.args.average_tokens_across_devices and named.get("num_items_in_batch") is not None:
                # Then it is this process's sum over the tokens of all processes, times their number.
                divisor = float(named["num_items_in_batch"]) / self.accelerator.num_processes
            self._validated_loss += loss.item() * divisor
            self._validated_tokens += counted
        return found

    def log(self, logs: dict[str, float], *positional: Any, **named: Any) -> None:  # noqa: ANN401
        """Log, with the validation loss as the mean over all labelled tokens.

        Trainer's is the mean of the batches' means: it changes with the size of the batches and with packing.
        """
        if "eval_loss" in logs:
            sums = torch.tensor([self._validated_loss, float(self._validated_tokens)], device=self.args.device)
            total, counted = self.accelerator.reduce(sums, reduction="sum").tolist()
            self._validated_loss, self._validated_tokens = 0.0, 0
            logs["eval_loss"] = total / counted if counted else math.nan
        super().log(logs, *positional, **named)

    def _keep_best(self) -> None:
        keep_best(
            self.places.checkpoints,
            self.state.global_step,
            self.places.seal,
            self.ship,
            spare=self._best_at_checkpoint,
            main=is_main(),
            wait=self.accelerator.wait_for_everyone,
        )

    def _send_telemetry(self) -> None:
        """Send nothing: a training needs no network."""

    def create_model_card(self, *_: object, **__: object) -> None:
        """Write none beside checkpoints; the candidate gets this project's own."""

    def _get_train_sampler(self, train_dataset: datasets.Dataset | None = None) -> EpochSampler:
        rows = self.train_dataset if train_dataset is None else train_dataset
        return EpochSampler(
            [len(ids) for ids in rows["input_ids"]],
            batch_size=self.args.per_device_train_batch_size,
            seed=self.args.seed,
            grouped=self._order.grouped,
            as_given=self._order.as_given,
        )

    def _agree(self, flags: Sequence[bool]) -> Sequence[bool]:
        """Return the flags that any process of this training has raised, so that all of them do the same."""
        if self.accelerator.num_processes == 1:
            return flags
        raised = torch.tensor([float(flag) for flag in flags], device=self.accelerator.device)
        return [bool(total) for total in self.accelerator.reduce(raised, reduction="sum").tolist()]

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        # Trainer would also pickle its arguments and copy the tokenizer; neither is ever read back.
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        if hasattr(model, "peft_config"):
            model.save_pretrained(folder, state_dict=state_dict, **ADAPTER_ONLY)
        elif self._shipping:
            model.generation_config = self._shipped.generation
            weights = model.state_dict() if state_dict is None else state_dict
            model.save_pretrained(folder, state_dict=_cast(weights, self._shipped.dtype))
            _name_dtype(folder / "config.json", self._shipped.dtype)
        else:
            model.save_pretrained(folder, state_dict=state_dict)

    def _save_checkpoint(self, model: torch.nn.Module, trial: None) -> None:
        # Optimizer, scheduler and random states are torch.save files, a pickle by format. They are this program's
        # own, Trainer reads them back with weights_only=True, which builds tensors and plain values alone, and they
        # are deleted when the training is done. What is shipped is safetensors.
        began = time.monotonic()
        folder = checkpoint_folder(self.places.checkpoints, self.state.global_step)

        def save() -> None:
            super(StudentTrainer, self)._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if is_main():
                seal_checkpoint(folder, self.places.seal, self.watch.seconds)

        self._guarded(f"the checkpoint after step {self.state.global_step}", save)
        self._best_at_checkpoint = _best_step(self.state.log_history)
        self.watch.saved(time.monotonic() - began)

    def _guarded(self, what: str, save: Any) -> None:  # noqa: ANN401
        """Save, and where that fails delete what is torn and say from where the training can go on.

        Raises:
            RunError: the disk is full or not writable.
        """
        try:
            save()
        except (OSError, RuntimeError, SafetensorError) as error:  # torch says RuntimeError of a full disk
            if isinstance(error, torch.OutOfMemoryError):
                raise
            good = last_complete(self.places.checkpoints, self.places.seal, clean=is_main())
            left = "no checkpoint is left" if good is None else f"the checkpoint after step {good.step} is whole"
            raise RunError(
                f"{what} cannot be written ({' '.join(str(error).split())[:200]}); {left}",
                where=str(self.places.checkpoints),
                fix="free some space and run the same command again"
                + ("" if good is None else ": it goes on from there"),
            ) from error


def _best_step(history: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the step of the lowest validation loss, the first of several, or None where none was measured."""
    losses = [(entry["eval_loss"], int(entry["step"])) for entry in history if "eval_loss" in entry]
    return min(losses)[1] if losses else None


def _cast(weights: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return the weights in another dtype; those that share their memory, as tied embeddings do, still share it."""
    made: dict[tuple[int, torch.Size, torch.device], torch.Tensor] = {}
    cast = {}
    for name, tensor in weights.items():
        key = (tensor.data_ptr(), tensor.shape, tensor.device)
        if key not in made:
            made[key] = tensor.to(dtype) if tensor.is_floating_point() else tensor
        cast[name] = made[key]
    return cast


def _name_dtype(path: Path, dtype: torch.dtype) -> None:
    """Let config.json name the dtype of the file beside it; save_pretrained names that of the weights in memory."""
    config = json.loads(path.read_bytes())
    config["dtype"] = str(dtype).removeprefix("torch.")
    write_json(path, config)
