"""The script that a user of TRL would write, with the settings of `bench/sft.py` and nothing of ours but the sampler.

The order of the rows is that of `tune sft`, so that losses can be compared step by step.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from tune.order import EpochSampler


class InOrder(SFTTrainer):
    """SFTTrainer with the order of rows that `tune sft` takes."""

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> EpochSampler:
        rows = self.train_dataset if train_dataset is None else train_dataset
        lengths = [len(ids) for ids in rows["input_ids"]]
        size = self.args.per_device_train_batch_size
        return EpochSampler(lengths, batch_size=size, seed=self.args.seed, grouped=True)


def train(dataset: Path, output: Path, settings: Mapping[str, Any]) -> None:
    """Train and save, from dataset/*.jsonl of a run."""
    files = {name: str(dataset / f"{name}.jsonl") for name in ("train", "validation")}
    rows = load_dataset("json", data_files=files, cache_dir=str(output / "cache"))
    rows = rows.select_columns(["prompt", "completion"])
    adapter = LoraConfig(
        r=settings["rank"],
        lora_alpha=settings["alpha"],
        lora_dropout=settings["dropout"],
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    student = settings["student"]
    trainer = InOrder(
        model=AutoModelForCausalLM.from_pretrained(student, dtype="float32"),
        processing_class=AutoTokenizer.from_pretrained(student),
        args=SFTConfig(
            output_dir=str(output),
            seed=settings["seed"],
            num_train_epochs=settings["epochs"],
            per_device_train_batch_size=settings["batch_size"],
            per_device_eval_batch_size=settings["batch_size"],
            gradient_accumulation_steps=settings["gradient_accumulation"],
            learning_rate=settings["learning_rate"],
            lr_scheduler_type="cosine",
            warmup_steps=0.05,
            max_length=settings["packing_length"],
            packing=settings["packing_length"] is not None,
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            dataloader_pin_memory=False,
            eval_strategy="epoch",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=rows["train"],
        eval_dataset=rows["validation"],
        peft_config=adapter if settings["method"] == "lora" else None,
    )
    trainer.train()
    trainer.save_model(str(output / "student"))
