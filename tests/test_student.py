"""A student is opened or refused in plain words."""

import json
from pathlib import Path

import huggingface_hub.constants
import pytest

from synth.core.errors import ConfigError
from tests.runs_for_tests import CHATML, tiny_student
from tune.student import PLAIN_TEMPLATE, open_student


def test_a_base_model_without_a_template_gets_the_plain_one(tmp_path: Path) -> None:
    student = open_student(str(tiny_student(tmp_path / "student", template=None)))
    assert (student.template, student.tokenizer.chat_template) == ("plain", PLAIN_TEMPLATE)


def test_the_plain_template_ends_turns_with_the_students_own_token(tmp_path: Path) -> None:
    folder = tiny_student(tmp_path / "student")
    settings = json.loads((folder / "tokenizer_config.json").read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "eos_token": "<|endoftext|>"}))
    (folder / "generation_config.json").unlink()
    own, plain = open_student(str(folder)), open_student(str(folder), template="plain")
    assert own.template == "own" and plain.stop_ids == {plain.tokenizer.convert_tokens_to_ids("<|endoftext|>")}
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day"}]
    assert plain.tokenizer.apply_chat_template(turns, tokenize=False).endswith("Good day<|endoftext|>\n")


def test_a_students_name_is_no_path_and_its_revision_follows_its_files(tmp_path: Path) -> None:
    folder = tiny_student(tmp_path / "my-student")
    before = open_student(str(folder))
    context = json.loads((folder / "config.json").read_text())["max_position_embeddings"]
    assert (before.name, before.local, before.context) == ("my-student", True, context)
    (folder / "chat_template.jinja").write_text(CHATML + " ")
    assert open_student(str(folder)).revision != before.revision


def test_a_folder_that_is_not_there_names_its_near_matches(tmp_path: Path) -> None:
    tiny_student(tmp_path / "student")
    with pytest.raises(ConfigError, match=r"no such model folder; did you mean student\?"):
        open_student(str(tmp_path / "studnet"))


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config\.json"):
        open_student(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="this is an adapter; name the model it was trained for"):
        open_student(str(tmp_path))


def test_a_hub_student_that_is_neither_cached_nor_reachable_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="some-org/some-model-1b: .*`hf download some-org/some-model-1b`"):
        open_student("some-org/some-model-1b")


def test_a_model_with_code_of_its_own_is_refused(tmp_path: Path) -> None:
    folder = tiny_student(tmp_path / "student")
    config = json.loads((folder / "config.json").read_bytes())
    strange = {**config, "model_type": "strange", "auto_map": {"AutoConfig": "strange.StrangeConfig"}}
    (folder / "config.json").write_text(json.dumps(strange))
    (folder / "strange.py").write_text("raise SystemExit('this ran')\n")
    with pytest.raises(ConfigError, match="Python code of its own, which is never run here"):
        open_student(str(folder))


def test_a_tokenizer_without_an_end_of_sequence_token_is_refused(tmp_path: Path) -> None:
    folder = tiny_student(tmp_path / "student")
    settings = json.loads((folder / "tokenizer_config.json").read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "eos_token": None}))
    with pytest.raises(ConfigError, match="could never stop"):
        open_student(str(folder))
