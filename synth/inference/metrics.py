"""What a vLLM server says of itself at /metrics, in the Prometheus text format."""

from dataclasses import dataclass

# https://docs.vllm.ai/en/stable/usage/metrics/
_NAMES = {
    b"vllm:num_requests_running": "running",
    b"vllm:num_requests_waiting": "waiting",
    b"vllm:prompt_tokens_total": "prompt_tokens",
    b"vllm:generation_tokens_total": "generation_tokens",
    b"vllm:prefix_cache_queries_total": "prefix_cache_queries",
    b"vllm:prefix_cache_hits_total": "prefix_cache_hits",
}


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """Requests in the engine now, and tokens since its start, over all of the server's engines."""

    running: float = 0
    waiting: float = 0
    prompt_tokens: float = 0
    generation_tokens: float = 0
    prefix_cache_queries: float = 0
    prefix_cache_hits: float = 0

    @property
    def tokens(self) -> float:
        """Tokens read and written: they grow while the engine works."""
        return self.prompt_tokens + self.generation_tokens


def parse_metrics(page: bytes) -> EngineMetrics | None:
    """Return vLLM's own figures from a metrics page; None where the page has none of them.

    A sample is `name{labels} value [timestamp]`; values of one name are added up over its labels.
    """
    sums: dict[str, float] = {}
    for line in page.splitlines():
        if not line.startswith(b"vllm:"):
            continue
        name, braced, rest = line.partition(b"{")
        # The labels may hold spaces and braces; the value stands after the last brace.
        value = rest.rpartition(b"}")[2] if braced else b" ".join(line.split()[1:])
        field = _NAMES.get(name if braced else line.split()[0])
        if field is None:
            continue
        try:
            sums[field] = sums.get(field, 0.0) + float(value.split()[0])
        except (ValueError, IndexError):
            continue
    return EngineMetrics(**sums) if sums else None
