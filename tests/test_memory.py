"""The plan of a training's memory, beside what trainings and machines really have."""

import io
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from peft import LoraConfig, get_peft_model
from rich.console import Console
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig
from trl.trainer.utils import add_fused_lm_head

from synth.core.errors import ConfigError
from tests.conftest import CHECKOUT
from tune import rehearsal
from tune.config import TuneConfig
from tune.memory import Memory, MemoryPlan, machine_memory, plan_memory
from tune.rehearsal import Cast, build, count, rehearse
from tune.student import Student, open_student

GIB = 2**30
ADAPTER: Mapping[str, Any] = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "target_modules": "all-linear"}
AMPLE = Memory("RAM", 64 * GIB, 64 * GIB, GIB // 2)


@pytest.fixture(scope="module")
def student() -> Student:
    return open_student("bundled")


def cast(config: PretrainedConfig, method: str = "lora", precision: str = "fp32", **changed: object) -> Cast:
    settings: dict[str, Any] = {
        "checkpointing": False,
        "attention": "sdpa",
        "rows": 4,
        "length": 128,
        "packed": False,
        "masked": True,
        "on_gpu": False,
    }
    return Cast(config=config, method=method, adapter=ADAPTER, precision=precision, **(settings | changed))


@cache
def planned(
    available: float = 64,
    *,
    kind: Literal["GPU", "RAM"] = "RAM",
    processes: int = 1,
    method: Literal["lora", "full"] = "lora",
    batch_size: int = 8,
    gradient_accumulation: int = 2,
) -> MemoryPlan:
    config = TuneConfig(method=method, batch_size=batch_size, gradient_accumulation=gradient_accumulation)
    return plan_memory(
        open_student("bundled"),
        config,
        longest=512,
        precision="fp32",
        checkpointing=False,
        packed=None,
        processes=processes,
        memory=Memory(kind, 64 * GIB, round(available * GIB), GIB // 2),
    )


def bytes_of(plan: MemoryPlan, name: str) -> int:
    return sum(part.bytes for part in plan.parts if part.name == name)


def allocated(model: torch.nn.Module, rows: int, length: int, folder: Path) -> int:
    """Return the most that torch's allocator handed out during a step after the first, by its own events."""
    ids = torch.arange(rows * length).reshape(rows, length) % 2000 + 3
    mask = torch.ones_like(ids)
    mask[0, -5:] = 0

    def step() -> None:
        model(input_ids=ids, attention_mask=mask, labels=ids, fused_lm_head=True).loss.backward()

    step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    profiled.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    now = most = 0
    for event in sorted((e for e in events if e.get("name") == "[memory]"), key=lambda e: e["ts"]):
        now += event["args"]["Bytes"]
        most = max(most, now)
    return most


@pytest.mark.parametrize(("method", "checkpointing"), [("lora", False), ("full", False), ("lora", True)])
@pytest.mark.filterwarnings("ignore")
def test_a_rehearsed_step_holds_what_a_real_one_holds(
    student: Student, method: str, checkpointing: bool, tmp_path: Path
) -> None:
    known = cast(student.config, method, checkpointing=checkpointing)
    rehearsed = rehearse(build(known), known)
    model: Any = AutoModelForCausalLM.from_pretrained(student.source, dtype=torch.float32)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if method == "lora":
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **ADAPTER))
        if checkpointing:
            model.enable_input_require_grads()
    add_fused_lm_head(
        model if method == "full" else model.get_base_model(), outputs=("log_probs", "entropy", "is_top1")
    )
    model.train()
    real = allocated(model, 4, 128, tmp_path)
    assert max(rehearsed.phases.values()) == pytest.approx(real, rel=0.05)


def test_weights_are_counted_as_they_are_in_the_file(student: Student) -> None:
    known = cast(student.config, "full")
    counted = count(build(known), known)
    real = AutoModelForCausalLM.from_pretrained(student.source, dtype=torch.float32).num_parameters()
    assert (counted.weights, counted.trained, counted.frozen_bytes) == (real, real, 0)


def test_an_adapter_is_counted_by_its_shape_and_its_base_by_its_type(student: Student) -> None:
    for precision, size in (("fp32", 4), ("bf16", 2)):
        known = cast(student.config, "lora", precision)
        counted = count(build(known), known)
        # Four layers; rank times in and out of four projections of 192, two to and one from 512.
        assert counted.trained == 4 * 16 * (4 * (192 + 192) + 3 * (192 + 512))
        assert counted.frozen_bytes == size * (counted.weights - counted.trained)


def test_four_bits_are_of_linear_layers_alone(student: Student) -> None:
    known = cast(student.config, "qlora", "bf16")
    counted = count(build(known), known)
    linear = 4 * (4 * 192 * 192 + 3 * 192 * 512)
    rest = counted.weights - counted.trained - linear
    assert counted.frozen_bytes == pytest.approx(linear * 4.127 / 8 + rest * 2, rel=1e-3)
    assert counted.largest == 192 * 512


@pytest.mark.parametrize(
    ("method", "precision", "changed"),
    [
        ("lora", "fp32", {}),
        ("full", "bf16", {"checkpointing": True, "on_gpu": True}),
        ("qlora", "bf16", {"packed": True, "attention": "flash_attention_2", "on_gpu": True}),
    ],
)
def test_one_layer_and_two_tell_what_all_layers_hold(
    student: Student, method: str, precision: str, changed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = cast(student.config, method, precision, **changed)
    straight = rehearse(build(known), known)
    monkeypatch.setattr(rehearsal, "_layers", lambda *_: None)
    whole = rehearse(build(known), known)
    assert straight.phases == pytest.approx(whole.phases, rel=0.02)  # Exact, but for the very first layer's own peak.


def test_layers_that_differ_are_all_rehearsed() -> None:
    mixed = AutoConfig.for_model(
        "qwen3", hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4, head_dim=16,
        num_key_value_heads=2, vocab_size=512, use_sliding_window=True, max_window_layers=1, sliding_window=64,
    )  # fmt: skip
    assert len(set(mixed.layer_types)) == 2
    known = cast(mixed)
    assert rehearse(build(known), known).phases["backward"] > 0


def test_experts_are_rehearsed_too_and_a_wrong_adapter_is_an_error_with_its_fix(student: Student) -> None:
    experts = AutoConfig.for_model(
        "qwen3_moe", hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, head_dim=16,
        num_key_value_heads=2, vocab_size=512, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32,
    )  # fmt: skip
    known = replace(cast(experts, "lora", "bf16"), adapter={**ADAPTER, "lora_dropout": 0.0})
    assert rehearse(build(known), known).phases["forward"] > 0
    with pytest.raises(ConfigError, match=r"dropout.*--dropout 0"):
        build(cast(experts))


def test_fused_attention_keeps_no_square_of_the_length_and_eager_does(student: Student) -> None:
    def held(attention: str) -> float:
        known = cast(student.config, attention=attention, rows=1, length=1024, masked=False)
        return rehearse(build(known), known).phases["forward"]

    scores = 4 * 3 * 1024 * 1024 * 4  # Layers, heads, queries, keys, bytes.
    assert held("eager") >= 0.95 * (held("sdpa") + scores)
    assert held("flash_attention_2") == held("sdpa")


def test_a_plan_is_the_sum_of_its_parts_and_says_so(student: Student) -> None:
    plan = planned()
    assert plan.fits and plan.need == sum(part.bytes for part in plan.parts)
    assert bytes_of(plan, "gradients") == 4 * plan.trained and bytes_of(plan, "optimizer") == 8 * plan.trained
    assert bytes_of(plan, "this process") == GIB // 2
    assert "it fits" in plan.said()
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(plan.table())
    shown = console.export_text()
    assert "8 rows of 512 tokens" in shown and "fits" in shown and "64 GiB" in shown
    assert json.loads(json.dumps(plan.to_json()))["need"] == plan.need


def test_an_adapter_needs_less_than_all_weights_and_fewer_rows_less_than_many() -> None:
    assert planned(method="lora").trained < planned(method="full").trained
    assert bytes_of(planned(batch_size=2), "the batch") < 0.5 * bytes_of(planned(), "the batch")


def test_code_that_cannot_be_rehearsed_gets_a_rule_of_thumb(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise NotImplementedError("data-dependent shape")

    monkeypatch.setattr(rehearsal, "rehearse", refuse)
    planned.cache_clear()
    plan = planned()
    planned.cache_clear()
    batch = next(part for part in plan.parts if part.name == "the batch")
    assert batch.why.endswith("by a rule of thumb") and batch.bytes == 8 * 512 * 192 * 4 * 34 * 2


def test_where_it_does_not_fit_the_smallest_change_is_named_and_it_would_fit() -> None:
    full = planned().need
    tight = planned((full - 2**20) / GIB)
    assert not tight.fits
    assert tight.suggested == ("--batch-size", "4", "--gradient-accumulation", "4")
    changed = planned((full - 2**20) / GIB, batch_size=4, gradient_accumulation=4)
    assert changed.fits, "the advice holds"
    assert "--batch-size 4 --gradient-accumulation 4" in tight.said()


def test_where_nothing_would_fit_the_plan_says_that() -> None:
    plan = planned(0.5)
    assert not plan.fits and plan.suggested == ()
    assert "--max-length" in plan.said()


def test_full_training_that_one_row_does_not_fit_is_led_to_an_adapter() -> None:
    one = planned(method="full", batch_size=1, gradient_accumulation=16)
    weights = 16 * one.trained
    plan = planned((one.need - weights / 2) / GIB, method="full", batch_size=1, gradient_accumulation=16)
    assert plan.suggested[:1] in (("--gradient-checkpointing",), ("--method",))


def test_processes_share_the_memory_of_a_machine_and_hold_buckets() -> None:
    one, four = planned(8), planned(8, processes=4)
    assert bytes_of(four, "gradients") == 2 * bytes_of(one, "gradients")
    held = GIB // 2
    assert four.memory.available == held + (8 * GIB - held) // 4
    assert planned(8, kind="GPU", processes=4).memory.available == 8 * GIB


def test_the_optimizer_of_the_trainer_table_is_counted() -> None:
    assert bytes_of(planned(), "optimizer") == 8 * planned().trained
    plan = plan_memory(
        open_student("bundled"),
        TuneConfig(trainer={"optim": "adamw_bnb_8bit"}),
        longest=64,
        precision="fp32",
        checkpointing=False,
        packed=None,
        memory=AMPLE,
    )
    assert bytes_of(plan, "optimizer") == 2 * plan.trained


def machine(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in {
        "proc/meminfo": "MemTotal: 16777216 kB\nMemFree: 1 kB\nMemAvailable: 8388608 kB\n",
        "proc/self/status": "Name:\tpython\nVmRSS:\t  1048576 kB\n",
        **files,
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's memory is planned for")
@pytest.mark.parametrize(
    ("files", "total", "free"),
    [
        ({}, 16, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, 16, 8),
        (
            {
                "proc/self/cgroup": "0::/user/job\n",
                "sys/fs/cgroup/user/memory.max": f"{4 * GIB}\n",
                "sys/fs/cgroup/user/memory.current": f"{3 * GIB}\n",
                "sys/fs/cgroup/user/memory.stat": f"anon 5\ninactive_file {GIB}\n",
                "sys/fs/cgroup/user/job/memory.max": "max\n",
            },
            4,
            2,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2 * GIB}\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB}\n",
                "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 0\n",
            },
            2,
            1,
        ),
        (
            {"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2**63 - 4096}\n"},
            16,
            8,
        ),
    ],
)
def test_the_memory_is_that_of_the_machine_or_of_its_tightest_cgroup(
    tmp_path: Path, files: dict[str, str], total: int, free: int
) -> None:
    found = machine_memory(machine(tmp_path, files))
    assert found == Memory("RAM", total * GIB, (free + 1) * GIB, GIB), "what is held already may be held on"


def test_the_memory_of_this_machine_is_found() -> None:
    found = machine_memory()
    assert 0 < found.available <= found.total + found.held


def test_the_module_loads_no_torch() -> None:
    code = "import sys, tune.memory; print(sorted({'torch', 'transformers', 'peft'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
