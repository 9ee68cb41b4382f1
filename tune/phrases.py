"""Numbers and lists in plain words."""

from collections.abc import Sequence


def points(value: float) -> str:
    """Return a score or a difference with one decimal, never as minus nought."""
    text = f"{value:.1f}"
    return "0.0" if text == "-0.0" else text


def percent(share: float) -> str:
    """Return a share from 0 to 1 in percent."""
    return f"{round(100 * share, 2):g} %"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def in_a_row(words: Sequence[str]) -> str:
    """Return words with commas and an 'and'."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
