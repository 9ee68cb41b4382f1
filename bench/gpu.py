"""Our generate stage beside `vllm bench serve`: output tokens per second on the same server, prompts and lengths.

    python bench/gpu.py [--shape qwen3-0.6b] [--shape qwen3-8b] [--requests 2000] [--in-flight 256] [--rounds 3]

Needs a GPU, vLLM and this package, and nothing from a hub: the model is a config of the published dimensions that
vLLM fills with random weights (`--load-format dummy`), under the bundled tokenizer, whose vocabulary is filled up
with made-up words to the model's own. What the model says means nothing; what it costs to say it is real.

The stage runs whole: documents in, passages, journal, records. Its generator sends each passage as one message and
takes what comes, at most --output-tokens of it. `vllm bench serve` sends the same texts over the same chat endpoint,
with the same sampling, as many at once. The stage's time is that of the whole stage, the other's is from its first
request to its last reply, without its start. The stage also sends a seed with every call, which costs the engine
something; a second row of `vllm bench` does that too. The prefix cache is off, so that no turn lives off another's.

Without a GPU it says so and exits 2; `--allow-cpu` runs it all the same, which shows that the script works, no more.
"""

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from bench.shapes import SHAPES, make_model  # noqa: E402
from synth import GenerateConfig, Message, Passage, Record, Run, Teacher, generator, run_generate  # noqa: E402
from synth.core.jsonl import read_lines  # noqa: E402
from synth.inference.client import Client  # noqa: E402
from synth.inference.server import VLLMServer  # noqa: E402

TEMPERATURE, TOP_P = 0.7, 0.95
BENCH = "vllm bench"
BENCH_SEEDED = "vllm bench, seeded"
STAGE = "our stage"
STAGE_LOGPROBS = "our stage, with log probabilities"

# What `vllm bench serve` runs. The command itself looks for a package called vllm, which the CPU build is not.
_BENCH_SERVE = """
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""


@generator
class Plain:
    """Sends the passage and takes the reply as it is: one call a passage."""

    name = "bench-plain"

    async def generate(self, passage: Passage, teacher: Teacher) -> list[Record]:
        """Return one record, whatever the reply says."""
        completion = await teacher.chat([Message("user", passage.text)])
        return [Record.create(passage, passage.text[:80], completion.text.strip() or "-", generator=self.name)]


@dataclass(frozen=True, slots=True)
class Turn:
    """One run of one contender."""

    tokens: int
    seconds: float
    failed: int

    @property
    def rate(self) -> float:
        """Output tokens per second."""
        return self.tokens / self.seconds


def make_documents(path: Path, count: int, words: int) -> None:
    """Write documents of one passage each, of so many words from the bundled handbook in another order each."""
    handbook = ROOT / "examples/demo/handbook"
    known = sorted({word for file in handbook.glob("*.md") for word in file.read_text(encoding="utf-8").split()})
    plain = [word for word in known if word.isalpha()]
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            text = " ".join([str(number), *rng.choices(plain, k=words)]) + "."
            file.write(json.dumps({"id": f"{number:06}", "text": text}) + "\n")


def run_stage(documents: Path, run: Run, server: VLLMServer, options: argparse.Namespace, *, logprobs: bool) -> Turn:
    """Run the generate stage once, from the documents to the records."""
    config = GenerateConfig(
        generator=(Plain.name,),
        passage_chars=100_000,
        temperature=TEMPERATURE,
        top_p=TOP_P,
        max_tokens=options.output_tokens,
    )
    client = Client(server.base_url, server.served, max_in_flight=options.in_flight, logprobs=logprobs)
    summary = asyncio.run(
        run_generate(run, [documents], config, client, teacher_name="dummy", max_in_flight=options.in_flight)
    )
    return Turn(summary.completion_tokens, summary.seconds, summary.quarantined)


def run_bench(
    prompts: Path, model: Path, server: VLLMServer, options: argparse.Namespace, folder: Path, *, seeded: bool
) -> Turn:
    """Run `vllm bench serve` once; it says itself how long it took and what it got."""
    command = [options.python, "-c", _BENCH_SERVE, "--backend", "openai-chat"]
    command += ["--base-url", server.base_url.removesuffix("/v1"), "--endpoint", "/v1/chat/completions"]
    command += ["--model", str(model), "--served-model-name", server.served, "--tokenizer", str(model)]
    command += ["--dataset-name", "custom", "--dataset-path", str(prompts), "--skip-chat-template"]
    command += ["--disable-shuffle", "--custom-output-len", str(options.output_tokens)]
    command += ["--num-prompts", str(options.requests), "--max-concurrency", str(options.in_flight)]
    command += ["--temperature", str(TEMPERATURE), "--top-p", str(TOP_P), "--disable-tqdm"]
    command += ["--save-result", "--result-dir", str(folder), "--result-filename", "bench.json"]
    if seeded:
        command += ["--extra-body", json.dumps({"seed": 0})]
    done = subprocess.run(command, capture_output=True, text=True, timeout=options.timeout)
    if done.returncode:
        sys.exit(f"`vllm bench serve` ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    found = json.loads((folder / "bench.json").read_text(encoding="utf-8"))
    (folder / "bench.json").unlink()
    return Turn(found["total_output_tokens"], found["duration"], options.requests - found["completed"])


def compare(shape: str, options: argparse.Namespace, folder: Path) -> None:
    """Start a server of this shape, let the contenders take turns on it, and print the medians."""
    model, documents, prompts = folder / shape, folder / "documents.jsonl", folder / "prompts.jsonl"
    make_model(model, shape)
    make_documents(documents, options.requests, options.prompt_words)
    prompts.write_text(
        "".join(json.dumps({"prompt": row["text"]}) + "\n" for _, row in read_lines(documents)), encoding="utf-8"
    )
    arguments = ["--load-format", "dummy", "--no-enable-prefix-caching", *options.vllm_arg]
    server = VLLMServer(
        model,
        log_path=folder / f"{shape}.log",
        max_model_len=options.max_model_len,
        python=options.python,
        args=arguments,
        on_progress=lambda text: print(f"{shape}: {text}", file=sys.stderr),
    )
    turns: dict[str, list[Turn]] = {name: [] for name in (STAGE, BENCH, STAGE_LOGPROBS, BENCH_SEEDED)}
    with server:
        run_bench(prompts, model, server, options, folder, seeded=False)  # the first turn pays for warming up
        for number in range(options.rounds):
            names = list(turns) if number % 2 == 0 else list(reversed(turns))
            for name in names:
                if name in {BENCH, BENCH_SEEDED}:
                    turn = run_bench(prompts, model, server, options, folder, seeded=name == BENCH_SEEDED)
                else:
                    run = Run.create(folder / f"run-{shape}-{number}-{len(name)}")
                    turn = run_stage(documents, run, server, options, logprobs=name == STAGE_LOGPROBS)
                    sent = [row["text"] for _, row in read_lines(run.passages_path)]
                    assert len(sent) == options.requests, "a document did not stay one passage"
                turns[name].append(turn)
                print(f"{shape}, round {number + 1}, {name}: {turn.rate:,.0f} tok/s, {turn}", file=sys.stderr)
    print(
        f"\n{shape}: {options.requests} prompts of {options.prompt_words} words, up to {options.output_tokens} tokens "
        f"each, {options.in_flight} in flight, medians of {options.rounds} rounds\n"
    )
    print(f"| | output tok/s | of {BENCH} | seconds | tokens a call | failed |\n| --- |" + " ---: |" * 5)
    for name, made in turns.items():
        share = statistics.median(turn.rate / ceiling.rate for turn, ceiling in zip(made, turns[BENCH], strict=True))
        rate, seconds = (statistics.median(values) for values in zip(*((t.rate, t.seconds) for t in made), strict=True))
        length = sum(turn.tokens for turn in made) / (len(made) * options.requests)
        failed = sum(turn.failed for turn in made)
        print(f"| {name} | {rate:,.0f} | {share:.2f} | {seconds:.1f} | {length:.0f} | {failed} |")


def device(python: str) -> str:
    """Return the names of the GPUs that this Python's torch sees, or an empty string."""
    probe = "import torch as t; print(', '.join(t.cuda.get_device_name(i) for i in range(t.cuda.device_count())))"
    found = subprocess.run([python, "-c", probe], capture_output=True, text=True)
    return found.stdout.strip() if found.returncode == 0 else ""


def main() -> None:
    """Compare at each shape, or say that there is no GPU and exit 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", choices=list(SHAPES), help="may be repeated [qwen3-0.6b, qwen3-8b]")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--prompt-words", type=int, default=200)
    parser.add_argument("--output-tokens", type=int, default=128)
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-model-len", type=int, default=4096)
    parser.add_argument("--python", default=sys.executable, help="the Python that has vLLM")
    parser.add_argument("--vllm-arg", action="append", default=[], help="passed through to the server; may be repeated")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for one run of `vllm bench serve`")
    parser.add_argument("--allow-cpu", action="store_true", help="run without a GPU, to see that the script works")
    options = parser.parse_args()
    found = device(options.python)
    if not found and not options.allow_cpu:
        print(
            "There is no GPU here (torch sees none), so there is nothing to measure. Run this where one is, or try "
            "the script with `--allow-cpu --shape tiny --requests 40 --output-tokens 16`.",
            file=sys.stderr,
        )
        raise SystemExit(2)
    print(f"device: {found or 'no GPU; these figures say that the script works, nothing else'}")
    with tempfile.TemporaryDirectory() as folder:
        for shape in options.shape or ["qwen3-0.6b", "qwen3-8b"]:
            compare(shape, options, Path(folder))


if __name__ == "__main__":
    main()
