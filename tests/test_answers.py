"""Asking all contenders: what is sent, what is timed, what stands on file, what it costs."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from synth.core.calls import ChatRequest, Completion, Usage
from synth.core.errors import ConfigError, RunError
from synth.core.heldout import HeldoutItem
from synth.core.jsonl import read_lines
from synth.core.records import Message
from synth.inference.scripted import ScriptedTeacher
from tests.stub_endpoint import stub_endpoint
from tune.answers import Answer, Call, answer_all, file_name, make_calls, read_answers, write_answers
from tune.budget import Budget, trimmed
from tune.contenders import Contender, make_contenders
from tune.load import Load, Price, cost_per_thousand, measured_load
from tune.scores import Score
from tune.serving import Service, given, teacher_service

ITEMS = tuple(HeldoutItem(str(n), f"How heavy is gadget {n}?", (f"{n} grams",), f"d{n}") for n in range(6))
EXAMPLES = [
    {
        "id": f"{n:016x}",
        "document_id": f"d{n}",
        "prompt": [{"role": "user", "content": f"What is gadget {n}?"}],
        "completion": [{"role": "assistant", "content": "A gadget"}],
    }
    for n in range(2)
]


def contenders(*names: str) -> list[Contender]:
    return make_contenders(names, rows=EXAMPLES, passages=[])


def answered(
    calls: Sequence[Call], services: Sequence[Service], folder: Path, *, max_failed: float = 0.0
) -> list[Answer]:
    return answer_all(calls, services, folder / "journal", max_failed=max_failed, max_in_flight=2)


def timed(request: ChatRequest) -> Completion:
    """A reply that brings its own time and log probabilities."""
    return Completion("so", usage=Usage(7, 2), logprobs=(("s", math.log(0.9)), ("o", math.log(0.4))), seconds=1.5)


def words(messages: Sequence[Message]) -> int:
    return sum(len(message.content.split()) for message in messages)


def test_every_call_asks_for_log_probabilities_greedily() -> None:
    services = given({"base": ScriptedTeacher(timed, model="small")})
    calls = make_calls(ITEMS, contenders("base", "few-shot"), services, max_tokens=8)
    assert [(call.contender, call.item.id) for call in calls[5:7]] == [("base", "5"), ("few-shot", "0")]
    assert all(call.request.sampling.logprobs and call.request.sampling.temperature == 0 for call in calls)


def test_a_contender_whose_weights_nobody_serves_is_named() -> None:
    services = given({"base": ScriptedTeacher(timed, model="small")})
    with pytest.raises(ConfigError, match=r"nobody answers for 'candidate:first'.*or leave candidate:first out"):
        make_calls(ITEMS, contenders("base", "candidate:first"), services, max_tokens=8)


def test_times_and_confidence_come_from_the_journal_again(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(timed, model="small")
    services = given({"base": teacher})
    calls = make_calls(ITEMS, contenders("base"), services, max_tokens=8)
    first = answered(calls, services, tmp_path)
    again = answered(calls, services, tmp_path)
    assert len(teacher.requests) == 6
    for answers in (first, again):
        completion = answers[0].completion
        assert completion is not None and completion.seconds == 1.5
        assert completion.confidence() == pytest.approx(0.6, abs=1e-3)


def test_an_answer_is_timed_from_sending_to_reply_and_is_the_same_read_again(tmp_path: Path) -> None:
    with stub_endpoint(lambda body: "so", delay=0.1) as stub:
        services = [teacher_service(stub.url, log_path=tmp_path / "log", max_in_flight=2)]
        calls = make_calls(ITEMS, contenders("teacher"), services, max_tokens=8)
        first = answered(calls, services, tmp_path)
        again = answered(calls, services, tmp_path)
        assert len(stub.bodies) == 6
    assert all(answer.completion and answer.completion.seconds >= 0.1 for answer in first)
    assert {answer.completion.in_flight for answer in first if answer.completion} == {2}
    assert [answer.completion for answer in first] == [answer.completion for answer in again]
    # The endpoint gives no log probabilities: there is an answer all the same, without a confidence.
    assert all(answer.completion and answer.completion.confidence() is None for answer in first)


def test_contenders_are_asked_one_after_the_other(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(timed, model="small")
    services = given({"base": teacher})
    answered(make_calls(ITEMS, contenders("few-shot", "base"), services, max_tokens=8), services, tmp_path)
    assert [len(request.messages) for request in teacher.requests] == [5] * 6 + [1] * 6


def test_a_question_that_does_not_fit_is_not_asked_and_says_why(tmp_path: Path) -> None:
    long = replace(ITEMS[3], question="How heavy is the third of all the gadgets?")
    items = (*ITEMS[:3], long)
    teacher = ScriptedTeacher(timed, model="small")
    services = given({"base": teacher})
    calls = make_calls(items, contenders("base", "few-shot"), services, max_tokens=8, budget=Budget(6, words))
    answers = answered(calls, services, tmp_path)  # no call may fail, and none has
    assert [answer.error for answer in answers] == [
        *[None] * 3,
        "the question alone has 9 tokens, and a prompt may have 6",
    ] * 2
    assert answers[3].completion is None and answers[3].to_json()["error"] == answers[3].error
    # Without its examples few-shot asks what base asks, which is one call.
    assert len(teacher.requests) == 3 and all(words(request.messages) <= 6 for request in teacher.requests)
    counted = trimmed(answer.call for answer in answers)
    assert (counted["few-shot"].shortened, counted["few-shot"].left_out, counted["few-shot"].too_long) == (3, 6, 1)
    assert counted["base"].too_long == 1


def score(answer: Answer, **known: object) -> Score:
    return Score(answer.item.id, answer.item.document_id, answer.contender, **known)  # type: ignore[arg-type]


def test_each_contender_has_a_file_with_the_call_and_the_score_of_every_answer(tmp_path: Path) -> None:
    teacher = ScriptedTeacher(timed, model="small")
    services = given({"base": teacher, "candidate:first": teacher})
    calls = make_calls(ITEMS, contenders("base", "candidate:first"), services, max_tokens=8)
    answers = answered(calls, services, tmp_path)
    scores = [score(a, values={"f1": 0.5}, refused=True, supported=False, confidence=0.6, words=1) for a in answers]
    folder = tmp_path / "validation"
    written = write_answers(folder, answers, reversed(scores))
    assert set(written) == {"answers/base.jsonl", "answers/candidate-first.jsonl"}
    assert {digest.rows for digest in written.values()} == {6}
    last = list(read_answers(folder, "candidate:first"))[-1]
    assert last == {
        "id": "5",
        "document_id": "d5",
        "contender": "candidate:first",
        "question": "How heavy is gadget 5?",
        "prompt": [{"role": "user", "content": "How heavy is gadget 5?"}],
        "left_out": 0,
        "answer": "so",
        "references": ["5 grams"],
        "unanswerable": False,
        "wanted": None,
        "values": {"f1": 0.5},
        "label": None,
        "refused": True,
        "supported": False,
        "confidence": 0.6,
        "words": 1,
        "prompt_tokens": 7,
        "completion_tokens": 2,
        "seconds": 1.5,
        "in_flight": 2,
        "finish_reason": "stop",
        "error": None,
        "call": calls[-1].key,
    }
    with pytest.raises(RunError, match="cannot be read"):
        list(read_answers(folder, "tuned"))


def test_answers_of_an_earlier_validation_do_not_stay_beside_those_of_this_one(tmp_path: Path) -> None:
    services = given({"base": ScriptedTeacher(timed, model="small")})
    for names in (("base", "few-shot"), ("base",)):
        calls = make_calls(ITEMS, contenders(*names), services, max_tokens=8)
        write_answers(tmp_path, answered(calls, services, tmp_path))
    assert [path.name for path in (tmp_path / "answers").iterdir()] == ["base.jsonl"]
    assert [row["values"] for _, row in read_lines(tmp_path / "answers" / "base.jsonl")] == [{}] * 6


@pytest.mark.parametrize("name", ["candidate:first", "candidate:../../x", "few-shot", "a/b"])
def test_a_files_name_stays_in_its_folder(name: str) -> None:
    assert Path(file_name(name)).name == file_name(name)
    assert not {"/", ":"} & {*file_name(name)}


def scores(seconds: Sequence[float | None], load: int = 8, prompt: int = 100) -> list[Score]:
    return [
        Score(str(n), "d", "base", seconds=took, in_flight=load, prompt_tokens=prompt, completion_tokens=10)
        for n, took in enumerate(seconds)
    ]


def test_load_is_the_middle_and_the_slow_end_of_what_callers_waited() -> None:
    load = measured_load(scores([float(n) for n in range(101)] + [None]))
    assert load is not None
    assert (load.in_flight, load.p50, load.p95, load.calls) == (8, 50.0, 95.0, 101)
    assert type(load).from_json(load.to_json()) == load
    assert measured_load(scores([None])) is None
    assert measured_load(scores([1.0], load=0)) is None
    # Run again with other calls in flight, the answers of the load that most of them have count.
    assert measured_load([*scores([9.0], load=1), *scores([1.0, 3.0]), *scores([5.0], load=2)]) == Load(2, 2.0, 2.9, 2)


def test_the_load_is_that_of_a_contenders_whole_calls_and_lower_where_few_are_left(tmp_path: Path) -> None:
    with stub_endpoint(lambda body: "so") as stub:
        services = [teacher_service(stub.url, log_path=tmp_path / "log", max_in_flight=64)]
        calls = make_calls(ITEMS, contenders("teacher"), services, max_tokens=8)
        answer_all(calls[:4], services, tmp_path / "journal", max_failed=0.0, max_in_flight=64)
        answers = answer_all(calls, services, tmp_path / "journal", max_failed=0.0, max_in_flight=64)
    assert [answer.completion.in_flight for answer in answers if answer.completion] == [64] * 4 + [2] * 2


def test_a_thousand_answers_cost_what_their_tokens_cost() -> None:
    # 100 prompt tokens at 2 a million and 10 completion tokens at 5 a million: 0.00025 an answer.
    assert cost_per_thousand(scores([1.0] * 3), Price(2.0, 5.0)) == pytest.approx(0.25)
    assert cost_per_thousand(scores([1.0], prompt=0), Price(2.0, 5.0)) is None
    assert cost_per_thousand(scores([1.0]), None) is None
    assert cost_per_thousand([], Price(2.0, 5.0)) is None


def test_a_machine_by_the_hour_is_paid_for_the_time_in_which_it_answers() -> None:
    # 40 calls of 2 s, four at once, take 20 s; at 3.6 an hour that is 0.02 for 40 answers.
    assert cost_per_thousand(scores([2.0] * 40, load=4), Price(hourly=3.6)) == pytest.approx(0.5)
    assert cost_per_thousand([*scores([2.0] * 40, load=4), *scores([9.0], load=2)], Price(hourly=3.6)) == pytest.approx(
        0.5
    )
    assert cost_per_thousand(scores([None]), Price(hourly=3.6)) is None


@pytest.mark.parametrize(
    "price",
    [{}, {"prompt": 1.0}, {"prompt": 1.0, "completion": 1.0, "hourly": 1.0}, {"hourly": -1.0}, {"hourly": math.nan}],
)
def test_a_price_that_means_nothing_is_refused(price: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="price"):
        Price(**price)
