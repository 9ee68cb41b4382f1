import io
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synth.calibration.humans import load_humans
from synth.core.calls import ChatRequest, Endpoint
from synth.core.errors import RecordError, RunError, SynthError
from synth.core.heldout import HeldoutItem, load_heldout
from synth.core.jsonl import FileDigest, digest_file, write_jsonl
from synth.core.records import Passage, Record
from synth.core.runs import Run, StageEntry
from synth.filters.decontamination import HeldoutIndex
from synth.filters.paraphrase import RewordedIndex
from synth.generate import GenerateConfig, run_generate
from synth.inference.scripted import ScriptedTeacher
from tests.dataset_hub import dataset_hub, hub_environment
from tune.heldout import LEAST_WORDS, NEAR, find_overlap, load_answered, open_heldout, sealed_at
from tune.nearest import words_of

ANSWERED = '{"question": "A?", "answer": "a"}\n'


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
        ("h.jsonl", ANSWERED + '{"question": "B?", "answ', r"h\.jsonl:2: not valid JSON"),
        ("h.jsonl", ANSWERED + "\n[1]\n", r"h\.jsonl:3: the item is no object"),
        (
            "h.jsonl",
            ANSWERED + '{"question": "B?", "label": 1}\n',
            r"jsonl:2: the item has labels, and .*:1 has answers",
        ),
        ("h.jsonl", '{"question": "B?", "label": 1, "answer": "b"}\n', r"jsonl:1: the item has 'answer' and 'label'"),
        ("h.jsonl", '{"question": "B?", "text": "b", "label": 1}\n', r"jsonl:1: .* two names for one thing"),
        ("h.jsonl", '{"question": "B?", "answer": "b", "answers": ["b"]}\n', r"jsonl:1: .*'answer' and 'answers'"),
        ("h.jsonl", '{"question": "B?", "answer": "b", "unanswerable": true}\n', r"jsonl:1: .*unanswerable and has an"),
        ("h.jsonl", '{"question": "B?", "answers": [], "unanswerable": false}\n', r"jsonl:1: .*not to be unanswerable"),
        ("h.jsonl", '{"question": "B?", "answers": ["b", " "]}\n', r"jsonl:1: 'answers\[1\]'"),
        ("h.jsonl", '{"question": "B?", "references": []}\n', r"jsonl:1: 'references'"),
        ("h.jsonl", '{"text": "a", "label": "Yes"}\n{"text": "b", "label": "yes"}\n', r"jsonl:2: .*in case, white"),
        ("h.json", '{"data": [{"paragraphs": [{}]}]}', r"data\[0\]\.paragraphs\[0\]: not in SQuAD's form \(no 'qas'"),
        ("h.json", '{"data": [{"paragraphs": [7]}]}', r"paragraphs\[0\]: not in SQuAD's form"),
        ("h.json", "[1]", "a list, and not in SQuAD's form"),
        ("h.json", ANSWERED * 2, "for a file named .jsonl"),
        ("h.csv", "Frage,Antwort\nA?,a\n", r"h\.csv:1: no column is named 'question'"),
        ("h.csv", "question;answer\nA?;a\n", r"h\.csv:1: no column is named 'question'.* commas"),
        ("h.csv", "question,answer,Answer\nA?,a,b\n", r"h\.csv:1: two columns are named 'answer'"),
        ("h.csv", 'question,answer\nA?,a\n\n"B?\nmore?",b\nC?,\n', r"h\.csv:6: the item has no 'answer'"),
        ("h.csv", 'question,answer\nA?,a\n"B?,b\nC?,c\n', r"h\.csv:3: not a readable table"),
        ("h.csv", "question,unanswerable\nA?,maybe\n", r"h\.csv:2: 'unanswerable' is 'maybe'"),
        ("h.csv", "question,answer\nA?,a\nB?,caf\udce9\n", r"h\.csv:3: not UTF-8"),
        ("h.csv", "question,answer\nA?,a,extra\n", r"h\.csv:2: more columns"),
        ("h.csv", "question,answer\nA?,\n", r"h\.csv:2: .*"),
    ],
)
def test_a_bad_held_out_file_names_the_place_and_the_fault(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(SynthError, match=message):
        load_heldout(path)


def test_a_file_that_is_not_there_names_those_beside_it(tmp_path: Path) -> None:
    (tmp_path / "questions.jsonl").write_text(ANSWERED)
    with pytest.raises(RunError, match=r"there is no such file\); did you mean questions\.jsonl"):
        load_heldout(tmp_path / "question.jsonl")


def test_a_huge_line_is_an_error_at_its_place(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text(ANSWERED + '{"question": "' + "x" * (65 << 20))
    with pytest.raises(RecordError, match=r"h\.jsonl:2: the line is longer than 64 MiB"):
        load_heldout(path)


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "tsv"])
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.one_of(
        st.binary(max_size=200),
        st.text(max_size=200).map(str.encode),
        st.recursive(
            st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        [
                            "id",
                            "question",
                            "text",
                            "answer",
                            "answers",
                            "label",
                            "references",
                            "unanswerable",
                            "context",
                        ]
                        + ["data", "paragraphs", "qas", "title", "is_impossible", "document_id"]
                    ),
                    inner,
                    max_size=5,
                )
            ),
            max_leaves=12,
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_whatever_stands_in_a_file_is_read_or_is_a_plain_error(suffix: str, text: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"h.{suffix}"
    path.write_bytes(text)
    try:
        found = load_heldout(path)
    except SynthError as error:
        assert error.where is not None and error.where.startswith(str(path))
    else:
        assert found.items and all(item.question.strip() and item.id for item in found.items)


def test_a_byte_order_mark_does_not_count(tmp_path: Path) -> None:
    squad = '{"data": [{"paragraphs": [{"context": "", "qas": [{"id": "1", "question": "A?", "answers": [{"text": "a"}]}]}]}]}'
    for name, text in (("h.jsonl", ANSWERED), ("h.csv", "question,answer\nA?,a\n"), ("h.json", squad)):
        (tmp_path / name).write_text("\ufeff" + text)
        assert load_heldout(tmp_path / name).items[0].question == "A?"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("h.jsonl", '{"question": "A?", "answers": []}\n{"question": "B?", "answers": []}\n', "no item has an answer"),
        ("h.tsv", "question\tanswers\nA?\t|\n", "has no 'answer'"),
        (
            "h.json",
            '{"data": [{"paragraphs": [{"context": "", "qas": [{"id": "1", "question": "A?", "answers": []}]}]}]}',
            "no item has an answer",
        ),
    ],
)
def test_answers_that_are_kept_secret_make_no_refusal_right(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(RecordError, match=said):
        load_answered(tmp_path / name)
    # Decontamination needs no answers.
    if name != "h.tsv":
        assert load_heldout(tmp_path / name).items[0].question == "A?"
    (tmp_path / "meant.jsonl").write_text('{"question": "A?", "unanswerable": true}\n')
    assert load_answered(tmp_path / "meant.jsonl").items[0].unanswerable


def test_documents_that_the_run_calls_otherwise_are_a_doubt(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    row = {**asking("What is a lamp?", name="r"), "document_id": "docs.jsonl#lamp"}
    write_jsonl(run.train_path, [row])
    for document, said in (("lamp", True), ("docs.jsonl#lamp", False)):
        item = {"id": "1", "question": "How heavy is it?", "answer": "a", "document_id": document}
        write_jsonl(tmp_path / "h.jsonl", [item])
        doubts = open_heldout(run, tmp_path / "h.jsonl").warnings
        assert any("'docs.jsonl#lamp', here 'lamp'" in one for one in doubts) == said


def test_copies_of_one_question_are_about_one_document(tmp_path: Path) -> None:
    (tmp_path / "h.jsonl").write_text(
        '{"question": "A?", "answer": "a"}\n' * 12 + '{"question": "B?", "answer": "b"}\n'
    )
    items = load_heldout(tmp_path / "h.jsonl").items
    assert len({item.id for item in items}) == 13 and len({item.document_id for item in items}) == 2
    run = Run.create(tmp_path / "run")
    write_jsonl(run.train_path, [asking("What is a lamp?", name="r")])
    doubts = open_heldout(run, tmp_path / "h.jsonl").warnings
    assert any("names no documents" in one for one in doubts) and not any("called such as" in one for one in doubts)


def test_a_question_that_nothing_answers_wants_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "h.jsonl").write_text(
        '{"id": "1", "question": "A?", "answers": []}\n{"id": "2", "question": "B?", "unanswerable": true}\n'
        '{"id": 3, "question": "C?", "answer": "c", "unanswerable": false}\n'
    )
    answer = [{"text": "c", "answer_start": 0}]
    asked: list[dict[str, Any]] = [
        {"id": "1", "question": "A?", "answers": [], "is_impossible": True, "plausible_answers": answer},
        {"id": "2", "question": "B?", "answers": [{"text": "", "answer_start": -1}], "is_impossible": True},
        {"id": 3, "question": "C?", "answers": answer, "is_impossible": False},
    ]
    (tmp_path / "h.json").write_text(json.dumps({"data": [{"paragraphs": [{"context": "c", "qas": asked}]}]}))
    (tmp_path / "h.csv").write_text("id,question,answer,unanswerable\n1,A?,,yes\n2,B?,,TRUE\n3,C?,c,no\n")
    for name in ("h.jsonl", "h.json", "h.csv"):
        items = load_heldout(tmp_path / name).items
        assert [(item.id, item.answers, item.unanswerable) for item in items] == [
            ("1", (), True),
            ("2", (), True),
            ("3", ("c",), False),
        ]


def test_labels_are_sorted_as_grades_where_all_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    write_jsonl(path, [{"text": f"essay {n}", "label": label} for n, label in enumerate([10, "9", 2.0, -1, 2.5, "2"])])
    found = load_heldout(path)
    assert (found.task, found.labels) == ("labels", ("-1", "2", "2.5", "9", "10"))
    assert found.items[2].label == "2" and found.items[2].answers == ("2",) and found.items[2].question == "essay 2"
    write_jsonl(path, [{"question": f"q {n}", "label": label} for n, label in enumerate(["spam", "10", "ham", True])])
    assert load_heldout(path).labels == ("10", "ham", "spam", "true")


def test_references_make_a_free_form_set(tmp_path: Path) -> None:
    (tmp_path / "h.csv").write_text("Question,References\nA?,one text | another\n")
    (tmp_path / "h.jsonl").write_text('{"question": "A?", "reference": "one text", "answers": null}\n')
    found = load_heldout(tmp_path / "h.csv")
    assert found.task == "free" and found.items[0].answers == ("one text", "another")
    assert load_heldout(tmp_path / "h.jsonl").task == "free"


def test_items_without_ids_that_say_the_same_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text(ANSWERED * 3)
    first, second, third = (item.id for item in load_heldout(path).items)
    assert (second, third) == (f"{first}#2", f"{first}#3")


def test_a_label_that_stands_in_a_pair_is_no_leak() -> None:
    grade = "the text is good in all ways that were asked for"
    said = Record.create(Passage("d", "x", 0, 1), "How is it?", f"I say {grade}.", generator="test")
    item = HeldoutItem("1", "An essay about cats.", (grade,), "d")
    labelled = HeldoutItem("1", "An essay about cats.", (grade,), "d", label=grade)
    assert HeldoutIndex([item]).find(said) and not HeldoutIndex([labelled]).find(said)


class Alike:
    """Finds any two questions alike by half."""

    name = "alike"

    def embed(self, texts: Sequence[str]) -> Any:  # noqa: ANN401
        import numpy as np

        return np.tile(np.array([[1.0, 0.0]], dtype=np.float32), (len(texts), 1)) * np.float32(0.5**0.5)


def test_equal_labels_do_not_make_two_questions_one() -> None:
    def found(item: HeldoutItem) -> bool:
        return bool(RewordedIndex([item], Alike()).find(["What grade has it?"], ["It has grade 3 zebra"]))

    answered = HeldoutItem("1", "Which mark did the essay get?", ("3 zebra",), "d")
    assert found(answered)
    assert not found(HeldoutItem("1", answered.question, answered.answers, "d", label="3 zebra"))
    assert not found(HeldoutItem("1", answered.question, (), "d", unanswerable=True))


def test_calibration_takes_questions_with_answers_alone(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    rows: list[dict[str, Any]] = [
        {"question": "A?", "answer": "a", "context": "a b"},
        {"question": "B?", "answers": [], "context": "a b"},
        {"question": "C?", "answer": "c"},
    ]
    write_jsonl(path, rows)
    humans = load_humans(path)
    assert [pair.question for pair in humans.pairs] == ["A?"] and humans.files[0].without_passage == 1
    write_jsonl(path, [{"text": "A", "label": 1, "context": "a"}])
    with pytest.raises(RecordError, match="the file has labels"):
        load_humans(path)


LOAD = """
import json, sys
from synth.core.errors import SynthError
from synth.core.heldout import load_heldout
for spec in sys.argv[1:]:
    try:
        found = load_heldout(spec)
    except SynthError as error:
        print(json.dumps(f"{type(error).__name__}: {error}"))
        continue
    item = found.items[0]
    said = [item.question, item.answers, item.document_id, item.context, item.unanswerable]
    print(json.dumps([found.task, found.labels, len(found.items), said, found.digest.rows, found.digest.sha256, found.name]))
"""


def table(rows: list[dict[str, Any]], features: Any = None) -> bytes:  # noqa: ANN401
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    made = pyarrow.Table.from_pylist(rows)
    if features is not None:
        described = json.dumps({"info": {"features": features}}).encode()
        made = made.replace_schema_metadata({b"huggingface": described})
    buffer = io.BytesIO()
    parquet.write_table(made, buffer)
    return buffer.getvalue()


def test_datasets_of_the_hub_folders_and_parquet_are_held_out_sets(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    squad: list[dict[str, Any]] = [
        {
            "id": f"q{n}",
            "title": "Kettle",
            "context": "It holds 1.7 l.",
            "question": f"How much {n}?",
            "answers": {"text": ["1.7 l"] * n, "answer_start": [9] * n},
        }
        for n in (2, 0)
    ]
    classes = {
        "text": {"dtype": "string", "_type": "Value"},
        "label": {"names": ["neg", "pos"], "_type": "ClassLabel"},
    }
    reviews = [{"text": f"review {n}", "label": n % 2} for n in range(3)]
    files = {
        "README.md": b"---\nlicense: mit\n---\n",
        "data/train-00000-of-00001.parquet": table(squad),
        "data/validation-00000-of-00001.parquet": table(squad),
    }
    folder = tmp_path / "reviews"
    folder.mkdir()
    (folder / "test-00000-of-00001.parquet").write_bytes(table(reviews, classes))
    (tmp_path / "squad.parquet").write_bytes(table(squad))
    (tmp_path / "bad.parquet").write_bytes(table([{"prompt": "x"}]))
    with dataset_hub("me/kettles", files, "ab" * 20) as address:
        done = subprocess.run(
            [sys.executable, "-c", LOAD, "me/kettles", f"me/kettles@{'ab' * 20}:train", "reviews", "squad.parquet"]
            + ["me/kettles:nothing", "bad.parquet", "me/nothing"],
            cwd=tmp_path,
            env=hub_environment(address, tmp_path),
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
    whole, train, labels, file, *refused = [json.loads(line) for line in done.stdout.splitlines()]
    asked = ["How much 2?", ["1.7 l"], "Kettle", "It holds 1.7 l.", False]
    assert whole[:5] == ["qa", [], 2, asked, 2] and whole[6] == "me/kettles"
    assert train[:6] == whole[:6] and file[:5] == whole[:5]  # the same items, so the same digest
    assert labels[:3] == ["labels", ["neg", "pos"], 3] and labels[3][:2] == ["review 0", ["neg"]]
    assert refused[0].startswith("ConfigError: me/kettles:nothing: the dataset cannot be loaded (Unknown split")
    assert refused[1].startswith("ConfigError: bad.parquet: no column is named 'question' or 'text', but 'prompt'")
    assert refused[2].startswith("ConfigError: me/nothing: the dataset cannot be loaded")


def test_reading_a_file_loads_no_heavy_library(tmp_path: Path) -> None:
    (tmp_path / "h.csv").write_text("question,answer\nA?,a\n")
    code = (
        "import sys; from synth.core.heldout import load_heldout; import tune.heldout; load_heldout('h.csv'); "
        "print(sorted({'torch', 'transformers', 'datasets', 'pyarrow', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=hub_environment("http://127.0.0.1:9", tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def asking(*turns: str, name: str = "r") -> dict[str, Any]:
    return {
        "id": name,
        "document_id": "d",
        "prompt": [{"role": "system", "content": "Answer."}, *({"role": "user", "content": turn} for turn in turns)],
        "completion": [{"role": "assistant", "content": "x"}],
    }


def item(question: str, name: str = "h") -> HeldoutItem:
    return HeldoutItem(name, question, ("x",), "d")


@pytest.mark.parametrize(
    ("question", "turn", "how"),
    [
        ("Is it?", "is  IT", "exact"),
        ("Is it?", "Well, is it?", None),
        ("How much water does it hold?", "Text: it holds 2 l.\nHow much water does it hold? Be brief.", "exact"),
        ("How much water does the kettle hold?", "how much water does this kettle hold?", None),
        ("How much water does the red kettle hold today?", "How much water does the red kettle hold?", "near"),
        ("How much water does the kettle hold in model 4?", "How much water does the kettle hold in model 9?", None),
        ("What does part 1 of the gadget 2 weigh?", "What does part 2 of the gadget 1 weigh?", None),
        ("What is red?", "red is what", None),
        ("Which water is in it?", "water in it is which?", "near"),
        ("这个水壶可以装多少升的水?", "这个水壶可以装多少升水?", "near"),
    ],
)
def test_a_question_that_was_trained_on_is_found(question: str, turn: str, how: str | None) -> None:
    found = find_overlap([item(question)], [asking("Another one here?", name="first"), asking(turn, name="second")])
    assert ({name: (one.how, one.row_id, one.text) for name, one in found.items()}) == (
        {} if how is None else {"h": (how, "second", turn)}
    )


def test_the_nearest_row_is_named_and_every_turn_counts() -> None:
    asked = "How much water does the red kettle hold today?"
    rows = [
        asking("How much water does the red kettle hold?", name="near"),
        asking("Something else?", asked + "!", name="same"),
        asking(asked, name="again"),
    ]
    assert find_overlap([item(asked)], rows[:1])["h"].row_id == "near"
    assert find_overlap([item(asked)], rows)["h"].row_id == "same"


WORDS = st.lists(st.sampled_from(["how", "much", "water", "is", "in", "it", "4", "9"]), min_size=1, max_size=8)


@settings(deadline=None, max_examples=200)
@given(st.lists(WORDS, min_size=1, max_size=5), st.lists(WORDS, min_size=1, max_size=6))
def test_overlap_is_what_comparing_all_pairs_finds(questions: list[list[str]], turns: list[list[str]]) -> None:
    def near(one: list[str], other: list[str]) -> float:
        first, second = set(one), set(other)
        if [word for word in one if word.isdigit()] != [word for word in other if word.isdigit()]:
            return 0.0
        if min(len(first), len(second)) < LEAST_WORDS:
            return 0.0
        share = len(first & second) / len(first | second)
        return share if share >= NEAR - 1e-9 else 0.0

    def exact(one: list[str], other: list[str]) -> bool:
        length = len(one)
        inside = length >= LEAST_WORDS and any(other[at : at + length] == one for at in range(len(other)))
        return one == other or inside

    expected: dict[str, tuple[str, int]] = {}
    for number, question in enumerate(questions):
        same = next((place for place, turn in enumerate(turns) if exact(question, turn)), None)
        shares = [near(question, turn) for turn in turns]
        if same is not None:
            expected[str(number)] = "exact", same
        elif max(shares) > 0:
            expected[str(number)] = "near", shares.index(max(shares))
    found = find_overlap(
        [item(" ".join(words), str(number)) for number, words in enumerate(questions)],
        [asking(" ".join(words), name=str(place)) for place, words in enumerate(turns)],
    )
    assert {name: (one.how, int(one.row_id)) for name, one in found.items()} == expected
    assert all(words_of(one.text) == turns[int(one.row_id)] for one in found.values())


def opened_run(folder: Path, questions: Sequence[str]) -> tuple[Run, Path]:
    run, heldout = Run.create(folder / "run"), folder / "heldout.jsonl"
    write_jsonl(heldout, [{"question": q, "answer": "a", "document_id": "k.md"} for q in questions])
    write_jsonl(run.train_path, [asking("What does the kettle weigh?")])
    return run, heldout


def test_the_clean_items_are_those_that_no_row_asks(tmp_path: Path) -> None:
    run, heldout = opened_run(tmp_path, ["What does the kettle weigh?", "What does the kettle weigh now?", "Why?"])
    opened = open_heldout(run, heldout)
    first, second, third = opened.heldout.items
    assert {name: one.how for name, one in opened.overlap.items()} == {first.id: "exact", second.id: "near"}
    assert opened.clean_ids == {third.id}
    assert any("2 of 3 held-out questions" in w and "(1 word for word, 1 nearly)" in w for w in opened.warnings)


def test_where_a_set_was_first_seen_is_said(tmp_path: Path) -> None:
    run, heldout = opened_run(tmp_path, ["Why?", "Why?"])
    digest, other = digest_file(heldout), FileDigest("0" * 64, 1)
    entry = StageEntry(config={}, inputs={"heldout": other, "heldout:2": digest})
    assert sealed_at(run, digest) == "unknown"
    run.finish_stage("generate", StageEntry(config={}, inputs={"documents": digest}))
    assert sealed_at(run, digest) == "later"
    opened = open_heldout(run, heldout)
    assert any("first seen now, after the dataset was made" in w for w in opened.warnings)
    assert any("1 of 2 held-out items are there twice" in w for w in opened.warnings)
    run.finish_stage("filter", entry)
    opened = open_heldout(run, heldout)
    assert opened.sealed == "filter" and any("first seen when the dataset was filtered" in w for w in opened.warnings)
    run.finish_stage("generate", entry)
    opened = open_heldout(run, heldout)
    assert opened.sealed == "generate" and not any("first seen" in w for w in opened.warnings)


async def test_generating_seals_the_sets_that_are_named_before_it(tmp_path: Path, manuals: Path) -> None:
    calls = 0

    def pair(request: ChatRequest) -> str:
        nonlocal calls
        calls += 1
        assert request.schema is not None
        sentence = request.schema["properties"]["evidence"]["enum"][0]
        return json.dumps({"evidence": sentence, "question": f"What of {calls}?", "answer": sentence})

    @asynccontextmanager
    async def opening() -> AsyncIterator[Endpoint]:
        yield ScriptedTeacher(pair)

    async def make(run: Run, *heldout: FileDigest, seed: int = 0) -> dict[str, FileDigest]:
        config = GenerateConfig(seed=seed)
        await run_generate(run, [manuals], config, opening(), teacher_name="scripted", heldout=heldout)
        return {name: digest for name, digest in run.stages()["generate"].inputs.items() if name != "documents"}

    one, two = FileDigest("1" * 64, 3), FileDigest("2" * 64, 4)
    sealed = Run.create(tmp_path / "sealed")
    assert await make(sealed, one, two, one) == {"heldout": one, "heldout:2": two}
    asked = calls
    # The pairs are there: naming another set now makes nothing new, and does not claim that it was sealed.
    assert await make(sealed, FileDigest("3" * 64, 5)) == {"heldout": one, "heldout:2": two}
    late = Run.create(tmp_path / "late")
    assert await make(late) == {} and await make(late, one) == {}
    assert calls == 2 * asked
    assert await make(late, one, seed=1) == {"heldout": one}


def test_the_demo_questions_are_all_about_documents_of_the_handbook() -> None:
    from synth.core.resources import resource

    items = load_heldout(resource("demo", "heldout.jsonl")).items
    names = {path.name for path in resource("demo", "handbook").iterdir()}
    assert len(items) >= 160 and {item.document_id for item in items} == names and len(names) >= 40
