"""The verdict as Markdown, fit for a pull request: decision, tables, checks, causes, what to do, what was judged."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from tune.phrases import counted, percent
from tune.sheet import Sheet
from tune.table import Column, caption, effort, quality
from tune.verdict import Verdict
from tune.wording import metric_words, notes

_SIGNS = {True: "passed", False: "**failed**", None: "not looked at"}


def markdown(verdict: Verdict) -> str:
    """Return the verdict in Markdown; everything in it stands in verdict.json."""
    decision = "accept" if verdict.accepted else "reject"
    candidate = _plain(verdict.subject.get("candidate", "the candidate"))
    every = verdict.all.items != verdict.clean.items
    parts = [
        f"## {candidate}: {decision}",
        _plain(verdict.text),
        f"**Decided by** `{_code(verdict.decided_by)}`. **Next:** {_plain(verdict.next)}",
        *([f"### {counted(verdict.clean.items, 'clean item')}, which decide"] if every else []),
        _quality(verdict, verdict.clean),
        *([f"### All {counted(verdict.all.items, 'item')}", _quality(verdict, verdict.all)] if every else []),
        *([_effort(verdict.clean)] if verdict.clean.rows else []),
        "### Checks",
        _rows(
            ["check", "", "numbers"],
            [[f"`{_code(check.name)}`", _SIGNS[check.passed], check.said] for check in verdict.checks],
        ),
    ]
    if verdict.findings:
        causes = [f"{n}. **{f.cause}** ({f.certainty}): {f.said} {f.advice}" for n, f in enumerate(verdict.findings, 1)]
        parts += ["### Why", "\n".join(map(_plain, causes))]
    said = [*notes(verdict), *([verdict.reach.said] if verdict.reach and verdict.accepted else [])]
    if said:
        parts += ["### Also", _bullets(said)]
    if verdict.warnings:
        parts += ["### Doubts", _bullets(verdict.warnings)]
    parts += ["<details><summary>What was judged, and by which rule</summary>", _subject(verdict), "</details>"]
    return "\n\n".join(parts) + "\n"


def _quality(verdict: Verdict, sheet: Sheet) -> str:
    if not sheet.rows:
        return "No item is left."
    under = (
        f"Metrics in points of 100; the difference is {metric_words(verdict.metric, verdict.metrics)}, with a "
        f"{percent(verdict.rule.confidence)} interval clustered by document; p is corrected by Holm."
    )
    return f"{_columns(quality(verdict, sheet), sheet)}\n\n{under}"


def _effort(sheet: Sheet) -> str:
    load = caption(sheet)
    return "\n\n".join([_columns(effort(sheet), sheet), *([f"{load[0].upper()}{load[1:]}."] if load else [])])


def _columns(columns: Sequence[Column], sheet: Sheet) -> str:
    return _rows(
        [column.heading for column in columns], [[column.cell(row) for column in columns] for row in sheet.rows]
    )


def _subject(verdict: Verdict) -> str:
    facts = [f"{name}: {_told(value)}" for name, value in verdict.subject.items() if not isinstance(value, dict)]
    facts += [
        f"{name}, {part}: {_told(value)}"
        for name, held in verdict.subject.items()
        if isinstance(held, dict)
        for part, value in held.items()
    ]
    return "\n\n".join(filter(None, [_bullets(facts), _plain(verdict.rule.statement)]))


def _told(value: Any) -> str:  # noqa: ANN401  (anything of JSON)
    if isinstance(value, dict):
        return ", ".join(f"{name} {_told(held)}" for name, held in value.items())
    return ", ".join(map(_told, value)) if isinstance(value, list | tuple) else str(value)


def _rows(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heading, ["---", *["---:" if len(heading) > 3 else "---"] * (len(heading) - 1)], *rows]
    return "\n".join("| " + " | ".join(_plain(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {_plain(line)}" for line in lines)


def _plain(text: object) -> str:
    """Return one line without HTML: names of files and models are others' words, and may not make markup."""
    return re.sub(r"([\[\]])", r"\\\1", re.sub(r"\s+", " ", str(text))).replace("<", "&lt;").strip()


def _code(text: str) -> str:
    return text.replace("`", "'")
