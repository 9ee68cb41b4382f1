"""Finding a scorer: built in, by the name of an entry point (`synth.scorers`), or a user's own as `module:name`."""

import inspect
from collections.abc import Callable, Mapping, Sequence

from synth.core.errors import ConfigError
from synth.core.user_code import code_digest, load_named
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
    found = load_named(spec, kind="scorer", group=GROUP, known=built_in, fits=lambda value: hasattr(value, "score"))
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
        if (digest := code_digest(type(scorer).__module__)) is not None:
            found[spec] = digest
    return found


def _made(cls: Callable[[], object], where: str) -> object:
    try:
        return cls()
    except TypeError as error:
        raise ConfigError(f"cannot be made without arguments ({error})", where=where) from error
    except Exception as error:  # a user's class may fail in any way
        raise ConfigError(f"cannot be made ({type(error).__name__}: {error})", where=where, fix="mend it") from error
