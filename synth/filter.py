"""The filter stage: records in, scores, decisions and the dataset out. No model is called.

A record is judged by rules over its scores, then against the held-out set, then against its twins, and
what is left may be more than was asked for. Every reason is written beside its record; nothing is edited
and nothing is dropped, so running again with other rules costs no teacher call.
"""

import hashlib
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from synth.core.errors import RunError
from synth.core.fingerprint import canonical_json
from synth.core.heldout import HeldoutSet, load_heldout
from synth.core.jsonl import FileDigest, write_jsonl
from synth.core.record_file import read_records
from synth.core.records import Decision, Record
from synth.core.runs import Run, StageEntry
from synth.filters.answer_type import ANSWER_TYPE
from synth.filters.base import Rule, Scorer, check_names, failed_reasons, score_records
from synth.filters.decontamination import HeldoutIndex
from synth.filters.dedup import find_duplicates
from synth.filters.form import FormLimits, form_scorer
from synth.filters.groundedness import EVIDENCE, FACTS, GROUNDEDNESS, RELEVANCE
from synth.filters.negation import NEGATION
from synth.filters.question_fit import QUESTION_FIT
from synth.filters.selection import find_surplus, validation_documents
from synth.filters.span_use import SPAN_USE

# Raise it when a scorer changes its mind about the same text, so that no old decision passes for current.
FILTER_VERSION = 2

# Scores that generators give: the teacher's mean token probability (None where the endpoint does not say it).
GENERATED = frozenset({"confidence"})

PRESETS: Mapping[str, tuple[str, ...]] = {
    "general": (
        "form >= 1",
        "evidence >= 1",
        "groundedness >= 0.6",
        "facts >= 1",
        "negation >= 1",
        "relevance >= 0.3",
        "answer_type >= 1",
    ),
    "extractive": (
        "form >= 1",
        "evidence >= 1",
        "groundedness >= 1",
        "facts >= 1",
        "negation >= 1",
        "relevance >= 0.9",
        "answer_type >= 1",
        "question_fit >= 1",
        "span_use >= 1",
    ),
}


class FilterConfig(BaseModel):
    """What the filter keeps."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    preset: Literal["general", "extractive"] = "general"
    """The rules to start from: "general" for a teacher that writes in its own words, "extractive" for a very small
    one, whose pairs are right mostly where they copy."""

    rule: tuple[str, ...] = ()
    """A rule such as "groundedness >= 0.8"; it takes the place of the preset's rule on that score, if there is one.
    A record without the score passes."""

    min_question_words: int = Field(default=3, ge=0)
    """The least number of words of a question."""

    max_question_words: int = Field(default=60, ge=1)
    """The greatest number of words of a question."""

    max_answer_words: int = Field(default=300, ge=1)
    """The greatest number of words of an answer."""

    near_duplicate: float = Field(default=0.7, gt=0)
    """The Jaccard similarity (words and word pairs of question and answer) from which two pairs are near
    duplicates; a number above 1 lets all near duplicates be."""

    max_per_passage: int | None = Field(default=None, ge=1)
    """Keep at most this many records of one passage, the best scored; none sets no bound."""

    num_records: int | None = Field(default=None, ge=1)
    """Keep at most this many records in all, spread over the documents; none keeps all that are accepted."""

    validation_share: float = Field(default=0.2, ge=0, le=0.9)
    """The share of the kept records, by whole documents, that goes to dataset/validation.jsonl."""

    seed: int = 0
    """Decides which documents validate and, where records are spread, which document is first."""

    def rules(self) -> tuple[Rule, ...]:
        """Return the rules in force: the preset's, those on scores that `rule` names replaced, and the rest of `rule`.

        Raises:
            ConfigError: a text is no rule.
        """
        given = tuple(Rule.parse(text) for text in self.rule)
        rules = {rule.score: [rule] for rule in map(Rule.parse, PRESETS[self.preset])}
        rules.update({rule.score: [other for other in given if other.score == rule.score] for rule in given})
        return tuple(rule for same in rules.values() for rule in same)


def scorers_of(config: FilterConfig) -> tuple[Scorer, ...]:
    """Return the scorers of this package in the order of the funnel."""
    limits = FormLimits(config.min_question_words, config.max_question_words, config.max_answer_words)
    return (
        form_scorer(limits),
        EVIDENCE,
        GROUNDEDNESS,
        FACTS,
        NEGATION,
        RELEVANCE,
        ANSWER_TYPE,
        QUESTION_FIT,
        SPAN_USE,
    )


def decide(
    records: Sequence[Record],
    config: FilterConfig,
    heldout: HeldoutSet | None = None,
    *,
    scorers: Sequence[Scorer] = (),
) -> list[Record]:
    """Return the records, in order, with the scores that a rule names and a decision; the order decides nothing.

    Args:
        records: from records.jsonl; decisions they have are forgotten.
        config: the rules and the bounds.
        heldout: the questions that no pair may ask, or None.
        scorers: more scorers, for rules that name them.

    Raises:
        ConfigError: a rule cannot be read or names an unknown score.
    """
    used = (*scorers_of(config), *scorers)
    known = {s.name: s for s in used}
    rules = check_names(config.rules(), {*known, *GENERATED, *(name for r in records for name in r.scores)})
    wanted = {rule.score for rule in rules}
    scored = score_records(records, [scorer for scorer in used if scorer.name in wanted])
    reasons = [failed_reasons(record, rules, known) for record in scored]
    if heldout is not None:
        index = HeldoutIndex(heldout.items)
        for record, found in zip(scored, reasons, strict=True):
            if (match := index.find(record)) is not None:
                found.append(f"contaminated:{match}")

    def quality(record: Record) -> float:
        return _quality(record, rules)

    passing = [i for i, found in enumerate(reasons) if not found]
    twins = find_duplicates([scored[i] for i in passing], quality, config.near_duplicate)
    for place, twin in twins.items():
        reasons[passing[place]].append(f"duplicate:{twin}")
    passing = [i for i, found in enumerate(reasons) if not found]
    surplus = find_surplus(
        [scored[i] for i in passing],
        quality,
        num_records=config.num_records,
        max_per_passage=config.max_per_passage,
        seed=config.seed,
    )
    for place in surplus:
        reasons[passing[place]].append("surplus")
    return [record.decided(Decision(not found, tuple(found))) for record, found in zip(scored, reasons, strict=True)]


def _quality(record: Record, rules: Sequence[Rule]) -> float:
    """Return the mean of the scores that a rule wants high; 0 where there is none."""
    wanted = {rule.score for rule in rules if rule.relation.startswith(">")}
    values = [value for name, value in record.scores.items() if name in wanted and value is not None]
    return round(sum(values) / len(values), 4) if values else 0.0


def family(reason: str) -> str:
    """Return what a reason counts under: without the numbers, the ids and the quoted words.

    `form:markup` and `duplicate:near` stay apart; `groundedness:0.4, not >= 0.6` is `groundedness`.
    """
    head, _, rest = reason.partition(":")
    match = re.match(r"[a-z_]+(?= of [0-9a-f]{16}$)|[a-z_]+$", rest)
    named = match and head in {"form", "duplicate", "negation", "question_fit", "span_use"}
    return f"{head}:{match[0]}" if match and named else head


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
    def of(cls, records: Sequence[Record], config: FilterConfig, *, train: int, validation: int) -> Self:
        """Count the decisions of `records`."""
        decisions = [r.decision for r in records if r.decision is not None]
        first = Counter(d.reasons[0].partition(":")[0] for d in decisions if not d.keep)
        steps = dict.fromkeys(rule.score for rule in config.rules())
        order = [*steps, "contaminated", "duplicate", "surplus"]
        ranked = sorted(first, key=lambda name: (order.index(name) if name in order else len(order), name))
        every = Counter(family(reason) for d in decisions for reason in d.reasons)
        return cls(
            kept=sum(d.keep for d in decisions),
            rejected=sum(not d.keep for d in decisions),
            train=train,
            validation=validation,
            funnel=tuple((name, first[name]) for name in ranked),
            by_reason=dict(sorted(every.items(), key=lambda item: (-item[1], item[0]))),
        )


def run_filter(run: Run, config: FilterConfig, heldout_path: Path | None = None) -> FilterSummary:
    """Decide on a run's records and write records.jsonl, the dataset and the stage's entry.

    A stage that is current is left as it is. The run is locked meanwhile.

    Args:
        run: a run whose stage "generate" is finished.
        config: the rules and the bounds.
        heldout_path: the held-out set that the dataset must not leak; its text goes into no file.

    Raises:
        ConfigError: a rule is wrong.
        RecordError: a line of records.jsonl or of the held-out file is wrong; the error names it.
        RunError: the run is locked, there is nothing to filter, or no record was kept; then the decisions
            stand in records.jsonl and there is no dataset.
    """
    with run.lock():
        return _filtered(run, config, heldout_path)


def _filtered(run: Run, config: FilterConfig, heldout_path: Path | None) -> FilterSummary:
    started = time.monotonic()
    run.stage("generate", made_by=f"synth generate DOCS --run {run.path}")
    heldout = None if heldout_path is None else load_heldout(heldout_path)
    records = list(read_records(run.records_path))
    if not records:
        raise RunError("there is no record to filter", where=str(run.records_path), fix="quarantine.jsonl says why")
    own = own_scores(config)
    inputs = {"records.jsonl": records_digest(records, own)}
    if heldout is not None:
        inputs["heldout"] = heldout.digest
    settings = {
        "filter_version": FILTER_VERSION,
        **config.model_dump(mode="json"),
        "rules": [str(rule) for rule in config.rules()],
    }
    if run.is_current("filter", settings, inputs):
        counts = run.stages()["filter"].counts
        return FilterSummary.of(records, config, train=counts["train"], validation=counts["validation"])

    decided = decide([undecided(record, own) for record in records], config, heldout)
    run.start_stage("filter")
    # An old dataset beside new decisions would pass for theirs if anything stopped the rest of this.
    run.train_path.unlink(missing_ok=True)
    run.validation_path.unlink(missing_ok=True)
    outputs = {"records.jsonl": write_jsonl(run.records_path, (r.to_json() for r in decided))}
    kept = [record for record in decided if record.decision is not None and record.decision.keep]
    if not kept:
        raise _nothing_kept(run, FilterSummary.of(decided, config, train=0, validation=0))
    chosen = validation_documents(Counter(record.document_id for record in kept), config.validation_share, config.seed)
    for path, validates in ((run.train_path, False), (run.validation_path, True)):
        rows = (_row(record) for record in kept if (record.document_id in chosen) == validates)
        outputs[path.relative_to(run.path).as_posix()] = write_jsonl(path, rows)
    summary = FilterSummary.of(
        decided,
        config,
        train=outputs["dataset/train.jsonl"].rows,
        validation=outputs["dataset/validation.jsonl"].rows,
    )
    run.finish_stage(
        "filter",
        StageEntry(
            config=settings,
            inputs=inputs,
            outputs=outputs,
            counts=_counts(summary),
            seconds=time.monotonic() - started,
        ),
    )
    return summary


def own_scores(config: FilterConfig) -> frozenset[str]:
    """Return the names of the scores that the filter itself gives."""
    return frozenset(scorer.name for scorer in scorers_of(config))


def undecided(record: Record, own: frozenset[str]) -> Record:
    """Return the record as it was before any filter: no decision, no score of a scorer named in `own`."""
    others = {name: value for name, value in record.scores.items() if name not in own}
    return replace(record, scores=others, decision=None)


def _row(record: Record) -> dict[str, Any]:
    """Return the dataset's row: TRL's conversational prompt and completion, and where it came from."""
    return {
        "prompt": [m.to_json() for m in record.prompt],
        "completion": [m.to_json() for m in record.completion],
        "id": record.id,
        "document_id": record.document_id,
    }


def _counts(summary: FilterSummary) -> dict[str, int]:
    return {
        "records": summary.total,
        "kept": summary.kept,
        "rejected": summary.rejected,
        "train": summary.train,
        "validation": summary.validation,
        **{f"rejected:{name}": count for name, count in summary.funnel},
    }


def _nothing_kept(run: Run, summary: FilterSummary) -> RunError:
    name, count = max(summary.funnel, key=lambda item: item[1])
    return RunError(
        f"none of {summary.total} records was kept; {name} removed most of them ({count})",
        where=str(run.path),
        fix="read the reasons in records.jsonl, then run `synth filter` with other rules",
    )


def records_digest(records: Sequence[Record], own: frozenset[str]) -> FileDigest:
    """Return the digest of records without their decisions and without the scores named in `own`.

    The filter writes into the file that it reads; this is the part that it does not write.
    """
    digest = hashlib.sha256()
    for record in records:
        digest.update(canonical_json(undecided(record, own).to_json()))
        digest.update(b"\n")
    return FileDigest(digest.hexdigest(), len(records))
