import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synth.core.records import Passage, Provenance, Record
from synth.filters import dedup
from synth.filters.dedup import find_duplicates

# How fast a busy machine is says nothing about the code.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def record(question: str, answer: str, passage: str = "A passage.", call: str = "", document: str = "d") -> Record:
    return Record.create(
        Passage(document, passage, 0, len(passage)),
        question,
        answer,
        generator="test",
        provenance=Provenance("t", "", (call,)),
    )


def level(_: Record) -> float:
    return 1.0


def twins(records: list[Record], threshold: float = 0.7) -> dict[str, str]:
    """The reason by id of what goes."""
    return {records[i].id: str(twin) for i, twin in find_duplicates(records, level, threshold).items()}


def test_the_same_pair_in_other_letters_is_exact_and_the_lower_id_stays_of_equal_ones() -> None:
    pairs = [
        record("What does the lamp cost?", "40 pounds"),
        record("what does a lamp  COST", "40 pounds.", call="2"),
        record("What does the lamp cost?", "40 pounds", passage="Another passage."),
    ]
    stays = min(pairs, key=lambda r: r.id)
    assert twins(pairs) == {r.id: f"exact of {stays.id}" for r in pairs if r is not stays}


def test_the_better_scored_twin_stays() -> None:
    first, second = record("What does the lamp cost?", "40 pounds"), record("What does a lamp cost?", "40 pounds")
    for better in (first, second):
        gone = find_duplicates([first, second], lambda r, better=better: float(r is better))
        (twin,) = gone.values()
        assert twin.id == better.id


def test_one_question_with_two_answers_about_one_passage_keeps_one() -> None:
    pairs = [record("Where is the key?", "under the lid"), record("Where is the key?", "behind the house")]
    (reason,) = twins(pairs).values()
    assert reason.startswith("question of ")
    elsewhere = [pairs[0], record("Where is the key?", "behind the house", passage="Another passage.")]
    assert twins(elsewhere) == {}


def test_nearly_the_same_words_are_near() -> None:
    pairs = [
        record("How long does a full charge of the lamp last outdoors?", "about nine hours"),
        record("How long does one full charge of the lamp last outdoors?", "about nine hours"),
    ]
    (reason,) = twins(pairs).values()
    assert reason.startswith("near of ")
    assert twins(pairs, threshold=1.5) == {}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("How heavy is the large blue model A-2 of the lamp?", "How heavy is the large blue model A-3 of the lamp?"),
        ("How far may you drive in the first 300 days of use?", "How far may you drive in the first 900 days of use?"),
        ("What do the staff of Anna Berg check at the front desk?", "What do the staff of Olga Berg check at the front desk?"),
        ("What should you do when the lid of the box is open?", "What should you not do when the lid of the box is open?"),
    ],
)  # fmt: skip
def test_other_numbers_names_or_a_negation_make_another_pair(first: str, second: str) -> None:
    assert twins([record(first, "it depends on you"), record(second, "it depends on you")]) == {}


def test_two_subjects_in_two_passages_are_no_twins_but_a_rewording_in_one_passage_is() -> None:
    kettle = "How long is the warranty on all parts of the kettle after purchase?"
    toaster = "How long is the warranty on all parts of the toaster after purchase?"
    answer = "it lasts for two full years from the day of delivery"
    assert twins([record(kettle, answer), record(toaster, answer, passage="Another passage.")]) == {}
    assert len(twins([record(kettle, answer), record(toaster, answer)])) == 1


QUESTIONS = st.lists(
    st.tuples(
        st.lists(st.sampled_from(["what", "which", "lamp", "kettle", "A-2", "A-3", "long", "cost", "not", "red", "blue"]), min_size=2, max_size=6),
        st.sampled_from(["red", "blue", "40 pounds"]),
        st.sampled_from(["One passage.", "Two passages."]),
        st.integers(0, 2),
    ),
    max_size=25,
)  # fmt: skip


@UNHURRIED
@given(QUESTIONS, st.randoms(use_true_random=False))
def test_the_order_of_the_records_decides_nothing(
    drawn: list[tuple[list[str], str, str, int]], shuffler: random.Random
) -> None:
    records = [record(" ".join(words), answer, passage, str(call)) for words, answer, passage, call in drawn]
    records = list({r.id: r for r in records}.values())
    shuffled = records[:]
    shuffler.shuffle(shuffled)
    quality = lambda r: int(r.id[0], 16) // 4  # noqa: E731
    results = [
        {some[i].id: str(twin) for i, twin in find_duplicates(some, quality).items()} for some in (records, shuffled)
    ]
    assert results[0] == results[1]
    stay = {r.id for r in records} - results[0].keys()
    assert all(reason.split(" of ")[1] in stay for reason in results[0].values())


def test_the_same_record_twice_leaves_one() -> None:
    pair = record("What does the lamp cost?", "40 pounds")
    assert len(find_duplicates([pair, pair, pair], level)) == 2


def hub(count: int) -> list[Record]:
    """Records that share all their buckets and are no twins: templated text about many subjects."""
    letters = "abcdefghijklmnopqrst"
    return [
        record(
            f"How long is the warranty on parts of the {letters[i % 20]}{letters[i // 20 % 20]}{letters[i // 400]}ko after purchase?",
            "it lasts for two full years from the day of delivery to your door",
            passage=f"Passage number {i}.",
            call=str(i),
        )
        for i in range(count)
    ]


def test_templated_text_takes_comparisons_in_proportion_to_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    compare, counted = dedup._Sketch.resembles, [0]

    def counting(one: dedup._Sketch, other: dedup._Sketch, threshold: float) -> bool:
        counted[0] += 1
        return compare(one, other, threshold)

    monkeypatch.setattr(dedup._Sketch, "resembles", counting)
    counts = []
    for size in (1000, 4000):
        counted[0] = 0
        assert find_duplicates(hub(size), level) == {}
        counts.append(counted[0])
    assert counts[0] > 1000  # they do share buckets
    assert counts[1] < 5 * counts[0]  # four times the records; all pairs would be sixteen times


@pytest.mark.parametrize("count", [0, 1])
def test_none_and_one_have_no_twins(count: int) -> None:
    assert find_duplicates([record("What is it?", "a lamp")] * count, level) == {}
