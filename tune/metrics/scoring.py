"""From an answer to its score: every metric, and what else the table and the verdict need of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from synth.core.calls import Completion
from synth.core.heldout import HeldoutItem
from tune.metrics.base import Metric, Reply
from tune.metrics.labels import read_label
from tune.metrics.refusal import is_refusal
from tune.metrics.support import Support
from tune.scores import Score


@dataclass(frozen=True, slots=True)
class Answered:
    """What a contender said to an item."""

    item: HeldoutItem
    contender: str
    completion: Completion


def score_all(
    answers: Sequence[Answered],
    metrics: Sequence[Metric],
    *,
    labels: Sequence[str] = (),
    support: Support | None = None,
    refusals: Sequence[str] = (),
) -> list[Score]:
    """Return the scores, in the order of the answers.

    Args:
        answers: of one contender or of many; a failed call gives none.
        metrics: from `find_metrics`.
        labels: of a label set: then a label is read from each answer, and nothing is a refusal or supported.
        support: where to look for what supports an answer; None where there is no passage.
        refusals: phrases with which a refusal begins, beside the usual ones (`is_refusal`).

    Raises:
        ConfigError: a metric cannot be computed; the error names it and the item.
    """
    replies = [_reply(answer, labels, support, refusals) for answer in answers]
    values: list[dict[str, float]] = [{} for _ in answers]
    for metric in metrics:
        for held, value in zip(values, metric.score(replies), strict=True):
            if value is not None:
                held[metric.name] = value
    return [
        score_answer(answer, reply, held, labels=labels, support=support)
        for answer, reply, held in zip(answers, replies, values, strict=True)
    ]


def score_answer(
    answer: Answered,
    reply: Reply,
    values: dict[str, float],
    *,
    labels: Sequence[str] = (),
    support: Support | None = None,
) -> Score:
    """Return the score of one answer whose metrics have been computed."""
    item, completion = answer.item, answer.completion
    looked_in = support is not None and not labels and not reply.refused
    return Score(
        item_id=item.id,
        document_id=item.document_id,
        contender=answer.contender,
        values=values,
        words=len(completion.text.split()),
        cut_off=completion.finish_reason == "length",
        unanswerable=item.unanswerable,
        refused=reply.refused,
        supported=support.supported(item, completion.text) if support is not None and looked_in else None,
        confidence=completion.confidence(),
        label=read_label(completion.text, labels) if labels else None,
        wanted=item.label,
        prompt_tokens=completion.usage.prompt_tokens,
        completion_tokens=completion.usage.completion_tokens,
        seconds=completion.seconds or None,
        in_flight=completion.in_flight,
    )


def _reply(answer: Answered, labels: Sequence[str], support: Support | None, refusals: Sequence[str]) -> Reply:
    text = answer.completion.text
    passages = () if support is None else support.passages_for(answer.item)
    return Reply(answer.item, text, not labels and is_refusal(text, refusals), passages)
