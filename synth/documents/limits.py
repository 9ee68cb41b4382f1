"""What reading one file may cost."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What reading one file may cost; a file that goes past a limit is quarantined with the limit as its reason."""

    memory_bytes: int = 2 * 1024**3
    """The most memory that parsing a file may take, above what the parser itself needs to be loaded."""
    seconds: float = 120.0
    """The longest that a parser may work without giving a document."""
    max_file_bytes: int = 16 * 1024**3
    """The largest file that is opened. Text, CSV, JSONL and parquet are streamed, so large ones cost no memory."""
    max_text_bytes: int = 64 * 1024**2
    """The most text, in UTF-8, that one converted file (HTML, PDF, Office) or one row of a table may give."""
    part_chars: int = 4 * 1024**2
    """A longer text becomes several documents: `name`, `name#part-2` and so on, cut where a paragraph ends."""
