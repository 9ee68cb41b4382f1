"""Finding a user's own scorer: by the name of an entry point (`synth.scorers`) or as `module:name`."""

import importlib
import inspect
from collections.abc import Sequence
from importlib.metadata import entry_points

from synth.core.errors import ConfigError, did_you_mean
from synth.filters.base import Scorer

GROUP = "synth.scorers"


def find_scorer(spec: str) -> Scorer:
    """Return the scorer that `spec` names; a class or a function is called without arguments to make one.

    Raises:
        ConfigError: nothing has that name, it cannot be imported, or it is no scorer.
    """
    where = f"scorer {spec}"
    try:
        if ":" in spec:
            module, _, attribute = spec.rpartition(":")
            found = getattr(importlib.import_module(module), attribute)
        else:
            points = {point.name: point for point in entry_points(group=GROUP)}
            if spec not in points:
                raise ConfigError(
                    f"no scorer is called {spec!r}",
                    fix=f"{did_you_mean(spec, points)}; your own is --scorer module:name",
                )
            found = points[spec].load()
        made = found() if inspect.isclass(found) or inspect.isfunction(found) else found
    except ConfigError:
        raise
    except Exception as error:  # a user's module may fail in any way while it is imported
        raise ConfigError(
            f"cannot be imported ({type(error).__name__}: {error})",
            where=where,
            fix="run in the folder that holds the module, or install it",
        ) from error
    if not isinstance(getattr(made, "name", None), str) or not callable(getattr(made, "score", None)):
        raise ConfigError("is no scorer", where=where, fix="it needs `name` and `score(records) -> list[float | None]`")
    scorer: Scorer = made  # type: ignore[assignment]  # its shape was checked
    return scorer


def find_scorers(specs: Sequence[str]) -> tuple[Scorer, ...]:
    """Return the scorers that `specs` name.

    Raises:
        ConfigError: as `find_scorer`.
    """
    return tuple(map(find_scorer, specs))
