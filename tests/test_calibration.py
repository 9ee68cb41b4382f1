"""Calibration on human pairs: corruptions, AUC, thresholds, the combined score, the rules file, the command."""

import hashlib
import json
import math
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.calibrate import Calibration, calibrate
from synth.calibration.corruptions import CORRUPTIONS, Pool, Spoiled, is_right, normal
from synth.calibration.humans import load_humans
from synth.calibration.plot import plot_curves
from synth.calibration.roc import auc, clustered_auc, curve
from synth.calibration.samples import HUMAN, make_samples
from synth.calibration.scorers import BUILT_IN, find_scorers
from synth.core.errors import ConfigError, RecordError
from synth.core.records import Record
from synth.core.schemas import validator
from synth.filters.base import Rule, ShareScorer, score_records
from synth.filters.rules_file import COMBINED, Combined, RulesFile, Term, load_rules, rule_text
from tests.conftest import Command
from tests.human_files import csv_file, jsonl_file, squad_file

FEW = [BUILT_IN[name] for name in ("alignment", "coverage", "nearness", "polarity", "relevance")]


@pytest.fixture(scope="module")
def squad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return squad_file(tmp_path_factory.mktemp("human") / "towns.json")


@pytest.fixture(scope="module")
def found(squad: Path) -> Calibration:
    return calibrate(squad, scorers=FEW, resamples=200)


# -- human files and corruptions -----------------------------------------------------------------------------------


def test_the_three_formats_give_the_same_pairs(tmp_path: Path) -> None:
    files = (squad_file(tmp_path / "a.json"), jsonl_file(tmp_path / "b.jsonl"), csv_file(tmp_path / "c.csv"))
    assert len({load_humans(file).pairs for file in files}) == 1


def test_the_place_of_an_answer_is_where_squad_says(tmp_path: Path) -> None:
    context = "The rye is cut late. The oats are cut late."
    qa = {
        "id": "1",
        "question": "When are oats cut?",
        "answers": [{"text": "late", "answer_start": context.rindex("late")}],
    }
    path = tmp_path / "s.json"
    path.write_text(json.dumps({"data": [{"paragraphs": [{"context": context, "qas": [qa]}]}]}))
    humans = load_humans(path)
    assert humans.pairs[0].starts == (context.rindex("late"),)
    samples = make_samples(humans, corruptions=(), forms=("sentence",)).samples
    assert samples[0].record.evidence is not None and samples[0].record.evidence.text == "The oats are cut late."


def test_questions_without_a_passage_are_counted_and_alone_they_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text('{"question": "How far is it?", "answer": "a mile"}\n')
    with pytest.raises(RecordError, match="has a passage"):
        load_humans(path)
    with path.open("a") as file:
        file.write('{"question": "How deep is it?", "answer": "a foot", "context": "The pond is a foot deep."}\n')
    assert load_humans(path).files[0].without_passage == 1


def test_several_files_keep_their_documents_apart_and_one_twice_is_an_error(tmp_path: Path) -> None:
    first, second = squad_file(tmp_path / "a.json", 3), squad_file(tmp_path / "b.json", 4)
    humans = load_humans([first, second])
    assert len({p.document_id for p in humans.pairs}) == 7 and len({p.id for p in humans.pairs}) == len(humans.pairs)
    with pytest.raises(ConfigError, match="twice"):
        load_humans([first, first])


def test_every_corruption_spoils_pairs_and_never_gives_the_pair_back(squad: Path) -> None:
    humans = load_humans(squad)
    made = make_samples(humans, forms=("passage",))
    by_id = {pair.id: pair for pair in humans.pairs}
    labels = {sample.label for sample in made.samples}
    assert labels == {HUMAN, *CORRUPTIONS}
    for sample in made.samples:
        pair, record = by_id[sample.pair], sample.record
        assert record.context == pair.context
        same = normal(record.question) == normal(pair.question) and normal(record.answer) in map(normal, pair.answers)
        assert same == (sample.label == HUMAN), (sample.label, record.question, record.answer)
    for name, skipped in made.skipped.items():
        assert skipped + sum(s.label == name for s in made.samples) == len(humans.pairs)


def test_corruptions_are_the_same_for_the_same_seed_and_do_not_hang_on_other_corruptions(squad: Path) -> None:
    humans = load_humans(squad)
    alone = make_samples(humans, corruptions=[CORRUPTIONS["number_swapped"]], seed=3).samples
    among = make_samples(humans, seed=3).samples
    assert [s for s in among if s.label in {HUMAN, "number_swapped"}] == list(alone)
    assert make_samples(humans, seed=4).samples != among


def spoilt(name: str, context: str, question: str, answer: str, others: str = "") -> Spoiled | None:
    """Spoil one pair, with a second document beside it."""
    rows = [{"question": question, "answer": answer, "context": context, "document_id": "a"}]
    rows += [{"question": "What is it?", "answer": "a thing", "context": others, "document_id": "b"}] if others else []
    path = Path("h.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    humans = load_humans(path)
    return CORRUPTIONS[name].corrupt(humans.pairs[0], Pool(humans), Random(0))


@pytest.mark.parametrize(
    ("question", "answer", "asked", "answered"),
    [
        ("When was the barn built?", "1850", "When wasn't the barn built?", "1850"),
        ("What is kept in the barn?", "Hay is kept there", "What is kept in the barn?", "Hay isn't kept there"),
        ("What is done?", "We do not sell hay", "What is done?", "We do sell hay"),
        ("What can't be sold?", "hay", "What can be sold?", "hay"),
    ],
)
def test_a_negation_is_put_in_or_taken_away(
    question: str, answer: str, asked: str, answered: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changed = spoilt("negated", "The barn was built in 1850.", question, answer)
    assert changed is not None and (changed.question, changed.answer) == (asked, answered)


def test_a_yes_or_no_question_is_not_negated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert spoilt("negated", "We ship abroad by sea.", "Do you ship abroad?", "by sea") is None


def test_swapped_numbers_and_names_are_of_the_same_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    context = "The mill of Ann Rook was sold in 1874 for 52 crowns."
    others = "The barn of Ben Holt was sold in 1911 for 38 crowns and 7 pence."
    changed = spoilt("number_swapped", context, "When was it sold?", "in 1874", others)
    assert changed is not None and changed.answer == "in 1911"
    changed = spoilt("name_swapped", context, "Whose mill was it?", "Ann Rook", others)
    assert changed is not None and changed.answer == "Ben Holt"
    assert spoilt("name_swapped", context, "What was sold?", "the mill", others) is None


def test_what_overlaps_an_accepted_answer_or_was_asked_of_the_passage_is_right(squad: Path) -> None:
    humans = load_humans(squad)
    pool, pair = Pool(humans), humans.pairs[2]
    start = pair.starts[0]
    assert is_right(Spoiled(pair.question, pair.answer[5:], start + 5), pair, pool)
    assert is_right(Spoiled(humans.pairs[0].question, pair.answer), pair, pool)
    assert not is_right(Spoiled(pair.question, "a lot of fog"), pair, pool)


def test_the_plausible_answers_of_squad_are_unanswerable(tmp_path: Path) -> None:
    humans = load_humans(squad_file(tmp_path / "v2.json", impossible=True))
    assert len(humans.unanswerable) == 1
    made = make_samples(humans, corruptions=[CORRUPTIONS["unanswerable"]], forms=("passage",))
    assert "When was the harbour closed?" in {s.record.question for s in made.samples if s.label == "unanswerable"}


def test_samples_of_two_forms_have_ids_of_their_own(squad: Path) -> None:
    samples = make_samples(load_humans(squad)).samples
    by_id: dict[str, set[tuple[str, str]]] = {}
    for sample in samples:
        by_id.setdefault(sample.record.id, set()).add((sample.label, sample.form))
    assert all(len(kinds) == 1 for kinds in by_id.values())


# -- ROC -----------------------------------------------------------------------------------------------------------

scores = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.5, 1.0]), min_size=1, max_size=40)


@given(scores, scores)
@settings(deadline=None)
def test_auc_is_that_of_scikit_learn_ties_and_all(positive: list[float], negative: list[float]) -> None:
    from sklearn.metrics import roc_auc_score

    truth = [1] * len(positive) + [0] * len(negative)
    ours = auc(np.array(positive), np.array(negative))
    assert ours == pytest.approx(roc_auc_score(truth, positive + negative), abs=1e-12)
    passed, kept = curve(np.array(positive), np.array(negative))
    assert float(np.trapezoid(kept, passed)) == pytest.approx(ours, abs=1e-12)


def test_the_interval_of_the_bootstrap_is_what_drawing_documents_by_hand_gives() -> None:
    rng = np.random.default_rng(5)
    documents = [f"d{i % 9}" for i in range(270)]
    shift = {f"d{i}": rng.normal() for i in range(9)}
    positive = np.array([rng.normal() + 1 + shift[d] for d in documents]).round(1)
    negative = np.array([rng.normal() + shift[d] for d in documents]).round(1)
    ours = clustered_auc(positive, negative, documents, documents, resamples=4000, seed=1)
    of = np.array(documents)
    by_hand = []
    for _ in range(1500):
        drawn = rng.integers(0, 9, size=9)
        rows = np.concatenate([np.flatnonzero(of == f"d{i}") for i in drawn])
        by_hand.append(auc(positive[rows], negative[rows]))
    assert ours.low == pytest.approx(np.quantile(by_hand, 0.025), abs=0.01)
    assert ours.high == pytest.approx(np.quantile(by_hand, 0.975), abs=0.01)


def test_the_interval_covers_the_true_auc_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    truth = 0.5 * (1 + math.erf(1 / 2))  # of two normals one apart
    hits = 0
    for trial in range(120):
        documents = [f"d{i % 40}" for i in range(240)]
        found = clustered_auc(
            rng.normal(1, 1, 240), rng.normal(0, 1, 240), documents, documents, resamples=300, seed=trial
        )
        assert found.low is not None and found.high is not None
        hits += found.low <= truth <= found.high
    assert 0.88 <= hits / 120 <= 1.0


def test_many_documents_are_grouped_and_one_gives_no_interval() -> None:
    rng = np.random.default_rng(1)
    documents = [f"d{i}" for i in range(3000)]
    found = clustered_auc(rng.normal(1, 1, 3000), rng.normal(0, 1, 3000), documents, documents)
    assert found.low is not None and found.high is not None and 0.01 < found.high - found.low < 0.04
    alone = clustered_auc(np.array([1.0]), np.array([0.0]), ["a"], ["a"])
    assert (alone.value, alone.low, alone.high) == (1.0, None, None)


# -- what is chosen ------------------------------------------------------------------------------------------------


def test_the_rules_keep_the_share_of_human_pairs_and_reject_what_can_be_seen(squad: Path, found: Calibration) -> None:
    file = found.file
    assert file.rules and file.kept.all >= 0.95 and file.kept.search >= 0.95
    for name in ("other_passage", "number_swapped", "name_swapped", "negated"):
        assert file.rejected[name] > 0.8, (name, file.rejected)
    # By the rules themselves, over records, as the filter has them.
    samples = make_samples(load_humans(squad)).samples
    scored = score_records([s.record for s in samples], FEW)
    if file.combined is not None:
        scored = [r.with_scores({COMBINED: file.combined.value(r.scores)}) for r in scored]
    for form in file.forms:
        human = [r for r, s in zip(scored, samples, strict=True) if s.label == HUMAN and s.form == form]
        assert sum(all(rule.holds(r) for rule in file.rules) for r in human) / len(human) >= 0.95


def test_the_table_counts_what_its_threshold_rejects(squad: Path, found: Calibration) -> None:
    (cell,) = (
        c for c in found.file.table if (c.score, c.corruption, c.form) == ("nearness", "other_question", "passage")
    )
    samples = make_samples(load_humans(squad), forms=("passage",)).samples
    values = {label: dict[str, float]() for label in (HUMAN, "other_question")}
    for sample, value in zip(samples, BUILT_IN["nearness"].score([s.record for s in samples]), strict=True):
        if sample.label in values and value is not None:
            values[sample.label][sample.pair] = round(value, 4)
    spoiled = values["other_question"]
    human = {pair: value for pair, value in values[HUMAN].items() if pair in spoiled}
    assert cell.threshold is not None and cell.recall is not None and cell.precision is not None
    recall = sum(value < cell.threshold for value in spoiled.values()) / len(spoiled)
    lost = sum(value < cell.threshold for value in human.values()) / len(human)
    assert (cell.spoiled, cell.human) == (len(spoiled), len(human)) and cell.recall == pytest.approx(recall, abs=1e-4)
    assert recall > 0 and cell.precision == pytest.approx(recall / (recall + lost), abs=1e-4)
    by_hand = auc(np.array(list(human.values())), np.array(list(spoiled.values())))
    assert cell.auc == pytest.approx(by_hand, abs=1e-4) and cell.low is not None and cell.high is not None
    assert cell.low <= cell.auc <= cell.high


@pytest.mark.parametrize("keep", [0.8, 0.99, 1.0])
def test_another_share_is_kept_as_well(squad: Path, keep: float) -> None:
    kept = calibrate(squad, scorers=FEW, keep=keep, resamples=100, forms=("passage",)).file.kept
    assert kept.all >= keep and kept.search >= keep and kept.asked == keep


def test_the_combined_column_is_what_the_file_calculates(squad: Path, found: Calibration) -> None:
    assert found.combined_auc is not None
    column = found.columns.scores[COMBINED]
    combined = found.file.combined
    if combined is None:
        pytest.fail("the combined score was not used")
    samples = make_samples(load_humans(squad)).samples
    scored = score_records([s.record for s in samples], FEW)
    assert [combined.value(r.scores) for r in scored] == pytest.approx(list(column), abs=1e-9)
    assert found.combined_auc > found.best_single_auc
    assert all(term.weight > 0 for term in combined.terms)


def test_a_missing_score_counts_as_its_neutral_value() -> None:
    combined = Combined(-1.0, (Term("a", 2.0, 0.5), Term("b", 1.0, 1.0)))
    assert combined.names == ("a", "b")
    assert combined.value({"a": None}) == combined.value({"a": 0.5, "b": 1.0}) == round(1 / (1 + math.exp(-1.0)), 4)
    assert combined.value({"a": 1e9, "b": 0}) == 1.0 and combined.value({"a": -1e9}) == 0.0


def test_a_judge_that_does_worse_than_chance_is_refused_and_a_good_one_is_not(squad: Path) -> None:
    humans = load_humans(squad)
    made = make_samples(humans, forms=("passage",))
    rng = Random(1)
    good = {s.record.id: float(s.label == HUMAN) if rng.random() < 0.9 else rng.random() for s in made.samples}
    fooled = {s.record.id: 0.2 if s.label == HUMAN else 0.8 for s in made.samples if s.label != "truncated"}
    judged = calibrate(
        humans, scorers=FEW, forms=("passage",), samples=made, extra={"good": good, "fooled": fooled}, resamples=200
    )
    refused = {(r.score, r.corruption) for r in judged.file.refused}
    assert {score for score, _ in refused} == {"fooled"} and ("fooled", "negated") in refused
    used = {rule.score for rule in judged.file.rules} | set(judged.file.combined.names if judged.file.combined else ())
    assert "fooled" not in used and "good" in used


def test_extra_scores_of_a_few_records_are_measured_on_those(squad: Path) -> None:
    humans = load_humans(squad)
    made = make_samples(humans, forms=("passage",))
    few = {s.record.id: float(s.label == HUMAN) for s in made.samples if s.label in {HUMAN, "negated"}}
    judged = calibrate(humans, scorers=FEW[:1], forms=("passage",), samples=made, extra={"judge": few}, resamples=100)
    cells = {c.corruption: c for c in judged.file.table if c.score == "judge"}
    assert cells["negated"].auc == 1.0 and "truncated" not in cells
    with pytest.raises(ConfigError, match="no sample has this score"):
        calibrate(humans, scorers=FEW[:1], samples=made, extra={"judge": {"x": 1.0}}, forms=("passage",))


def test_one_document_gives_thresholds_without_a_check(tmp_path: Path) -> None:
    alone = calibrate(squad_file(tmp_path / "one.json", 1), scorers=FEW, resamples=100).file
    assert alone.kept.check is None and alone.combined is None and alone.kept.all >= 0.95


def test_faults_of_the_call_are_named(squad: Path) -> None:
    with pytest.raises(ConfigError, match="no share"):
        calibrate(squad, keep=0)
    with pytest.raises(ConfigError, match="did you mean negated"):
        calibrate(squad, corruptions=["negatd"])
    with pytest.raises(ConfigError, match="share a name"):
        calibrate(squad, scorers=[FEW[0], FEW[0]])
    bad = ShareScorer("bad", lambda record: math.nan)
    with pytest.raises(ConfigError, match="no finite number"):
        calibrate(squad, scorers=[bad])


# -- a user's scorers ----------------------------------------------------------------------------------------------


class Length:
    """A scorer as a user writes one."""

    name = "length"

    def score(self, records: list[Record]) -> list[float | None]:
        return [min(1.0, len(r.answer) / 100) for r in records]


def test_scorers_are_found_by_name_and_in_modules() -> None:
    scorers = find_scorers(["alignment", "tests.test_calibration:Length"])
    assert [scorer.name for scorer in scorers] == ["alignment", "length"]
    for spec, message in (
        ("alignmnt", "did you mean alignment"),
        ("no_such_module_at_all:X", "cannot be imported"),
        ("tests.test_calibration:Lenght", "did you mean Length"),
        ("tests.test_calibration:Path", "is no scorer"),
    ):
        with pytest.raises(ConfigError, match=message):
            find_scorers([spec])


# -- the rules file ------------------------------------------------------------------------------------------------


def test_a_rules_file_reads_back_as_it_was_and_its_schema_accepts_it(found: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "rules.json"
    found.file.write(path)
    assert load_rules(path) == found.file
    assert validator("rules").is_valid(json.loads(path.read_bytes()))
    assert found.file.human[0].name == "towns.json" and found.file.human[0].pairs == 144


def test_the_rules_file_holds_the_digest_and_no_text_of_the_human_file(
    squad: Path, found: Calibration, tmp_path: Path
) -> None:
    path = tmp_path / "rules.json"
    found.file.write(path)
    text = path.read_text()
    assert found.file.human[0].sha256 == hashlib.sha256(squad.read_bytes()).hexdigest() and "harbour" not in text


@pytest.mark.parametrize("bound", [0.0001, 0.1234, 1.0, 12345.6789, -3.5])
def test_a_bound_loses_no_digit_on_its_way(bound: float) -> None:
    assert Rule.parse(rule_text(Rule("x", ">=", bound))).bound == bound


def changed(found: RulesFile, path: Path, **changes: object) -> Path:
    path.write_text(json.dumps({**found.to_json(), **changes}))
    return path


def test_hostile_rules_files_are_refused_with_what_is_wrong(found: Calibration, tmp_path: Path) -> None:
    path, file = tmp_path / "rules.json", found.file
    with pytest.raises(ConfigError, match="cannot be read"):
        load_rules(path)
    whole = json.dumps(file.to_json())
    for text, message in (
        (whole[: len(whole) // 2], "not valid JSON"),
        ("", "not valid JSON"),
        ("[]", "no version"),
        ('{"rules": []}', "no version"),
        (whole.replace('"version": 1', '"version": 2', 1), "of version 2"),
        (whole.replace('"bias": -', '"bias": NaN, "x": -', 1), "not valid JSON"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load_rules(path)
    terms = [{"score": "alignment", "weight": 1.0, "neutral": 1.0}]
    for changes, message in (
        ({"rules": ["alignment over 9000"]}, "is no rule"),
        ({"rules": 7}, "rules"),
        ({"rules": ["combined >= 0.5"], "combined": None}, "no coefficients"),
        ({"combined": {"bias": "high", "terms": terms}}, "combined"),
        ({"combined": {"bias": 1.0, "terms": terms * 2}}, "twice"),
        ({"kept": {}}, "kept"),
        ({"surprise": 1}, "surprise"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_rules(changed(file, path, **changes))


# -- the command ---------------------------------------------------------------------------------------------------


def test_the_command_writes_the_same_rules_and_picture_each_time(squad: Path, tmp_path: Path, command: Command) -> None:
    flags = (
        "--human",
        squad,
        "--resamples",
        "100",
        "--form",
        "passage",
        "--scorer",
        "alignment",
        "--scorer",
        "polarity",
    )
    first = command("synth", "calibrate", *flags, "--out", "a/rules.json", "--json")
    assert first.returncode == 0, first.stderr
    told = json.loads(first.stdout)
    assert told["out"] == "a/rules.json" and told["rules"] and told["skipped"]["number_swapped"] > 0
    second = command("synth", "calibrate", *flags, "--out", "b/rules.json", "--plot", "b/rules.svg")
    assert second.returncode == 0, second.stderr
    assert "alignment" in second.stdout and "synth filter RUN --rules b/rules.json" in second.stdout
    assert (tmp_path / "a/rules.json").read_bytes() == (tmp_path / "b/rules.json").read_bytes()
    assert load_rules(tmp_path / "a/rules.json").rules
    assert (tmp_path / "a/rules.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "b/rules.svg").read_text().startswith("<?xml")


def test_the_command_names_faults_before_it_works(squad: Path, command: Command) -> None:
    for flags, message in (
        (("--form", "page"), "take passage or sentence"),
        (("--plot", "x.gif"), "name a .png or a .svg"),
        (("--scorer", "alignmen"), "did you mean alignment?"),
        (("--keep", "2"), "no share"),
    ):
        done = command("synth", "calibrate", "--human", squad, *flags)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    done = command("synth", "calibrate", "--human", "missing.json")
    assert done.returncode == 1 and "cannot be read" in done.stderr


def test_a_plot_without_matplotlib_names_the_extra(
    found: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"needs matplotlib.*synth-tune\[calibrate\]"):
        plot_curves(found, tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


def test_equal_calibrations_draw_equal_pictures(found: Calibration, tmp_path: Path) -> None:
    for suffix in ("png", "svg"):
        plot_curves(found, tmp_path / f"a.{suffix}")
        plot_curves(found, tmp_path / f"b.{suffix}")
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
