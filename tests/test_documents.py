from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.core.errors import ConfigError
from synth.core.records import Document
from synth.core.sentences import split_sentences
from synth.documents.readers import Quarantined, read_documents
from synth.documents.splitter import split_document

markdown = st.lists(
    st.sampled_from(
        [
            "# Title\n",
            "## Part\n",
            "One short sentence. ",
            "Is this 2.5 litres? ",
            "- An item\n",
            "\n\n",
            "word ",
            "é ",
            "```\n",
            "| a | b |\n",
        ]
    ),
    max_size=40,
).map("".join)


def test_markdown_text_html_and_jsonl_become_documents(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.md").write_text("# Kettle\n\nIt is blue.\n")
    (tmp_path / "sub" / "b.txt").write_text("\ufeffPlain text.\r\nSecond line.\r\n", encoding="utf-8")
    (tmp_path / "c.html").write_text(
        "<html><head><title>Lamp</title><style>p{}</style></head><body><nav>Home</nav><h2>Care</h2>"
        "<p>Wipe <b>gently</b>.</p><ul><li>One</li></ul><script>alert(1)</script></body></html>"
    )
    (tmp_path / "d.jsonl").write_text('{"id": "x", "text": "From a line.", "title": "T"}\n{"text": "Another."}\n')
    documents = [item for item in read_documents([tmp_path]) if isinstance(item, Document)]
    assert [d.id for d in documents] == ["a.md", "c.html", "d.jsonl#x", "d.jsonl#2", "sub/b.txt"]
    assert [d.title for d in documents] == ["Kettle", "Lamp", "T", "", ""]
    assert documents[1].text == "## Care\n\nWipe **gently**.\n\n* One"
    assert documents[4].text == "Plain text.\nSecond line.\n"


def test_every_bad_file_is_quarantined_with_its_reason_and_the_rest_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (tmp_path / "secret.txt").write_text("outside")
    (folder / "good.md").write_text("It is fine.")
    (folder / "empty.md").write_text(" \n")
    (folder / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    (folder / "nul.txt").write_bytes(b"a\0b")
    (folder / "photo.png").write_bytes(b"\x89PNG")
    (folder / "out.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "torn.jsonl").write_text('{"text": "First."}\n{"text": "Sec')
    (folder / "rows.jsonl").write_text('{"body": "no text"}\n[1]\n')
    (folder / ".hidden.md").write_text("Not for us.")
    items = list(read_documents([folder]))
    reasons = {item.document_id: item.reason for item in items if isinstance(item, Quarantined)}
    assert [item.id for item in items if isinstance(item, Document)] == ["good.md", "torn.jsonl#1"]
    assert set(reasons) == {
        "empty.md", "latin.txt", "nul.txt", "photo.png", "out.txt", "torn.jsonl#2", "rows.jsonl#1", "rows.jsonl#2"
    }  # fmt: skip
    assert "empty" in reasons["empty.md"] and "UTF-8 (byte 3)" in reasons["latin.txt"]
    assert "no reader for .png" in reasons["photo.png"] and "leads out" in reasons["out.txt"]
    assert "torn.jsonl:2" in reasons["torn.jsonl#2"]


def test_a_source_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file or folder"):
        list(read_documents([tmp_path / "none"]))


def test_two_documents_with_one_id_are_never_mixed_up(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.md").write_text(f"Folder {name}.")
    first, second = read_documents([tmp_path / "a", tmp_path / "b"])
    assert isinstance(first, Document) and isinstance(second, Quarantined) and "same id" in second.reason


def test_passages_know_their_place_and_their_headings() -> None:
    text = "# Kettle\n\nIt is blue.\n\n## Care\n\nWipe it. Descale it.\n\n```\n# not a heading\n```\n\n# Lamp\n\nIt is red.\n"
    passages = list(split_document(Document("d.md", text), max_chars=400))
    assert [(p.headings, p.text.split("\n")[0]) for p in passages] == [
        (("Kettle",), "It is blue."),
        (("Kettle", "Care"), "Wipe it. Descale it."),
        (("Lamp",), "It is red."),
    ]


@given(text=markdown, limit=st.integers(80, 200))
def test_passages_are_slices_in_order_and_no_sentence_is_lost_or_cut(text: str, limit: int) -> None:
    passages = list(split_document(Document("d.md", text), max_chars=limit))
    assert all(text[p.start : p.end] == p.text and len(p.text) <= limit for p in passages)
    assert all(a.end <= b.start for a, b in zip(passages, passages[1:], strict=False))
    covered = [(p.start, p.end) for p in passages]
    for sentence in split_sentences(text):
        if len(sentence.text) <= limit and not sentence.text.startswith(("#", "`")):
            inside = [p for p in covered if p[0] <= sentence.start and sentence.end <= p[1]]
            assert inside or "#" in sentence.text or "`" in sentence.text, sentence


@given(text=markdown)
def test_sentences_are_verbatim_slices(text: str) -> None:
    for sentence in split_sentences(text):
        assert text[sentence.start : sentence.end] == sentence.text == sentence.text.strip()


def test_sentences_survive_abbreviations_decimals_lists_and_line_ends() -> None:
    text = (
        "# Heading\n\nDr. Varga checks the 2.5 kg\nkettle at 7 p.m. on Mondays. Is it hot?\n\n"
        "- One item\n- Two items. And more.\n\n1. First step"
    )
    assert [s.text for s in split_sentences(text)] == [
        "Dr. Varga checks the 2.5 kg\nkettle at 7 p.m. on Mondays.",
        "Is it hot?",
        "One item",
        "Two items.",
        "And more.",
        "First step",
    ]
