"""A candidate as validation finds it: what was tuned, how, and whether its files are still those that were tuned."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson

from synth.core.errors import RunError, did_you_mean
from synth.core.jsonl import digest_file
from synth.core.resources import resource
from synth.core.runs import Run
from synth.inference.weights import model_name, weights_revision

_STAGE = "sft:"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A finished candidate.

    `student` is the untuned model: a folder or a hub id; `spec` is how the user named it. `revision` identifies its
    weights: of a folder the digest, of a hub model the commit. `data` are the digests, by name, of the files that it
    was tuned on.
    """

    name: str
    folder: Path
    method: Literal["lora", "qlora", "full"]
    spec: str
    student: str | Path
    revision: str
    data: Mapping[str, str]
    plain_template: bool

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

    Raises:
        RunError: there is no such candidate, its files or the untuned model's are not those that were tuned.
    """
    stages = run.stages()
    finished = {stage.removeprefix(_STAGE): entry for stage, entry in stages.items() if stage.startswith(_STAGE)}
    if not finished:
        raise RunError("no student is tuned yet", where=str(run.path), fix=f"run `tune sft {run.path}` first")
    if name is None:
        whole = [candidate for candidate, entry in finished.items() if entry.config.get("fold") is None]
        name = max(whole or finished, key=lambda candidate: (finished[candidate].finished, candidate))
    if name not in finished:
        raise RunError(
            f"no finished candidate is called {name!r}", where=str(run.path), fix=did_you_mean(name, finished)
        )
    entry, folder = finished[name], run.student_path(name)
    for output, digest in entry.outputs.items():
        if not (run.path / output).is_file() or digest_file(run.path / output) != digest:
            raise RunError(
                "the file is not as `tune sft` left it, so what is judged would not be what was tuned",
                where=str(run.path / output),
                fix=f"run `tune sft {run.path}` again",
            )
    report = orjson.loads((folder / "training.json").read_bytes())
    spec = entry.config["student"]
    student: str | Path = resource("demo", "models") / "student" if spec == "bundled" else spec
    if Path(student).expanduser().is_dir():
        student = Path(student).expanduser()
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
    )
