"""Where the libraries' own words go while a student is trained: to a file, not to the terminal."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import datasets
from transformers.utils import logging as transformers_logging

_LIBRARIES = ("transformers", "trl", "peft", "accelerate", "datasets", "huggingface_hub", "torch", "py.warnings")


@contextlib.contextmanager
def quiet(log: Path) -> Iterator[None]:
    """Send what the libraries log and warn of to a file in place of the terminal, and hide their progress bars."""
    log.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(log, delay=True, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in _LIBRARIES]
    before = [(logger.handlers, logger.propagate) for logger in loggers]
    bars = transformers_logging.is_progress_bar_enabled(), not datasets.are_progress_bars_disabled()
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        logging.captureWarnings(True)
        for logger in loggers:
            logger.handlers, logger.propagate = [handler], False
        transformers_logging.disable_progress_bar()
        datasets.disable_progress_bars()
        try:
            yield
        finally:
            logging.captureWarnings(False)
            for logger, (handlers, propagate) in zip(loggers, before, strict=True):
                logger.handlers, logger.propagate = handlers, propagate
            if bars[0]:
                transformers_logging.enable_progress_bar()
            if bars[1]:
                datasets.enable_progress_bars()
            handler.close()
