"""Documents in, a dataset out: a teacher writes question/response pairs, a filter decides, all is kept.

The names below are the public API. They load on first use, so `import synth` costs nothing and
`tune`, which needs only the core, does not pay for the rest. None loads torch, transformers or vLLM.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synth.core.calls import (
        ChatRequest as ChatRequest,
    )
    from synth.core.calls import (
        Completion as Completion,
    )
    from synth.core.calls import (
        Endpoint as Endpoint,
    )
    from synth.core.calls import (
        Sampling as Sampling,
    )
    from synth.core.calls import (
        Teacher as Teacher,
    )
    from synth.core.calls import (
        Usage as Usage,
    )
    from synth.core.errors import (
        ConfigError as ConfigError,
    )
    from synth.core.errors import (
        DocumentError as DocumentError,
    )
    from synth.core.errors import (
        InferenceError as InferenceError,
    )
    from synth.core.errors import (
        Interrupted as Interrupted,
    )
    from synth.core.errors import (
        RecordError as RecordError,
    )
    from synth.core.errors import (
        RunError as RunError,
    )
    from synth.core.errors import (
        SynthError as SynthError,
    )
    from synth.core.records import (
        Decision as Decision,
    )
    from synth.core.records import (
        Document as Document,
    )
    from synth.core.records import (
        Evidence as Evidence,
    )
    from synth.core.records import (
        Message as Message,
    )
    from synth.core.records import (
        Passage as Passage,
    )
    from synth.core.records import (
        Provenance as Provenance,
    )
    from synth.core.records import (
        Record as Record,
    )
    from synth.core.runs import Run as Run
    from synth.filter import (
        FilterConfig as FilterConfig,
    )
    from synth.filter import (
        FilterSummary as FilterSummary,
    )
    from synth.filter import (
        decide as decide,
    )
    from synth.filter import (
        run_filter as run_filter,
    )
    from synth.generate import (
        GenerateConfig as GenerateConfig,
    )
    from synth.generate import (
        GenerateSummary as GenerateSummary,
    )
    from synth.generate import (
        generate as generate,
    )
    from synth.generators.base import Generator as Generator
    from synth.generators.base import ReplyError as ReplyError
    from synth.generators.base import ask_json as ask_json
    from synth.generators.find import generator as generator
    from synth.inference.endpoints import find_model as find_model
    from synth.inference.endpoints import open_endpoint as open_endpoint
    from synth.inference.scripted import ScriptedTeacher as ScriptedTeacher

_HOMES = {
    "synth.core.calls": (
        "ChatRequest",
        "Completion",
        "Endpoint",
        "Sampling",
        "Teacher",
        "Usage",
    ),
    "synth.core.errors": (
        "ConfigError",
        "DocumentError",
        "InferenceError",
        "Interrupted",
        "RecordError",
        "RunError",
        "SynthError",
    ),
    "synth.core.records": (
        "Decision",
        "Document",
        "Evidence",
        "Message",
        "Passage",
        "Provenance",
        "Record",
    ),
    "synth.core.runs": ("Run",),
    "synth.filter": (
        "FilterConfig",
        "FilterSummary",
        "decide",
        "run_filter",
    ),
    "synth.generate": (
        "GenerateConfig",
        "GenerateSummary",
        "generate",
    ),
    "synth.generators.base": (
        "Generator",
        "ReplyError",
        "ask_json",
    ),
    "synth.generators.find": ("generator",),
    "synth.inference.endpoints": (
        "find_model",
        "open_endpoint",
    ),
    "synth.inference.scripted": ("ScriptedTeacher",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605


def __getattr__(name: str) -> Any:  # noqa: ANN401  (any of the names above)
    if name not in _HOME_OF:
        raise AttributeError(f"module 'synth' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)
