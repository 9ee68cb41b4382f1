"""A teacher that follows a script: the public test double for generators, stages and clients."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from synth.core.calls import ChatRequest, Completion, Sampling, Usage
from synth.core.errors import InferenceError
from synth.core.records import Message


class ScriptedTeacher:
    """Answers from a function or a list, and keeps what it was asked; an `Endpoint` and a `Teacher`.

    Nothing about it is random: the same requests in the same order get the same completions. Words
    (split at white space) stand for tokens in `usage`.

    Args:
        reply: a function of the request that returns the text, a whole `Completion`, or an exception to
            raise; or a sequence of texts, given out in the order of asking.
        model: the name that stands in content keys and provenance.

    Attributes:
        requests: every request so far, in the order of asking.
    """

    def __init__(
        self,
        reply: Callable[[ChatRequest], str | Completion | Exception] | Sequence[str],
        *,
        model: str = "scripted",
    ) -> None:
        self._reply = reply
        self._model = model
        self._asked: Counter[str] = Counter()
        self.requests: list[ChatRequest] = []

    @property
    def model(self) -> str:
        """The name that stands in content keys and provenance."""
        return self._model

    @property
    def revision(self) -> str:
        """An empty string: a script has no weights."""
        return ""

    async def complete(self, request: ChatRequest) -> Completion:
        """Answer one request as the script says.

        Raises:
            InferenceError: the sequence of replies is at its end.
            Exception: the exception that the script gave as its reply.
        """
        self.requests.append(request)
        reply = self._next(request)
        if isinstance(reply, Exception):
            raise reply
        key = request.key(self._model)
        if isinstance(reply, Completion):
            return replace(reply, key=key)
        prompt_words = sum(len(m.content.split()) for m in request.messages)
        return Completion(reply, usage=Usage(prompt_words, len(reply.split())), key=key)

    async def chat(
        self,
        messages: Sequence[Message],
        *,
        schema: Mapping[str, Any] | None = None,
        sampling: Sampling | None = None,
    ) -> Completion:
        """Ask as a generator does; equal calls are numbered in the request's `index`.

        Raises:
            InferenceError: the sequence of replies is at its end.
            Exception: the exception that the script gave as its reply.
        """
        request = ChatRequest(tuple(messages), sampling or Sampling(), schema)
        asked = request.key(self._model)
        index = self._asked[asked]
        self._asked[asked] += 1
        return await self.complete(replace(request, index=index))

    def _next(self, request: ChatRequest) -> str | Completion | Exception:
        if callable(self._reply):
            return self._reply(request)
        position = len(self.requests) - 1
        if position >= len(self._reply):
            raise InferenceError(
                f"the script has {len(self._reply)} replies and was asked {position + 1} times",
                fix="give ScriptedTeacher more replies, or a function",
            )
        return self._reply[position]
