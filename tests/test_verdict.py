"""The verdict from scores, in numbers and in words."""

import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console

from synth.core.errors import ConfigError
from synth.core.schemas import check
from tune.verdict import Rule, Score, Verdict, judge, table

GOLDEN = Path(__file__).parent / "golden" / "verdict.json"

SUBJECT: Mapping[str, Any] = {
    "candidate": "first",
    "student": "owner/small",
    "method": "lora",
    "weights": {
        "base": {"model": "owner/small", "revision": "abc"},
        "tuned": {"model": "owner/small+first", "revision": "abc+def"},
    },
    "served_by": "vllm",
    "heldout": {
        "name": "heldout.jsonl",
        "sha256": "0" * 64,
        "questions": 48,
        "left_out": 0,
        "places": {"train": 40, "validation": 4, "neither": 4},
    },
}


def scores(
    means: Mapping[str, float], *, documents: int = 12, each: int = 4, spread: float = 0.2, seed: int = 1
) -> list[Score]:
    """Scores around a mean per contender, with an effect of the document that all contenders share."""
    rng = random.Random(seed)
    made = []
    for document in range(documents):
        shared = rng.gauss(0, spread)
        for question in range(each):
            for contender, mean in means.items():
                value = min(1.0, max(0.0, mean + shared + rng.gauss(0, spread / 2)))
                name = f"{document}-{question}"
                made.append(Score(name, f"d{document}", contender, round(value, 3), float(value > 0.6), 3 + question))
    return made


def test_a_clear_lead_over_all_that_must_be_beaten_is_accepted() -> None:
    verdict = judge(scores({"base": 0.1, "few-shot": 0.2, "retrieval": 0.3, "tuned": 0.6}), Rule())
    assert verdict.accepted
    low = verdict.gap("few-shot").low
    assert low is not None and low > 0
    assert verdict.text.startswith("Accept. On 48 held-out questions about 12 documents the tuned student scores F1 ")
    assert "clustered by document), clear of zero." in verdict.text
    assert "Retrieval with the untuned model scores" in verdict.text and "points below the student" in verdict.text


def test_a_loss_to_a_contender_that_must_be_beaten_is_a_reject_that_says_so() -> None:
    verdict = judge(scores({"base": 0.1, "few-shot": 0.7, "tuned": 0.4}), Rule())
    assert not verdict.accepted
    assert verdict.text.startswith("Reject. On 48")
    assert "The difference to few-shot prompts is -" in verdict.text and ": the student is worse." in verdict.text


def test_a_lead_within_the_noise_is_a_reject() -> None:
    verdict = judge(scores({"base": 0.4, "few-shot": 0.1, "tuned": 0.405}, spread=0.3), Rule())
    gap = verdict.gap("base")
    assert gap.low is not None and gap.high is not None and gap.low <= 0 <= gap.high
    assert not verdict.accepted
    assert "The difference to the untuned model" in verdict.text and "few-shot prompts is" not in verdict.text


def test_the_margin_is_what_the_lower_bound_has_to_clear() -> None:
    held = scores({"base": 0.1, "few-shot": 0.2, "tuned": 0.6})
    low = judge(held, Rule()).gap("few-shot").low
    assert low is not None
    assert judge(held, Rule(margin=low - 0.5)).accepted
    verdict = judge(held, Rule(margin=low))
    assert not verdict.accepted
    assert f"which does not clear the margin of {low:g} points" in verdict.text


@pytest.mark.parametrize(("documents", "each"), [(3, 20), (12, 1), (1, 40)])
def test_too_little_evidence_is_a_reject_however_large_the_lead(documents: int, each: int) -> None:
    held = scores({"base": 0.0, "few-shot": 0.0, "tuned": 0.9}, documents=documents, each=each)
    verdict = judge(held, Rule())
    assert not verdict.accepted
    assert verdict.text.startswith("Reject: not enough evidence. ")
    assert "at least 30 questions about 10 documents" in verdict.text
    if documents == 1:
        assert "with fewer than two documents there is no interval" in verdict.text
        assert verdict.gap("base").low is None


def test_a_better_contender_that_need_not_be_beaten_is_named_in_an_accept() -> None:
    verdict = judge(scores({"base": 0.1, "few-shot": 0.1, "tuned": 0.4, "retrieval": 0.8}), Rule())
    assert verdict.accepted
    assert "points above the student" in verdict.text
    assert verdict.text.endswith("where its longer prompts can be afforded, it gives the better answers.")


def test_a_loss_in_exact_match_is_named_though_f1_decides() -> None:
    held = [
        Score(f"q{n}", f"d{n % 12}", contender, *values, words=2)
        for n in range(48)
        for contender, values in {"base": (0.3, 0.3), "tuned": (0.6 + n / 1000, 0.0)}.items()
    ]
    verdict = judge(held, Rule(must_beat=("base",)))
    assert verdict.accepted
    assert "In exact match the student is 30.0 points below the untuned model" in verdict.text


def test_answers_cut_off_are_a_warning() -> None:
    held = scores({"base": 0.1, "few-shot": 0.2, "tuned": 0.6})
    cut = [Score(s.question_id, s.document_id, s.contender, s.f1, s.em, s.words, s.contender == "base") for s in held]
    assert judge(held, Rule()).warnings == ()
    assert judge(cut, Rule()).warnings == ("48 of 48 answers of the untuned model were cut off at max_tokens.",)


def test_the_order_of_the_questions_does_not_matter() -> None:
    held = scores({"base": 0.1, "few-shot": 0.2, "tuned": 0.6})
    by_contender = sorted(held, key=lambda s: (["base", "few-shot", "tuned"].index(s.contender), s.f1))
    assert judge(by_contender, Rule()) == judge(held, Rule())


def test_missing_contenders_and_unequal_questions_are_refused() -> None:
    held = scores({"base": 0.1, "few-shot": 0.2, "tuned": 0.6})
    with pytest.raises(ConfigError, match="no scores of 'few-shot'"):
        judge([s for s in held if s.contender != "few-shot"], Rule())
    with pytest.raises(ConfigError, match="no scores of 'tuned'"):
        judge([s for s in held if s.contender != "tuned"], Rule())
    with pytest.raises(ConfigError, match="different questions"):
        judge(held[1:], Rule())


def test_verdict_json_is_the_golden_file_and_reads_back() -> None:
    means = {"base": 0.05, "few-shot": 0.2, "retrieval": 0.62, "tuned": 0.5}
    verdict = judge(scores(means), Rule(resamples=1000), subject=SUBJECT, warnings=["A doubt."])
    value = verdict.to_json()
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    check(value, "verdict", where="verdict.json")
    assert value == orjson.loads(GOLDEN.read_bytes())
    assert Verdict.from_json(value) == verdict


def test_the_table_shows_every_contender_and_the_interval() -> None:
    verdict = judge(scores({"base": 0.1, "few-shot": 0.2, "tuned": 0.6}), Rule())
    console = Console(width=120)
    with console.capture() as shown:
        console.print(table(verdict))
    text = shown.get()
    gap = verdict.gap("base")
    assert gap.low is not None
    assert f"{gap.points:.1f} ({gap.low:.1f} to " in text
    assert [line.split()[0] for line in text.splitlines()] == ["contender", "base", "few-shot", "tuned"]
