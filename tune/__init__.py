"""A dataset in, a tuned student and a verdict out. Imports TRL, PEFT and torch only where it trains.

The names below are the public API. They load on first use, so `import tune` costs nothing:

    verdict = tune.validate("runs/manuals", "questions.jsonl", contenders=["base", "retrieval", "tuned"])
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tune.config import TuneConfig
    from tune.folds import train_folds
    from tune.promotion import list_candidates, promote, rollback
    from tune.sft import check, train
    from tune.validation import read_verdict, validate
    from tune.validation_config import ValidateConfig
    from tune.verdict import Verdict

__all__ = [
    "TuneConfig",
    "ValidateConfig",
    "Verdict",
    "check",
    "list_candidates",
    "promote",
    "read_verdict",
    "rollback",
    "train",
    "train_folds",
    "validate",
]

_HOMES = {
    "TuneConfig": "tune.config",
    "ValidateConfig": "tune.validation_config",
    "Verdict": "tune.verdict",
    "check": "tune.sft",
    "list_candidates": "tune.promotion",
    "promote": "tune.promotion",
    "read_verdict": "tune.validation",
    "rollback": "tune.promotion",
    "train": "tune.sft",
    "train_folds": "tune.folds",
    "validate": "tune.validation",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  (any of the names above)
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'tune' has no attribute {name!r}")
