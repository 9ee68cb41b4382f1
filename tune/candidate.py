"""A candidate as validation finds it: what was tuned, how, and whether its files are still those that were tuned."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson

from synth.core.errors import RunError, did_you_mean
from synth.core.jsonl import FileDigest, digest_file
from synth.core.resources import resource
from synth.core.runs import Run, StageEntry
from synth.inference.weights import model_name, weights_revision
from tune.registry import CURRENT, current_in

# How the names of inputs begin that are rows from elsewhere than the run's dataset.
ELSEWHERE = ("data:", "mix:", "mix=", "replay:")
_STAGE = "sft:"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A finished candidate.

    `student` is the untuned model: a folder or a hub id; `spec` is how the user named it. `revision` identifies its
    weights: of a folder the digest, of a hub model the commit. `data` are the digests, by name, of the files that it
    was tuned on. `goes_on` says whether it was tuned from another candidate.
    """

    name: str
    folder: Path
    method: Literal["lora", "qlora", "full"]
    spec: str
    student: str | Path
    revision: str
    data: Mapping[str, str]
    plain_template: bool
    goes_on: bool = False

    @property
    def from_elsewhere(self) -> tuple[str, ...]:
        """The names in `data` of rows that are not of the run's dataset."""
        return tuple(name for name in self.data if name.startswith(ELSEWHERE))

    @property
    def adapter(self) -> bool:
        """Whether it is an adapter beside the untuned model, in place of whole weights."""
        return self.method != "full"

    @property
    def student_name(self) -> str:
        """The untuned model's name, without a path of this machine."""
        return model_name(self.student)

    @property
    def chat_template(self) -> Path | None:
        """The template that was saved with the candidate, or None where there is none."""
        path = self.folder / "chat_template.jinja"
        return path if path.is_file() else None


def find_candidate(run: Run, name: str | None = None) -> Candidate:
    """Return the named candidate, or the one that was finished last; students of a fold have to be named.

    `current` is the name of the one that was promoted.

    Raises:
        RunError: there is no such candidate, its files or the untuned model's are not those that were tuned, or
            the promoted one was trained again since.
    """
    promoted = current_in(run) if name == CURRENT else None
    name, entry = choose_candidate(run, name if promoted is None else promoted.candidate)
    folder = run.student_path(name)
    changed = changed_files(run, entry)
    if changed:
        raise RunError(
            "the file is not as `tune sft` left it, so what is judged would not be what was tuned",
            where=str(changed[0]),
            fix=f"run `tune sft {run.path}` again",
        )
    if promoted is not None and weights_sha256(entry.outputs) != promoted.weights_sha256:
        raise RunError(
            f"the candidate {name!r} was trained again since it was promoted",
            where=str(folder),
            fix=f"run `tune promote {run.path} {name}` for the new weights, or name the candidate",
        )
    report = orjson.loads((folder / "training.json").read_bytes())
    spec = entry.config["student"]
    student = untuned_model(entry)
    now = weights_revision(student)
    if now and now != report["student_revision"]:
        raise RunError(
            "the untuned model's files changed since the candidate was tuned",
            where=str(spec),
            fix=f"bring them back, or run `tune sft {run.path}` again",
        )
    return Candidate(
        name=name,
        folder=folder,
        method=report["method"],
        spec=spec,
        student=student,
        revision=report["student_revision"],
        data={name: digest.sha256 for name, digest in sorted(entry.inputs.items())},
        plain_template=entry.config.get("chat_template") == "plain",
        goes_on=bool(entry.config.get("from")),
    )


def finished_candidates(run: Run) -> dict[str, StageEntry]:
    """Return what run.json says of each finished candidate, by its name."""
    stages = run.stages()
    return {stage.removeprefix(_STAGE): entry for stage, entry in stages.items() if stage.startswith(_STAGE)}


def choose_candidate(run: Run, name: str | None = None) -> tuple[str, StageEntry]:
    """Return the named candidate's entry, or that of the one that was finished last; its files are not looked at.

    Raises:
        RunError: there is none.
    """
    finished = finished_candidates(run)
    if not finished:
        raise RunError("no student is tuned yet", where=str(run.path), fix=f"run `tune sft {run.path}` first")
    if name is None:
        whole = [candidate for candidate, entry in finished.items() if entry.config.get("fold") is None]
        name = max(whole or finished, key=lambda candidate: (finished[candidate].finished, candidate))
    if name not in finished:
        raise RunError(
            f"no finished candidate is called {name!r}", where=str(run.path), fix=did_you_mean(name, finished)
        )
    return name, finished[name]


def changed_files(run: Run, entry: StageEntry) -> list[Path]:
    """Return the candidate's files that are gone, or not as `tune sft` left them."""
    paths = {run.path / output: digest for output, digest in entry.outputs.items()}
    return [path for path, digest in paths.items() if not path.is_file() or digest_file(path) != digest]


def weights_sha256(files: Mapping[str, FileDigest]) -> str | None:
    """Return a digest of all files of weights among a candidate's files, or None where there are none."""
    weights = sorted(digest.sha256 for name, digest in files.items() if name.endswith(".safetensors"))
    # All files of weights that come in several count, not the first alone.
    joined = weights[0] if len(weights) == 1 else hashlib.sha256("".join(weights).encode()).hexdigest()
    return joined if weights else None


def untuned_model(entry: StageEntry) -> str | Path:
    """Return the model that a candidate was tuned from: a folder or a hub id."""
    spec: str = entry.config["student"]
    if spec == "bundled":
        return resource("demo", "models") / "student"
    folder = Path(spec).expanduser()
    return folder if folder.is_dir() else spec
