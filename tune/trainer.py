"""TRL's trainer as this project wants it.

Its order of rows survives a resume, its checkpoints are whole, it reports after every step, and it leaves the network
and the terminal alone.
"""

import contextlib
import logging
import math
import random
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import LoraConfig
from torch.utils.data import Sampler
from transformers import AutoModelForCausalLM, PreTrainedModel, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging as transformers_logging
from trl import SFTConfig, SFTTrainer

from synth.core.errors import RunError
from tune.checkpoints import checkpoint_folder, seal_checkpoint
from tune.config import TuneConfig
from tune.data import Measured
from tune.progress import Progress
from tune.student import Student, load_error

# peft would ask the hub whether the vocabulary has grown, unless it is told not to save embeddings.
ADAPTER_ONLY: Mapping[str, Any] = {"save_embedding_layers": False}

_HISTORY = 200  # About how many points of the loss curve are kept.
_WINDOW = 50  # Batches among which rows of like length are looked for.
_LIBRARIES = ("transformers", "trl", "peft", "accelerate", "datasets", "huggingface_hub", "torch", "py.warnings")


def build_trainer(
    student: Student,
    config: TuneConfig,
    rows: Mapping[str, Sequence[Measured]],
    *,
    precision: str,
    checkpoints: Path,
    seal: str,
    watch: "Watch",
) -> "StudentTrainer":
    """Return a trainer whose datasets TRL has tokenized and whose model is loaded.

    Args:
        student: what is tuned.
        config: how.
        rows: "train" and "validation", the latter possibly empty.
        precision: "bf16" or "fp32".
        checkpoints: the folder for them.
        seal: which training a checkpoint is of.
        watch: gets every step.

    Raises:
        ConfigError: the student's weights cannot be loaded.
    """
    on_cpu = not torch.accelerator.is_available()
    batches = math.ceil(len(rows["train"]) / config.batch_size)
    steps_per_epoch = math.ceil(batches / config.gradient_accumulation)
    arguments = SFTConfig(
        output_dir=str(checkpoints),
        seed=config.seed,
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        learning_rate=config.peak_learning_rate,
        lr_scheduler_type="constant_with_warmup" if config.schedule == "constant" else config.schedule,
        warmup_steps=config.warmup,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        # Rows that are too long were refused by name; TRL cuts in silence, so it is told of no limit.
        max_length=None,
        completion_only_loss=True,
        packing=False,
        bf16=precision == "bf16",
        use_cpu=on_cpu,
        gradient_checkpointing=not on_cpu if config.gradient_checkpointing is None else config.gradient_checkpointing,
        dataloader_pin_memory=not on_cpu,
        # Evaluation by steps, not by epochs: at the last step of an epoch Trainer then logs, evaluates and saves in
        # this order, so that a checkpoint there never lacks the validation loss.
        eval_strategy="steps" if rows["validation"] else "no",
        eval_steps=steps_per_epoch,
        logging_steps=max(1, steps_per_epoch * config.epochs // _HISTORY),
        # By default a loss that is not a number is replaced by the mean; here it stops the training.
        logging_nan_inf_filter=False,
        save_strategy="no",
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
    )
    # With several GPUs in sight Trainer would wrap the model in DataParallel, which TRL refuses; one GPU it is.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=config.target_modules,
        task_type="CAUSAL_LM",
    )
    trainer = StudentTrainer(
        watch=watch,
        seal=seal,
        grouped=config.group_by_length,
        model=_load_weights(student, config, precision),
        args=arguments,
        processing_class=student.tokenizer,
        train_dataset=_prompt_completion(rows["train"]),
        eval_dataset=_prompt_completion(rows["validation"]) if rows["validation"] else None,
        peft_config=lora if config.method == "lora" else None,
    )
    if config.method == "lora":
        # Engines are told the base by whoever serves it; a path of this machine would be of no use in the file.
        trainer.model.peft_config["default"].base_model_name_or_path = student.name
    return trainer


def _load_weights(student: Student, config: TuneConfig, precision: str) -> PreTrainedModel:
    # Weights that are trained stay in fp32 whatever the arithmetic: in bf16 small steps would round to nothing.
    dtype = torch.bfloat16 if precision == "bf16" and config.method == "lora" else torch.float32
    try:
        return AutoModelForCausalLM.from_pretrained(
            student.source, dtype=dtype, use_safetensors=True, **student.options
        )
    except (OSError, ValueError) as error:
        raise load_error(error, config.student, local=student.local) from error


def _prompt_completion(rows: Sequence[Measured]) -> datasets.Dataset:
    return datasets.Dataset.from_list([m.row.to_json() for m in rows])


class StudentTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer with resumable order and sealed checkpoints; `seal` says which training they are of."""

    def __init__(self, *, watch: "Watch", seal: str, grouped: bool, **options: Any) -> None:  # noqa: ANN401
        self.watch, self.seal, self.grouped = watch, seal, grouped
        super().__init__(callbacks=[watch], **options)
        self.remove_callback(PrinterCallback)

    def _send_telemetry(self) -> None:
        """Send nothing: a training needs no network."""

    def create_model_card(self, *_: object, **__: object) -> None:
        """Write none beside checkpoints; the candidate gets this project's own."""

    def _get_train_sampler(self, train_dataset: datasets.Dataset | None = None) -> "EpochSampler":
        rows = self.train_dataset if train_dataset is None else train_dataset
        return EpochSampler(
            [len(ids) for ids in rows["input_ids"]],
            batch_size=self.args.per_device_train_batch_size,
            seed=self.args.seed,
            grouped=self.grouped,
        )

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        # Trainer would also pickle its arguments and copy the tokenizer; neither is ever read back.
        options = ADAPTER_ONLY if hasattr(self.model, "peft_config") else {}
        self.model.save_pretrained(output_dir, state_dict=state_dict, **options)

    def _save_checkpoint(self, model: torch.nn.Module, trial: None) -> None:
        # Optimizer, scheduler and random states are torch.save files, a pickle by format. They are this program's
        # own, Trainer reads them back with weights_only=True, which builds tensors and plain values alone, and they
        # are deleted when the training is done. What is shipped is safetensors.
        began = time.monotonic()
        super()._save_checkpoint(model, trial)
        folder = checkpoint_folder(Path(self.args.output_dir), self.state.global_step)
        seal_checkpoint(folder, self.seal, self.watch.seconds)
        self.watch.saved(time.monotonic() - began)


class EpochSampler(Sampler[int]):
    """Yields row numbers in an order that follows from the seed and the epoch alone.

    Trainer's own samplers draw from the global random state, which a resumed training meets in another state.
    Grouped, rows of like length share a batch within windows of 50 batches, and the batches are shuffled, so that
    lengths come in random order; a batch that is not full comes last.
    """

    def __init__(self, lengths: Sequence[int], *, batch_size: int, seed: int, grouped: bool) -> None:
        self._lengths, self._batch_size, self._seed, self._grouped = lengths, batch_size, seed, grouped
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; the data loader calls it."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        chance = random.Random(f"{self._seed}:{self._epoch}")
        order = list(range(len(self._lengths)))
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


class Watch(TrainerCallback):  # type: ignore[misc]
    """Reports every step, stops on a loss that is no number, and says when a checkpoint is due.

    Args:
        on_progress: called after every step.
        save_every: seconds between checkpoints; 0 saves at every step whose loss is logged.
    """

    def __init__(self, on_progress: Callable[[Progress], None] | None, save_every: float) -> None:
        self._on_progress, self._save_every, self._interval = on_progress, save_every, save_every
        self._loss: float | None = None
        self._validation_loss: float | None = None
        self._tokens = 0.0
        self._began = self._last_saved = time.monotonic()
        self.seconds_before = 0.0

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of training, those before a resume included."""
        return self.seconds_before + time.monotonic() - self._began

    def saved(self, seconds: float) -> None:
        """Note that writing a checkpoint took so long, and keep such writes below a twentieth of the time."""
        self._last_saved = time.monotonic()
        self._interval = max(self._save_every, 20 * seconds) if self._save_every else 0.0

    def on_train_begin(self, args: SFTConfig, state: Any, control: Any, **_: object) -> None:  # noqa: ANN401
        """Start the clocks."""
        self._began = self._last_saved = time.monotonic()

    def on_log(self, args: SFTConfig, state: Any, control: Any, **also: Any) -> None:  # noqa: ANN401
        """Take up the losses.

        Raises:
            RunError: one of them is not a number any more.
        """
        logs: Mapping[str, float] = also["logs"]
        for key in ("loss", "eval_loss", "grad_norm"):
            if not math.isfinite(logs.get(key, 0.0)):
                raise RunError(
                    f"the {key.replace('_', ' ')} is {logs[key]} at step {state.global_step}",
                    fix="lower --learning-rate, or train with --precision fp32",
                )
        self._loss = logs.get("loss", self._loss)
        self._validation_loss = logs.get("eval_loss", self._validation_loss)
        self._tokens = logs.get("num_tokens", self._tokens)

    def on_step_end(self, args: SFTConfig, state: Any, control: Any, **_: object) -> Any:  # noqa: ANN401
        """Report the step, and ask for a checkpoint where one is due."""
        if self._on_progress is not None:
            self._on_progress(
                Progress(
                    step=state.global_step,
                    total=state.max_steps,
                    epoch=state.epoch,
                    loss=self._loss,
                    validation_loss=self._validation_loss,
                    tokens_per_second=self._tokens / max(time.monotonic() - self._began, 1e-9),
                )
            )
        # Only where the loss is logged too: the mean since the last log is lost when a process dies.
        logged = state.global_step % state.logging_steps == 0
        if logged and time.monotonic() - self._last_saved >= self._interval:
            control.should_save = True
        return control


@contextlib.contextmanager
def quiet(log: Path) -> Iterator[None]:
    """Send what the libraries log and warn of to a file in place of the terminal, and hide their progress bars."""
    log.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(log, delay=True, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in _LIBRARIES]
    before = [(logger.handlers, logger.propagate) for logger in loggers]
    bars = transformers_logging.is_progress_bar_enabled(), not datasets.are_progress_bars_disabled()
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        logging.captureWarnings(True)
        for logger in loggers:
            logger.handlers, logger.propagate = [handler], False
        transformers_logging.disable_progress_bar()
        datasets.disable_progress_bars()
        try:
            yield
        finally:
            logging.captureWarnings(False)
            for logger, (handlers, propagate) in zip(loggers, before, strict=True):
                logger.handlers, logger.propagate = handlers, propagate
            if bars[0]:
                transformers_logging.enable_progress_bar()
            if bars[1]:
                datasets.enable_progress_bars()
            handler.close()
