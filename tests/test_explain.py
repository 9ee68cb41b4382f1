"""`tune explain`: from a held-out question to the answers, the training rows, the calls and the passages behind them."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from synth.core.calls import ChatRequest, Completion, Usage
from synth.core.errors import RunError
from synth.core.jsonl import FileDigest, digest_file, write_json, write_jsonl
from synth.core.records import Decision, Message, Passage, Provenance, Record
from synth.core.runs import Run, StageEntry
from synth.inference.journal import Journal
from tune.cli_registry import register
from tune.explain import explain
from tune.promotion import promote

WATER = Passage("kettle.md", "The kettle holds 1.7 litres of water. Its lid locks.", 0, 52, ("Kettle", "Care"))
AGAIN = Passage("kettle-uk.md", WATER.text, 0, 52, WATER.headings)
LAMP = Passage("lamp.md", "The lamp costs 40 pounds and must not stand on carpet.", 0, 54)
GRILL = Passage("grill.md", "The grill takes 1800 watts; its drip tray holds 2 litres of fat.", 0, 64)


def record(passage: Passage, question: str, answer: str, reasons: tuple[str, ...] = (), *, key: str = "") -> Record:
    made = Record.create(
        passage,
        question,
        answer,
        generator="qa",
        provenance=Provenance("org/teacher-7b", "0" * 64, (key,) if key else ()),
    )
    return made.decided(Decision(not reasons, reasons))


def line(
    contender: str,
    item: str,
    question: str,
    answer: str | None,
    references: list[str],
    **more: Any,  # noqa: ANN401
) -> dict[str, Any]:
    """Return a line of answers/<contender>.jsonl."""
    return {
        "id": item,
        "document_id": "kettle.md",
        "contender": contender,
        "question": question,
        "prompt": [{"role": "user", "content": question}],
        "answer": answer,
        "references": references,
        "unanswerable": False,
        "wanted": None,
        "values": {},
        "finish_reason": "stop",
        "error": None,
        "call": "f" * 64,
        **more,
    }


ASKED = "How many litres of water does the kettle hold?"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run whose kettle gave three records, one kept; its candidate was asked three items."""
    run = Run.create(tmp_path / "runs" / "manuals")
    rows = [{**passage.to_json(), "duplicate_of": None} for passage in (WATER, LAMP, GRILL)]
    write_jsonl(run.passages_path, [*rows, {**AGAIN.to_json(), "duplicate_of": WATER.id}])
    request = ChatRequest((Message("user", "Write a question."),))
    key = request.key("org/teacher-7b")

    async def journal() -> None:
        async with Journal(run.journal_path) as open_journal:
            await open_journal.append(key, request, Completion('{"question": "What locks?"}', usage=Usage(98, 40)))

    asyncio.run(journal())
    records = [
        record(WATER, "What does the lid of the kettle do?", "It locks.", key=key),
        record(
            WATER,
            "How many litres does the kettle hold?",
            "1.7 litres",
            ("relevance:0.4, not >= 0.9", "form:repetition"),
        ),
        record(WATER, "What holds water?", "the kettle", ("relevance:0.2, not >= 0.9",)),
        record(LAMP, "What does the lamp cost?", "40 pounds"),
    ]
    write_jsonl(run.records_path, [one.to_json() for one in records])
    quarantined = {
        "document_id": "grill.md",
        "passage_id": GRILL.id,
        "generator": "qa",
        "reason": "the reply was cut off",
    }
    write_jsonl(run.quarantine_path, [quarantined, quarantined])
    dataset = {
        path: [
            {
                "id": one.id,
                "document_id": one.document_id,
                "prompt": [turn.to_json() for turn in one.prompt],
                "completion": [turn.to_json() for turn in one.completion],
            }
            for one in chosen
        ]
        for path, chosen in ((run.train_path, records[:1]), (run.validation_path, records[3:]))
    }
    digests = {str(path.relative_to(run.path)): write_jsonl(path, rows) for path, rows in dataset.items()}
    run.finish_stage("filter", StageEntry(config={}, outputs=digests))
    candidate(run, "first", digests)
    answered(
        run,
        "first",
        {
            "tuned": [
                line(
                    "tuned",
                    "h-001",
                    ASKED,
                    "It locks.",
                    ["1.7 litres", "1.7 l"],
                    values={"f1": 0.0, "em": 0.0},
                    supported=False,
                ),
                line(
                    "tuned",
                    "h-002",
                    "What does the lamp cost?",
                    None,
                    ["40 pounds"],
                    error="timeout",
                    document_id="lamp.md",
                ),
                line("tuned", "h-010", "Who may mend it?", "Nobody knows.", [], unanswerable=True, refused=True),
                line("tuned", "h-011", "Grade the lamp: 40 pounds.", "3", ["3"], wanted="3", values={"correct": 1.0}),
            ],
            "base": [
                line("base", "h-001", ASKED, "1.7 litres", ["1.7 litres", "1.7 l"], values={"f1": 1.0, "em": 1.0})
            ],
        },
    )
    return run


def candidate(run: Run, name: str, inputs: dict[str, FileDigest], finished: str = "2026-01-01T00:00:00Z") -> None:
    base = run.path.parent.parent / "small"
    write_json(base / "config.json", {})
    folder = run.student_path(name)
    write_json(folder / "training.json", {"method": "lora"})
    (folder / "adapter_model.safetensors").write_text(name)
    outputs = {f"students/{name}/{path.name}": digest_file(path) for path in folder.iterdir()}
    entry = StageEntry(config={"student": str(base)}, inputs=inputs, outputs=outputs, finished=finished)
    run.finish_stage(f"sft:{name}", entry)


def answered(run: Run, name: str, files: dict[str, list[dict[str, Any]]]) -> None:
    folder = run.answers_path(name)
    outputs = {
        f"validation/{name}/answers/{contender}.jsonl": write_jsonl(folder / "answers" / f"{contender}.jsonl", lines)
        for contender, lines in files.items()
    }
    run.finish_stage(f"validate:{name}", StageEntry(config={"contenders": ["base", "tuned"]}, outputs=outputs))


def test_the_story_leads_from_the_answers_to_the_passage_and_its_calls(run: Run) -> None:
    story = explain(run, "h-001")
    assert (story.candidate, story.question, story.references) == ("first", ASKED, ("1.7 litres", "1.7 l"))
    assert [(answer.contender, answer.text) for answer in story.answers] == [
        ("base", "1.7 litres"),
        ("tuned", "It locks."),
    ]
    assert story.answers[1].doubts == ["no passage supports it"]
    (near,) = story.nearest
    assert near.record is not None and near.passage is not None
    assert (near.question, near.answer, near.passage.id) == (
        "What does the lid of the kettle do?",
        "It locks.",
        WATER.id,
    )
    assert 0 < near.similarity < 1
    assert [call["response"]["text"] for call in near.calls] == ['{"question": "What locks?"}']
    best = story.sources[0]
    assert (best.passage.id, best.holds_answer, best.same_document) == (WATER.id, True, True)
    assert (len(best.records), len(best.kept), best.reasons) == (3, 1, {"relevance": 2, "form": 1})
    assert AGAIN.id not in {source.passage.id for source in story.sources}
    assert story.sources[1].passage.id == GRILL.id and story.sources[1].quarantined == {"the reply was cut off": 2}
    assert story.sources[1].holds_answer is False
    assert story.said == (
        "Best by f1: base (1.00); tuned: 0.00.",
        f"The passage {WATER.id} of kettle.md holds the answer; 1 of 3 records stayed, and none with this answer; "
        "1 record with it went.",
    )


def test_a_row_that_teaches_the_answer_and_one_kept_for_validation_are_told_apart(run: Run) -> None:
    story = explain(run, "h-002")
    assert story.answers[0].text is None and story.answers[0].doubts == ["no answer: timeout"]
    assert story.said == (
        f"The passage {LAMP.id} of lamp.md holds the answer, and 1 kept record with this answer came of it, "
        "0 of them in the training set.",
        "Its document is one of those that were kept for the validation loss, so no row about it was trained on.",
    )
    assert story.to_json()["sources"][0]["pairs"][0]["split"] == "validation"


def test_a_passage_that_gave_nothing_says_why(run: Run) -> None:
    answered(
        run, "first", {"tuned": [line("tuned", "h-003", "How many watts does the grill take?", "2", ["1800 watts"])]}
    )
    said = explain(run, "h-003").said
    assert f"The passage {GRILL.id} of grill.md holds the answer, and gave no record (the reply was cut off)." in said


def test_an_answer_that_no_passage_holds_is_said_to_be_missing_from_the_documents(run: Run) -> None:
    answered(run, "first", {"tuned": [line("tuned", "h-004", "What colour is the kettle?", "red", ["green"])]})
    assert any("None of these passages holds the answer word for word" in one for one in explain(run, "h-004").said)
    answered(run, "first", {"tuned": [line("tuned", "h-005", "Warum?", "x", ["Darum."])]})
    story = explain(run, "h-005")
    assert (story.nearest, story.sources) == ((), ())
    assert story.said[-2:] == (
        "No passage of the run shares a word with it.",
        "No training question shares a word with it.",
    )


def test_of_two_passages_with_the_same_words_the_one_of_the_items_document_counts(run: Run) -> None:
    other = Passage("urn.md", "How many litres of water does the urn hold? The urn does hold 1.7 litres.", 0, 73)
    own = Passage("kettle.md", "It holds 1.7 litres.", 60, 80)
    write_jsonl(run.passages_path, [passage.to_json() for passage in (other, own, LAMP, GRILL)])
    story = explain(run, "h-001")
    assert [source.passage.id for source in story.sources[:2]] == [other.id, own.id]
    assert f"The passage {own.id} of kettle.md holds the answer, and gave no record." in story.said


def test_a_label_is_not_looked_for_in_passages_and_a_refusal_needs_none(run: Run) -> None:
    graded = explain(run, "h-011")
    assert graded.wanted == "3" and all(source.holds_answer is None for source in graded.sources)
    assert graded.said[0] == "Best by correct: tuned (1.00)."
    refused = explain(run, "h-010")
    assert refused.unanswerable and refused.answers[0].doubts == ["a refusal"]
    assert "No answer is right here: a refusal is." in refused.said


def test_an_unknown_item_is_answered_with_those_that_are_near(run: Run) -> None:
    with pytest.raises(RunError, match="was asked no item 'h-100'; did you mean"):
        explain(run, "h-100")
    with pytest.raises(RunError, match="no item 'zebra'; its 4 items are called h-001, h-002, h-010, h-011$"):
        explain(run, "zebra")
    with pytest.raises(RunError, match="no item 'h-01'; 2 ids begin so; write more of it"):
        explain(run, "h-01")
    answered(run, "first", {"tuned": [line("tuned", "56be4db0acb8001400a502ec", ASKED, "", ["1.7 litres"])]})
    assert explain(run, "56be").item_id == "56be4db0acb8001400a502ec"
    with pytest.raises(RunError, match="no item '5'"):
        explain(run, "5")


def test_only_a_judged_candidate_can_be_explained(run: Run) -> None:
    candidate(run, "second", {"dataset/train.jsonl": digest_file(run.train_path)}, "2026-01-02T00:00:00Z")
    assert explain(run, "h-001").candidate == "first"
    with pytest.raises(RunError, match="'second' was not judged yet; run `tune validate .* --candidate second"):
        explain(run, "h-001", "second")
    with pytest.raises(RunError, match="no finished candidate is called 'frist'; did you mean first"):
        explain(run, "h-001", "frist")
    promote(run, "first", force=True)
    assert explain(run, "h-001", "current").candidate == "first"
    with pytest.raises(RunError, match="no candidate was judged yet; run `tune validate"):
        explain(Run.create(run.path.parent / "empty"), "h-001")


def test_a_dataset_that_is_not_the_one_trained_on_is_said(run: Run) -> None:
    changed = {"dataset/train.jsonl": write_jsonl(run.train_path, [])}
    run.finish_stage("filter", StageEntry(config={}, outputs=changed))
    story = explain(run, "h-001")
    assert story.nearest == () and story.said[0].startswith(
        "The dataset was filtered again since the candidate was tuned"
    )
    candidate(run, "first", {"pairs.jsonl": digest_file(run.train_path)})
    assert explain(run, "h-001").said[0].startswith("The candidate was tuned on rows from elsewhere")


def test_a_run_without_documents_still_shows_the_answers(run: Run) -> None:
    for path in (run.passages_path, run.records_path, run.quarantine_path, run.train_path, run.validation_path):
        path.unlink()
    story = explain(run, "h-001")
    assert len(story.answers) == 2 and story.nearest == () and story.sources == ()
    assert "The run has no training set of its own, so what the candidate was trained on cannot be shown." in story.said


def test_answers_of_one_file_are_read_too(run: Run) -> None:
    old = line("tuned", "h-001", ASKED, "It locks.", ["1.7 litres"], em=0.0, f1=0.25)
    for name in ("values", "unanswerable", "wanted"):
        del old[name]
    path = run.answers_path("first") / "answers.jsonl"
    outputs = {"validation/first/answers.jsonl": write_jsonl(path, [old])}
    run.finish_stage("validate:first", StageEntry(config={}, outputs=outputs))
    story = explain(run, "h-001")
    assert story.answers[0].values == {"f1": 0.25, "em": 0.0} and not story.unanswerable


def test_the_command_prints_the_story_and_its_json(run: Run) -> None:
    app = typer.Typer()
    register(app)
    shell = CliRunner()
    shown = shell.invoke(app, ["explain", str(run.path), "h-001"]).stdout
    heads = ["item h-001", "answers", "nearest training records", "passages that should have produced one", "in short"]
    places = [shown.index(head) for head in heads]
    assert places == sorted(places)
    for text in ("right: 1.7 litres | 1.7 l", "tuned: It locks.", "98 tokens read, 40 written", "3 records, 1 kept"):
        assert text in shown
    printed = json.loads(shell.invoke(app, ["explain", str(run.path), "h-001", "--json", "--top", "1"]).stdout)
    assert printed["item"]["id"] == "h-001" and len(printed["sources"]) == 1
    assert printed["sources"][0]["rejected"] == 2 and printed["nearest"][0]["calls"][0]["request"]["messages"]


def test_what_a_model_wrote_does_not_steer_the_terminal(run: Run) -> None:
    evil = "\x1b]0;owned\x07 [bold]1.7[/nothing]"
    answered(run, "first", {"tuned": [line("tuned", "h-001", ASKED, evil, ["1.7 litres"])]})
    app = typer.Typer()
    register(app)
    shown = CliRunner().invoke(app, ["explain", str(run.path), "h-001"]).stdout
    assert "\x1b" not in shown and "\x07" not in shown and "[bold]1.7[/nothing]" in shown
