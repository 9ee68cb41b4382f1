"""Length bands in tokens, with the tokenizer of the bundled teacher."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synth.core.errors import ConfigError
from synth.core.records import Message, Passage, Record
from synth.core.resources import resource_folder
from synth.core.tokens import load_tokenizer
from synth.filters.base import Rule, failed_reasons, score_records
from synth.filters.lengths import TokenLimits, length_scorer

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
TOKENIZER = load_tokenizer(resource_folder("demo") / "models" / "teacher")
PASSAGE = Passage("d", "The lamp costs 40 pounds.", 0, 25)


def record(question: str, answer: str, prompt: list[Message] | None = None) -> Record:
    return Record.create(PASSAGE, question, answer, generator="test", prompt=prompt)


@UNHURRIED
@given(st.text(max_size=60), st.text(max_size=60), st.integers(0, 30), st.integers(0, 30))
def test_a_pair_passes_where_its_tokens_are_within_the_band(question: str, answer: str, low: int, wide: int) -> None:
    asked, answered = TOKENIZER(question), TOKENIZER(answer)
    bands = (
        (TokenLimits(min_question_tokens=low, max_question_tokens=low + wide), low <= asked <= low + wide),
        (TokenLimits(min_answer_tokens=low, max_answer_tokens=low + wide), low <= answered <= low + wide),
        (TokenLimits(max_total_tokens=wide), asked + answered <= wide),
    )
    for limits, fits in bands:
        scorer = length_scorer(limits, TOKENIZER)
        assert scorer.score([record(question, answer)]) == [float(fits)]
        assert bool(scorer.explain(record(question, answer))) != fits


def test_each_fault_gives_the_number_and_the_bound() -> None:
    long = "pounds " * 40
    asked, answered = TOKENIZER("What?"), TOKENIZER(long)
    scorer = length_scorer(
        TokenLimits(min_question_tokens=asked + 1, max_answer_tokens=8, max_total_tokens=9), TOKENIZER
    )
    (scored,) = score_records([record("What?", long)], [scorer])
    assert failed_reasons(scored, [Rule.parse("length >= 1")], {"length": scorer}) == [
        f"length:question {asked} tokens, not >= {asked + 1}",
        f"length:answer {answered} tokens, not <= 8",
        f"length:pair {asked + answered} tokens, not <= 9",
    ]


def test_all_turns_count_for_the_whole_and_equal_turns_each_time() -> None:
    turns = [
        Message("system", "Be brief."),
        Message("user", "What?"),
        Message("assistant", "A lamp."),
        Message("user", "What?"),
    ]
    total = sum(TOKENIZER(text) for text in ("Be brief.", "What?", "A lamp.", "What?", "40 pounds"))
    pair = record("", "40 pounds", turns)
    assert length_scorer(TokenLimits(max_total_tokens=total), TOKENIZER).score([pair]) == [1.0]
    assert length_scorer(TokenLimits(max_total_tokens=total - 1), TOKENIZER).score([pair]) == [0.0]


def test_many_records_are_counted_each_for_itself() -> None:
    pairs = [record("What?", "word " * count) for count in range(20)]
    scorer = length_scorer(TokenLimits(max_answer_tokens=TOKENIZER("word " * 9)), TOKENIZER)
    assert scorer.score(pairs) == [1.0] * 10 + [0.0] * 10
    assert scorer.score([]) == []


@pytest.mark.parametrize("bounds", [{"min_answer_tokens": 9, "max_answer_tokens": 8}, {"max_total_tokens": -1}])
def test_bounds_that_nothing_can_keep_are_an_error(bounds: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        TokenLimits(**bounds)
