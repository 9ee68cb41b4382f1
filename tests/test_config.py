from pathlib import Path

import pytest
from pydantic import BaseModel

from synth.core.config import build, read_config
from synth.core.errors import ConfigError
from synth.core.resources import resource
from synth.filter import decide
from synth.filtering.config import FilterConfig
from synth.generate import GenerateConfig
from tune.config import TuneConfig
from tune.validation_config import ValidateConfig


def test_every_setting_of_the_demo_is_one_that_its_stage_knows() -> None:
    tables = read_config(resource("demo", "demo.toml"))
    models: dict[str, type[BaseModel]] = {"generate": GenerateConfig, "filter": FilterConfig, "sft": TuneConfig}
    for stage, model in models.items():
        assert build(model, tables[stage]).model_dump().keys() >= tables[stage].keys()
    assert build(ValidateConfig, tables["validate"], {"heldout": Path("h.jsonl")}).max_tokens == 40
    assert decide([], build(FilterConfig, tables["filter"])) == []


def test_later_layers_win_and_none_means_not_given() -> None:
    config = build(GenerateConfig, {"seed": 1, "temperature": 0.5}, {"seed": 2, "temperature": None})
    assert (config.seed, config.temperature, config.top_p) == (2, 0.5, 0.95)


def test_every_wrong_setting_is_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"temperature: .*; unknown setting 'sed' \(did you mean seed\?\)") as caught:
        build(GenerateConfig, {"sed": 1, "temperature": 9}, where="run.toml")
    assert caught.value.exit_code == 2 and "run.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("[generat]\n", "did you mean generate"), ("x = [", "not valid TOML"), ("seed = 1\n", "no|known")],
)
def test_a_config_file_that_is_wrong_says_where(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_config(path)
