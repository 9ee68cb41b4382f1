"""The ledger: what became of the records, counted so that it adds up."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from synth.core.records import Record
from synth.filters.base import Rule

# The steps after the rules, in their order.
LATE_STEPS = ("contaminated", "duplicate", "surplus")
_NAMED = frozenset(
    {"form", "language", "length", "duplicate", "surplus", "negation", "question_fit", "span_use", "pii"}
)


def step(reason: str) -> str:
    """Return the score or the step that a reason belongs to."""
    return reason.partition(":")[0]


def family(reason: str) -> str:
    """Return what a reason counts under: without the numbers, the ids and the quoted words.

    `form:markup` and `duplicate:near` stay apart; `groundedness:0.4, not >= 0.6` is `groundedness`.
    """
    head, _, rest = reason.partition(":")
    if head not in _NAMED:
        return head
    match = _FAMILY.match(rest)
    return f"{head}:{match[0]}" if match else head


_FAMILY = re.compile(r"[a-z_]+(?= of [0-9a-f]{16}(?:$| ))|[a-z_]+$")


@dataclass(frozen=True, slots=True)
class FilterSummary:
    """What became of the records.

    `funnel` counts each rejected record once, under the score or step that gave its first reason, in
    the order of the steps: total = kept + the sum of the funnel. `by_reason` counts every reason.
    """

    kept: int
    rejected: int
    train: int
    validation: int
    funnel: tuple[tuple[str, int], ...]
    by_reason: Mapping[str, int]

    @property
    def total(self) -> int:
        """The number of records, kept or not."""
        return self.kept + self.rejected

    @classmethod
    def of(cls, records: Sequence[Record], rules: Sequence[Rule], *, train: int = 0, validation: int = 0) -> Self:
        """Count the decisions of `records`."""
        ledger = Ledger()
        for record in records:
            if record.decision is not None:
                ledger.add(record.decision.reasons)
        return cls.counted(ledger, rules, train=train, validation=validation)

    @classmethod
    def counted(cls, ledger: "Ledger", rules: Sequence[Rule], *, train: int, validation: int) -> Self:
        """Sum up what a ledger counted."""
        order = [*dict.fromkeys(rule.score for rule in rules), *LATE_STEPS]
        first = ledger.first
        ranked = sorted(first, key=lambda name: (order.index(name) if name in order else len(order), name))
        return cls(
            kept=ledger.kept,
            rejected=first.total(),
            train=train,
            validation=validation,
            funnel=tuple((name, first[name]) for name in ranked),
            by_reason=dict(sorted(ledger.every.items(), key=lambda item: (-item[1], item[0]))),
        )

    def to_counts(self) -> dict[str, int]:
        """Return the counts as run.json has them."""
        return {
            "records": self.total,
            "kept": self.kept,
            "rejected": self.rejected,
            "train": self.train,
            "validation": self.validation,
            **{f"rejected:{name}": count for name, count in self.funnel},
            **{f"reason:{name}": count for name, count in self.by_reason.items()},
        }

    @classmethod
    def from_counts(cls, counts: Mapping[str, int]) -> Self:
        """Build the summary from what `to_counts` gave."""

        def under(prefix: str) -> list[tuple[str, int]]:
            return [(name.removeprefix(prefix), n) for name, n in counts.items() if name.startswith(prefix)]

        return cls(
            kept=counts["kept"],
            rejected=counts["rejected"],
            train=counts["train"],
            validation=counts["validation"],
            funnel=tuple(under("rejected:")),
            by_reason=dict(under("reason:")),
        )


class Counted(Protocol):
    """Rejected records by their first reason, by all reasons, and by each step that rejects them."""

    @property
    def first(self) -> Counter[str]:
        """One count a record."""
        ...

    @property
    def every(self) -> Counter[str]:
        """One count a reason, by family."""
        ...

    @property
    def failing(self) -> Counter[str]:
        """One count a record and step."""
        ...


class Ledger:
    """Counts decisions as they are made; itself something `Counted`."""

    def __init__(self) -> None:
        self.kept = 0
        self.first: Counter[str] = Counter()
        self.every: Counter[str] = Counter()
        self.failing: Counter[str] = Counter()

    def add(self, reasons: Sequence[str]) -> None:
        """Count one record: kept where there is no reason against it."""
        if not reasons:
            self.kept += 1
            return
        self.first[step(reasons[0])] += 1
        self.add_to_rejected(reasons)

    def add_to_rejected(self, reasons: Sequence[str], known: Collection[str] = ()) -> None:
        """Count more reasons against a record that is counted as rejected already, also under the steps `known`."""
        self.every.update(map(family, reasons))
        self.failing.update({step(reason) for reason in reasons}.difference(known))

    def take(self, counted: "Counted") -> None:
        """Add what another process has counted of rejected records."""
        self.first.update(counted.first)
        self.every.update(counted.every)
        self.failing.update(counted.failing)
