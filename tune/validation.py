"""The validate stage: held-out items × contenders → answers, scores, a verdict.

The saved candidate is served through vLLM, so what is judged is what is shipped. Every answer is journaled
before it is used: running again after a kill asks only for what is missing.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from synth.core.calls import Endpoint
from synth.core.config import build
from synth.core.errors import ConfigError, Interrupted
from synth.core.jsonl import digest_file
from synth.core.prompts import load_template
from synth.core.runs import Run
from synth.core.schemas import check
from synth.inference.endpoints import find_model
from tune.candidate import Candidate, find_candidate
from tune.contenders import STUDENT, WeightsName
from tune.heldout import load_answered, open_heldout
from tune.metrics.judge_calibration import passed_judge
from tune.metrics.judging import TEMPLATE, Judge
from tune.serving import Service, at_server, by_vllm, find_earlier, given, teacher_service
from tune.validation_config import ValidateConfig
from tune.validation_job import ValidationJob
from tune.verdict import Verdict

__all__ = ["Progress", "ValidateConfig", "read_verdict", "validate"]


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the stage is: calls done of how many, and what a starting server does.

    `told` is a sentence to keep, such as what the held-out set will be able to show.
    """

    done: int
    total: int
    note: str = ""
    told: str = ""


def validate(
    run: Run | Path | str,
    heldout: Path | str | None = None,
    config: ValidateConfig | None = None,
    *,
    endpoints: Mapping[WeightsName, Endpoint] | None = None,
    max_in_flight: int = 64,
    server_args: Sequence[str] = (),
    on_progress: Callable[[Progress], None] = lambda _: None,
    **settings: Any,  # noqa: ANN401  (the fields of ValidateConfig)
) -> Verdict:
    """Judge a candidate; write answers/, verdict.json and summary.md in validation/<candidate>/, and the entry.

    The same candidate, items and settings find their verdict again, and nothing is asked. Runs its own
    event loop, so call it from outside of one.

        verdict = tune.validate("runs/manuals", "questions.jsonl", contenders=["base", "few-shot", "tuned"])

    Args:
        run: a run with a finished candidate, or its folder. Its lock is held meanwhile.
        heldout: the held-out set; the same as the setting `heldout`.
        config: what is judged on what; in its place the settings can be given by name.
        endpoints: who answers, already open, by the name of the weights ("base", "tuned", "teacher",
            "candidate:NAME"), in place of servers.
        max_in_flight: how many calls run at once.
        server_args: passed through to the vLLM that is started.
        on_progress: called after each call, and while a server starts.
        settings: fields of `ValidateConfig`.

    Raises:
        ConfigError: a setting is wrong, or a server does not serve the models.
        RecordError: the held-out file is wrong.
        RunError: there is no such candidate, or it is not as it was tuned.
        InferenceError: a server does not get ready, or too many calls failed.
        Interrupted: Ctrl-C; all answered calls are in the journal.
    """
    home = run if isinstance(run, Run) else Run.open(Path(run))
    config = _config(heldout, config, settings)
    with home.lock():
        began = time.monotonic()
        job = _prepare(home, config, endpoints, max_in_flight, server_args, shown := _Shown(on_progress))
        if home.is_current(job.stage, job.settings, job.inputs) and not job.failed_before:
            return read_verdict(home, job.candidate.name)
        shown.tell(job.outlook)
        try:
            answers = job.ask(shown.calls)
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


def _config(heldout: Path | str | None, config: ValidateConfig | None, settings: Mapping[str, Any]) -> ValidateConfig:
    given_set = {} if heldout is None else {"heldout": heldout}
    if config is None:
        return build(ValidateConfig, {**given_set, **settings}, where="validate")
    if settings or heldout is not None:
        raise ConfigError("settings are given beside a config", where="validate", fix="give either")
    return config


def _prepare(
    run: Run,
    config: ValidateConfig,
    endpoints: Mapping[WeightsName, Endpoint] | None,
    max_in_flight: int,
    args: Sequence[str],
    shown: "_Shown",
) -> ValidationJob:
    """Read everything that is asked about, and find out who answers; nothing is started yet."""
    candidate = find_candidate(run, config.candidate)
    opened = open_heldout(run, config.heldout)
    regression = {}
    for source in config.regression:
        one = load_answered(source)
        if one.name in regression:
            raise ConfigError(f"two sets are called {one.name!r}", where="--regression", fix="rename one")
        regression[one.name] = one
    services: list[Service]
    if endpoints is not None:
        services, served_by = given(endpoints), "given endpoints"
    else:
        earlier = find_earlier(run, config.contenders)
        log_path = run.log_path(f"validate-{candidate.name}")
        if config.server is not None:
            names: dict[WeightsName, str] = {
                "base": config.server_base or candidate.student_name,
                STUDENT: config.server_tuned or candidate.name,
                **{which: one.name for which, one in earlier.items()},
            }
            services = at_server(config.server, names, candidate, max_in_flight=max_in_flight, earlier=earlier)
            served_by = "a running server"
        else:
            services = by_vllm(
                candidate,
                log_path=log_path,
                max_in_flight=max_in_flight,
                merged=config.merged,
                earlier=earlier,
                args=args,
                on_progress=shown.note,
            )
            served_by = "vllm"
        if "teacher" in config.contenders:
            assert config.teacher is not None  # the config asks for it
            services.append(
                teacher_service(
                    config.teacher,
                    log_path=log_path,
                    max_in_flight=max_in_flight,
                    served=config.teacher_model,
                    args=args,
                    on_progress=shown.note,
                )
            )
    judge, judged_by = _judge(run, config, candidate, shown)
    return ValidationJob(
        run, config, candidate, opened, regression, services, served_by, max_in_flight, args, judge, judged_by
    )


def _judge(
    run: Run, config: ValidateConfig, candidate: Candidate, shown: "_Shown"
) -> tuple[Judge | None, Mapping[str, Any] | None]:
    """Return the judge, once it has agreed with people, and what stands of it in the verdict."""
    if config.judge is None or config.judge_marks is None:
        return None, None
    model = asyncio.run(find_model(config.judge, role="teacher"))
    folder = run.answers_path(candidate.name) / "judge"
    judge, calibration = passed_judge(config.judge, config.judge_marks, folder, say=shown.note)
    marks, prompt = digest_file(config.judge_marks), load_template(TEMPLATE)
    return judge, {
        "model": model.name,
        "revision": model.seen,
        "prompt": prompt.sha256,
        "marks": marks.sha256,
        **asdict(calibration),
    }


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

    def tell(self, text: str) -> None:
        self._on_progress(Progress(self._done, self._total, told=text))
