"""The prompt budget of a student: its own tokens, its own length."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from synth.core.errors import ConfigError
from synth.core.records import Message
from synth.core.resources import resource
from tune.budget import Fitted, model_length, prompt_count, student_budget, trimmed
from tune.candidate import Candidate

BUNDLED = resource("demo", "models") / "student"
TURNS = (Message("system", "Be brief."), Message("user", "How heavy is gadget 3?"))


def candidate(folder: Path, *, settings: dict[str, Any] | None = None, **config: Any) -> Candidate:  # noqa: ANN401
    """A candidate as `tune sft` saves it, without weights, beside a model with these settings."""
    model, own = folder / "model", folder / "own"
    model.mkdir()
    shutil.copytree(BUNDLED, own, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    (model / "config.json").write_bytes(orjson.dumps(config))
    if settings is not None:
        (own / "tokenizer_config.json").write_bytes(orjson.dumps(settings))
    return Candidate("c", own, "lora", "model", model, "r", {}, False)


def test_the_count_is_that_of_the_tokenizer_behind_the_chat_template(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    count = prompt_count(candidate(tmp_path))
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED, local_files_only=True)
    turns = [message.to_json() for message in TURNS]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert count(TURNS) == len(ids) > 10


@pytest.mark.parametrize("template", [None, "{{ raise_exception('no system turn') }}", "{{ nothing.at.all }}"])
def test_a_template_that_cannot_be_used_is_allowed_for(tmp_path: Path, template: str | None) -> None:
    held = candidate(tmp_path, settings={})
    exact = prompt_count(held)(TURNS)
    path = held.folder / "chat_template.jinja"
    path.unlink() if template is None else path.write_text(template)
    assert exact <= prompt_count(held)(TURNS) <= exact + 30


def test_the_template_of_the_tokenizers_settings_counts_where_no_file_has_one(tmp_path: Path) -> None:
    template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
    held = candidate(tmp_path, settings={"chat_template": template, "bos_token": {"content": "<|im_start|>"}})
    bare = prompt_count(held)
    (held.folder / "chat_template.jinja").unlink()
    assert prompt_count(held)((Message("user", ""),)) == 1 < bare((Message("user", ""),))


@pytest.mark.parametrize(
    ("config", "settings", "length"),
    [
        ({"max_position_embeddings": 2048}, {}, 2048),
        ({"max_position_embeddings": 2048}, {"model_max_length": 512}, 512),
        ({"max_position_embeddings": 2048}, {"model_max_length": 1e30}, 2048),
        ({"text_config": {"max_position_embeddings": 100}}, {}, 100),
        ({"n_positions": 1024}, {}, 1024),
        ({}, {}, None),
    ],
)
def test_the_length_is_read_from_the_models_files(
    tmp_path: Path, config: dict[str, Any], settings: dict[str, Any], length: int | None
) -> None:
    assert model_length(candidate(tmp_path, settings=settings, **config)) == length


def test_what_the_answer_needs_is_kept_free(tmp_path: Path) -> None:
    held = candidate(tmp_path, settings={}, max_position_embeddings=2048)
    assert student_budget(held, max_tokens=64).tokens == 1984
    assert student_budget(held, max_tokens=64, tokens=100).tokens == 100
    with pytest.raises(ConfigError, match="of which max_tokens leaves 48 for a prompt, not 100"):
        student_budget(held, max_tokens=2000, tokens=100)
    with pytest.raises(ConfigError, match="leaves none for a prompt"):
        student_budget(held, max_tokens=2048)


@pytest.mark.parametrize(
    ("args", "tokens"),
    [
        (["--max-model-len", "256"], 192),
        (["--dtype", "float32", "--max-model-len=512", "--max-model-len=128"], 64),
        (["--max_model_len", "256", "--seed", "1"], 192),
        (["--max-model-len", "auto"], 1984),
        (["--seed", "256"], 1984),
    ],
)
def test_a_server_that_serves_a_shorter_length_leaves_less(tmp_path: Path, args: list[str], tokens: int) -> None:
    held = candidate(tmp_path, settings={}, max_position_embeddings=2048)
    assert student_budget(held, max_tokens=64, server_args=args).tokens == tokens


def test_a_model_of_unknown_length_needs_a_figure(tmp_path: Path) -> None:
    held = candidate(tmp_path, settings={})
    with pytest.raises(ConfigError, match="set --prompt-budget"):
        student_budget(held, max_tokens=64)
    (tmp_path / "model" / "config.json").write_text("[")
    with pytest.raises(ConfigError, match="config.json: cannot be read"):
        student_budget(held, max_tokens=64)
    assert student_budget(held, max_tokens=64, tokens=300).tokens == 300


@dataclass(frozen=True)
class Sent:
    contender: str
    prompt: Fitted


def test_what_was_left_out_is_counted_by_contender() -> None:
    whole = Fitted((), 0, 4, "examples")
    shorter = Fitted((), 3, 4, "examples")
    found = trimmed(
        [Sent("base", Fitted(())), Sent("few-shot", whole), Sent("few-shot", shorter)]
        + [Sent("few-shot", Fitted((), 4, 4, "examples", "too long"))]
    )
    assert found["base"].said() == ""
    assert found["few-shot"].said() == (
        "few-shot: 1 of 3 prompts were too long for the budget and lost 3 of 8 examples; "
        "1 of 3 questions do not fit even alone and were not asked."
    )
    assert found["few-shot"].to_json()["too_long"] == 1
