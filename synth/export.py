"""Export: the kept records of a run in the format of another tool, with a dataset card, or pushed to the hub.

The dataset of the filter is the truth for what is in and in which split; records.jsonl adds scores and where a row
came from. Both are streamed side by side. Nothing here changes the run's own files, and the same run gives the
same bytes again.
"""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from synth.core.errors import ConfigError, RunError
from synth.core.jsonl import digest_file, write_text
from synth.core.records import Message
from synth.core.runs import Run, StageEntry
from synth.exporting.card import CardFacts, dataset_card
from synth.exporting.files import ExportFolder, Write, load_pyarrow, shard_names, split_writer
from synth.exporting.formats import FORMATS, Layout
from synth.exporting.hub import check_hub, push
from synth.exporting.survey import SPLITS, Survey, joined, survey

__all__ = ["ExportConfig", "ExportSummary", "run_export"]

CARD = "README.md"


class ExportConfig(BaseModel):
    """What is exported, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    format: Literal["messages", "prompt-completion", "alpaca", "sharegpt", "parquet", "hub"]
    """"messages" and "prompt-completion" as TRL reads them, "alpaca" (instruction, input, output), "sharegpt"
    (conversations), "parquet" with typed columns, or "hub": the same pushed to the Hugging Face hub."""

    split: tuple[Literal["train", "validation"], ...] = ("train", "validation")
    """Which part of the dataset: "train" or "validation"; all unless told."""

    scores: bool | None = None
    """Add columns for the scores and for where a row came from (id, document_id, passage_id, kind, generator, teacher).
    Parquet and hub have them unless told otherwise, the other formats have not."""

    licence: str | None = Field(default=None, max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9 .+()-]*$")
    """The dataset's licence, as an SPDX identifier such as CC-BY-4.0; it goes on the card."""

    language: tuple[str, ...] | None = None
    """A language of the rows for the card, such as "en"; none is guessed."""

    title: str | None = Field(default=None, max_length=100, pattern=r"^[^\n\r`]+$")
    """The dataset's name on the card; the run's folder name unless told."""

    mask_pii: bool = False
    """Put <EMAIL>, <SECRET> and the like in place of personal data and secrets; needs the extra pii."""

    repo: str | None = None
    """With "hub": the dataset's name there, owner/name."""

    private: bool = False
    """With "hub": make the dataset private; one that is there and public is refused."""

    max_shard_mb: int = Field(default=500, ge=1)
    """The size in MB of text from which a split becomes several files."""

    @property
    def with_scores(self) -> bool:
        """Whether rows carry scores and origin."""
        return not FORMATS[self.format].lean if self.scores is None else self.scores


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What was written: rows by split, the files below `folder` (without the card), and the commit where one was made.

    `empty` are splits that were asked for and have no row, so no file; `with_history` counts alpaca rows whose
    earlier turns are in the column `history`; `masked` counts rows with masked values, None without the mask.
    """

    folder: Path
    format: str
    rows: Mapping[str, int]
    files: tuple[str, ...]
    empty: tuple[str, ...] = ()
    with_history: int = 0
    masked: int | None = None
    url: str | None = None
    card: str = field(default=CARD)


def run_export(run: Run, config: ExportConfig, out: Path | None = None) -> ExportSummary:
    """Write the dataset of a filtered run in another format, with a dataset card, whole files or none.

    Args:
        run: a run whose stage "filter" is finished and whose files are as it left them.
        config: the format and what goes with it.
        out: the folder; RUN/exports/<format> where it is None. Files in it that no export wrote are let be.

    Raises:
        ConfigError: what the format needs is missing (an extra, a token, the name of a repo).
        RunError: the filter is not finished, files changed, the dataset holds no such rows, turns cannot be said in
            the format, or the folder holds other files of these names. The files of the run are never changed.
    """
    form = FORMATS[config.format]
    if config.format == "hub":
        check_hub(config.repo)
    elif config.repo or config.private:
        raise ConfigError("only the format hub has a repo", where="--repo", fix="leave it out, or --format hub")
    if form.parquet:
        load_pyarrow()
    mask = _masker() if config.mask_pii else None
    with contextlib.ExitStack() as stack:
        # Who may only read the run makes no lock file in it.
        if os.access(run.path, os.W_OK):
            stack.enter_context(run.lock())
        return _exported(run, config, out or run.path / "exports" / config.format, mask)


def _exported(run: Run, config: ExportConfig, out: Path, mask: "Mask | None") -> ExportSummary:
    filtered = _checked(run)
    generated = run.stage("generate", made_by=f"synth generate DOCS --run {run.path}")
    # Without repeats, and in one order whatever order they were named in.
    splits = tuple(split for split in SPLITS if split in config.split)
    found = survey(run, Layout(FORMATS[config.format]), splits)
    if not found.rows:
        raise RunError(
            f"the dataset has no row in {' or '.join(splits)}",
            where=str(run.path),
            fix="leave --split out, or run `synth filter` with another --validation-share",
        )
    if found.unsaid:
        raise RunError(
            f"{found.unsaid} of {found.rows.total()} records have turns that {config.format} cannot say "
            f"(the first is {found.first_unsaid})",
            where=str(run.path),
            fix="take --format messages or sharegpt",
        )
    layout = Layout(
        FORMATS[config.format], found.shape, tuple(sorted(found.all_scores)) if config.with_scores else None
    )
    files: dict[str, tuple[str, ...]] = {
        split: shard_names(split, _shards(found, split, config), parquet=layout.format.parquet)
        for split in splits
        if found.rows[split]
    }
    names = [name for shards in files.values() for name in shards]
    folder = ExportFolder(out)
    folder.begin([*names, CARD])
    masked = _write(
        run, layout, found, {split: [out / name for name in shards] for split, shards in files.items()}, mask
    )
    title = config.title or (config.repo or run.path.resolve().name).rpartition("/")[2]
    card = dataset_card(
        CardFacts(
            " ".join(title.replace("`", "'").split()) or "dataset",
            generated,
            filtered,
            found,
            layout,
            files,
            licence=config.licence,
            language=config.language or (),
            masked=masked,
            repo=config.repo,
        )
    )
    write_text(out / CARD, card)
    folder.finish([*names, CARD])
    url = None
    if config.repo:
        url = push(out, [*names, CARD], config.repo, private=config.private, title=title)
    return ExportSummary(
        out,
        config.format,
        {split: found.rows[split] for split in files},
        tuple(names),
        empty=tuple(split for split in splits if split not in files),
        with_history=found.with_history if config.format == "alpaca" else 0,
        masked=masked,
        url=url,
    )


def _checked(run: Run) -> StageEntry:
    """Return the entry of the filter, after its files were found as it left them."""
    again = f"synth filter {run.path}"
    entry = run.stage("filter", made_by=again)
    for name, digest in entry.outputs.items():
        path = run.path / name
        if not path.is_file() or digest_file(path) != digest:
            raise RunError(
                "the file was changed since the filter finished" if path.is_file() else "the file is gone",
                where=str(path),
                fix=f"run `{again}` again: no call to a teacher is repeated",
            )
    return entry


def _shards(found: Survey, split: str, config: ExportConfig) -> int:
    needed = -(-found.text_bytes[split] // (config.max_shard_mb * 1_000_000))
    return max(1, min(needed, found.rows[split]))


Mask = Callable[[Sequence[Mapping[str, str]]], list[dict[str, str]]]


def _masker() -> Mask:
    from synth.filters.pii import mask_messages, pii_scorer

    pii_scorer()  # what the extra lacks is said before any work

    def mask(turns: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
        return [turn.to_json() for turn in mask_messages([Message.from_json(turn) for turn in turns])]

    return mask


def _write(
    run: Run, layout: Layout, found: Survey, paths: Mapping[str, Sequence[Path]], mask: Mask | None
) -> int | None:
    """Write all splits in one pass over the run and return how many rows the mask changed."""
    masked = 0
    with contextlib.ExitStack() as stack:
        writers: dict[str, Write] = {
            split: stack.enter_context(split_writer(shards, found.rows[split], layout))
            for split, shards in paths.items()
        }
        for split, row, record in joined(run):
            if split not in writers:
                continue
            if mask is not None:
                before: Mapping[str, Any] = row
                row = {**row, "prompt": mask(row["prompt"]), "completion": mask(row["completion"])}
                masked += any(row[name] != before[name] for name in ("prompt", "completion"))
            said = layout.row(row, record)
            assert said is not None, "the survey counted what cannot be said"
            writers[split](said)
    return None if mask is None else masked
