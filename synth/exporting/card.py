"""The dataset card: README.md as the hub reads it, with what a reader has to know before using the rows.

It holds numbers and names from run.json and the records: no text of a document, no path of this machine, no date,
so that the same run gives the same card.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import yaml

from synth.core.runs import StageEntry
from synth.exporting.formats import Layout, public_name
from synth.exporting.survey import QUANTILES, Survey

# The licences that the hub's card field names; any other is "other" with its own name beside it.
_LICENCE_NAMES = """
    apache-2.0 mit openrail bigscience-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause
    bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0
    cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
    cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0
    epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc intel-research
    lppl-1.3c ms-pl mpl-2.0 odc-by odbl postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr unknown other
"""
_LICENCES = frozenset(_LICENCE_NAMES.split())
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


@dataclass(frozen=True, slots=True)
class CardFacts:
    """All that the card is made from. `masked` counts rows with masked values, None where no mask was asked for."""

    title: str
    generate: StageEntry
    filter: StageEntry
    survey: Survey
    layout: Layout
    files: Mapping[str, Sequence[str]]
    licence: str | None = None
    language: Sequence[str] = ()
    masked: int | None = None
    repo: str | None = None


def dataset_card(facts: CardFacts) -> str:
    """Return README.md: YAML front matter, then the sections."""
    front = yaml.safe_dump(front_matter(facts), sort_keys=False, allow_unicode=True, width=1000)
    sections = (_summary, _made, _splits, _filtered, _scores, _leaks, _limits, _loading)
    return f"---\n{front}---\n\n" + "\n\n".join("\n".join(section(facts)) for section in sections) + "\n"


def front_matter(facts: CardFacts) -> dict[str, Any]:
    """Return the fields of the card that the hub reads."""
    count = facts.survey.rows.total()
    front: dict[str, Any] = {"pretty_name": facts.title, **licence_fields(facts.licence)}
    if facts.language:
        front["language"] = list(facts.language)
    front |= {
        "task_categories": ["question-answering", "text-generation"],
        "tags": ["synthetic", "synth-tune"],
        "size_categories": [next((name for bound, name in _SIZES if count < bound), "1M<n<10M")],
        # Copies, since YAML would write columns of one type as references, which `datasets` takes apart twice.
        "dataset_info": {"features": [{"name": n, **deepcopy(c)} for n, c in facts.layout.columns.items()]},
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": split, "path": _pattern(split, names)} for split, names in facts.files.items()
                ],
            }
        ],
    }
    return front


def _pattern(split: str, names: Sequence[str]) -> str:
    if len(names) == 1 and "-of-" not in names[0]:
        return names[0]
    folder, _, name = names[0].rpartition("/")
    return f"{folder}{'/' if folder else ''}{split}-*{name[name.rindex('.') :]}"


def licence_fields(licence: str | None) -> dict[str, str]:
    """Return the licence fields for an SPDX identifier, "unknown" where none was named."""
    if not licence:
        return {"license": "unknown"}
    spdx = licence.lower()
    for name in (spdx, spdx.removesuffix("-only").removesuffix("-or-later")):
        if name in _LICENCES:
            return {"license": name}
    return {"license": "other", "license_name": spdx}


def _summary(facts: CardFacts) -> list[str]:
    rows = facts.survey.rows
    shown = ", ".join(f"{count} {split}" for split, count in rows.items())
    return [
        f"# {facts.title}",
        "",
        f"{rows.total()} synthetic records ({shown}), written by a language model about a collection of documents "
        "and kept by a filter. Made with synth-tune; no person wrote or checked the single rows.",
        "",
        "| | |",
        "| --- | --- |",
        f"| teacher | {_teacher(facts)} |",
        f"| licence | {_code(facts.licence) if facts.licence else 'not stated: ask whoever published this'} |",
        f"| format | `{facts.layout.format.name}` |",
        f"| generators (rows) | {_counts(facts.survey.generators)} |",
        f"| kinds (rows) | {_counts(facts.survey.kinds)} |",
    ]


def _teacher(facts: CardFacts) -> str:
    named = public_name(str(facts.generate.config.get("teacher") or "")) or "not stated"
    revision = str(facts.generate.config.get("teacher_revision") or "")
    others = sorted(name for name in facts.survey.teachers if name not in (named, ""))
    text = f"{_code(named)}, revision {_code(revision) if revision else 'not known'}"
    return text + (f"; the records also name {', '.join(map(_code, others))}" if others else "")


def _made(facts: CardFacts) -> list[str]:
    counts, usage = facts.generate.counts, facts.generate.usage
    answered = counts.get("calls", 0) + counts.get("calls_replayed", 0)
    named = _word(public_name(str(facts.generate.config.get("teacher") or ""))) or "TEACHER"
    asked = facts.generate.config.get("generator") or ()
    generators = "".join(
        f" --generator {name}" for name in map(_word, [asked] if isinstance(asked, str) else asked) if ":" not in name
    )
    heldout = " --heldout FILE" if "heldout" in facts.filter.inputs else ""
    shown = f" --repo {facts.repo}" if facts.repo else ""
    lines = [
        "## How it was made",
        "",
        f"- documents read: {counts.get('documents', 'not counted')}, "
        f"in quarantine: {counts.get('documents_quarantined', 'not counted')}",
        f"- passages: {counts.get('passages', 'not counted')}, of which {len(facts.survey.passages)} have rows here",
        f"- calls answered by the teacher: {answered}, without answer: {counts.get('calls_failed', 0)}",
        f"- tokens read and written by the teacher: {usage.get('prompt_tokens', 'not counted')} and "
        f"{usage.get('completion_tokens', 'not counted')}",
        "",
        "```",
        f"synth generate DOCS --teacher {named}{generators} --run RUN",
        f"synth filter RUN{heldout}",
        f"synth export RUN --format {facts.layout.format.name}{shown}",
        "```",
    ]
    if facts.masked is not None:
        lines += [
            "",
            f"Personal data and secrets that a detector of patterns found are masked, in {facts.masked} rows.",
        ]
    return lines


def _splits(facts: CardFacts) -> list[str]:
    survey = facts.survey
    lines = ["## Splits", "", "| split | rows | documents |", "| --- | ---: | ---: |"]
    lines += [f"| {split} | {count} | {len(survey.documents[split])} |" for split, count in survey.rows.items()]
    if len(survey.rows) > 1:
        said = (
            "Splits are by document: no document has rows in both."
            if not survey.shared_documents
            else f"{survey.shared_documents} documents have rows in both splits."
        )
        lines += ["", said]
    return lines


def _filtered(facts: CardFacts) -> list[str]:
    counts = facts.filter.counts
    removed = [(name.partition(":")[2], count) for name, count in counts.items() if name.startswith("rejected:")]
    lines = [
        "## The filter",
        "",
        f"Of {counts.get('records', 'an unknown number of')} generated records "
        f"{counts.get('kept', 'an unknown number')} were kept. A record counts under the first reason against it:",
        "",
        "| removed by | records |",
        "| --- | ---: |",
        *(f"| {_code(name)} | {count} |" for name, count in removed),
        f"| kept | {counts.get('kept', '')} |",
    ]
    rules = facts.filter.config.get("rules") or ()
    if rules:
        lines += ["", "Rules in force (a record without the score passes):", ""]
        lines += [f"- {_code(str(rule))}" for rule in rules]
    return lines


def _scores(facts: CardFacts) -> list[str]:
    spread = facts.survey.spread()
    if not spread:
        return ["## Scores", "", "The records carry no scores."]
    heads = [f"{share * 100:g} %" for share in QUANTILES]
    return [
        "## Scores of the kept records",
        "",
        f"| score | records with it | mean | {' | '.join(heads)} |",
        "| --- |" + " ---: |" * (2 + len(QUANTILES)),
        *(
            f"| {_code(name)} | {one.count} | {one.mean:.4f} | {' | '.join(f'{q:.4g}' for q in one.quantiles)} |"
            for name, one in spread.items()
        ),
    ]


def _leaks(facts: CardFacts) -> list[str]:
    entry = facts.filter
    heldout = [digest for name, digest in entry.inputs.items() if name.partition(":")[0] == "heldout"]
    lines = ["## Decontamination", ""]
    if not heldout:
        return [*lines, "Not checked: the filter was given no held-out file. Test questions may be among the rows."]
    files = ", ".join(f"`{one.sha256}`" for one in heldout)
    said = (
        f"Checked against {sum(one.rows for one in heldout)} held-out questions "
        f"(SHA-256 of {'their file' if len(heldout) == 1 else 'their files'} {files}): "
        f"{facts.survey.contaminated} of the generated records matched one and were removed; "
    )
    if entry.config.get("embedder") is None:
        said += (
            "the rows here are those without a match in the same words. Questions in other words were not looked for."
        )
    elif entry.config.get("reworded") == "report":
        said += "questions in other words were looked for and counted, and their rows are here."
    else:
        said += "the rows here are those without a match, in the same words or, as embeddings tell it, in others."
    return [*lines, said]


def _limits(facts: CardFacts) -> list[str]:
    shape = facts.survey.shape
    lines = [
        "## Limits",
        "",
        "- The rows are synthetic. A model wrote questions and answers; some are wrong in ways that the filter cannot "
        "see.",
        "- The scores compare a row with the passage that the teacher read. Whether the passage itself is true was "
        "not checked.",
        "- The documents are a choice that someone made; the rows say no more than they do, and share their bias.",
        "- The terms of the documents and of the teacher apply to the rows. "
        + ("" if facts.licence else "No licence was stated."),
    ]
    if facts.masked is None:
        lines.append(
            "- No search for personal data was made by this export; where the filter made one, a rule above says so."
        )
    if facts.layout.format.name == "alpaca" and shape.history:
        lines.append(
            f"- {facts.survey.with_history} rows are the last turn of a conversation whose earlier turns are in the "
            "column `history`; a reader that ignores the column sees questions without them."
        )
    return [line.rstrip() for line in lines]


def _loading(facts: CardFacts) -> list[str]:
    return [
        "## How to load it",
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        f'dataset = load_dataset("{facts.repo or "FOLDER"}")',
        "```",
        "",
        f"Columns: {', '.join(f'`{name}`' for name in facts.layout.columns)}.",
    ]


def _counts(counter: Mapping[str, int]) -> str:
    ranked = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{_code(name)} {count}" for name, count in ranked) or "none"


def _word(text: str) -> str:
    """Return the text without what would end a line or a block of code."""
    return "".join(c for c in text if c.isprintable() and c != "`")


def _code(text: str) -> str:
    """Return the text as code on one line, so that no name can end a table or begin a section."""
    return "`" + " ".join(text.replace("`", "'").replace("|", "/").split()) + "`"
