import random
from itertools import pairwise

import hypothesis
import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from synth.core.errors import ConfigError
from synth.core.records import Passage, Provenance, Record
from synth.filters.dedup import Pairs, find_duplicates, find_twins, resolve
from synth.filters.sketch import DedupSettings, SketchTable, sketch
from synth.filters.words import names, numbers, without_articles, words_of

# How fast a busy machine is says nothing about the code.
UNHURRIED = hypothesis.settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


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


def columns(records: list[Record], settings: DedupSettings) -> SketchTable:
    """The sketches of the records, in two blocks, as worker processes would give them."""
    middle = len(records) // 2
    return SketchTable([sketch(records[:middle], settings), sketch(records[middle:], settings)])


def shingles(record: Record) -> set[str]:
    """What the Jaccard similarity is counted on, from the text itself."""
    words = without_articles(words_of(record.question)) + without_articles(words_of(record.answer))
    return {*words, *map(" ".join, pairwise(words))}


def similarity(one: Record, other: Record) -> float:
    first, second = shingles(one), shingles(other)
    return len(first & second) / len(first | second)


def templated(count: int) -> list[Record]:
    """One text with two places to fill: thousands share their buckets, and some are near duplicates."""
    return [
        record(
            f"How long does the maker of the {spelled(i % 29)} {spelled(i * 7 % 131)} lamp cover its parts after purchase?",
            f"all the parts of the {spelled(i % 29)} {spelled(i * 7 % 131)} lamp for two full years from the day of delivery",
            passage=f"Passage number {i}.",
        )
        for i in range(count)
    ]


def spelled(number: int) -> str:
    return "".join("abcdefghijklmnopqrst"[number // 20**k % 20] for k in range(3)) + "ko"


def test_templated_text_takes_comparisons_in_proportion_to_its_length() -> None:
    for make in (hub, templated, lambda count: [record("What is it?", "a lamp", call=str(i)) for i in range(count)]):
        for guarded in (True, False):
            settings = DedupSettings(facts=guarded)
            compared = []
            for size in (500, 2000):
                table = columns(make(size), settings)
                compared.append(find_twins(table, np.arange(size), settings).compared)
            assert compared[0] >= 499  # they do share buckets
            assert compared[1] < 6 * compared[0]  # four times the records; all pairs would be sixteen times


def test_nothing_alike_is_left_of_templated_text() -> None:
    records = templated(600)
    gone = find_duplicates(records, level)
    twins = find_twins(columns(records, settings := DedupSettings(facts=False)), np.arange(600), settings)
    stay = [r for i, r in enumerate(records) if i not in set(twins.rows.tolist())]
    alike = [(a, b) for k, a in enumerate(stay) for b in stay[:k] if similarity(a, b) >= 0.7]
    assert len(gone) < len(twins) > 400  # other subjects in other passages are let be with the guard
    assert alike == []


WORDS = ["what", "which", "lamp", "kettle", "A-2", "A-3", "Berlin", "long", "not", "red", "blue", "six"]
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS, st.sampled_from(["One.", "Two."])), max_size=30)
HOW = st.builds(
    DedupSettings,
    threshold=st.sampled_from([0.5, 0.7, 0.8, 1.0]),
    on=st.sampled_from(["both", "question", "answer"]),
    facts=st.booleans(),
)


@UNHURRIED
@given(PAIRS, HOW)
def test_a_twin_stays_and_is_as_alike_as_asked(drawn: list[tuple[str, str, str]], how: DedupSettings) -> None:
    records = [record(question, answer, passage, str(i)) for i, (question, answer, passage) in enumerate(drawn)]
    twins = find_twins(columns(records, how), np.arange(len(records)), how)
    gone = {row for row, _, _ in twins}
    for row, stays, way in twins:
        assert stays not in gone
        assert stays < row
        one, other = records[row], records[stays]
        if way == "question":
            assert (words_of(one.question), one.passage_id) == (words_of(other.question), other.passage_id)
        elif how.on == "both":
            assert similarity(one, other) >= (how.threshold if way == "near" else 1) - 1e-9
    compared = {"both": lambda r: (words_of(r.question), words_of(r.answer))}
    key = compared.get(how.on, lambda r: words_of(getattr(r, how.on)))
    left = [key(r) for i, r in enumerate(records) if i not in gone]
    assert len(left) == len(set(left))  # exact duplicates are always found


@UNHURRIED
@given(PAIRS, HOW, st.randoms(use_true_random=False))
def test_rows_in_another_order_give_the_same_twins(
    drawn: list[tuple[str, str, str]], how: DedupSettings, shuffler: random.Random
) -> None:
    records = [record(question, answer, passage, str(i)) for i, (question, answer, passage) in enumerate(drawn)]
    places = list(range(len(records)))
    shuffler.shuffle(places)
    moved = [records[i] for i in places]
    order = np.argsort(np.array(places, np.int64), kind="stable")
    one = find_twins(columns(records, how), np.arange(len(records)), how)
    other = find_twins(columns(moved, how), order, how)
    named = sorted((places[row], places[stays], way) for row, stays, way in other)
    assert named == sorted(one)


def test_few_pairs_at_the_threshold_are_missed_among_many_records() -> None:
    rng = random.Random(3)
    words = [spelled(i) for i in range(4000)]
    records = []
    for i in range(1500):
        text = rng.choices(words, k=40)
        copy = text[:]
        for place in rng.sample(range(40), 3):
            copy[place] = rng.choice(words)
        records += [record(" ".join(t[:12]), " ".join(t[12:]), call=str(i)) for t in (text, copy)]
    settings = DedupSettings(threshold=0.8)
    twins = {row: stays for row, stays, _ in find_twins(columns(records, settings), np.arange(3000), settings)}
    alike = [i for i in range(0, 3000, 2) if similarity(records[i], records[i + 1]) >= 0.8]
    assert len(alike) > 400
    assert sum(twins.get(i + 1) == i for i in alike) >= 0.99 * len(alike)


def test_what_is_compared_can_be_the_question_or_the_answer_alone() -> None:
    same_question = [
        record("Where is the key?", "under the lid"),
        record("Where is the key?", "with Ann", passage="Other."),
    ]
    same_answer = [record("Where is the key?", "under the lid"), record("What is under that?", "under the lid")]
    assert [len(find_duplicates(same_question, level, on=on)) for on in ("both", "question", "answer")] == [0, 1, 0]
    assert [len(find_duplicates(same_answer, level, on=on)) for on in ("both", "question", "answer")] == [0, 0, 1]


def test_answers_that_say_that_there_is_none_are_no_twins() -> None:
    passage = Passage("d", "A passage.", 0, 10)
    refusals = [
        Record.create(passage, question, "The text does not say.", generator="test", kind="unanswerable")
        for question in ("Who made the lamp?", "Where was the kettle sold?")
    ]
    assert find_duplicates(refusals, level) == {}
    assert find_duplicates(refusals, level, on="answer") == {}


def test_twins_from_elsewhere_take_part_in_who_stays() -> None:
    records = [
        record("Where is the key?", "under the lid"),
        record("How old is it?", "a year"),
        record("Who came?", "Ann"),
    ]
    settings = DedupSettings()
    semantic = Pairs("semantic", np.array([2, 1]), np.array([1, 0]))
    twins = find_twins(columns(records, settings), np.array([0, 1, 2]), settings, [semantic])
    assert list(twins) == [(1, 0, "semantic")]  # 2 is a twin of 1 alone, which goes
    assert list(resolve(np.array([2, 1, 0]), [semantic])) == [(1, 2, "semantic")]
    assert list(resolve(np.array([1, 2, 0]), [semantic])) == [(0, 1, "semantic"), (2, 1, "semantic")]
    assert list(resolve(np.array([0, 2]), [semantic])) == []


def test_a_table_of_some_rows_finds_what_the_whole_table_finds_for_them() -> None:
    records, settings = templated(60), DedupSettings(facts=False)
    table, rows = columns(records, settings), np.array([50, 3, 17, 32, 46, 8])
    whole = [(row, stays) for row, stays, _ in find_twins(table, rows, settings)]
    part = find_twins(table.select(rows), np.arange(6), settings)
    assert sorted((int(rows[row]), int(rows[stays])) for row, stays, _ in part) == whole
    assert whole


@given(
    TEXTS,
    st.sampled_from(
        ["The {} in Rome.", "{}, 3.5 kg of X-7.", "What Is The {}?", '"{}" (Ann)', "{}.\nBob  did", "* {} isn't"]
    ),
)
def test_facts_are_those_of_the_word_tables(text: str, frame: str) -> None:
    def facts(written: str) -> tuple[object, ...]:
        negated = {"not", "isn't"} & set(words_of(written))
        return names(written), numbers(written), bool(negated)

    one, other = frame.format(text), frame.format("lamp")
    block = sketch([record("Why?", one), record("Why?", other)], DedupSettings(on="answer"))
    assert (facts(one) == facts(other)) == (block.facts[0] == block.facts[1])


@pytest.mark.parametrize("wrong", [{"threshold": 0.0}, {"threshold": float("nan")}, {"on": "passage"}])
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="duplicates are compared on|near_duplicate is"):
        DedupSettings(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [0, 1])
def test_none_and_one_have_no_twins(count: int) -> None:
    assert find_duplicates([record("What is it?", "a lamp")] * count, level) == {}
