"""Exact match and F1 of a short answer, as the evaluation of SQuAD v1.1 defines them.

Source: Rajpurkar, Zhang, Lopyrev and Liang, "SQuAD: 100,000+ Questions for Machine Comprehension of
Text" (EMNLP 2016), section 6.1, and the dataset's evaluation program, whose corner cases are kept so
that figures compare: punctuation is ASCII punctuation alone, articles are English, and two answers that
are both empty after normalization match exactly but have no token in common, hence F1 0.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(text: str) -> str:
    """Return `text` in lower case without ASCII punctuation, articles and extra white space, in that order."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, references: Sequence[str]) -> float:
    """Return 1.0 where the normalized answer equals a normalized reference, else 0.0.

    Raises:
        ValueError: there is no reference.
    """
    return _best(_equal, answer, references)


def f1(answer: str, references: Sequence[str]) -> float:
    """Return the best F1 over the references, 0 to 1: precision and recall of normalized tokens.

    Tokens are counted as a multiset: a token said twice counts twice only where the reference has it twice.

    Raises:
        ValueError: there is no reference.
    """
    return _best(_overlap, answer, references)


def _best(metric: Callable[[str, str], float], answer: str, references: Sequence[str]) -> float:
    if not references:
        raise ValueError("a question without a reference answer cannot be scored")
    return max(metric(answer, reference) for reference in references)


def _equal(answer: str, reference: str) -> float:
    return float(normalize(answer) == normalize(reference))


def _overlap(answer: str, reference: str) -> float:
    said, wanted = normalize(answer).split(), normalize(reference).split()
    shared = sum((Counter(said) & Counter(wanted)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(said), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)
