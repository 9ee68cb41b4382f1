import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.core import jsonl
from synth.core.errors import RecordError, RunError
from synth.core.jsonl import digest_file, read_lines, write_jsonl

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(max_examples=60)
@given(rows=st.lists(json_values, max_size=12))
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    path = tmp_path_factory.mktemp("jsonl") / "rows.jsonl"
    digest = write_jsonl(path, rows)
    assert [value for _, value in read_lines(path)] == rows
    assert digest == digest_file(path)


def test_a_bad_line_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n{"a": \n')
    lines = read_lines(path)
    assert next(lines) == (1, {"a": 1})
    with pytest.raises(RecordError, match=r"rows\.jsonl:3: not valid JSON"):
        next(lines)


def test_a_huge_line_is_refused_before_it_fills_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "MAX_LINE_BYTES", 1000)
    path = tmp_path / "rows.jsonl"
    path.write_text('"' + "x" * 2000 + '"\n')
    with pytest.raises(RecordError, match=r"rows\.jsonl:1: the line is longer"):
        list(read_lines(path))


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be read"):
        list(read_lines(tmp_path / "none.jsonl"))


def test_a_write_that_fails_half_way_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [1, 2])

    def rows() -> Any:  # noqa: ANN401
        yield 3
        raise ValueError("the source broke")

    with pytest.raises(ValueError, match="the source broke"):
        write_jsonl(path, rows())
    assert path.read_text() == "1\n2\n"
    assert [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_full_disk_while_writing_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [1])
    full = os.open("/dev/full", os.O_WRONLY)

    def on_a_full_disk(prefix: str, suffix: str, dir: Path) -> tuple[int, str]:  # noqa: A002
        name = dir / f"{prefix}x{suffix}"
        name.touch()
        return full, str(name)

    monkeypatch.setattr("tempfile.mkstemp", on_a_full_disk)
    with pytest.raises(RunError, match="No space left on device.*free some disk space"):
        write_jsonl(path, range(100_000))
    assert path.read_text() == "1\n"
    assert [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]
