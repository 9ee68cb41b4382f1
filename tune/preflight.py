"""What has to be true before a step is trained.

`examine` renders every row once and looks for everything that would make a training teach something else than the user
meant, and says all of it at once. `prove` (tune/proof.py) then shows on TRL's own batches that those very rows are
trained on.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from synth.core.errors import ConfigError
from synth.core.heldout import HeldoutSet
from tune.checks import (
    Stops,
    answers_written,
    conversations,
    heldout_apart,
    labelled,
    padding,
    sides_apart,
    specials_in_text,
    template_named,
    vocabulary,
    written,
)
from tune.config import TuneConfig
from tune.findings import NAMED, Check, Overlong, Preflight, Totals, listed
from tune.proof import Proof, prove
from tune.rendering import Fault, one_answer_each, render
from tune.rows import IGNORED, Dataset, Rendered
from tune.student import Student

__all__ = ["Check", "Overlong", "Preflight", "Proof", "Totals", "examine", "prove"]

_ROWS_AT_ONCE = 64


def examine(dataset: Dataset, student: Student, config: TuneConfig, *, heldout: HeldoutSet | None = None) -> Preflight:
    """Render every row with the student's template, and look for everything that would teach it something else.

    It never stops at the first fault: `raise_if_faulty` of what it returns names them all.

    Args:
        dataset: the rows; variants of questions are rows like others.
        student: whose template and tokens count.
        config: `max_length`, `on_overflow` and `chat_template` of it.
        heldout: the sealed set that no row may hold.

    Raises:
        ConfigError: `max_length` is more than the student reads.
    """
    limit = config.max_length or student.context
    if student.context is not None and limit is not None and limit > student.context:
        raise ConfigError(
            f"{student.name} reads {student.context} tokens, not {limit}",
            where="--max-length",
            fix="lower it, or take a student with a longer context",
        )
    faults: list[Fault] = []
    parted: dict[str, int] = {}
    rendered: dict[str, list[Rendered]] = {}
    sides = {"train": dataset.train, "validation": dataset.validation}
    for name, rows in sides.items():
        done = list(_apart(render(rows, student.tokenizer), student, parted))
        rendered[name] = [one for one in done if isinstance(one, Rendered)]
        faults += [one for one in done if isinstance(one, Fault)]
    measured = _Measured.against(limit, rendered, config.on_overflow)
    every = (*measured.kept["train"], *measured.kept["validation"])
    all_rows = (*dataset.train, *dataset.validation)
    stops = Stops.of(every, student)
    stop_id = stops.ends.most_common(1)[0][0] if stops.ends else int(student.tokenizer.eos_token_id)
    found = (
        template_named(student, asked=config.chat_template == "plain"),
        *written(faults, len(all_rows)),
        *conversations(parted),
        answers_written(all_rows),
        *measured.checks(config, rows=len(dataset.train), refused=len(faults)),
        labelled(every),
        *stops.checks(student, cut=len(measured.cut)),
        specials_in_text(all_rows, student.tokenizer),
        padding(student),
        vocabulary(student, every),
        *sides_apart(dataset),
        *(heldout_apart(dataset, heldout) if heldout is not None else ()),
    )
    return Preflight(
        checks=found,
        train=tuple(measured.kept["train"]),
        validation=tuple(measured.kept["validation"]),
        dropped=tuple(measured.dropped),
        cut=tuple(measured.cut),
        totals={name: Totals.of(rows) for name, rows in measured.kept.items()},
        max_length=limit,
        stop_token=student.tokenizer.convert_ids_to_tokens(stop_id),
        stop_id=stop_id,
    )


def _apart(done: Sequence[Rendered | Fault], student: Student, parted: dict[str, int]) -> Iterator[Rendered | Fault]:
    """Yield the rows, and for conversations that the template cannot write in one, a row for each of their answers.

    `parted` gets how many rows each of them became.
    """
    wanted = {
        number: rows
        for number, one in enumerate(done)
        if isinstance(one, Fault) and one.kind == "prefix" and len(rows := one_answer_each(one.row)) > 1
    }
    # All in one call: it tokenizes many rows together.
    made = iter(render([row for rows in wanted.values() for row in rows], student.tokenizer))
    for number, one in enumerate(done):
        rows = wanted.get(number, ())
        if rows:
            parted[one.row.id] = len(rows)
            yield from islice(made, len(rows))
        else:
            yield one


@dataclass(slots=True)
class _Measured:
    """The rows against the longest length allowed: kept, cut or left out. `over` are longer and nothing was done."""

    limit: int | None
    kept: dict[str, list[Rendered]] = field(default_factory=dict)
    over: list[Overlong] = field(default_factory=list)
    dropped: list[Overlong] = field(default_factory=list)
    cut: list[Overlong] = field(default_factory=list)

    @classmethod
    def against(cls, limit: int | None, rendered: Mapping[str, Sequence[Rendered]], on_overflow: str) -> "_Measured":
        found = cls(limit)
        for name, rows in rendered.items():
            kept = found.kept[name] = list[Rendered]()
            for row in rows:
                if limit is None or row.tokens <= limit:
                    kept.append(row)
                    continue
                longer = Overlong(row.row.id, name, row.tokens)
                if on_overflow == "error":
                    found.over.append(longer)
                    kept.append(row)
                elif on_overflow == "drop" or not any(label != IGNORED for label in row.labels[:limit]):
                    found.dropped.append(longer)
                else:
                    found.cut.append(longer)
                    kept.append(_cut(row, limit))
        return found

    def checks(self, config: TuneConfig, *, rows: int, refused: int) -> Iterator[Check]:
        limit, name = self.limit, "length"
        if limit is None:
            said = "the student names no context length, so no row counts as too long: set --max-length"
            yield Check(name, "note", said)
        elif self.over:
            named = [f"{row.id} ({row.tokens} tokens)" for row in self.over]
            yield Check(
                name,
                "error",
                f"longer than {limit} tokens: {listed(named)}",
                rows=len(self.over),
                ids=tuple(row.id for row in self.over[:NAMED]),
                fix="raise --max-length, take a student with a longer context, leave them out with --on-overflow drop, "
                "or cut off their ends with --on-overflow truncate",
            )
        elif self.dropped or self.cut:
            dropped = f"left out: {len(self.dropped)}"
            if config.on_overflow == "truncate":
                dropped = f"cut: {len(self.cut)}, left out since no answer was left: {len(self.dropped)}"
            yield Check(
                name,
                "note",
                f"rows longer than {limit} tokens, {dropped}; training.json names them",
                rows=len(self.dropped) + len(self.cut),
                ids=tuple(row.id for row in (*self.dropped, *self.cut))[:NAMED],
            )
        else:
            longest = max((row.tokens for kept in self.kept.values() for row in kept), default=0)
            yield Check(name, "ok", f"the longest row has {longest} of {limit} tokens")
        if not self.kept["train"] and not refused:
            yield Check(
                "rows to train on",
                "error",
                f"all {rows} rows are longer than {limit} tokens" if rows else "there is no row to train on",
                rows=rows,
                fix="raise --max-length or take a student with a longer context" if rows else "name rows to train on",
            )


def _cut(row: Rendered, limit: int) -> Rendered:
    """Return the row's first tokens, as TRL cuts with `truncation_mode="keep_start"`."""
    return replace(row, ids=row.ids[:limit], labels=row.labels[:limit], cut=row.tokens - limit)
