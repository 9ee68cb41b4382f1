"""A student in four bits, loaded by transformers and trained by TRL on this machine."""

import importlib.metadata
import importlib.util
import math
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import SFTConfig, SFTTrainer

from synth.core.errors import ConfigError
from synth.core.resources import resource
from tests.runs_for_tests import filtered_run, row, tiny_student
from tests.trainings import config, report_of, weights
from tune.dora import check_rows
from tune.quantized import arithmetic, four_bit_weights, prepare, quantization
from tune.quiet import quiet
from tune.sft import train

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed: pip install bitsandbytes"
)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights under the bundled tokenizer; the bundled weights have rows of noughts, which DoRA cannot take."""
    folder = tmp_path_factory.mktemp("models") / "random"
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=2048,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            tie_word_embeddings=True,
        )
    ).save_pretrained(folder)
    AutoTokenizer.from_pretrained(resource("demo", "models") / "student").save_pretrained(folder)
    return folder


def load(student: Path, **options: Any) -> torch.nn.Module:  # noqa: ANN401
    return AutoModelForCausalLM.from_pretrained(student, dtype=arithmetic("fp32"), **options)


def trainer(student: Path, model: torch.nn.Module, folder: Path, *, dora: bool = False, **settings: Any) -> SFTTrainer:  # noqa: ANN401
    rows = [row(number) for number in range(12)]
    arguments = SFTConfig(
        output_dir=str(folder),
        max_steps=6,
        learning_rate=2e-3,
        lr_scheduler_type="constant",
        per_device_train_batch_size=6,
        max_length=None,
        use_cpu=True,
        bf16=False,
        dataloader_pin_memory=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **settings,
    )
    return SFTTrainer(
        model=model,
        args=arguments,
        processing_class=AutoTokenizer.from_pretrained(student),
        train_dataset=datasets.Dataset.from_list([{k: r[k] for k in ("prompt", "completion")} for r in rows]),
        peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM", use_dora=dora),
    )


@needs_bitsandbytes
@pytest.mark.parametrize(("dora", "checkpointing"), [(False, False), (True, False), (False, True)])
def test_an_adapter_learns_beside_weights_in_four_bits_which_stay_as_they_are(
    student: Path, tmp_path: Path, dora: bool, checkpointing: bool
) -> None:
    with quiet(tmp_path / "log"):
        made = trainer(
            student,
            load(student, quantization_config=quantization("fp32")),
            tmp_path,
            dora=dora,
            gradient_checkpointing=checkpointing,
        )
        trained = prepare(made.model)
        check_rows(made.model)
        frozen = {name: w.detach().clone() for name, w in made.model.named_parameters() if not w.requires_grad}
        made.train()
    weights = dict(made.model.named_parameters())
    assert trained == sum(w.numel() for name, w in weights.items() if ".lora_" in name)
    assert {w.dtype for w in weights.values() if w.requires_grad} == {torch.float32}
    assert frozen and all(torch.equal(weights[name], before) for name, before in frozen.items())
    losses = [entry["loss"] for entry in made.state.log_history if "loss" in entry]
    assert len(losses) == 6 and all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < losses[0] - 0.2


@needs_bitsandbytes
def test_every_linear_layer_but_the_output_head_is_held_in_half_a_byte_a_weight(student: Path, tmp_path: Path) -> None:
    with quiet(tmp_path / "log"):
        whole, packed = load(student), load(student, quantization_config=quantization("fp32"))
    linear = {name for name, module in whole.named_modules() if isinstance(module, torch.nn.Linear)} - {"lm_head"}
    count = sum(whole.get_submodule(name).weight.numel() for name in linear)
    assert four_bit_weights(packed) == count and four_bit_weights(whole) == 0
    assert whole.get_memory_footprint() - packed.get_memory_footprint() == int(3.5 * count)
    # Near, but not the same: four bits hold sixteen values.
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        apart = (packed(ids).logits - whole(ids).logits).norm() / whole(ids).logits.norm()
    assert 0.01 < apart < 0.3


@needs_bitsandbytes
def test_the_adapter_that_trl_rounds_to_bf16_is_trained_in_fp32(student: Path, tmp_path: Path) -> None:
    with quiet(tmp_path / "log"):
        made = trainer(student, load(student, quantization_config=quantization("bf16")), tmp_path)
    rounded = [w for w in made.model.parameters() if w.requires_grad]
    assert {w.dtype for w in rounded} == {torch.bfloat16}, "TRL keeps fp32 by itself now: prepare() can go"
    prepare(made.model)
    assert {w.dtype for w in rounded} == {torch.float32}


def test_a_student_that_is_not_in_four_bits_is_refused(student: Path, tmp_path: Path) -> None:
    with quiet(tmp_path / "log"):
        model = load(student)
    with pytest.raises(ConfigError, match=r"--method qlora: none of the student's layers.*--method lora"):
        prepare(model)


def test_a_missing_old_or_broken_bitsandbytes_is_named_with_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(ConfigError, match=r"bitsandbytes, which is not installed; install it with `pip install"):
        quantization("bf16")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.45.5")
    with pytest.raises(ConfigError, match=r"bitsandbytes 0\.45\.5 is too old: 0\.46\.1 or later"):
        quantization("bf16")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.50.2")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match="bitsandbytes does not load here"):
        quantization("bf16")


def test_weights_with_a_row_of_noughts_are_refused_for_dora(tmp_path: Path) -> None:
    bundled = resource("demo", "models") / "student"
    with quiet(tmp_path / "log"):
        made = trainer(bundled, load(bundled), tmp_path, dora=True)
        plain = trainer(bundled, load(bundled), tmp_path)
    with pytest.raises(ConfigError, match=r"--dora: 96 rows .* first of them in .*layers\.0\.self_attn\.v_proj"):
        check_rows(made.model)
    check_rows(plain.model)


@needs_bitsandbytes
def test_tune_sft_trains_and_repeats_an_adapter_beside_four_bits(tmp_path: Path) -> None:
    bundled = tiny_student(tmp_path / "tiny")
    settings = config(bundled, method="qlora", epochs=1)
    first, again = (train(filtered_run(tmp_path / name), settings) for name in ("first", "again"))
    assert first.candidate.startswith("qlora-") and report_of(first)["method"] == "qlora"
    assert weights(first) == weights(again)
    written = load_file(first.path / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in written.values()} == {torch.float32}
    assert any(tensor.abs().max() > 0 for name, tensor in written.items() if "lora_B" in name)


def test_tune_sft_refuses_dora_on_weights_with_rows_of_noughts_before_a_step(tmp_path: Path) -> None:
    run = filtered_run(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"--dora: 96 rows"):
        train(run, config(tiny_student(tmp_path / "tiny"), dora=True))
    assert not any(stage.startswith("sft") for stage in run.stages())
