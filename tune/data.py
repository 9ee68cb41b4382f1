"""The rows that a student is trained and validated on: read, checked, split by document, mixed and put in order.

Nothing is empty, nothing of a run was edited behind the manifest's back, and no document stands on both sides of the
split.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from synth.core.errors import ConfigError, RecordError, RunError
from synth.core.jsonl import FileDigest, digest_file, read_lines
from synth.core.record_file import read_records
from synth.core.records import Message
from synth.core.runs import Run
from tune.config import TuneConfig
from tune.formats import prompt_key
from tune.mixing import (
    draw,
    fold_documents,
    ordered_by,
    replayed_rows,
    shares_of_rows,
    spread_into,
    subset,
    validating_documents,
)
from tune.rows import Dataset, Row
from tune.sources import Source, open_source, same_on_both_sides, with_unique_ids

__all__ = ["Dataset", "Row", "dataset_inputs", "open_dataset", "read_dataset"]

DEFAULT_VALIDATION_SHARE = 0.2
"""The share of the rows that validate where a source comes without a split, as `synth filter` has it."""

_NAMED = 5  # How many rows an error names before it only counts.


def open_dataset(run: Run, config: TuneConfig) -> Dataset:
    """Return the rows that these settings name, on their sides of the split and in their order.

    They are the run's own dataset, or the sources of `data` or `mix`. In this order: the split is taken over or made
    anew by document, the sources are mixed by their shares, the subset is drawn, replayed rows are added, and the
    rows are put in order. The validation rows of all sources are kept whole. The same files and settings give the
    same rows, byte for byte.

    Raises:
        ConfigError: a source is not there or cannot be loaded, or the settings do not fit its rows.
        RecordError: rows are wrong, stand on both sides, or lack the score they are to be ordered by.
        RunError: a run's filter is not finished, its files were changed, or there is no row to train on.
    """
    if config.folds is not None and config.fold is None:
        raise ConfigError("one dataset is of one fold", where="--folds", fix="set fold, one at a time")
    named, shares = _sources(run, config)
    general = () if config.replay is None else (_named(config.replay, "--replay", "replay:", training_only=True),)
    inputs = {name: digest for source in (*named, *general) for name, digest in source.inputs.items()}
    notes = [note for source in (*named, *general) for note in source.notes]
    unique, renamed = with_unique_ids((*named, *general))
    if renamed:
        notes.append(f"ids that stood before, renamed with # and a number: {renamed}")
    sources = _split(unique[: len(named)], config, notes)
    validation = tuple(row for source in sources for row in source.validation or ())
    train = _mixed(sources, shares, config.seed, notes)
    _refuse_shared_documents(train, validation, config)
    if config.subset is not None:
        whole, train = train, subset(train, config.subset, config.seed)
        notes.append(
            f"subset: {len(train)} of {len(whole)} training rows, {_documents(train)} of {_documents(whole)} documents"
        )
    replayed = _replayed(unique[-1], config, train, validation, notes) if general else ()
    if config.curriculum is not None:
        train = ordered_by(train, config.curriculum, config.seed)
        notes.append(f"order: by {config.curriculum.removeprefix('-')}, {_first_to_last(train, config.curriculum)}")
        # Replayed rows have no place in that order, and are to be met all the way.
        train = spread_into(train, replayed) if replayed else train
    else:
        train = (*train, *replayed)
    return Dataset(train, validation, inputs, ordered=config.curriculum is not None, notes=tuple(notes))


def _sources(run: Run, config: TuneConfig) -> tuple[tuple[Source, ...], tuple[float, ...] | None]:
    """Return what the settings name, and the wanted share of each where they have one."""
    scored = config.curriculum is not None
    if config.data is None and not config.mix:
        return (_of_run(run, "dataset", scored=scored),), None
    if config.data is not None:
        return (_named(config.data, "--data", "data:", scored=scored),), None
    parsed = [_weighed(spec) for spec in config.mix]
    weights = [weight for _, weight in parsed if weight is not None]
    if weights and len(weights) < len(parsed):
        without = next(spec for spec, weight in parsed if weight is None)
        raise ConfigError(
            f"some sources have a share and {without!r} has none", where="--mix", fix=f"write {without}=SHARE, or none"
        )
    shares = tuple(weight / sum(weights) for weight in weights) or None
    found = []
    for number, (spec, _) in enumerate(parsed):
        if any(_same(spec, other) for other, _ in parsed[:number]):
            raise ConfigError("the source is named twice, and no row is repeated", where=f"--mix {spec}")
        # The share decides the rows, so it stands where the fingerprint is made of.
        prefix = f"mix={shares[number]:.6g}:" if shares else "mix:"
        found.append((_named(spec, "--mix", prefix, scored=scored), prefix))
    # Neither the order on the command line nor the folders that the sources lie in may change the rows.
    order = sorted(range(len(found)), key=lambda k: (found[k][0].name, _digests(found[k][0])))
    return _with_unique_names([found[k] for k in order]), shares and tuple(shares[k] for k in order)


def _digests(source: Source) -> list[str]:
    return [source.inputs[name].sha256 for name in sorted(source.inputs)]


def _weighed(spec: str) -> tuple[str, float | None]:
    """Return the source and its weight of `SOURCE` or `SOURCE=WEIGHT`."""
    name, sign, text = spec.rpartition("=")
    if not sign or _path(spec, "--mix").exists():
        return spec, None
    try:
        weight = float(text)
    except ValueError:
        return spec, None
    if not name or not math.isfinite(weight) or weight <= 0:
        raise ConfigError("a share is a number above 0", where=f"--mix {spec}", fix="leave sources of share 0 out")
    return name, weight


def _same(spec: str, other: str) -> bool:
    first, second = (_path(one, "--mix") for one in (spec, other))
    return spec == other or (first.exists() and second.exists() and first.resolve() == second.resolve())


def _named(spec: str, flag: str, prefix: str, *, scored: bool = False, training_only: bool = False) -> Source:
    """Read a source by its name: a run, or what `open_source` knows."""
    path = _path(spec, flag)
    if not spec.startswith("hub:") and (path / "run.json").is_file():
        name = path.resolve().name
        source = _of_run(Run.open(path), name, scored=scored)
        source = replace(source, inputs={f"{name}/{key}": digest for key, digest in source.inputs.items()})
    else:
        source = open_source(spec, flag=flag, training_only=training_only)
    return replace(source, inputs={f"{prefix}{key}": digest for key, digest in source.inputs.items()})


def _path(spec: str, flag: str) -> Path:
    """Return a name as a path that can be looked at, whether it is there or not."""
    try:
        path = Path(spec).expanduser()
        path.exists()
    except (OSError, RuntimeError) as error:  # too long, not allowed, the home of nobody
        raise ConfigError(f"cannot be looked at ({error})", where=f"{flag} {spec[:200]}") from error
    return path


def _with_unique_names(named: Sequence[tuple[Source, str]]) -> tuple[Source, ...]:
    """Return the sources with `#2`, `#3` … after names that stood before; the prefix is that of their inputs."""
    made: list[Source] = []
    for number, (source, prefix) in enumerate(named):
        twins = sum(other.name == source.name for other, _ in named[:number])
        if not twins:
            made.append(source)
            continue
        name, start = f"{source.name}#{twins + 1}", len(prefix) + len(source.name)
        validation = source.validation
        made.append(
            replace(
                source,
                name=name,
                train=_from(source.train, name),
                validation=None if validation is None else _from(validation, name),
                inputs={f"{prefix}{name}{key[start:]}": digest for key, digest in source.inputs.items()},
            )
        )
    return tuple(made)


def _from(rows: Sequence[Row], source: str) -> tuple[Row, ...]:
    return tuple(row if row.source == source else replace(row, source=source) for row in rows)


def _of_run(run: Run, name: str, *, scored: bool) -> Source:
    dataset = read_dataset(run)
    train, validation, inputs = dataset.train, dataset.validation, dict(dataset.inputs)
    if scored:
        scores, inputs["records.jsonl"] = _scores(run, {row.id for row in (*train, *validation)})
        train, validation = (
            tuple(replace(row, scores=scores.get(row.id, {})) for row in side) for side in (train, validation)
        )
    return Source(name, _from(train, name), _from(validation, name), inputs)


def _scores(run: Run, wanted: set[str]) -> tuple[dict[str, dict[str, float | None]], FileDigest]:
    """Return the scores of these records, and the digest of the file that has them.

    Raises:
        RunError: records.jsonl is not there, or not the one that the filter wrote.
    """
    recorded = run.stage("filter", made_by=f"synth filter {run.path}").outputs.get(run.records_path.name)
    if recorded is None or not run.records_path.is_file() or digest_file(run.records_path) != recorded:
        raise RunError(
            "the file with the scores is missing or not the one that the filter wrote",
            where=str(run.records_path),
            fix=f"`synth filter {run.path}` writes it anew",
        )
    return {r.id: dict(r.scores) for r in read_records(run.records_path) if r.id in wanted}, recorded


def _split(sources: Sequence[Source], config: TuneConfig, notes: list[str]) -> tuple[Source, ...]:
    """Return the sources, each with both sides."""
    if config.folds is not None and config.fold is not None:
        rows = [row for source in sources for row in source.rows]
        part = fold_documents(rows, config.folds, config.seed)[config.fold - 1]
        notes.append(f"fold {config.fold} of {config.folds}: {_held(rows, part)} validate")
        return tuple(_cut(source, part) for source in sources)
    if config.validation_share is not None:
        rows = [row for source in sources for row in source.rows]
        part = validating_documents(rows, config.validation_share, config.seed)
        notes.append(f"split anew: {_held(rows, part)} validate")
        return tuple(_cut(source, part) for source in sources)
    for source in sources:
        faults = same_on_both_sides(source) if source.own_split else ""
        if faults:
            raise RecordError(
                f"{faults}, so the validation loss would flatter the student",
                where=source.name,
                fix="remove them from one side, or split anew with --validation-share 0.2",
            )
    whole = [source for source in sources if source.validation is None]
    # Together, so that what two files share goes to one side.
    rows = [row for source in whole for row in source.rows]
    part = validating_documents(rows, DEFAULT_VALIDATION_SHARE, config.seed)
    if whole:
        names = ", ".join(source.name for source in whole)
        notes.append(f"split, as {names} came without one: {_held(rows, part)} validate")
    return tuple(_cut(source, part) if source.validation is None else source for source in sources)


def _cut(source: Source, validating: frozenset[str]) -> Source:
    return replace(
        source,
        train=tuple(row for row in source.rows if row.document_id not in validating),
        validation=tuple(row for row in source.rows if row.document_id in validating),
    )


def _mixed(sources: Sequence[Source], shares: tuple[float, ...] | None, seed: int, notes: list[str]) -> tuple[Row, ...]:
    """Return the training rows of all sources, by their shares where they have some."""
    empty = next((source for source in sources if not source.train), None)
    if empty is not None and (shares or len(sources) == 1):
        raise RunError("there is no row to train on after the split", where=empty.name, fix="give more documents")
    if not shares:
        if len(sources) > 1:
            taken = ", ".join(f"{source.name} {len(source.train)}" for source in sources)
            notes.append(f"mix, training rows: {taken}")
        return tuple(row for source in sources for row in source.train)
    numbers = shares_of_rows([len(source.train) for source in sources], shares)
    total = sum(numbers)
    taken = ", ".join(
        f"{source.name} {number} of {len(source.train)} ({number / total:.3g})"
        for source, number in zip(sources, numbers, strict=True)
    )
    notes.append(f"mix, training rows: {taken}")
    drawn = (draw(source.train, number, seed, "mix") for source, number in zip(sources, numbers, strict=True))
    return tuple(row for rows in drawn for row in rows)


def _replayed(
    source: Source, config: TuneConfig, train: tuple[Row, ...], validation: tuple[Row, ...], notes: list[str]
) -> tuple[Row, ...]:
    """Return the rows to replay, none of which is validated on."""
    documents = {row.document_id for row in validation}
    asked = {prompt_key(row) for row in validation}
    usable = [row for row in source.train if row.document_id not in documents and prompt_key(row) not in asked]
    withheld = len(source.train) - len(usable)
    if withheld:
        notes.append(f"replay: {withheld} rows of {source.name} are about what is validated on, and are left out")
    if not usable:
        raise RecordError("there is no row to replay", where=source.name, fix="name other data with --replay")
    wanted = replayed_rows(len(train), config.replay_share)
    drawn = draw(usable, wanted, config.seed, "replay")
    share = len(drawn) / (len(drawn) + len(train))
    few = f", fewer than the {wanted} wanted" if len(drawn) < wanted else ""
    notes.append(f"replay: {len(drawn)} of {len(usable)} rows of {source.name}, a share of {share:.3g}{few}")
    return _from(drawn, "replay")


def _refuse_shared_documents(train: Sequence[Row], validation: Sequence[Row], config: TuneConfig) -> None:
    trained = {row.document_id: row.source for row in train}
    both = {row.document_id: row.source for row in validation if row.document_id in trained}
    if both:
        listed = sorted(f"{name} ({trained[name]} and {source})" for name, source in both.items())
        raise RecordError(
            f"{_some(listed, 'document')} stand in the training and in the validation rows, "
            "so the validation loss would flatter the student",
            where="--mix" if config.mix else "--data",
            fix="split all rows anew, by document, with --validation-share 0.2",
        )


def _documents(rows: Sequence[Row]) -> int:
    return len({row.document_id for row in rows})


def _held(rows: Sequence[Row], documents: frozenset[str]) -> str:
    held = sum(row.document_id in documents for row in rows)
    return f"{held} of {len(rows)} rows, {len(documents)} of {_documents(rows)} documents,"


def _first_to_last(train: Sequence[Row], curriculum: str) -> str:
    name = curriculum.removeprefix("-")
    return f"from {train[0].scores[name]:.4g} to {train[-1].scores[name]:.4g}"


def dataset_inputs(run: Run) -> dict[str, FileDigest]:
    """Return the digests of the dataset's files, after proving that they are the ones the filter wrote.

    Raises:
        RunError: the filter did not run yet, or a file is missing or has changed since.
    """
    entry = run.stage("filter", made_by=f"synth filter {run.path}")
    inputs = {}
    for path in (run.train_path, run.validation_path):
        name = path.relative_to(run.path).as_posix()
        recorded = entry.outputs.get(name)
        if recorded is None and not path.exists():
            continue
        if recorded is None or digest_file(path) != recorded:
            raise RunError(
                "the file is not the one that the filter wrote",
                where=str(path),
                fix=f"`synth filter {run.path}` writes it anew; to train on rows of your own, change the records "
                "or the filter's rules, so that the manifest stays true",
            )
        inputs[name] = recorded
    return inputs


def read_dataset(run: Run) -> Dataset:
    """Read and check the rows that the filter kept.

    Raises:
        RunError: no filter stage, files changed by hand, no row to train on, or a document on both sides.
        RecordError: a line is not a row; the error names the file and the line.
    """
    inputs = dataset_inputs(run)
    train = _read_rows(run.train_path)
    validation = _read_rows(run.validation_path) if run.validation_path.exists() else ()
    if not train:
        raise RunError(
            "there is no row to train on",
            where=str(run.train_path),
            fix=f"see what the filter rejected and why in {run.records_path}",
        )
    both = {row.document_id for row in train} & {row.document_id for row in validation}
    if both:
        raise RunError(
            f"{_some(sorted(both), 'document')} stand in the training and in the validation rows, "
            "so the validation loss would flatter the student",
            where=str(run.validation_path),
            fix=f"run `synth filter {run.path}` again: it splits by document",
        )
    return Dataset(train, validation, inputs)


def _read_rows(path: Path) -> tuple[Row, ...]:
    return tuple(_row(value, f"{path}:{number}") for number, value in read_lines(path))


def _row(value: Any, where: str) -> Row:  # noqa: ANN401  (any JSON)
    try:
        name, document = value["id"], value["document_id"]
        prompt = tuple(Message.from_json(m) for m in value["prompt"])
        completion = tuple(Message.from_json(m) for m in value["completion"])
        whole = all(isinstance(m.content, str) for m in (*prompt, *completion))
    except (KeyError, TypeError) as error:
        raise RecordError(
            f"not a row with id, document_id, prompt and completion ({type(error).__name__}: {error})",
            where=where,
            fix="run `synth filter` again",
        ) from error
    if not whole or not any(m.content.strip() for m in prompt):
        raise RecordError(f"row {name}: the prompt is empty", where=where, fix="reject it in the filter")
    if [m.role for m in completion] != ["assistant"]:
        raise RecordError(
            f"row {name}: the completion is not one assistant turn", where=where, fix="reject it in the filter"
        )
    if not completion[0].content.strip():
        raise RecordError(f"row {name}: the completion is empty", where=where, fix="reject it in the filter")
    return Row(name, document, prompt, completion)


def _some(names: Sequence[str], noun: str) -> str:
    more = len(names) - _NAMED
    listed = ", ".join(names[:_NAMED])
    plural = noun if len(names) == 1 else f"{noun}s"
    return f"{len(names)} {plural}: {listed}" + (f" and {more} more" if more > 0 else "")
