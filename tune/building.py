"""A trainer, made of a student, settings and rows: TRL's arguments, the weights, the adapter, the packed dataset."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import LoraConfig, PeftModel
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel
from trl import SFTConfig
from trl.data_utils import pack_dataset

from synth.core.errors import ConfigError
from tune.config import TuneConfig
from tune.dora import check_rows
from tune.parallel import process_arguments, share_out_weights
from tune.quantized import prepare, quantization
from tune.rows import Rendered
from tune.setup import Setup, steps_per_epoch
from tune.student import Student, load_error
from tune.trainer import Order, Places, Shipped, StudentTrainer, generation_settings
from tune.trainer_table import check_trainer_table
from tune.watch import Watch

PACKED_TOGETHER = 100_000
"""Rows that TRL's packer is given at once."""


def build_trainer(
    student: Student,
    config: TuneConfig,
    rows: Mapping[str, Sequence[Rendered]],
    *,
    setup: Setup,
    places: Places,
    watch: Watch,
    ordered: bool = False,
    parent: Path | None = None,
) -> StudentTrainer:
    """Return a trainer whose datasets are ready, packed where the setup says so, and whose model is loaded.

    Args:
        student: what is tuned.
        config: how.
        rows: "train" and "validation", the latter possibly empty.
        setup: what was settled for this machine.
        places: where checkpoints and logs go.
        watch: gets every step.
        ordered: whether the rows come in the order they have.
        parent: the folder of the candidate to go on from.

    Raises:
        ConfigError: the student's weights cannot be loaded, or a setting is refused.
    """
    arguments = _arguments(config, setup, places, rows)
    model = _load_weights(student, config, setup, parent)
    adapter = None
    if config.adapter and parent is not None:
        shape = LoraConfig.from_pretrained(str(parent))
        shape.lora_dropout = config.dropout  # The one setting of an adapter that is not handed down.
        model = PeftModel.from_pretrained(model, str(parent), config=shape, is_trainable=True)
    elif config.adapter:
        adapter = _adapter(config)
    try:
        trainer = StudentTrainer(
            watch=watch,
            places=places,
            order=Order(config.group_by_length, ordered),
            keep=config.keep,
            shipped=_shipped(student),
            model=model,
            args=arguments,
            processing_class=student.tokenizer,
            train_dataset=_prepared(rows["train"], setup),
            eval_dataset=_prepared(rows["validation"], setup) if rows["validation"] else None,
            peft_config=adapter,
        )
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        # A tracker that is not installed is a RuntimeError of transformers.
        raise ConfigError(f"TRL refuses the settings ({' '.join(str(error).split())[:400]})", where="[sft]") from error
    if config.method == "qlora":
        prepare(trainer.model)
    if config.adapter and config.dora:
        check_rows(trainer.model)
    if config.adapter:
        # Engines are told the base by whoever serves it; a path of this machine would be of no use in the file.
        trainer.model.peft_config["default"].base_model_name_or_path = student.name
    # Only now is it known how many packed sequences there are.
    per_epoch = steps_per_epoch(len(trainer.train_dataset), setup)
    arguments.eval_steps = max(1, round(per_epoch * config.evaluate_every))
    # Trainer rounds up and begins at nought: of a single step, a warm-up would leave nothing.
    arguments.warmup_steps = _warmup_steps(config, config.steps or per_epoch * config.epochs)
    return trainer


def _arguments(config: TuneConfig, setup: Setup, places: Places, rows: Mapping[str, Sequence[Rendered]]) -> SFTConfig:
    check_trainer_table(config.trainer, {field.name for field in dataclasses.fields(SFTConfig)})
    on_cpu = not torch.accelerator.is_available()
    defaults: dict[str, Any] = {"dataloader_pin_memory": not on_cpu}
    try:
        arguments = SFTConfig(
            output_dir=str(places.checkpoints),
            seed=config.seed,
            num_train_epochs=config.epochs,
            max_steps=config.steps or -1,
            per_device_train_batch_size=setup.batch_size,
            per_device_eval_batch_size=setup.batch_size,
            gradient_accumulation_steps=setup.accumulation,
            learning_rate=config.peak_learning_rate,
            lr_scheduler_type="constant_with_warmup" if config.schedule == "constant" else config.schedule,
            warmup_steps=config.warmup,
            weight_decay=config.weight_decay,
            max_grad_norm=config.max_grad_norm,
            # Rows that are too long were named and dealt with; TRL cuts in silence, so it is told of no limit but the
            # length of a pack, which every row fits.
            max_length=setup.packed,
            packing=setup.packed is not None,
            packing_strategy="bfd",
            # Packed rows are ready: see _prepared.
            dataset_kwargs={"skip_prepare_dataset": setup.packed is not None},
            bf16=setup.precision == "bf16",
            gradient_checkpointing=setup.checkpointing,
            # Evaluation by steps, not by epochs: at the last step of an epoch Trainer then logs, evaluates and saves in
            # this order, so that a checkpoint there never lacks the validation loss.
            eval_strategy="steps" if rows["validation"] else "no",
            eval_steps=1,
            # Every step: a mean over several would be lost where a process dies between two logs.
            logging_steps=1,
            # By default a loss that is not a number is replaced by the mean; here it stops the training.
            logging_nan_inf_filter=False,
            save_strategy="no",
            save_total_limit=2,
            report_to=list(config.report_to) or "none",
            disable_tqdm=True,
            **(defaults | process_arguments(on_cpu=on_cpu) | config.trainer),
        )
    except (TypeError, ValueError, ImportError) as error:
        raise ConfigError(
            f"SFTConfig refuses the settings ({' '.join(str(error).split())[:400]})", where="[sft]"
        ) from error
    # With several GPUs in sight Trainer would wrap the model in DataParallel, which TRL refuses; one GPU it is.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    share_out_weights(on_cpu=on_cpu)
    return arguments


def _warmup_steps(config: TuneConfig, steps: int) -> int:
    """Return the steps of the warm-up: none where its share of them is less than one."""
    return math.ceil(config.warmup * steps) if config.warmup * steps >= 1 else 0


def _adapter(config: TuneConfig) -> LoraConfig:
    return LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=config.target_modules,
        use_rslora=config.rslora,
        use_dora=config.dora,
        task_type="CAUSAL_LM",
    )


def _load_weights(student: Student, config: TuneConfig, setup: Setup, parent: Path | None) -> PreTrainedModel:
    # Weights that are trained stay in fp32 whatever the arithmetic: in bf16 small steps would round to nothing.
    dtype = torch.bfloat16 if setup.precision == "bf16" and config.adapter else torch.float32
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "attn_implementation": setup.attention}
    if setup.kernels:
        options["use_kernels"] = True
    source = student.source
    if parent is not None and not config.adapter:
        source, named = str(parent), {"local_files_only": True, "trust_remote_code": False}
    else:
        named = student.options
    if config.method == "qlora":
        options["quantization_config"] = quantization(setup.precision)
        # The whole model on the one device: a quantised one cannot be moved afterwards.
        options["device_map"] = {"": torch.cuda.current_device() if torch.cuda.is_available() else "cpu"}
    try:
        model = AutoModelForCausalLM.from_pretrained(source, **options, **named)
    except ImportError as error:
        raise ConfigError(
            f"the attention {setup.attention!r} or a kernel is not installed ({' '.join(str(error).split())[:200]})",
            where="--attention",
            fix="install it, or take sdpa",
        ) from error
    except (OSError, ValueError, SafetensorError) as error:
        if "attn_implementation" in str(error):
            raise ConfigError(
                f"transformers knows no attention {setup.attention!r}", where="--attention", fix="take sdpa or eager"
            ) from error
        raise load_error(error, config.student, local=student.local) from error
    return model


def _shipped(student: Student) -> Shipped:
    dtype = getattr(student.config, "dtype", None)
    return Shipped(dtype if isinstance(dtype, torch.dtype) else torch.float32, generation_settings(student))


def _prepared(rows: Sequence[Rendered], setup: Setup) -> datasets.Dataset:
    """Return the rows, packed by TRL's own packer where the setup says so.

    By itself TRL packs a thousand rows at a time and leaves the last sequences of each thousand half empty: rows of a
    hundred tokens fill 97.8 % of sequences of 4096, and 99.4 % or more when they are packed together.
    """
    rows_alone = _tokenized(rows)
    if setup.packed is None:
        return rows_alone
    columns = rows_alone.select_columns(["input_ids", "labels"])
    return pack_dataset(columns, setup.packed, "bfd", {"batch_size": PACKED_TOGETHER})


def _tokenized(rows: Sequence[Rendered]) -> datasets.Dataset:
    columns = {
        "id": [r.row.id for r in rows],
        "input_ids": [list(r.ids) for r in rows],
        "labels": [list(r.labels) for r in rows],
    }
    return datasets.Dataset.from_dict(columns)
