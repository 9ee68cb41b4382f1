"""Merge: the runs of all shards → one run, as if one process had asked about every passage.

The shards' files are joined in the order of passages.jsonl, line by line, so memory grows with the number
of passages and not with their text. The merged run is built beside its place and renamed: it is whole or
not there.
"""

import contextlib
import errno
import heapq
import os
import shutil
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from synth.core.errors import RunError
from synth.core.jsonl import FileDigest, digest_file, read_lines, sync_folder, write_jsonl
from synth.core.record_file import read_records
from synth.core.records import Record
from synth.core.runs import Run, StageEntry
from synth.filtering.config import FilterConfig
from synth.filtering.plan import Plan
from synth.generate import STAGE, GenerateSummary
from synth.generation.ids import DistinctIds, as_made
from synth.generation.passages import PassageFile
from synth.generation.shards import Shard, shard_of

# What may differ from shard to shard: they decide how far a shard comes, not what it writes.
_OWN = ("shard", "max_calls", "max_tokens_total", "max_cost", "price", "deadline")
# Every shard reads all documents, so these are counted once.
_ONCE = ("documents", "documents_quarantined", "passages", "passages_duplicate")


@dataclass(frozen=True, slots=True)
class _Part:
    """One shard: its run, its entry in run.json, and which shard it is."""

    run: Run
    entry: StageEntry
    shard: Shard

    @property
    def where(self) -> str:
        return f"shard {self.shard} ({self.run.path})"


def merge_runs(shards: Sequence[Run], out: Path, *, allow_partial: bool = False) -> GenerateSummary:
    """Join the runs of all shards into a new run at `out`, ready for `run_filter`.

    With the same replies its records.jsonl and quarantine.jsonl are byte for byte those of a run without
    shards; where a generator writes records about other passages than the one that it was asked about, they
    are the same records and their order may differ. What a filter wrote into a shard is left out: twins show
    only now. The journals are joined as well, so the merged run can go on as one. The shards are locked
    meanwhile. `seconds` of the entry are those of all shards together.

    Args:
        shards: the runs, in any order.
        out: the folder of the new run; one that was merged from the same shards is left as it is.
        allow_partial: take shards that a cap ended early, and calls that got no answer.

    Raises:
        RunError: a shard is missing, doubled, unfinished, changed, or made with other settings, documents
            or code, or another process is writing it; or `out` holds something else. Nothing is written.
    """
    with contextlib.ExitStack() as locks:
        for path in sorted({run.path.resolve() for run in shards}):
            # Who may only read a shard makes no lock file in it; who writes it has one that cannot be waited for.
            if os.access(path, os.W_OK):
                locks.enter_context(Run(path).lock())
        return _merged(shards, out, allow_partial=allow_partial)


def _merged(shards: Sequence[Run], out: Path, *, allow_partial: bool) -> GenerateSummary:
    parts = _parts(shards, out)
    for part in parts:
        _check_complete(part, allow_partial)
    digests = {part.shard.index: _check_files(part) for part in parts}
    entry = _entry(parts, digests)
    if not entry.counts["records"]:
        raise RunError("no shard gave a record", where=parts[0].where, fix="read the quarantine.jsonl of the shards")
    if out.exists() and any(out.iterdir()):
        _check_same(Run.open(out), entry, parts)
        return _summary(entry, current=True)
    # A fixed name, so that what a killed merge left behind is found and replaced.
    with _building(out.parent / f".{out.name}.merging", out) as run:
        _link_or_copy(parts[0].run.passages_path, run.passages_path)
        _join_journals(parts, run)
        places = _Places(run.passages_path, len(parts))
        try:
            quarantine = write_jsonl(run.quarantine_path, _quarantine(parts, places))
            records = write_jsonl(run.records_path, _records(parts, places))
        finally:
            places.close()
        for name, rows in (("records", records.rows), ("quarantined", quarantine.rows)):
            if rows != entry.counts[name]:
                raise RunError(
                    f"the shards have {rows} lines where their counts of {name} say {entry.counts[name]}",
                    where=parts[0].where,
                    fix="a shard was written meanwhile; wait for it and merge again",
                )
        outputs = {**entry.outputs, run.quarantine_path.name: quarantine}
        run.finish_stage(STAGE, replace(entry, outputs=outputs))
    return _summary(entry)


def _parts(shards: Sequence[Run], out: Path) -> list[_Part]:
    """Return the shards in order, all there and all alike."""
    if not shards:
        raise RunError("no shard is named", fix="name the runs of all shards")
    parts = [_part(run) for run in shards]
    first = parts[0]
    for part in parts:
        if part.run.path.resolve() == out.resolve():
            raise RunError("the merged run cannot take the place of a shard", where=part.where, fix="name a new folder")
        if part.shard.count != first.shard.count:
            raise RunError(
                f"is one of {part.shard.count} shards, and {first.where} one of {first.shard.count}",
                where=part.where,
                fix="merge the shards of one job",
            )
    found: dict[int, _Part] = {}
    for part in parts:
        twin = found.setdefault(part.shard.index, part)
        if twin is not part:
            raise RunError(f"is there twice, also as {twin.run.path}", where=part.where, fix="leave one of them out")
    count = first.shard.count
    missing = [str(Shard(index, count)) for index in range(count) if index not in found]
    if missing:
        raise RunError(
            f"{len(missing)} of {count} shards are missing: {_few(missing)}",
            where=str(first.run.path.parent),
            fix=f"run `synth generate … --shard {missing[0]}` and name its run too",
        )
    ordered = [found[index] for index in range(count)]
    for part in ordered:
        _check_alike(part, ordered[0])
    return ordered


def _part(run: Run) -> _Part:
    entry = run.stages().get(STAGE)
    if entry is None:
        raise RunError(
            "the shard is not finished",
            where=str(run.path),
            fix="run its `synth generate` command again: answered calls are not repeated",
        )
    text = entry.config.get("shard")
    if text is None:
        raise RunError("this run is no shard", where=str(run.path), fix="merge runs made with `--shard I/N`")
    return _Part(run, entry, Shard.parse(text))


def _check_alike(part: _Part, first: _Part) -> None:
    settings, others = part.entry.config, first.entry.config
    for name in sorted({*settings, *others} - {*_OWN}):
        if settings.get(name) != others.get(name):
            raise RunError(
                f"{name} is {settings.get(name)!r}, and {others.get(name)!r} in {first.where}",
                where=part.where,
                fix="make all shards with the same settings",
            )
    inputs, given = part.entry.inputs, first.entry.inputs
    for name in sorted({*inputs, *given}):
        if name.partition(":")[0] == "heldout":  # nothing is made from it
            continue
        if inputs.get(name) != given.get(name):
            what = "the documents" if name == "documents" else name
            raise RunError(
                f"{what} differ from those of {first.where}",
                where=part.where,
                fix="make all shards from the same documents, files and code",
            )
    if part.entry.outputs["passages.jsonl"] != first.entry.outputs["passages.jsonl"]:
        raise RunError(
            f"passages.jsonl differs from that of {first.where}",
            where=part.where,
            fix="make all shards with the same version of synth-tune and of semantic-text-splitter",
        )


def _check_complete(part: _Part, allow_partial: bool) -> None:
    left, failed = part.entry.counts["units_left"], part.entry.counts["calls_failed"]
    if allow_partial or not (left or failed):
        return
    what = f"a cap left {left} units of work" if left else f"{failed} calls got no answer"
    raise RunError(
        what,
        where=part.where,
        fix=f"run its command again{' with a higher cap' if left else ''}, or merge what there is with --allow-partial",
    )


def _check_files(part: _Part) -> FileDigest:
    """Return the digest of records.jsonl, after the shard's files were found as its stage left them."""
    run, entry = part.run, part.entry
    checked = [run.quarantine_path, *([run.passages_path] if part.shard.index == 0 else [])]
    for path in checked:
        if digest_file(path) != entry.outputs[path.name]:
            raise _changed(part, path)
    # The filter writes decisions into records.jsonl, so only the number of its lines is known.
    digest = digest_file(run.records_path)
    if digest.rows != entry.counts["records"]:
        raise _changed(part, run.records_path)
    return digest


def _changed(part: _Part, path: Path) -> RunError:
    return RunError(
        f"{path.name} was changed since the shard finished",
        where=part.where,
        fix="run its `synth generate` command again: answered calls come from the journal",
    )


def _entry(parts: Sequence[_Part], digests: Mapping[int, FileDigest]) -> StageEntry:
    first = parts[0].entry
    counts = {name: sum(part.entry.counts[name] for part in parts) for name in first.counts}
    for name in _ONCE:
        counts[name] = first.counts[name]
    # The lines of documents stand in every shard's quarantine.jsonl, and once in the merged one.
    counts["quarantined"] -= (len(parts) - 1) * first.counts["documents_quarantined"]
    return StageEntry(
        config={**first.config, **{name: None for name in _OWN if name != "price"}},
        inputs={**_shared(parts), **{f"shard:{part.shard}": digests[part.shard.index] for part in parts}},
        outputs={"passages.jsonl": first.outputs["passages.jsonl"]},
        counts=counts,
        packages=_versions(parts),
        usage={name: sum(part.entry.usage[name] for part in parts) for name in first.usage},
        seconds=sum(part.entry.seconds for part in parts),
    )


def _shared(parts: Sequence[_Part]) -> dict[str, FileDigest]:
    """Return the inputs of every shard: a held-out set was sealed where all of them name it."""
    inputs = [part.entry.inputs for part in parts]
    return {name: digest for name, digest in inputs[0].items() if all(one.get(name) == digest for one in inputs)}


def _versions(parts: Sequence[_Part]) -> dict[str, str]:
    """Return the versions of the packages that made the shards: all of them where they differ."""
    found: dict[str, dict[str, None]] = {}
    for part in parts:
        for name, version in part.entry.packages.items():
            found.setdefault(name, {})[version] = None
    return {name: " and ".join(sorted(versions)) for name, versions in found.items()}


def _check_same(run: Run, entry: StageEntry, parts: Sequence[_Part]) -> None:
    """Raise unless `run` was merged from the same shards and nothing changed its files."""
    made = run.is_current(STAGE, entry.config, entry.inputs)
    if made and digest_file(run.records_path).rows == entry.counts["records"]:
        return
    raise RunError(
        "there is a run here already, of other things than these shards or changed since",
        where=str(run.path),
        fix=f"name a new folder with --run, or delete this one and merge the {len(parts)} shards again",
    )


@contextlib.contextmanager
def _building(folder: Path, out: Path) -> Iterator[Run]:
    """Give an empty run in `folder` that becomes `out` when the block ends well, and is gone otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(folder)
    with run.lock():
        try:
            for path in folder.iterdir():
                if path.name != ".lock":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            yield Run.create(folder)
            folder.rename(out)
        except OSError as error:
            raise RunError(
                f"cannot be written ({error.strerror or error})",
                where=str(out),
                fix="free some disk space or mend the permissions, then merge again",
            ) from error
        finally:
            if folder.exists():
                shutil.rmtree(folder, ignore_errors=True)
    sync_folder(out.parent)


def _join_journals(parts: Sequence[_Part], run: Run) -> None:
    """Give the shards' segments numbers of one journal; no byte of them is copied where a link can be made."""
    run.journal_path.mkdir()
    number = 0
    for part in parts:
        segments = [path for path in part.run.journal_path.glob("*.jsonl") if path.stem.isdecimal()]
        for segment in sorted(segments, key=lambda path: int(path.stem)):
            number += 1
            _link_or_copy(segment, run.journal_path / f"{number:06d}.jsonl")
    sync_folder(run.journal_path)


def _link_or_copy(source: Path, target: Path) -> None:
    # Sharing the bytes is safe: segments are only read once their process is gone, other files are replaced whole.
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno not in {errno.EXDEV, errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS}:
            raise
        shutil.copyfile(source, target)
        with target.open("rb") as file:
            os.fsync(file.fileno())


class _Places:
    """Where each passage stands in passages.jsonl, and in which shard it was asked about."""

    def __init__(self, path: Path, count: int) -> None:
        self._passages = PassageFile(path)
        self._index: dict[int, int] = {}
        self._owner = array("L", bytes(0))
        for index in range(len(self._passages)):
            passage = self._passages[index]
            self._index[int(passage.id, 16)] = index
            self._owner.append(shard_of(passage, count))

    def close(self) -> None:
        """Close passages.jsonl."""
        self._passages.__exit__(None, None, None)

    def in_order(self, rows: Iterator[Any], passage_of: Callable[[Any], str], shard: int) -> Iterator[tuple[int, Any]]:
        """Yield a shard's rows with the indices of the passages that they were asked about, which never fall.

        A record may be about another passage than the one that was asked about (a generator is free to write
        one). Of a passage of another shard, of an earlier one or of none, it stays with the record before it;
        of a later one of its own shard it counts as asked about that.
        """
        current = -1
        for row in rows:
            index = self._index_of(passage_of(row))
            if index > current and self._owner[index] == shard:
                current = index
            yield current, row

    def _index_of(self, passage_id: str) -> int:
        try:
            return self._index.get(int(passage_id, 16), -1)
        except ValueError:  # a generator's own name for something
            return -1


def _records(parts: Sequence[_Part], places: _Places) -> Iterator[dict[str, Any]]:
    plan, ids = Plan.of(FilterConfig()), DistinctIds()

    def made(part: _Part) -> Iterator[Record]:
        return as_made(plan.as_made(record) for record in read_records(part.run.records_path))

    streams = [places.in_order(made(part), lambda record: record.passage_id, part.shard.index) for part in parts]
    for _, record in heapq.merge(*streams, key=lambda pair: pair[0]):
        yield ids.own(record).to_json()


def _quarantine(parts: Sequence[_Part], places: _Places) -> Iterator[dict[str, Any]]:
    def rows(part: _Part) -> Iterator[dict[str, Any]]:
        return (row for _, row in read_lines(part.run.quarantine_path) if row["passage_id"] is not None)

    yield from (row for _, row in read_lines(parts[0].run.quarantine_path) if row["passage_id"] is None)
    streams = [places.in_order(rows(part), lambda row: row["passage_id"], part.shard.index) for part in parts]
    for _, row in heapq.merge(*streams, key=lambda pair: pair[0]):
        yield row


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _summary(entry: StageEntry, *, current: bool = False) -> GenerateSummary:
    return GenerateSummary(
        **entry.counts,
        **entry.usage,
        seconds=entry.seconds,
        cost=None,
        capped=None,
        damaged=(),
        current=current,
        wanting=False,
    )
