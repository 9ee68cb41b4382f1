import asyncio
import json
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from synth.core.calls import ChatRequest, Completion, Sampling
from synth.core.errors import ConfigError, InferenceError, RefusedError, SynthError
from synth.core.records import Message
from synth.inference.client import Client
from synth.inference.endpoints import find_teacher, open_endpoint
from synth.inference.pool import Pool
from tests.fault_server import Fault, fault_server
from tests.test_client import reply, said, wire


def ask(number: int) -> ChatRequest:
    return ChatRequest((Message("user", f"call {number}"),), Sampling(max_tokens=32))


def echo(body: dict[str, Any]) -> str:
    return json.dumps({"a": body["messages"][0]["content"]})


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def pool_of(*urls: str, retries: int = 3, timeout: float = 30) -> Pool:
    return Pool([Client(url, "stub", timeout=timeout) for url in urls], retries=retries)


async def test_calls_go_where_the_load_is_least() -> None:
    with fault_server(reply=echo, delay=0.02) as quick, fault_server(reply=echo, delay=0.4) as slow:
        async with pool_of(quick.url, slow.url) as pool:
            gate = asyncio.Semaphore(8)

            async def one(number: int) -> Completion:
                async with gate:
                    return await pool.complete(ask(number))

            replies = await asyncio.gather(*(one(n) for n in range(80)))
            assert pool.stats().endpoints == pool.stats().endpoints_up == 2
    assert [reply.json()["a"] for reply in replies] == [f"call {n}" for n in range(80)]
    assert len(quick.asked) > 2 * len(slow.asked) > 0


async def test_an_endpoint_where_nobody_listens_is_set_aside_and_taken_back_when_somebody_does() -> None:
    port = closed_port()
    with fault_server(reply=echo) as well:
        async with pool_of(well.url, f"http://127.0.0.1:{port}/v1") as pool:
            await asyncio.gather(*(pool.complete(ask(n)) for n in range(20)))
            assert pool.stats().endpoints_up == 1
            assert len(well.asked) == 20
            with fault_server(reply=echo, port=port) as back:
                deadline = time.monotonic() + 20
                number = 20
                while not back.asked and time.monotonic() < deadline:
                    await pool.complete(ask(number))
                    number += 1
                    await asyncio.sleep(0.05)
                await asyncio.gather(*(pool.complete(ask(n)) for n in range(40)))
                assert pool.stats().endpoints_up == 2
    assert len(back.asked) > 10


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.HANG, Fault.RESET])
async def test_an_endpoint_that_fails_every_call_is_set_aside_and_no_call_is_lost(fault: Fault) -> None:
    with fault_server(reply=echo) as well, fault_server(lambda n, body: fault, reply=echo) as ill:
        async with pool_of(well.url, ill.url, retries=0, timeout=5.0) as pool:
            replies = await asyncio.gather(*(pool.complete(ask(n)) for n in range(30)))
            replies += await asyncio.gather(*(pool.complete(ask(n)) for n in range(30, 60)))
            assert pool.stats().endpoints_up == 1
    assert [reply.json()["a"] for reply in replies] == [f"call {n}" for n in range(60)]
    assert len(well.asked) == 60
    # Of the second thirty at most one tried it again.
    assert len(ill.asked) <= 16


async def test_when_all_endpoints_are_down_the_error_names_them_after_the_retries() -> None:
    urls = [f"http://127.0.0.1:{closed_port()}/v1" for _ in range(2)]
    async with pool_of(*urls, retries=2) as pool:
        calls = asyncio.gather(*(pool.complete(ask(n)) for n in range(20)), return_exceptions=True)
        ends = await asyncio.wait_for(calls, 120)
        assert pool.stats().endpoints_up == 0
    for end in ends:
        assert isinstance(end, InferenceError)
        assert "nobody answers" in str(end)
        assert end.where == ", ".join(urls)


async def test_a_busy_endpoint_that_names_a_time_is_waited_for_elsewhere() -> None:
    with fault_server([Fault.BUSY_FOR_A_SECOND], reply=echo) as busy, fault_server(reply=echo) as other:
        async with pool_of(busy.url, other.url) as pool:
            await asyncio.gather(*(pool.complete(ask(n)) for n in range(10)))
            assert pool.stats().endpoints_up == 2
    assert len(busy.asked) + len(other.asked) == 11
    assert busy.asked[0] in other.asked


async def test_an_endpoint_that_takes_no_call_of_ours_gets_few_and_its_calls_go_to_the_others() -> None:
    refuse = reply({"error": "no such key"}, status=401)
    async with wire(refuse) as shut:
        with fault_server(reply=echo, delay=0.02) as well:
            async with pool_of(shut.url, well.url, retries=0) as pool:
                replies = await asyncio.gather(*(pool.complete(ask(n)) for n in range(60)))
                replies += await asyncio.gather(*(pool.complete(ask(n)) for n in range(60, 120)))
                assert pool.stats().endpoints_up == 1
    assert [reply.json()["a"] for reply in replies] == [f"call {n}" for n in range(120)]
    assert len(well.asked) == 120
    assert len(shut.asked) <= 31


async def test_where_no_endpoint_takes_our_calls_they_fail_at_once_with_its_words() -> None:
    refuse = reply({"error": "no such key"}, status=401)
    async with wire(refuse) as one, wire(refuse) as two, pool_of(one.url, two.url) as pool:
        ends = await asyncio.gather(*(pool.complete(ask(n)) for n in range(5)), return_exceptions=True)
        with pytest.raises(InferenceError, match="does not accept the key"):
            await pool.complete(ask(5))
        assert len(one.asked) + len(two.asked) <= 12
    assert all("does not accept the key" in str(end) for end in ends)


async def test_a_request_that_is_refused_sets_no_endpoint_aside() -> None:
    refuse = reply({"error": "top_p"}, status=400)
    async with wire(refuse) as one, wire(refuse) as two, pool_of(one.url, two.url) as pool:
        for number in range(8):
            with pytest.raises(RefusedError):
                await pool.complete(ask(number))
        assert pool.stats().endpoints_up == 2
    assert len(one.asked) + len(two.asked) == 8


@pytest.mark.parametrize("slow", [0.0, 0.3])
async def test_an_endpoint_that_asks_for_an_hour_fails_no_call_while_another_is_back_in_a_second(slow: float) -> None:
    began = time.monotonic()

    async def far(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(slow)
        return web.json_response({"error": "quota"}, status=429, headers={"Retry-After": "3600"})

    async def broken_at_first(request: web.Request) -> web.StreamResponse:
        if time.monotonic() - began < 1.0:
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(said("Because."))

    async with wire(far) as one, wire(broken_at_first) as two, pool_of(one.url, two.url, retries=5) as pool:
        ends = await asyncio.gather(*(pool.complete(ask(n)) for n in range(12)), return_exceptions=True)
    assert [end.text if isinstance(end, Completion) else str(end) for end in ends] == ["Because."] * 12


async def test_where_every_endpoint_asks_for_an_hour_the_error_says_when_to_come_back() -> None:
    far = reply({"error": "quota"}, status=429, headers={"Retry-After": "3600"})
    async with wire(far) as one, wire(far) as two, pool_of(one.url, two.url) as pool:
        with pytest.raises(InferenceError, match="come back in 3600 s"):
            await pool.complete(ask(1))


def test_a_pool_of_different_models_or_of_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="different models: 'a' and 'b'"):
        Pool([Client("http://localhost:1/v1", "a"), Client("http://localhost:2/v1", "b")])
    with pytest.raises(ConfigError, match="no endpoint"):
        Pool([])


async def test_several_urls_are_one_teacher_and_the_calls_are_shared_out(tmp_path: Path) -> None:
    with fault_server(reply=echo, delay=0.02) as one, fault_server(reply=echo, delay=0.02) as two:
        source = await find_teacher([one.url, f"{two.url}/", one.url])
        assert (source.name, source.urls, source.url) == ("stub", (one.url, two.url), one.url)
        async with open_endpoint(source, log_path=tmp_path / "log", max_in_flight=8) as teacher:
            replies = await asyncio.gather(*(teacher.complete(ask(n)) for n in range(40)))
    assert Counter(reply.json()["a"] for reply in replies) == Counter(f"call {n}" for n in range(40))
    assert len(one.asked) + len(two.asked) == 40
    assert min(len(one.asked), len(two.asked)) >= 10


async def test_teachers_that_do_not_go_together_are_refused_and_no_password_is_shown() -> None:
    with fault_server(model="a") as one, fault_server(model="b") as two:
        with pytest.raises(ConfigError, match="different models: 'a' and 'b'"):
            await find_teacher([one.url, two.url])
        with pytest.raises(ConfigError, match="does not serve 'a'"):
            await find_teacher([one.url, two.url], served="a")
        with pytest.raises(ConfigError, match="'bundled' is no URL"):
            await find_teacher([one.url, "bundled"])
        with pytest.raises(ConfigError, match="does not serve") as caught:
            await find_teacher([one.url.replace("//", "//me:hush@")], served="c")
    assert "hush" not in str(caught.value)
    for spec in ("HTTPS://me:hush@127.0.0.1:1/v1", " Http://me:hush@127.0.0.1:1/v1", "ftp://me:hush@127.0.0.1/v1"):
        for specs in ([spec], [spec, "http://127.0.0.1:1/v1"]):
            with pytest.raises(SynthError) as refused:
                await find_teacher(specs)
            assert "hush" not in str(refused.value)
    with pytest.raises(ConfigError, match="no teacher"):
        await find_teacher([])
    with pytest.raises(ConfigError, match="several teachers"):
        await find_teacher(["org/a", "org/b"])
