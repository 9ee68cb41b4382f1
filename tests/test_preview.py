"""Preflight is shown so that it can be read in colour, without colour, and whatever the texts hold."""

import re
import subprocess
import sys
from functools import partial
from io import StringIO

import pytest
from rich.console import Console
from rich.text import Text

from synth.core.records import Message
from tests.conftest import CHECKOUT
from tune.config import TuneConfig
from tune.findings import Preflight, visible
from tune.preflight import examine
from tune.preview import checks_table, preflight_view, rows_preview
from tune.rows import Dataset, Row
from tune.student import Student, open_student

USER, ASSISTANT = (partial(Message, role) for role in ("user", "assistant"))


def chat(name: str, question: str, *answers: str) -> Row:
    turns = [turn for answer in answers for turn in (ASSISTANT(answer), USER("And?"))][:-1]
    return Row(name, name, (USER(question),), tuple(turns))


@pytest.fixture(scope="module")
def student() -> Student:
    return open_student("bundled")


def examined(student: Student, *train: Row, **settings: object) -> Preflight:
    return examine(Dataset(train, (), {}), student, TuneConfig.model_validate(settings))


def shown(what: object, *, colour: bool = False, width: int = 100, encoding: str = "utf-8") -> str:
    class File(StringIO):
        pass

    file = File()
    File.encoding = property(lambda self: encoding)  # type: ignore[assignment,misc]
    console = Console(
        file=file,
        width=width,
        force_terminal=colour,
        color_system="truecolor" if colour else None,
        legacy_windows=False,
    )
    console.print(what)
    return file.getvalue()


def test_without_colour_what_is_learnt_stands_between_marks(student: Student) -> None:
    row = chat("many", "How much?", "1.7 litres", "Nothing.")
    text = shown(rows_preview(examined(student, row), student))
    assert "[[1.7 litres]]>><|im_end|><<" in text and "[[Nothing.]]>><|im_end|><<" in text
    learnt = re.findall(r"\[\[(.*?)\]\]", text)
    assert learnt == ["learnt", "1.7 litres", "Nothing."]
    assert "<|im_start|>user↵\nHow much?<|im_end|>↵" in text


def test_in_colour_the_prompt_is_grey_the_answer_green_and_the_stop_token_reversed(student: Student) -> None:
    text = shown(rows_preview(examined(student, chat("a", "How much?", "1.7 litres")), student), colour=True)
    assert "\x1b[32m1.7 litres\x1b[0m" in text
    assert "\x1b[1;7;32m<|im_end|>\x1b[0m" in text
    assert re.search(r"\x1b\[90mHow much\?\x1b\[0m", text)
    assert "[[" not in text and ">>" not in text


def test_a_long_prompt_loses_its_middle_and_keeps_both_ends(student: Student) -> None:
    words = " ".join(f"word{i}" for i in range(400))
    found = examined(student, chat("a", f"Begin {words} end?", "Fine."))
    text = shown(rows_preview(found, student))
    [left_out] = re.findall(r"…([0-9]+) more tokens…", text)
    assert "Begin word0" in text and "word399 end?" in text and "word200" not in text
    assert int(left_out) == found.train[0].prompt_tokens - 120 and "[[Fine.]]" in text


def test_hostile_text_is_seen_and_does_nothing(student: Student) -> None:
    text = "\x1b]0;owned\x07 [bold red]red[/] [/] \u202egnp.exe \x9b31m \r gone :smile: [link=file:///x]y[/link]"
    found = examined(student, chat("[red]id\x1b[2J", text, text))
    for colour in (False, True):
        out = shown(preflight_view(found, student), colour=colour, width=400)
        plain = re.sub(r"\x1b\[[0-9;]*m", "", out)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", plain)
        assert r"\x1b]0;owned\x07 [bold red]red[/] [/] \u202egnp.exe \x9b31m \r gone :smile: [link=file:///x]" in plain
        assert r"[red]id\x1b[2J" in plain


def test_an_ascii_terminal_gets_ascii_line_breaks(student: Student) -> None:
    out = shown(rows_preview(examined(student, chat("a", "How much?", "1.7 litres")), student), encoding="ascii")
    assert out.isascii() and "user\\n\nHow much?" in out


def test_the_table_names_every_check_with_its_status_in_words(student: Student) -> None:
    found = examined(student, chat("a", "How much?", " "), chat("b", "How often?", "Weekly."))
    text = shown(checks_table(found), width=70)
    for check in found.checks:
        [line] = [line for line in text.splitlines() if line.split(maxsplit=1)[1:] and f" {check.name}  " in line]
        assert line.startswith(check.status)
    assert text.count("error") == 1 and "fix: reject it in the filter" in text
    assert all(len(line) <= 70 for line in text.splitlines())


def test_three_rows_are_shown_with_a_cut_one_and_the_longest_among_them(student: Student) -> None:
    rows = [chat(f"r{i}", f"How much is {i}?", "Fine. " * (2 if i != 5 else 9)) for i in range(8)]
    cut = chat("cut", "How much?", "water " * 90)
    found = examined(student, *rows, cut, max_length=64, on_overflow="truncate")
    text = shown(rows_preview(found, student))
    assert re.findall(r"^(\w+)  \(\d+ tokens, \d+ learnt\)", text, re.MULTILINE) == ["r0", "r1", "cut"]
    assert f"({found.train[-1].cut} more tokens were cut off)" in text
    whole = shown(rows_preview(examined(student, *rows), student))
    assert re.findall(r"^(\w+)  \(", whole, re.MULTILINE) == ["r0", "r1", "r5"]


def test_no_row_is_no_preview(student: Student) -> None:
    nothing = examined(student, chat("a", "How much?", "water " * 90), max_length=8, on_overflow="drop")
    assert shown(rows_preview(nothing, student)) == ""
    assert "left out" in shown(preflight_view(nothing, student))


def test_characters_that_act_are_escaped_and_others_stay() -> None:
    assert visible("a\tb\x00\u200b\ue000\ud800\nñ 日本 🙂") == "a\\tb\\x00\\u200b\\ue000\\ud800\nñ 日本 🙂"
    assert Text(visible("[b]")).plain == "[b]"


def test_the_preview_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, tune.preview; print([m for m in ('torch', 'transformers', 'trl', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_long_answer_is_wrapped_where_the_console_does_not(student: Student) -> None:
    """The command line's own console wraps nothing, and the stop token stands at the end."""
    found = examined(student, chat("long", "Why?", "since the box lever has been raised " * 4))
    file = StringIO()
    Console(file=file, width=40, soft_wrap=True).print(rows_preview(found, student))
    assert ">><|im_end|><<" in file.getvalue().replace("\n", "")
