"""The Markdown summary and the terminal's table, made from verdict.json alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console

from tune.summary import markdown
from tune.table import report, table
from tune.verdict import Verdict

GOLDEN = Path(__file__).parent / "golden" / "verdict.json"


def verdict(**changes: Any) -> Verdict:  # noqa: ANN401
    """The golden verdict, some of its file changed."""
    value: Mapping[str, Any] = orjson.loads(GOLDEN.read_bytes())
    return Verdict.from_json({**value, **changes})


def lines_of(text: str, start: str) -> list[str]:
    """The table that begins with a line."""
    lines = text.splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith(start))
    return lines[first : lines.index("", first)]


def test_the_summary_has_all_that_a_reviewer_asks_for() -> None:
    held = verdict()
    text = markdown(held)
    assert text.startswith(
        f"## first: reject\n\n{held.text}\n\n**Decided by** `{held.decided_by}`. **Next:** {held.next}\n"
    )
    for check in held.checks:
        assert f"| `{check.name}` | " in text and check.said in text
    for finding in held.findings:
        assert f"**{finding.cause}** ({finding.certainty}): {finding.said} {finding.advice}" in text
    assert "- A doubt.\n" in text
    assert held.rule.statement in text
    for fact in (held.subject["heldout"]["sha256"], "candidate: first", "owner/small+first", "abc+def"):
        assert fact in text
    assert "latency with 8 calls in flight" in text.lower()
    assert "refuses 50 % of the questions that have no answer" in text
    assert "own confidence tells right answers from wrong ones with a ROC AUC of 0.75" in text
    assert "(confidence from 0.62 on, 50 % of the items), it scores F1 75.0." in text
    assert "shortened to fit the budget: 1 of base, 1 of few-shot, " in text


def test_the_table_of_clean_items_comes_first_and_every_line_has_every_column() -> None:
    text = markdown(verdict())
    assert text.index("### 44 clean items, which decide") < text.index("### All 48 items")
    shown = lines_of(text, "| contender | F1 | EM |")
    assert len(shown) == 2 + 6
    assert {line.count("|") for line in shown} == {shown[0].count("|")}
    assert [line.split(" | ")[0] for line in shown[2:]][-1] == "| candidate:second"


def test_an_accept_says_how_to_go_on() -> None:
    text = markdown(verdict(accepted=True, findings=[], next="Promote it: `tune promote RUN first`."))
    assert text.startswith("## first: accept") and "`tune promote RUN first`" in text and "### Why" not in text


@pytest.mark.parametrize("name", ["a|b", "<script>x</script>", "[x](http://example.org)", "two\nlines\n\n# three"])
def test_names_from_elsewhere_make_no_markup(name: str) -> None:
    value = orjson.loads(GOLDEN.read_bytes())
    value["subject"]["candidate"] = name
    value["subject"]["heldout"]["name"] = name
    value["checks"][0]["said"] = name
    text = markdown(Verdict.from_json(value))
    plain = markdown(verdict())
    assert "<script" not in text and "](http" not in text.replace("\\](http", "")
    assert len(text.splitlines()) == len(plain.splitlines())
    row = next(line for line in text.splitlines() if line.startswith("| `enough` |"))
    assert row.replace("\\|", "").count("|") == 4


def test_the_table_and_the_summary_agree_and_need_no_more_than_the_file() -> None:
    held = verdict()
    console = Console(width=220)
    with console.capture() as shown:
        console.print(table(held))
    row = held.clean.row("retrieval")
    gap = held.clean.gap("retrieval", held.metric)
    assert row is not None and row.unsupported is not None and gap is not None and gap.low is not None
    for text in (shown.get(), markdown(held)):
        for number in (f"{row.values['f1']:.1f}", f"{row.unsupported:.1f} %", f"{gap.points:.1f} ({gap.low:.1f} to "):
            assert number in text


def test_the_report_for_a_terminal_ends_with_what_to_do_and_takes_no_name_for_markup() -> None:
    value = orjson.loads(GOLDEN.read_bytes())
    value["checks"][0]["said"] = "[red]no[/red] [/]"
    held = Verdict.from_json(value)
    console = Console(width=220)
    with console.capture() as shown:
        console.print(report(held))
    text = shown.get()
    assert "[red]no[/red] [/]" in text
    assert text.rstrip().splitlines()[-1] == f"Next: {held.next}"
    assert [line.split()[0] for line in text.splitlines() if line.startswith(("passed", "failed", "not looked"))] == [
        {True: "passed", False: "failed", None: "not"}[check.passed] for check in held.checks
    ]
    for finding in held.findings:
        assert f"- {finding.cause} ({finding.certainty}). " in text
