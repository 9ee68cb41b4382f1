"""The dataset's rows are read, split, mixed, measured and refused with their ids; none is cut or lost."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from synth.core.errors import ConfigError, RecordError, RunError
from synth.core.jsonl import write_jsonl
from synth.core.runs import Run, StageEntry
from tests.export_runs import decided_run, pair
from tests.runs_for_tests import filtered_run, row
from tune.augment import with_variants
from tune.config import TuneConfig
from tune.data import open_dataset, read_dataset
from tune.rows import Dataset, Row


def test_rows_come_back_as_the_filter_wrote_them(tmp_path: Path) -> None:
    dataset = read_dataset(filtered_run(tmp_path / "run"))
    assert [r.id for r in dataset.train] == [f"row-{i:03d}" for i in range(12)]
    assert {r.document_id for r in dataset.validation} == {"lamp.txt"}
    assert {name: digest.rows for name, digest in dataset.inputs.items()} == {
        "dataset/train.jsonl": 12,
        "dataset/validation.jsonl": 3,
    }


def test_a_run_without_a_filter_stage_names_the_command_that_makes_one(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    with pytest.raises(RunError, match="run `synth filter .*run` first"):
        read_dataset(run)


def test_a_file_edited_by_hand_is_refused(tmp_path: Path) -> None:
    run = filtered_run(tmp_path / "run")
    run.train_path.write_text(run.train_path.read_text().replace("1.7", "2.7"))
    with pytest.raises(RunError, match=r"train\.jsonl: the file is not the one that the filter wrote"):
        read_dataset(run)


def test_a_missing_validation_file_is_refused_unless_the_filter_wrote_none(tmp_path: Path) -> None:
    run = filtered_run(tmp_path / "run")
    run.validation_path.unlink()
    with pytest.raises(RunError, match=r"validation\.jsonl"):
        read_dataset(run)
    entry = run.stages()["filter"]
    kept = {name: d for name, d in entry.outputs.items() if "validation" not in name}
    run.finish_stage("filter", StageEntry(config={}, outputs=kept))
    assert read_dataset(run).validation == ()


def test_no_row_to_train_on_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no row to train on"):
        read_dataset(filtered_run(tmp_path / "run", train=[]))


def test_a_document_on_both_sides_of_the_split_is_named(tmp_path: Path) -> None:
    run = filtered_run(tmp_path / "run", validation=[row(1, "kettle.md")])
    with pytest.raises(RunError, match=r"1 document: kettle\.md stand"):
        read_dataset(run)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"completion": [{"role": "assistant", "content": "  \n"}]}, "row row-001: the completion is empty"),
        ({"completion": []}, "row row-001: the completion is not one assistant turn"),
        ({"completion": [{"role": "user", "content": "x"}]}, "row row-001: the completion is not one assistant turn"),
        ({"prompt": []}, "row row-001: the prompt is empty"),
        ({"prompt": [{"role": "user"}]}, "not a row with id, document_id, prompt and completion"),
        ({"prompt": [{"role": "user", "content": 7}]}, "row row-001: the prompt is empty"),
    ],
)
def test_a_row_that_would_teach_nothing_is_refused_with_its_line(
    tmp_path: Path, change: dict[str, object], fault: str
) -> None:
    run = filtered_run(tmp_path / "run", train=[row(0), {**row(1), **change}])
    with pytest.raises(RecordError, match=rf"train\.jsonl:2: {fault}"):
        read_dataset(run)


def test_a_line_that_is_no_object_is_refused(tmp_path: Path) -> None:
    run = filtered_run(tmp_path / "run")
    digest = write_jsonl(run.train_path, ["text"])
    run.finish_stage("filter", StageEntry(config={}, outputs={"dataset/train.jsonl": digest}))
    run.validation_path.unlink()
    with pytest.raises(RecordError, match="not a row"):
        read_dataset(run)


def lines(path: Path, rows: Sequence[object]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return str(path)


def general(path: Path, number: int) -> str:
    """Write a JSONL file of so many conversations."""
    return lines(path, [{"prompt": f"{path.stem} {n}?", "completion": "Yes."} for n in range(number)])


def big_run(path: Path, documents: int = 10, each: int = 4) -> Run:
    """Write a run of some documents, two of which validate."""
    rows = [row(n, f"d{n % documents}.md") for n in range(documents * each)]
    sides = [[one for one in rows if (one["document_id"] in ("d0.md", "d1.md")) == side] for side in (False, True)]
    return filtered_run(path, train=sides[0], validation=sides[1])


def open_with(run: Run, **settings: Any) -> Dataset:  # noqa: ANN401  (fields of TuneConfig)
    return open_dataset(run, TuneConfig(**settings))


def ids(rows: Sequence[Row]) -> list[str]:
    return [one.id for one in rows]


def documents(rows: Sequence[Row]) -> set[str]:
    return {one.document_id for one in rows}


def sources(rows: Sequence[Row]) -> dict[str, int]:
    return dict(Counter(one.source for one in rows))


def test_a_dataset_is_by_default_the_one_the_filter_wrote(tmp_path: Path) -> None:
    run = filtered_run(tmp_path / "run")
    opened, read = open_with(run), read_dataset(run)
    assert (opened.train, opened.validation, opened.inputs) == (read.train, read.validation, read.inputs)
    assert not opened.ordered and opened.notes == () and sources(opened.train) == {"dataset": 12}


def test_data_takes_the_place_of_the_runs_own_rows_and_is_split_by_question(tmp_path: Path) -> None:
    asked = [{"prompt": f"question {n % 25}", "completion": f"answer {n}"} for n in range(100)]
    opened = open_with(filtered_run(tmp_path / "run"), data=lines(tmp_path / "x.jsonl", asked))
    assert len(opened.train) + len(opened.validation) == 100 and len(opened.validation) == 20
    assert not {one.prompt for one in opened.train} & {one.prompt for one in opened.validation}
    assert list(opened.inputs) == ["data:x.jsonl"] and opened.inputs["data:x.jsonl"].rows == 100
    assert opened.notes == ("split, as x.jsonl came without one: 20 of 100 rows, 5 of 25 documents, validate",)
    assert opened == open_with(filtered_run(tmp_path / "other"), data=str(tmp_path / "x.jsonl"))


def test_another_run_keeps_its_split_and_is_checked_against_its_manifest(tmp_path: Path) -> None:
    run, other = filtered_run(tmp_path / "run", train=[row(0)]), filtered_run(tmp_path / "lamps")
    opened = open_with(run, data=str(other.path))
    assert (len(opened.train), len(opened.validation), sources(opened.train)) == (12, 3, {"lamps": 12})
    assert sorted(opened.inputs) == ["data:lamps/dataset/train.jsonl", "data:lamps/dataset/validation.jsonl"]
    other.train_path.write_text(other.train_path.read_text().replace("1.7", "2.7"))
    with pytest.raises(RunError, match=r"lamps/dataset/train\.jsonl: the file is not the one that the filter wrote"):
        open_with(run, data=str(other.path))


def test_a_file_with_the_same_question_on_both_sides_is_refused_and_can_be_split_anew(tmp_path: Path) -> None:
    run = filtered_run(tmp_path / "run")
    general(tmp_path / "mine" / "train.jsonl", 10)
    rows = [{"id": "mine", "prompt": "Train 3?", "completion": "No."}, {"prompt": "other", "completion": "No."}]
    lines(tmp_path / "mine" / "validation.jsonl", rows)
    with pytest.raises(
        RecordError, match=r"1 validation row asks .*: mine \('Train 3\?'\) as .*--validation-share 0\.2"
    ):
        open_with(run, data=str(tmp_path / "mine"))
    opened = open_with(run, data=str(tmp_path / "mine"), validation_share=0.2)
    assert len(opened.train) + len(opened.validation) == 12 and len(opened.validation) in (2, 3)
    assert not documents(opened.train) & documents(opened.validation)


def test_a_validation_share_splits_all_rows_anew_by_document(tmp_path: Path) -> None:
    run = big_run(tmp_path / "run")
    opened = open_with(run, validation_share=0.5)
    assert len(opened.validation) == 20 and not documents(opened.train) & documents(opened.validation)
    assert opened.notes == ("split anew: 20 of 40 rows, 5 of 10 documents, validate",)
    assert open_with(run, validation_share=0).validation == ()
    assert documents(open_with(run, validation_share=0.5, seed=1).validation) != documents(opened.validation)


def test_each_row_validates_in_one_fold_and_trains_in_the_others(tmp_path: Path) -> None:
    run = big_run(tmp_path / "run")
    parts = [open_with(run, folds=5, fold=number) for number in range(1, 6)]
    validated = [name for part in parts for name in ids(part.validation)]
    assert sorted(validated) == sorted(ids(open_with(run).train) + ids(open_with(run).validation))
    for number, part in enumerate(parts, 1):
        assert len(part.train) == 32 and not documents(part.train) & documents(part.validation)
        assert part.notes == (f"fold {number} of 5: 8 of 40 rows, 2 of 10 documents, validate",)
    with pytest.raises(ConfigError, match="set fold"):
        open_with(run, folds=5)


def test_a_mix_without_shares_has_all_rows_of_all_sources(tmp_path: Path) -> None:
    run = filtered_run(tmp_path / "run")
    lamps, other = general(tmp_path / "lamps.jsonl", 20), general(tmp_path / "other.jsonl", 10)
    opened = open_with(run, mix=(str(run.path), lamps, other))
    assert len(opened.train) + len(opened.validation) == 12 + 3 + 20 + 10
    assert set(sources(opened.train)) == {"run", "lamps.jsonl", "other.jsonl"}
    assert {one.id for one in open_with(run).validation} <= set(ids(opened.validation))
    assert sorted(opened.inputs)[:2] == ["mix:lamps.jsonl", "mix:other.jsonl"]
    assert opened == open_with(run, mix=(other, str(run.path), lamps))


def test_shares_are_kept_until_the_first_source_runs_out_and_decide_the_name(tmp_path: Path) -> None:
    run = filtered_run(tmp_path / "run")
    lamps = general(tmp_path / "lamps.jsonl", 100)
    opened = open_with(run, mix=(f"{run.path}=3", f"{lamps}=1"))
    assert sources(opened.train) == {"run": 12, "lamps.jsonl": 4}
    # No validation row is lost to a share.
    assert sources(opened.validation)["run"] == 3 and sources(opened.validation)["lamps.jsonl"] > 10
    assert opened.notes[-1].startswith("mix, training rows: lamps.jsonl 4 of ")
    assert opened == open_with(run, mix=(f"{lamps}=0.25", f"{run.path}=0.75"))
    assert sorted(opened.inputs)[0] == "mix=0.25:lamps.jsonl"
    assert open_with(run, mix=(f"{run.path}=1", f"{lamps}=1")).inputs.keys() != opened.inputs.keys()
    assert ids(opened.train) != ids(open_with(run, mix=(f"{run.path}=3", f"{lamps}=1"), seed=1).train)


def test_sources_of_one_name_and_ids_of_one_name_are_told_apart(tmp_path: Path) -> None:
    run = filtered_run(tmp_path / "run")
    one = lines(tmp_path / "a" / "x.jsonl", [{"id": n, "text": f"a {n}"} for n in range(10)])
    other = lines(tmp_path / "b" / "x.jsonl", [{"id": n, "text": f"b {n}"} for n in range(10)])
    opened = open_with(run, mix=(one, other))
    both = (*opened.train, *opened.validation)
    assert len(set(ids(both))) == 20 and set(sources(both)) == {"x.jsonl", "x.jsonl#2"}
    assert sorted(opened.inputs) == ["mix:x.jsonl", "mix:x.jsonl#2"]
    assert "ids that stood before, renamed with # and a number: 10" in opened.notes
    # Two files that are moved keep their rows' names.
    assert opened == open_with(run, mix=(other, one))


@pytest.mark.parametrize(
    ("shares", "fault"),
    [
        (("=0.5", ""), "some sources have a share and .*b.jsonl' has none"),
        (("=0", "=1"), "a share is a number above 0"),
        (("=-1", "=1"), "a share is a number above 0"),
        (("=nan", "=1"), "a share is a number above 0"),
        (("=much", ""), "a.jsonl=much: there is no such file"),
    ],
)
def test_shares_that_mean_nothing_are_refused(tmp_path: Path, shares: tuple[str, str], fault: str) -> None:
    run = filtered_run(tmp_path / "run")
    a, b = general(tmp_path / "a.jsonl", 10), general(tmp_path / "b.jsonl", 10)
    with pytest.raises(ConfigError, match=fault):
        open_with(run, mix=(a + shares[0], b + shares[1]))


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody-of-that-name/x.jsonl"])
def test_a_name_that_cannot_be_looked_at_is_a_plain_error(tmp_path: Path, name: str) -> None:
    run = filtered_run(tmp_path / "run")
    for settings in ({"data": name}, {"mix": (f"{name}=1",)}, {"replay": name}):
        with pytest.raises(ConfigError, match="cannot be looked at"):
            open_with(run, **settings)


def test_a_source_named_twice_is_refused_and_one_named_like_a_share_is_read(tmp_path: Path) -> None:
    run = filtered_run(tmp_path / "run")
    path = general(tmp_path / "x=0.5", 10)
    assert sources(open_with(run, mix=(path,)).train) == {"x=0.5": 8}
    with pytest.raises(ConfigError, match="named twice"):
        open_with(run, mix=(path, str(tmp_path / "." / "x=0.5")))


def test_a_document_that_trains_in_one_run_and_validates_in_another_is_refused(tmp_path: Path) -> None:
    run = filtered_run(tmp_path / "run")
    other = filtered_run(tmp_path / "other", train=[row(90, "lamp.txt")], validation=[row(91, "fan.txt")])
    mix = (str(run.path), str(other.path))
    with pytest.raises(RecordError, match=r"1 document: lamp\.txt \(other and run\) stand .*--validation-share 0\.2"):
        open_with(run, mix=mix)
    opened = open_with(run, mix=mix, validation_share=0.2)
    assert not documents(opened.train) & documents(opened.validation)


def test_a_subset_is_of_whole_documents_and_leaves_the_validation_rows_alone(tmp_path: Path) -> None:
    run = big_run(tmp_path / "run")
    whole, half, quarter = (open_with(run, subset=share) for share in (1.0, 0.5, 0.25))
    assert whole.train == open_with(run).train and half.validation == whole.validation
    assert (len(half.train), len(quarter.train)) == (16, 8)
    assert set(ids(quarter.train)) < set(ids(half.train)) < set(ids(whole.train))
    assert quarter.notes == ("subset: 8 of 32 training rows, 2 of 8 documents",)


def test_replayed_rows_are_their_share_of_what_is_trained_on(tmp_path: Path) -> None:
    run = filtered_run(tmp_path / "run")
    path = general(tmp_path / "general.jsonl", 50)
    opened = open_with(run, replay=path, replay_share=0.25)
    assert sources(opened.train) == {"dataset": 12, "replay": 4} and len(opened.validation) == 3
    assert opened.notes == ("replay: 4 of 50 rows of general.jsonl, a share of 0.25",)
    assert "replay:general.jsonl" in opened.inputs
    fewer = open_with(run, replay=path, replay_share=0.9)
    assert sources(fewer.train) == {"dataset": 12, "replay": 50}
    assert fewer.notes == ("replay: 50 of 50 rows of general.jsonl, a share of 0.806, fewer than the 108 wanted",)


def test_what_is_validated_on_is_never_replayed(tmp_path: Path) -> None:
    run = filtered_run(tmp_path / "run")
    asked = [{"messages": row(n)["prompt"] + row(n)["completion"]} for n in range(18, 23)]
    opened = open_with(run, replay=lines(tmp_path / "x.jsonl", asked), replay_share=0.5)
    assert opened.notes[0] == "replay: 3 rows of x.jsonl are about what is validated on, and are left out"
    assert sources(opened.train) == {"dataset": 12, "replay": 2}
    with pytest.raises(RecordError, match=r"x\.jsonl: there is no row to replay"):
        open_with(run, replay=lines(tmp_path / "x.jsonl", asked[2:]), replay_share=0.5)


def test_a_curriculum_orders_a_runs_rows_by_the_scores_of_their_records(tmp_path: Path) -> None:
    run = decided_run(tmp_path / "run", [pair(n, scores={"groundedness": 1 - n / 100, "x": None}) for n in range(20)])
    opened = open_with(run, curriculum="groundedness")
    scores = [one.scores["groundedness"] for one in opened.train]
    assert opened.ordered and scores == sorted(scores, key=lambda score: score or 0.0) and len(set(scores)) > 10
    assert ids(open_with(run, curriculum="-groundedness").train) == ids(opened.train)[::-1]
    assert opened.inputs["records.jsonl"].rows == 20
    assert opened.notes == ("order: by groundedness, from 0.82 to 1",)
    with pytest.raises(RecordError, match=r"15 of 15 rows have no score 'x': .*, 10 more; .*known: groundedness"):
        open_with(run, curriculum="x")
    run.records_path.write_text(run.records_path.read_text() + "\n{}")
    with pytest.raises(RunError, match=r"records\.jsonl: the file with the scores is missing or not the one"):
        open_with(run, curriculum="groundedness")


def test_replayed_rows_are_met_all_along_a_curriculum(tmp_path: Path) -> None:
    rows = [{"prompt": f"q {n}", "completion": "a", "scores": {"hard": (n * 7) % 40}} for n in range(40)]
    run, path = filtered_run(tmp_path / "run"), lines(tmp_path / "x.jsonl", rows)
    replay = general(tmp_path / "general.jsonl", 50)
    opened = open_with(run, data=path, curriculum="hard", replay=replay, replay_share=0.2, validation_share=0)
    scores = [one.scores["hard"] for one in opened.train if one.source != "replay"]
    assert scores == [float(n) for n in range(40)]
    places = [place for place, one in enumerate(opened.train) if one.source == "replay"]
    assert len(places) == 10 and all(after - before == 5 for before, after in zip(places, places[1:], strict=False))


def test_variants_of_plain_rows_are_of_their_prompts_and_text_alone_has_none(tmp_path: Path) -> None:
    rows = [{"prompt": "What does the small lamp cost today?", "completion": "40"}, {"text": "The lamp."}]
    run, path = filtered_run(tmp_path / "run"), lines(tmp_path / "x.jsonl", rows)
    made = with_variants(open_with(run, data=path, validation_share=0).train, 3, seed=0)
    assert [one.prompt != "" for one in made] == [True] * 4 + [False]
    assert all(isinstance(one.prompt, str) for one in made)
