"""Reading what a chat endpoint sends: a completion, or an error that says what to do about it."""

import email.utils
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from synth.core.calls import Completion, Usage
from synth.core.errors import InferenceError, RefusedError

# What a server asks us to try again: timeouts, conflicts, rate limits and its own faults.
RETRIED = frozenset({408, 409, 429, *range(500, 600)})

_QUOTED = 300
_READ_OF_ERROR = 256 * 1024
_TOO_LONG = re.compile(r"context.?length|max_model_len|maximum model length|too many tokens|too long", re.I)


class UnusableReplyError(InferenceError):
    """A reply of the right status that holds no completion; asking again may help."""


class EndpointError(InferenceError):
    """The endpoint takes no call of ours at all: a wrong key, address or model name, or no secure connection."""


_OPENED, _CLOSED = "<think>", "</think>"
_FENCED = re.compile(r"\s*```(?:json)?[ \t]*\n(.*?)\n?[ \t]*```\s*", re.S | re.I)
# A 400 that speaks of the key, the account or the model's name is no word about the request.
_NOT_THE_REQUEST = re.compile(
    r"api.?key|credit balance|model\b.{0,80}\b(does not exist|not found)|unknown model|no such model", re.I
)
# What servers without it say of `response_format`, of the grammar behind it and of log probabilities.
_NO_FORMAT = re.compile(r"response_format|json_schema|json.?schema|guided|structured.?output|grammar", re.I)
_NO_LOGPROBS = re.compile(r"log.?prob", re.I)


def completion_of(body: bytes, key: str = "", clean: Callable[[str], str] = str) -> Completion:
    """Read the body of a 200 reply; what a reasoning model thought is split off its text.

    The thoughts come in a field of their own (`reasoning_content` or `reasoning`), or in a `<think>` block
    before the answer, of which only the end is there where the chat template wrote the beginning. Where no answer
    followed them, or max_tokens ended before it began, the text is empty and the finish reason "length": the
    tokens were paid for and have to be counted.

    Args:
        body: the reply.
        key: the completion's key.
        clean: takes secrets out of a text; used before the text is shortened for an error, for half a secret
            would not be known again.

    Raises:
        UnusableReplyError: it is not JSON or has no choices.
        RefusedError: the model or its provider refused, or the model called a tool.
        InferenceError: it wrote nothing.
    """
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UnusableReplyError(
            f"the reply is not JSON: {quote(body, clean)}", fix="check that the URL is an OpenAI-compatible endpoint"
        ) from error
    choices = data.get("choices") if isinstance(data, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise UnusableReplyError(f"the reply has no choices: {quote(message_of(body), clean)}")
    choice = choices[0]
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    finish = str(choice.get("finish_reason") or "stop")
    text = _text(message.get("content"))
    thought = message.get("reasoning_content") or message.get("reasoning")
    reasoning = thought if isinstance(thought, str) else ""
    logprobs = _logprobs(choice) if choice.get("logprobs") else ()
    if text is not None and (_CLOSED in text or _OPENED in text):
        inside, text = _split_thoughts(text)
        reasoning = "\n".join(part for part in (reasoning, inside) if part)
    if text is None or not text.strip():
        _require_answer(message, finish, clean, has_text=text is not None, thought=bool(reasoning))
        if reasoning or text is None:
            text, finish, logprobs = "", "length", ()
    if reasoning:
        logprobs = _after_thoughts(logprobs)
    counts = data.get("usage")
    usage = _usage(counts if isinstance(counts, dict) else {})
    return Completion(text, finish, usage, key, logprobs, reasoning)


def _split_thoughts(text: str) -> tuple[str, str]:
    """Return the reasoning and the answer of a text that has think tags somewhere.

    Tags inside the answer (a JSON string, a sentence about tags) are the answer's.
    """
    begun = text.lstrip()
    if begun.startswith(_OPENED):
        inside, closed, answer = begun[len(_OPENED) :].partition(_CLOSED)
        return (inside.strip(), answer.lstrip()) if closed else (begun[len(_OPENED) :].strip() or "…", "")
    inside, closed, answer = text.partition(_CLOSED)
    # Templates that open the block in the prompt leave the closing tag alone, at the beginning of a line. Elsewhere
    # it is the answer's own, unless the answer proper is JSON.
    alone = closed and _OPENED not in inside and (not inside.strip() or inside.endswith("\n") or _is_json(answer))
    if not alone or (begun[:1] in {"{", "["} and _is_json(text)):
        return "", text
    return inside.strip(), answer.lstrip()


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _after_thoughts(logprobs: tuple[tuple[str, float], ...]) -> tuple[tuple[str, float], ...]:
    """Return the log probabilities of what was written after the think block."""
    written = ""
    for place, (token, _) in enumerate(logprobs):
        written = written[-len(_CLOSED) :] + token
        if _CLOSED in written:
            return logprobs[place + 1 :]
    return logprobs


def unfenced(text: str) -> str:
    """Return the inside of a text that is one fenced code block; any other text as it is."""
    fence = _FENCED.fullmatch(text)
    return fence[1] if fence else text


def lacks_format(status: int, message: str) -> bool:
    """Whether a refusal says that the endpoint does not have the structured output it was asked for."""
    return status in {400, 422} and not _TOO_LONG.search(message) and _NO_FORMAT.search(message) is not None


def lacks_logprobs(status: int, message: str) -> bool:
    """Whether a refusal says that the endpoint gives no log probabilities."""
    return status in {400, 403, 422} and _NO_LOGPROBS.search(message) is not None


def _logprobs(choice: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    """Return the tokens with their log probabilities; none where they were not asked for or are not readable."""
    try:
        # Rounded as the journal has them, so that a replayed call gives what the first one gave.
        return tuple((str(t["token"]), round(float(t["logprob"]), 3)) for t in choice["logprobs"]["content"])
    except (KeyError, TypeError, ValueError):
        return ()


def _text(content: Any) -> str | None:  # noqa: ANN401  (any JSON)
    if isinstance(content, list):  # some servers send text in parts
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(part for part in parts if isinstance(part, str)) if parts else None
    return content if isinstance(content, str) else None


def _usage(counts: Mapping[str, Any]) -> Usage:
    def count(name: str) -> int:
        value = counts.get(name)
        return value if isinstance(value, int) and value >= 0 else 0

    return Usage(count("prompt_tokens"), count("completion_tokens"))


def _require_answer(
    message: Mapping[str, Any], finish: str, clean: Callable[[str], str], *, has_text: bool, thought: bool
) -> None:
    """Raise what a reply without an answer means, unless its tokens ended before the answer began."""
    refusal = message.get("refusal")
    if refusal:
        raise RefusedError(f"the model refused: {quote(str(refusal), clean)}", fix="drop or reword this passage")
    if message.get("tool_calls"):
        raise RefusedError("the model called a tool instead of writing text", fix="serve it without tools")
    if finish == "content_filter":
        raise RefusedError("the provider's content filter withheld the reply", fix="drop this passage")
    if not (has_text or thought or finish == "length"):
        raise InferenceError(f"the reply has no text (finish_reason {finish!r})")


def refusal_of(status: int, message: str, *, where: str, served: str, listed: str) -> InferenceError:
    """Return the error for a status that asking again would not change.

    It is a RefusedError where the request is at fault, and an EndpointError where every request would be refused.

    Args:
        status: the HTTP status.
        message: the server's own words.
        where: the URL, without credentials.
        served: the model's name that was asked for.
        listed: what the endpoint says it serves, in words; may be empty.
    """
    said = f" ({quote(message)})" if message else ""
    if status in {401, 403}:
        return EndpointError(
            f"the endpoint answers {status}: it does not accept the key{said}",
            where=where,
            fix="set SYNTH_API_KEY (or OPENAI_API_KEY) in the environment",
        )
    if 300 <= status < 400:
        return EndpointError(f"the endpoint redirects{said}", where=where, fix="give the URL it leads to")
    if status == 404 and not has_version(where):
        return EndpointError(
            f"there is no chat endpoint at this address{said}", where=where, fix="the URL should end in /v1"
        )
    if status == 404:
        return EndpointError(f"the endpoint has no model {served!r}{said}", where=where, fix=listed or None)
    if status == 413 or _TOO_LONG.search(message):
        return RefusedError(
            f"the request is longer than the model's context{said}",
            where=where,
            fix="make the passages smaller, lower max_tokens, or serve the model with a longer context",
        )
    about_request = status in {400, 422} and not _NOT_THE_REQUEST.search(message)
    kind = RefusedError if about_request else EndpointError
    return kind(f"the endpoint answers {status}{said}", where=where)


def has_version(url: str) -> bool:
    """Whether the path of an endpoint's URL names an API version, as `/v1` does."""
    return re.search(r"/v\d+(beta)?(/|$)", url) is not None


def message_of(body: bytes) -> str:
    """Return the server's own words from an error's body, in whichever form it has; `quote` shortens them."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body[:_READ_OF_ERROR].decode(errors="replace").strip()
    for _ in range(3):  # {"error": {"message": …}}, {"message": …}, {"error": …}, {"detail": …}
        if not isinstance(data, dict):
            break
        data = data.get("error") or data.get("message") or data.get("detail") or ""
    return data if isinstance(data, str) else orjson.dumps(data).decode()


def quote(text: str | bytes, clean: Callable[[str], str] = str) -> str:
    """Return the beginning of a text on one line, for an error, without what `clean` takes out."""
    if isinstance(text, bytes):
        text = text[:_READ_OF_ERROR].decode(errors="replace")
    line = " ".join(clean(text).split())
    return line if len(line) <= _QUOTED else f"{line[:_QUOTED]}…"


def retry_after(header: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for (a number or a date), or None.

    None also for no time and for a time that has passed: our own pause is the better guess then.
    """
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return seconds if 0 < seconds < float("inf") else None
