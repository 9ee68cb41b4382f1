"""May a judge be used? Its marks against people's, on answers that people have marked.

The measure is the chance that of two answers which people marked differently the judge gives the better one the
higher mark, ties a half: ROC AUC where people said right or wrong, and its extension to grades. Its interval comes
from drawing whole documents (a cluster bootstrap: Cameron, Gelbach and Miller, 2008), since answers about one text
rise and fall together.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from synth.core.errors import ConfigError, RecordError
from synth.core.heldout import HeldoutItem
from synth.core.jsonl import read_lines
from synth.core.schemas import check
from tune.metrics.base import Reply
from tune.metrics.judging import HIGHEST, LOWEST, Judge, judge_model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

BAR = 0.7
# With fewer an interval says little: ten answers in perfect order have one from 1 to 1.
LEAST_MARKS, LEAST_DOCUMENTS = 30, 10
# A judge that cannot be read so often measures something else than the answers it marks.
MOST_UNREAD = 0.1
_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Marked:
    """An answer with a person's mark, more being better."""

    reply: Reply
    mark: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a judge's marks are worth.

    Attributes:
        auc: the chance that it puts two answers in people's order; None where people marked all the same.
        low: the lower end of the 95 % interval of `auc`.
        high: the upper end.
        qwk: the quadratic weighted kappa, where people marked from 1 to 5 as the judge does.
        n: answers that both have marked.
        unread: answers that the judge gave no mark that can be read.
        documents: what was drawn for the interval.
        bar: what `low` has to reach.
        passed: whether the judge may be used.
        why: what is wrong with it, empty where it passed.
    """

    auc: float | None
    low: float | None
    high: float | None
    qwk: float | None
    n: int
    unread: int
    documents: int
    bar: float
    passed: bool
    why: str

    def said(self) -> str:
        """Return the figures in one sentence."""
        if self.auc is None or self.low is None or self.high is None:
            return f"On {self.n} answers in {self.documents} documents there is no AUC with an interval."
        return (
            f"It puts two answers in people's order {100 * self.auc:.0f} % of the time (AUC {self.auc:.3f}, 95 % "
            f"interval {self.low:.3f} to {self.high:.3f}, {self.n} answers in {self.documents} documents)."
        )

    def require(self) -> None:
        """Return where the judge may be used.

        Raises:
            ConfigError: it may not; the error says the figures.
        """
        if not self.passed:
            raise ConfigError(
                f"the judge may not be used: {self.why}. {self.said()}",
                where="judge",
                fix="take a stronger model, a better prompts/validate-judge.md or more marks, or do without a judge",
            )


def passed_judge(
    spec: str,
    marks: Path,
    folder: Path,
    *,
    bar: float = BAR,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Judge, Calibration]:
    """Return the judge that `spec` names, to be used as a metric, and how it did on people's marks.

    Args:
        spec: a URL, a folder, a hub id, or "bundled".
        marks: the file of marks (`read_marks`).
        folder: where the judge's journal and the log of its server are kept; answered calls are not made again.
        bar: what the lower end of its AUC's interval has to reach.
        say: gets short texts about starts and restarts.

    Raises:
        ConfigError: it may not be used, or there is no such model.
        RecordError: a line of the marks is wrong.
        InferenceError: a call got no answer.
    """
    judge = judge_model(spec, folder, say=say)
    found = calibrate(judge, read_marks(marks), bar=bar)
    found.require()
    return judge, found


def read_marks(path: Path) -> list[Marked]:
    """Read a JSONL file of answers that people have marked (schemas/human-mark.schema.json).

    Raises:
        RecordError: a line is wrong, or there is none.
        RunError: the file cannot be read.
    """
    found = []
    for number, line in read_lines(path):
        where = f"{path}:{number}"
        check(line, "human-mark", where=where)
        mark = float(line["mark"])
        if not math.isfinite(mark):
            raise RecordError("the mark is no finite number", where=where, fix="mend or remove the line")
        item = HeldoutItem(
            id=str(number),
            question=line["question"],
            answers=tuple(line.get("references", ())),
            # Answers to one question are one document, where none is named.
            document_id=line.get("document_id") or line["question"],
            context=line.get("context", ""),
            unanswerable=line.get("unanswerable", False),
        )
        found.append(Marked(Reply(item, line["answer"]), mark))
    if not found:
        raise RecordError("there is no mark", where=str(path), fix="see schemas/human-mark.schema.json")
    return found


def calibrate(
    judge: Judge, marked: Sequence[Marked], *, bar: float = BAR, resamples: int = 2000, seed: int = 0
) -> Calibration:
    """Return what the judge's marks of these answers are worth; equal marks give equal figures.

    A judge passes where the lower end of its AUC's interval is at least `bar`, with at least 30 marks in 10 documents,
    no more than a tenth of the answers being left without a mark that can be read.

    Raises:
        InferenceError: a call got no answer.
    """
    return compare(
        marked, asyncio.run(judge.marks([one.reply for one in marked])), bar=bar, resamples=resamples, seed=seed
    )


def compare(
    marked: Sequence[Marked], marks: Sequence[int | None], *, bar: float = BAR, resamples: int = 2000, seed: int = 0
) -> Calibration:
    """Return what these marks of a judge are worth, as `calibrate` does.

    Raises:
        ValueError: there are not as many marks as answers.
    """
    import numpy as np

    both = [(one, mark) for one, mark in zip(marked, marks, strict=True) if mark is not None]
    unread = len(marked) - len(both)
    human = np.array([one.mark for one, _ in both], dtype=np.float64)
    judged = np.array([mark for _, mark in both], dtype=np.float64)
    names = sorted({one.reply.item.document_id for one, _ in both})
    place = {name: number for number, name in enumerate(names)}
    documents = np.array([place[one.reply.item.document_id] for one, _ in both], dtype=np.int64)
    won, pairs = _contests(human, judged, documents, len(names))
    auc = float(won.sum() / pairs.sum()) if pairs.sum() else None
    low, high = _interval(won, pairs, resamples, seed) if auc is not None and len(names) > 1 else (None, None)
    why = _fault(len(both), unread, len(names), low, bar)
    return Calibration(auc, low, high, _kappa(human, judged), len(both), unread, len(names), bar, not why, why)


def _fault(n: int, unread: int, documents: int, low: float | None, bar: float) -> str:
    if unread > MOST_UNREAD * (n + unread):
        return f"{unread} of {n + unread} answers got no mark that can be read"
    if n < LEAST_MARKS or documents < LEAST_DOCUMENTS:
        return (
            f"{n} marks in {documents} documents are too few, it takes {LEAST_MARKS} in {LEAST_DOCUMENTS} "
            "(without a document_id each question is a document)"
        )
    if low is None:
        return "people gave every answer the same mark"
    if low < bar:
        return f"the lower end of its AUC's interval, {low:.3f}, is under {bar:g}"
    return ""


def _contests(
    human: "Floats", judged: "Floats", documents: "NDArray[np.int64]", count: int
) -> tuple["Floats", "Floats"]:
    """Return two matrices [documents, documents] over pairs of an answer and one that people marked lower.

    The first counts those that the judge has in this order, ties a half; the second counts all.
    """
    import numpy as np

    won, pairs = np.zeros((count, count)), np.zeros((count, count))
    for start in range(0, len(human), _CHUNK):
        rows = slice(start, start + _CHUNK)
        better = human[rows, None] > human[None, :]
        order = (1 + np.sign(judged[rows, None] - judged[None, :])) / 2
        for matrix, values in ((won, better * order), (pairs, better.astype(float))):
            columns = np.zeros((len(values), count))
            np.add.at(columns.T, documents, values.T)
            np.add.at(matrix, documents[rows], columns)
    return won, pairs


def _interval(won: "Floats", pairs: "Floats", resamples: int, seed: int) -> tuple[float | None, float | None]:
    import numpy as np

    count = len(won)
    drawn = np.random.default_rng(seed).multinomial(count, [1 / count] * count, size=resamples).astype(float)
    totals = ((drawn @ pairs) * drawn).sum(axis=1)
    found = ((drawn @ won) * drawn).sum(axis=1)[totals > 0] / totals[totals > 0]
    if not len(found):
        return None, None
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def _kappa(human: "Floats", judged: "Floats") -> float | None:
    """Return the quadratic weighted kappa where people used the judge's scale, and marks vary."""
    grades = range(LOWEST, HIGHEST + 1)
    if not len(human) or not {*human.tolist()} <= {*grades} or len({*human.tolist(), *judged.tolist()}) < 2:
        return None
    # 0 and 1 for wrong and right would pass for two marks of five where all are right.
    if {*human.tolist()} <= {0.0, 1.0}:
        return None
    from sklearn.metrics import cohen_kappa_score

    return float(cohen_kappa_score(human.astype(int), judged.astype(int), labels=list(grades), weights="quadratic"))
