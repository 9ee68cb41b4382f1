"""`judge`: a model marks a pair against a rubric, always with the passage before it. It never rewrites the pair.

Judges favour what stands first and agree with themselves too easily (Zheng et al., "Judging LLM-as-a-Judge with
MT-Bench and Chatbot Arena", NeurIPS 2023, sections 3.3 and 3.4). So each vote has the criteria in another order, every
other vote has the pair before the passage, and the marks are averaged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from synth.core.asking import ReplyError, ask_json
from synth.core.calls import Completion, Teacher
from synth.core.errors import ConfigError
from synth.core.prompts import load_template
from synth.core.records import Record
from synth.core.schemas import load_schema, without_notes
from synth.filters.model_base import ModelScores, in_short, not_applicable
from synth.filters.rubric import REASON, Criterion, Rubric

_ORDERS = ("passage-first", "pair-first")
_SHOWN_ABOVE = "(the passage)"


@dataclass(frozen=True, slots=True)
class Vote:
    """One reading: the share from 0 to 1 for each criterion, the reason in words, and its call."""

    marks: Mapping[str, float]
    reason: str
    call_key: str


class Judge:
    """Marks question and answer against a rubric, in an odd number of votes.

    Gives `judge`, from 0 to 1: the mean of the criteria's marks over the votes, but no more than the mean mark of a
    criterion that "must" be; and `judge_agreement`, 1 less the mean difference of the marks between two votes (None
    for one vote). Vote i begins with criterion i and has the passage first where i is even, else the pair. A vote
    whose reply is of no use does not count; more than half of them have to. None for records without a passage.

    Args:
        rubric: what is marked; prompts/judge-rubric.md unless given.
        votes: how many readings; their seeds differ.

    Raises:
        ConfigError: `votes` is not odd.
    """

    name = "judge"
    scores: tuple[str, ...] = ("judge", "judge_agreement")

    def __init__(self, rubric: Rubric | None = None, *, votes: int = 1) -> None:
        if votes < 1 or votes % 2 == 0:
            raise ConfigError(f"{votes} votes can be a draw", where="votes", fix="take an odd number, such as 3")
        self.rubric = rubric or Rubric.read()
        self.votes = votes
        self.template = load_template("judge")

    @property
    def settings(self) -> dict[str, Any]:
        """What the scores depend on beside the model."""
        criteria = [[c.name, c.scale, c.must, c.text] for c in self.rubric.criteria]
        return {"template": self.template.sha256, "criteria": criteria, "votes": self.votes}

    async def score(self, record: Record, model: Teacher) -> ModelScores:
        """Ask for the votes, one after the other.

        Raises:
            ReplyError: too few of the votes can be read.
            InferenceError: no reply came.
        """
        if not record.context:
            return not_applicable(self)
        votes: list[Vote] = []
        failures: list[ReplyError] = []
        # One after the other: a server has read the passage when the next vote comes, and calls are numbered the same
        # whatever order replies come in.
        for number in range(self.votes):
            try:
                votes.append(await self._vote(record, model, number))
            except ReplyError as error:
                # One without a reply at all is not passed over: asked again, it may come and change the score.
                failures.append(error)
        if 2 * len(votes) <= self.votes:
            raise _too_few(len(votes), self.votes, failures[-1]) from failures[-1]
        return ModelScores(
            {"judge": self.rubric.worth(_mean(votes, self.rubric)), "judge_agreement": agreement(votes)},
            self._remark(votes),
            tuple(vote.call_key for vote in votes),
        )

    async def _vote(self, record: Record, model: Teacher, number: int) -> Vote:
        criteria = self.rubric.rotated(number)
        messages = self.template.messages(
            passage=record.context,
            question=_question(record),
            answer=_answer(record),
            kind=record.kind,
            order=_ORDERS[number % len(_ORDERS)],
            criteria=[{"name": c.name, "text": c.text, "scale": c.scale} for c in criteria],
        )
        reply, completion = await ask_json(model, messages, reply_schema(criteria))
        return _read(reply, completion, criteria)

    def _remark(self, votes: Sequence[Vote]) -> str:
        mean = _mean(votes, self.rubric)
        marks = ", ".join(f"{criterion.name} {mean[criterion.name]:.2g}" for criterion in self.rubric.criteria)
        counted = "" if len(votes) == self.votes else f" ({len(votes)} of {self.votes} votes count)"
        # The reason of the severest vote is the one that a reader looks for.
        severest = min(votes, key=lambda vote: self.rubric.worth(vote.marks))
        return f"{marks}{counted}: {in_short(severest.reason)}"


def reply_schema(criteria: Sequence[Criterion]) -> dict[str, Any]:
    """Return the schema of a vote: the reason, then a mark for each criterion, in this order."""
    schema = without_notes(load_schema("judge"))
    properties = {REASON: schema["properties"][REASON], **{c.name: c.schema for c in criteria}}
    return {**schema, "properties": properties, "required": list(properties)}


def agreement(votes: Sequence[Vote]) -> float | None:
    """Return 1 less the mean absolute difference of two votes' marks, or None where there is but one vote."""
    gaps = [abs(one.marks[name] - other.marks[name]) for one, other in combinations(votes, 2) for name in one.marks]
    return 1 - sum(gaps) / len(gaps) if gaps else None


def _mean(votes: Sequence[Vote], rubric: Rubric) -> dict[str, float]:
    return {c.name: sum(vote.marks[c.name] for vote in votes) / len(votes) for c in rubric.criteria}


def _read(reply: Mapping[str, Any], completion: Completion, criteria: Sequence[Criterion]) -> Vote:
    return Vote({c.name: c.value(reply[c.name]) for c in criteria}, reply[REASON], completion.key)


def _question(record: Record) -> str:
    """Return what was asked, with the turns before it; the passage, where the turn shows it, is not shown twice."""
    turns = [message for message in record.prompt if message.role != "system"]
    if len(turns) == 1:
        text = record.question
    else:
        text = "\n\n".join(f"{message.role}: {message.content}" for message in turns)
    return text.replace(record.context, _SHOWN_ABOVE)


def _answer(record: Record) -> str:
    said = [message for message in record.completion if message.role != "system"]
    return record.answer if len(said) == 1 else "\n\n".join(f"{m.role}: {m.content}" for m in said)


def _too_few(votes: int, wanted: int, last: ReplyError) -> ReplyError:
    return ReplyError(
        f"{votes} of {wanted} votes count; the last fault: {last.what}", last.raw, call_keys=last.call_keys
    )
