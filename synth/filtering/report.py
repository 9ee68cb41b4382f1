"""filter.json: what the filter found beside its decisions, for people and for a dataset card."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from synth.filtering.ledger import FilterSummary
from synth.filtering.meaning import Meaning
from synth.filtering.table import Columns
from synth.filters.diversity import DistinctCounter, topic_spread
from synth.filters.leaks import LeakReport

# Distinct-n falls as a corpus grows, so what is compared is of one size.
SAMPLE = 10_000
_LENGTHS = (1, 2, 3)


@dataclass(frozen=True, slots=True)
class FilterReport:
    """The summary, clean and dirty held-out items, and how varied the kept records are.

    `distinct` has distinct-1, -2 and -3 of questions and answers of `sampled` kept records; `topics` how the kept
    records spread over clusters of their embeddings, None without an embedder.
    """

    summary: FilterSummary
    leaks: LeakReport | None
    sampled: int
    distinct: Mapping[str, Mapping[str, float | None]]
    topics: Mapping[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        """Return the content of filter.json."""
        summary = self.summary
        return {
            "version": 1,
            "records": summary.total,
            "kept": summary.kept,
            "train": summary.train,
            "validation": summary.validation,
            "funnel": [{"step": name, "rejected": count} for name, count in summary.funnel],
            "by_reason": dict(summary.by_reason),
            "contamination": None if self.leaks is None else self.leaks.to_json(),
            "diversity": {"sampled": self.sampled, "distinct": self.distinct, "topics": self.topics},
        }


class Variety:
    """Counts distinct n-grams of the kept records, or of a sample of them that hangs on their ids alone."""

    def __init__(self, kept_ids: npt.NDArray[np.uint64]) -> None:
        # An id is a hash of the record, so the smallest ids are a sample without a preference.
        some = np.partition(kept_ids, SAMPLE)[:SAMPLE] if len(kept_ids) > SAMPLE else kept_ids
        self._sample = frozenset(some.tolist())
        self._texts: dict[str, list[str]] = {"questions": [], "answers": []}

    def see(self, line: Mapping[str, Any]) -> None:
        """Take note of a kept line of records.jsonl."""
        if int(line["id"], 16) in self._sample:
            self._texts["questions"].append(_last(line["prompt"], "user"))
            self._texts["answers"].append(_last(line["completion"], "assistant"))

    def distinct(self) -> tuple[int, dict[str, dict[str, float | None]]]:
        """Return how many records were counted, and distinct-n of their questions and answers."""
        found = {}
        for name, texts in self._texts.items():
            counter = DistinctCounter(_LENGTHS)
            counter.add(texts)
            values = {n: counter.distinct(n) for n in _LENGTHS}
            found[name] = {f"distinct_{n}": None if v is None else round(v, 4) for n, v in values.items()}
        return len(self._texts["questions"]), found


def topics_of(
    columns: Columns, kept: npt.NDArray[np.intp], meaning: Meaning | None, seed: int
) -> Mapping[str, Any] | None:
    """Return how the kept rows spread over topics, or None where there are no vectors."""
    if meaning is None:
        return None
    spread = topic_spread(meaning.vectors[columns.sketch[kept]], seed=seed)
    return None if spread is None else spread.to_json()


def _last(turns: list[dict[str, str]], role: str) -> str:
    return next((turn["content"] for turn in reversed(turns) if turn["role"] == role), "")
