"""Tune the student as the demo does, on the development pairs, and score questions in the customers' words.

    python measure_student.py ../models/student dev_pairs.tsv

Closed book: LoRA on the manual's phrasing, asked in the customer's. Prints exact match and F1 as SQuAD has them, before
and after.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

import torch
from datasets import Dataset
from paraphrase import paraphrase
from passages import passage
from peft import LoraConfig
from train_student import READING, invented_facts
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

UNSEEN = 900_000_000


def _words(text: str) -> list[str]:
    return re.sub(r"\b(a|an|the)\b", " ", re.sub(r"[^\w\s]", "", text.lower())).split()


def exact_and_f1(prediction: str, answer: str) -> tuple[float, float]:
    """SQuAD's exact match and token F1 of one answer."""
    said, wanted = _words(prediction), _words(answer)
    common = sum((Counter(said) & Counter(wanted)).values())
    f1 = 2 * common / (len(said) + len(wanted)) if common else float(said == wanted)
    return float(said == wanted), f1


def answers(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: list[str]) -> list[str]:
    """Greedy replies to one user message each."""
    tokenizer.padding_side = "left"
    prompts = [
        tokenizer.apply_chat_template([{"role": "user", "content": q}], tokenize=False, add_generation_prompt=True)
        for q in questions
    ]
    inputs = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
    model.eval()
    with torch.no_grad():
        out = model.generate(
            input_ids=inputs.input_ids,
            attention_mask=inputs.attention_mask,
            max_new_tokens=32,
            do_sample=False,
        )
    return tokenizer.batch_decode(out[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)


def report(label: str, replies: list[str], wanted: list[str]) -> None:
    """Print the mean scores of some replies."""
    scores = [exact_and_f1(reply, answer) for reply, answer in zip(replies, wanted, strict=True)]
    em, f1 = (sum(score[i] for score in scores) / len(scores) for i in (0, 1))
    print(f"{label}: n {len(scores)} EM {em:.3f} F1 {f1:.3f}")


def reading(count: int) -> tuple[list[str], list[str]]:
    """Questions about texts the student has not seen, half of them in customers' words, and their answers."""
    questions, wanted = [], []
    for seed in range(UNSEEN, UNSEEN + count):
        rng, drawn = Random(seed), passage(seed, 2, 4)
        question, answer = rng.choice(rng.choice([s for s in drawn.sentences if s.pairs]).pairs)
        asked = question if seed % 2 else paraphrase(question, rng)
        questions.append(READING.format(text=drawn.text) + asked)
        wanted.append(answer)
    return questions, wanted


def invented(count: int) -> tuple[list[str], list[str]]:
    """Facts of the pretraining, asked in words drawn anew, and their answers."""
    rng, facts = Random(UNSEEN), invented_facts(count)
    return [paraphrase(question, rng) for question, _ in facts], [answer for _, answer in facts]


def main() -> None:
    """Tune and score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("student", type=Path)
    parser.add_argument("pairs", type=Path, help="lines of: manual's question, customer's question, answer, by tabs")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--alpha", type=int, default=128)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--epochs", type=float, default=30)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--show", type=int, default=0, help="replies to print")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lines = [line for line in options.pairs.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    formal, customer, wanted = (list(column) for column in zip(*(line.split("\t") for line in lines), strict=True))
    tokenizer = AutoTokenizer.from_pretrained(options.student)
    model = AutoModelForCausalLM.from_pretrained(options.student, dtype=torch.float32)
    for label, (questions, right) in {"reads a text": reading(100), "own facts reworded": invented(100)}.items():
        report(f"base, {label}", answers(model, tokenizer, questions), right)
    report("base, customers' words", answers(model, tokenizer, customer), wanted)
    rows = [
        {"prompt": [{"role": "user", "content": q}], "completion": [{"role": "assistant", "content": a}]}
        for q, a in zip(formal, wanted, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=model,
            processing_class=tokenizer,
            train_dataset=Dataset.from_list(rows),
            peft_config=LoraConfig(r=options.rank, lora_alpha=options.alpha, target_modules="all-linear"),
            args=SFTConfig(
                output_dir=folder, per_device_train_batch_size=options.batch, learning_rate=options.rate,
                num_train_epochs=options.epochs, lr_scheduler_type="cosine", warmup_steps=10, logging_steps=1000,
                save_strategy="no", report_to=[], use_cpu=True, bf16=False, max_length=512, disable_tqdm=True,
                gradient_checkpointing=False, seed=0,
            ),
        )  # fmt: skip
        started = time.monotonic()
        trainer.train()
    print(f"tuned in {time.monotonic() - started:.0f} s, {trainer.state.global_step} steps")
    report("tuned, manual's words", answers(trainer.model, tokenizer, formal), wanted)
    replies = answers(trainer.model, tokenizer, customer)
    report("tuned, customers' words", replies, wanted)
    for question, reply, answer in list(zip(customer, replies, wanted, strict=True))[: options.show]:
        print(f"    {question} -> {reply} [{answer}]")


if __name__ == "__main__":
    main()
