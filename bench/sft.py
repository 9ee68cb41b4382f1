"""`tune sft` beside a bare SFTTrainer script: seconds a step, losses, the time to the first step; and packing.

    python bench/sft.py [--pairs 5] [--rows 480] [--epochs 2] [--method lora] [--student FOLDER] [--packing-length N]
    python bench/sft.py --packing

Both train the bundled student (or another) on the same rows with the same settings on one CPU thread, in turns, each in
a process of its own: ours is the command itself, the other bench/bare_sft.py, which leaves the rows to TRL. The bare
script takes our sampler, so that the rows come in the same order; then the loss of each step has to be the same number
to the last digit, and the bench fails where it is not. A clock in a callback notes wall-clock and processor
time after each step, in both alike. Ratios are of the two runs of a pair; what is printed are medians over pairs.

The time to the first step is from the start of the process, interpreter and imports included. training.json has what
ours spent it on.

`--packing` packs made-up rows of several distributions of lengths with TRL's packer, as `tune sft` has it packed, and
says how full the sequences are and whether a token was lost.
"""

import argparse
import contextlib
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from bench.training_rows import make_rows, make_run  # noqa: E402

SIDES = ("bare", "ours")

# Tokens in the middle row and the standard deviation of the logarithm; several are mixed in equal parts.
LENGTHS: dict[str, tuple[tuple[int, float], ...]] = {
    "short pairs": ((90, 0.5),),
    "a mixed collection": ((250, 0.7),),
    "long tail": ((600, 1.0),),
    "short pairs and long documents": ((100, 0.4), (1800, 0.4)),
}


def run_child(side: str, folder: Path, settings: dict[str, Any], began: float) -> dict[str, Any]:
    """Train in this process, and return what the clock saw."""
    from bench.meter import Clock, watched

    clock = Clock()
    with watched(clock):
        if side == "bare":
            from bench.bare_sft import train

            train(folder / "run" / "dataset", folder / "bare", settings)
        else:
            _run_command(folder, settings)
    return {
        "first_step": clock.wall[0] - began,
        "wall": [b - a for a, b in zip(clock.wall, clock.wall[1:], strict=False)],
        "processor": [b - a for a, b in zip(clock.processor, clock.processor[1:], strict=False)],
        "losses": clock.losses,
        "whole": time.monotonic() - began,
    }


def _run_command(folder: Path, settings: dict[str, Any]) -> None:
    from tune.cli import main

    config = folder / "sft.toml"
    packing = settings["packing_length"] is not None
    more = {"packing": packing, "threads": 1, "save_every": 1e9, "early_stopping": 0, "candidate": folder.name}
    # What JSON writes of texts, numbers and truths is TOML too.
    known = {name: value for name, value in {**settings, **more}.items() if value is not None}
    lines = (f"{name} = {json.dumps(value)}" for name, value in known.items())
    config.write_text("\n".join(["[sft]", *lines, ""]), encoding="utf-8")
    sys.argv = ["tune", "sft", str(folder / "run"), "--config", str(config)]
    with contextlib.redirect_stdout(sys.stderr):
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise


def compare(options: argparse.Namespace, folder: Path) -> None:
    """Let both take their turns, and print the table."""
    rows = make_rows(options.rows, median=options.median, spread=0.6, longest=options.longest)
    validation = make_rows(options.rows // 8, median=options.median, spread=0.6, longest=options.longest, seed=1)
    for number, row in enumerate(validation):
        row |= {"id": f"v{number:05}", "document_id": f"v{number // 4:05}.md"}
        row["prompt"][0]["content"] += " Why?"
    settings = {
        "student": str(options.student),
        "method": options.method,
        "epochs": options.epochs,
        "batch_size": 1 if options.packing_length else 8,
        "gradient_accumulation": 2,
        "learning_rate": 2e-4,
        "packing_length": options.packing_length,
        "seed": 0,
        "rank": 16,
        "alpha": 32,
        "dropout": 0.05,
    }
    seen: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    startup: list[dict[str, float]] = []
    for pair in range(options.pairs):
        for side in SIDES if pair % 2 == 0 else reversed(SIDES):
            place = folder / f"{side}-{pair}"
            make_run(place / "run", rows, validation)
            found = _in_a_process(side, place, settings)
            seen[side].append(found)
            middle = statistics.median(found["wall"])
            print(
                f"pair {pair + 1}, {side}: {len(found['losses'])} steps, {middle:.4f} s a step, "
                f"{statistics.median(found['processor']):.4f} s of processor, first after {found['first_step']:.1f} s",
                file=sys.stderr,
                flush=True,
            )
        report = json.loads((folder / f"ours-{pair}/run/students/ours-{pair}/training.json").read_bytes())
        startup.append(report["startup"])
    _print_losses(seen)
    _print_times(seen, startup)


def _print_losses(seen: dict[str, list[dict[str, Any]]]) -> None:
    ours, bare = ([found["losses"] for found in seen[side]] for side in ("ours", "bare"))
    steps = len(bare[0])
    assert steps and all(len(losses) == steps for losses in (*ours, *bare)), "the runs took different numbers of steps"
    apart = max(abs(a - b) for one in (*ours, *bare) for a, b in zip(one, bare[0], strict=True))
    print(f"{steps} steps; losses from {bare[0][0]:.4f} to {bare[0][-1]:.4f}, apart by at most {apart:g} nats\n")
    if apart:
        sys.exit("the losses differ: one of the two does not train on these rows with these settings")


def _print_times(seen: dict[str, list[dict[str, Any]]], startup: list[dict[str, float]]) -> None:
    def medians(side: str, name: str) -> list[float]:
        values = (found[name] for found in seen[side])
        return [statistics.median(v) if isinstance(v, list) else v for v in values]

    def line(what: str, ours: list[float], bare: list[float]) -> None:
        ratios = [a / b for a, b in zip(ours, bare, strict=True)]
        spread = ", ".join(f"{ratio:.3f}" for ratio in ratios)
        print(
            f"| {what} | {statistics.median(bare):.4f} | {statistics.median(ours):.4f} | "
            f"{statistics.median(ratios):.3f} | {spread} |"
        )

    print(
        "| median over pairs, in seconds | bare | ours | ours / bare | each pair |\n| --- | ---: | ---: | ---: | --- |"
    )
    line("a step, wall clock", medians("ours", "wall"), medians("bare", "wall"))
    line("a step, processor", medians("ours", "processor"), medians("bare", "processor"))
    loops = [[sum(found["wall"]) for found in seen[side]] for side in ("ours", "bare")]
    line("first step to last, with validation", loops[0], loops[1])
    loops = [[sum(found["processor"]) for found in seen[side]] for side in ("ours", "bare")]
    line("the same, processor", loops[0], loops[1])
    line("command to first step", medians("ours", "first_step"), medians("bare", "first_step"))
    line("command to the end", medians("ours", "whole"), medians("bare", "whole"))
    parts = {name: statistics.median(part[name] for part in startup) for name in startup[0]}
    total = sum(parts.values())
    print("\nours, to the first step: " + ", ".join(f"{n} {s:.2f} s ({s / total:.0%})" for n, s in parts.items()))


def _in_a_process(side: str, folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    began = time.monotonic()  # The same clock in every process of a machine.
    command = [sys.executable, __file__, "--child", json.dumps([side, str(folder), settings, began])]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **quiet})
    if done.returncode:
        sys.exit(f"{side}:\n{done.stdout[-1000:]}{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def pack(count: int, lengths: tuple[int, ...] = (2048, 4096, 8192)) -> None:
    """Print how full packed sequences are, by distribution and length: as TRL packs by itself, and as we let it."""
    import datasets
    from trl.data_utils import pack_dataset

    from tune.building import PACKED_TOGETHER

    datasets.disable_progress_bars()
    print(f"{count} rows each, none longer than 2048 tokens, so that every pack can hold it\n")
    packs = " | ".join(f"packs of {length}" for length in lengths)
    print(f"| rows | tokens: middle, mean | packed | {packs} | seconds | tokens lost |")
    print("| --- | ---: | --- |" + " ---: |" * (len(lengths) + 2))
    for name, lumps in LENGTHS.items():
        chance = random.Random(name)
        sizes = []
        for number in range(count):
            middle, spread = lumps[number % len(lumps)]
            sizes.append(min(2048, max(16, round(middle * math.exp(chance.gauss(0, spread))))))
        ids = [[number % 1000] * size for number, size in enumerate(sizes)]
        rows = datasets.Dataset.from_dict({"input_ids": ids, "labels": ids})
        for how, options in (("by TRL itself", {}), ("all together", {"batch_size": PACKED_TOGETHER})):
            began, cells, lost = time.process_time(), [], 0
            for length in lengths:
                packed = pack_dataset(rows, length, "bfd", dict(options))
                made = sum(map(sum, packed["seq_lengths"]))
                lost += sum(sizes) - made
                cells.append(f"{made / (len(packed) * length):.2%}")
            seconds = (time.process_time() - began) / len(lengths)
            about = f"{statistics.median(sizes):.0f}, {sum(sizes) / count:.0f}"
            print(f"| {name} | {about} | {how} | {' | '.join(cells)} | {seconds:.1f} | {lost} |", flush=True)


def main() -> None:
    """Compare, or pack."""
    if sys.argv[1:2] == ["--child"]:
        side, folder, settings, began = json.loads(sys.argv[2])
        print("\n" + json.dumps(run_child(side, Path(folder), settings, began)))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=480)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--median", type=int, default=30, help="words in the middle row")
    parser.add_argument("--longest", type=int, default=150, help="words in the longest row at most")
    parser.add_argument("--method", choices=["lora", "full"], default="lora")
    parser.add_argument("--student", type=Path, default=ROOT / "examples/demo/models/student")
    parser.add_argument("--packing-length", type=int, help="pack both up to this many tokens")
    parser.add_argument("--packing", action="store_true", help="show how full packs are, and train nothing")
    parser.add_argument("--packed-rows", type=int, default=5000)
    options = parser.parse_args()
    if options.packing:
        pack(options.packed_rows)
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(options, Path(folder))


if __name__ == "__main__":
    main()
