"""The validate stage: held-out questions × contenders → answers, scores, a verdict.

The saved candidate is served through vLLM, so what is judged is what is shipped. Every answer is journaled
before it is used: running again after a kill asks only for what is missing.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from synth.core.calls import Endpoint
from synth.core.errors import InferenceError, Interrupted
from synth.core.jsonl import FileDigest, digest_file, read_lines, write_json
from synth.core.records import Passage
from synth.core.runs import Run, StageEntry
from synth.core.schemas import check
from tune import verdict as first_form
from tune.answers import Answer, answer_all, complete_questions, make_calls, write_answers
from tune.candidate import Candidate, find_candidate
from tune.contenders import LOOK_UP, WeightsName, make_contenders, prompt_digests
from tune.heldout import OpenedSet, open_heldout
from tune.metrics import exact_match, f1
from tune.scores import Score
from tune.serving import Service, at_server, by_vllm, given
from tune.validation_config import ValidateConfig
from tune.verdict import Verdict, judge

__all__ = ["Progress", "ValidateConfig", "read_verdict", "validate"]


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the stage is: calls done of how many, and what a starting server does."""

    done: int
    total: int
    note: str = ""


def validate(
    run: Run,
    config: ValidateConfig,
    *,
    endpoints: Mapping[WeightsName, Endpoint] | None = None,
    max_in_flight: int = 64,
    server_args: Sequence[str] = (),
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Verdict:
    """Judge a candidate, and write validation/<candidate>/answers/, verdict.json and the entry in run.json.

    The same candidate, questions and settings find their verdict again, and nothing is asked. Runs its own
    event loop, so call it from outside of one.

    Args:
        run: a run with a finished candidate. Its lock is held meanwhile.
        config: what is judged on what.
        endpoints: who answers as "base" and as "tuned", already open, in place of a server.
        max_in_flight: how many calls run at once.
        server_args: passed through to the vLLM that is started.
        on_progress: called after each call, and while a server starts.

    Raises:
        ConfigError: a setting is wrong, or the server does not serve the models.
        RecordError: the held-out file is wrong.
        RunError: there is no such candidate, it is not as it was tuned, or held-out questions were trained on.
        InferenceError: the server does not get ready, or too many calls failed.
        Interrupted: Ctrl-C; all answered calls are in the journal.
    """
    with run.lock():
        began = time.monotonic()
        candidate = find_candidate(run, config.candidate)
        opened = open_heldout(run, Path(config.heldout))
        shown = _Shown(on_progress)
        if endpoints is not None:
            services, served_by = given(endpoints), "given endpoints"
        elif config.server is not None:
            names: dict[WeightsName, str] = {
                "base": config.server_base or candidate.student_name,
                "tuned": config.server_tuned or candidate.name,
            }
            services = at_server(config.server, names, candidate, max_in_flight=max_in_flight)
            served_by = "a running server"
        else:
            services = by_vllm(
                candidate,
                log_path=run.log_path(f"validate-{candidate.name}"),
                max_in_flight=max_in_flight,
                merged=config.merged,
                args=server_args,
                on_progress=shown.note,
            )
            served_by = "vllm"
        job = _Job(run, config, candidate, opened, services, served_by)
        if run.is_current(job.stage, job.settings, job.inputs) and not job.failed_before:
            return read_verdict(run, candidate.name)
        run.start_stage(job.stage)
        try:
            answers = job.ask(max_in_flight, shown.calls)
        except KeyboardInterrupt as error:
            raise Interrupted(
                "stopped before every question was answered",
                fix="run the same command again: answered calls come from the journal",
            ) from error
        return job.finish(answers, began)


def read_verdict(run: Run, candidate: str) -> Verdict:
    """Return the verdict on a candidate as it stands in the run.

    Raises:
        RunError: the candidate was not judged yet.
        RecordError: verdict.json is not what its schema says.
    """
    run.stage(f"validate:{candidate}", made_by=f"tune validate {run.path} --candidate {candidate}")
    path = run.answers_path(candidate) / "verdict.json"
    data = orjson.loads(path.read_bytes())
    check(data, "verdict", where=str(path))
    return Verdict.from_json(data)


class _Shown:
    """Joins the two sources of progress: calls, and what the server says while it starts."""

    def __init__(self, on_progress: Callable[[Progress], None]) -> None:
        self._on_progress = on_progress
        self._done = self._total = 0

    def calls(self, done: int, total: int) -> None:
        self._done, self._total = done, total
        self._on_progress(Progress(done, total))

    def note(self, text: str) -> None:
        self._on_progress(Progress(self._done, self._total, text))


@dataclass(frozen=True, slots=True)
class _Job:
    """One validation, ready to run."""

    run: Run
    config: ValidateConfig
    candidate: Candidate
    opened: OpenedSet
    services: Sequence[Service]
    served_by: str

    @property
    def stage(self) -> str:
        return f"validate:{self.candidate.name}"

    @property
    def failed_before(self) -> bool:
        """Whether the finished verdict had to leave calls out; they are worth another try."""
        return bool(self.run.stages()[self.stage].counts["failed"])

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the verdict: the rule, the weights, the prompts."""
        return {
            **self.config.settings(),
            "candidate": self.candidate.name,
            "weights": self.weights,
            "served_by": self.served_by,
            "prompts": prompt_digests(self.config.contenders, self.opened.heldout.labels),
        }

    @property
    def weights(self) -> dict[str, dict[str, str]]:
        return {name: held.to_json() for service in self.services for name, held in service.weights.items()}

    @property
    def inputs(self) -> dict[str, FileDigest]:
        """The held-out set under its role, as the filter has it, and the run's own files."""
        run = self.run
        paths = [run.train_path, run.validation_path, *([run.passages_path] if self._looks_up else [])]
        own = {str(path.relative_to(run.path)): digest_file(path) for path in paths if path.is_file()}
        return {"heldout": self.opened.heldout.digest, **own}

    @property
    def _looks_up(self) -> bool:
        return bool(LOOK_UP & {*self.config.contenders})

    def ask(self, max_in_flight: int, on_progress: Callable[[int, int], None]) -> list[Answer]:
        """Put every question to every contender."""
        contenders = make_contenders(
            self.config.contenders,
            rows=self.opened.rows,
            passages=[Passage.from_json(row) for _, row in read_lines(self.run.passages_path)]
            if self._looks_up and self.run.passages_path.is_file()
            else [],
            examples=self.config.examples,
            top=self.config.passages,
            labels=self.opened.heldout.labels,
            may_refuse=any(item.unanswerable for item in self.opened.heldout.items),
        )
        calls = make_calls(self.opened.heldout.items, contenders, self.services, max_tokens=self.config.max_tokens)
        return answer_all(
            calls,
            self.services,
            self.run.answers_path(self.candidate.name) / "journal",
            max_failed=self.config.max_failed,
            max_in_flight=max_in_flight,
            on_progress=on_progress,
        )

    def finish(self, answers: Sequence[Answer], began: float) -> Verdict:
        """Score the answers, write what the stage writes, and the entry last."""
        complete = complete_questions(answers)
        left_out = sum(not whole for whole in complete.values())
        if left_out == len(complete):
            raise InferenceError("no question was answered by every contender", fix="run the same command again")
        scores = [score for answer in answers if (score := _scored(answer)) is not None]
        judged = [_first_form(score) for score in scores if complete[score.item_id] and score.values]
        verdict = judge(judged, self.config.rule, subject=self._subject(left_out), warnings=self._warnings(left_out))
        folder = self.run.answers_path(self.candidate.name)
        written = write_answers(folder, answers, scores)
        value = verdict.to_json()
        check(value, "verdict", where=str(folder / "verdict.json"))
        write_json(folder / "verdict.json", value)
        paid = {a.call.key: a.completion.usage for a in answers if a.completion is not None}.values()
        outputs = {
            **{f"validation/{self.candidate.name}/{name}": digest for name, digest in written.items()},
            f"validation/{self.candidate.name}/verdict.json": digest_file(folder / "verdict.json"),
        }
        entry = StageEntry(
            config=self.settings,
            inputs=self.inputs,
            outputs=outputs,
            counts={
                "questions": len(complete),
                "left_out": left_out,
                "answers": sum(answer.completion is not None for answer in answers),
                "failed": sum(answer.completion is None for answer in answers),
                "accepted": int(verdict.accepted),
            },
            usage={
                "prompt_tokens": sum(usage.prompt_tokens for usage in paid),
                "completion_tokens": sum(usage.completion_tokens for usage in paid),
            },
            seconds=time.monotonic() - began,
        )
        self.run.finish_stage(self.stage, entry)
        return verdict

    def _subject(self, left_out: int) -> dict[str, Any]:
        heldout = self.opened.heldout
        return {
            "candidate": self.candidate.name,
            "student": self.candidate.student_name,
            "method": self.candidate.method,
            "weights": self.weights,
            "served_by": self.served_by,
            "heldout": {
                "name": heldout.path.name,
                "sha256": heldout.digest.sha256,
                "items": len(heldout.items),
                "left_out": left_out,
                "places": self.opened.places.to_json(),
            },
        }

    def _warnings(self, left_out: int) -> list[str]:
        warnings = [*self.opened.warnings]
        dataset = self.inputs.get("dataset/train.jsonl")
        if dataset is not None and self.candidate.data.get("dataset/train.jsonl") != dataset.sha256:
            warnings.append(
                "dataset/train.jsonl is not what the candidate was tuned on: that no held-out question was trained on "
                "is proved of the dataset as it is now, and few-shot examples come from it. `tune sft` again to "
                "judge a student of this dataset."
            )
        if left_out:
            warnings.append(f"Left out for every contender, since a call about them failed: {left_out} questions.")
        if self.served_by != "vllm":
            warnings.append(
                f"Served by {self.served_by}, so that the weights behind it are those of the candidate is not checked."
            )
        if self.config.server is not None and self.candidate.adapter:
            warnings.append(
                "A vLLM on a CPU (0.32) that serves an adapter beside its base adds it to the base's answers too "
                "(vllm pull request 48421); without --server the two are served apart."
            )
        if self.candidate.plain_template:
            warnings.append("The untuned model was asked through the plain chat template, as the student was tuned.")
        return warnings


def _scored(answer: Answer) -> Score | None:
    if answer.completion is None:
        return None
    item, completion = answer.item, answer.completion
    measures = {"f1": f1, "em": exact_match} if item.answers else {}
    return Score(
        item_id=item.id,
        document_id=item.document_id,
        contender=answer.contender,
        values={name: measure(completion.text, item.answers) for name, measure in measures.items()},
        words=len(completion.text.split()),
        cut_off=completion.finish_reason == "length",
        unanswerable=item.unanswerable,
        confidence=completion.confidence(),
        wanted=item.label,
        prompt_tokens=completion.usage.prompt_tokens,
        completion_tokens=completion.usage.completion_tokens,
        seconds=completion.seconds or None,
    )


def _first_form(score: Score) -> first_form.Score:
    """Return the score as the first form of the verdict takes it."""
    values = score.values
    return first_form.Score(
        score.item_id, score.document_id, score.contender, values["f1"], values["em"], score.words, score.cut_off
    )
