"""Take a candidate out of its run: `tune export RUN --to FOLDER --merge`.

The folder is built beside its place, checked against the candidate by asking both, and renamed when it is whole and
passed: a folder that is there is one that was finished. Nothing heavy loads with this module.
"""

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synth.core.errors import ConfigError, InferenceError, RunError
from synth.core.jsonl import digest_file, read_lines, sync_folder, write_json, write_text
from synth.core.runs import Run, package_versions
from synth.inference.weights import weights_revision
from tune.adapter import is_adapter, unservable
from tune.candidate import Candidate, find_candidate
from tune.export_config import ExportConfig
from tune.exporting.card import export_card
from tune.exporting.parity import (
    Parity,
    Reply,
    Tolerance,
    ask,
    compare,
    fixed_prompts,
    rendered,
    served_by_vllm,
)
from tune.exporting.report import REPORT, REPORT_VERSION
from tune.exporting.tools import check_awq, find_converter, write_awq, write_gguf

if TYPE_CHECKING:
    from synth.core.records import Message

__all__ = ["ExportConfig", "Exported", "export", "open_candidate"]

# Where merged weights are rounded to 16 bits, log probabilities shift a little: docs/export-a-student.md has what was
# measured. A merge that went wrong is off by far more.
_TOLERANCES = {"bf16": Tolerance(0.05, 0.5), "fp16": Tolerance(0.05, 0.5), "fp32": Tolerance(0.001, 0.01)}
_VLLM_TYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_CALIBRATION_ROWS = 256


@dataclass(frozen=True, slots=True)
class Exported:
    """A finished export: where it lies, of which candidate, its type, and what the checks said."""

    path: Path
    candidate: str
    dtype: str | None
    parity: tuple[Parity, ...]
    notes: tuple[str, ...] = ()


def open_candidate(path: Path, name: str | None = None) -> tuple[Run, Candidate]:
    """Return a run and one of its candidates, from the run's folder or from the candidate's own.

    Raises:
        ConfigError: two candidates are named.
        RunError: there is no such run or candidate, or its files are not those that were tuned.
    """
    here = path.expanduser()
    run_path = here.resolve().parent.parent
    if (
        not (here / "run.json").exists()
        and here.resolve().parent.name == "students"
        and (run_path / "run.json").exists()
    ):
        if name not in (None, here.resolve().name):
            raise ConfigError(
                f"the folder is that of {here.resolve().name!r}",
                where=f"--candidate {name}",
                fix="leave --candidate out",
            )
        run, name = Run.open(run_path), here.resolve().name
    else:
        run = Run.open(here)
    return run, find_candidate(run, name)


def export(
    path: Path,
    target: Path,
    config: ExportConfig,
    *,
    server_args: Sequence[str] = (),
    on_progress: Callable[[str], None] | None = None,
) -> Exported:
    """Write a candidate to a folder of its own, merged and quantized as the config says.

    The run is locked meanwhile. What servers and other programs say goes to logs/export-<candidate>.log of the run.

    Args:
        path: a run, or a candidate's folder in one.
        target: the folder to make; an empty one may be there.
        config: what to make.
        server_args: passed through to the vLLM that is started for the check.
        on_progress: told what goes on.

    Raises:
        ConfigError: the target is taken, a tool is missing, or the weights do not fit the type.
        RunError: the candidate is not as it was tuned, the disk is full, a tool failed, or the exported model does
            not answer as the candidate does; nothing is left at the target.
        InferenceError: vLLM is missing or does not start.
    """
    target = target.expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(
            "the folder is there already, and is never overwritten", where=f"--to {target}", fix="name a new one"
        )
    tell = on_progress or (lambda text: None)
    run, candidate = open_candidate(path, config.candidate)
    job = _Job(run, candidate, config, target, tuple(server_args), tell)
    with run.lock():
        return job.copy() if not config.merge else job.merge()


@dataclass(frozen=True, slots=True)
class _Job:
    run: Run
    candidate: Candidate
    config: ExportConfig
    target: Path
    server_args: Sequence[str]
    tell: Callable[[str], None]

    @property
    def log_path(self) -> Path:
        return self.run.log_path(f"export-{self.candidate.name}")

    def copy(self) -> Exported:
        """Copy the files that `tune sft` left."""
        listed = self.run.stages()[f"sft:{self.candidate.name}"].outputs
        with self._part() as part:
            made = part / "made"
            made.mkdir()
            for name in listed:
                file = made / (self.run.path / name).relative_to(self.candidate.folder)
                file.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.run.path / name, file)
            self._place(made, dtype=None, quantization=None, checks=[])
        return Exported(self.target, self.candidate.name, None, ())

    def merge(self) -> Exported:
        """Merge, check, quantize, check."""
        config = self.config
        # Before anything is loaded: what is missing is said in a second.
        converter = find_converter(config.llama_cpp) if config.quantize == "gguf" else None
        python = str(config.quantize_python.expanduser()) if config.quantize_python else sys.executable
        awq = check_awq(python) if config.quantize == "awq" else ""
        from tune.exporting.merge import write_merged  # torch and peft load here

        notes: list[str] = []
        with self._part() as part:
            made = part / "merged"
            made.mkdir()
            self.tell("merging")
            dtype = write_merged(self.candidate, made, config.dtype)
            check = _Check(self, made, dtype) if config.parity else None
            checks = [("merged", check.of(made, _TOLERANCES[dtype]))] if check else []
            for _, parity in checks:
                self._refuse(parity)
            quantization: dict[str, Any] | None = None
            if converter is not None:
                quantization = {"method": "gguf", "type": config.gguf_type}
                self.tell("writing GGUF")
                gguf = part / "gguf"
                gguf.mkdir()
                file = gguf / f"{self.target.name}-{config.gguf_type}.gguf"
                write_gguf(made, file, config.gguf_type, converter=converter, log_path=self.log_path)
                if check is not None:
                    notes.append("the GGUF file itself was not compared with the candidate: vLLM does not serve it")
                made = gguf
            elif config.quantize == "awq":
                quantization = {"method": "awq", "bits": 4, "version": awq}
                self.tell("quantizing")
                rows = self._calibration(made)
                write_awq(made, part / "awq", rows, python=python, log_path=self.log_path)
                made = part / "awq"
                if check is not None:
                    try:
                        checks.append(("quantized", check.of(made, None)))
                    except InferenceError as error:
                        # vLLM has no four-bit kernels for some machines, its CPU build on AVX2 for one.
                        notes.append(f"the quantized model could not be asked here ({error.what})")
            shutil.copyfile(self.candidate.folder / "training.json", made / "training.json")
            self._place(made, dtype=dtype, quantization=quantization, checks=checks, notes=notes)
        return Exported(self.target, self.candidate.name, dtype, tuple(parity for _, parity in checks), tuple(notes))

    @contextmanager
    def _part(self) -> Iterator[Path]:
        """Make the folder in which all is built; it goes at the block's end, however that comes."""
        part = self.target.with_name(f".{self.target.name}.part")
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(part, ignore_errors=True)  # what a kill left
            part.mkdir()
            yield part
        except OSError as error:
            raise RunError(
                f"cannot be written ({error.strerror or error})",
                where=str(self.target),
                fix="free some disk space or mend the permissions, then run the same command again",
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _refuse(self, parity: Parity) -> None:
        if parity.passed:
            return
        first = parity.first_difference
        example = f"; first: to {first.prompt!r} {first.candidate!r} became {first.exported!r}" if first else ""
        raise RunError(
            f"the merged model does not answer as the candidate does: {parity}{example}",
            where=str(self.log_path),
            fix="try --dtype fp32; --no-parity writes it all the same",
        )

    def _calibration(self, merged: Path) -> list[list[int]]:
        """Return training rows as token ids, spread over the file, for a quantizer to see what the model works on."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(merged, local_files_only=True)
        rows = [row for _, row in read_lines(self.run.train_path)] if self.run.train_path.is_file() else []
        turns = [
            [*row["prompt"], *row["completion"]]
            for row in rows
            if isinstance(row["prompt"], list) and isinstance(row["completion"], list)
        ]
        if not turns:
            raise RunError(
                "AWQ looks at the training rows, and the run has none",
                where=str(self.run.train_path),
                fix="quantize with --quantize gguf, which needs none",
            )
        step = max(1, len(turns) // _CALIBRATION_ROWS)
        return [tokenizer.apply_chat_template(chat, return_dict=False) for chat in turns[::step][:_CALIBRATION_ROWS]]

    def _place(
        self,
        made: Path,
        *,
        dtype: str | None,
        quantization: dict[str, Any] | None,
        checks: Sequence[tuple[str, Parity]],
        notes: Sequence[str] = (),
    ) -> None:
        """Write the report and the card, make all durable, and rename the folder to its place."""
        from tune.checkpoints import sync_files

        for file in made.rglob("*"):
            file.chmod(0o755 if file.is_dir() else 0o644)
        report: dict[str, Any] = {
            "version": REPORT_VERSION,
            "candidate": self.candidate.name,
            "candidate_weights": weights_revision(self.candidate.folder),
            "method": self.candidate.method,
            "student": self.candidate.student_name,
            "student_revision": self.candidate.revision,
            "data": dict(self.candidate.data),
            "merged": self.config.merge,
            "dtype": dtype,
            "quantization": quantization,
            "parity": [{"what": what, **parity.to_json()} for what, parity in checks],
            "notes": list(notes),
            "packages": package_versions(),
        }
        if self.config.merge:
            write_text(made / "README.md", export_card(report, self.target.name))
        files = {
            file.relative_to(made).as_posix(): digest_file(file).sha256
            for file in sorted(made.rglob("*"))
            if file.is_file()
        }
        write_json(made / REPORT, {**report, "files": files})
        sync_files(made)
        made.rename(self.target)
        sync_folder(self.target.parent)


class _Check:
    """Asks the candidate once, and holds exported models to what it said."""

    def __init__(self, job: _Job, merged: Path, dtype: str) -> None:
        from transformers import AutoConfig, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(merged, local_files_only=True)
        text = AutoConfig.from_pretrained(merged, local_files_only=True).get_text_config()
        self._job, self._dtype = job, dtype
        self._prompts: list[list[Message]] = fixed_prompts(
            job.run, lambda prompt: len(rendered(tokenizer, prompt)), getattr(text, "max_position_embeddings", None)
        )
        self._by, self._replies = self._ask_candidate(merged)

    def of(self, exported: Path, tolerance: Tolerance | None) -> Parity:
        """Serve an exported model and return how far it is from the candidate."""
        self._job.tell("asking the exported model")
        return served_by_vllm(
            exported,
            lambda reader: compare(
                self._prompts,
                self._replies,
                reader,
                candidate_by=self._by,
                exported_by=f"vLLM ({self._dtype})",
                tolerance=tolerance,
            ),
            log_path=self._job.log_path,
            args=[*self._type, *self._job.server_args],
            on_progress=self._job.tell,
        )

    @property
    def _type(self) -> list[str]:
        # Both in the type of the merged weights: left to itself vLLM serves fp32 weights in 16 bits.
        return ["--dtype", _VLLM_TYPES[self._dtype]]

    def _ask_candidate(self, merged: Path) -> tuple[str, list[Reply]]:
        candidate, job = self._job.candidate, self._job
        adapter = is_adapter(candidate.folder)
        if adapter and unservable(candidate.folder) is not None:
            from tune.exporting.peft_speaker import PeftSpeaker

            job.tell("asking the adapter")
            return f"PEFT ({self._dtype})", ask(PeftSpeaker(candidate, merged, self._dtype), self._prompts)
        template = ["--chat-template", str(candidate.chat_template)] if candidate.chat_template else []
        hub = adapter and not isinstance(candidate.student, Path) and candidate.revision
        commit = ["--revision", candidate.revision] if hub else []
        job.tell("asking the candidate")
        return f"vLLM ({self._dtype})", served_by_vllm(
            candidate.student if adapter else candidate.folder,
            lambda reader: ask(reader, self._prompts),
            log_path=job.log_path,
            adapter=candidate.folder if adapter else None,
            args=[*template, *commit, *self._type, *job.server_args],
            on_progress=job.tell,
        )
