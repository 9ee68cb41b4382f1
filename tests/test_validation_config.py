"""What a user may set about a validation, and what is refused before anything is asked."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from synth.core.config import build
from synth.core.errors import ConfigError
from tune.rules import Rule
from tune.validation_config import ValidateConfig


def config(**settings: Any) -> ValidateConfig:  # noqa: ANN401
    return build(ValidateConfig, {"heldout": Path("h.jsonl")}, settings)


def test_the_defaults_of_the_settings_are_those_of_the_rule() -> None:
    assert config().rule() == Rule()


def test_every_number_of_the_rule_is_a_setting() -> None:
    wanted = Rule(("teacher",), "em", 1.0, 2.0, 3.0, 4.0, 0.9, 5, 6, 2000, 7)
    assert config(contenders="tuned,teacher", teacher="bundled", **asdict(wanted)).rule("em") == wanted


def test_what_is_not_asked_need_not_be_beaten_unless_it_is_named() -> None:
    assert config(contenders="base,tuned").rule().must_beat == ("base",)
    assert config(contenders="few-shot,tuned").rule().must_beat == ("few-shot",)
    with pytest.raises(ConfigError, match="neither base nor few-shot"):
        config(contenders="retrieval,tuned")


def test_earlier_candidates_and_the_teacher_are_contenders() -> None:
    held = config(contenders="base,tuned,teacher,candidate:first", teacher="bundled", must_beat="candidate:first")
    assert held.contenders == ("base", "tuned", "teacher", "candidate:first")
    for name in ("candidate:", "candidat:first", "techer"):
        with pytest.raises(ConfigError, match="no contender is called"):
            config(contenders=["base", "few-shot", "tuned", name])


def test_regression_sets_may_be_one_or_several_and_a_comma_is_part_of_a_name() -> None:
    assert config(regression="a,b.jsonl").regression == ("a,b.jsonl",)
    assert config(regression=[Path("a"), "owner/name:test"]).regression == (Path("a"), "owner/name:test")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hourly_price": 2.0, "price_prompt": 1.0, "price_completion": 1.0}, "not both"),
        ({"price_prompt": 1.0}, "go together"),
        ({"judge": "owner/judge"}, "agrees with people"),
        ({"retrieval_margin": -1.0}, "retrieval_margin"),
        ({"target_points": 0.0}, "target_points"),
        ({"min_item": 30}, "did you mean min_items"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**settings)


def test_the_settings_in_the_manifest_name_no_path_and_no_address() -> None:
    held = config(
        contenders="base,few-shot,tuned,teacher",
        regression=["secret/a.jsonl"],
        teacher="http://secret",
        server="http://secret",
        judge_marks=None,
    )
    assert "secret" not in str(held.settings())
    assert held.settings()["retrieval_margin"] == 5.0
