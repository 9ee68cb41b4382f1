import json
from pathlib import Path

import pytest

from synth.core.errors import SynthError
from synth.core.heldout import load_heldout


def test_jsonl_squad_and_csv_give_the_same_items(tmp_path: Path) -> None:
    (tmp_path / "h.jsonl").write_text(
        '{"id": "1", "question": "How much?", "answers": ["1.7 litres", "1.7 l"], "document_id": "Kettle"}\n'
    )
    answers = [{"text": "1.7 litres", "answer_start": 3}, {"text": "1.7 l", "answer_start": 3}]
    squad = {
        "data": [
            {
                "title": "Kettle",
                "paragraphs": [{"context": "", "qas": [{"id": 1, "question": "How much?", "answers": answers}]}],
            }
        ]
    }
    (tmp_path / "h.json").write_text(json.dumps(squad))
    (tmp_path / "h.csv").write_text('id,question,answers,document_id\n1,How much?,"1.7 litres | 1.7 l",Kettle\n')
    (tmp_path / "h.tsv").write_text("id\tquestion\tanswers\tdocument_id\n1\tHow much?\t1.7 litres|1.7 l\tKettle\n")
    items = [load_heldout(tmp_path / name).items for name in ("h.jsonl", "h.json", "h.csv", "h.tsv")]
    assert items[0] == items[1] == items[2] == items[3]
    assert items[0][0].answers == ("1.7 litres", "1.7 l")


def test_a_question_without_a_document_is_a_cluster_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text('{"question": "A?", "answer": "a"}\n{"question": "B?", "answer": "b"}\n')
    first, second = load_heldout(path).items
    assert first.document_id == first.id != second.document_id


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("h.jsonl", '{"question": "A?", "answer": "a"}\n{"question": "B?"}\n', r"h\.jsonl:2: .*heldout\.schema\.json"),
        ("h.jsonl", '{"question": "A?", "answer": "a"}\nnonsense\n', r"h\.jsonl:2: not valid JSON"),
        ("h.jsonl", '{"question": " ", "answer": "a"}\n', r"h\.jsonl:1: 'question'"),
        (
            "h.jsonl",
            '{"id": "1", "question": "A?", "answer": "a"}\n' * 2,
            r"h\.jsonl:2: the id '1' stands at .*h\.jsonl:1",
        ),
        ("h.jsonl", "", "has no question"),
        ("h.json", '{"data": [{"paragraphs": [{}]}]}', "not in SQuAD's form"),
        ("h.csv", "question,answer\nA?,a,extra\n", r"h\.csv:2: more columns"),
        ("h.csv", "question,answer\nA?,\n", r"h\.csv:2: .*"),
    ],
)
def test_a_bad_held_out_file_names_the_place_and_the_fault(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(SynthError, match=message):
        load_heldout(path)


def test_the_demo_questions_are_all_about_documents_of_the_handbook() -> None:
    from synth.core.resources import resource

    items = load_heldout(resource("demo", "heldout.jsonl")).items
    names = {path.name for path in resource("demo", "handbook").iterdir()}
    assert len(items) >= 160 and {item.document_id for item in items} == names and len(names) >= 40
