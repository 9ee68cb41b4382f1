import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from synth.core.errors import ConfigError, RecordError, RunError
from synth.core.heldout import HeldoutSet, load_heldout
from synth.core.jsonl import read_lines, write_jsonl
from synth.core.record_file import read_records
from synth.core.records import Decision, Message, Passage, Provenance, Record
from synth.core.runs import Run, StageEntry
from synth.core.schemas import first_fault, validator
from synth.filter import decide, run_filter
from synth.filtering.config import PRESETS, FilterConfig
from synth.filtering.ledger import FilterSummary, family
from synth.filters.base import ShareScorer

# How fast a busy machine is says nothing about the code.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


FACTS = [
    ("Orla", "lamp", "40"),
    ("Brevo", "kettle", "55"),
    ("Tavik", "radio", "70"),
    ("Halden", "tent", "90"),
    ("Corvel", "freezer", "300"),
]


def record(
    question: str, answer: str, evidence: str | None, context: str, document: str = "d.md", call: str = ""
) -> Record:
    return Record.create(
        Passage(document, context, 0, len(context)),
        question,
        answer,
        generator="qa",
        evidence=evidence,
        provenance=Provenance("scripted", "", (call,)),
    )


def sound(number: int, document: str | None = None) -> Record:
    """One of many pairs that nothing is wrong with, each about its own document unless one is named."""
    name, thing, price = FACTS[number % len(FACTS)]
    text = f"The {name} {thing} of series {number} costs {price} pounds."
    question = f"How much does the {name} {thing} of series {number} cost?"
    return record(question, f"{price} pounds", text, text, document or f"{thing}-{number}.md")


def flawed() -> list[Record]:
    text = "Do not place the Orla lamp on carpet. It costs 40 pounds."
    return [
        record("Where do you place the Orla lamp?", "on carpet", "Do not place the Orla lamp on carpet.", text),
        record("How much does the Orla lamp cost?", "60 pounds", "It costs 40 pounds.", text),
        record("How much does the Orla lamp cost?", "", "It costs 40 pounds.", text),
    ]


def a_run(folder: Path, records: list[Record]) -> Run:
    run = Run.create(folder / "run")
    write_jsonl(run.records_path, (r.to_json() for r in records))
    run.finish_stage("generate", StageEntry(config={}))
    return run


def rows(path: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_lines(path)]


def heldout_file(folder: Path, *questions: str) -> Path:
    path = folder / "human.jsonl"
    path.write_text(
        "".join(json.dumps({"id": f"h{i}", "question": q, "answer": "x"}) + "\n" for i, q in enumerate(questions))
    )
    return path


def test_kept_records_become_a_dataset_and_rejected_ones_keep_their_reasons(tmp_path: Path) -> None:
    records = [*(sound(i) for i in range(20)), *flawed()]
    run = a_run(tmp_path, records)
    summary = run_filter(run, FilterConfig())
    written = list(read_records(run.records_path))
    assert [r.id for r in written] == [r.id for r in records]
    assert [(r.prompt, r.completion, r.evidence) for r in written] == [
        (r.prompt, r.completion, r.evidence) for r in records
    ]
    decisions = {r.id: r.decision for r in written}
    assert decisions[records[0].id] == Decision(True, ())
    assert [decisions[r.id] for r in records[20:]] == [
        Decision(False, ("negation:lost",)),
        Decision(False, ("groundedness:0.5, not >= 0.6", "facts:number 60 of the answer", "coverage:0, not >= 1")),
        Decision(False, ("form:empty_answer", "answer_type:no answer to 'how much'")),
    ]
    train, validation = rows(run.train_path), rows(run.validation_path)
    assert (len(train), len(validation)) == (16, 4) == (summary.train, summary.validation)
    assert {row["id"] for row in train + validation} == {r.id for r in records[:20]}
    assert train[0] == {
        "prompt": [{"role": "user", "content": next(r.question for r in records if r.id == train[0]["id"])}],
        "completion": [{"role": "assistant", "content": next(r.answer for r in records if r.id == train[0]["id"])}],
        "id": train[0]["id"],
        "document_id": train[0]["document_id"],
    }


def test_no_document_is_on_both_sides(tmp_path: Path) -> None:
    run = a_run(tmp_path, [sound(i, f"d{i % 7}.md") for i in range(70)])
    run_filter(run, FilterConfig())
    train, validation = ({row["document_id"] for row in rows(path)} for path in (run.train_path, run.validation_path))
    assert train and validation and not train & validation


def test_the_funnel_adds_up_and_by_reason_counts_all(tmp_path: Path) -> None:
    records = [*(sound(i) for i in range(10)), *flawed(), sound(3).decided(Decision(True))]
    summary = run_filter(a_run(tmp_path, records), FilterConfig(num_records=6))
    assert summary.total == 14 == summary.kept + sum(count for _, count in summary.funnel)
    assert summary.kept == 6
    assert summary.funnel == (("form", 1), ("groundedness", 1), ("negation", 1), ("duplicate", 1), ("surplus", 4))
    assert summary.by_reason["facts"] == 1
    assert summary.by_reason["duplicate:exact"] == 1


def test_the_manifest_says_what_was_read_done_and_written(tmp_path: Path) -> None:
    run = a_run(tmp_path, [*(sound(i) for i in range(10)), *flawed()])
    run_filter(run, FilterConfig(rule=("groundedness >= 0.4",)), heldout_file(tmp_path, "Who are you?"))
    entry = run.stages()["filter"]
    assert set(entry.inputs) == {"records.jsonl", "heldout"}
    assert set(entry.outputs) == {"records.jsonl", "dataset/train.jsonl", "dataset/validation.jsonl", "filter.json"}
    assert entry.counts["records"] == 13 and entry.counts["kept"] == 10 and entry.counts["rejected:facts"] == 1
    assert "groundedness >= 0.4" in entry.config["rules"]
    assert "groundedness >= 0.6" not in entry.config["rules"]
    assert "human" not in run.manifest_path.read_text()


def test_a_current_stage_is_left_alone_and_other_rules_run_again(tmp_path: Path) -> None:
    run = a_run(tmp_path, [*(sound(i) for i in range(10)), *flawed()])
    first = run_filter(run, FilterConfig())
    before = {path: path.stat().st_mtime_ns for path in (run.records_path, run.train_path, run.manifest_path)}
    assert run_filter(run, FilterConfig()) == first
    assert {path: path.stat().st_mtime_ns for path in before} == before
    looser = run_filter(run, FilterConfig(rule=("negation >= 0",)))
    assert looser.kept == first.kept + 1
    assert run_filter(run, FilterConfig()) == first


def test_running_again_gives_the_same_bytes(tmp_path: Path) -> None:
    run = a_run(tmp_path, [*(sound(i) for i in range(10)), *flawed()])
    files = (run.records_path, run.train_path, run.validation_path)
    run_filter(run, FilterConfig())
    before = [path.read_bytes() for path in files]
    run_filter(run, FilterConfig(rule=("form >= 0",)))
    run_filter(run, FilterConfig())
    assert [path.read_bytes() for path in files] == before


def test_a_changed_dataset_file_is_noticed_and_written_again(tmp_path: Path) -> None:
    run = a_run(tmp_path, [sound(i) for i in range(10)])
    run_filter(run, FilterConfig())
    before = run.train_path.read_bytes()
    run.train_path.write_text("{}\n")
    run_filter(run, FilterConfig())
    assert run.train_path.read_bytes() == before


def test_when_nothing_is_kept_the_error_names_why_and_no_dataset_is_left(tmp_path: Path) -> None:
    run = a_run(tmp_path, [*(sound(i) for i in range(10)), *flawed()])
    run_filter(run, FilterConfig())
    with pytest.raises(RunError, match=r"none of 13 records was kept; groundedness removed most of them \(12\)"):
        run_filter(run, FilterConfig(rule=("groundedness >= 2",)))
    assert not run.train_path.exists() and not run.validation_path.exists()
    assert "filter" not in run.stages()
    assert all(r.decision is not None and not r.decision.keep for r in read_records(run.records_path))


def test_an_empty_file_and_a_missing_stage_are_errors_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"quarantine\.jsonl says why"):
        run_filter(a_run(tmp_path, []), FilterConfig())
    with pytest.raises(RunError, match="synth generate"):
        run_filter(Run.create(tmp_path / "new"), FilterConfig())


def test_a_broken_line_is_named_by_its_number(tmp_path: Path) -> None:
    run = a_run(tmp_path, [sound(0), sound(1)])
    good = run.records_path.read_text().splitlines()
    broken = json.loads(good[1])
    del broken["completion"]
    run.records_path.write_text(f"{good[0]}\n{json.dumps(broken)}\n")
    with pytest.raises(RecordError, match=r"records\.jsonl:2: 'completion' is a required property"):
        run_filter(run, FilterConfig())


def test_one_document_goes_to_training_and_validation_is_an_empty_file(tmp_path: Path) -> None:
    run = a_run(tmp_path, [sound(i, "all.md") for i in range(5)])
    summary = run_filter(run, FilterConfig())
    assert (summary.train, summary.validation) == (5, 0)
    assert run.validation_path.read_bytes() == b""


def test_a_leak_is_rejected_and_no_human_text_enters_the_run(tmp_path: Path) -> None:
    records = [sound(i) for i in range(10)]
    human = "Zebras aside, when is the best moment to descale the Brevo kettle at home?"
    path = heldout_file(tmp_path, human, records[4].question)
    run = a_run(tmp_path, records)
    summary = run_filter(run, FilterConfig(), path)
    assert summary.kept == 9
    (leak,) = [r for r in read_records(run.records_path) if r.decision is not None and not r.decision.keep]
    assert leak.id == records[4].id and leak.decision == Decision(False, ("contaminated:h1",))
    for file in run.path.rglob("*.json*"):
        assert "Zebras" not in file.read_text()
    assert records[4].question not in run.train_path.read_text() + run.validation_path.read_text()


def test_the_passage_may_be_the_one_that_people_asked_about(tmp_path: Path) -> None:
    records = [sound(i) for i in range(5)]
    human = tmp_path / "human.jsonl"
    human.write_text(json.dumps({"question": "Price?", "answer": "40 pounds", "context": records[0].context}) + "\n")
    assert run_filter(a_run(tmp_path, records), FilterConfig(), human).kept == 5


def test_scores_of_others_can_be_ruled_on_and_count_as_input(tmp_path: Path) -> None:
    records = [sound(i).with_scores({"judge": i}) for i in range(10)]
    run = a_run(tmp_path, records)
    config = FilterConfig(rule=("judge >= 4",))
    assert run_filter(run, config).kept == 6
    write_jsonl(run.records_path, (r.with_scores({"judge": 9}).to_json() for r in read_records(run.records_path)))
    assert run_filter(run, config).kept == 10


def test_a_custom_scorer_works_by_its_rule() -> None:
    config = FilterConfig(rule=("brevity >= 0.5",))
    brevity = ShareScorer("brevity", lambda r: float("series 1" in r.question))
    decided = decide([sound(0), sound(1)], config, scorers=[brevity])
    assert [r.decision for r in decided] == [Decision(False, ("brevity:0, not >= 0.5",)), Decision(True)]
    with pytest.raises(ConfigError, match="no score is called 'brevity'"):
        decide([sound(0)], config)


@pytest.mark.parametrize("settings", [{"rules": ["form >= 1"]}, {"validation_share": 1.0}, {"num_records": 0}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FilterConfig(**settings)


def test_every_setting_explains_itself() -> None:
    assert all(field.description for field in FilterConfig.model_fields.values())


def test_a_rule_replaces_the_one_of_the_preset_on_that_score() -> None:
    rules = [str(rule) for rule in FilterConfig(rule=("form >= 0", "judge > 3")).rules_in_force()]
    assert rules == ["form >= 0", *PRESETS["general"][1:], "judge > 3"]


def test_the_pairs_of_a_large_teacher_pass_the_general_rules() -> None:
    text = (
        "The Brevanto kettle boils a full litre in under four minutes. Its base contains a magnetic coupling that shuts off"
        " power when the jug is lifted. Descale the element with citric acid once a month; never use bleach. Spare filters"
        " are sold in packs of three for 12 pounds."
    )
    pairs = [
        ("How quickly does the Brevanto kettle bring a litre of water to the boil?", "In under four minutes."),
        ("What happens to the power supply when you lift the jug?", "A magnetic coupling in the base shuts the power off."),
        ("Why does the kettle stop heating once it is lifted from its base?", "Because a magnetic coupling cuts the power when the jug is lifted."),
        ("How often should the heating element be descaled?", "Once a month."),
        ("Which substance is recommended for descaling the element?", "Citric acid"),
        ("Can I clean the kettle with bleach?", "No, bleach must never be used."),
        ("What should you not use when descaling the kettle?", "Bleach"),
        ("How many filters come in one pack?", "Three"),
        ("What does a pack of spare filters cost?", "A pack of three spare filters costs £12."),
        ("Are spare filters sold one at a time?", "No, they are sold in packs of 3."),
    ]  # fmt: skip
    records = [record(q, a, None, text) for q, a in pairs]
    assert [r.decision.reasons for r in decide(records, FilterConfig()) if r.decision] == [()] * len(pairs)


def test_reasons_are_counted_without_their_numbers_and_ids() -> None:
    reasons = [
        "groundedness:0.5, not >= 0.6",
        "form:markup",
        "duplicate:near of 0123456789abcdef",
        "contaminated:h1",
        "surplus",
    ]
    assert [family(r) for r in reasons] == ["groundedness", "form:markup", "duplicate:near", "contaminated", "surplus"]


DRAWN = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 2), st.sampled_from("ABCD"), st.integers(0, 3)), max_size=20
)


@UNHURRIED
@given(DRAWN, st.randoms(use_true_random=False), st.one_of(st.none(), st.integers(1, 8)))
def test_the_order_of_the_records_changes_no_decision(
    drawn: list[tuple[int, int, str, int]], shuffler: random.Random, num_records: int | None
) -> None:
    texts = [f"The Orla lamp of series {i} costs 40 pounds and lasts {i} years." for i in range(7)]
    records = {
        (r := record(f"How much does the Orla lamp of series {a} cost{' now' * b}?", "40 pounds" + f" {c}" * (c == "D"), texts[a], texts[a], f"d{a % 3}", str(d))).id: r
        for a, b, c, d in drawn
    }  # fmt: skip
    config = FilterConfig(num_records=num_records, max_per_passage=3)
    ordered = list(records.values())
    shuffled = shuffler.sample(ordered, len(ordered))
    results = [{r.id: (r.decision, r.scores) for r in decide(some, config)} for some in (ordered, shuffled)]
    assert results[0] == results[1]
    if num_records is not None:
        assert sum(d.keep for d, _ in results[0].values() if d) <= num_records


def test_deciding_twice_gives_the_same_records() -> None:
    records = [*(sound(i) for i in range(10)), *flawed(), sound(2)]
    once = decide(records, FilterConfig(num_records=5))
    assert decide(once, FilterConfig(num_records=5)) == once


def test_a_conversation_is_a_row_with_all_its_turns(tmp_path: Path) -> None:
    text = "The Orla lamp costs 40 pounds and weighs 2 kilograms."
    turns = [
        Message("system", "You sell lamps."),
        Message("user", "What does the Orla lamp cost?"),
        Message("assistant", "40 pounds."),
        Message("user", "And what does it weigh?"),
    ]
    talk = Record.create(Passage("d.md", text, 0, len(text)), "", "2 kilograms", generator="talk", prompt=turns)
    run = a_run(tmp_path, [talk, sound(1), sound(2)])
    run_filter(run, FilterConfig(validation_share=0))
    row = next(row for row in rows(run.train_path) if row["id"] == talk.id)
    assert row["prompt"] == [turn.to_json() for turn in turns]


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.text(max_size=3), st.just([]), st.just({}), st.just([{}])
)


@UNHURRIED
@given(st.data())
def test_what_the_quick_check_lets_pass_the_schema_accepts(data: st.DataObject) -> None:
    value = sound(1).with_scores({"a": 1.0, "b": None}).decided(Decision(False, ("x",))).to_json()
    place: Any = value
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else list(range(len(place)))))
        if place[key] and isinstance(place[key], dict | list) and data.draw(st.booleans()):
            place = place[key]
            continue
        break
    if isinstance(place, dict) and data.draw(st.booleans()):
        del place[key]
    else:
        place[key] = data.draw(JUNK)
    from synth.core.record_file import _plainly_valid

    if _plainly_valid(value):
        assert first_fault(value, validator("record")) is None


def test_a_plain_record_takes_the_quick_way() -> None:
    from synth.core.record_file import _plainly_valid

    assert _plainly_valid(sound(1).to_json())
    assert _plainly_valid(sound(1).with_scores({"a": 1, "b": None}).decided(Decision(False, ("x",))).to_json())


def test_a_summary_of_no_records_is_all_zero() -> None:
    assert FilterSummary.of([], FilterConfig().rules_in_force()).total == 0


def test_decide_takes_a_heldout_set(tmp_path: Path) -> None:
    heldout: HeldoutSet = load_heldout(heldout_file(tmp_path, sound(0).question))
    first, second = decide([sound(0), sound(1)], FilterConfig(), heldout)
    assert first.decision == Decision(False, ("contaminated:h0",)) and second.decision == Decision(True)
