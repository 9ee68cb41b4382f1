"""The table [sft.trainer]: settings of TRL's SFTConfig that a user passes on unchanged."""

from collections.abc import Iterable, Mapping
from typing import Any

from synth.core.errors import ConfigError, did_you_mean

_WHERE = "[sft.trainer]"

# What has a setting of its own: said in two places, nobody could tell which one holds.
SAID_ELSEWHERE: Mapping[str, str] = {
    "seed": "seed",
    "data_seed": "seed",
    "num_train_epochs": "epochs",
    "max_steps": "steps",
    "per_device_train_batch_size": "batch_size",
    "per_device_eval_batch_size": "batch_size",
    "gradient_accumulation_steps": "gradient_accumulation",
    "learning_rate": "learning_rate",
    "lr_scheduler_type": "schedule",
    "warmup_steps": "warmup",
    "weight_decay": "weight_decay",
    "max_grad_norm": "max_grad_norm",
    "max_length": "max_length",
    "truncation_mode": "on_overflow",
    "packing": "packing",
    "eval_packing": "packing",
    "packing_strategy": "packing",
    "padding_free": "packing",
    "bf16": "precision",
    "fp16": "precision",
    "use_cpu": "precision",
    "gradient_checkpointing": "gradient_checkpointing",
    "train_sampling_strategy": "group_by_length",
    "eval_strategy": "evaluate_every",
    "eval_steps": "evaluate_every",
    "save_strategy": "save_every",
    "save_steps": "save_every",
    "save_only_model": "save_every",
    "metric_for_best_model": "keep",
    "greater_is_better": "keep",
    "eval_delay": "evaluate_every",
    "load_best_model_at_end": "keep",
    "report_to": "report_to",
    "chat_template_path": "chat_template",
    "deepspeed": "accelerate_config",
    "fsdp": "accelerate_config",
    "fsdp_config": "accelerate_config",
}

# What this program relies on: that rows are whole and labelled as shown, that runs resume, that nothing foreign runs.
KEPT: Mapping[str, str] = {
    "output_dir": "checkpoints lie in the run",
    "resume_from_checkpoint": "running again resumes",
    "ignore_data_skip": "a resumed training takes up the order of its rows",
    "auto_find_batch_size": "it would change the batch without a word; `tune sft --preflight` plans the memory",
    "dataloader_drop_last": "no row is left out in silence",
    "save_total_limit": "two checkpoints are kept, and the best weights",
    "logging_steps": "every step is logged",
    "logging_strategy": "every step is logged",
    "logging_nan_inf_filter": "a loss that is no number has to be seen",
    "disable_tqdm": "progress is shown by this program",
    "dataset_kwargs": "rows are rendered and proven before TRL gets them",
    "dataset_text_field": "rows are rendered and proven before TRL gets them",
    "shuffle_dataset": "the order of rows follows from the seed, so that it survives a resume",
    "completion_only_loss": "preflight proves the labels",
    "assistant_only_loss": "preflight proves the labels",
    "eos_token": "preflight proves the stop token",
    "pad_token": "it comes from the student's tokenizer",
    "model_init_kwargs": "set attention, kernels or precision",
    "trust_remote_code": "code of a model never runs here",
    "push_to_hub": "`tune push` does it, after a verdict",
    "hub_token": "`tune push` sends; a secret would stand in run.json and in the card",
    **dict.fromkeys(
        ("hub_model_id", "hub_strategy", "hub_private_repo", "hub_always_push", "hub_revision"),
        "`tune push` does it, after a verdict",
    ),
    "do_train": "`tune sft` trains",
    "do_eval": "it follows from the validation rows",
    "do_predict": "`tune validate` asks the student",
    "restore_callback_states_from_checkpoint": "running again resumes",
    "enable_jit_checkpoint": "SIGTERM saves a checkpoint as it is",
    "remove_unused_columns": "the collator gets ids and labels alone",
}


def check_trainer_table(table: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse settings that SFTConfig does not know or that are not the user's to set there.

    Args:
        table: the user's settings.
        known: the fields of SFTConfig.

    Raises:
        ConfigError: names every one of them, with the near match, the setting to use, or the reason.
    """
    faults = []
    for name in table:
        if name in SAID_ELSEWHERE:
            faults.append(f"{name!r} is set with {SAID_ELSEWHERE[name]!r} in [sft]")
        elif name in KEPT:
            faults.append(f"{name!r} is not to be set: {KEPT[name]}")
        elif name not in known:
            faults.append(f"SFTConfig has no {name!r} ({did_you_mean(name, known)})")
    if faults:
        raise ConfigError("; ".join(faults), where=_WHERE)
