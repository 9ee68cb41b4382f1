"""Exact match and F1 of a short answer, as the evaluation programs of SQuAD v1.1 and v2.0 define them.

Sources: Rajpurkar, Zhang, Lopyrev and Liang, "SQuAD: 100,000+ Questions for Machine Comprehension of Text" (EMNLP
2016), section 6.1; Rajpurkar, Jia and Liang, "Know What You Don't Know: Unanswerable Questions for SQuAD" (ACL 2018),
section 4; and the evaluation programs of both, whose corner cases are kept so that figures compare. Of both:
punctuation is ASCII punctuation alone, and articles are English.

They differ where nothing is left of a text after normalization. In v1.1 two such texts match exactly but have no
token in common, hence F1 0. In v2.0 such a text is "no answer": F1 is 1 where both are, 0 where one is; and a
reference of which nothing is left does not count, unless there is no other: then, as where there is no reference, "no
answer" is right.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

Version = Literal["1.1", "2.0"]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize(text: str) -> str:
    """Return `text` in lower case without ASCII punctuation, articles and extra white space, in that order."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, references: Sequence[str], *, version: Version = "1.1") -> float:
    """Return 1.0 where the normalized answer equals a normalized reference, else 0.0.

    Raises:
        ValueError: there is no reference (v1.1; in v2.0 that means that there is no answer).
    """
    return _best(_equal, answer, _counted(references, version))


def f1(answer: str, references: Sequence[str], *, version: Version = "1.1") -> float:
    """Return the best F1 over the references, 0 to 1: precision and recall of normalized tokens.

    Tokens are counted as a multiset: a token said twice counts twice only where the reference has it twice.

    Raises:
        ValueError: there is no reference (v1.1; in v2.0 that means that there is no answer).
    """
    return _best(_overlap if version == "1.1" else _overlap_or_none, answer, _counted(references, version))


def _counted(references: Sequence[str], version: Version) -> Sequence[str]:
    """Return the references that count."""
    if version == "2.0":
        return [reference for reference in references if normalize(reference)] or [""]
    if not references:
        raise ValueError("a question without a reference answer cannot be scored")
    return references


def _best(metric: Callable[[str, str], float], answer: str, references: Sequence[str]) -> float:
    return max(metric(answer, reference) for reference in references)


def _equal(answer: str, reference: str) -> float:
    return float(normalize(answer) == normalize(reference))


def _overlap(answer: str, reference: str) -> float:
    said, wanted = normalize(answer).split(), normalize(reference).split()
    shared = sum((Counter(said) & Counter(wanted)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(said), shared / len(wanted)
    # In this order the last digit is that of the programs.
    return 2 * precision * recall / (precision + recall)


def _overlap_or_none(answer: str, reference: str) -> float:
    if normalize(answer) and normalize(reference):
        return _overlap(answer, reference)
    return _equal(answer, reference)
