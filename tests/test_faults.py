"""Each way in which an endpoint fails, against the client and against a pool: every call ends, and is counted."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from synth.core.calls import ChatRequest, Completion, Sampling
from synth.core.errors import InferenceError
from synth.core.records import Message
from synth.inference.client import Client
from synth.inference.pool import Pool
from tests.fault_server import Fault, fault_server

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}


def ask(number: int) -> ChatRequest:
    return ChatRequest((Message("user", f"call {number}"),), Sampling(max_tokens=32), SCHEMA)


def echo(body: dict[str, Any]) -> str:
    return json.dumps({"a": body["messages"][0]["content"]})


PASSING = [
    Fault.BUSY,
    Fault.BUSY_FOR_A_SECOND,
    Fault.ERROR,
    Fault.HANG,
    Fault.RESET,
    Fault.TRUNCATED,
    Fault.BROKEN_BODY,
    Fault.PAGE,
    Fault.PAGE_502,
    Fault.DRIP,
    Fault.DRIP_STOPS,
]


@pytest.mark.parametrize("fault", PASSING)
async def test_a_fault_that_passes_costs_one_more_try(fault: Fault) -> None:
    with fault_server([fault], reply=echo) as server:
        async with Client(server.url, "stub", timeout=4, stall_timeout=2) as client:
            completion = await client.complete(ask(1))
            assert client.stats().retries == 1
    assert completion.json() == {"a": "call 1"}
    assert [body["messages"] for body in server.asked] == [[{"role": "user", "content": "call 1"}]] * 2


@pytest.mark.parametrize("fault", PASSING)
async def test_a_fault_that_stays_ends_in_an_error_in_bounded_time(fault: Fault) -> None:
    # One that is busy is given up by the time without an answer, any other by the tries.
    busy = fault in {Fault.BUSY, Fault.BUSY_FOR_A_SECOND}
    limits = (1.2, 0.5) if busy else (5, 3)
    with fault_server(lambda number, body: fault, reply=echo) as server:
        async with Client(server.url, "stub", timeout=limits[0], stall_timeout=limits[1], retries=1) as client:
            with pytest.raises(InferenceError, match=r"tried \d+ times") as caught:
                await asyncio.wait_for(client.complete(ask(1)), 90)
    assert caught.value.where == server.url
    assert server.faults.keys() == {fault}
    assert 2 <= server.faults[fault] < 30 if busy else server.faults[fault] == 2


@pytest.mark.parametrize("fault", [Fault.BROKEN_CONTENT, Fault.WRONG_CONTENT, Fault.CUT_OFF])
async def test_what_the_model_wrote_is_handed_on_however_wrong_it_is(fault: Fault) -> None:
    with fault_server([fault], reply=echo) as server:
        async with Client(server.url, "stub") as client:
            completion = await client.complete(ask(1))
    assert completion.text
    assert completion.finish_reason == ("length" if fault is Fault.CUT_OFF else "stop")
    assert len(server.asked) == 1


async def test_a_reply_that_stops_is_given_up_after_the_stall_timeout_and_not_after_the_whole() -> None:
    with fault_server([Fault.DRIP_STOPS], reply=echo) as server:
        async with Client(server.url, "stub", timeout=600, stall_timeout=0.5) as client:
            await asyncio.wait_for(client.complete(ask(1)), 90)


async def test_the_wait_for_a_reply_that_is_not_streamed_is_no_stall() -> None:
    with fault_server(reply=echo, delay=1.0) as server:
        async with Client(server.url, "stub", stall_timeout=0.3) as client:
            assert (await client.complete(ask(1))).json() == {"a": "call 1"}
    assert len(server.asked) == 1


CALLS = 60


def storm() -> Callable[[int, dict[str, Any]], Fault | None]:
    """Return a plan: every tenth call fails for good, call n in n % 3 tries with fault n."""
    tries: Counter[int] = Counter()

    def plan(_: int, body: dict[str, Any]) -> Fault | None:
        call = int(body["messages"][0]["content"].split()[1])
        tries[call] += 1
        if call % 10 == 0:
            return Fault.PAGE_502
        return PASSING[call % len(PASSING)] if tries[call] <= call % 3 else None

    return plan


@pytest.mark.parametrize("endpoints", [1, 2])
async def test_in_a_storm_every_call_ends_as_a_completion_or_an_error_and_the_counts_are_right(endpoints: int) -> None:
    async def outcome(endpoint: Client | Pool, number: int) -> Completion | InferenceError:
        try:
            return await endpoint.complete(ask(number))
        except InferenceError as error:
            return error

    plan = storm()
    with fault_server(plan, reply=echo) as one, fault_server(plan, reply=echo) as two:
        servers = (one, two)[:endpoints]
        clients = [Client(server.url, "stub", timeout=3, stall_timeout=1.5, retries=5) for server in servers]
        async with clients[0] if endpoints == 1 else Pool(clients, retries=5) as endpoint:
            ends = await asyncio.wait_for(asyncio.gather(*(outcome(endpoint, n) for n in range(CALLS))), 240)
            stats = endpoint.stats()
    texts = {n: end.json()["a"] for n, end in enumerate(ends) if isinstance(end, Completion)}
    assert texts == {n: f"call {n}" for n in range(CALLS) if n % 10}
    assert sum(isinstance(end, InferenceError) for end in ends) == CALLS // 10
    # A try on a connection that was just closed is counted though no endpoint saw it.
    seen = len(one.asked) + len(two.asked) - CALLS
    assert seen <= stats.retries <= seen + CALLS // 10
    assert stats.in_flight == 0
