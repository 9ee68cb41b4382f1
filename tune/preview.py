"""Preflight for the eye: what was checked as a table, and rows with what is read, what is learnt and where it stops.

All text of rows is shown as it is, never as markup or as terminal codes: characters that would do something other than
be seen are written as escapes.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Literal

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from tune.findings import Preflight, Status, visible
from tune.rows import IGNORED, Rendered

if TYPE_CHECKING:
    from tune.student import Student

Part = Literal["read", "learnt", "stop"]

ROWS_SHOWN = 3
_READ_ENDS, _LEARNT_ENDS = 60, 200  # Tokens shown at each end of a long stretch.
_STATUS_STYLES: dict[Status, str] = {"ok": "green", "note": "yellow", "error": "bold red"}
_STYLES: dict[Part, str] = {"read": "bright_black", "learnt": "green", "stop": "green reverse"}
_MARKS: dict[Part, tuple[str, str]] = {"read": ("", ""), "learnt": ("[[", "]]"), "stop": (">>", "<<")}


def preflight_view(preflight: Preflight, student: "Student") -> Group:
    """Return all of preflight: the checks, the sums, and a few rows."""
    return Group(checks_table(preflight), totals_table(preflight), rows_preview(preflight, student))


def checks_table(preflight: Preflight) -> Table:
    """Return what was checked, a line each; what to do about it stands below what was found."""
    table = Table("", "check", "found", box=None, pad_edge=False, title="Preflight", title_justify="left")
    table.columns[2].overflow = "fold"
    for check in preflight.checks:
        style = _STATUS_STYLES[check.status]
        found = Text(visible(check.said))
        if check.fix:
            found.append(f"\nfix: {visible(check.fix)}", "dim")
        table.add_row(Text(check.status, style), Text(check.name), found)
    return table


def totals_table(preflight: Preflight) -> Table:
    """Return the sums over both sides of the split."""
    table = Table("", box=None, pad_edge=False, title="\nRows", title_justify="left")
    for name in ("rows", "tokens", "learnt", "longest", "left out", "cut"):
        table.add_column(name, justify="right")
    for name, totals in preflight.totals.items():
        dropped, cut = (sum(row.split == name for row in rows) for rows in (preflight.dropped, preflight.cut))
        numbers = (totals.rows, totals.tokens, totals.labelled, totals.longest, dropped, cut)
        table.add_row(name, *(f"{number:,}" for number in numbers))
    return table


def rows_preview(preflight: Preflight, student: "Student", *, rows: int = ROWS_SHOWN) -> "RowsPreview":
    """Return a few training rows to look at: one that was cut and the longest one among them, where there are any."""
    train = preflight.train
    chosen: dict[int, None] = {}
    if train:
        cut = next((i for i, row in enumerate(train) if row.cut), None)
        longest = max(range(len(train)), key=lambda i: train[i].tokens)
        wanted = [0, *([] if cut is None else [cut]), longest, *range(1, len(train))]
        chosen = dict.fromkeys(wanted)
    shown = sorted(list(chosen)[:rows])
    return RowsPreview([train[i] for i in shown], student)


class RowsPreview:
    """Rows as the student sees them: grey is read, green is learnt, and the token that ends a reply is reversed.

    Without colours what is learnt stands in [[ ]], and the stop token in >> <<.
    """

    def __init__(self, rows: Sequence[Rendered], student: "Student") -> None:
        self._rows, self._student = rows, student
        tokenizer = student.tokenizer
        special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._special = frozenset(special | set(tokenizer.all_special_ids))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield a heading and a text for each row."""
        coloured = console.color_system is not None and not console.no_color
        line_break = "\\n\n" if options.ascii_only else "↵\n"
        if not self._rows:
            return
        legend = Text("\nWhat the student reads and learns: ")
        for part, word in (("read", "read"), ("learnt", "learnt"), ("stop", "stop token")):
            before, after = ("", "") if coloured else _MARKS[part]  # type: ignore[index]
            legend.append(f"{before}{word}{after}", _STYLES[part]).append("  ")  # type: ignore[index]
        yield legend
        for row in self._rows:
            yield Text(f"\n{visible(row.row.id)}  ({row.tokens} tokens, {row.labelled} learnt)", "bold")
            yield self._text(row, coloured=coloured, line_break=line_break)

    def _text(self, row: Rendered, *, coloured: bool, line_break: str) -> Text:
        # The consoles here do not wrap; a long line would then lose its end.
        text = Text(overflow="fold", no_wrap=False)
        for part, ids in self._parts(row):
            before, after = ("", "") if coloured else _MARKS[part]
            text.append(before)
            for special, piece in self._shortened(part, ids):
                style = _STYLES[part] + (" bold" if special else "")
                text.append(visible(piece).replace("\n", line_break), style)
            text.append(after)
        if row.cut:
            text.append(f" ({row.cut} more tokens were cut off)", "yellow")
        return text

    def _parts(self, row: Rendered) -> Iterator[tuple[Part, tuple[int, ...]]]:
        def part(pair: tuple[int, int]) -> Part:
            token, label = pair
            if label == IGNORED:
                return "read"
            return "stop" if token in self._student.stop_ids else "learnt"

        for name, pairs in groupby(zip(row.ids, row.labels, strict=True), part):
            yield name, tuple(token for token, _ in pairs)

    def _shortened(self, part: Part, ids: tuple[int, ...]) -> Iterator[tuple[bool, str]]:
        """Yield the tokens' text, special tokens apart, without the middle of a long stretch."""
        ends = _READ_ENDS if part == "read" else _LEARNT_ENDS
        left_out = len(ids) - 2 * ends
        if left_out > 0:
            yield from self._pieces(ids[:ends])
            yield True, f" …{left_out} more tokens… "
            ids = ids[-ends:]
        yield from self._pieces(ids)

    def _pieces(self, ids: tuple[int, ...]) -> Iterator[tuple[bool, str]]:
        for special, some in groupby(ids, self._special.__contains__):
            yield special, self._student.tokenizer.decode(list(some), clean_up_tokenization_spaces=False)
