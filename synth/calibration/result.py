"""What a calibration found."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synth.calibration.columns import Columns
from synth.filters.rules_file import Cell, RulesFile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a calibration found.

    `file` is what is written; `columns` are the scores behind it, for plots and further analysis; `skipped` counts
    the pairs that each corruption could not spoil; `checked` says whether there were documents left to check with.
    """

    file: RulesFile
    columns: Columns
    check_rows: "Mask"
    skipped: Mapping[str, int]
    best_single: str
    best_single_auc: float
    combined_auc: float | None

    def cells(self, corruption: str, form: str) -> list[Cell]:
        """Return the table's cells of a corruption in a form, the best score first."""
        found = [c for c in self.file.table if c.corruption == corruption and c.form == form]
        return sorted(found, key=lambda cell: (-cell.auc, cell.score))

    def to_json(self) -> dict[str, Any]:
        """Return the rules file's content, with what is shown beside it."""
        return {
            **self.file.to_json(),
            "skipped": dict(self.skipped),
            "best_single": {"score": self.best_single, "auc": self.best_single_auc},
            "combined_auc": self.combined_auc,
        }
