import math

from synth import ChatRequest, Completion, Message, Sampling, Usage

LOGPROBS = (('{"evidence":"', -0.5), ("A", -4.0), ('","question":"', -0.0), ("Why", -0.2), ("?", -0.4))

KEYS = ["28d378d72760", "7ef44f6b2cb6"]


def test_confidence_is_the_mean_probability_of_what_was_written_after_a_text() -> None:
    completion = Completion("…", logprobs=LOGPROBS)
    assert completion.confidence(after='"question"') == math.exp(-0.3)
    assert completion.confidence() == math.exp(sum(value for _, value in LOGPROBS) / 5)
    assert completion.confidence(after="absent") is None
    assert Completion("…").confidence() is None


def test_a_completion_survives_the_journal_with_and_without_log_probabilities() -> None:
    with_all = Completion("a", "length", Usage(3, 4), "k", LOGPROBS, "Hm.")
    for completion in (with_all, Completion("a", key="k")):
        assert Completion.from_json(completion.to_json(), "k") == completion
    assert Completion("a").to_json().keys() == {"text", "finish_reason", "usage"}


def test_the_keys_of_calls_in_existing_journals_stay_what_they_are() -> None:
    messages = (Message("system", "S é"), Message("user", "Why?\u2028"))
    schema = {"type": "object", "properties": {"b": {"enum": ["x", "é"]}, "a": {"type": "integer"}}, 1: None}
    keys = [
        ChatRequest(messages, Sampling(temperature, seed=seed), asked, index).key("org/m", "r")[:12]
        for temperature, seed, asked, index in ((0.7, None, None, 0), (0, 5, schema, 3))
    ]
    assert keys == KEYS
