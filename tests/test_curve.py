"""Students on nested shares of a dataset: real trainings of the bundled student, scripted answers."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from synth.core.config import build
from synth.core.errors import ConfigError, InferenceError, Interrupted, RecordError, RunError
from synth.core.jsonl import read_lines, write_jsonl
from synth.core.runs import Run
from tests.conftest import CHECKOUT
from tests.runs_for_tests import tiny_student
from tests.series_runs import (
    DOCUMENTS,
    QUESTIONS,
    Answers,
    decided,
    heldout_file,
    in_this_process,
    records,
    with_student,
)
from tune.apart import to_toml, train_apart
from tune.candidate import Candidate, find_candidate
from tune.cli_curve import register
from tune.config import TuneConfig
from tune.curve import Curve, CurveConfig, curve, read_curve
from tune.curve_view import curve_table, draw, text_plot
from tune.data import open_dataset
from tune.series import model_of, read_finding, write_finding
from tune.sft import train


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """A run of 32 training rows about eight documents, its candidate, and held-out questions."""
    folder = tmp_path_factory.mktemp("curve")
    run = decided(folder / "run", records())
    with_student(run, tiny_student(folder / "student"))
    return run, heldout_file(folder / "heldout.jsonl")


def share(candidate: Candidate) -> int:
    """The share of a student in percent, by its name."""
    return int(candidate.name.split("-")[1]) if candidate.name.startswith("curve-") else 100


def drawn(made: tuple[Run, Path], answers: Answers, **settings: object) -> Curve:
    run, heldout = made
    config = build(CurveConfig, {"heldout": heldout, "shares": "0.25,0.5,1", "resamples": 1000}, settings)
    return curve(run, config, asking=answers.asking(), train=in_this_process)


def test_a_curve_is_drawn_over_nested_shares_and_made_only_once(made: tuple[Run, Path]) -> None:
    run, _ = made
    before = run.manifest_path.read_bytes()
    answers = Answers(lambda candidate: {25: 1, 50: 2, 100: 3}[share(candidate)])
    first = drawn(made, answers)
    assert [(s.share, s.records, s.documents, s.seen) for s in first.sizes] == [
        (0.25, 8, 2, 12),
        (0.5, 16, 4, 24),
        (1.0, 32, 8, 48),
    ]
    assert [s.score for s in first.sizes] == pytest.approx([100 / 6, 200 / 6, 50], abs=1e-3)
    assert first.forecast is not None and first.forecast.scatter is None
    assert first.advice.what == "more" and "more records for +2 points" in first.advice.said
    assert answers.asked == 3 * 48
    # The candidate itself is the last point, and no student of the curve is a candidate of the run.
    assert first.sizes[-1].student == find_candidate(run).name
    assert run.manifest_path.read_bytes() == before
    home = Run.open(run.path / "curve")
    assert len([stage for stage in home.stages() if stage.startswith("sft:")]) == 2
    rows = [row for _, row in read_lines(home.path / "answers" / f"{first.sizes[0].student}.jsonl")]
    assert len(rows) == 48 and rows[0]["answer"] == "forty pounds" and rows[-1]["answer"] == "no idea"
    assert read_curve(run) == first

    stamps = {p: p.stat().st_mtime_ns for p in (run.path / "curve" / "students").rglob("*.safetensors")}
    again = Answers(lambda candidate: 0)
    assert drawn(made, again) == first
    assert again.asked == 0
    assert stamps == {p: p.stat().st_mtime_ns for p in (run.path / "curve" / "students").rglob("*.safetensors")}


def test_a_smaller_share_is_a_part_of_a_larger_one_and_of_whole_documents(made: tuple[Run, Path]) -> None:
    run, _ = made
    model = model_of(run, None, {})
    rows = [open_dataset(run, model.config.model_copy(update={"subset": s})).train for s in (0.25, 0.5, None)]
    ids = [{row.id for row in part} for part in rows]
    assert ids[0] < ids[1] < ids[2]
    for part in rows:
        documents = {row.document_id for row in part}
        assert {row.id for row in part} == {row.id for row in rows[-1] if row.document_id in documents}


def test_a_level_curve_says_stop(made: tuple[Run, Path]) -> None:
    found = drawn(made, Answers(lambda candidate: 3, "level"))
    assert found.advice.what == "stop" and found.advice.said.startswith("Flat: stop.")


def test_a_falling_curve_is_no_power_law(made: tuple[Run, Path]) -> None:
    found = drawn(made, Answers(lambda candidate: {25: 6, 50: 5, 100: 1}[share(candidate)], "falling"))
    assert found.advice.what == "unknown"
    assert "with 32 records the score is 83.3 points lower than with 8" in found.advice.said


def test_two_sizes_do_not_make_a_curve(made: tuple[Run, Path]) -> None:
    found = drawn(made, Answers(lambda candidate: 3), shares=(0.5, 1.0))
    assert found.forecast is None and "2 sizes do not make a curve" in found.advice.said
    assert text_plot(found) and curve_table(found).row_count == 2


def test_shares_of_the_same_documents_are_one_point(made: tuple[Run, Path]) -> None:
    found = drawn(made, Answers(lambda candidate: 3), shares="0.24,0.25,0.5,0.99,1")
    assert [s.share for s in found.sizes] == [0.24, 0.5, 1.0]
    assert len([note for note in found.notes if "they are one point" in note]) == 2


def test_other_settings_make_other_students(made: tuple[Run, Path]) -> None:
    run, heldout = made
    config = CurveConfig(heldout=heldout, shares=(1.0,), resamples=1000)
    answers = Answers(lambda candidate: 3)
    found = curve(run, config, settings={"learning_rate": 1e-3}, asking=answers.asking(), train=in_this_process)
    assert found.sizes[0].student.startswith("curve-100-")
    kept = Run.open(run.path / "curve").stages()[f"sft:{found.sizes[0].student}"].config
    assert kept["learning_rate"] == 1e-3 and kept["rank"] == 2
    with pytest.raises(ConfigError, match="did you mean learning_rate"):
        curve(run, config, settings={"learning_rat": 1e-3}, asking=answers.asking(), train=in_this_process)


def test_equal_steps_are_those_of_the_candidate(made: tuple[Run, Path]) -> None:
    equal = drawn(made, Answers(lambda candidate: 3), shares="0.25,1", equal_steps=True)
    assert equal.sizes[0].steps == equal.sizes[1].steps == 4
    usual = drawn(made, Answers(lambda candidate: 3), shares="0.25,1")
    assert usual.sizes[0].steps == 1


def test_a_failed_call_leaves_its_question_out_for_every_student(made: tuple[Run, Path]) -> None:
    run, heldout = made
    config = CurveConfig(heldout=heldout, shares=(0.25, 1.0), resamples=1000, max_failed=0.05)
    answers = Answers(lambda candidate: 3, "failing", fails=lambda candidate: share(candidate) == 25)
    found = curve(run, config, asking=answers.asking(), train=in_this_process)
    assert found.questions == 47
    assert any("a call about them failed: 1 question." in note for note in found.notes)
    with pytest.raises(InferenceError, match="1 call failed"):
        strict = config.model_copy(update={"max_failed": 0.0})
        curve(run, strict, asking=answers.asking(), train=in_this_process)


def test_questions_that_the_dataset_asks_are_left_out(made: tuple[Run, Path], tmp_path: Path) -> None:
    run, heldout = made
    other = tmp_path / "other.jsonl"
    leak = b'{"id":"leak","question":"What does LAMP 0 of series 3 cost?","answer":"0 pounds","document_id":"d"}\n'
    other.write_bytes(heldout.read_bytes() + leak)
    config = CurveConfig(heldout=other, shares=(0.25, 1.0), resamples=1000)
    found = curve(run, config, asking=Answers(lambda candidate: 3, "leak").asking(), train=in_this_process)
    assert found.questions == 48
    assert "Left out, since the dataset asks them: 1 of 49 questions." in found.notes
    other.write_bytes(leak)
    with pytest.raises(RunError, match="every held-out question was trained on"):
        curve(run, config, asking=Answers(lambda candidate: 3, "leak").asking(), train=in_this_process)


def test_labels_are_compared_by_how_many_are_right(made: tuple[Run, Path], tmp_path: Path) -> None:
    run, heldout = made
    rows = [row for _, row in read_lines(heldout)]
    labels = tmp_path / "labels.jsonl"
    write_jsonl(
        labels,
        (
            {"id": row["id"], "question": row["question"], "document_id": row["document_id"], "label": label}
            for row in rows
            for label in ["forty pounds" if row["id"].endswith(("0", "1")) else "no idea"]
        ),
    )
    config = CurveConfig(heldout=labels, shares=(0.25, 1.0), resamples=1000)
    answers = Answers(lambda candidate: {25: 6, 100: 2}[share(candidate)], "labels")
    found = curve(run, config, asking=answers.asking(), train=in_this_process)
    assert found.metric == "correct"
    assert [size.score for size in found.sizes] == pytest.approx([100 / 3, 100], abs=1e-3)
    with pytest.raises(ConfigError, match="no metric is called 'corect'"):
        wrong = config.model_copy(update={"metric": "corect"})
        curve(run, wrong, asking=answers.asking(), train=in_this_process)


def test_a_run_without_a_candidate_names_the_command(tmp_path: Path) -> None:
    run = decided(tmp_path / "run", records())
    with pytest.raises(RunError, match="no student is tuned yet.*tune sft"):
        curve(run, CurveConfig(heldout=heldout_file(tmp_path / "h.jsonl")), train=in_this_process)
    with pytest.raises(RunError, match="there is no curve yet.*tune curve"):
        read_curve(run)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shares": "0.5,2"}, "at most 1, not 2"),
        ({"shares": ""}, "not nothing"),
        ({"share": "0.5"}, "did you mean shares"),
        ({"gain": 0}, "gain"),
    ],
)
def test_settings_that_make_no_curve_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(CurveConfig, {"heldout": "h.jsonl"}, settings)


def test_a_candidate_of_other_rows_wants_them_named(made: tuple[Run, Path], tmp_path: Path) -> None:
    source, heldout = made
    run = decided(tmp_path / "run", records())
    student = find_candidate(source).spec
    with_student(run, Path(student), data=str(source.path))
    with pytest.raises(ConfigError, match=r"name them with data in the table \[sft\]"):
        model_of(run, None, {})
    model = model_of(run, None, {"data": str(source.path)})
    assert model.config.data == str(source.path)
    with pytest.raises(ConfigError, match="no settings of a series"):
        model_of(source, None, {"subset": 0.5})
    assert heldout.is_file()


def test_a_student_is_trained_apart_with_the_very_same_weights(made: tuple[Run, Path], tmp_path: Path) -> None:
    run, _ = made
    settings = model_of(run, None, {}).config.model_copy(update={"subset": 0.25, "candidate": "one"})
    notes: list[str] = []
    apart, here = Run.create(tmp_path / "apart"), Run.create(tmp_path / "here")
    train_apart(apart, settings, notes.append)
    train(here, settings)
    assert any("subset: 8 of 32 training rows, 2 of 8 documents" in note for note in notes)
    names = [p.name for p in find_candidate(here, "one").folder.glob("*.safetensors")]
    assert names and all(
        (apart.student_path("one") / n).read_bytes() == (here.student_path("one") / n).read_bytes() for n in names
    )
    with pytest.raises(ConfigError, match="the training of two failed: .*no-such-model"):
        train_apart(apart, settings.model_copy(update={"candidate": "two", "student": str(tmp_path / "no-such-model")}))


APART = """
import sys
from pathlib import Path
from synth.core.errors import SynthError
from synth.core.runs import Run
from tune.apart import train_apart
from tune.cli_curve import register
from tune.config import TuneConfig
print("up", flush=True)
try:
    train_apart(Run.open(Path(sys.argv[1])), TuneConfig.model_validate_json(sys.argv[2]), lambda n: print(n, flush=True))
except SynthError as error:
    print(type(error).__name__, error, flush=True)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_training_apart_saves_and_stops_with_the_one_who_asked(
    made: tuple[Run, Path], tmp_path: Path, how: signal.Signals
) -> None:
    settings = model_of(made[0], None, {}).config.model_copy(
        update={"candidate": "long", "epochs": 2000, "early_stopping": 0}
    )
    run = Run.create(tmp_path / "run")
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-c", APART, str(run.path), settings.model_dump_json(by_alias=True)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "tokens/s" in line:  # the first step is done
            process.send_signal(how)
            break
    rest, _ = process.communicate(timeout=120)
    if how is signal.SIGINT:
        assert process.returncode == Interrupted.exit_code
        assert "Interrupted the training of long was stopped; run the same command again" in rest
    # Whoever asked, the training itself saved what it had, and let the run go.
    log = run.log_path("sft-long")
    for _ in range(600):
        if "the checkpoint is saved" in log.read_text():
            break
        time.sleep(0.1)
    assert "the checkpoint is saved" in log.read_text()
    with run.lock():
        assert "sft:long" not in run.stages()
    assert [*(run.path / "students" / ".long.part" / "checkpoints").iterdir()]


def test_the_command_prints_what_the_function_returns(made: tuple[Run, Path], tmp_path: Path) -> None:
    run, heldout = made
    answers = Answers(lambda candidate: {25: 1, 50: 2, 100: 3}[share(candidate)], as_served=True)
    found = drawn(made, answers, gain=5)
    app = typer.Typer()
    register(app)
    table = tmp_path / "tune.toml"
    table.write_text("[validate]\nresamples = 1000\nmax_failed = 0.5\ncandidate = 'none'\n[sft]\nthreads = 1\n")
    common = ["curve", str(run.path), "--heldout", str(heldout), "--shares", "0.25,0.5,1", "--gain", "5"]
    told = CliRunner().invoke(app, [*common, "--config", str(table), "--json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout) == {"run": str(run.path), "curve": found.to_json()}
    told = CliRunner().invoke(app, [*common, "--config", str(table), "--quiet"])
    assert found.advice.said in told.stdout and "Score by size of the dataset, 48 questions" in told.stdout
    assert text_plot(found).splitlines()[-1] in told.stdout


def test_settings_survive_their_config_file() -> None:
    settings = TuneConfig(
        student='a"b\\c\x7fé\n',
        candidate="x",
        mix=("a=0.5", "b=.5"),
        learning_rate=1e-7,
        target_modules=["q", "v"],
        trainer={"a b": True, "kwargs": {"x": 1e-5}},
        from_="abc",
    )
    assert TuneConfig(**tomllib.loads(to_toml(settings))["sft"]) == settings


def test_the_plot_shows_every_score_and_where_the_law_goes(made: tuple[Run, Path]) -> None:
    found = drawn(made, Answers(lambda candidate: {25: 1, 50: 2, 100: 3}[share(candidate)]))
    shown = text_plot(found)
    assert shown.count("o") == 3 + "records".count("o") and "." in shown and "|" in shown
    assert all(str(n) in shown.splitlines()[-1] for n in (8, 16, 32, 64))
    assert curve_table(found).row_count == 3
    assert json.loads(json.dumps(found.to_json())) == found.to_json()
    assert found.questions == DOCUMENTS * QUESTIONS


def test_an_interval_of_few_documents_that_leaves_the_scale_can_be_written(
    made: tuple[Run, Path], tmp_path: Path
) -> None:
    found = drawn(made, Answers(lambda candidate: {25: 1, 50: 2, 100: 3}[share(candidate)]))
    wide = replace(found, sizes=tuple(replace(size, low=-41.9, high=141.9) for size in found.sizes))
    path = tmp_path / "curve.json"
    write_finding(path, wide.to_json())
    assert Curve.from_json(read_finding(path, version=1, nothing="", again="")) == wide
    with pytest.raises(RecordError, match="score"):
        write_finding(path, replace(found, sizes=(replace(found.sizes[0], score=141.9),)).to_json())


def test_a_picture_is_drawn_where_matplotlib_is(made: tuple[Run, Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pip install .[calibrate]")
    found = read_curve(made[0])
    assert draw(found, tmp_path / "one.png") and draw(found, tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_nothing_is_drawn_without_matplotlib(
    made: tuple[Run, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: None if name == "matplotlib" else find(name, *a))
    assert not draw(read_curve(made[0]), tmp_path / "one.png") and not (tmp_path / "one.png").exists()
