"""Train the byte-level BPE tokenizer of both models on grammar text.

    python tokenizer.py OUT_DIR

It suits copying: single digits, and the first letter of each content word is a token of its own, so that a word
begins the same way wherever it stands; function words stay whole.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from chat import END, PAD, PIECES, START
from constructions import FOLDER
from lexicon import WORDS, words
from passages import passage
from slots import SLOT
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

if TYPE_CHECKING:
    from collections.abc import Iterator

VOCABULARY = 2048
FUNCTION_WORDS = words("function_words")


def _corpus() -> Iterator[str]:
    for seed in range(9_000_000, 9_012_000):
        drawn = passage(seed)
        yield drawn.text
        for sentence in drawn.sentences:
            for question, answer in sentence.pairs[:2]:
                yield f"{question} {answer}"
    for path in FOLDER.glob("*.txt"):
        for line in path.read_text(encoding="utf-8").splitlines():
            for _ in range(30):
                yield re.sub(r"\s+", " ", SLOT.sub(" ", line[2:]))
    for path in WORDS.glob("*.txt"):
        for phrase in words(path.stem):
            for _ in range(20):
                yield f"the {phrase}"
    for word in FUNCTION_WORDS:
        for _ in range(50):
            yield f" {word} {word.capitalize()}"
            yield word
            yield word.capitalize()


def train() -> PreTrainedTokenizerFast:
    """The tokenizer, ready to save; its id 0 is the padding and 2 ends a message."""
    known = "|".join(sorted({*FUNCTION_WORDS, *(word.capitalize() for word in FUNCTION_WORDS)}, key=len, reverse=True))
    pattern = (
        rf" (?:{known})(?![A-Za-z])|(?<![A-Za-z])(?:{known})(?![A-Za-z])"
        r"| [A-Za-z]|(?<![A-Za-z])[A-Za-z]|[A-Za-z]+|[0-9]| (?=[0-9])| ?[^A-Za-z0-9\s]|\s"
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(PIECES),
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    tokenizer.add_tokens([AddedToken(piece, normalized=False, special=False) for piece in PIECES])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )


if __name__ == "__main__":
    train().save_pretrained(Path(sys.argv[1]))
