import pytest

from synth.core.calls import ChatRequest, Completion, Sampling
from synth.core.errors import InferenceError
from synth.core.records import Message
from synth.inference.scripted import ScriptedTeacher

ASK = (Message("user", "two words"),)


async def test_a_function_sees_the_request_and_its_text_becomes_a_completion() -> None:
    teacher = ScriptedTeacher(lambda request: f"re: {request.messages[-1].content}")
    request = ChatRequest(ASK)
    completion = await teacher.complete(request)
    assert completion.text == "re: two words"
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (2, 3)
    assert completion.key == request.key("scripted")
    assert teacher.requests == [request]


async def test_a_sequence_is_given_out_in_order_and_its_end_is_an_error() -> None:
    teacher = ScriptedTeacher(["a", "b"], model="m")
    assert [(await teacher.chat(ASK)).text, (await teacher.chat(ASK)).text] == ["a", "b"]
    with pytest.raises(InferenceError, match="2 replies and was asked 3 times"):
        await teacher.chat(ASK)


async def test_equal_calls_are_numbered_and_other_ones_start_at_zero() -> None:
    teacher = ScriptedTeacher(lambda request: str(request.index))
    schema = {"type": "object"}
    texts = [
        (await teacher.chat(ASK)).text,
        (await teacher.chat(ASK)).text,
        (await teacher.chat(ASK, schema=schema)).text,
        (await teacher.chat(ASK, sampling=Sampling(temperature=0))).text,
    ]
    assert texts == ["0", "1", "0", "0"]
    assert teacher.requests[2].schema == schema


async def test_a_completion_passes_through_with_its_key_and_an_exception_is_raised() -> None:
    script = iter([Completion("cut", "length"), InferenceError("down")])
    teacher = ScriptedTeacher(lambda _: next(script))
    completion = await teacher.chat(ASK)
    assert (completion.text, completion.finish_reason, completion.key != "") == ("cut", "length", True)
    with pytest.raises(InferenceError, match="down"):
        await teacher.chat(ASK)
    assert len(teacher.requests) == 2
