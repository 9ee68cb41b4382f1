"""The scorers that a calibration measures: those of this package that need no model, and a user's own."""

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from synth.core.errors import ConfigError, did_you_mean
from synth.filters.answer_type import ANSWER_TYPE
from synth.filters.base import Scorer
from synth.filters.best_alignment import ALIGNMENT, ROUGE_L
from synth.filters.coverage import COVERAGE
from synth.filters.form import FormLimits, form_scorer
from synth.filters.groundedness import EVIDENCE, FACTS, GROUNDEDNESS, RELEVANCE
from synth.filters.nearness import NEARNESS, SAME_SENTENCE
from synth.filters.negation import NEGATION
from synth.filters.polarity import POLARITY
from synth.filters.question_fit import QUESTION_FIT
from synth.filters.span_use import SPAN_USE

BUILT_IN: Mapping[str, Scorer] = {
    scorer.name: scorer
    for scorer in (
        form_scorer(FormLimits()),
        EVIDENCE,
        GROUNDEDNESS,
        FACTS,
        NEGATION,
        RELEVANCE,
        ANSWER_TYPE,
        QUESTION_FIT,
        SPAN_USE,
        ALIGNMENT,
        ROUGE_L,
        COVERAGE,
        NEARNESS,
        SAME_SENTENCE,
        POLARITY,
    )
}


def find_scorers(specs: Sequence[str]) -> tuple[Scorer, ...]:
    """Return the scorers that `specs` name: a name of `BUILT_IN`, or `module:name` for a scorer or a class of one.

    Raises:
        ConfigError: nothing has that name, it cannot be imported, or it is no scorer.
    """
    return tuple(_find(spec) for spec in dict.fromkeys(specs))


def _find(spec: str) -> Scorer:
    if ":" not in spec:
        if spec not in BUILT_IN:
            raise ConfigError(
                f"no scorer is called {spec!r}", fix=f"{did_you_mean(spec, BUILT_IN)}; your own is module:name"
            )
        return BUILT_IN[spec]
    location, _, attribute = spec.partition(":")
    where = f"scorer {spec}"
    try:
        module = importlib.import_module(location)
    except Exception as error:  # a user's module may fail in any way while it is imported
        raise ConfigError(
            f"cannot be imported ({type(error).__name__}: {error})",
            where=where,
            fix="run in the folder that holds the module, or install it",
        ) from error
    if not hasattr(module, attribute):
        near = [name for name, value in vars(module).items() if hasattr(value, "score")]
        raise ConfigError(f"the module has no {attribute!r}", where=where, fix=did_you_mean(attribute, near))
    found = getattr(module, attribute)
    made: Any = _made(found, where) if inspect.isclass(found) else found
    if not callable(getattr(made, "score", None)) or not isinstance(getattr(made, "name", None), str):
        raise ConfigError("is no scorer", where=where, fix="it needs a `name` and `score(self, records)`")
    scorer: Scorer = made
    return scorer


def _made(cls: Callable[[], object], where: str) -> object:
    try:
        return cls()
    except TypeError as error:
        raise ConfigError(f"cannot be made without arguments ({error})", where=where) from error


def allow_modules_here() -> None:
    """Let `module:name` mean a module in the folder where the user stands, as `python -m` has it."""
    if "" not in sys.path:
        sys.path.insert(0, "")
