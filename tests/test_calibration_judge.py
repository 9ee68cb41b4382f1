"""A judge is calibrated like any score: on human pairs and what became of them, and refused where it is no good."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synth.filter import run_filter
from synth.filtering.config import FilterConfig
from synth.filters.rules_file import load_rules
from tests.conftest import Command
from tests.human_files import squad_file
from tests.stub_endpoint import stub_endpoint
from tests.test_filter_stage import a_run, sound


def judge(better: bool) -> Callable[[dict[str, Any]], str]:
    """Return a reader that knows whether the answer stands in the passage, and says so or the contrary."""

    def reply(body: dict[str, Any]) -> str:
        text = body["messages"][-1]["content"]
        names = body["response_format"]["json_schema"]["schema"]["properties"]
        if "found" in names:
            return json.dumps({"found": False, "answer": ""})
        passage, _, rest = text.partition("The question:")
        answer = re.findall(r"The answer to mark:\s*<[^>]*>\s*(.*?)\s*</", rest, re.DOTALL)
        good = bool(answer) and answer[0] in passage
        marks = {name: 5 if good == better else 1 for name in names if name not in {"reason", "self_contained"}}
        return json.dumps({"reason": "so it is", **marks, "self_contained": True})

    return reply


@pytest.mark.parametrize("better", [True, False])
def test_a_judge_is_measured_and_a_perverse_one_is_refused(tmp_path: Path, command: Command, better: bool) -> None:
    pytest.importorskip("sklearn")
    human = squad_file(tmp_path / "human.json")
    out = tmp_path / "rules.json"
    with stub_endpoint(judge(better)) as stub:
        options = ["--judge", stub.url, "--judge-pairs", "30", "--form", "passage", "--no-plot", "--resamples", "200"]
        corruptions = ["--corruption", "other_passage", "--corruption", "name_swapped"]
        done = command("synth", "calibrate", "--human", human, "--out", out, *options, *corruptions)
        assert done.returncode == 0, done.stderr
        asked = len(stub.bodies)
        assert asked > 60
        again = command("synth", "calibrate", "--human", human, "--out", out, *options, *corruptions)
        assert again.returncode == 0 and len(stub.bodies) == asked
    file = load_rules(out)
    cells = {(c.score, c.corruption): c for c in file.table}
    auc = cells["judge", "other_passage"].auc
    assert auc > 0.8 if better else auc < 0.2
    assert any(refusal.score == "judge" for refusal in file.refused) != better
    assert better or all(rule.score != "judge" for rule in file.rules)
    assert better or file.combined is None or "judge" not in file.combined.names


def test_the_rules_file_takes_the_place_of_the_preset_and_a_rule_of_ones_own_wins(
    tmp_path: Path, command: Command
) -> None:
    pytest.importorskip("sklearn")
    out = tmp_path / "rules.json"
    options = ["--form", "passage", "--no-plot", "--resamples", "200"]
    done = command("synth", "calibrate", "--human", squad_file(tmp_path / "human.json"), "--out", out, *options)
    assert done.returncode == 0, done.stderr
    file = load_rules(out)
    run = a_run(tmp_path, [sound(i) for i in range(12)])
    run_filter(run, FilterConfig(rules=str(out), rule=("form >= 1",)))
    entry = run.stages()["filter"]
    assert entry.config["rules"] == [str(rule) for rule in file.rules] + ["form >= 1"]
    if file.combined is not None:
        assert entry.config["combined"]["terms"]
    changed = json.loads(out.read_text())
    changed["rules"] = ["form >= 1"]
    out.write_text(json.dumps(changed))
    run_filter(run, FilterConfig(rules=str(out)))
    assert run.stages()["filter"].config["rules"] == ["form >= 1"]
