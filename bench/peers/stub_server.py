"""`python bench/peers/stub_server.py --port 8000`: an endpoint that answers every tool in the format it asks for.

It waits a set time and then writes a valid reply, so what a bench against it measures is the client alone: how
soon it starts, how many calls it keeps open, what it does around a call. The words of a reply come from the prompt.

Four ways of asking are understood: `response_format` with a JSON Schema, a forced tool call, a JSON Schema in
`<response_schema>` tags (answered in a Markdown fence), and a JSON list of pairs asked for in plain words. Where a
list's length is open, it is the number that the prompt names. Anything else gets two sentences.

`GET /stats` says how many calls were answered and how many were open at most; `POST /reset` begins again.
"""

import argparse
import asyncio
import json
import random
import re
import time
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

MODEL = "stub"
_CHARS_A_TOKEN = 4
_PAIRS_ASKED = re.compile(r"\b(\d{1,3})\s+(?:\w+[ -]){0,3}?(?:pairs?|questions?)\b", re.IGNORECASE)
_SCHEMA_IN_TEXT = re.compile(r"<response_schema>\s*(\{.*?\})\s*</response_schema>", re.DOTALL)
_WORD = re.compile(r"[A-Za-z][\w'-]*")


class Writer:
    """Writes one reply: a valid instance of a schema, in words of the prompt, unlike every other reply.

    Args:
        prompt: all the text of the request.
        number: the number of the call; it stands in each question, so that no two are equal.
    """

    def __init__(self, prompt: str, number: int) -> None:
        self._words = _WORD.findall(prompt[-6000:]) or ["nothing"]
        self._random = random.Random(number)
        self._number = number
        self._questions = 0
        asked = _PAIRS_ASKED.search(prompt)
        self.pairs = int(asked[1]) if asked else 1

    def text(self, words: int) -> str:
        """Return so many neighbouring words of the prompt."""
        start = self._random.randrange(max(1, len(self._words) - words))
        return " ".join(self._words[start : start + words])

    def question(self) -> str:
        """Return a question that was not asked before."""
        self._questions += 1
        return f"What does part {self._number}.{self._questions} say about {self.text(6)}?"

    def instance(self, schema: Mapping[str, Any], root: Mapping[str, Any], name: str = "") -> Any:  # noqa: ANN401
        """Return a value that follows `schema`; `root` holds its definitions."""
        if "$ref" in schema:
            target: Any = root
            for part in schema["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            return self.instance(target, root, name)
        for union in ("anyOf", "oneOf", "allOf"):
            if union in schema:
                return self.instance(schema[union][0], root, name)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._random.choice(schema["enum"])
        kind = schema.get("type", "object")
        kind = kind if isinstance(kind, str) else kind[0]
        if kind == "object":
            return {key: self.instance(value, root, key) for key, value in schema.get("properties", {}).items()}
        if kind == "array":
            first = [self.instance(item, root, name) for item in schema.get("prefixItems", [])]
            if not isinstance(schema.get("items"), dict):
                return first
            length = min(max(self.pairs, schema.get("minItems", 1)), schema.get("maxItems", 1_000))
            return first + [self.instance(schema["items"], root, name) for _ in range(length - len(first))]
        if kind == "string":
            text = self.question() if "question" in name else self.text(10)
            return text[: schema.get("maxLength", len(text))].ljust(schema.get("minLength", 0), ".")
        if kind in {"integer", "number"}:
            return max(schema.get("minimum", 0), min(schema.get("maximum", 1), 1))
        return {"boolean": True, "null": None}[kind]

    def pair_list(self) -> str:
        """Return a JSON list of pairs."""
        pairs = [{"question": self.question(), "answer": self.text(10)} for _ in range(self.pairs)]
        return json.dumps(pairs, indent=1)


def message_for(body: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return the assistant's message for one request."""
    prompt = "\n".join(_text(message) for message in body["messages"])
    writer = Writer(prompt, number)
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        schema = wanted["json_schema"]["schema"]
        return {"role": "assistant", "content": orjson.dumps(writer.instance(schema, schema)).decode()}
    if body.get("tools") and isinstance(body.get("tool_choice"), dict):
        function = body["tools"][0]["function"]
        arguments = orjson.dumps(writer.instance(function["parameters"], function["parameters"])).decode()
        call = {
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": function["name"], "arguments": arguments},
        }
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    if found := _SCHEMA_IN_TEXT.search(prompt):
        schema = json.loads(found[1])
        written = orjson.dumps(writer.instance(schema, schema)).decode()
        return {"role": "assistant", "content": f"```json\n{written}\n```"}
    if '"question"' in prompt and "json" in prompt.lower():
        return {"role": "assistant", "content": writer.pair_list()}
    return {"role": "assistant", "content": f"{writer.text(20)}. {writer.text(20)}."}


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "\n".join(part.get("text", "") for part in content)


class Stub:
    """The handlers and the counts."""

    def __init__(self, delay: float, token_delay: float) -> None:
        self._delay, self._token_delay = delay, token_delay
        self._numbers = 0
        self._reset()

    def _reset(self) -> None:
        self.calls = self.open = self.most_open = 0
        self.first = self.last = 0.0

    async def chat(self, request: web.Request) -> web.Response:
        """Answer one chat completion."""
        body = orjson.loads(await request.read())
        self.first = self.first or time.monotonic()
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            choices = [self._choice(body, index) for index in range(body.get("n") or 1)]
            tokens = [len(_written(choice["message"])) // _CHARS_A_TOKEN + 1 for choice in choices]
            await asyncio.sleep(self._delay + self._token_delay * max(tokens))
        finally:
            self.open -= 1
        read = sum(len(_text(part)) for part in body["messages"]) // _CHARS_A_TOKEN
        reply = {
            "id": f"chatcmpl-{self._numbers}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": MODEL,
            "choices": choices,
            "usage": {"prompt_tokens": read, "completion_tokens": sum(tokens), "total_tokens": read + sum(tokens)},
        }
        self.calls += 1
        self.last = time.monotonic()
        return web.Response(body=orjson.dumps(reply), content_type="application/json")

    def _choice(self, body: Mapping[str, Any], index: int) -> dict[str, Any]:
        self._numbers += 1
        message = message_for(body, self._numbers)
        return {
            "index": index,
            "message": message,
            "finish_reason": "tool_calls" if "tool_calls" in message else "stop",
            "logprobs": {"content": _logprobs(_written(message))} if body.get("logprobs") else None,
        }

    async def models(self, request: web.Request) -> web.Response:
        """List the one model."""
        return web.json_response({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "stub"}]})

    async def stats(self, request: web.Request) -> web.Response:
        """Return the counts since the last reset; `seconds` runs from the first request to the last reply."""
        seconds = self.last - self.first if self.calls else 0.0
        return web.json_response({"calls": self.calls, "most_open": self.most_open, "seconds": seconds})

    async def reset(self, request: web.Request) -> web.Response:
        """Begin to count again."""
        self._reset()
        return web.json_response({})


def _written(message: Mapping[str, Any]) -> str:
    written: str = message["content"] or message["tool_calls"][0]["function"]["arguments"]
    return written


def _logprobs(written: str) -> list[dict[str, Any]]:
    tokens = [written[i : i + _CHARS_A_TOKEN] for i in range(0, len(written), _CHARS_A_TOKEN)]
    return [{"token": token, "logprob": -0.05, "bytes": None, "top_logprobs": []} for token in tokens]


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--delay", type=float, default=0.05, help="seconds until a reply comes")
    parser.add_argument("--token-delay", type=float, default=0.0, help="seconds more for each token written")
    options = parser.parse_args()
    stub = Stub(options.delay, options.token_delay)
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/v1/chat/completions", stub.chat)
    app.router.add_get("/v1/models", stub.models)
    app.router.add_get("/stats", stub.stats)
    app.router.add_post("/reset", stub.reset)
    web.run_app(app, host="127.0.0.1", port=options.port, print=None)


if __name__ == "__main__":
    main()
