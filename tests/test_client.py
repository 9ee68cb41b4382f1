import asyncio
import email.utils
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from synth.core.calls import ChatRequest, Sampling
from synth.core.errors import ConfigError, InferenceError, RefusedError
from synth.core.records import Message
from synth.inference.address import Address
from synth.inference.client import MAX_BODY_BYTES, Client, served_models
from synth.inference.limiter import Limiter
from synth.inference.replies import EndpointError, completion_of, retry_after
from synth.inference.tries import Tries, TryAgainError

if TYPE_CHECKING:
    from synth.inference.server import VLLMServer

KEY = "sk-very-secret-0123456789"
ASK = ChatRequest((Message("user", "Why?"),), Sampling(0.3, 0.9, 64, seed=7))

Step = Callable[[web.Request], Awaitable[web.StreamResponse]]


def said(text: str | None, **message: object) -> dict[str, Any]:
    choice = {"message": {"role": "assistant", "content": text, **message}, "finish_reason": "stop"}
    return {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}


def reply(value: object = None, *, status: int = 200, headers: dict[str, str] | None = None) -> Step:
    body = orjson.dumps(said("Because.") if value is None else value)

    async def step(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body, status=status, headers=headers, content_type="application/json")

    return step


async def torn(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"choices": [')
    assert request.transport is not None
    request.transport.abort()
    return response


async def stalled(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


class Wire:
    """An endpoint on loopback that follows a script; its last step answers every further call."""

    def __init__(self, steps: Iterable[Step]) -> None:
        self.steps = list(steps)
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.at_once = self.most_at_once = 0
        self.url = ""

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.times.append(time.monotonic())
        self.asked.append(orjson.loads(await request.read()))
        self.headers.append(dict(request.headers))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self.steps[min(len(self.asked), len(self.steps)) - 1](request)
        finally:
            self.at_once -= 1


@asynccontextmanager
async def wire(*steps: Step, models: Step | None = None, metrics: Step | None = None) -> AsyncIterator[Wire]:
    served = Wire(steps)
    app = web.Application()
    app.router.add_post("/v1/chat/completions", served.chat)
    if models is not None:
        app.router.add_get("/v1/models", models)
    if metrics is not None:
        app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield served
    finally:
        await runner.cleanup()


async def fault(*steps: Step, retries: int = 0, timeout: float = 30, models: Step | None = None) -> InferenceError:
    """Return the error that a client ends with."""
    async with wire(*steps, models=models) as served:
        async with Client(served.url, "m", api_key=KEY, retries=retries, timeout=timeout) as client:
            with pytest.raises(InferenceError) as caught:
                await client.complete(ASK)
        assert len(served.asked) == 1 + (retries if len(steps) == 1 and "tried" in str(caught.value) else 0)
        return caught.value


async def test_a_request_goes_over_the_wire_in_the_openai_form_and_its_reply_comes_back() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    request = ChatRequest(ASK.messages, ASK.sampling, schema)
    async with wire(reply()) as served, Client(f"{served.url}//", "m", model="org/m", api_key=KEY) as client:
        completion = await client.complete(request)
    assert served.asked == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": "Why?"}],
            "temperature": 0.3,
            "top_p": 0.9,
            "max_tokens": 64,
            "seed": 7,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "reply", "strict": True, "schema": schema},
            },
        }
    ]
    assert served.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert (completion.text, completion.finish_reason) == ("Because.", "stop")
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (3, 2)
    assert completion.key == ""  # the journal knows it; to compute it once more would cost as much as the rest


async def test_no_seed_and_no_schema_are_left_out_of_the_request() -> None:
    async with wire(reply()) as served, Client(served.url, "m") as client:
        await client.complete(ChatRequest(ASK.messages))
    assert not {"seed", "response_format"} & served.asked[0].keys()
    assert "Authorization" not in served.headers[0]


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503])
async def test_a_fault_that_may_pass_is_tried_again(status: int) -> None:
    async with wire(reply({}, status=status), reply()) as served, Client(served.url, "m") as client:
        assert (await client.complete(ASK)).text == "Because."
    assert len(served.asked) == 2


@pytest.mark.parametrize("broken", [torn, reply({"choices": []}), reply([]), reply({"error": {"message": "busy"}})])
async def test_a_torn_or_useless_reply_is_tried_again(broken: Step) -> None:
    async with wire(broken, reply()) as served, Client(served.url, "m") as client:
        assert (await client.complete(ASK)).text == "Because."
    assert len(served.asked) == 2


@pytest.mark.parametrize("as_date", [False, True])
async def test_retry_after_is_waited_for_in_seconds_and_as_a_date(as_date: bool) -> None:
    # A date has whole seconds, so two of them ask for more than one.
    after = email.utils.formatdate(time.time() + 2, usegmt=True) if as_date else "1"
    busy = reply({}, status=429, headers={"Retry-After": after})
    async with wire(busy, reply()) as served, Client(served.url, "m") as client:
        await client.complete(ASK)
    assert served.times[1] - served.times[0] >= (0.9 if as_date else 1.0)


async def test_a_retry_after_holds_back_the_other_calls_too() -> None:
    busy = reply({}, status=429, headers={"Retry-After": "1"})
    async with wire(busy, reply()) as served, Client(served.url, "m") as client:
        first = asyncio.create_task(client.complete(ASK))
        while not served.asked:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        await client.complete(ASK)
        await first
    assert min(served.times[1:]) - served.times[0] >= 1.0


@pytest.mark.parametrize("after", ["0", "0.0", "-3", "nan", "inf", "soon", "", email.utils.formatdate(0, usegmt=True)])
def test_a_retry_after_that_names_no_time_to_come_is_none(after: str) -> None:
    assert retry_after(after) is None


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def tried(tries: Tries, clock: Clock, status: int, *, every: float, progress: Callable[[float], bool]) -> float:
    """Return after how many seconds a call is given up that fails every so often."""
    began = clock.now
    while True:
        try:
            assert 0 <= tries.failed(TryAgainError("no", status=status), "here", progress=progress(clock.now)) <= 30
        except InferenceError:
            return clock.now - began
        clock.now += every


def test_a_busy_endpoint_is_given_up_by_time_without_any_answer_and_a_broken_one_by_tries() -> None:
    clock = Clock()
    assert tried(Tries(5, 600, clock), clock, 500, every=1, progress=lambda now: True) == 5
    assert tried(Tries(5, 600, clock), clock, 429, every=1, progress=lambda now: False) == 121
    assert tried(Tries(5, 20, clock), clock, 503, every=1, progress=lambda now: False) == 21
    assert tried(Tries(5, 600, clock), clock, 429, every=200, progress=lambda now: False) == 1000
    assert tried(Tries(0, 600, clock), clock, 429, every=1, progress=lambda now: True) == 0
    # A service with windows of a minute answers somebody once a minute; no call waits for ever, though.
    clock.now = 0.0
    assert tried(Tries(5, 600, clock), clock, 429, every=10, progress=lambda now: now % 60 == 0) == 2410


async def test_a_service_that_counts_in_windows_and_names_no_time_answers_every_call() -> None:
    began = time.monotonic()
    given: Counter[int] = Counter()

    async def windows(_: web.Request) -> web.StreamResponse:
        window = int((time.monotonic() - began) / 1.5)
        given[window] += 1
        full = given[window] > 4
        return web.json_response({"error": "rate limit"} if full else said("Because."), status=429 if full else 200)

    async with wire(windows) as served, Client(served.url, "m", retries=1, timeout=30) as client:
        replies = await asyncio.gather(*(client.complete(ASK) for _ in range(10)))
    assert [completion.text for completion in replies] == ["Because."] * 10
    assert len(given) >= 3


async def test_a_retry_after_beyond_the_timeout_fails_at_once_and_says_when_to_come_back() -> None:
    error = await fault(reply({}, status=429, headers={"Retry-After": "3600"}), retries=5)
    assert "come back in 3600 s" in str(error)


async def test_an_engine_that_answers_500_to_every_call_is_named_as_dead() -> None:
    error = await fault(reply({"error": {"message": "EngineCore encountered an issue"}}, status=500), retries=1)
    assert "engine may be dead" in str(error)
    assert "EngineCore encountered an issue" in str(error)
    assert "tried 2 times" in str(error)


async def test_a_stalled_server_ends_in_an_error_about_time() -> None:
    error = await fault(stalled, timeout=0.2)
    assert "no reply came in time" in str(error)


async def test_nobody_at_the_port_is_said_in_plain_words() -> None:
    async with wire() as served:
        url = served.url
    async with Client(url, "m", retries=0) as client:
        with pytest.raises(InferenceError, match="nobody answers.*start the server") as caught:
            await client.complete(ASK)
    assert caught.value.where == url
    with pytest.raises(InferenceError, match="nobody answers"):
        await served_models(url)


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (401, "Incorrect API key", "set SYNTH_API_KEY"),
        (403, "no", "set SYNTH_API_KEY"),
        (400, "This model's maximum context length is 1024 tokens", "make the passages smaller"),
        (400, "temperature must be positive", "temperature must be positive"),
        (413, "", "make the passages smaller"),
        (422, "top_p", "answers 422 (top_p)"),
        (307, "", "give the URL it leads to"),
    ],
)
async def test_a_refusal_is_not_tried_again_and_names_the_fix(status: int, message: str, expected: str) -> None:
    error = await fault(reply({"error": {"message": message}}, status=status), retries=3)
    assert expected in str(error)


async def test_an_unknown_model_is_answered_with_the_models_there_are() -> None:
    models = reply({"data": [{"id": "mm"}, {"id": "other"}]})
    error = await fault(reply({"error": {"message": "no such model"}}, status=404), models=models)
    assert "'m'" in str(error)
    assert "mm" in str(error)


async def test_a_url_without_its_version_gets_a_hint() -> None:
    async with wire(reply()) as served:
        async with Client(served.url.removesuffix("/v1"), "m") as client:
            with pytest.raises(InferenceError, match="should end in /v1"):
                await client.complete(ASK)
        with pytest.raises(InferenceError, match="should end in /v1"):
            await served_models(served.url.removesuffix("/v1"))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"refusal": "I cannot help"}, "refused: I cannot help"),
        ({"tool_calls": [{"id": "1"}]}, "called a tool"),
        ({}, "has no text"),
    ],
)
async def test_a_reply_without_text_says_why_and_is_not_tried_again(message: dict[str, Any], expected: str) -> None:
    error = await fault(reply(said(None, **message)), retries=3)
    assert expected in str(error)
    assert isinstance(error, RefusedError) == bool(message)


@pytest.mark.parametrize("text", [None, ""])
def test_a_reply_that_a_filter_withheld_is_a_refusal(text: str | None) -> None:
    value = said(text)
    value["choices"][0]["finish_reason"] = "content_filter"
    with pytest.raises(RefusedError, match="content filter"):
        completion_of(orjson.dumps(value))


@pytest.mark.parametrize(
    ("status", "message", "about_request"),
    [
        (400, "temperature must be positive", True),
        (400, "This model's maximum context length is 1024 tokens", True),
        (413, "", True),
        (422, "top_p", True),
        (400, "API key not valid", False),
        (400, "The model `m` does not exist", False),
        (401, "", False),
        (402, "pay first", False),
        (403, "", False),
        (404, "", False),
        (307, "", False),
    ],
)
async def test_a_refusal_says_whether_it_is_of_this_request_or_of_all(
    status: int, message: str, about_request: bool
) -> None:
    error = await fault(reply({"error": {"message": message}}, status=status))
    assert isinstance(error, RefusedError) == about_request
    assert isinstance(error, EndpointError) != about_request


async def test_a_reply_that_is_no_json_names_what_came() -> None:
    async def page(_: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>Log in</html>", content_type="text/html")

    assert "<html>Log in</html>" in str(await fault(page))


async def test_an_endless_reply_is_cut_off() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(2 * MAX_BODY_BYTES >> 20):
            await response.write(b" " * (1 << 20))
        return response

    assert "longer than 64 MiB" in str(await fault(endless))


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 200])
async def test_the_key_is_in_no_error_even_where_the_server_repeats_it(status: int) -> None:
    async def echo(request: web.Request) -> web.StreamResponse:
        return web.Response(text=f"bad: {request.headers['Authorization']}", status=status)

    error: BaseException | None = await fault(echo)
    seen = []
    while error is not None:
        seen.append(f"{error!r} {error} {getattr(error, 'fix', '')}")
        error = error.__cause__
    assert KEY not in " ".join(seen)
    assert "***" in seen[0]


@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize("refusal", [False, True])
async def test_no_part_of_the_key_is_in_an_error_where_the_servers_words_are_cut_short(
    status: int, refusal: bool
) -> None:
    key = "sk-" + "k" * 45

    for before in (250, 270, 290, 298, 1160, 1190):

        async def echo(_: web.Request, before: int = before) -> web.StreamResponse:
            words = "x" * (before - 1) + " " + key + " and more"
            if refusal:
                return web.json_response(said(None, refusal=words), status=status)
            return web.Response(text=f"<html>{words}", status=status)

        async with wire(echo) as served, Client(served.url, "m", api_key=key, retries=0) as client:
            with pytest.raises(InferenceError) as caught:
                await client.complete(ASK)
        assert "sk-" not in str(caught.value)


def test_secrets_of_the_url_are_cleaned_in_every_spelling() -> None:
    address = Address("https://a-long-token-as-user@h/v1?key=q/u+e%20ry", None)
    said = "a-long-token-as-user, q/u+e ry, q%2Fu%2Be%20ry, q%2Fu%2Be+ry"
    assert "token" not in address.clean(said)
    assert address.clean("q%2Fu e%20ry") == "q%2Fu e%20ry"
    password = Address("https://me:p%40ss%2Fword@h/v1", None)
    assert password.clean("me: p@ss/word p%40ss%2Fword") == "me: *** ***"
    assert Address("http://h/v1", "k&y/1").clean("k&y/1 k%26y%2F1") == "*** ***"


def test_the_key_and_the_password_are_not_in_the_repr() -> None:
    client = Client("http://me:pass-word@localhost:1/v1?key=query-key", "m", api_key=KEY)
    assert repr(client) == "Client('http://localhost:1/v1', 'm')"


@pytest.mark.parametrize("url", ["", "localhost:8000/v1", "ftp://x/v1", "http://", KEY])
def test_a_url_that_is_none_is_a_config_error_that_does_not_repeat_it(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Client(url, "m")
    assert KEY not in str(caught.value)


async def test_no_more_calls_run_at_once_than_asked_for() -> None:
    async def slow(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.02)
        return web.json_response(said("x"))

    async with wire(slow) as served, Client(served.url, "m", max_in_flight=3) as client:
        await asyncio.gather(*(client.complete(ASK) for _ in range(12)))
    assert served.most_at_once == 3


async def test_a_client_that_is_not_open_says_so() -> None:
    with pytest.raises(InferenceError, match="not open"):
        await Client("http://127.0.0.1:9/v1", "m").complete(ASK)


async def test_served_models_are_listed_and_an_endpoint_without_a_list_has_none() -> None:
    async with wire(models=reply({"data": [{"id": "a"}, {"id": "b"}]})) as served:
        assert await served_models(served.url, KEY) == ["a", "b"]
    async with wire() as served:
        assert await served_models(served.url) == []
    async with wire(models=reply({"models": []})) as served:
        with pytest.raises(InferenceError, match="no list of models"):
            await served_models(served.url)
    async with wire(models=reply({"error": "who?"}, status=401)) as served:
        with pytest.raises(InferenceError, match="SYNTH_API_KEY"):
            await served_models(served.url)


SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


def lacking(*words: str, status: int = 400) -> Step:
    """Refuse a request that asks for one of `words`, and answer any other."""

    async def step(request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        asked = orjson.dumps({key: value for key, value in body.items() if key != "messages"}).decode()
        for word in words:
            if f'"{word}"' in asked:
                return web.json_response({"error": {"message": f"{word} is not supported here"}}, status=status)
        return web.json_response(said('```json\n{"a": "x"}\n```' if "response_format" not in body else '{"a": "x"}'))

    return step


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize(
    ("missing", "forms"),
    [
        (["json_schema"], ["json_schema", "json_object", "json_object"]),
        (["response_format"], ["json_schema", "json_object", None, None]),
        ([], ["json_schema", "json_schema"]),
    ],
)
async def test_an_endpoint_without_json_schemas_is_asked_for_less_once_and_for_all(
    status: int, missing: list[str], forms: list[str | None]
) -> None:
    request = ChatRequest(ASK.messages, ASK.sampling, SCHEMA)
    async with wire(lacking(*missing, status=status)) as served, Client(served.url, "m", retries=0) as client:
        for _ in range(2):
            assert (await client.complete(request)).json() == {"a": "x"}
        assert client.stats().retries == 0
    assert [body.get("response_format", {}).get("type") for body in served.asked] == forms
    for body, form in zip(served.asked, forms, strict=True):
        in_words = orjson.dumps(SCHEMA).decode() in body["messages"][-1]["content"]
        assert in_words == (form != "json_schema")


async def test_many_calls_at_once_ask_for_less_together_and_one_bad_schema_changes_nothing_for_the_others() -> None:
    good = ChatRequest(ASK.messages, ASK.sampling, SCHEMA)
    bad = ChatRequest(ASK.messages, ASK.sampling, {**SCHEMA, "$comment": "unsupported"})
    async with wire(lacking("json_schema")) as served, Client(served.url, "m", retries=0) as client:
        await asyncio.gather(*(client.complete(good) for _ in range(10)))
        await client.complete(good)
    assert served.asked[-1]["response_format"] == {"type": "json_object"}
    assert len(served.asked) == 21

    async def grammar(request: web.Request) -> web.StreamResponse:
        if "unsupported" in str(orjson.loads(await request.read()).get("response_format")):
            return web.json_response({"error": {"message": "the grammar has unsupported features"}}, status=400)
        return web.json_response(said('{"a": "x"}'))

    async with wire(grammar) as served, Client(served.url, "m", retries=0) as client:
        for request in (good, bad, good):
            await client.complete(request)
    forms = [body["response_format"]["type"] for body in served.asked]
    assert forms == ["json_schema", "json_schema", "json_object", "json_schema"]


def schema_of(name: str) -> ChatRequest:
    return ChatRequest(ASK.messages, ASK.sampling, {"type": "object", "properties": {name: {"type": "string"}}})


async def test_one_refused_schema_is_asked_for_in_words_and_the_others_as_before() -> None:
    async def picky(request: web.Request) -> web.StreamResponse:
        asked = orjson.loads(await request.read()).get("response_format", {})
        if "bad" in str(asked.get("json_schema")):
            message = "Invalid schema for response_format 'reply': 'pattern' is not permitted"
            return web.json_response({"error": {"message": message}}, status=400)
        return web.json_response(said("{}"))

    async with wire(picky) as served, Client(served.url, "m", retries=0) as client:
        for name in ("bad", "good", "bad", "good", "worse, bad too"):
            await client.complete(schema_of(name))
    forms = [body["response_format"]["type"] for body in served.asked]
    first, again, new = ["json_schema", "json_object"], ["json_object"], ["json_schema", "json_object"]
    assert forms == [*first, "json_schema", *again, "json_schema", *new]


async def test_two_refused_schemas_and_none_accepted_are_enough_for_all() -> None:
    async with wire(lacking("json_schema")) as served, Client(served.url, "m", retries=0) as client:
        for name in "abcd":
            await client.complete(schema_of(name))
    forms = [body["response_format"]["type"] for body in served.asked]
    assert forms == ["json_schema", "json_object"] * 2 + ["json_object"] * 2


async def test_a_refusal_that_only_mentions_the_length_is_no_missing_format() -> None:
    long = reply({"error": {"message": "json_schema: maximum context length is 9 tokens"}}, status=400)
    async with wire(long) as served, Client(served.url, "m", retries=0) as client:
        with pytest.raises(InferenceError, match="longer than the model's context"):
            await client.complete(ChatRequest(ASK.messages, ASK.sampling, SCHEMA))
    assert len(served.asked) == 1


async def test_an_endpoint_without_log_probabilities_is_not_asked_again() -> None:
    async with wire(lacking("logprobs")) as served, Client(served.url, "m", retries=0, logprobs=True) as client:
        await client.complete(ASK)
        await client.complete(ASK)
    assert ["logprobs" in body for body in served.asked] == [True, False, False]


@pytest.mark.parametrize(
    ("content", "thought", "answer"),
    [
        ("<think>Hm.\nSo.</think>\n\nYes.", "Hm.\nSo.", "Yes."),
        ("\n<think>\n\n</think>\n\nYes.", "", "Yes."),
        ("Hm.\n</think>\n\nYes.", "Hm.", "Yes."),
        ('Hm.</think>\n{"a": 1}', "Hm.", '{"a": 1}'),
        ('{"a": "x"} or so\n</think>\n{"a": 1}', '{"a": "x"} or so', '{"a": 1}'),
        ('{"a": "<think>x</think>"}', "", '{"a": "<think>x</think>"}'),
        ('{"a": "y",\n"b": "</think>"}', "", '{"a": "y",\n"b": "</think>"}'),
        ("The tag </think> closes what <think> opens.", "", "The tag </think> closes what <think> opens."),
        ("Write <think> first.", "", "Write <think> first."),
        ("To close a trace write </think>\nand go on.", "", "To close a trace write </think>\nand go on."),
        ("It ends with </think>", "", "It ends with </think>"),
        ("</think>\n\nYes.", "", "Yes."),
    ],
)
def test_a_think_block_is_split_off_and_tags_in_the_answer_stay(content: str, thought: str, answer: str) -> None:
    completion = completion_of(orjson.dumps(said(content)))
    assert (completion.reasoning, completion.text) == (thought, answer)


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_in_a_field_of_its_own_is_kept_apart(field: str) -> None:
    completion = completion_of(orjson.dumps(said("Yes.", **{field: "Hm."})))
    assert (completion.reasoning, completion.text) == ("Hm.", "Yes.")
    assert completion_of(orjson.dumps(said("Yes.", **{field: None}))).reasoning == ""


@pytest.mark.parametrize(
    ("content", "message", "finish", "thought"),
    [
        ("<think>Hm, hm, hm", {}, "length", "Hm, hm, hm"),
        ("<think>Hm.</think>\n", {}, "stop", "Hm."),
        ("Hm.\n</think>", {}, "stop", "Hm."),
        (None, {"reasoning_content": "Hm."}, "stop", "Hm."),
        ("", {"reasoning": "Hm."}, "length", "Hm."),
        (None, {}, "length", ""),
        ("", {}, "length", ""),
    ],
)
def test_a_model_that_only_thought_is_paid_for_and_told_to_have_more_tokens(
    content: str | None, message: dict[str, str], finish: str, thought: str
) -> None:
    value = said(content, **message)
    value["choices"][0] |= {"finish_reason": finish, "logprobs": {"content": [{"token": "Hm", "logprob": -1.0}]}}
    completion = completion_of(orjson.dumps(value))
    assert (completion.text, completion.finish_reason, completion.reasoning) == ("", "length", thought)
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (3, 2)
    with pytest.raises(InferenceError, match="before it began its answer; raise max_tokens, or switch its thinking"):
        completion.json()


def test_log_probabilities_are_those_of_the_answer() -> None:
    tokens = ["<think>", "Hm", "</th", "ink>", "Yes", "."]
    value = said("<think>Hm</think>Yes.")
    value["choices"][0]["logprobs"] = {"content": [{"token": token, "logprob": -1.0} for token in tokens]}
    assert completion_of(orjson.dumps(value)).logprobs == (("Yes", -1.0), (".", -1.0))


async def test_a_user_and_password_in_the_url_are_sent_as_basic_authentication() -> None:
    async with wire(reply()) as served, Client(served.url.replace("//", "//me:pass@"), "m") as client:
        await client.complete(ASK)
        assert "pass" not in repr(client)
    assert served.headers[0]["Authorization"] == "Basic bWU6cGFzcw=="


@pytest.mark.parametrize("bypassed", [False, True])
async def test_the_proxy_of_the_environment_is_used_unless_it_is_bypassed(
    bypassed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with wire(reply()) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        monkeypatch.setenv("no_proxy", "teacher.invalid" if bypassed else "")
        async with Client("http://teacher.invalid/v1", "m", retries=0) as client:
            if bypassed:
                with pytest.raises(InferenceError, match="nobody answers"):
                    await client.complete(ASK)
            else:
                assert (await client.complete(ASK)).text == "Because."
    assert len(proxy.asked) == (0 if bypassed else 1)


async def test_a_closed_client_ends_its_calls_even_in_the_middle_of_a_reply() -> None:
    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"choices": [')
        return await stalled(request)

    for step in (half, stalled):
        async with wire(step) as served:
            async with Client(served.url, "m", retries=0) as client:
                call = asyncio.create_task(client.complete(ASK))
                while not served.asked:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.1)
            with pytest.raises(InferenceError, match="closed|broke"):
                await asyncio.wait_for(call, 5)


async def test_the_metrics_of_vllm_are_in_the_stats() -> None:
    page = b'vllm:num_requests_waiting{engine="0"} 3.0\nvllm:prefix_cache_hits_total{engine="0"} 5.0\n'

    async def metrics(_: web.Request) -> web.StreamResponse:
        return web.Response(body=page)

    async with wire(reply()) as served, Client(served.url, "m") as client:
        with pytest.raises(LookupError):
            await client.read_metrics()
    async with wire(reply(), metrics=metrics) as served, Client(served.url, "m") as client:
        await client.read_metrics()
        assert (client.stats().waiting, client.stats().prefix_cache_hits) == (3, 5)


@pytest.mark.parametrize("fault", [502, 503, 429])
async def test_one_bad_answer_of_the_metrics_page_does_not_end_the_watch_and_three_let_the_limit_go(
    fault: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("synth.inference.client._FIRST_METRICS", 0.02)
    monkeypatch.setattr("synth.inference.client._METRICS_EVERY", 0.02)
    asked = 0

    async def metrics(_: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        if asked in {2, 3} or asked > 6:
            return web.Response(status=fault)
        return web.Response(text="vllm:num_requests_running 4\nvllm:num_requests_waiting 12\n")

    async def slow(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.8)
        return web.json_response(said("x"))

    async with wire(slow, metrics=metrics) as served, Client(served.url, "m", max_in_flight=64, start_in_flight=4) as c:
        calls = asyncio.gather(*(c.complete(ASK) for _ in range(4)))
        while asked < 12:
            await asyncio.sleep(0.01)
            assert not calls.done()
        await calls
        assert c.limit > 4  # a queue of 12 for a batch of 4 held it until nothing was heard any more


async def test_a_page_that_is_not_there_is_asked_for_once_and_holds_nothing() -> None:
    limiter = Limiter(64, start=4)
    limiter.observe(running=4, waiting=12)
    assert limiter.try_enter()
    limiter.succeeded(time.monotonic())
    assert limiter.limit == 4
    limiter.observe_no_more()
    for _ in range(3):
        assert limiter.try_enter()
    limiter.succeeded(time.monotonic())
    assert limiter.limit == 5
    for status, gone in ((404, True), (405, True), (302, True), (502, False), (429, False)):
        async with wire(metrics=reply({}, status=status)) as served, Client(served.url, "m") as client:
            if gone:
                with pytest.raises(LookupError):
                    await client.read_metrics()
            else:
                assert await client.read_metrics() is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**40) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "usage", "prompt_tokens", "finish_reason", "text"]), inner
        )
    ),
    max_leaves=12,
)


@given(st.binary(max_size=60) | json_values.map(orjson.dumps))
def test_whatever_comes_is_a_completion_or_an_inference_error(body: bytes) -> None:
    try:
        completion = completion_of(body, "k")
    except InferenceError as error:
        assert str(error)
    else:
        assert isinstance(completion.text, str)
        assert completion.usage.prompt_tokens >= 0


@pytest.mark.vllm
async def test_the_real_engine_repeats_a_seed_keeps_to_a_schema_and_refuses_what_is_too_long(
    engine: "VLLMServer",
) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"enum": ["one", "two"]}, "b": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    async with Client(engine.base_url, engine.served) as client:
        plain = ChatRequest((Message("user", "<passage>The Orla lamp costs 40 pounds.</passage>"),), Sampling(seed=3))
        first, again = await asyncio.gather(client.complete(plain), client.complete(plain))
        assert first == again
        assert first.usage.completion_tokens > 0
        reply = await client.complete(ChatRequest(plain.messages, Sampling(seed=1), schema))
        # Compact: the grammar leaves no room for white space, so nothing can loop there.
        assert reply.text.encode() == orjson.dumps(reply.json())
        with pytest.raises(InferenceError, match="longer than the model's context"):
            await client.complete(ChatRequest((Message("user", "lamp " * 5000),)))
        async with Client(engine.base_url, "nobody") as other:
            with pytest.raises(InferenceError, match=f"no model 'nobody'.*{engine.served}"):
                await other.complete(plain)
    assert await served_models(engine.base_url) == [engine.served]
