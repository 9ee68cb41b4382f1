"""Labels: reading one from an answer, and what the read labels of a set are worth."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from tune.metrics.base import Reply
from tune.scores import Score

_MARKUP = re.compile(r"[*_`#\"“”{}\[\]]|\\boxed|</?\w+>")
# What stands before a label where an answer says which one it is; of several the last one counts.
_SAID = re.compile(
    r"(?:\b(?:final answer|answer|label|class|category|grade|score|mark|rating|verdict|choice|option|sentiment|intent|"
    r"topic)"
    r"(?:\s+(?:is|of|would be|should be)(?:\s+an?)?\b|\s*[:=]|\s*->)+)",
    re.IGNORECASE,
)
_OUT_OF = re.compile(r"(?<=\d)\s*(?:/|out of|of)\s*\d+(?:\.\d+)?", re.IGNORECASE)
_NOT = re.compile(
    r"(?:\bnot|n't|n’t|\bnever|\bneither|\bnor|\bno longer|\brather than|\binstead of|\bnon)[\s-]+"
    r"(?:an?\s+|the\s+|really\s+)?$"
)
# How far before a label a "not" is looked for.
_NEAR = 40
_ENDS = frozenset(".,:;!?)\n-–—")


@dataclass(frozen=True, slots=True)
class Correct:
    """1 where the label that is read from the answer is the right one, else 0; an answer without a label is wrong."""

    labels: tuple[str, ...] = field(default=())
    name = "correct"
    words = "accuracy"

    def score(self, replies: Sequence[Reply]) -> list[float | None]:
        """Return 0 or 1 for each answer; None for an item without a label.

        Where no labels were given, those of the replies' items are the ones that are looked for.
        """
        labels = self.labels or tuple(sorted({reply.item.label for reply in replies if reply.item.label is not None}))
        return [
            None if reply.item.label is None else float(read_label(reply.text, labels) == reply.item.label)
            for reply in replies
        ]


def read_label(text: str, labels: Sequence[str]) -> str | None:
    """Return the one label that an answer gives, as it stands in `labels`, or None where it gives none or several.

    Case and markup do not count. In this order: the whole answer is a label; what follows "answer:", "the grade is"
    or the like (the last of them) begins with one; the answer begins with one, before a mark of punctuation; or just
    one label stands in it as a whole word. There a label within a longer one does not count ("spam" in "not spam",
    where that is a label), nor one that is denied ("this is not spam"), nor the most that a grade can be ("3 out of
    5", "3/5"). A label of one letter has to be written as it is ("B", not "b"), and "A" and "I" are words where a
    small letter follows.
    """
    if not labels:
        return None
    plain = _plain(text)
    wanted = {_plain(label).casefold(): label for label in labels}
    whole = plain.strip(" .,:;!?()'\n").casefold()
    for said in (plain.strip().casefold(), whole):
        if said in wanted:
            return wanted[said]
    pattern = _pattern(tuple(labels))
    shortened = _OUT_OF.sub("", plain) if all(_is_number(label) for label in labels) else plain
    told = [found.end() for found in _SAID.finditer(shortened)]
    if told:
        first = _found(pattern, shortened[told[-1] :].lstrip(" '(:=\n"), wanted)
        if first and first[0][0] == 0:
            return first[0][1]
    found = _found(pattern, shortened, wanted)
    opening = len(shortened) - len(shortened.lstrip(" '(\n"))
    if found and found[0][0] == opening and shortened[found[0][2] :][:1] in {"", *_ENDS}:
        return found[0][1]
    # What is denied is not said; of "not A but B" B is left.
    said_labels = {label for start, label, _ in found if not _NOT.search(shortened[max(0, start - _NEAR) : start])}
    return said_labels.pop() if len(said_labels) == 1 else None


def _found(pattern: re.Pattern[str], text: str, wanted: Mapping[str, str]) -> list[tuple[int, str, int]]:
    """Return the labels in `text` with where they begin and end, in order."""
    found = []
    for match in pattern.finditer(text):
        label = wanted.get(match.group().casefold())
        if label is None:
            continue  # the two ways of ignoring case differ in a few letters
        if len(label) == 1 and label.isalpha():
            if match.group() != label:
                continue
            if label in "AI" and re.match(r"['’]?\s*[a-z]", text[match.end() :]):
                continue
        found.append((match.start(), label, match.end()))
    return found


@lru_cache(maxsize=16)
def _pattern(labels: tuple[str, ...]) -> re.Pattern[str]:
    """Return what finds the labels as whole words, longer ones before those within them."""
    forms = sorted({_plain(label) for label in labels}, key=lambda form: (-len(form), form))
    parts = []
    for form in forms:
        before, after = (r"(?<!\w)", r"(?!\w)")
        if _is_number(form):
            # Not the 3 of 3.5, of 13 or of -3.
            before, after = r"(?<![\w.,-])" if not form.startswith("-") else r"(?<![\w.,])", r"(?!\w|[.,]\d)"
        parts.append(f"{before}{re.escape(form)}{after}")
    return re.compile("|".join(parts), re.IGNORECASE)


def _plain(text: str) -> str:
    return _MARKUP.sub("", unicodedata.normalize("NFKC", text)).strip()


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[-+]?\d+(?:\.\d+)?", text.strip()) is not None


def label_quality(scores: Sequence[Score], labels: Sequence[str]) -> dict[str, float | None]:
    """Return what the labels of one contender are worth, by scikit-learn.

    `accuracy` and `macro_f1` count an answer without a label as wrong; the mean of macro F1 is over the labels that
    are right or were said somewhere. `qwk`, the quadratic weighted kappa (Cohen 1968), is for labels that are
    numbers; an answer without a label stands as the label that is farthest from the right one, so that silence never
    pays. `roc_auc` is for two labels, the second of `labels` being the positive one: an answer ranks by its
    confidence in that label, and one without a label in the middle. A figure is None where it does not apply, or
    where nothing can vary: kappa of one label alone, ROC AUC where all items have the same label or an answer has no
    confidence.

    Args:
        scores: of one contender, each with the label that was wanted; others do not count.
        labels: of the set, in their order.
    """
    from sklearn import metrics  # takes a second to load

    told = [(score, score.wanted) for score in scores if score.wanted is not None]
    result: dict[str, float | None] = dict.fromkeys(("accuracy", "macro_f1", "qwk", "roc_auc"))
    if not told:
        return result
    wanted = [right for _, right in told]
    none = "".join(labels) + "?"  # a name that no label has
    said = [score.label if score.label is not None else none for score, _ in told]
    present = sorted({*wanted, *said} - {none})
    result["accuracy"] = sum(a == b for a, b in zip(said, wanted, strict=True)) / len(told)
    result["macro_f1"] = float(metrics.f1_score(wanted, said, labels=present, average="macro", zero_division=0.0))
    result["qwk"] = _kappa(wanted, [score.label for score, _ in told], labels)
    if len(labels) == 2 and len({*wanted}) == 2:
        ranks = [_rank(score, labels[1]) for score, _ in told]
        known = [rank for rank in ranks if rank is not None]
        if len(known) == len(ranks):
            result["roc_auc"] = float(metrics.roc_auc_score([right == labels[1] for right in wanted], known))
    return result


def _kappa(wanted: Sequence[str], said: Sequence[str | None], labels: Sequence[str]) -> float | None:
    if len(labels) < 2 or not all(_is_number(label) for label in labels):
        return None
    from sklearn.metrics import cohen_kappa_score

    place = {label: number for number, label in enumerate(labels)}
    right = [place[label] for label in wanted]
    last = len(labels) - 1
    given = [
        place[label] if label is not None else (0 if 2 * at > last else last)
        for label, at in zip(said, right, strict=True)
    ]
    if len({*right, *given}) < 2:
        return None
    return float(cohen_kappa_score(right, given, labels=range(len(labels)), weights="quadratic"))


def _rank(score: Score, positive: str) -> float | None:
    """Return how likely an answer makes the positive label, or None where its confidence is not known."""
    if score.label is None:
        return 0.5
    if score.confidence is None:
        return None
    return score.confidence if score.label == positive else 1 - score.confidence
