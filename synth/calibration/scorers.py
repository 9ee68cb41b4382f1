"""The scorers that a calibration measures: those of this package that need no model, and a user's own."""

import sys
from collections.abc import Mapping, Sequence

from synth.filtering.config import FilterConfig
from synth.filtering.plan import scorers_of
from synth.filters.base import Scorer
from synth.filters.find import find_scorer

BUILT_IN: Mapping[str, Scorer] = {scorer.name: scorer for scorer in scorers_of(FilterConfig())}


def find_scorers(specs: Sequence[str]) -> tuple[Scorer, ...]:
    """Return the scorers that `specs` name: a name of `BUILT_IN`, of an entry point, or `module:name`.

    Raises:
        ConfigError: nothing has that name, it cannot be imported, or it is no scorer.
    """
    return tuple(find_scorer(spec, BUILT_IN) for spec in dict.fromkeys(specs))


def allow_modules_here() -> None:
    """Let `module:name` mean a module in the folder where the user stands, as `python -m` has it."""
    if "" not in sys.path:
        sys.path.insert(0, "")
