"""Settings that reach the generators through a job."""

from pathlib import Path

import pytest

from synth import ConfigError, GenerateConfig, RecordError, ScriptedTeacher
from synth.core.tokens import load_tokenizer
from synth.inference.endpoints import bundled_model
from synth.job import joined_options, parse_options
from tests.test_generate import big_folder, lines, opened, pair, run_it


async def test_a_users_examples_are_in_the_prompt_and_never_in_the_dataset(tmp_path: Path, manuals: Path) -> None:
    examples = tmp_path / "style.jsonl"
    examples.write_text('{"question": "How heavy is it, mate?", "answer": "Two kilos."}\n')
    teacher = ScriptedTeacher(pair)
    await run_it(tmp_path / "run", manuals, teacher, GenerateConfig(examples=str(examples)))
    assert all("How heavy is it, mate?" in request.messages[-1].content for request in teacher.requests)
    records = lines(tmp_path / "run" / "records.jsonl")
    assert records and not any("mate" in str(row["prompt"]) for row in records)


async def test_a_bad_line_of_the_examples_is_named_before_any_call(tmp_path: Path, manuals: Path) -> None:
    examples = tmp_path / "style.jsonl"
    examples.write_text('{"question": "How heavy is it?", "answer": "Two kilos."}\n{"question": "And?"}\n')
    teacher = ScriptedTeacher(pair)
    with pytest.raises((RecordError, ConfigError), match=r"style\.jsonl:2"):
        await run_it(tmp_path / "run", manuals, teacher, GenerateConfig(examples=str(examples)))
    assert not teacher.requests


async def test_changed_examples_are_another_stage(tmp_path: Path, manuals: Path) -> None:
    examples = tmp_path / "style.jsonl"
    config = GenerateConfig(examples=str(examples))
    for text, current in (("Two kilos.", False), ("Two kilos.", True), ("Three kilos.", False)):
        examples.write_text(f'{{"question": "How heavy is it?", "answer": "{text}"}}\n')
        summary = await run_it(tmp_path / "run", manuals, ScriptedTeacher(pair), config)
        assert summary.current == current


async def test_evidence_by_number_asks_for_a_number(tmp_path: Path, manuals: Path) -> None:
    teacher = ScriptedTeacher(lambda _: '{"evidence": 1, "question": "What is it for?", "answer": "Water."}')
    await run_it(tmp_path / "run", manuals, teacher, GenerateConfig(evidence="index"))
    evidence = teacher.requests[0].schema["properties"]["evidence"]  # type: ignore[index]
    assert evidence["type"] == "integer"
    assert all(row["evidence"]["start"] >= 0 for row in lines(tmp_path / "run" / "records.jsonl"))  # type: ignore[index]


async def test_passages_are_measured_in_the_teachers_own_tokens(tmp_path: Path) -> None:
    from synth import Run, run_generate

    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "long.md").write_text(
        "# Pump\n\n" + " ".join(f"The pump number {i} moves {i} litres." for i in range(60))
    )
    model = bundled_model("teacher")
    for config, most in ((GenerateConfig(passage_tokens=64), 64), (GenerateConfig(), 300)):
        run = Run.create(tmp_path / f"run{most}")
        await run_generate(
            run, [folder], config, opened(ScriptedTeacher(pair)), teacher_name="scripted", tokenizer=model
        )
        sizes = [load_tokenizer(model)(str(row["text"])) for row in lines(run.passages_path)]
        assert len(sizes) > 1 and max(sizes) <= most and max(sizes) > most * 0.7


async def test_a_size_in_tokens_needs_a_tokenizer(tmp_path: Path, manuals: Path) -> None:
    with pytest.raises(ConfigError, match="passage_tokens needs the teacher's tokenizer.*--tokenizer"):
        await run_it(tmp_path / "run", manuals, ScriptedTeacher(pair), GenerateConfig(passage_tokens=100))


async def test_only_the_files_that_the_patterns_want_are_read(tmp_path: Path) -> None:
    folder = big_folder(tmp_path / "docs", 6)
    (folder / "drafts").mkdir()
    (folder / "drafts" / "x.md").write_text("The draft weighs nothing at all.")
    (folder / "notes.txt").write_text("The note weighs two grams.")
    config = GenerateConfig(include=("*.md",), exclude=("drafts/", "d000.md"))
    summary = await run_it(tmp_path / "run", folder, ScriptedTeacher(pair), config)
    assert (summary.documents, summary.documents_quarantined) == (5, 0)


def test_options_are_written_as_toml_or_as_they_are() -> None:
    options = parse_options(
        ["qa.pairs_per_passage=4", 'grading.labels=["a", "b"]', "*.rubric=my rubric.md", "f.py:G.k=true"]
    )
    assert options == {
        "qa": {"pairs_per_passage": 4},
        "grading": {"labels": ["a", "b"]},
        "*": {"rubric": "my rubric.md"},
        "f.py:G": {"k": True},
    }
    assert joined_options({"qa": {"a": 1, "b": 2}}, {"qa": {"b": 3}}) == {"qa": {"a": 1, "b": 3}}


@pytest.mark.parametrize("text", ["qa", "qa=4", ".x=1", "qa.=1"])
def test_an_option_that_is_none_says_how_to_write_one(text: str) -> None:
    with pytest.raises(ConfigError, match=r"NAME\.KEY=VALUE"):
        parse_options([text])
