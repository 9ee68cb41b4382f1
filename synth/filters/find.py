"""Finding a scorer: built in, by the name of an entry point (`synth.scorers`), or a user's own as `module:name`."""

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path

from synth.core.errors import ConfigError, did_you_mean
from synth.filters.base import Scorer

GROUP = "synth.scorers"
_NONE: Mapping[str, Scorer] = {}


def find_scorer(spec: str, built_in: Mapping[str, Scorer] = _NONE) -> Scorer:
    """Return the scorer that `spec` names; a class is called without arguments to make one.

    Args:
        spec: a name, or `module:name`.
        built_in: the scorers that a plain name may mean beside those of entry points.

    Raises:
        ConfigError: nothing has that name, it cannot be imported, or it is no scorer.
    """
    where = f"scorer {spec}"
    if spec in built_in:
        return built_in[spec]
    found = _of_module(spec, where) if ":" in spec else _of_entry_point(spec, built_in, where)
    made = _made(found, where) if inspect.isclass(found) else found
    if not callable(getattr(made, "score", None)) or not isinstance(getattr(made, "name", None), str):
        raise ConfigError("is no scorer", where=where, fix="it needs a `name` and `score(self, records)`")
    scorer: Scorer = made  # type: ignore[assignment]  # its shape was checked
    return scorer


def find_scorers(specs: Sequence[str]) -> tuple[Scorer, ...]:
    """Return the scorers of a user's own that `specs` name.

    Raises:
        ConfigError: as `find_scorer`.
    """
    return tuple(find_scorer(spec) for spec in dict.fromkeys(specs))


def scorer_digests(specs: Sequence[str]) -> dict[str, str]:
    """Return for each of a user's scorers a SHA-256 of the file that its code is in, as far as it is in a file.

    Raises:
        ConfigError: as `find_scorer`.
    """
    found = {}
    for spec in specs:
        scorer = find_scorer(spec)
        # A module may be called as a function of its own; what it is an instance of, says where its code is.
        module = sys.modules.get(type(scorer).__module__)
        file = getattr(module, "__file__", None)
        if file is not None and Path(file).is_file():
            found[spec] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return found


def _of_module(spec: str, where: str) -> object:
    location, _, attribute = spec.rpartition(":")
    module = _imported(lambda: importlib.import_module(location), where)
    if not hasattr(module, attribute):
        near = [name for name, value in vars(module).items() if hasattr(value, "score")]
        raise ConfigError(f"the module has no {attribute!r}", where=where, fix=did_you_mean(attribute, near))
    return getattr(module, attribute)


def _of_entry_point(spec: str, built_in: Mapping[str, Scorer], where: str) -> object:
    points = {point.name: point for point in entry_points(group=GROUP)}
    if spec not in points:
        raise ConfigError(
            f"no scorer is called {spec!r}", fix=f"{did_you_mean(spec, {*points, *built_in})}; your own is module:name"
        )
    return _imported(points[spec].load, where)


def _imported(load: Callable[[], object], where: str) -> object:
    try:
        return load()
    except Exception as error:  # a user's module may fail in any way while it is imported
        raise ConfigError(
            f"cannot be imported ({type(error).__name__}: {error})",
            where=where,
            fix="run in the folder that holds the module, or install it",
        ) from error


def _made(cls: Callable[[], object], where: str) -> object:
    try:
        return cls()
    except TypeError as error:
        raise ConfigError(f"cannot be made without arguments ({error})", where=where) from error
    except Exception as error:  # a user's class may fail in any way
        raise ConfigError(f"cannot be made ({type(error).__name__}: {error})", where=where, fix="mend it") from error
