"""What each filter rule is worth: real trainings of the bundled student, scripted answers."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from synth.core.errors import ConfigError, RecordError, RunError
from synth.core.heldout import load_heldout
from synth.core.jsonl import read_lines
from synth.core.runs import Run
from tests.runs_for_tests import tiny_student
from tests.series_runs import (
    DOCUMENTS,
    QUESTIONS,
    Answers,
    decided,
    heldout_file,
    in_this_process,
    records,
    rejected,
    with_student,
)
from tune.ablation import AblateConfig, Ablation, ablate, ablation_table, read_ablation, returning
from tune.candidate import Candidate, find_candidate
from tune.cli_curve import register
from tune.series import write_finding

LAST = f"lamps/{DOCUMENTS}.md"  # the document that validates


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """A run whose filter rejected records for one reason or several, its candidate, and held-out questions."""
    folder = tmp_path_factory.mktemp("ablation")
    more = [
        *(rejected(n, f"lamps/{n}.md", "relevance:0.2, not >= 0.9") for n in range(3)),
        rejected(3, "lamps/3.md", "relevance:0.2, not >= 0.9", "form:markup"),
        rejected(4, LAST, "relevance:0.1, not >= 0.9"),
        rejected(5, "lamps/5.md", "relevance:0.1, not >= 0.9", question="How dear is  PART 1 of 5?"),
        rejected(6, "lamps/6.md", "form:markup", question="What does lamp 0 of series 0 cost?", answer="0 pounds."),
        rejected(7, "lamps/7.md", "form:markup", "form:boilerplate"),
        rejected(0, "lamps/0.md", "language:question in de, not en", question=f"What does lamp 0 of series {DOCUMENTS} cost?"),
        rejected(8, "lamps/1.md", "contaminated:0-1 (exact)"),
        rejected(9, "lamps/2.md", "odd/../name:1"),
    ]  # fmt: skip
    run = decided(folder / "run", records(more=more))
    with_student(run, tiny_student(folder / "student"))
    return run, heldout_file(folder / "heldout.jsonl")


def ablated(made: tuple[Run, Path], answers: Answers, **settings: object) -> Ablation:
    run, heldout = made
    config = AblateConfig.model_validate({"heldout": heldout, "resamples": 1000, **settings})
    return ablate(run, config, asking=answers.asking(), train=in_this_process)


def test_only_records_that_one_rule_alone_rejected_come_back(made: tuple[Run, Path]) -> None:
    run, heldout = made
    items = load_heldout(heldout).items
    found = {one.rule: one for one in returning(run, (), items)}
    assert list(found) == ["form", "language", "odd/../name", "relevance"]
    relevance = found["relevance"]
    # Five fail it alone: one is about the document that validates, one asks a held-out question.
    assert (relevance.rejects, relevance.alone, len(relevance.records)) == (6, 5, 3)
    # One of the two says what a row says already.
    assert (found["form"].rejects, found["form"].alone, len(found["form"].records)) == (3, 2, 1)
    # It asks what a validation row asks.
    assert (found["language"].alone, found["language"].records) == (1, ())
    assert len({one.rule: one for one in returning(run, ())}["relevance"].records) == 4


def test_a_rule_that_helps_and_one_that_harms_are_told_apart(made: tuple[Run, Path]) -> None:
    def right(candidate: Candidate) -> int:
        return 1 if "relevance" in candidate.name else 5 if "form" in candidate.name else 3

    answers = Answers(right)
    found = ablated(made, answers)
    rules = {one.rule: one for one in found.rules}
    assert found.score == pytest.approx(50) and found.questions == DOCUMENTS * QUESTIONS
    assert rules["relevance"].points == pytest.approx(-100 / 3, abs=1e-3)
    assert rules["relevance"].said.startswith("helps") and rules["form"].said.startswith("harms")
    assert rules["language"].student is None and rules["language"].said == "changes no training row"
    assert rules["odd/../name"].points == 0 and rules["odd/../name"].p_holm == 1
    assert "Keep relevance:" in found.text and "Loosen or drop form:" in found.text
    # Eight documents that all differ: 2 of 256 patterns of signs; three rules are compared.
    p, holm = rules["relevance"].p_value, rules["relevance"].p_holm
    assert p is not None and holm == pytest.approx(min(1, 3 * p))
    assert answers.asked == 4 * 48
    run, _ = made
    assert read_ablation(run) == found and ablation_table(found).row_count == 4
    assert any("contaminated is never left out" in note for note in found.notes) is False
    home = Run.open(run.path / "ablation")
    entry = home.stages()[f"sft:{rules['relevance'].student}"]
    assert entry.config["steps"] == 4 and {p.name for p in (home.path / "datasets").iterdir()} == {
        "form",
        "odd-..-name",
        "relevance",
    }
    rows = [row for _, row in read_lines(home.path / "datasets" / "relevance" / "train.jsonl")]
    assert len(rows) == 32 + 3 and LAST not in {row["document_id"] for row in rows}

    again = Answers(right)
    assert ablated(made, again) == found and again.asked == 0


def test_wanted_rules_are_the_only_ones(made: tuple[Run, Path]) -> None:
    found = ablated(made, Answers(lambda candidate: 3), rules="form")
    assert [one.rule for one in found.rules] == ["form"]


@pytest.mark.parametrize(
    ("rules", "message"),
    [("relevanc", "did you mean relevance"), ("contaminated", "cannot be left out: held-out questions")],
)
def test_rules_that_cannot_be_left_out_are_refused(made: tuple[Run, Path], rules: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ablated(made, Answers(lambda candidate: 3), rules=rules)


HELDOUT = {"name": "h.jsonl", "sha256": "0" * 64}


def test_records_that_were_changed_by_hand_are_refused(tmp_path: Path) -> None:
    run = decided(tmp_path / "run", records())
    with run.records_path.open("ab") as file:
        file.write(b"\n")
    with pytest.raises(RunError, match="not those that the filter wrote"):
        returning(run, ())
    with pytest.raises(RunError, match="no rule was left out yet"):
        read_ablation(run)
    path = run.path / "ablation" / "ablation.json"
    path.parent.mkdir(exist_ok=True)
    for content, said in [(b"{", "cannot be read"), (b"[]", "version None"), (b'{"version": 9}', "has version 9")]:
        path.write_bytes(content)
        with pytest.raises(RunError, match=f"{said}.*`tune ablate"):
            read_ablation(run)
    none = Ablation(
        {"student": "s", "like": "l", "with_all_rules": "l", "steps": 4, "heldout": HELDOUT}, "f1", 9, 3, 8, 5.0, (), ()
    )
    write_finding(path, none.to_json())  # No rule alone kept anything out.
    assert read_ablation(run) == none and none.text.startswith("No rule")
    path.write_bytes(b'{"version": 1}')
    with pytest.raises(RecordError, match=r"ablation\.schema\.json"):
        read_ablation(run)


def test_hidden_personal_data_does_not_come_back(tmp_path: Path) -> None:
    run = decided(tmp_path / "run", records(more=[rejected(1, "lamps/1.md", "form:markup")]))
    entry = run.stages()["filter"]
    run.finish_stage("filter", type(entry).from_json({**entry.to_json(), "config": {**entry.config, "pii": "mask"}}))
    with pytest.raises(ConfigError, match="hid personal data"):
        returning(run, ())


def test_a_run_without_validation_rows_is_ablated_without_some(tmp_path: Path) -> None:
    kept = [record for record in records() if record.document_id != LAST]
    run = decided(tmp_path / "run", [*kept, rejected(1, "lamps/1.md", "form:markup")])
    with_student(run, tiny_student(tmp_path / "student"))
    heldout = heldout_file(tmp_path / "heldout.jsonl")
    found = ablated((run, heldout), Answers(lambda candidate: 3))
    student = find_candidate(Run.open(run.path / "ablation"), found.rules[0].student)
    assert sorted(student.data) == ["data:form/train.jsonl"]
    assert found.rules[0].added == 1


def test_the_command_prints_what_the_function_returns(made: tuple[Run, Path]) -> None:
    run, heldout = made
    found = ablated(made, Answers(lambda candidate: 3, as_served=True), rules="form", resamples=10_000)
    app = typer.Typer()
    register(app)
    common = ["ablate", str(run.path), "--heldout", str(heldout), "--rules", "form"]
    told = CliRunner().invoke(app, [*common, "--json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout) == {"run": str(run.path), "ablation": found.to_json()}
    told = CliRunner().invoke(app, [*common, "--quiet"])
    assert "No rule makes a difference that chance does not explain" in told.stdout
