"""One validation, from the calls to the files that it leaves: answers, scores, evidence, verdict, entry."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from synth.core.errors import ConfigError, InferenceError
from synth.core.heldout import HeldoutSet
from synth.core.jsonl import FileDigest, digest_file, read_lines, write_json, write_text
from synth.core.records import Passage
from synth.core.runs import Run, StageEntry
from synth.core.schemas import check
from tune.answers import Answer, Call, answer_all, complete_questions, make_calls, write_answers
from tune.budget import Budget, student_budget, trimmed
from tune.candidate import Candidate
from tune.contenders import LOOK_UP, STUDENT, find_kind, make_contenders, prompt_digests
from tune.evidence import RegressionSet
from tune.heldout import OpenedSet
from tune.measuring import gather
from tune.metrics.base import Metric
from tune.metrics.find import find_metrics, metric_digests, metric_name
from tune.metrics.judging import Judge
from tune.metrics.scoring import Answered, score_all
from tune.metrics.support import Support
from tune.phrases import counted, in_a_row
from tune.power import plan
from tune.rules import DECIDING
from tune.scores import Score
from tune.serving import Service
from tune.summary import markdown
from tune.validation_config import ValidateConfig
from tune.verdict import Verdict, judge


@dataclass(frozen=True)
class ValidationJob:
    """One validation, ready to run: who is asked what, and what is made of the answers."""

    run: Run
    config: ValidateConfig
    candidate: Candidate
    opened: OpenedSet
    regression: Mapping[str, HeldoutSet]
    services: Sequence[Service]
    served_by: str
    max_in_flight: int
    server_args: Sequence[str] = ()
    judge: Judge | None = None
    judged_by: Mapping[str, Any] | None = None

    @property
    def stage(self) -> str:
        """The stage's name in run.json."""
        return f"validate:{self.candidate.name}"

    @property
    def folder(self) -> Path:
        """validation/<candidate>/."""
        return self.run.answers_path(self.candidate.name)

    @property
    def failed_before(self) -> bool:
        """Whether the finished verdict had to leave calls out; they are worth another try."""
        return bool(self.run.stages()[self.stage].counts["failed"])

    @cached_property
    def weights(self) -> dict[str, dict[str, str]]:
        """Whose weights answer, by the name of the weights; those that nobody asks are left out."""
        asked = {find_kind(name).weights for name in self.config.contenders} | {"base", STUDENT}
        return {
            name: held.to_json() for service in self.services for name, held in service.weights.items() if name in asked
        }

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What decides the verdict: the rule, the weights, the prompts, the metrics."""
        prompts = prompt_digests(self.config.contenders, self.opened.heldout.labels)
        for held in self.regression.values():
            prompts |= prompt_digests(["base"], held.labels)
        return {
            **self.config.settings(),
            "metric": self.metric,
            "candidate": self.candidate.name,
            "weights": self.weights,
            "served_by": self.served_by,
            "merged": self.config.merged is not None,
            "in_flight": self.max_in_flight,
            "prompts": prompts,
            "own_metrics": metric_digests(self._own_metrics),
            "judge": self.judged_by,
        }

    @cached_property
    def inputs(self) -> dict[str, FileDigest]:
        """The held-out sets under their role, as the filter has it, and the run's own files."""
        run = self.run
        paths = [run.train_path, run.validation_path, run.passages_path]
        own = {str(path.relative_to(run.path)): digest_file(path) for path in paths if path.is_file()}
        others = {f"regression:{name}": held.digest for name, held in self.regression.items()}
        return {"heldout": self.opened.heldout.digest, **others, **own}

    @cached_property
    def metrics(self) -> list[Metric]:
        """What the held-out set is measured by.

        Raises:
            ConfigError: there is no such metric.
        """
        return [*self._metrics_of(self.opened.heldout), *([self.judge] if self.judge is not None else [])]

    @cached_property
    def metric(self) -> str:
        """The metric that decides.

        Raises:
            ConfigError: there is no such metric.
        """
        wanted = self.config.metric
        if wanted is None:
            return DECIDING[self.opened.heldout.task]
        if any(metric.name == wanted for metric in self.metrics):
            return wanted
        return metric_name(wanted)

    @cached_property
    def _own_metrics(self) -> tuple[str, ...]:
        """The specs of metrics that are not the usual ones."""
        wanted = self.config.metric
        own = dict.fromkeys(self.config.metrics)
        if wanted is not None and wanted != Judge.name and wanted not in {*map(metric_name, own)}:
            own[wanted] = None
        if wanted == Judge.name and self.judge is None:
            raise ConfigError("no judge is named", where="--metric judge", fix="name it with --judge and --judge-marks")
        return tuple(own)

    def _metrics_of(self, heldout: HeldoutSet) -> list[Metric]:
        # On a regression set of another kind, what means nothing there is not measured.
        main = heldout is self.opened.heldout
        specs = [spec for spec in self._own_metrics if main or spec != "correct" or heldout.task == "labels"]
        unanswerable = any(item.unanswerable for item in heldout.items)
        return find_metrics(heldout.task, specs, labels=heldout.labels, unanswerable=unanswerable)

    @property
    def outlook(self) -> str:
        """What the clean items will be able to show, by a usual spread of differences."""
        clean = [item for item in self.opened.heldout.items if item.id in self.opened.clean_ids]
        if not clean:
            return "Every held-out question stands in the dataset: there is none to decide on."
        documents = len({item.document_id for item in clean})
        return f"By a usual spread: {plan(len(clean), documents, target=self.config.target_points).said()}"

    @cached_property
    def passages(self) -> list[Passage]:
        """The run's passages, none where it has none."""
        if not self.run.passages_path.is_file():
            return []
        return [Passage.from_json(row) for _, row in read_lines(self.run.passages_path)]

    @cached_property
    def budget(self) -> Budget | None:
        """What no prompt may exceed; None where others serve the models and the student's tokenizer is not at hand."""
        try:
            return student_budget(
                self.candidate,
                max_tokens=self.config.max_tokens,
                tokens=self.config.prompt_budget,
                server_args=self.server_args,
            )
        except ConfigError:
            if self.served_by == "vllm" or self.config.prompt_budget is not None:
                raise
            return None

    def calls_of(self, heldout: HeldoutSet, names: Sequence[str]) -> list[Call]:
        """Return the calls that put a set's items to contenders."""
        contenders = make_contenders(
            names,
            rows=self.opened.rows,
            passages=self.passages if LOOK_UP & {*names} else [],
            examples=self.config.examples,
            top=self.config.passages,
            labels=heldout.labels,
            may_refuse=any(item.unanswerable for item in heldout.items),
            elsewhere=heldout is not self.opened.heldout,
        )
        return make_calls(
            heldout.items, contenders, self.services, max_tokens=self.config.max_tokens, budget=self.budget
        )

    def ask(self, on_progress: Callable[[int, int], None]) -> dict[str, list[Answer]]:
        """Put every item to every contender; the answers by the set's name, those of the held-out set under ""."""
        calls = {"": self.calls_of(self.opened.heldout, self.config.contenders)}
        for name, held in self.regression.items():
            calls[name] = self.calls_of(held, ["base", STUDENT])
        answers = iter(
            answer_all(
                [call for own in calls.values() for call in own],
                self.services,
                self.folder / "journal",
                max_failed=self.config.max_failed,
                max_in_flight=self.max_in_flight,
                on_progress=on_progress,
            )
        )
        return {name: [next(answers) for _ in own] for name, own in calls.items()}

    def scored(
        self, heldout: HeldoutSet, answers: Sequence[Answer], metrics: Sequence[Metric], support: Support | None
    ) -> "_Scored":
        """Score the answers to a set."""
        deciding = self.metric if heldout is self.opened.heldout else DECIDING[heldout.task]
        answered = [Answered(a.item, a.contender, a.completion) for a in answers if a.completion is not None]
        scores = score_all(answered, metrics, labels=heldout.labels, support=support, refusals=self.config.refusals)
        complete = complete_questions(answers)
        whole = [score for score in scores if complete[score.item_id]]
        if not whole:
            raise InferenceError(
                "no question was answered by every contender", where=heldout.name, fix="run the same command again"
            )
        # What cannot be measured of anyone, such as answers beside a reference without a word, tells nobody apart.
        measured = {score.item_id for score in whole if deciding in score.values}
        unmeasured = {score.item_id for score in whole} - measured
        if not measured:
            raise ConfigError(
                f"{deciding!r} gives no number for any answer",
                where=heldout.name,
                fix="mend the metric, or the answers of the set that it measures by",
            )
        whole = [score for score in whole if score.item_id in measured]
        return _Scored(scores, whole, sum(not one for one in complete.values()), len(unmeasured))

    def finish(self, answers: Mapping[str, Sequence[Answer]], began: float) -> Verdict:
        """Score the answers, write what the stage writes, and the entry last."""
        main = self.opened.heldout
        support = Support(self.passages) if main.task == "qa" else None
        scored = self.scored(main, answers[""], self.metrics, support)
        regression = []
        for name, held in self.regression.items():
            other = self.scored(held, answers[name], self._metrics_of(held), None)
            regression.append(RegressionSet(name, other.whole, DECIDING[held.task]))
        evidence = gather(
            self.run,
            self.candidate,
            self.config,
            self.opened,
            metric=self.metric,
            metrics=self.metrics,
            regression=regression,
            trimmed=trimmed(answer.call for answer in answers[""]),
        )
        verdict = judge(
            scored.whole,
            self.config.rule(self.metric if self.config.metric else None),
            evidence=evidence,
            subject=self._subject(scored.left_out + scored.unmeasured),
            warnings=self._warnings(answers[""], scored),
        )
        value = verdict.to_json()
        check(value, "verdict", where=str(self.folder / "verdict.json"))
        # Until here the verdict that stands is that of an earlier validation, and stays when this one fails.
        self.run.start_stage(self.stage)
        written = write_answers(self.folder, answers[""], scored.scores)
        write_json(self.folder / "verdict.json", value)
        write_text(self.folder / "summary.md", markdown(verdict))
        written |= {name: digest_file(self.folder / name) for name in ("verdict.json", "summary.md")}
        self.run.finish_stage(self.stage, self._entry(answers, written, verdict, began))
        return verdict

    def _entry(
        self,
        answers: Mapping[str, Sequence[Answer]],
        written: Mapping[str, FileDigest],
        verdict: Verdict,
        began: float,
    ) -> StageEntry:
        every = [answer for own in answers.values() for answer in own]
        paid = {a.call.key: a.completion.usage for a in every if a.completion is not None}.values()
        heldout = verdict.subject["heldout"]
        return StageEntry(
            config=self.settings,
            inputs=self.inputs,
            outputs={f"validation/{self.candidate.name}/{name}": digest for name, digest in written.items()},
            counts={
                "items": heldout["items"],
                "clean": verdict.items,
                "left_out": heldout["left_out"],
                "answers": sum(answer.completion is not None for answer in every),
                "failed": sum(answer.completion is None and answer.call.prompt.error is None for answer in every),
                "accepted": int(verdict.accepted),
            },
            usage={
                "prompt_tokens": sum(usage.prompt_tokens for usage in paid),
                "completion_tokens": sum(usage.completion_tokens for usage in paid),
            },
            seconds=time.monotonic() - began,
        )

    def _subject(self, left_out: int) -> dict[str, Any]:
        heldout = self.opened.heldout
        how = [one.how for one in self.opened.overlap.values()]
        return {
            "candidate": self.candidate.name,
            "student": self.candidate.student_name,
            "method": self.candidate.method,
            "weights": self.weights,
            "served_by": self.served_by,
            "prompt_budget": self.budget.tokens if self.budget else None,
            "judge": self.judged_by,
            "heldout": {
                "name": heldout.name,
                "sha256": heldout.digest.sha256,
                "task": heldout.task,
                "labels": list(heldout.labels),
                "items": len(heldout.items),
                "left_out": left_out,
                "places": self.opened.places.to_json(),
                "sealed": self.opened.sealed,
                "overlap": {"exact": how.count("exact"), "near": how.count("near")},
            },
            "regression": [
                {"name": name, "sha256": held.digest.sha256, "items": len(held.items)}
                for name, held in self.regression.items()
            ],
        }

    def _warnings(self, answers: Sequence[Answer], scored: "_Scored") -> list[str]:
        warnings = [*self.opened.warnings]
        dataset = self.inputs.get("dataset/train.jsonl")
        if dataset is not None and self.candidate.data.get("dataset/train.jsonl") != dataset.sha256:
            warnings.append(
                "dataset/train.jsonl is not what the candidate was tuned on: overlap is looked for in the dataset as "
                "it is now, and few-shot examples come from it. `tune sft` again to judge a student of this dataset."
            )
        too_long = len({answer.item.id for answer in answers if answer.call.prompt.error is not None})
        if too_long:
            warnings.append(
                f"Left out for every contender, since the question alone is over the prompt budget: {too_long} of "
                f"{counted(len(self.opened.heldout.items), 'question')}."
            )
        if scored.left_out > too_long:
            warnings.append(
                "Left out for every contender, since a call about them failed: "
                f"{counted(scored.left_out - too_long, 'question')}."
            )
        if scored.unmeasured:
            warnings.append(
                f"Left out for every contender, since {self.metric!r} gives no number for any answer to them: "
                f"{counted(scored.unmeasured, 'question')}."
            )
        warnings += [said for cut in trimmed(answer.call for answer in answers).values() if (said := cut.said())]
        if self.budget is None:
            warnings.append("No prompt budget was kept: the student's tokenizer or its length could not be read.")
        if self.served_by != "vllm":
            warnings.append(
                f"Served by {self.served_by}, so that the weights behind it are those of the candidate is not checked."
            )
        if self.config.server is not None and self.candidate.adapter:
            warnings.append(
                "A vLLM on a CPU (0.32) that serves an adapter beside its base adds it to the base's answers too "
                "(vllm pull request 48421); without --server the two are served apart."
            )
        unseen = [*self.candidate.from_elsewhere]
        unseen += ["the rows of the candidate that it goes on from"] * self.candidate.goes_on
        if unseen:
            warnings.append(
                f"The candidate also learned {in_a_row(unseen)}: whether a held-out question stands there is not "
                f"looked at. `tune sft` finds it out when it is given `--heldout {self.opened.heldout.name}`."
            )
        if self.candidate.plain_template:
            warnings.append("The untuned model was asked through the plain chat template, as the student was tuned.")
        return warnings


@dataclass(frozen=True, slots=True)
class _Scored:
    """A set's answers, scored: all scores, and those of the items that decide.

    `left_out` items were not answered by every contender, and `unmeasured` ones have a value of none.
    """

    scores: Sequence[Score]
    whole: Sequence[Score]
    left_out: int
    unmeasured: int
