"""Documents in, a dataset out: a teacher writes question/response pairs, a filter decides, all is kept.

The names below are the public API. They load on first use, so `import synth` costs nothing and
`tune`, which needs only the core, does not pay for the rest. None loads torch, transformers or vLLM.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synth.core.calls import ChatRequest, Completion, Endpoint, EndpointStats, Sampling, Teacher, Usage
    from synth.core.errors import (
        ConfigError,
        DocumentError,
        InferenceError,
        Interrupted,
        RecordError,
        RunError,
        SynthError,
    )
    from synth.core.prompts import fence
    from synth.core.records import Decision, Document, Evidence, Message, Passage, Provenance, Record
    from synth.core.runs import Run
    from synth.filter import decide, run_ablate, run_filter
    from synth.filtering.ablate import Ablation
    from synth.filtering.config import FilterConfig
    from synth.filtering.explain import Story, explain
    from synth.filtering.ledger import FilterSummary
    from synth.filters.base import Scorer
    from synth.generate import GenerateConfig, GenerateSummary, run_generate
    from synth.generators.base import Generator, ReplyError, ask_json
    from synth.generators.examples import Example, load_examples
    from synth.generators.find import find_generator, generator
    from synth.inference.endpoints import find_model, find_teacher, open_endpoint
    from synth.inference.scripted import ScriptedTeacher

__all__ = [
    "Ablation",
    "ChatRequest",
    "Completion",
    "ConfigError",
    "Decision",
    "Document",
    "DocumentError",
    "Endpoint",
    "EndpointStats",
    "Example",
    "Evidence",
    "FilterConfig",
    "FilterSummary",
    "GenerateConfig",
    "GenerateSummary",
    "Generator",
    "InferenceError",
    "Interrupted",
    "Message",
    "Passage",
    "Provenance",
    "Record",
    "RecordError",
    "ReplyError",
    "Run",
    "RunError",
    "Sampling",
    "Scorer",
    "ScriptedTeacher",
    "Story",
    "SynthError",
    "Teacher",
    "Usage",
    "ask_json",
    "decide",
    "explain",
    "fence",
    "find_generator",
    "find_model",
    "find_teacher",
    "generator",
    "load_examples",
    "open_endpoint",
    "run_ablate",
    "run_filter",
    "run_generate",
]

# Where the names live, the light modules first.
_HOMES = (
    "synth.core.calls",
    "synth.core.errors",
    "synth.core.prompts",
    "synth.core.records",
    "synth.core.runs",
    "synth.generators.base",
    "synth.generators.examples",
    "synth.generators.find",
    "synth.inference.scripted",
    "synth.inference.endpoints",
    "synth.filters.base",
    "synth.filtering.config",
    "synth.filtering.ledger",
    "synth.filtering.explain",
    "synth.filtering.ablate",
    "synth.filter",
    "synth.generate",
)


def __getattr__(name: str) -> Any:  # noqa: ANN401  (any of the names above)
    if name in __all__:
        for home in _HOMES:
            module = importlib.import_module(home)
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module 'synth' has no attribute {name!r}")
