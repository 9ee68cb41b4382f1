"""What `tune sft` says a training will hold in memory, beside what it holds.

    python bench/memory.py [--only NAME]... [--json FILE]

Each case is a process of its own: it opens a student, plans, builds our trainer, takes two optimizer steps on rows
as long as the plan's longest, and reports the most memory it held. On a GPU that is what torch's allocator held
(`torch.cuda.max_memory_allocated`), on a CPU the peak of the process's resident memory (VmHWM). Needs no network:
but for the bundled student, models are random weights of the shapes below, written to a temporary folder and opened
from there as a user's would be. What they say means nothing; what they take is real.
"""

import argparse
import importlib
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from synth.core.resources import resource  # noqa: E402

STEPS = 2

_LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
SHAPES: dict[str, dict[str, Any]] = {
    "llama-106m": {
        **_LLAMA,
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 8,
        "num_attention_heads": 12,
        "num_key_value_heads": 12,
        "vocab_size": 32_000,
        "tie_word_embeddings": False,
    },
    "qwen3-54m": {
        **_LLAMA,
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "vocab_size": 32_000,
        "tie_word_embeddings": True,
    },
    # For a GPU.
    "qwen3-4b": {
        **_LLAMA,
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151_936,
        "tie_word_embeddings": True,
    },
}


@dataclass(frozen=True, slots=True)
class Case:
    """One training: `rows` of `length` tokens at once, or where `packed`, that many sequences of that length."""

    shape: str
    method: str
    precision: str
    rows: int
    length: int
    checkpointing: bool = False
    packed: bool = False
    accumulation: int = 2

    @property
    def name(self) -> str:
        """How the table and --only call it."""
        marks = "-twice" * self.checkpointing + "-packed" * self.packed + "-single" * (self.accumulation == 1)
        return f"{self.shape}-{self.method}-{self.precision}-{self.rows}x{self.length}{marks}"


ON_A_CPU = (
    Case("bundled", "lora", "fp32", 8, 256),
    Case("llama-106m", "lora", "fp32", 2, 256),
    Case("llama-106m", "full", "fp32", 2, 128),
    Case("llama-106m", "full", "fp32", 2, 128, accumulation=1),
    Case("qwen3-54m", "lora", "fp32", 4, 256, checkpointing=True),
    Case("qwen3-54m", "qlora", "fp32", 2, 256),
    Case("qwen3-54m", "lora", "fp32", 1, 512, packed=True),
    Case("llama-106m", "full", "bf16", 2, 128, checkpointing=True),
    Case("llama-106m", "lora", "bf16", 2, 256),
    Case("qwen3-54m", "full", "fp32", 4, 256),
)
ON_A_GPU = (
    Case("qwen3-4b", "lora", "bf16", 1, 4096, checkpointing=True, packed=True),
    Case("qwen3-4b", "lora", "bf16", 8, 512),
    Case("qwen3-4b", "qlora", "bf16", 1, 4096, checkpointing=True, packed=True),
    Case("qwen3-4b", "full", "bf16", 1, 4096, checkpointing=True, packed=True),
    Case("qwen3-4b", "full", "bf16", 8, 512, accumulation=1),
)


def make_student(shape: str, folder: Path) -> str:
    """Write random weights of the shape, and return how they are named."""
    if shape == "bundled":
        return shape
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    if not (folder / "config.json").exists():
        config = dict(SHAPES[shape])
        settings = AutoConfig.for_model(config.pop("model_type"), **config)
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(settings, dtype=torch.bfloat16).save_pretrained(folder)
        AutoTokenizer.from_pretrained(resource("demo", "models") / "student").save_pretrained(folder)
    return str(folder)


def run_case(case: Case, named: str, work: Path) -> dict[str, Any]:
    """Plan and train in this process."""
    import torch

    from tune.building import build_trainer
    from tune.config import TuneConfig
    from tune.memory import plan_memory
    from tune.rows import Rendered, Row
    from tune.setup import Setup
    from tune.student import open_student
    from tune.trainer import Places
    from tune.watch import Watch

    student = open_student(named)
    config = TuneConfig.model_validate(
        {
            "student": named,
            "method": case.method,
            "batch_size": case.rows,
            "gradient_accumulation": case.accumulation,
            "steps": STEPS,
            "early_stopping": 0,
            "save_every": 10_000,
        }
    )
    packed = case.length if case.packed else None
    plan = plan_memory(
        student,
        config,
        longest=case.length,
        precision=case.precision,  # type: ignore[arg-type]
        checkpointing=case.checkpointing,
        packed=packed,
        rows=case.rows,
    )
    setup = Setup(
        device="",
        precision=case.precision,  # type: ignore[arg-type]
        attention="sdpa",
        kernels=False,
        checkpointing=case.checkpointing,
        packed=packed,
        batch_size=case.rows,
        accumulation=case.accumulation,
        processes=1,
    )
    # One row is shorter, so that a padded batch has the mask that the plan counts on.
    lengths = [case.length - 8 * (i % 2) for i in range(case.rows * case.accumulation * STEPS)]
    rows = []
    for i, length in enumerate(lengths):
        ids = tuple(3 + (i * 7 + k * 13) % 2000 for k in range(length))
        row = Row(id=f"r{i}", document_id=f"d{i}", prompt="", completion="")
        rows.append(Rendered(row, ids, (-100,) * 8 + ids[8:], 8))
    trainer = build_trainer(
        student,
        config,
        {"train": rows, "validation": []},
        setup=setup,
        places=Places(work / "checkpoints", work / "tensorboard", "bench"),
        watch=Watch(None, config.save_every),
    )
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    trainer.train()
    held = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak()
    return {"plan": plan.to_json(), "held": held, "steps": trainer.state.global_step}


def peak() -> int:
    """Return the most resident memory that this process ever had, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("this system does not tell the peak of resident memory")


def in_a_process(work: Callable[[], Any]) -> Any:  # noqa: ANN401
    """Return what a forked process finds: the libraries are loaded already, and nothing else is held."""
    context = multiprocessing.get_context("fork")
    inner, outer = context.Pipe()

    def tell() -> None:
        outer.send(work())

    process = context.Process(target=tell)
    process.start()
    outer.close()
    try:
        found = inner.recv()
    except EOFError as error:
        raise SystemExit("the process died: its message is above") from error
    finally:
        process.join()
    return found


def line(case: Case, result: dict[str, Any]) -> str:
    """Return a row of the table."""
    plan, held = result["plan"], result["held"]
    need, before = plan["need"], plan["memory"]["held"]
    if plan["memory"]["kind"] == "GPU":  # The allocator knows nothing of either.
        need -= sum(part["bytes"] for part in plan["parts"] if part["name"] in ("this process", "the rest"))
        before = 0
    numbers = (f"{n / 2**20:.0f}" for n in (before, need, held))
    return f"| {case.name} | {' | '.join(numbers)} | {need / held:.2f} | {(need - before) / (held - before):.2f} |"


def main() -> None:
    """Run the cases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", help="a case's name; may be repeated")
    parser.add_argument("--json", type=Path, help="write the results there too")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    for library in ("tune.trainer", "tune.rehearsal"):
        importlib.import_module(library)
    import torch

    # A process that has asked CUDA for more than this cannot fork.
    cases = ON_A_GPU if torch.cuda.device_count() else ON_A_CPU
    chosen = [case for case in cases if not options.only or case.name in options.only]
    if not chosen:
        raise SystemExit("no such case; there are " + ", ".join(case.name for case in cases))
    print("| training | held before, MiB | planned in all | held in all | planned / held | the same without before |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |", flush=True)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in chosen:
            named = in_a_process(partial(make_student, case.shape, Path(folder, case.shape)))
            with tempfile.TemporaryDirectory() as work:
                results[case.name] = in_a_process(partial(run_case, case, named, Path(work)))
            print(line(case, results[case.name]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
