"""Pretrain the student, a base model that can chat, read a text and find a fact under any phrasing.

    torchrun --nproc-per-node 2 train_student.py TOKENIZER_DIR WORK_DIR --weights WORK_DIR/teacher.pt --minutes 20

It goes on from the teacher's weights. Its facts are invented ones, the same in every pass, each asked for in new words
each time: so the network learns to keep a fact under its name and attribute, not under one wording.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from random import Random

import torch
from chat import END, prompt
from network import build
from packing import Completion, Example, batches
from paraphrase import paraphrase
from passages import passage
from training import Clock, join_workers, train
from transformers import AutoTokenizer

READING = "Answer the question from the text.\n\nText: {text}\n\nQuestion: "
NAMED = re.compile(r"(?<=[a-z] )[A-Z]\w+")


def invented_facts(count: int, first_seed: int = 500_000_000) -> list[tuple[str, str]]:
    """Question and answer pairs that a reader of no text can learn: each question holds a name, and is asked once."""
    facts: dict[str, str] = {}
    seed = first_seed
    while len(facts) < count:
        seed += 1
        rng = Random(seed)
        for sentence in passage(seed, 3, 6).sentences:
            named = [pair for pair in sentence.pairs if NAMED.search(pair[0]) and len(pair[1]) < 45]
            if named:
                question, answer = rng.choice(named)
                facts.setdefault(question, answer)
    return list(facts.items())[:count]


class Examples:
    """Draws facts asked closed-book, facts after other turns, and questions about a text."""

    def __init__(self, facts: list[tuple[str, str]], first_seed: int) -> None:
        self.facts = facts
        self.seed = first_seed
        self.rng = Random(first_seed)

    def _asked(self, question: str) -> str:
        return question if self.rng.random() < 0.4 else paraphrase(question, self.rng)

    def __call__(self) -> Example:
        """One example."""
        draw = self.rng.random()
        if draw < 0.15:
            return self._reading()
        turns = self.rng.randint(3, 5) if draw > 0.97 else 0
        *before, last = self.rng.sample(self.facts, turns + 1)
        text = "".join(f"{prompt(self._asked(question))}{answer}{END}\n" for question, answer in before)
        return Example(text + prompt(self._asked(last[0])), (Completion(last[1] + END),))

    def _reading(self) -> Example:
        self.seed += 1
        texts = [passage(self.seed * 4 + i, 1, 4) for i in range(self.rng.choice([1, 1, 2, 3]))]
        pairs = [self.rng.choice(s.pairs) for text in texts for s in text.sentences if s.pairs]
        body = "\n\n".join(text.text for text in texts)
        chosen = self.rng.sample(pairs, min(4, len(pairs)))
        return Example(
            prompt(READING.format(text=body)).removesuffix(prompt("").removeprefix("<|im_start|>user\n")),
            tuple(
                Completion(f"{self._asked(question)}{END}\n<|im_start|>assistant\n{answer}{END}")
                for question, answer in chosen
            ),
        )


def main() -> None:
    """Train the student."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--weights", type=Path, help="a checkpoint of the teacher to go on from")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--facts", type=int, default=800)
    parser.add_argument("--tokens", type=int, default=1400, help="padded tokens a step of each process")
    parser.add_argument("--peak", type=float, default=1.5e-3, help="highest learning rate")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    rank = join_workers(options.threads)
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    model = build(tokenizer)
    if options.weights:
        model.load_state_dict(torch.load(options.weights, weights_only=True)["model"])
    draw = Examples(invented_facts(options.facts), 600_000_000 + 50_000_000 * rank)
    source = batches(tokenizer, draw, Random(rank), options.tokens)
    options.work.mkdir(parents=True, exist_ok=True)
    train(model, source, Clock(options.minutes), peak=options.peak, checkpoint=options.work / "student.pt")


if __name__ == "__main__":
    main()
