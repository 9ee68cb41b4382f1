import math

from synth import Completion, Usage

LOGPROBS = (('{"evidence":"', -0.5), ("A", -4.0), ('","question":"', -0.0), ("Why", -0.2), ("?", -0.4))


def test_confidence_is_the_mean_probability_of_what_was_written_after_a_text() -> None:
    completion = Completion("…", logprobs=LOGPROBS)
    assert completion.confidence(after='"question"') == math.exp(-0.3)
    assert completion.confidence() == math.exp(sum(value for _, value in LOGPROBS) / 5)
    assert completion.confidence(after="absent") is None
    assert Completion("…").confidence() is None


def test_a_completion_survives_the_journal_with_and_without_log_probabilities() -> None:
    for completion in (Completion("a", "length", Usage(3, 4), "k", LOGPROBS), Completion("a", key="k")):
        assert Completion.from_json(completion.to_json(), "k") == completion
