"""The registry: what is promoted, what was before it, and that neither a crash nor a crowd loses any of it."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from synth.core.console import stdout
from synth.core.errors import ConfigError, RecordError, RunError
from synth.core.jsonl import digest_file, write_json
from synth.core.runs import Run, StageEntry
from synth.core.schemas import check
from synth.inference.endpoints import find_model
from synth.inference.weights import weights_revision
from tests.conftest import CHECKOUT
from tests.runs_for_tests import filtered_run, tiny_student
from tune.candidate import find_candidate
from tune.cli_registry import register
from tune.config import TuneConfig
from tune.export import ExportConfig, export, open_candidate
from tune.lineage import find_parent
from tune.promotion import list_candidates, promote, rollback, verdict_on
from tune.registry import Registry, behind_link, locked, registry_of


def tuned(
    run: Run, name: str, *, weights: str = "", accepted: bool | None = True, finished: str = "2026-01-01"
) -> None:
    """Write a candidate as `tune sft` leaves one, and its verdict as `tune validate` does, with weights of some bytes."""
    base = run.path.parent.parent / "small"
    if not base.exists():
        write_json(base / "config.json", {"model_type": "none"})
    folder = run.student_path(name)
    folder.mkdir(parents=True, exist_ok=True)
    report = {"method": "lora", "student": "small", "student_revision": weights_revision(base)}
    write_json(folder / "training.json", {**report, "train_loss": 0.5, "validation_loss": 0.75})
    write_json(folder / "adapter_config.json", {"r": 8})
    (folder / "adapter_model.safetensors").write_text(weights or name)
    outputs = {f"students/{name}/{path.name}": digest_file(path) for path in folder.iterdir()}
    run.start_stage(f"sft:{name}")
    entry = StageEntry(
        config={"student": str(base), "method": "lora"}, outputs=outputs, finished=f"{finished}T00:00:00Z"
    )
    run.finish_stage(f"sft:{name}", entry)
    if accepted is not None:
        judged(run, name, accepted=accepted)


def judged(run: Run, name: str, *, accepted: bool, **config: Any) -> None:  # noqa: ANN401
    path = run.answers_path(name) / "verdict.json"
    write_json(path, {"accepted": accepted, "text": "…"})
    outputs = {f"validation/{name}/verdict.json": digest_file(path)}
    run.finish_stage(f"validate:{name}", StageEntry(config=config, outputs=outputs))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run with three accepted candidates."""
    run = Run.create(tmp_path / "runs" / "manuals")
    for number, name in enumerate(("first", "second", "third"), 1):
        tuned(run, name, finished=f"2026-01-0{number}")
    return run


def history(run: Run) -> list[tuple[str, str]]:
    return [(event.action, event.candidate) for event in registry_of(run).history]


def test_the_history_says_where_the_verdict_was_not_on_these_very_weights(run: Run) -> None:
    for config, said in [
        ({"served_by": "vllm", "merged": False}, ""),
        ({"served_by": "vllm", "merged": True}, "judged as a merged export of it"),
        ({"served_by": "a running server"}, "that its weights were these was not checked"),
    ]:
        judged(run, "third", accepted=True, **config)
        promote(run, "first", force=True)
        assert said in promote(run, "third").event.reason and bool(said) == bool(promote(run, "third").event.reason)


def test_the_last_accepted_candidate_is_promoted_and_the_link_leads_to_it(run: Run) -> None:
    done = promote(run, reason="the pilot liked it")
    assert (done.event.candidate, done.event.verdict, done.event.forced, done.before) == (
        "third",
        "accepted",
        False,
        None,
    )
    link = run.path.parent / "current"
    assert link.is_symlink() and link.resolve() == run.student_path("third").resolve()
    assert not link.readlink().is_absolute()
    data = json.loads((run.path.parent / "registry.json").read_bytes())
    check(data, "registry", where="registry.json")
    weights = digest_file(run.student_path("third") / "adapter_model.safetensors").sha256
    assert data["current"] == {
        "run": "manuals",
        "candidate": "third",
        "path": "manuals/students/third",
        "weights_sha256": weights,
    }
    (entry,) = data["history"]
    assert entry["verdict_sha256"] == digest_file(run.answers_path("third") / "verdict.json").sha256
    assert entry["reason"] == "the pilot liked it"
    assert abs(time.time() - time.mktime(time.strptime(entry["time"], "%Y-%m-%dT%H:%M:%SZ")) + time.timezone) < 60


def test_promoting_what_is_current_writes_nothing(run: Run) -> None:
    promote(run, "first")
    before = (run.path.parent / "registry.json").read_bytes()
    assert not promote(run, "first").changed and not promote(run, "current").changed
    assert (run.path.parent / "registry.json").read_bytes() == before


@pytest.mark.parametrize(
    ("accepted", "why", "way_out"),
    [(False, "its verdict is a reject", "verdict.json"), (None, "there is no verdict on it", "run `tune validate")],
)
def test_a_rejected_or_unjudged_candidate_takes_force_and_that_is_recorded(
    run: Run, accepted: bool | None, why: str, way_out: str
) -> None:
    tuned(run, "doubtful", accepted=accepted)
    with pytest.raises(RunError, match=f"{why}.*{way_out}.*--force"):
        promote(run, "doubtful")
    assert not (run.path.parent / "registry.json").exists() and not (run.path.parent / "current").is_symlink()
    event = promote(run, "doubtful", force=True, reason="demo tomorrow").event
    assert event.forced and event.reason == f"demo tomorrow; {why}"
    assert event.verdict == ("rejected" if accepted is False else "none")
    assert registry_of(run).history == (event,)


def test_force_without_need_is_not_called_forced(run: Run) -> None:
    assert not promote(run, "first", force=True).event.forced


def test_a_verdict_of_other_weights_counts_for_nothing(run: Run) -> None:
    tuned(run, "first", weights="other", accepted=None)
    with pytest.raises(RunError, match="there is no verdict on it"):
        promote(run, "first")
    judged(run, "first", accepted=False)
    path = run.answers_path("first") / "verdict.json"
    path.write_text(path.read_text().replace("false", "true"))
    assert verdict_on(run, "first") == ("none", None)


def test_changed_files_and_a_changed_base_take_force_too(run: Run) -> None:
    weights = run.student_path("first") / "adapter_model.safetensors"
    weights.write_text("changed by hand")
    with pytest.raises(RunError, match=r"not as `tune sft` left them \(adapter_model.safetensors\)"):
        promote(run, "first")
    assert promote(run, "first", force=True).event.weights_sha256 == digest_file(weights).sha256
    with pytest.raises(RunError, match="not as `tune sft` left it"):
        find_candidate(run, "current")
    (run.path.parent.parent / "small" / "config.json").write_text("{}")
    with pytest.raises(RunError, match="the untuned model's files changed"):
        promote(run, "second")
    weights.unlink()
    with pytest.raises(RunError, match="has no weights"):
        promote(run, "first", force=True)


def test_rolling_back_several_times_goes_further_back_each_time(run: Run) -> None:
    for name in ("first", "second", "third"):
        promote(run, name)
    assert rollback(run, reason="it made up prices").event.candidate == "second"
    assert rollback(run).event.candidate == "first"
    with pytest.raises(
        RunError, match="nothing was promoted before first of manuals, so there is nothing to go back to"
    ):
        rollback(run)
    # After going back, a promotion goes on from there: the ones taken back are not come back to.
    promote(run, "third")
    assert rollback(run).event.candidate == "first"
    assert history(run) == [
        ("promote", "first"),
        ("promote", "second"),
        ("promote", "third"),
        ("rollback", "second"),
        ("rollback", "first"),
        ("promote", "third"),
        ("rollback", "first"),
    ]
    assert (run.path.parent / "current").resolve().name == "first"


def test_there_is_nothing_to_go_back_to_before_a_promotion(run: Run) -> None:
    with pytest.raises(RunError, match="nothing is promoted, so there is nothing to go back to"):
        rollback(run)


def test_promoting_again_with_a_new_verdict_is_no_step_to_go_back(run: Run) -> None:
    promote(run, "first")
    tuned(run, "second", accepted=None)
    promote(run, "second", force=True)
    judged(run, "second", accepted=True)
    assert promote(run, "second").changed
    assert [event.forced for event in registry_of(run).history] == [False, True, False]
    assert rollback(run).event.candidate == "first"


def test_a_rollback_to_weights_that_are_gone_is_refused_and_changes_nothing(run: Run) -> None:
    promote(run, "first")
    promote(run, "second")
    tuned(run, "first", weights="trained again")
    with pytest.raises(RunError, match="the weights of first of manuals are not those that were promoted on 20"):
        rollback(run)
    assert history(run) == [("promote", "first"), ("promote", "second")]


def test_runs_of_one_folder_share_what_is_current(run: Run) -> None:
    other = Run.create(run.path.parent / "leaflets")
    tuned(other, "leaf")
    promote(run, "first")
    assert promote(other).before == registry_of(run).history[0]
    listed = list_candidates(run)
    assert not any(row.current for row in listed.rows)
    assert any("of another run: leaf of leaflets" in note for note in listed.notes)
    with pytest.raises(
        RunError, match=r"current is leaf of the run leaflets, no candidate of this one; name the run .*leaflets"
    ):
        find_candidate(run, "current")
    # A training may go on from a student of another run, so `--from current` finds it from anywhere.
    assert find_parent(run, "current").candidate.folder == other.student_path("leaf")
    # And a rollback in one run may lead back to another.
    assert rollback(other).event.run == "manuals"
    assert find_candidate(run, "current").name == "first"


def test_current_is_found_by_name_and_not_where_it_was_trained_again(run: Run) -> None:
    with pytest.raises(RunError, match="no candidate is promoted, so none is current; run `tune promote"):
        find_candidate(run, "current")
    promote(run, "second")
    assert find_candidate(run, "current").name == "second"
    assert find_parent(run, "current").candidate.name == "second"
    assert open_candidate(run.path.parent / "current")[1].name == "second"
    tuned(run, "second", weights="trained again")
    with pytest.raises(RunError, match="'second' was trained again since it was promoted; run `tune promote"):
        find_candidate(run, "current")
    with pytest.raises(ValueError, match="'current' is the name of the promoted one"):
        TuneConfig(candidate="current")


def test_the_table_lists_losses_verdicts_and_what_is_in_use(run: Run) -> None:
    tuned(run, "raw", accepted=None, finished="2026-02-01")
    tuned(run, "bad", accepted=False, finished="2026-02-02")
    promote(run, "second")
    rows = list_candidates(run).rows
    assert [(row.candidate, row.verdict, row.current) for row in rows] == [
        ("first", "accepted", False),
        ("second", "accepted", True),
        ("third", "accepted", False),
        ("raw", "none", False),
        ("bad", "rejected", False),
    ]
    assert rows[0].loss == "0.500 / 0.750" and all(row.complete for row in rows)
    (run.student_path("bad") / "adapter_model.safetensors").unlink()
    assert not list_candidates(run).rows[-1].complete
    assert list_candidates(Run.create(run.path.parent / "empty")).notes[0].startswith("No student is tuned yet")


def test_a_link_that_a_crash_left_behind_is_mended_by_the_next_call(run: Run) -> None:
    promote(run, "first")
    promote(run, "second")
    link = run.path.parent / "current"
    link.unlink()
    link.symlink_to("manuals/students/first")
    list_candidates(run)
    assert link.resolve().name == "second"
    link.unlink()
    assert find_candidate(run, "current").name == "second"
    assert link.resolve().name == "second"


# Forks a process that ends without a word before the n-th thing it does to a file, for every n.
_END_EVERYWHERE = """
import itertools, os, sys
from pathlib import Path
from synth.core.runs import Run
from tune.promotion import promote
from tune.registry import registry_of

run, link = Run.open(Path(sys.argv[1])), Path(sys.argv[1]).parent / "current"
promote(run, "first")

def watch(last):
    seen = itertools.count()
    def hook(event, arguments):
        if event in {"open", "os.rename", "os.remove", "os.symlink", "os.mkdir", "os.chmod"}:
            if not (link / "adapter_model.safetensors").is_file():
                os._exit(3)  # A reader would find nothing behind the link.
            if next(seen) == last:
                os._exit(9)
    sys.addaudithook(hook)

for last in range(1000):
    before = registry_of(run)
    assert not before.history or link.resolve() == (link.parent / before.current.path).resolve()
    name = "second" if before.current.candidate == "first" else "first"
    child = os.fork()
    if child == 0:
        watch(last)
        promote(run, name)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    after = registry_of(run)
    assert code in {0, 9}, code
    assert after.history[: len(before.history)] == before.history
    assert after.current.candidate in ("first", "second") and len(after.history) - len(before.history) <= 1
    if code == 0:
        print(last)
        break
"""


def test_an_end_before_any_step_leaves_a_whole_registry_and_a_link_that_leads_somewhere(run: Run) -> None:
    command = [sys.executable, "-c", _END_EVERYWHERE, str(run.path)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10  # so many steps were the last one
    # Both ends were seen: before the file was written, and between the file and the link.
    assert len(history(run)) > 2
    promote(run, "third")
    names = sorted(path.name for path in run.path.parent.iterdir())
    assert names == [".registry.lock", "current", "manuals", "registry.json"]


def test_promotions_at_the_same_time_are_all_recorded(run: Run) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom synth.core.runs import Run\nfrom tune.promotion import promote\n"
        "run = Run.open(Path(sys.argv[1]))\nprint('ready', flush=True)\nsys.stdin.readline()\n"
        "print(sum(promote(run, name).changed for _ in range(12) for name in sys.argv[2:]))\n"
    )
    pairs = [("first", "second"), ("second", "third"), ("third", "first")]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(run.path), *pair],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for pair in pairs
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    changed = [int(process.communicate(timeout=120)[0]) for process in processes]
    assert len(history(run)) == sum(changed) > 24
    names = [name for _, name in history(run)]
    assert all(one != other for one, other in zip(names, names[1:], strict=False))


def test_a_folder_of_the_users_in_the_links_place_stops_the_promotion(run: Run) -> None:
    (run.path.parent / "current").mkdir()
    with pytest.raises(RunError, match="something else stands here; rename it"):
        promote(run, "first")
    assert not (run.path.parent / "registry.json").exists()
    (run.path.parent / "current").rmdir()
    (run.path.parent / "current").symlink_to("manuals")  # the user's own
    with pytest.raises(RunError, match="something else stands here"):
        promote(run, "first")
    assert (run.path.parent / "current").readlink() == Path("manuals")


def test_without_links_a_file_names_the_candidate(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(1, os.strerror(1))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "symlink_to", refused)
        (note,) = promote(run, "first").notes
        assert "current.json names the promoted candidate's folder" in note
        promote(run, "second")
        written = json.loads((run.path.parent / "current.json").read_bytes())
        assert (written["path"], find_candidate(run, "current").name) == ("manuals/students/second", "second")
    promote(run, "third")
    assert (run.path.parent / "current").resolve().name == "third"
    assert not (run.path.parent / "current.json").exists()


def test_another_process_that_holds_the_registry_is_waited_for_and_then_named(run: Run) -> None:
    with (
        locked(run.path.parent),
        pytest.raises(RunError, match="another process is changing the registry"),
        locked(run.path.parent, seconds=0.05),
    ):
        pass


@pytest.mark.parametrize(
    ("damage", "error", "said"),
    [
        (lambda text: text[:40], RunError, "the registry cannot be read"),
        (lambda text: text.replace('"version": 1', '"version": 9'), RunError, "version 9, this program reads 1"),
        (lambda text: text.replace('"forced": false', '"forced": "no"', 1), RecordError, "forced"),
        (lambda text: text.replace('"first"', '"../../x"'), RecordError, "see schemas/registry.schema.json"),
        (lambda text: text.replace("students/first", "students/second"), RunError, "does not follow from the history"),
        (
            lambda text: re.sub(r'"promote"(?=.*"promote")', '"rollback"', text, count=1, flags=re.S),
            RunError,
            "entry 1",
        ),
    ],
)
def test_a_registry_that_was_edited_by_hand_is_refused(
    run: Run,
    damage: Any,  # noqa: ANN401
    error: type[Exception],
    said: str,
) -> None:
    promote(run, "first")
    promote(run, "second")
    rollback(run)
    path = run.path.parent / "registry.json"
    damaged = damage(path.read_text())
    assert damaged != path.read_text()
    path.write_text(damaged)
    with pytest.raises(error, match=said):
        promote(run, "third")
    assert path.read_text() == damaged


def test_the_commands_say_what_they_did(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdout, "width", 200)
    app = typer.Typer()
    register(app)
    shell = CliRunner()
    tuned(run, "bad", accepted=False, finished="2026-02-02")
    assert shell.invoke(app, ["promote", str(run.path), "first"]).stdout.startswith("first of manuals is current now\n")
    failed = shell.invoke(app, ["promote", str(run.path)])
    assert isinstance(failed.exception, RunError) and "'bad' is not promoted: its verdict is a reject" in str(
        failed.exception
    )
    shell.invoke(app, ["promote", str(run.path), "--force", "--reason", "[bold]told to[/nothing]"])
    shown = shell.invoke(app, ["candidates", str(run.path), "--history"]).stdout
    assert "current  bad" in shown and "promote (forced)" in shown and "[bold]told to[/nothing]; its verdict" in shown
    printed = json.loads(shell.invoke(app, ["candidates", str(run.path), "--json"]).stdout)
    assert printed["current"]["candidate"] == "bad" and len(printed["history"]) == 2
    back = json.loads(shell.invoke(app, ["rollback", str(run.path), "--json"]).stdout)
    assert (back["now"]["candidate"], back["before"]["candidate"], back["changed"]) == ("first", "bad", True)


async def test_an_adapter_is_no_teacher_and_the_error_says_to_merge(run: Run) -> None:
    promote(run, "first")
    link = run.path.parent / "current"
    with pytest.raises(
        ConfigError, match=r"holds an adapter, and no whole model; merge it .* `tune export .*current --merge"
    ):
        await find_model(str(link), role="teacher")
    # Whole weights are found, and are called what they are, not "current".
    write_json(run.student_path("first") / "config.json", {"model_type": "none"})
    source = await find_model(str(link), role="teacher")
    assert (source.name, source.revision) == ("first", weights_revision(run.student_path("first")))


def test_a_student_named_by_the_link_keeps_its_meaning(run: Run) -> None:
    promote(run, "first")
    link = run.path.parent / "current"
    assert behind_link(str(link)) == str(run.path.parent / "manuals" / "students" / "first")
    assert behind_link("org/current") == "org/current"
    other = run.path.parent.parent / "current"
    other.symlink_to(run.path)
    assert behind_link(str(other)) == str(other)


def test_a_real_student_is_promoted_exported_loaded_and_trained_further(tmp_path: Path) -> None:
    # They bring torch, which the other tests do without.
    from transformers import AutoModelForCausalLM

    from tests.trainings import config
    from tune.sft import train

    student = tiny_student(tmp_path / "models" / "tiny")
    run = filtered_run(tmp_path / "runs" / "manuals")
    train(run, config(student, method="full", candidate="whole", epochs=1))
    promote(run, "whole", force=True)
    link = tmp_path / "runs" / "current"
    loaded = AutoModelForCausalLM.from_pretrained(link, local_files_only=True)
    assert loaded.num_parameters() > 0
    done = export(link, tmp_path / "out", ExportConfig())
    assert done.candidate == "whole" and (tmp_path / "out" / "model.safetensors").is_file()
    train(run, TuneConfig(**{"from": "current", "threads": 1, "epochs": 1, "candidate": "further"}))
    # A student that is named by the link stays the student when the link moves on, to itself even.
    train(run, config(link, candidate="beside", epochs=1))
    promote(run, "further", force=True)
    assert find_candidate(run, "beside").student == run.student_path("whole")
    with pytest.raises(ConfigError, match="this is an adapter; .*`tune export --merge`"):
        promote(run, "beside", force=True)
        train(run, config(link, candidate="no"))
    assert Registry.read(tmp_path / "runs").current == registry_of(run).history[-1]
