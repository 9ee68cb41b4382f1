import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.core.heldout import HeldoutItem
from tune.metrics.base import Reply
from tune.metrics.labels import Correct, label_quality, read_label
from tune.scores import Score

GRADES, LETTERS, MOODS = ("1", "2", "3", "4", "5"), ("A", "B", "C", "D"), ("negative", "neutral", "positive")
MAIL, DENIED, PLAIN, SIGNED, HALVES = (
    ("ham", "spam"),
    ("not spam", "spam"),
    ("no", "yes"),
    ("-1", "0", "1"),
    ("1", "1.5"),
)


@pytest.mark.parametrize(
    ("text", "labels", "label"),
    [
        ("3", GRADES, "3"),
        (" **3**.\n", GRADES, "3"),
        ("５", GRADES, "5"),
        ("Grade: 4", GRADES, "4"),
        ("Score: 4/5", GRADES, "4"),
        ("4 - good", GRADES, "4"),
        ("I would give this 3 out of 5.", GRADES, "3"),
        ("2 of 3 parts are right. Grade: 4", GRADES, "4"),
        ("1. It is right. 2. It is short. Score: 4", GRADES, "4"),
        ("3.5", GRADES, None),
        ("13", GRADES, None),
        ("between 3 and 4", GRADES, None),
        ("-1", SIGNED, "-1"),
        ("1", SIGNED, "1"),
        ("It is -1", SIGNED, "-1"),
        ("1.5", HALVES, "1.5"),
        ('{"label": "positive"}', MOODS, "positive"),
        ("The sentiment of the text is positive", MOODS, "positive"),
        ("Label: positive (not negative)", MOODS, "positive"),
        ("The label is: positive\n\nExplanation: not negative", MOODS, "positive"),
        ("not positive", MOODS, None),
        ("not positive but negative", MOODS, "negative"),
        ("positive or negative", MOODS, None),
        ("This is spam.", MAIL, "spam"),
        ("This isn't spam.", MAIL, None),
        ("This is not spam.", DENIED, "not spam"),
        ("hamster", MAIL, None),
        ("No, it is not. Yes would be wrong.", PLAIN, "no"),
        ("YES", PLAIN, "yes"),
        ("A", LETTERS, "A"),
        ("a", LETTERS, "A"),
        ("(B)", LETTERS, "B"),
        ("A. because it is", LETTERS, "A"),
        ("I think B is right", LETTERS, "B"),
        ("\\boxed{C}", LETTERS, "C"),
        ("The answer is D.", LETTERS, "D"),
        ("A good answer", LETTERS, None),
        ("", GRADES, None),
        ("I do not know", GRADES, None),
        ("3", (), None),
    ],
)
def test_a_label_is_read_as_a_person_would(text: str, labels: tuple[str, ...], label: str | None) -> None:
    assert read_label(text, labels) == label


@given(st.text(max_size=60), st.lists(st.text(min_size=1, max_size=6), max_size=4, unique=True))
def test_reading_never_fails_and_gives_a_label_or_none(text: str, labels: list[str]) -> None:
    assert read_label(text, labels) in {*labels, None}


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("3 4 " * 20_000, None),
        ("not " * 50_000 + "3", None),
        ("grade is " * 50_000, None),
        ("4/5/" * 50_000, "4"),
        ("<" * 100_000 + "3", "3"),
        ("no 3 " * 20_000 + "Grade: 4", "4"),
    ],
)
def test_a_run_away_answer_is_read_like_any_other(text: str, label: str | None) -> None:
    """What took time that grows with the square of such a text would not come to its end here."""
    assert read_label(text, GRADES) == label


@given(st.sampled_from(MOODS + GRADES + LETTERS))
def test_a_bare_label_is_always_read(label: str) -> None:
    for labels in (MOODS, GRADES, LETTERS):
        assert read_label(label, labels) == (label if label in labels else None)


def test_an_answer_without_a_label_is_wrong() -> None:
    asked = HeldoutItem("i", "?", ("positive",), "d", label="positive")
    free = HeldoutItem("j", "?", ("text",), "d")
    replies = [Reply(asked, "Positive!"), Reply(asked, "negative"), Reply(asked, "hm"), Reply(free, "positive")]
    assert Correct(MOODS).score(replies) == [1.0, 0.0, 0.0, None]


def scores(pairs: list[tuple[str, str | None]], confidence: float | None = None) -> list[Score]:
    return [
        Score(str(place), "d", "tuned", label=said, wanted=wanted, confidence=confidence)
        for place, (wanted, said) in enumerate(pairs)
    ]


def test_quality_is_that_computed_by_hand() -> None:
    found = label_quality(scores([("ham", "ham"), ("ham", "spam"), ("spam", "spam"), ("spam", None)]), MAIL)
    assert found["accuracy"] == 0.5
    # ham: precision 1, recall 1/2, F1 2/3; spam: precision 1/2, recall 1/2, F1 1/2.
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found["qwk"] is None and found["roc_auc"] is None


def test_kappa_counts_the_distance_and_silence_never_pays() -> None:
    right = [(grade, grade) for grade in GRADES]
    assert label_quality(scores([*right]), GRADES)["qwk"] == 1.0
    near = label_quality(scores([*right, ("1", "2")]), GRADES)["qwk"]
    far = label_quality(scores([*right, ("1", "5")]), GRADES)["qwk"]
    silent = label_quality(scores([*right, ("1", None)]), GRADES)["qwk"]
    assert near is not None and far is not None and near > far == silent
    # By hand: grades 1 and 2 of three, observed 1 of 2 items off by 1; expected disagreement from the margins.
    two = label_quality(scores([("1", "1"), ("3", "2")]), ("1", "2", "3"))["qwk"]
    assert two == pytest.approx(1 - (1 / 2) / ((0 + 1 + 4 + 1) / 4))


def test_kappa_of_one_label_alone_is_none_and_not_nan() -> None:
    found = label_quality(scores([("3", "3"), ("3", "3")]), GRADES)
    assert found["qwk"] is None and found["accuracy"] == 1.0


def test_two_labels_have_an_auc_by_confidence() -> None:
    answers = [
        Score("1", "d", "t", label="spam", wanted="spam", confidence=0.9),
        Score("2", "d", "t", label="spam", wanted="ham", confidence=0.6),
        Score("3", "d", "t", label="ham", wanted="ham", confidence=0.8),
        Score("4", "d", "t", label=None, wanted="spam", confidence=None),
    ]
    # Spam ranks 0.9 and 0.5; ham 0.6 and 0.2: three of four pairs are in order.
    assert label_quality(answers, MAIL)["roc_auc"] == 0.75
    unsure = [Score("5", "d", "t", label="ham", wanted="ham", confidence=None)]
    assert label_quality(answers + unsure, MAIL)["roc_auc"] is None
    assert label_quality(answers[:1], MAIL)["roc_auc"] is None


def test_no_label_set_has_no_quality_and_no_figure_is_nan() -> None:
    assert set(label_quality([], MAIL).values()) == {None}
    found = label_quality(scores([("1", None), ("2", None)]), GRADES)
    assert found["accuracy"] == 0.0
    assert not any(value is not None and math.isnan(value) for value in found.values())
