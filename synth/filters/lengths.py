"""The score `length`: are question and answer within length bands in tokens?

Tokens are those of the model that is to be tuned, so that a pair fits its context and no answer outweighs the rest.
The score `form` has bands in words, which need no tokenizer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from synth.core.errors import ConfigError
from synth.core.records import Record
from synth.core.tokens import Tokenizer


@dataclass(frozen=True, slots=True)
class TokenLimits:
    """Length bands in tokens, both ends included; None sets no bound.

    Raises:
        ConfigError: a bound is negative, or a least length is above its greatest one.
    """

    min_question_tokens: int | None = None
    max_question_tokens: int | None = None
    min_answer_tokens: int | None = None
    max_answer_tokens: int | None = None
    max_total_tokens: int | None = None
    """Of all turns of the prompt and the completion together, without the marks of a chat template."""

    def __post_init__(self) -> None:
        for one in fields(self):
            bound = getattr(self, one.name)
            if bound is not None and bound < 0:
                raise ConfigError(f"{one.name} is {bound}", fix="give a number of tokens from 0 on, or leave it out")
        for what, least, most in (
            ("question", self.min_question_tokens, self.max_question_tokens),
            ("answer", self.min_answer_tokens, self.max_answer_tokens),
        ):
            if least is not None and most is not None and least > most:
                raise ConfigError(
                    f"no {what} has at least {least} and at most {most} tokens",
                    fix=f"swap min_{what}_tokens and max_{what}_tokens",
                )


@dataclass(frozen=True, slots=True)
class LengthScorer:
    """The scorer `length`: 1 where a record keeps to all bounds, else 0."""

    limits: TokenLimits
    tokenizer: Tokenizer
    name: str = "length"

    def score(self, records: Sequence[Record]) -> list[float | None]:
        """Return 1 or 0 for each record; all texts go to the tokenizer at once."""
        return [float(not faults) for faults in self._faults(records)]

    def explain(self, record: Record) -> list[str]:
        """Return the bounds that a record breaks, as `answer 812 tokens, not <= 512`."""
        return self._faults([record])[0]

    def _faults(self, records: Sequence[Record]) -> list[list[str]]:
        texts = [[record.question, record.answer] for record in records]
        if self.limits.max_total_tokens is not None:
            for record, parts in zip(records, texts, strict=True):
                # Question and answer are counted already; what is left are the other turns.
                turns = [turn.content for turn in (*record.prompt, *record.completion)]
                for part in parts:
                    if part in turns:
                        turns.remove(part)
                parts += turns
        counts = iter(self.tokenizer.count_all([text for parts in texts for text in parts]))
        return [self._of([next(counts) for _ in parts]) for parts in texts]

    def _of(self, counts: Sequence[int]) -> list[str]:
        limits = self.limits
        return [
            f"{what} {count} tokens, not {relation} {bound}"
            for what, count, relation, bound in (
                ("question", counts[0], ">=", limits.min_question_tokens),
                ("question", counts[0], "<=", limits.max_question_tokens),
                ("answer", counts[1], ">=", limits.min_answer_tokens),
                ("answer", counts[1], "<=", limits.max_answer_tokens),
                ("pair", sum(counts), "<=", limits.max_total_tokens),
            )
            if bound is not None and (count < bound if relation == ">=" else count > bound)
        ]


def length_scorer(limits: TokenLimits, tokenizer: Tokenizer) -> LengthScorer:
    """Return the scorer `length` for these bounds; `load_tokenizer` makes a tokenizer from a model's name or folder."""
    return LengthScorer(limits, tokenizer)
