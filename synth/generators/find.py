"""Finding generators: built in, by entry point, by decorator, by `module:name`, or as a template; with modifiers.

NAME                     qa, multi-hop, … or the name of an entry point or of a decorated class
package.module:Name      a class or an object in a module; path/to/file.py:Name likewise
path/to/template.md      a template without Python
…+MODIFIER               wrapped: qa+persona, multi-hop+evolve+persona (the last is outermost)
"""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from synth.core.errors import ConfigError, did_you_mean
from synth.core.records import content_id
from synth.generators.base import Generator
from synth.generators.options import EVERYONE, Options, keywords, make
from synth.generators.pair import PairGenerator
from synth.generators.template import TemplateGenerator

_G = TypeVar("_G", bound=type)

# Known without any installed metadata, which an editable install may have from another day; imported when asked for.
BUILT_IN: Mapping[str, str] = {
    "conversation": "synth.generators.conversation:Conversation",
    "grading": "synth.generators.grading:Grading",
    "instruction": "synth.generators.instruction:Instruction",
    "multi-hop": "synth.generators.multi_hop:MultiHop",
    "qa": "synth.generators.qa:QA",
    "reasoning": "synth.generators.reasoning:Reasoning",
    "unanswerable": "synth.generators.unanswerable:Unanswerable",
}
MODIFIERS: Mapping[str, str] = {
    "evolve": "synth.generators.evolve:Evolve",
    "persona": "synth.generators.persona:Persona",
}
_GENERATORS, _MODIFIERS = "synth.generators", "synth.modifiers"
_DECORATED: dict[str, type] = {}
_SHAPES = "`async def generate(self, passage, teacher)`, or `prompt(self, passage)` and `parse(self, passage, reply)`"


def generator(cls: _G) -> _G:
    """Make a class known under its `name`, once its module is imported.

    Raises:
        ConfigError: the class is no generator; raised where it is defined, not when it is used.
    """
    _check_shape(cls, cls.__name__)
    name = getattr(cls, "name", None)
    if not isinstance(name, str):
        raise ConfigError("has no `name`", where=f"generator {cls.__name__}", fix='add `name = "…"` to the class')
    _DECORATED[name] = cls
    return cls


def find_generator(spec: str, options: Options = {}) -> Generator:  # noqa: B006  (never changed)
    """Return the generator that `spec` names, wrapped in its modifiers, ready to be asked.

    Args:
        spec: see the top of this module.
        options: the constructors' keyword arguments, by the name of the generator or of the modifier as it stands
            in `spec` (for `module:Name`, `Name` will do); those under "*" go to everyone that takes them.

    Raises:
        ConfigError: nothing has that name, an option is unknown (near matches are given for both) or wrong, or what
            was found is no generator.
    """
    base, modifiers = split_spec(spec)
    found: Generator = _made(_resolve(base, spec), base, spec, options)
    for name in modifiers:
        modifier = _resolve(name, spec, modifier=True)
        if not inspect.isclass(modifier):
            raise ConfigError(f"the modifier {name!r} is no class", where=f"generator {spec}")
        made = make(modifier, _own(options, name, modifier), options.get(EVERYONE, {}), spec, found)
        found = _checked(made, spec)
    return found


def find_generators(specs: Sequence[str], options: Options = {}) -> list[Generator]:  # noqa: B006  (never changed)
    """Return the generators that `specs` name.

    Raises:
        ConfigError: as `find_generator`; options are given under a name that is no generator's and no modifier's; or
            one under "*" is taken by none of `specs`.
            Those of a known one that is not among `specs` are let be: a config file may hold settings for both.
    """
    found = [find_generator(spec, options) for spec in specs]
    known = {*BUILT_IN, *MODIFIERS, *_DECORATED}
    known |= {point.name for group in (_GENERATORS, _MODIFIERS) for point in entry_points(group=group)}
    for spec in specs:
        base, modifiers = split_spec(spec)
        for part in (base, *modifiers):
            known |= _names(part, None)
    known |= {one.name.partition("+")[0] for one in found}
    taken = {name for spec in specs for name in _keywords_of(spec)}
    for name in options.get(EVERYONE, {}):
        if name not in taken:
            raise ConfigError(f"none of the generators takes {name!r}", where="options", fix=did_you_mean(name, taken))
    for name in options:
        if name != EVERYONE and name not in known:
            raise ConfigError(f"options are given for {name!r}", where="options", fix=did_you_mean(name, known))
    return found


def _keywords_of(spec: str) -> set[str]:
    """Return the names of the options that the generator or one of its modifiers takes."""
    base, modifiers = split_spec(spec)
    factories = [_resolve(base, spec), *(_resolve(name, spec, modifier=True) for name in modifiers)]
    made = [_template_factory(one) if isinstance(one, Path) else one for one in factories]
    return {name for one in made if callable(one) for name in keywords(one, 0)}


def split_spec(spec: str) -> tuple[str, tuple[str, ...]]:
    """Return the generator's part of a spec and its modifiers; a `+` in the path of a file is no modifier's."""
    parts = spec.split("+")
    for count in range(1, len(parts) + 1):
        base = "+".join(parts[:count])
        if Path(base.rpartition(":")[0] or base).is_file():
            return base, tuple(parts[count:])
    return parts[0], tuple(parts[1:])


def check_generator(candidate: object, spec: str) -> Generator:
    """Return `candidate`, a class or an object, as a generator, or say what it lacks before any call is made.

    Raises:
        ConfigError: no name, neither an async `generate` nor a `prompt` and a `parse`, or other parameters than theirs.
    """
    _check_shape(candidate, spec)
    return _checked(make(candidate, {}, {}, spec) if inspect.isclass(candidate) else candidate, spec)


def _made(candidate: object, part: str, spec: str, options: Options) -> Generator:
    own = _own(options, part, candidate)
    shared = options.get(EVERYONE, {})
    if isinstance(candidate, Path):
        return _checked(make(_template_factory(candidate), own, shared, spec), spec)
    if inspect.isclass(candidate):
        _check_shape(candidate, spec)
        return _checked(make(candidate, own, shared, spec), spec)
    if own:
        raise ConfigError("is an object, which takes no options", where=f"generator {spec}", fix="name its class")
    return check_generator(candidate, spec)


def _template_factory(path: Path) -> Callable[..., TemplateGenerator]:
    """Return the class of template generators without the argument that the spec itself gives."""
    signature = inspect.signature(TemplateGenerator)

    def factory(**options: Any) -> TemplateGenerator:  # noqa: ANN401  (checked against the signature)
        return TemplateGenerator(path, **options)

    parameters = [p for name, p in signature.parameters.items() if name != "path"]
    factory.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return factory


def _own(options: Options, part: str, candidate: object) -> Mapping[str, Any]:
    """Return the options for what `part` of a spec names, by any of its names."""
    merged: dict[str, Any] = {}
    for name in _names(part, candidate):
        merged.update(options.get(name, {}))
    return merged


def _names(part: str, candidate: object) -> set[str]:
    names = {part, part.rpartition(":")[2]}
    if part.endswith(".md"):
        names.add(Path(part).stem)
    own = getattr(candidate, "name", None)
    if isinstance(own, str) and not isinstance(candidate, Path):
        names.add(own)
    return names


def _checked(made: object, spec: str) -> Generator:
    """Return an object as a generator; a `prompt`/`parse` pair gets the call around it."""
    _check_shape(made, spec)
    if not hasattr(made, "generate"):
        made = PairGenerator(made)  # type: ignore[arg-type]  # its shape was checked
    assert isinstance(made, Generator)
    return made


def _check_shape(candidate: object, spec: str) -> None:
    where = f"generator {spec}"
    if hasattr(candidate, "generate"):
        if not inspect.iscoroutinefunction(candidate.generate):
            raise ConfigError(
                "has no `async def generate(self, passage, teacher)`", where=where, fix="see docs/generators.md"
            )
        _check_call(candidate, "generate", ("passage", "teacher"), where)
    elif hasattr(candidate, "prompt") and hasattr(candidate, "parse"):
        for name, parameters in (("prompt", ("passage",)), ("parse", ("passage", "reply"))):
            method = getattr(candidate, name)
            if not callable(method) or inspect.iscoroutinefunction(method):
                raise ConfigError(f"`{name}` is no plain method", where=where, fix=f"it needs {_SHAPES}")
            _check_call(candidate, name, parameters, where)
    else:
        raise ConfigError(f"has no {_SHAPES}", where=where, fix="see docs/generators.md")
    # A class may set its name when it is made; then the object is asked.
    if not isinstance(getattr(candidate, "name", "" if inspect.isclass(candidate) else None), str):
        raise ConfigError("has no `name`", where=where, fix='add `name = "…"` to the class')


def _check_call(candidate: object, method: str, parameters: Sequence[str], where: str) -> None:
    signature = inspect.signature(getattr(candidate, method))
    bound = parameters
    if inspect.isclass(candidate) and not isinstance(
        inspect.getattr_static(candidate, method), staticmethod | classmethod
    ):
        bound = ("self", *parameters)
    try:
        signature.bind(*bound)
    except TypeError as error:
        raise ConfigError(
            f"`{method}` takes other arguments than ({', '.join(parameters)}): {error}", where=where
        ) from error


def _resolve(part: str, spec: str, *, modifier: bool = False) -> object:
    """Return what one part of a spec names: a class, an object, or the path of a template."""
    if ":" in part:
        location, _, attribute = part.rpartition(":")
        return _attribute(_module(location, spec), attribute, spec)
    if part.endswith(".md") and not modifier:
        if not Path(part).is_file():
            raise ConfigError("there is no such file", where=f"generator {spec}")
        return Path(part)
    table, others = (MODIFIERS, BUILT_IN) if modifier else (BUILT_IN, MODIFIERS)
    if part in table:
        module, _, attribute = table[part].partition(":")
        return getattr(importlib.import_module(module), attribute)
    if part in _DECORATED and not modifier:
        return _DECORATED[part]
    points = {point.name: point for point in entry_points(group=_MODIFIERS if modifier else _GENERATORS)}
    if part in points:
        try:
            return points[part].load()
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"cannot be imported ({error})", where=f"generator {spec}") from error
    raise _unknown(part, spec, {*table, *points, *(() if modifier else _DECORATED)}, others, modifier)


def _unknown(part: str, spec: str, known: Iterable[str], others: Iterable[str], modifier: bool) -> ConfigError:
    if modifier:
        instead = f"{part!r} is a generator; it stands first" if part in others else did_you_mean(part, known)
        return ConfigError(f"no modifier is called {part!r}", where=f"generator {spec}", fix=instead)
    if part in others:
        return ConfigError(f"{part!r} is a modifier", where=f"generator {spec}", fix=f"write qa+{part}")
    return ConfigError(
        f"no generator is called {part!r}",
        fix=f"{did_you_mean(part, known)}; your own is --generator module:name",
    )


def _module(location: str, spec: str) -> object:
    try:
        if location.endswith(".py"):
            return _from_file(Path(location), spec)
        return importlib.import_module(location)
    except ImportError as error:
        raise ConfigError(
            f"cannot be imported ({error})",
            where=f"generator {spec}",
            fix="run in the folder that holds the module, or install it",
        ) from error
    except ConfigError:
        raise
    except Exception as error:  # a user's module may fail in any way while it is imported
        raise ConfigError(
            f"cannot be imported ({type(error).__name__}: {error})", where=f"generator {spec}", fix="mend the module"
        ) from error


def _from_file(path: Path, spec: str) -> object:
    # The name is the file's own, so that a file called json.py takes the place of no module.
    name = f"{path.stem}_{content_id(str(path.resolve()))}"
    found = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or found is None or found.loader is None:
        raise ConfigError("there is no such file", where=f"generator {spec}")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except SyntaxError as error:
        raise ConfigError(f"is no valid Python ({error})", where=f"generator {spec}") from error
    return module


def _attribute(module: object, attribute: str, spec: str) -> object:
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        names = [name for name, value in vars(module).items() if hasattr(value, "generate") or hasattr(value, "parse")]
        raise ConfigError(
            f"the module has no {attribute!r}", where=f"generator {spec}", fix=did_you_mean(attribute, names)
        ) from error
