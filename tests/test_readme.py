"""What the README says is run as it stands, on small documents and the session's engine."""

import re
from pathlib import Path
from typing import Any

import pytest

from synth import Record, Run, ScriptedTeacher
from synth.core.jsonl import read_lines
from synth.core.records import Passage
from synth.generators.find import find_generator
from tests.conftest import CHECKOUT

README = (CHECKOUT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.vllm
def test_the_python_lines_write_and_filter_a_run(
    engine: Any,  # noqa: ANN401  (the server's type needs the optional extra)
    manuals: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code = PYTHON[0]
    assert '"bundled"' in code and 'preset="extractive"' in code
    # The session's engine serves the bundled teacher already; and a rule that no two manuals can fail.
    code = code.replace('"bundled"', repr(engine.base_url))
    code = code.replace('preset="extractive"', 'rule=("evidence >= 0",)')
    exec(compile(code, "README.md", "exec"), {})
    assert "(" in capsys.readouterr().out
    run = Run.open(tmp_path / "runs" / "manuals")
    assert {"generate", "filter"} <= run.stages().keys()
    assert len(list(read_lines(run.records_path))) >= 3


async def test_the_generator_of_the_readme_works_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "faq.py").write_text(PYTHON[1])
    generator = find_generator(f"{tmp_path}/faq.py:Faq")
    text = "The lamp costs 40 pounds."
    teacher = ScriptedTeacher(['{"question": "What does the lamp cost?", "answer": "40 pounds"}'])
    (record,) = await generator.generate(Passage("lamp.md", text, 0, len(text)), teacher)
    assert isinstance(record, Record) and record.answer == "40 pounds"
    assert text in teacher.requests[0].messages[0].content


def test_the_generator_page_shows_the_same_generator_as_the_readme() -> None:
    page = (CHECKOUT / "docs" / "generators.md").read_text()
    shown = re.findall(r"class Faq:.*?```", page, re.DOTALL)[0]
    assert shown in README


def test_the_commands_of_the_readme_exist_with_the_flags_that_it_uses() -> None:
    page = (CHECKOUT / "docs" / "cli.md").read_text()
    used = re.findall(r"^    (synth|tune) (\w+) (.*)$", README, re.MULTILINE)
    assert len(used) >= 3
    for program, command, rest in used:
        section = page.split(f"## {program} {command}\n")[1].split("\n## ")[0]
        for flag in re.findall(r"--[a-z-]+", rest):
            assert f"{flag} " in section, f"{program} {command} has no {flag}"
