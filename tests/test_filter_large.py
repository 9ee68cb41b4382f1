"""The filter as a stage that streams: processes, kills, full disks, hostile lines; and its two questions."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from synth.core.errors import ConfigError, RecordError, RunError
from synth.core.jsonl import read_lines, write_jsonl
from synth.core.record_file import read_records
from synth.core.records import Passage, Record
from synth.core.runs import Run, StageEntry
from synth.filter import run_ablate, run_filter
from synth.filtering.config import FilterConfig
from synth.filtering.explain import explain
from synth.filtering.workers import Workers
from tests.test_filter_stage import a_run, flawed, sound

FILES = ("records.jsonl", "dataset/train.jsonl", "dataset/validation.jsonl")


def many(count: int) -> list[Record]:
    """Sound and flawed records and twins, in a shuffled order."""
    bad = flawed()
    records = [sound(i) if i % 5 else bad[i // 5 % 3] for i in range(count)]
    records += [sound(i) for i in range(1, count, 7)]
    random.Random(3).shuffle(records)
    return records


def contents(run: Run) -> list[bytes]:
    return [(run.path / name).read_bytes() for name in FILES]


def test_processes_change_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synth.filtering.passes._BLOCK_BYTES", 4096)
    human = tmp_path / "human.jsonl"
    human.write_text(json.dumps({"question": sound(3).question, "answer": "x"}) + "\n")
    (tmp_path / "b").mkdir()
    alone, shared = a_run(tmp_path, many(60)), a_run(tmp_path / "b", many(60))
    config = FilterConfig(num_records=30)
    first = run_filter(alone, config, human, processes=1)
    second = run_filter(shared, config, human, processes=2)
    assert first == second and first.kept == 30 and first.by_reason["contaminated"] >= 1
    assert contents(alone) == contents(shared)


def test_a_fault_in_a_process_names_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synth.filtering.passes._BLOCK_BYTES", 2048)
    run = a_run(tmp_path, many(40))
    lines = run.records_path.read_bytes().splitlines(keepends=True)
    lines[30] = b'{"id": "torn\n'
    before = b"".join(lines)
    run.records_path.write_bytes(before)
    with pytest.raises(RecordError, match=r"records\.jsonl:31: not valid JSON"):
        run_filter(run, FilterConfig(), processes=2)
    assert run.records_path.read_bytes() == before
    assert not [p for p in run.path.iterdir() if p.suffix == ".part"]


SCORER = """
class Brevity:
    name = "brevity"
    def score(self, records):
        print("a scorer may print")
        return [float(len(r.answer) < 12) for r in records]
"""


def test_a_scorer_of_the_users_works_in_the_processes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "brief.py").write_text(SCORER)
    monkeypatch.syspath_prepend(str(tmp_path))
    run = a_run(tmp_path, many(40))
    config = FilterConfig(scorer=("brief:Brevity",), rule=("brevity >= 1",))
    first = run_filter(run, config, processes=1)
    before = contents(run)
    run_filter(run, FilterConfig())
    assert run_filter(run, config, processes=2) == first
    assert contents(run) == before
    assert all("brevity" in r.scores for r in read_records(run.records_path))
    run_filter(run, FilterConfig())
    assert not any("brevity" in r.scores for r in read_records(run.records_path)) or "brevity" in {
        name for r in read_records(run.records_path) for name in r.scores
    }


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere:Scorer", "cannot be imported"),
        ("brevety", "no scorer is called 'brevety'"),
        ("json:dumps", "is no scorer"),
        ("json:JSONDecodeError", "cannot be made without arguments"),
        ("examples.scorers.plain_english:PlainEnglsh", "did you mean PlainEnglish"),
        ("pathlib:Path", "is no scorer"),
    ],
)
def test_a_scorer_that_is_none_is_named(tmp_path: Path, spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_filter(a_run(tmp_path, many(5)), FilterConfig(scorer=(spec,)))


def test_a_process_that_dies_is_an_error_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deadly.py").write_text(
        "import os\nclass Deadly:\n    name = 'deadly'\n    def score(self, records):\n        os._exit(7)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    run = a_run(tmp_path, many(20))
    before = run.records_path.read_bytes()
    with pytest.raises(RunError, match=r"ended by itself \(exit code 7\)"):
        run_filter(run, FilterConfig(scorer=("deadly:Deadly",), rule=("deadly >= 1",)), processes=2)
    assert run.records_path.read_bytes() == before and "filter" not in run.stages()


def double(prepared: int, item: int) -> int:
    """Work for a process."""
    if item == 13:
        raise RunError("thirteen")
    return prepared * item


def same(argument: int) -> int:
    """Preparation for a process."""
    return argument


def test_results_come_in_order_and_errors_come_through() -> None:
    with Workers(same, 2, double, count=2) as workers:
        assert list(workers.map(range(10))) == [2 * i for i in range(10)]
        with pytest.raises(RunError, match="thirteen"):
            list(workers.map(range(20)))


JOB = """
import sys
from pathlib import Path
from synth.core.runs import Run
from synth.filter import run_filter
import synth.filtering.passes
from synth.filtering.config import FilterConfig
synth.filtering.passes._BLOCK_BYTES = 8192
run_filter(Run.open(Path(sys.argv[1])), FilterConfig(), processes=2)
"""


def test_killed_at_any_moment_and_run_again_gives_the_same_files(tmp_path: Path) -> None:
    run = a_run(tmp_path, many(800))
    original = run.records_path.read_bytes()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or "." for p in sys.path)}
    command = [sys.executable, "-c", JOB, str(run.path)]
    began = time.monotonic()
    subprocess.run(command, env=environment, check=True)
    whole = time.monotonic() - began
    wanted = contents(run)
    chance, killed = random.Random(1), 0
    for attempt in range(8):
        run.records_path.write_bytes(original)
        for name in FILES[1:]:
            (run.path / name).unlink(missing_ok=True)
        run.start_stage("filter")
        child = subprocess.Popen(command, env=environment)
        time.sleep(chance.uniform(0.1, 1.1) * whole)
        child.send_signal(signal.SIGKILL if attempt % 3 else signal.SIGINT)
        killed += child.wait() != 0
        subprocess.run(command, env=environment, check=True)
        assert contents(run) == wanted
        assert sorted(p.name for p in run.path.iterdir() if p.suffix == ".part") == []
    assert killed > 0  # how many depends on the machine
    deadline = time.monotonic() + 20
    while _workers(run) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _workers(run)


def _workers(run: Run) -> list[str]:
    """The command lines of worker processes that have outlived their parent (their parent is then init)."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().decode().replace("\0", " ")
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if "synth.filtering.worker" in command and parent == 1:
            found.append(command)
    return found


def test_a_full_disk_leaves_the_records_as_they_were(tmp_path: Path) -> None:
    run = a_run(tmp_path, many(200))
    before = run.records_path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        with pytest.raises(RunError, match="disk space"):
            run_filter(run, FilterConfig())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert run.records_path.read_bytes() == before
    assert run_filter(run, FilterConfig()).total == len(before.splitlines())


def test_text_that_looks_like_a_decision_is_let_be(tmp_path: Path) -> None:
    trap = sound(1).with_scores({"decision": None})
    hostile = Record.from_json({**trap.to_json(), "context": trap.context + ' ,"decision":null, {"decision":null}'})
    bad = [one.with_scores({"decision": None}) for one in flawed()]
    run = a_run(tmp_path, [hostile, sound(2), *bad])
    run_filter(run, FilterConfig())
    written = list(read_records(run.records_path))
    assert all(r.scores["decision"] is None and r.decision and not r.decision.keep for r in written[2:])
    assert written[0].context == hostile.context and written[0].scores["decision"] is None
    assert written[0].decision is not None and written[0].decision.keep


def test_records_written_by_someone_else_are_read_whatever_the_order_of_their_keys(tmp_path: Path) -> None:
    run = a_run(tmp_path, [sound(i) for i in range(6)])
    rows = [dict(reversed(row.items())) for _, row in read_lines(run.records_path)]
    wanted = a_run(tmp_path / "b", [sound(i) for i in range(6)]) if (tmp_path / "b").mkdir() is None else None
    assert wanted is not None
    write_jsonl(run.records_path, rows)
    run_filter(run, FilterConfig())
    run_filter(wanted, FilterConfig())
    assert contents(run) == contents(wanted)
    assert run.stages()["filter"].inputs == wanted.stages()["filter"].inputs


def test_ablation_says_what_a_filter_without_the_rule_would_keep(tmp_path: Path) -> None:
    run = a_run(tmp_path, many(60))
    before = run.records_path.read_bytes()
    kept, found = run_ablate(run, FilterConfig())
    assert run.records_path.read_bytes() == before and "filter" not in run.stages()
    assert kept == run_filter(run, FilterConfig()).kept
    for one in found:
        if one.rules:
            loose = tuple(f"{rule.split()[0]} >= -1" for rule in one.rules)
            again = run_filter(run, FilterConfig(rule=loose))
            assert again.kept == one.kept == kept + one.gained, one
    steps = {one.step: one for one in found}
    assert steps["negation"].alone == 4 and steps["groundedness"].alone == 0
    assert steps["duplicate"].rejects > 0
    without = run_filter(run, FilterConfig())
    assert without.by_reason["facts"] == steps["facts"].rejects


def test_a_records_story_is_told(tmp_path: Path) -> None:
    records = [sound(1), sound(2), *flawed()]
    twin = Record.from_json({**sound(1).to_json(), "id": "0123456789abcdef"})
    run = a_run(tmp_path, [*records, twin])
    summary = run_filter(run, FilterConfig())
    assert summary.by_reason["duplicate:exact"] == 1
    gone, stays = sorted((records[0].id, twin.id), reverse=True)
    story = explain(run, gone[:8])
    assert story.record.id == gone and story.twin is not None and story.twin.id == stays
    assert story.split is None and {one.rule for one in story.rules} >= {"form >= 1", "groundedness >= 0.6"}
    kept = explain(run, stays)
    assert kept.split in {"train", "validation"} and kept.stands_for == (gone,) and kept.line in {1, 6}
    bad = explain(run, records[3].id)
    assert [one.rule for one in bad.rules if not one.holds] == ["groundedness >= 0.6", "facts >= 1", "coverage >= 1"]
    json.dumps(bad.to_json())


def test_an_id_that_is_none_is_an_error_with_the_fix(tmp_path: Path) -> None:
    run = a_run(tmp_path, [sound(1)])
    for wrong in ("", "xyz", "12", "0" * 17, "../../etc"):
        with pytest.raises(RunError, match="no record's id"):
            explain(run, wrong)
    with pytest.raises(RunError, match="begins with 'ffff'"):
        explain(run, "ffff")


def test_an_old_run_without_judgements_or_notes_is_read(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "old")
    write_jsonl(run.records_path, [sound(1).to_json(), sound(2).to_json()])
    run.finish_stage("generate", StageEntry(config={}))
    assert run_filter(run, FilterConfig()).kept == 2


def test_the_example_of_a_scorer_works_from_the_command_line(tmp_path: Path) -> None:
    folder = Path(__file__).parent.parent / "examples" / "scorers"
    long = (
        "It costs 40 pounds, which is what most people would pay for a lamp of this size, and since it comes with a shade, "
        "a plug and two spare bulbs, few will have to buy anything else before they can read by it."
    )
    text = f"The Orla lamp of series 9 is sold here. {long}"
    wordy = Record.create(Passage("d.md", text, 0, len(text)), "What does the Orla lamp cost?", long, generator="qa")
    run = a_run(tmp_path, [*(sound(i) for i in range(4)), wordy])
    command = [sys.executable, "-m", "synth.cli", "filter", str(run.path.resolve())]
    options = ["--scorer", "plain_english:PlainEnglish", "--rule", "plain_english >= 0.8", "--json"]
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [*command, *options], cwd=folder, env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["filter"]["kept"] == 4
    (gone,) = [r for r in read_records(run.records_path) if r.decision is not None and not r.decision.keep]
    assert gone.decision is not None and "plain_english:a sentence of 43 words" in gone.decision.reasons
