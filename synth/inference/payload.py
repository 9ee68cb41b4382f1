"""The body of a chat request as every OpenAI-compatible service takes it, over HTTP or in a batch file."""

from typing import Any

from synth.core.calls import ChatRequest


def chat_body(request: ChatRequest, served: str, *, logprobs: bool = False) -> dict[str, Any]:
    """Return what is posted to `/v1/chat/completions`.

    Args:
        request: what is asked.
        served: the model's name at the service.
        logprobs: whether to ask for the log probability of each token; some hosted models refuse that.
    """
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": served,
        "messages": [{"role": m.role, "content": m.content} for m in request.messages],
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
    }
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if logprobs or sampling.logprobs:
        body["logprobs"] = True
    if request.schema is not None:
        asked = {"name": "reply", "strict": True, "schema": request.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": asked}
    return body
