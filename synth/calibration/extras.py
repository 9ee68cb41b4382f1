"""Packages of the extra `calibrate`, imported when they are needed."""

import importlib
from typing import Any

from synth.core.errors import ConfigError


def need(module: str, purpose: str) -> Any:  # noqa: ANN401  (a module without types)
    """Import `module`.

    Raises:
        ConfigError: it is not installed; the extra that brings it is named.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = {"sklearn": "scikit-learn"}.get(module.partition(".")[0], module.partition(".")[0])
        raise ConfigError(
            f"{purpose} needs {package}, which is not installed", fix='pip install "synth-tune[calibrate]"'
        ) from error
