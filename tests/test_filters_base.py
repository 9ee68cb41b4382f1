from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synth.core.errors import ConfigError
from synth.core.records import Passage, Record
from synth.filters.base import FaultScorer, Rule, Scorer, ShareScorer, check_names, failed_reasons, score_records
from synth.filters.selection import find_surplus, validation_documents

# How fast a busy machine is says nothing about the code.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def record(question: str = "What is it?", answer: str = "a lamp", passage: str = "p", document: str = "d") -> Record:
    return Record.create(Passage(document, passage, 0, 1), question, answer, generator="test")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("groundedness >= 0.6", Rule("groundedness", ">=", 0.6)),
        (" loss<2 ", Rule("loss", "<", 2.0)),
        ("bias > -1.5", Rule("bias", ">", -1.5)),
        ("my.judge <= 3", Rule("my.judge", "<=", 3.0)),
    ],
)
def test_a_rule_is_a_score_a_relation_and_a_number(text: str, rule: Rule) -> None:
    assert Rule.parse(text) == rule
    assert Rule.parse(str(rule)) == rule


@pytest.mark.parametrize("text", ["", "groundedness", "groundedness = 1", ">= 1", "a >= b", "a >= 1 and b >= 2"])
def test_other_text_is_no_rule(text: str) -> None:
    with pytest.raises(ConfigError, match="is no rule"):
        Rule.parse(text)


def test_an_unknown_score_is_an_error_that_names_near_ones() -> None:
    with pytest.raises(ConfigError, match="did you mean groundedness"):
        check_names([Rule.parse("groundednes >= 1")], ["form", "groundedness"])


def test_every_failed_rule_gives_its_reasons_and_a_missing_score_none() -> None:
    scorers: list[Scorer] = [
        ShareScorer("half", lambda r: 0.5),
        ShareScorer("none", lambda r: None),
        FaultScorer("flaws", lambda r: ["torn", "burnt"]),
    ]
    (scored,) = score_records([record()], scorers)
    rules = [Rule.parse(text) for text in ("half >= 0.6", "half >= 0.5", "none >= 1", "flaws >= 1", "missing >= 1")]
    assert failed_reasons(scored, rules, {s.name: s for s in scorers}) == [
        "half:0.5, not >= 0.6",
        "flaws:torn",
        "flaws:burnt",
    ]


@given(
    st.lists(st.one_of(st.none(), st.floats(allow_infinity=False), st.integers(-2, 2)), max_size=20),
    st.sampled_from((">=", "<=", ">", "<")),
    st.floats(-2, 2),
)
def test_a_column_breaks_a_rule_where_its_records_do(values: list[float | None], relation: str, bound: float) -> None:
    rule = Rule("mark", relation, bound)
    scored = [record().with_scores({"mark": value}) for value in values]
    assert rule.broken_by(values) == [place for place, one in enumerate(scored) if not rule.holds(one)]


def test_what_a_score_came_of_is_not_looked_for_twice() -> None:
    asked: list[str] = []

    def find(one: Record) -> list[str]:
        asked.append(one.question)
        return ["torn"] if one.question == "What is torn?" else []

    scorer, torn, whole = FaultScorer("flaws", find), record("What is torn?"), record("What is whole?")
    assert scorer.score([torn, whole]) == [0.0, 1.0]
    assert scorer.explain(torn) == ["torn"]
    assert asked == ["What is torn?", "What is whole?"]


def test_scores_are_rounded_and_stand_beside_those_of_others() -> None:
    (scored,) = score_records([record().with_scores({"judge": 7})], [ShareScorer("third", lambda r: 1 / 3)])
    assert scored.scores == {"judge": 7, "third": 0.3333}


def test_a_scorer_that_miscounts_or_takes_a_name_is_an_error() -> None:
    class Short:
        name = "short"

        def score(self, records: Sequence[Record]) -> list[float | None]:
            return [1.0] * (len(records) - 1)

    with pytest.raises(ConfigError, match="1 scores for 2 records"):
        score_records([record(), record()], [Short()])
    with pytest.raises(ConfigError, match="share a name"):
        score_records([record()], [Short(), Short()])


def best_possible(counts: list[int], target: float) -> float:
    sums = {0}
    for count in counts:
        sums |= {s + count for s in sums}
    return min(abs(s - target) for s in sums - {0, sum(counts)})


@UNHURRIED
@given(
    st.lists(st.integers(1, 30), min_size=2, max_size=9), st.floats(0.01, 0.9), st.integers(0, 5)
)  # fmt: skip
def test_the_split_is_as_near_to_the_share_as_whole_documents_allow(counts: list[int], share: float, seed: int) -> None:
    documents = {f"d{i}": count for i, count in enumerate(counts)}
    chosen = validation_documents(documents, share, seed)
    assert 0 < len(chosen) < len(documents)
    got = sum(documents[name] for name in chosen)
    assert abs(got - share * sum(counts)) == pytest.approx(best_possible(counts, share * sum(counts)))
    assert chosen == validation_documents(dict(reversed(documents.items())), share, seed)


def test_the_seed_chooses_among_equal_splits() -> None:
    documents = {f"d{i}": 1 for i in range(20)}
    chosen = {validation_documents(documents, 0.2, seed) for seed in range(8)}
    assert len(chosen) > 1
    assert {len(some) for some in chosen} == {4}


def test_one_document_or_no_share_leaves_validation_empty() -> None:
    assert validation_documents({"d": 9}, 0.2, 0) == frozenset()
    assert validation_documents({"d": 9, "e": 1}, 0, 0) == frozenset()


def test_surplus_spreads_what_is_left_over_documents_and_passages() -> None:
    pairs = [
        record(f"What is {i}?", passage=f"p{i % 4}", document=f"d{i % 2}") for i in range(40)
    ] + [record("What is rare?", passage="r", document="rare")]  # fmt: skip
    gone = find_surplus(pairs, lambda r: 1.0, num_records=9, max_per_passage=None, seed=1)
    left = [pair for i, pair in enumerate(pairs) if i not in gone]
    assert Counter(pair.document_id for pair in left) == {"d0": 4, "d1": 4, "rare": 1}
    assert set(Counter(pair.passage_id for pair in left).values()) == {2, 1}
    again = find_surplus(pairs[::-1], lambda r: 1.0, num_records=9, max_per_passage=None, seed=1)
    assert {pairs[::-1][i].id for i in again} == {pairs[i].id for i in gone}


def test_of_one_passage_only_the_best_stay() -> None:
    pairs = [record(f"What is {i}?") for i in range(5)]
    quality = {pair.id: i for i, pair in enumerate(pairs)}
    assert find_surplus(pairs, lambda r: quality[r.id], num_records=None, max_per_passage=2, seed=0) == {0, 1, 2}
