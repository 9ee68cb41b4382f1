"""What a user plugs in: by the name of an entry point, or as `module:name`."""

import hashlib
import importlib
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from pathlib import Path

from synth.core.errors import ConfigError, did_you_mean


def load_named(
    spec: str, *, kind: str, group: str, known: Iterable[str] = (), fits: Callable[[object], bool] = callable
) -> object:
    """Return what `spec` names.

    Args:
        spec: the name of an entry point, or `module:name`.
        kind: what it should be, such as "metric", for errors.
        group: of the entry points.
        known: names that mean something else than an entry point, for a suggestion.
        fits: whether a thing in a module may be meant, for a suggestion.

    Raises:
        ConfigError: nothing has that name, or it cannot be imported.
    """
    where = f"{kind} {spec}"
    if ":" not in spec:
        points = {point.name: point for point in entry_points(group=group)}
        if spec not in points:
            near = did_you_mean(spec, {*points, *known})
            raise ConfigError(f"no {kind} is called {spec!r}", fix=f"{near}; your own is module:name")
        return _imported(points[spec].load, where)
    location, _, attribute = spec.rpartition(":")
    module = _imported(lambda: importlib.import_module(location), where)
    if not hasattr(module, attribute):
        near = did_you_mean(attribute, [name for name, value in vars(module).items() if fits(value)])
        raise ConfigError(f"the module has no {attribute!r}", where=where, fix=near)
    found: object = getattr(module, attribute)
    return found


def code_digest(module: str) -> str | None:
    """Return the SHA-256 of the file that an imported module is in, None where it is in no file."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None or not Path(file).is_file():
        return None
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _imported(load: Callable[[], object], where: str) -> object:
    try:
        return load()
    except Exception as error:  # a user's module may fail in any way while it is imported
        raise ConfigError(
            f"cannot be imported ({type(error).__name__}: {error})",
            where=where,
            fix="run in the folder that holds the module, or install it",
        ) from error
