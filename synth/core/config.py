"""Config files: TOML with a table a stage, in the same words as the flags. Flags win."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from synth.core.errors import ConfigError, did_you_mean

STAGES = ("generate", "filter", "sft", "validate")
_M = TypeVar("_M", bound=BaseModel)


def read_config(path: Path) -> dict[str, dict[str, Any]]:
    """Return the tables of a config file by stage.

    Raises:
        ConfigError: the file is not there, not TOML, or has a table that is no stage.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", where=str(path)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"not valid TOML ({error})", where=str(path)) from error
    for name, table in tables.items():
        if name not in STAGES or not isinstance(table, dict):
            raise ConfigError(f"{name!r} is not the table of a stage", where=str(path), fix=did_you_mean(name, STAGES))
    return tables


def build(model: type[_M], *layers: Mapping[str, Any], where: str = "settings") -> _M:
    """Build a config from layers of settings; later layers win, and None is "not given".

    Raises:
        ConfigError: names every setting that is wrong, with near matches for unknown ones.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged.update({key: value for key, value in layer.items() if value is not None})
    try:
        return model(**merged)
    except ValidationError as error:
        faults = []
        for fault in error.errors():
            name = ".".join(map(str, fault["loc"]))
            if fault["type"] == "extra_forbidden":
                faults.append(f"unknown setting {name!r} ({did_you_mean(name, model.model_fields)})")
            else:
                # A fault of several settings together has no name, and pydantic's own words before it say nothing.
                said = fault["msg"].removeprefix("Value error, ")
                faults.append(f"{name}: {said}" if name else said)
        raise ConfigError("; ".join(faults), where=where) from error
