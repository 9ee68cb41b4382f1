"""Finding generators: built in, by entry point, by decorator, or by `module:name`."""

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from synth.core.errors import ConfigError, did_you_mean
from synth.generators.base import Generator, check_generator

_G = TypeVar("_G", bound=type)
_DECORATED: dict[str, type] = {}


def generator(cls: _G) -> _G:
    """Make a class known under its `name`, once its module is imported.

    Raises:
        ConfigError: the class is no generator; raised where it is defined, not when it is used.
    """
    _DECORATED[check_generator(cls, cls.__name__).name] = cls
    return cls


def find_generator(spec: str, options: Mapping[str, Mapping[str, Any]] = {}) -> Generator:  # noqa: B006
    """Return the generator that `spec` names.

    Args:
        spec: a name ("qa"), `package.module:name`, or `path/to/file.py:name`. The name may be a class, made
            without arguments, or an object.

    Raises:
        ConfigError: nothing has that name (near matches are given), or what has it is no generator.
    """
    if ":" in spec:
        location, _, attribute = spec.rpartition(":")
        return check_generator(_attribute(_module(location, spec), attribute, spec), spec)
    if spec in _DECORATED:
        return check_generator(_DECORATED[spec], spec)
    points = {point.name: point for point in entry_points(group="synth.generators")}
    if spec not in points:
        known = {*points, *_DECORATED}
        raise ConfigError(
            f"no generator is called {spec!r}",
            fix=f"{did_you_mean(spec, known)}; your own is --generator module:name",
        )
    try:
        return check_generator(points[spec].load(), spec)
    except ImportError as error:
        raise ConfigError(f"cannot be imported ({error})", where=f"generator {spec}") from error


def _module(location: str, spec: str) -> object:
    try:
        if location.endswith(".py"):
            path = Path(location)
            found = importlib.util.spec_from_file_location(path.stem, path)
            if not path.is_file() or found is None or found.loader is None:
                raise ConfigError("there is no such file", where=f"generator {spec}")
            module = importlib.util.module_from_spec(found)
            sys.modules[path.stem] = module
            found.loader.exec_module(module)
            return module
        return importlib.import_module(location)
    except ImportError as error:
        raise ConfigError(
            f"cannot be imported ({error})",
            where=f"generator {spec}",
            fix="run in the folder that holds the module, or install it",
        ) from error


def _attribute(module: object, attribute: str, spec: str) -> object:
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        names = [name for name, value in vars(module).items() if hasattr(value, "generate")]
        raise ConfigError(
            f"the module has no {attribute!r}", where=f"generator {spec}", fix=did_you_mean(attribute, names)
        ) from error
