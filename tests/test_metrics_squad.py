"""EM and F1 to the last digit: against torchmetrics (v1.1) and transformers' port of the v2.0 program."""

import os
import random
import string
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.core.heldout import HeldoutItem, load_heldout
from synth.core.squad import Version, exact_match, f1, normalize
from tune.metrics.base import Reply
from tune.metrics.squad import F1, ExactMatch

# What normalization is about: articles, ASCII punctuation and other, white space, letters that change length in lower case.
_TEXTS = st.text(alphabet="ab12 theanTHE.,-'\"“”éİ\u00a0\u2009\n‽€", max_size=24) | st.lists(
    st.sampled_from(["the", "a", "an", "The", "cat", "cats", "sat", "on", "U.S.", "1,000", "—", "...", "É", ""]),
    max_size=7,
).map(" ".join)


def item(*answers: str, unanswerable: bool = False) -> HeldoutItem:
    return HeldoutItem("i", "What?", answers, "d", unanswerable=unanswerable)


def official_2(answer: str, references: list[str]) -> tuple[float, float]:
    """Return EM and F1 of transformers' port of the v2.0 program, which keeps the rule on empty references inside."""
    from types import SimpleNamespace

    from transformers.data.metrics import squad_metrics

    example = SimpleNamespace(qas_id="q", answers=[{"text": reference} for reference in references])
    exact, overlap = squad_metrics.get_raw_scores([example], {"q": answer})
    return exact["q"], overlap["q"]


def official_1(answer: str, references: list[str]) -> tuple[float, float]:
    """Return EM and F1 in points of torchmetrics, whose numbers are of single precision."""
    from torchmetrics.functional.text import squad

    found = squad(
        [{"prediction_text": answer, "id": "q"}],
        [{"answers": {"text": references, "answer_start": [0] * len(references)}, "id": "q"}],
    )
    return float(found["exact_match"]), float(found["f1"])


@settings(deadline=None, max_examples=150)
@given(_TEXTS, st.lists(_TEXTS, max_size=3))
def test_version_2_is_that_of_its_program(answer: str, references: list[str]) -> None:
    wanted = official_2(answer, references)
    assert (exact_match(answer, references, version="2.0"), f1(answer, references, version="2.0")) == wanted


@settings(deadline=None, max_examples=100)
@given(_TEXTS, st.lists(_TEXTS.filter(lambda text: normalize(text) != ""), min_size=1, max_size=3))
def test_version_1_is_that_of_torchmetrics(answer: str, references: list[str]) -> None:
    """Where a reference has a word: of empty ones torchmetrics says what v2.0 says, the program of v1.1 another thing."""
    import numpy as np

    exact, overlap = official_1(answer, references)
    assert 100 * exact_match(answer, references) == exact
    assert np.float32(100 * f1(answer, references)) == pytest.approx(overlap, rel=3e-7)


def test_the_versions_differ_in_empty_texts_alone() -> None:
    assert (exact_match("the", ["a"]), f1("the", ["a"])) == (1.0, 0.0)
    assert (exact_match("the", ["a"], version="2.0"), f1("the", ["a"], version="2.0")) == (1.0, 1.0)
    assert exact_match("an", ["the", "cat"]) == 1.0
    assert exact_match("an", ["the", "cat"], version="2.0") == 0.0
    assert f1("", [], version="2.0") == 1.0 and f1("cat", [], version="2.0") == 0.0
    with pytest.raises(ValueError, match="reference"):
        exact_match("", [])


@pytest.mark.parametrize("version", ["1.1", "2.0"])
def test_a_refusal_is_right_for_an_unanswerable_item_and_nothing_else_is(version: Version) -> None:
    open_item = item(unanswerable=True)
    replies = [
        Reply(open_item, "I do not have that information.", refused=True),
        Reply(open_item, ""),
        Reply(open_item, "Paris"),
        Reply(open_item, "I do not have that information.", refused=False),
    ]
    assert ExactMatch(version).score(replies) == [1.0, 1.0, 0.0, 0.0]
    assert F1(version).score(replies) == [1.0, 1.0, 0.0, 0.0]


def test_a_refusal_earns_nothing_by_its_words_in_version_2() -> None:
    refused = Reply(item("the information desk"), "I do not have that information.", refused=True)
    assert F1("2.0").score([refused]) == [0.0]
    assert F1("1.1").score([refused]) == [pytest.approx(2 / 8)]
    # A reference that reads like a refusal is a right answer all the same.
    named = Reply(item("Unknown"), "unknown", refused=True)
    assert ExactMatch("2.0").score([named]) == F1("2.0").score([named]) == [1.0]


def test_an_item_without_a_reference_is_not_measured() -> None:
    assert F1().score([Reply(item(), "cat")]) == [None]


def _perturbations(rng: random.Random, others: list[str]) -> list[Callable[[str], str]]:
    """What models do to an answer, and what the programs are picky about."""
    return [
        lambda text: text,
        lambda text: text.upper() + ".",
        lambda text: f"the {text}",
        lambda text: f"It is {text}, as the text says.",
        lambda text: " ".join(text.split()[:-1]),
        lambda text: " ".join(rng.sample(text.split(), len(text.split()))),
        lambda text: text + " " + text,
        lambda text: text.replace(" ", "\u00a0"),
        lambda text: "".join(c for c in text if c not in string.punctuation),
        lambda text: f"“{text}”",
        lambda text: rng.choice(others),
        lambda text: "",
        lambda text: "the",
    ]


@pytest.mark.shared
def test_perturbed_predictions_of_xquad_score_as_the_programs_say() -> None:
    """Every item of XQuAD, its answer perturbed in each way in turn; sums of points are equal to the last digit."""
    from torchmetrics.functional.text import squad

    items = load_heldout(Path(os.environ["SYNTH_SHARED_DATA"]) / "xquad.en.json").items
    rng = random.Random(0)
    ways = _perturbations(rng, [one.answers[0] for one in items])
    said = [ways[place % len(ways)](one.answers[0]) for place, one in enumerate(items)]
    replies = [Reply(one, text) for one, text in zip(items, said, strict=True)]
    em_1, f1_1 = ExactMatch().score(replies), F1().score(replies)
    em_2, f1_2 = ExactMatch("2.0").score(replies), F1("2.0").score(replies)
    for one, text, exact, overlap in zip(items, said, em_2, f1_2, strict=True):
        assert (exact, overlap) == official_2(text, list(one.answers)), one.id
    # No answer of XQuAD is empty after normalization, so the two programs agree on it.
    assert (em_1, f1_1) == (em_2, f1_2)
    found = squad(
        [{"prediction_text": text, "id": one.id} for one, text in zip(items, said, strict=True)],
        [{"answers": {"text": list(one.answers), "answer_start": [0]}, "id": one.id} for one in items],
    )
    points = [100 * sum(value for value in values if value is not None) / len(items) for values in (em_1, f1_1)]
    assert points == pytest.approx([float(found["exact_match"]), float(found["f1"])], rel=1e-6)
    assert 20 < points[0] < points[1] < 80
