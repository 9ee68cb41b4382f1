"""Which candidates a run has, which one is in use, and how another one takes its place.

A candidate that the verdict accepted is promoted without a word. Where something speaks against it (a reject, no
verdict at all, files that are not those that were tuned) it takes `force`, and the history says so for good.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from synth.core.errors import RunError
from synth.core.jsonl import FileDigest, digest_file
from synth.core.runs import Run, StageEntry
from synth.inference.weights import weights_revision
from tune.candidate import changed_files, choose_candidate, finished_candidates, untuned_model, weights_sha256
from tune.registry import CURRENT, Event, Registry, VerdictWord, current_in, locked, place_of, registry_of

__all__ = ["CandidateRow", "Candidates", "Promotion", "list_candidates", "promote", "rollback", "verdict_on"]


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """A line of `tune candidates`. Losses are in nats a token; `finished` is in UTC.

    `complete` says whether its folder is there with its weights; whether they are those that were tuned is looked at
    when it is promoted or judged.
    """

    candidate: str
    method: str
    student: str
    finished: str
    train_loss: float | None
    validation_loss: float | None
    verdict: VerdictWord
    current: bool
    complete: bool

    @property
    def loss(self) -> str:
        """Both losses in words."""
        shown = ["-" if loss is None else f"{loss:.3f}" for loss in (self.train_loss, self.validation_loss)]
        return " / ".join(shown)


@dataclass(frozen=True, slots=True)
class Candidates:
    """The finished candidates of a run, the latest last, and what is in use in the folder of runs."""

    rows: tuple[CandidateRow, ...]
    registry: Registry
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return what `tune candidates --json` prints."""
        return {
            "candidates": list(self.rows),
            **{key: value for key, value in self.registry.to_json().items() if key != "version"},
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class Promotion:
    """What was put in use, and in whose place. `changed` is false where it was in use already."""

    event: Event
    before: Event | None
    changed: bool
    registry: Registry
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {"now": self.event, "before": self.before, "changed": self.changed, "link": self.registry.link,
                "notes": list(self.notes)}  # fmt: skip


def list_candidates(run: Run) -> Candidates:
    """Return the run's finished candidates in the order they were finished.

    Raises:
        RunError: the run or the registry is damaged.
    """
    registry = registry_of(run)
    _, name = place_of(run)
    now = registry.current
    finished = finished_candidates(run)
    rows = []
    for candidate in sorted(finished, key=lambda one: (finished[one].finished, one)):
        entry = finished[candidate]
        in_use = now is not None and (now.run, now.candidate) == (name, candidate)
        rows.append(_row(run, candidate, entry, in_use=in_use))
    return Candidates(tuple(rows), registry, tuple(_notes(run, registry, rows)))


def promote(run: Run, name: str | None = None, *, force: bool = False, reason: str = "") -> Promotion:
    """Put a candidate in use: write it to registry.json in the run's parent, and move the link `current`.

    Promoting what is in use already changes nothing, unless its verdict is another one now.

    Args:
        run: the run that the candidate is of.
        name: the candidate; by default the one that was finished last.
        force: do it whatever speaks against it; that is recorded.
        reason: the user's own words, for the history.

    Raises:
        RunError: there is no such candidate, something speaks against it, or the registry cannot be written.
    """
    if name == CURRENT:
        name = current_in(run).candidate
    name, entry = choose_candidate(run, name)
    verdict, verdict_sha256 = verdict_on(run, name)
    folder, run_name = place_of(run)
    event = Event(
        action="promote",
        run=run_name,
        candidate=name,
        weights_sha256=_weights_on_disk(run, name, entry),
        verdict=verdict,
        verdict_sha256=verdict_sha256,
    )
    already = _already(registry_of(run), event)
    if already is not None:
        return already
    concerns = _concerns(run, name, entry, verdict)
    reason = "; ".join([*([reason] if reason else []), *_doubts(run, name, verdict)])
    if concerns and not force:
        raise RunError(
            f"{name!r} is not promoted: {'; '.join(concerns)}",
            where=str(run.student_path(name)),
            fix=f"{_way_out(run, name, verdict)}, or promote it all the same with --force, which is recorded",
        )
    event = replace(event, forced=bool(concerns), reason="; ".join([*([reason] if reason else []), *concerns]))
    with locked(folder) as registry:
        # Another process may have been faster.
        already, now = _already(registry, event), registry.current
        if already is not None:
            return already
        done, note = registry.record(event)
        return Promotion(done.history[-1], now, changed=True, registry=done, notes=(note,) if note else ())


def rollback(run: Run, *, reason: str = "") -> Promotion:
    """Put in use again what was in use before; once more goes further back.

    The candidate may be of another run in the same folder. Its files have to be those that were promoted.

    Args:
        run: any run of the folder.
        reason: the user's own words, for the history.

    Raises:
        RunError: nothing was promoted before, its files are gone or were changed, or the registry cannot be written.
    """
    folder, _ = place_of(run)
    with locked(folder) as registry:
        now, before = registry.current, registry.previous
        if now is None or before is None:
            what = "nothing is promoted" if now is None else f"nothing was promoted before {_named(now)}"
            raise RunError(
                f"{what}, so there is nothing to go back to",
                where=str(registry.path),
                fix="`tune candidates` lists what `tune promote` can put in use",
            )
        home = Run.open(folder / before.run)
        found = finished_candidates(home).get(before.candidate)
        if found is None or _weights_on_disk(home, before.candidate, found) != before.weights_sha256:
            raise RunError(
                f"the weights of {_named(before)} are not those that were promoted on {before.time}",
                where=str(home.student_path(before.candidate)),
                fix="bring them back, or promote another candidate by name",
            )
        verdict, verdict_sha256 = verdict_on(home, before.candidate)
        event = Event(
            action="rollback",
            run=before.run,
            candidate=before.candidate,
            weights_sha256=before.weights_sha256,
            verdict=verdict,
            verdict_sha256=verdict_sha256,
            reason=reason,
        )
        done, note = registry.record(event)
        return Promotion(done.history[-1], now, changed=True, registry=done, notes=(note,) if note else ())


def verdict_on(run: Run, name: str) -> tuple[VerdictWord, str | None]:
    """Return what the verdict on a candidate's weights says, and that file's SHA-256; "none" and None without one.

    A verdict.json that is not as `tune validate` left it counts for nothing. Training a candidate again withdraws
    its verdict.
    """
    entry = run.stages().get(f"validate:{name}")
    listed = {} if entry is None else entry.outputs
    wanted = next((digest for path, digest in listed.items() if path.endswith("/verdict.json")), None)
    path = run.answers_path(name) / "verdict.json"
    if wanted is None or not path.is_file() or digest_file(path) != wanted:
        return "none", None
    return "accepted" if orjson.loads(path.read_bytes()).get("accepted") is True else "rejected", wanted.sha256


def _already(registry: Registry, event: Event) -> Promotion | None:
    """Return what there is to say where these weights are in use already, with the same verdict."""
    now = registry.current
    if now is None or not now.is_same(event) or now.verdict != event.verdict:
        return None
    return Promotion(now, registry.previous, changed=False, registry=registry)


def _concerns(run: Run, name: str, entry: StageEntry, verdict: VerdictWord) -> list[str]:
    """Return what speaks against putting a candidate in use."""
    concerns = []
    changed = changed_files(run, entry)
    if changed:
        names = ", ".join(path.name for path in changed[:3])
        concerns.append(f"its files are not as `tune sft` left them ({names})")
    report = _report(run, name)
    now = weights_revision(untuned_model(entry))
    if now and now != report.get("student_revision", now):
        concerns.append("the untuned model's files changed since it was tuned")
    if verdict == "rejected":
        concerns.append("its verdict is a reject")
    elif verdict == "none":
        concerns.append("there is no verdict on it")
    return concerns


def _doubts(run: Run, name: str, verdict: VerdictWord) -> list[str]:
    """Return what the history should say of a verdict that was not on the weights that are promoted."""
    if verdict == "none":
        return []
    entry = run.stages()[f"validate:{name}"]
    served_by = entry.config.get("served_by")
    if served_by not in (None, "vllm"):
        return [f"judged through {served_by}: that its weights were these was not checked"]
    return ["judged as a merged export of it"] if entry.config.get("merged") else []


def _way_out(run: Run, name: str, verdict: VerdictWord) -> str:
    if verdict == "rejected":
        return f"read {run.answers_path(name) / 'verdict.json'} for what to do next"
    if verdict == "none":
        return f"run `tune validate {run.path} --candidate {name} --heldout FILE` first"
    return f"run `tune sft {run.path}` again"


def _weights_on_disk(run: Run, name: str, entry: StageEntry) -> str:
    """Return the digest of the candidate's weights as they are now.

    Raises:
        RunError: there are none.
    """
    folder = run.student_path(name)
    files: dict[str, FileDigest] = {}
    if folder.is_dir():
        listed = {run.path / output for output in entry.outputs}
        weights = {*folder.glob("*.safetensors"), *(path for path in listed if path.suffix == ".safetensors")}
        files = {str(path): digest_file(path) for path in sorted(weights) if path.is_file()}
    found = weights_sha256(files)
    if found is None:
        raise RunError("the candidate has no weights", where=str(folder), fix=f"run `tune sft {run.path}` again")
    return found


def _row(run: Run, candidate: str, entry: StageEntry, *, in_use: bool) -> CandidateRow:
    report = _report(run, candidate)
    return CandidateRow(
        candidate=candidate,
        method=str(entry.config.get("method", "-")),
        student=str(report.get("student", "-")),
        finished=entry.finished,
        train_loss=report.get("train_loss"),
        validation_loss=report.get("validation_loss"),
        verdict=verdict_on(run, candidate)[0],
        current=in_use,
        complete=all((run.path / output).is_file() for output in entry.outputs),
    )


def _report(run: Run, candidate: str) -> dict[str, Any]:
    """Return the candidate's training.json; an empty one where it cannot be read."""
    try:
        report: dict[str, Any] = orjson.loads((run.student_path(candidate) / "training.json").read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return report


def _notes(run: Run, registry: Registry, rows: Sequence[CandidateRow]) -> list[str]:
    notes = []
    now = registry.current
    if not rows:
        notes.append(f"No student is tuned yet: `tune sft {run.path}` makes one.")
    if now is None:
        notes.append("None is promoted in this folder of runs.")
    elif not any(row.current for row in rows):
        notes.append(f"What is current is of another run: {_named(now)}.")
    else:
        entry = finished_candidates(run)[now.candidate]
        if weights_sha256(entry.outputs) != now.weights_sha256:
            notes.append(f"{now.candidate} was trained again since it was promoted, or was changed before that.")
    if now is not None and not registry.link_leads_there:
        notes.append(f"The link {registry.link} lags behind, and could not be moved; registry.json is right.")
    return notes


def _named(event: Event) -> str:
    return f"{event.candidate} of {event.run}"
