"""Our training beside TRL's defaults on a GPU: tokens per second and model FLOP utilization (MFU).

    python bench/gpu_sft.py [--shape qwen3-4b]… [--method full]… [--rows 6000] [--steps 10] [--ours KEY=VALUE]…

Needs a GPU and the extra [tune], and nothing from a hub: the weights are random, of the published dimensions, under
the bundled tokenizer grown to the model's vocabulary. What is learned means nothing; what a step costs is real.

Four contenders, each in a process of its own, on the same rows (log-normal lengths): TRL's defaults without and with
packing, and ours (`tune sft`) without and with. "TRL's defaults" is a bare SFTTrainer script that names the model, the
rows and, for LoRA, the same adapter, and nothing else: batches of 8, rows cut at 1024 tokens, fp32 weights under bf16
arithmetic, checkpointing on. Ours has this project's defaults, and packs up to --packing-length; --ours sets others.

Counting. Tokens are those of rows, never padding, counted on the batches in both. With N weights in the linear layers,
V in the output head, and A in the adapters, and a row of T tokens in L layers of H heads of size Q, a step needs

    full   6 N + 12 L H Q T   a token, and 6 V a labelled token
    lora   4 N + 6 A + 12 L H Q T   a token, and 4 V a labelled token

floating point operations: 2 forward and 4 backward a weight, and for frozen weights only the 2 that pass the gradient
on (Chowdhery et al. 2022, PaLM, appendix B; the attention term is theirs, the causal half not taken off). TRL computes
the head only where a label counts, so the head is counted there alone. T is the length of the row, never that of the
sequence it is packed in, and what checkpointing computes twice is counted once: padding, blocks between rows and
recomputation all lower the MFU. Embeddings count nothing. MFU is that rate over the dense bf16 peak of the GPU's data
sheet; the rate of an 8192 x 8192 x 8192 bf16 product on this GPU stands above the table as the peak that can be met.

Without a GPU it says so and exits 2; `--allow-cpu --shape tiny` runs it all the same, which shows that the script
works, no more.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from bench.shapes import SHAPES, make_model  # noqa: E402
from bench.training_rows import make_rows, make_run  # noqa: E402

# Dense bf16 with fp32 accumulation, in FLOP/s, by a part of the name that torch gives. From the vendors' data sheets.
PEAKS = {
    "B200": 2250e12,
    "GH200": 989.4e12,
    "H200": 989.4e12,
    "H100 PCIe": 756e12,
    "H100": 989.4e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 4090": 165.2e12,
}
RANK = 16
CONTENDERS = ("TRL's defaults", "TRL's defaults, packed", "ours, unpacked", "ours, packed")


@dataclass(frozen=True, slots=True)
class Weights:
    """What a model's products are made of, in weights; the attention's in layers times heads times size."""

    linear: int
    head: int
    adapter: int
    attention: int

    @classmethod
    def of(cls, folder: Path) -> "Weights":
        """Count them on a model without storage."""
        config = AutoConfig.from_pretrained(folder)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        layers = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
        head = layers.pop("lm_head")
        return cls(
            linear=sum(layer.weight.numel() for layer in layers.values()),
            head=head.weight.numel(),
            adapter=sum(RANK * (layer.in_features + layer.out_features) for layer in layers.values()),
            attention=config.num_hidden_layers * config.num_attention_heads * config.head_dim,
        )

    def flops(self, method: str, tokens: float, squares: float, labelled: float) -> float:
        """Return what training on so many tokens takes, by the formula above."""
        attention = 12 * self.attention * squares
        if method == "full":
            return 6 * self.linear * tokens + 6 * self.head * labelled + attention
        return (4 * self.linear + 6 * self.adapter) * tokens + 4 * self.head * labelled + attention


@dataclass(frozen=True, slots=True)
class Job:
    """What one process measures."""

    contender: str
    method: str
    model: str
    folder: str
    warm_up: int
    steps: int
    packing_length: int
    ours: dict[str, Any]


def measure(job: Job) -> dict[str, Any]:
    """Train until the window is closed, and return what it saw. Runs in a process of its own."""
    from bench.meter import Enough, Window, watched

    window = Window(job.warm_up, job.steps)
    with watched(window):
        try:
            (train_ours if job.contender.startswith("ours") else train_bare)(job)
        except Enough:
            return {
                "seconds": window.seconds,
                "memory": window.memory,
                "weights": window.weights,
                "attention": window.attention,
                **window.counted,
            }
    raise SystemExit(f"{job.contender}: the training ended before {job.warm_up + job.steps} steps; give more --rows")


def train_bare(job: Job) -> None:
    """Train as a script does that takes what SFTTrainer offers."""
    from datasets import load_dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    rows = load_dataset("json", data_files=f"{job.folder}/run/dataset/train.jsonl", split="train")
    adapter = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    on_cpu = not torch.cuda.is_available()
    trainer = SFTTrainer(
        model=job.model,
        args=SFTConfig(
            output_dir=f"{job.folder}/bare",
            num_train_epochs=1000,
            packing=job.contender.endswith("packed"),
            report_to="none",
            disable_tqdm=True,
            **({"use_cpu": True, "bf16": False} if on_cpu else {}),
        ),
        train_dataset=rows.select_columns(["prompt", "completion"]),
        peft_config=adapter if job.method == "lora" else None,
    )
    trainer.train()


def train_ours(job: Job) -> None:
    """Train as `tune sft` does."""
    from synth.core.runs import Run
    from tune.config import TuneConfig
    from tune.sft import train

    packing = {"packing": True, "packing_length": job.packing_length} if job.contender.endswith(", packed") else {}
    settings = {
        "student": job.model,
        "method": job.method,
        "epochs": 1000,
        "save_every": 1e9,
        "rank": RANK,
        "alpha": 2 * RANK,
        "packing": False,
        **packing,
        **job.ours,
    }
    train(Run.open(Path(job.folder) / "run"), TuneConfig.model_validate(settings), on_message=_say)


def compare(shape: str, method: str, options: argparse.Namespace, folder: Path, peak: float | None) -> None:
    """Let the contenders take their turns and print the table."""
    model = folder / shape
    weights = Weights.of(model)
    print(
        f"\n{shape}, {method}: {weights.linear / 1e9:.3f} billion weights in linear layers, {weights.head / 1e9:.3f} "
        f"in the head; {options.steps} steps after {options.warm_up}\n"
    )
    names = ("", "tokens/s", "MFU", "seconds a step", "tokens a step", "padding", "of the first", "memory")
    print(f"| {' | '.join(names)} | weights | attention |\n| --- |" + " ---: |" * 7 + " --- | --- |", flush=True)
    first: float | None = None
    for contender in CONTENDERS:
        job = Job(
            contender=contender,
            method=method,
            model=str(model),
            folder=str(folder),
            warm_up=options.warm_up,
            steps=options.steps,
            packing_length=options.packing_length,
            ours=dict(_setting(text) for text in options.ours),
        )
        seen = _in_a_process(job, options.timeout)
        if seen is None:
            print(f"| {contender} | failed |" + " |" * 8, flush=True)
            continue
        rate = seen["tokens"] / seen["seconds"]
        first = rate if contender == CONTENDERS[0] else first
        flops = weights.flops(method, seen["tokens"], seen["squares"], seen["labelled"]) / seen["seconds"]
        cells = [
            f"{rate:,.0f}",
            f"{flops / peak:.1%}" if peak else f"{flops / 1e9:.2f} GFLOP/s",
            f"{seen['seconds'] / options.steps:.3f}",
            f"{seen['tokens'] / options.steps:,.0f}",
            f"{1 - seen['tokens'] / seen['places']:.1%}",
            f"{rate / first:.2f}" if first else "",
            f"{seen['memory'] / 2**30:.1f} GiB" if seen["memory"] else "",
            seen["weights"],
            seen["attention"],
        ]
        print(f"| {contender} | {' | '.join(cells)} |", flush=True)


def _in_a_process(job: Job, timeout: float) -> dict[str, Any] | None:
    """Return what the child measured, or None where it failed, having shown the end of what it said."""
    values = {name: getattr(job, name) for name in Job.__slots__}
    command = [sys.executable, __file__, "--child", json.dumps(values)]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": f"{job.folder}/cache", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env={**os.environ, **offline})
    if done.returncode:
        print(f"{job.contender}, {job.method}:\n{done.stdout[-1000:]}{done.stderr[-3000:]}", file=sys.stderr)
        return None
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def write_weights(folder: Path, shape: str, seed: int = 0) -> None:
    """Write a folder with the config, the grown tokenizer and random bf16 weights."""
    make_model(folder, shape, "student")
    torch.manual_seed(seed)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    del model
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def product_rate(size: int = 8192, rounds: int = 20) -> float:
    """Return the FLOP/s of a bf16 product of square matrices of random numbers on this GPU, the median of rounds."""
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    taken = []
    for _ in range(rounds + 3):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        a @ b
        end.record()
        torch.cuda.synchronize()
        taken.append(start.elapsed_time(end) / 1e3)
    return 2 * size**3 / statistics.median(taken[3:])


def _setting(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _say(note: str) -> None:
    print(note, file=sys.stderr)


def main() -> None:
    """Compare at each shape and method, or say that there is no GPU and exit 2."""
    if sys.argv[1:2] == ["--child"]:
        print("\n" + json.dumps(measure(Job(**json.loads(sys.argv[2])))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", choices=list(SHAPES), help="may be repeated [the Qwen3 shapes]")
    parser.add_argument("--method", action="append", choices=["full", "lora"], help="may be repeated [both]")
    parser.add_argument("--rows", type=int, default=6000)
    parser.add_argument("--median", type=int, default=150, help="words in the middle row; one is 1 to 3 tokens")
    parser.add_argument("--longest", type=int, default=1000, help="words in the longest row at most")
    parser.add_argument("--packing-length", type=int, default=4096)
    parser.add_argument("--warm-up", type=int, default=4, help="steps before the window")
    parser.add_argument("--steps", type=int, default=10, help="steps in the window")
    parser.add_argument("--ours", action="append", default=[], metavar="KEY=VALUE", help="a setting of `tune sft`")
    parser.add_argument("--peak", type=float, help="dense bf16 TFLOP/s of this GPU, where the script does not know it")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for one contender")
    parser.add_argument("--allow-cpu", action="store_true", help="run without a GPU, to see that the script works")
    options = parser.parse_args()
    found = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    if not found and not options.allow_cpu:
        print(
            "There is no GPU here (torch sees none), so there is nothing to measure. Run this where one is, or try "
            "the script with `--allow-cpu --shape tiny --rows 200 --median 20 --warm-up 1 --steps 2`.",
            file=sys.stderr,
        )
        raise SystemExit(2)
    print(
        f"device: {found or 'no GPU; these figures say that the script works, nothing else'}; torch {torch.__version__}"
    )
    peak = options.peak * 1e12 if options.peak else next((p for name, p in PEAKS.items() if name in found), None)
    if found:
        print(f"bf16 product: {product_rate() / 1e12:.0f} TFLOP/s; peak for the MFU: {(peak or 0) / 1e12:.0f} TFLOP/s")
        torch.cuda.empty_cache()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = make_rows(options.rows, median=options.median, spread=0.7, longest=options.longest)
        make_run(folder / "run", rows, [])
        for shape in options.shape or ["qwen3-0.6b", "qwen3-4b", "qwen3-8b"]:
            began = time.monotonic()
            write_weights(folder / shape, shape)
            tokenizer = AutoTokenizer.from_pretrained(folder / shape)
            sides = [[*row["prompt"], *row["completion"]] for row in rows[:500]]
            lengths = [len(tokenizer.apply_chat_template(side, tokenize=True)["input_ids"]) for side in sides]
            print(
                f"\n{shape} written in {time.monotonic() - began:.0f} s; the first {len(lengths)} rows have "
                f"{statistics.median(lengths):.0f} tokens in the middle, {max(lengths)} at most"
            )
            for method in options.method or ["full", "lora"]:
                compare(shape, method, options, folder, peak)
            for file in (folder / shape).iterdir():
                file.unlink()


if __name__ == "__main__":
    main()
