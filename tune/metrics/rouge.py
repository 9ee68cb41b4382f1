"""ROUGE-L of a text against its references.

Source: Lin, "ROUGE: A Package for Automatic Evaluation of Summaries" (2004), section 3, as the package rouge-score
has it.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from synth.core.errors import ConfigError
from tune.metrics.base import Reply

# Scripts that put no space between words: each character stands for one.
_WORDS = re.compile(r"[぀-ヿ㐀-䶿一-鿿豈-﫿฀-๿]|[^\W_぀-ヿ㐀-䶿一-鿿豈-﫿฀-๿]+")


class RougeL:
    """F1 of the longest common subsequence of words, against the best reference; no stemming.

    The words are those of rouge-score (runs of a-z and 0-9) where answer and references have no other letters, so
    that figures compare. Otherwise they are runs of letters and digits of any script, since rouge-score would see
    nothing of a text in Greek and half of one in French.
    """

    name = "rouge_l"
    words = "ROUGE-L"

    def score(self, replies: Sequence[Reply]) -> list[float | None]:
        """Return a number from 0 to 1 for each answer; None where no reference has a word.

        Raises:
            ConfigError: rouge-score is not installed.
        """
        plain, wide = _scorer(None), _scorer(_Words())
        return [_best(wide if _other_letters(reply) else plain, reply) for reply in replies]


class _Words:
    """The words of a text in any script, for rouge-score."""

    def tokenize(self, text: str) -> list[str]:
        return _WORDS.findall(unicodedata.normalize("NFC", text).lower())


def _scorer(tokenizer: _Words | None) -> Any:  # noqa: ANN401  (of an untyped library)
    try:
        from rouge_score.rouge_scorer import RougeScorer  # brings nltk with it
    except ImportError as error:
        raise ConfigError(
            "rouge-score is not installed", where="metric rouge_l", fix="pip install 'synth-tune[tune]'"
        ) from error
    return RougeScorer(["rougeL"], tokenizer=tokenizer)


def _best(scorer: Any, reply: Reply) -> float | None:  # noqa: ANN401  (of an untyped library)
    references = [reference for reference in reply.item.answers if _WORDS.search(reference)]
    if not references:
        return None
    return max(float(scorer.score(reference, reply.text)["rougeL"].fmeasure) for reference in references)


def _other_letters(reply: Reply) -> bool:
    """Whether answer or references have letters that rouge-score does not read."""
    texts = (reply.text, *reply.item.answers)
    return any(not text.isascii() and any(c.isalpha() and not c.isascii() for c in text) for text in texts)
