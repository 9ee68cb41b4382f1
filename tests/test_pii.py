"""Personal data and secrets: what is found, what is let be, and that no value gets into a reason or a mask."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.core.errors import ConfigError
from synth.core.records import Message, Passage, Record
from synth.filters.base import Rule, failed_reasons
from tests.pii_cases import PiiCase, card, iban, keys, negatives, positives

pytest.importorskip("phonenumbers", reason="the extra `pii` is not installed")
pytest.importorskip("detect_secrets", reason="the extra `pii` is not installed")

from synth.filters.pii import KINDS, find_pii, mask_messages, mask_text, pii_scorer


def record(question: str = "What is it?", answer: str = "A kettle.", context: str = "It is a kettle.") -> Record:
    return Record.create(Passage("a.md", context, 0, len(context)), question, answer, generator="qa")


@pytest.mark.parametrize("case", positives(), ids=lambda case: f"{case.kind}-{case.text[:24]}")
def test_a_value_is_found_whole_and_under_its_kind(case: PiiCase) -> None:
    start = case.text.index(case.value)
    assert [(f.kind, f.start, f.end) for f in find_pii(case.text)] == [(case.kind, start, start + len(case.value))]


@pytest.mark.parametrize("case", negatives(), ids=lambda case: case.text[:32])
def test_what_only_looks_like_a_value_is_let_be(case: PiiCase) -> None:
    assert find_pii(case.text) == []
    assert mask_text(case.text) == case.text


def test_there_are_cases_enough() -> None:
    assert len(positives()) + len(negatives()) >= 60
    assert {case.kind for case in positives()} == set(KINDS)


@pytest.mark.parametrize("case", positives(), ids=lambda case: f"{case.kind}-{case.text[:24]}")
def test_a_mask_takes_the_value_away_and_stays_as_it_is(case: PiiCase) -> None:
    masked = mask_text(case.text)
    assert masked == case.text.replace(case.value, f"<{case.kind.upper()}>")
    assert mask_text(masked) == masked
    assert find_pii(masked) == []


def test_every_value_of_a_text_is_masked_with_what_stands_between() -> None:
    number, account = card("4539"), iban("DE", "370400440532013000")
    text = f"Mail a@example.com or b@example.com,\npay {number} or {account};\x00 call +44 20 7946 0958 from 192.0.2.7."
    assert mask_text(text) == ("Mail <EMAIL> or <EMAIL>,\npay <CARD> or <IBAN>;\x00 call <PHONE> from <IP>.")


def test_a_private_key_is_masked_to_its_end() -> None:
    body = "\n".join("MIIEow" + str(n) * 58 for n in range(5))
    whole = f"-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----"
    assert mask_text(f"It is {whole} here.") == "It is <SECRET> here."
    cut = f"It is -----BEGIN RSA PRIVATE KEY-----\n{body}"
    assert mask_text(cut) == "It is <SECRET>"


def test_a_key_that_stands_twice_is_masked_twice() -> None:
    key = keys()["github"]
    assert mask_text(f"{key} and again {key}") == "<SECRET> and again <SECRET>"


def test_a_password_in_an_address_is_a_secret_and_not_a_mail_address() -> None:
    assert mask_text("git clone https://bob:hunter2x@git.example.com/a.git") == (
        "git clone https://bob:<SECRET>@git.example.com/a.git"
    )


def test_the_reason_names_the_kinds_and_never_a_value() -> None:
    key, number = keys()["stripe"], card("4916")
    faulty = record(f"What is {key} for?", f"For {number}, write to jane@example.com.")
    scorer = pii_scorer()
    scored = faulty.with_scores({"pii": scorer.score([faulty])[0]})
    reasons = failed_reasons(scored, [Rule.parse("pii >= 1")], {"pii": scorer})
    assert reasons == ["pii:card", "pii:email", "pii:secret"]


def test_prompt_and_completion_are_looked_at_and_the_context_is_not() -> None:
    mail = "Write to jane@example.com."
    scorer = pii_scorer()
    assert scorer.score([record(), record(question=mail), record(answer=mail), record(context=mail)]) == [1, 0, 0, 1]
    earlier = Record.create(
        Passage("a.md", "It is.", 0, 6),
        "And then?",
        "No.",
        generator="qa",
        prompt=[Message("system", mail), Message("user", "And then?")],
    )
    assert scorer.score([earlier]) == [0]


def test_only_the_kinds_that_are_asked_for_count() -> None:
    scorer = pii_scorer(["card"])
    assert scorer.score([record(answer="a@example.com"), record(answer=card("5412"))]) == [1, 0]
    with pytest.raises(ConfigError, match=r"'emial'; did you mean email\?"):
        pii_scorer(["emial"])


def test_turns_are_masked_and_keep_their_roles() -> None:
    turns = (Message("system", "Be brief."), Message("user", "Is it a@example.com?"))
    assert mask_messages(turns) == (Message("system", "Be brief."), Message("user", "Is it <EMAIL>?"))


_WORDS = st.sampled_from(
    [case.value for case in positives()]
    + [case.text for case in negatives()]
    + ["<EMAIL>", "://", "@", ":", " ", "\n", "+", "\ud800"]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(_WORDS, st.text(max_size=12)), max_size=8))
def test_masking_again_changes_nothing(parts: list[str]) -> None:
    masked = mask_text("".join(parts))
    assert mask_text(masked) == masked
    assert find_pii(masked) == []


@pytest.mark.parametrize(
    "unit", ["a@", "eyJ", "://a:", "//", "1 ", "1", "a.", "+1 ", "ab:", "AKIA", "sk-", "-----BEGIN ", "GB29 ", "tel "]
)
def test_a_hostile_text_is_looked_through_in_time(unit: str) -> None:
    started = time.process_time()
    find_pii((unit * 200_000)[:200_000] + " end@")
    assert time.process_time() - started < 60
