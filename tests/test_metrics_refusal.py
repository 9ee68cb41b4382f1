import pytest

from tune.metrics.refusal import is_refusal, refusal_quality
from tune.scores import Score


@pytest.mark.parametrize(
    "text",
    [
        "I do not have that information.",
        "",
        " \n",
        "-",
        "unanswerable",
        "**Unanswerable**",
        "N/A",
        "Unknown.",
        "No answer.",
        "Answer: unknown",
        "cannot be determined",
        "I don't know",
        "I don’t know.",
        "I don't know who did it.",
        "I have no idea.",
        "I'm not sure.",
        "I am not sure about that.",
        "I'm sorry, but I don't have that information.",
        "Sorry. I cannot answer that.",
        "I'm afraid I don't know.",
        "I do not have enough information to answer that question.",
        "As an AI language model, I do not have access to that information.",
        "I cannot find that information in the text.",
        "I am unable to answer this question.",
        "Unfortunately, the passage does not mention the price.",
        "The text doesn't specify how long it takes.",
        "The provided context does not contain information about the warranty.",
        "The handbook does not say.",
        "It does not say.",
        "There is not enough information to answer the question.",
        "There's nothing in the text about it.",
        "Based on the given passage, there is no mention of a refund.",
        "Not stated in the passage.",
        "This information is not provided.",
        "That information is not available in the handbook.",
        "It is not stated how long it takes.",
        "It is not possible to tell from the text.",
        "The question cannot be answered from the text.",
        "No details are given in the text.",
        "We do not have that information. Please contact the front desk.",
        "I do not have that information, but you can ask at reception.",
        "The text does not mention it. It is not possible to determine the answer.",
    ],
)
def test_a_text_that_says_that_it_cannot_answer_is_a_refusal(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "Paris",
        "0",
        "€",
        "+",
        "No",
        "None",
        "Nothing.",
        "Yes, I do.",
        "No, it is not mentioned on the label.",
        "I do not eat meat.",
        "The Unknown Soldier",
        "Do not know your password? Press reset.",
        "Not more than 3 kg.",
        "It is not available in blue, only in red.",
        "It was not known until 1905.",
        "It cannot be determined by weight; use the volume.",
        "The warranty does not cover water damage.",
        "The policy does not cover theft.",
        "The manual does not include batteries.",
        "The manual is not included in the box.",
        "The machine cannot be opened.",
        "You cannot return it after 30 days.",
        "We cannot give you a refund.",
        "We do not share your information with anyone.",
        "We do not have access to your personal details.",
        "We cannot provide any information to third parties.",
        "No information is shared with third parties.",
        "No data is stored.",
        "There is no data retention beyond 30 days.",
        # What answers after all is an answer.
        "I'm not sure, but it is 40.",
        "I don't know, but I think it is Paris.",
        "The passage does not say, but it is Paris.",
        "The text does not mention it. It is 42 days.",
        "I do not know. " + "It was founded by three brothers who came from the north. " * 3,
    ],
)
def test_an_answer_is_no_refusal(text: str) -> None:
    assert not is_refusal(text)


def test_phrases_of_ones_own_are_refusals_in_any_language() -> None:
    assert not is_refusal("Das weiß ich leider nicht, fragen Sie am Empfang.")
    assert is_refusal("Das WEISS ich leider nicht.", ["das weiss ich leider nicht"])
    assert is_refusal("„Keine Angabe“ im Text", ["Keine Angabe."]) is False
    assert is_refusal("Keine Angabe im Text", ["Keine Angabe."])
    assert not is_refusal("Keine Angaben fehlen", ["Keine Angabe"])
    assert not is_refusal("Paris", [" ."])


@pytest.mark.parametrize(
    "text",
    [
        "the " * 100_000,
        "i do not have " + "that " * 50,
        "given " * 59,
        "x" * 1_000_000,
        "i " * 59 + "\n" * 9999,
        "<" * 99_999,
    ],
)
def test_a_run_away_text_is_no_refusal(text: str) -> None:
    """What took time that grows with the square of such a text would not come to its end here."""
    assert not is_refusal(text)


def score(unanswerable: bool, refused: bool) -> Score:
    return Score("i", "d", "tuned", unanswerable=unanswerable, refused=refused)


def test_refusals_are_counted_where_they_belong_and_where_they_do_not() -> None:
    scores = [score(True, True)] * 3 + [score(True, False)] + [score(False, True)] * 2 + [score(False, False)] * 6
    found = refusal_quality(scores)
    assert (found.answers, found.unanswerable, found.refused) == (12, 4, 5)
    assert (found.recall, found.precision, found.false_rate) == (0.75, 0.6, 0.25)


def test_a_share_of_nothing_is_none_and_not_zero() -> None:
    found = refusal_quality([score(False, False)])
    assert (found.recall, found.precision, found.false_rate) == (None, None, 0.0)
    assert refusal_quality([]).false_rate is None
