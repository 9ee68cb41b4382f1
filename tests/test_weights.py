from pathlib import Path

import pytest

from synth.inference.weights import model_name, weights_revision


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "student"
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"weights")
    (path / "config.json").write_text("{}")
    return path


def test_a_revision_follows_the_bytes_and_the_names_and_not_the_place(folder: Path, tmp_path: Path) -> None:
    before = weights_revision(folder)
    assert len(before) == 16
    assert weights_revision(str(folder.rename(tmp_path / "moved"))) == before
    moved = tmp_path / "moved"
    (moved / "model.safetensors").write_bytes(b"weighty")
    changed = weights_revision(moved)
    (moved / "config.json").rename(moved / "other.json")
    assert len({before, changed, weights_revision(moved)}) == 3


def test_notes_beside_the_weights_do_not_count(folder: Path) -> None:
    before = weights_revision(folder)
    for name in ("README.md", "training.json", ".cache"):
        (folder / name).write_text("another day")
    (folder / "checkpoint-5").mkdir()
    assert weights_revision(folder) == before
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    assert weights_revision(folder) != before


def test_a_hub_id_is_its_own_name_and_has_no_revision() -> None:
    assert (model_name("owner/model"), weights_revision("owner/model")) == ("owner/model", "")


@pytest.mark.parametrize("spell", [lambda p: p, str, lambda p: f"{p}/"])
def test_a_folder_goes_by_its_last_part_however_it_is_spelled(folder: Path, spell: type[str]) -> None:
    assert model_name(spell(folder)) == "student"


def test_a_relative_folder_and_one_that_is_not_there_show_no_path(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert model_name(".") == "student"
    assert model_name(Path("/somewhere/else/teacher")) == "teacher"
