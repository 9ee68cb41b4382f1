from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.core.errors import RecordError
from synth.core.fingerprint import canonical_json, fingerprint
from synth.core.records import Decision, Message, Passage, Provenance, Record
from synth.core.schemas import check

PASSAGE = Passage("kettle.md", "The kettle holds 1.7 litres. It is blue.", 10, 50, ("Kettle",))
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@given(
    question=words, answer=words, evidence=st.none() | words, scores=st.dictionaries(words, st.none() | st.floats(0, 1))
)
def test_a_record_survives_its_file_format(
    question: str, answer: str, evidence: str | None, scores: dict[str, float | None]
) -> None:
    source = Provenance("teacher", "0" * 64, ("k1", "k2"), 12, 5)
    record = Record.create(PASSAGE, question, answer, generator="qa", evidence=evidence, provenance=source)
    record = record.with_scores(scores).decided(Decision(False, ("form:length", "duplicate:exact of x")))
    line: Any = record.to_json()
    check(line, "record", where="line")
    assert Record.from_json(line) == record


def test_a_record_has_the_same_id_for_the_same_content_and_another_for_another_call() -> None:
    first = Record.create(PASSAGE, "How much?", "1.7 litres", generator="qa", provenance=Provenance("t", "p", ("k1",)))
    again = Record.create(PASSAGE, "How much?", "1.7 litres", generator="qa", provenance=Provenance("t", "p", ("k1",)))
    other = Record.create(PASSAGE, "How much?", "1.7 litres", generator="qa", provenance=Provenance("t", "p", ("k2",)))
    assert first.id == again.id != other.id


def test_evidence_knows_its_place_in_the_passage_or_that_it_has_none() -> None:
    found = Record.create(PASSAGE, "What colour?", "blue", generator="qa", evidence="It is blue.").evidence
    invented = Record.create(PASSAGE, "What colour?", "red", generator="qa", evidence="It is red.").evidence
    assert found is not None and PASSAGE.text[found.start : found.end] == "It is blue."
    assert invented is not None and not invented.found and invented.start == -1


def test_question_and_answer_are_the_last_turns() -> None:
    turns = (Message("user", "Hello"), Message("assistant", "Hi"), Message("user", "How much?"))
    record = Record.create(PASSAGE, "", "1.7 litres", generator="chat", prompt=turns)
    assert (record.question, record.answer) == ("How much?", "1.7 litres")


def test_a_line_that_is_no_record_says_what_is_wrong_and_where() -> None:
    line: Any = Record.create(PASSAGE, "How much?", "1.7 litres", generator="qa").to_json()
    line["completion"] = []
    with pytest.raises(RecordError, match=r"records\.jsonl:812: 'completion'.*record\.schema\.json"):
        check(line, "record", where="records.jsonl:812")


def test_fingerprints_ignore_the_order_of_keys_and_what_changes_no_result() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1, "retries": 9})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert canonical_json({"b": "é", "a": 1.5}) == '{"a":1.5,"b":"é"}'.encode()


def test_the_fingerprint_of_a_known_value_never_changes_without_a_new_version() -> None:
    assert (
        fingerprint({"teacher": "owner/model", "seed": 0})
        == "v1:348e14cdedf3d43d61389f36860c0c4b01cd799e70385468d89e260a57a4fde8"
    )
