"""Train the teacher: passage in, `{"evidence", "question", "answer"}` out.

    torchrun --nproc-per-node 2 train_teacher.py TOKENIZER_DIR WORK_DIR --minutes 65

One process per core (plain `python` trains in one process with --threads). Writes WORK_DIR/teacher.pt every three
minutes and goes on from it when it is there; `export.py` makes the model folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from random import Random

from chat import END, evidence_json, pair_json, prompt
from network import build
from packing import Completion, Example, batches
from passages import Sentence, passage
from training import Clock, join_workers, train
from transformers import AutoTokenizer

CURRICULUM = ((0.05, 1), (0.12, 2), (0.7, 4), (1.01, 7))
"""Up to this share of the time, passages have at most this many sentences."""


class Examples:
    """Draws passages with up to four sentences and two pairs each; each draw is a new seed."""

    def __init__(self, clock: Clock, first_seed: int) -> None:
        self.clock = clock
        self.seed = first_seed
        self.rng = Random(first_seed)

    def __call__(self) -> Example:
        """One example."""
        progress = self.clock.progress
        longest = next(length for share, length in CURRICULUM if progress < share)
        if progress > 0.7 and self.rng.random() < 0.06:
            longest = 12
        while True:
            self.seed += 1
            drawn = passage(self.seed, 1 if longest < 12 else 8, longest)
            asked = [sentence for sentence in drawn.sentences if sentence.pairs]
            if asked:
                break
        chosen = self.rng.sample(asked, min(4, len(asked)))
        return Example(prompt(drawn.text), tuple(self._completion(sentence) for sentence in chosen))

    def _completion(self, sentence: Sentence) -> Completion:
        """A sentence as evidence with two of its pairs."""
        pairs = self.rng.sample(sentence.pairs, min(2, len(sentence.pairs)))
        return Completion(evidence_json(sentence.text), tuple(pair_json(*pair) + END for pair in pairs))


def main() -> None:
    """Train the teacher."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--minutes", type=float, default=65.0)
    parser.add_argument("--tokens", type=int, default=1100, help="padded tokens a step of each process")
    parser.add_argument("--peak", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=10_000_000, help="passages are drawn from this seed on")
    options = parser.parse_args()
    rank = join_workers(options.threads)
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    clock = Clock(options.minutes)
    options.work.mkdir(parents=True, exist_ok=True)
    source = batches(tokenizer, Examples(clock, options.first_seed + 50_000_000 * rank), Random(rank), options.tokens)
    train(build(tokenizer), source, clock, peak=options.peak, checkpoint=options.work / "teacher.pt")


if __name__ == "__main__":
    main()
