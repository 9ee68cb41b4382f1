"""Options of a generator: its constructor's keyword arguments, checked before anything is made."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

from synth.core.errors import ConfigError, did_you_mean

Options = Mapping[str, Mapping[str, Any]]

# Options under this name go to every generator that takes them.
EVERYONE = "*"


def make(
    factory: Callable[..., object],
    options: Mapping[str, Any],
    shared: Mapping[str, Any],
    spec: str,
    *given: object,
) -> object:
    """Call a class with the options that it takes.

    Args:
        factory: the class.
        options: those meant for it; each has to be one of its keyword arguments.
        shared: those meant for everyone; the ones it does not take are left out.
        spec: what the user wrote, for errors.
        given: what comes first, such as the generator that a modifier wraps.

    Raises:
        ConfigError: an option is unknown (near matches are named) or of a wrong type, or one is missing.
    """
    where = f"generator {spec}"
    taken = keywords(factory, len(given))
    for name in options:
        if name not in taken:
            raise ConfigError(f"no option is called {name!r}", where=where, fix=did_you_mean(name, taken))
    chosen = {**{name: value for name, value in shared.items() if name in taken}, **options}
    checked = {name: _checked(name, value, taken[name], where) for name, value in chosen.items()}
    try:
        inspect.signature(factory).bind(*given, **checked)
    except TypeError as error:
        raise ConfigError(
            f"cannot be made without arguments ({error})", where=where, fix="give it as an option"
        ) from error
    try:
        return factory(*given, **checked)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"cannot be made ({type(error).__name__}: {error})", where=where) from error


def keywords(factory: Callable[..., object], positions: int) -> dict[str, Any]:
    """Return the keyword arguments and their annotations, without the first `positions` arguments."""
    try:
        signature = inspect.signature(factory, eval_str=True)
    except NameError:
        # Annotations that only a type checker can resolve: the types go unchecked.
        signature = inspect.signature(factory)
    named = [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return {p.name: p.annotation for p in named[positions:]}


def _checked(name: str, value: object, annotation: Any, where: str) -> object:  # noqa: ANN401  (any type)
    if annotation is inspect.Parameter.empty or isinstance(annotation, str):
        return value
    try:
        return TypeAdapter(annotation).validate_python(value)
    except PydanticSchemaGenerationError:
        return value
    except ValidationError as error:
        fault = error.errors()[0]
        place = "".join(f"[{part}]" for part in fault["loc"])
        raise ConfigError(f"option {name}{place}: {fault['msg']}, not {fault['input']!r}", where=where) from error
