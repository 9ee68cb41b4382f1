"""The scorers that ask a model, by the names of their scores."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from synth.core.errors import ConfigError, did_you_mean
from synth.filters.closed_book import ClosedBook
from synth.filters.judge import Judge
from synth.filters.model_base import ModelScorer
from synth.filters.round_trip import RoundTrip
from synth.filters.rubric import Rubric

_MADE: Mapping[str, tuple[tuple[str, ...], Callable[[int, Path | None], ModelScorer]]] = {
    "round_trip": (RoundTrip.scores, lambda votes, rubric: RoundTrip()),
    "closed_book": (ClosedBook.scores, lambda votes, rubric: ClosedBook()),
    "judge": (Judge.scores, lambda votes, rubric: Judge(Rubric.read(rubric), votes=votes)),
}

MODEL_SCORES = frozenset(score for scores, _ in _MADE.values() for score in scores)
"""The scores that come of asking a model over an endpoint."""

STUDENT_SCORES = frozenset({"closed_book"})
"""Those of them that say something about the student's base, so that it is the one to ask."""


def model_scorers(names: Iterable[str], *, votes: int = 1, rubric: Path | None = None) -> list[ModelScorer]:
    """Return the scorers that give the scores `names`, each once, in a fixed order.

    Args:
        names: names of scores; a scorer's first score has its own name.
        votes: how many readings a judge takes; odd.
        rubric: what it marks; prompts/judge-rubric.md unless given.

    Raises:
        ConfigError: no such score (near matches are named), `votes` is not odd, or the rubric is wrong.
    """
    wanted = set(names)
    for name in sorted(wanted - MODEL_SCORES):
        raise ConfigError(f"no model gives a score called {name!r}", fix=did_you_mean(name, MODEL_SCORES))
    return [make(votes, rubric) for scores, make in _MADE.values() if wanted & set(scores)]
