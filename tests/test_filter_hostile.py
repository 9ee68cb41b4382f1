"""The filter stage against what users bring: scorers that fail, files named twice, settings that meet badly."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from synth.core.errors import ConfigError, RunError
from synth.core.heldout import load_heldout
from synth.core.record_file import read_records
from synth.core.records import Judgement, Passage, Record
from synth.core.runs import StageEntry
from synth.filter import decide, run_ablate, run_filter
from synth.filtering.config import FilterConfig
from synth.filtering.explain import explain
from synth.filtering.plan import Plan
from synth.filters.base import Rule
from synth.filters.rules_file import Combined, HumanSource, Kept, RulesFile, Term
from tests.stub_endpoint import stub_endpoint
from tests.test_filter_large import contents, many
from tests.test_filter_models import reader
from tests.test_filter_stage import a_run, heldout_file, record, sound


class Odd:
    """A scorer that returns, or raises, what it was made with."""

    def __init__(self, given: object, name: str = "odd") -> None:
        self.given, self.name = given, name

    def score(self, records: Sequence[Record]) -> list[float | None]:
        if isinstance(self.given, Exception):
            raise self.given
        return [self.given for _ in records] if isinstance(self.given, float | str) else self.given  # type: ignore


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (KeyError("x"), "scorer odd: failed on 1 records"),
        (float("nan"), "gave nan, which is no finite number"),
        (float("inf"), "gave inf, which is no finite number"),
        ("high", "scorer odd: failed on 1 records"),
        (None, "scorer odd: failed on 1 records"),
        ([], "gave 0 scores for 1 records"),
    ],
)
def test_a_scorer_that_fails_is_named(given: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        decide([sound(0)], FilterConfig(rule=("odd >= 0.5",)), scorers=(Odd(given),))


@pytest.mark.parametrize("name", ["combined", "judge", "duplicate", "surplus", "contaminated", "ifd", "a:b"])
def test_a_scorer_may_not_take_a_name_that_the_filter_uses(name: str) -> None:
    with pytest.raises(ConfigError, match="rename the scorer"):
        decide([sound(0)], FilterConfig(), scorers=(Odd(1.0, name),))


class Speaking(Odd):
    """A scorer that explains itself."""

    def explain(self, record: Record) -> str:
        if self.given == 0.0:
            raise ValueError("no words")
        return "one text and no list"


def test_a_scorer_that_cannot_explain_is_named_and_one_text_is_one_fault() -> None:
    config = FilterConfig(rule=("odd >= 0.5",))
    with pytest.raises(ConfigError, match="scorer odd: cannot explain the record"):
        decide([sound(0)], config, scorers=(Speaking(0.0),))
    (found,) = decide([sound(0)], config, scorers=(Speaking(0.1),))
    assert found.decision is not None and found.decision.reasons == ("odd:one text and no list",)


@pytest.mark.parametrize("text", ["x <= 1234567.5", "x >= 0.00001", "x > 0.66666667", "x < 100", "x >= -0.5"])
def test_a_rule_is_printed_as_it_is_read(text: str, tmp_path: Path) -> None:
    assert str(Rule.parse(text)) == text and Rule.parse(str(Rule.parse(text))) == Rule.parse(text)
    run = a_run(tmp_path, [sound(i).with_scores({"x": 0.7}) for i in range(4)])
    if Rule.parse(text).holds(sound(0).with_scores({"x": 0.7})):
        run_filter(run, FilterConfig(rule=(text,)))
        assert explain(run, sound(0).id).rules[-1].rule == text


def test_an_endless_bound_is_none() -> None:
    with pytest.raises(ConfigError, match="too large"):
        Rule.parse(f"x <= {'9' * 400}")


def test_one_heldout_file_named_twice_counts_once_and_two_of_one_name_stay_two(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    first = heldout_file(tmp_path / "a", sound(0).question, "What is the weather?")
    second = heldout_file(tmp_path / "b", sound(1).question, "What is the weather?")
    run = a_run(tmp_path, [sound(i) for i in range(6)])
    summary = run_filter(run, FilterConfig(), [first, second, tmp_path / "b" / ".." / "a" / first.name])
    files = json.loads(run.filter_path.read_text())["contamination"]["files"]
    assert [(f["file"], f["items"], f["clean"], f["leaked"]) for f in files] == [
        ("human.jsonl", 2, 1, 1),
        ("human.jsonl (2)", 2, 1, 1),
    ]
    assert summary.by_reason == {"contaminated": 2}


def test_every_heldout_question_in_a_passage_is_reported(tmp_path: Path) -> None:
    asked = [sound(i).question for i in range(5)]
    run = a_run(tmp_path, [record("How much does it rain?", "It rains a lot", None, "\n".join(asked))])
    run_filter(run, FilterConfig(preset="none"), heldout_file(tmp_path, *asked))
    (file,) = json.loads(run.filter_path.read_text())["contamination"]["files"]
    assert file["in_passages"] == 5 and file["leaked"] == 0


def test_what_an_earlier_filter_scored_leaves_no_trace(tmp_path: Path) -> None:
    pytest.importorskip("phonenumbers")
    (tmp_path / "b").mkdir()
    run, fresh = a_run(tmp_path, [sound(i) for i in range(6)]), a_run(tmp_path / "b", [sound(i) for i in range(6)])
    run_filter(run, FilterConfig(pii="reject"))
    run_filter(run, FilterConfig())
    run_filter(fresh, FilterConfig())
    assert contents(run) == contents(fresh)
    assert run.stages()["filter"].fingerprint == fresh.stages()["filter"].fingerprint


def rules_with(folder: Path, *terms: str) -> Path:
    """Write a rules file whose combined score needs these scores."""
    path = folder / "rules.json"
    RulesFile(
        rules=(Rule("combined", ">=", 0.5),),
        combined=Combined(-1.0, tuple(Term(name, 4.0, 0.5) for name in terms)),
        human=(HumanSource("h.json", "0" * 64, 10, 2),),
        kept=Kept(0.95, 0.95, 0.95, 0.95),
        rejected={},
        table=(),
        refused=(),
        filter_version=3,
        seed=0,
        forms=("passage",),
    ).write(path)
    return path


def test_a_combined_score_does_not_do_without_the_model_that_it_needs(tmp_path: Path) -> None:
    run = a_run(tmp_path, [sound(i) for i in range(10)])
    rules = str(rules_with(tmp_path, "groundedness", "round_trip"))
    with pytest.raises(ConfigError, match="round_trip.*name one with --judge"):
        run_filter(run, FilterConfig(rules=rules))
    with stub_endpoint(reader) as stub:
        summary = run_filter(run, FilterConfig(rules=rules, judge=stub.url))
    assert summary.total == 10
    for one in read_records(run.records_path):
        known = one.scores
        value = Combined(-1.0, (Term("groundedness", 4.0, 0.5), Term("round_trip", 4.0, 0.5))).value(known)
        assert known["combined"] == value and one.decision is not None and one.decision.keep == (value >= 0.5)


def test_a_model_that_no_rule_asks_is_an_error_also_beside_another(tmp_path: Path) -> None:
    run = a_run(tmp_path, [sound(0)])
    config = FilterConfig(judge="http://127.0.0.1:9/v1", student="nowhere", rule=("round_trip >= 0.5",))
    with pytest.raises(ConfigError, match="--student: no rule names a score"):
        run_filter(run, config)
    with pytest.raises(ConfigError, match="--judge: 'nonsense' is no folder"):
        run_filter(run, FilterConfig(judge="nonsense", rule=("round_trip >= 0.5",)))


def test_ablation_asks_models_as_the_filter_does(tmp_path: Path) -> None:
    run = a_run(tmp_path, many(40))
    with stub_endpoint(reader) as stub:
        config = FilterConfig(judge=stub.url, rule=("round_trip >= 0.5", "judge >= 0.5"))
        kept, found = run_ablate(run, config)
        asked = len(stub.bodies)
        summary = run_filter(run, config)
        assert len(stub.bodies) == asked and summary.kept == kept
        for one in found:
            if one.step in {"round_trip", "judge"}:
                again = run_filter(
                    run, FilterConfig(judge=stub.url, rule=tuple(r for r in config.rule if one.step not in r))
                )
                assert one.kept == again.kept and one.rejects > 0
    assert {one.step: one.rejects for one in found}["judge"] == summary.by_reason["judge"]


def test_a_password_in_a_models_address_reaches_no_file(tmp_path: Path) -> None:
    run = a_run(tmp_path, [sound(i) for i in range(4)])
    with stub_endpoint(reader) as stub:
        secret = stub.url.replace("://", "://me:hunter2-hunter2@") + "?key=hunter2-hunter2"
        run_filter(run, FilterConfig(judge=secret, rule=("round_trip >= 0.5",)))
    files = [path for path in run.path.rglob("*") if path.is_file()]
    assert len(files) > 4 and not [path for path in files if b"hunter2" in path.read_bytes()]


def test_with_a_model_it_runs_in_a_thread_and_says_so_in_an_event_loop(tmp_path: Path) -> None:
    run = a_run(tmp_path, [sound(i) for i in range(4)])
    with stub_endpoint(reader) as stub:
        config = FilterConfig(judge=stub.url, rule=("round_trip >= 0",))

        async def inside() -> None:
            run_filter(run, config)

        with pytest.raises(RunError, match="await filter_run"):
            asyncio.run(inside())
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.append(run_filter(run, config).kept))
        thread.start()
        thread.join()
    assert found == [4]


def test_a_scorer_that_was_edited_is_run_again(tmp_path: Path) -> None:
    run = a_run(tmp_path, [sound(i) for i in range(6)])
    module = tmp_path / "edited.py"
    command = [sys.executable, "-c", EDITED, str(run.path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *(p or "." for p in sys.path)])}
    kept = []
    for bound in (99, 99, 60):
        module.write_text(
            f"class Cheap:\n    name = 'cheap'\n    def score(self, records):\n        return "
            f"[float(int(r.answer.split()[0]) < {bound}) for r in records]\n"
        )
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        kept.append(done.stdout.strip())
    assert kept[0] == kept[1] != kept[2]


EDITED = """
import sys
from pathlib import Path
sys.dont_write_bytecode = True
from synth.core.runs import Run
from synth.filter import run_filter
from synth.filtering.config import FilterConfig
print(run_filter(Run.open(Path(sys.argv[1])), FilterConfig(scorer=("edited:Cheap",), rule=("cheap >= 1",))).kept)
"""


def test_what_lies_in_the_current_folder_shadows_nothing_in_the_processes(tmp_path: Path) -> None:
    run = a_run(tmp_path, many(20))
    (tmp_path / "numpy.py").write_text("raise SystemExit('shadowed')")
    job = (
        "import sys; from pathlib import Path; from synth.core.runs import Run; from synth.filter import run_filter; "
        "from synth.filtering.config import FilterConfig; "
        f"run_filter(Run.open(Path({str(run.path)!r})), FilterConfig(), processes=2)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or "." for p in sys.path)}
    subprocess.run([sys.executable, "-P", "-c", job], env=environment, cwd=tmp_path, check=True)
    assert "filter" in run.stages()


def test_more_processes_than_the_system_starts_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run(tmp_path, many(20))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(RunError, match="cannot be started .*--processes"):
        run_filter(run, FilterConfig(), processes=2)
    assert "filter" not in run.stages()


def test_deciding_in_memory_uses_embeddings_where_they_are_named(tmp_path: Path) -> None:
    pytest.importorskip("wordllama")
    records = [sound(i) for i in range(8)]
    config = FilterConfig(embedder="wordllama", select="coverage", num_records=3)
    human = tmp_path / "human.jsonl"
    told = {"id": "h", "question": "What is the price of the Orla lamp of series 0?", "answer": "40 pounds"}
    human.write_text(json.dumps(told) + "\n")
    found = decide(records, config, load_heldout(human))
    run = a_run(tmp_path, records)
    run_filter(run, config, human)
    assert [r.decision for r in found] == [r.decision for r in read_records(run.records_path)]
    assert found[0].decision is not None and "contaminated:h (semantic" in found[0].decision.reasons[0]


def test_a_step_that_rejects_twice_counts_once(tmp_path: Path) -> None:
    pytest.importorskip("wordllama")
    records = [sound(i) for i in range(6)]
    human = tmp_path / "human.jsonl"
    items = [
        {
            "id": "h0",
            "question": "Among kettles, radios, tents and freezers, how much does the Orla lamp of series 0 cost in winter?",
            "answer": "x",
        },
        {"id": "h1", "question": "What is the price of the Orla lamp of series 0?", "answer": "40 pounds"},
    ]
    human.write_text("".join(json.dumps(item) + "\n" for item in items))
    leaking = record(
        "How much does the Orla lamp of series 0 cost?", "40 pounds", None, "The Orla lamp of series 0 costs 40 pounds."
    )
    run = a_run(tmp_path, [leaking, *records[1:]])
    config = FilterConfig(embedder="wordllama")
    kept, found = run_ablate(run, config, human)
    summary = run_filter(run, config, human)
    assert summary.by_reason["contaminated"] == 2 and dict(summary.funnel)["contaminated"] == 1
    (leaks,) = (one for one in found if one.step == "contaminated")
    assert (leaks.rejects, leaks.alone, leaks.kept) == (1, 1, kept + 1) and kept == summary.kept


def test_a_bound_for_a_kind_that_no_record_is_of_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    run_filter(a_run(tmp_path, [sound(0)]), FilterConfig(max_per_kind=("qaa=5",)), say=said.append)
    assert any("'qaa'" in text and "did you mean qa?" in text for text in said)


def test_a_journal_with_foreign_lines_and_a_file_with_spaces_are_no_hindrance_to_a_story(tmp_path: Path) -> None:
    made = record("How much is it?", "40 pounds", None, "It costs 40 pounds.", call="cafe1234")
    run = a_run(tmp_path, [made])
    run.records_path.write_text(json.dumps(made.to_json(), indent=None) + "\n")
    run.journal_path.mkdir()
    entry = {"key": "cafe1234", "request": {}, "response": {"text": "it"}}
    lines = ['["cafe1234"]', '{"key": 5, "x": "cafe1234"}', '"cafe1234"', '{"torn": "cafe1234', json.dumps(entry)]
    (run.journal_path / "000001.jsonl").write_text("\n".join(lines))
    story = explain(run, made.id[:6])
    assert story.record.id == made.id and [call["key"] for call in story.calls] == ["cafe1234"]


SLOW = """
import time
class Slow:
    name = "slow"
    def score(self, records):
        print("a scorer may print")
        time.sleep(0.01 * len(records))
        return [1.0] * len(records)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_signal_while_records_are_scored_leaves_the_run_as_it_was(
    tmp_path: Path, number: signal.Signals, processes: str
) -> None:
    run = a_run(tmp_path, many(2000))
    before = run.records_path.read_bytes()
    (tmp_path / "slow.py").write_text(SLOW)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *(p or "." for p in sys.path)])}
    options = ["--scorer", "slow:Slow", "--rule", "slow >= 1", "--processes", processes]
    command = [sys.executable, "-c", "from synth.cli import main; main()", "filter", str(run.path), *options]
    child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    part = run.path / ".records.scored.part"
    deadline = time.monotonic() + 60
    while not part.exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.5)
    child.send_signal(number)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130 and "interrupted; run the same command again" in err and "Traceback" not in err
    assert not out and not part.exists() and run.records_path.read_bytes() == before
    assert not run.stages().get("filter")


def test_broken_markup_without_end_takes_no_square_of_its_length() -> None:
    began = time.process_time()
    (found,) = decide([record("How much does it cost?", "<a " * 100_000, None, "It costs 40 pounds.")], FilterConfig())
    assert found.decision is not None and not found.decision.keep
    assert time.process_time() - began < 60


def test_a_record_is_as_its_generator_made_it_whatever_filters_wrote_since() -> None:
    made = sound(1).with_scores({"confidence": 0.9})
    told = made.with_scores({"round_trip": 1.0, "ifd": 0.4, "pii": 1.0, "combined": 0.2, "form": 1.0, "length": 1.0})
    told = replace(told, judgements=(Judgement("round_trip", "judge-7b", ("k",), "right"),))
    assert Plan.of(FilterConfig()).as_made(told) == made


def test_an_entry_that_does_not_say_what_was_read_is_not_current(tmp_path: Path) -> None:
    run = a_run(tmp_path, [sound(i) for i in range(4)])
    run.finish_stage("filter", StageEntry(config={}))
    assert run_filter(run, FilterConfig()).kept == 4


def test_a_scorer_of_the_program_itself_needs_no_main_guard(tmp_path: Path) -> None:
    run = a_run(tmp_path, many(20))
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nfrom pathlib import Path\nfrom synth.core.runs import Run\nfrom synth.filter import run_filter\n"
        "from synth.filtering.config import FilterConfig\n"
        "class Mine:\n    name = 'mine'\n    def score(self, records):\n        return [1.0 for _ in records]\n"
        "for more in ({}, {'scorer': ('__main__:Mine',), 'rule': ('mine >= 1',)}):\n"
        "    print(run_filter(Run.open(Path(sys.argv[1])), FilterConfig(**more), processes=2).kept)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or "." for p in sys.path)}
    command = [sys.executable, str(program), str(run.path)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    first, second = done.stdout.split()
    assert first == second and "mine" in run.records_path.read_text()


@pytest.mark.parametrize(("reworded", "kept"), [("reject", 3), ("report", 4)])
def test_a_reworded_held_out_question_goes_or_is_only_counted(tmp_path: Path, reworded: str, kept: int) -> None:
    pytest.importorskip("wordllama")
    text = "The Orla lamp was designed by Ida Brandt in the harbour of Tarnwick."
    passage = Passage("lamp.md", text, 0, len(text))
    told = Record.create(passage, "Who designed the Orla lamp?", "Ida Brandt", generator="qa", evidence=text)
    human = tmp_path / "human.jsonl"
    human.write_text(
        json.dumps({"id": "h", "question": "By whom was the lamp Orla designed?", "answer": "Ida Brandt"}) + "\n"
    )
    run = a_run(tmp_path, [told, *(sound(i) for i in range(3))])
    config = FilterConfig.model_validate({"embedder": "wordllama", "reworded": reworded})
    assert run_filter(run, config, human).kept == kept
    found = json.loads(run.filter_path.read_text())["contamination"]
    assert found["dirty"] == 1 and found["files"][0]["by_how"] == {"semantic": 1}
