from hypothesis import given
from hypothesis import strategies as st

from synth.core.records import Message
from tune.augment import with_variants
from tune.rows import Row


def row(name: str, question: str) -> Row:
    turns = (Message("system", "Be brief."), Message("user", question))
    return Row(name, "d.md", turns, (Message("assistant", "1.7 litres"),))


def words_of(*rows: Row) -> set[str]:
    said = (word.casefold().rstrip("?") for one in rows for word in one.prompt[-1].content.split())
    return {word for word in said if word}


@given(question=st.text(min_size=1).filter(str.strip), variants=st.integers(0, 6))
def test_variants_change_the_last_question_alone_and_by_words_that_rows_have(question: str, variants: int) -> None:
    rows = [row("a", question), row("b", "Where does the small lamp stand?")]
    made = [one for one in with_variants(rows, variants, seed=0) if one.id.startswith("a")]
    first, *rest = made
    assert first == rows[0] and len(rest) == variants
    known = words_of(*rows)
    for number, variant in enumerate(rest, 1):
        assert variant.id == f"a~{number}" and variant.completion == first.completion
        assert variant.prompt[:-1] == first.prompt[:-1]
        assert words_of(variant) <= known


def test_variants_lose_words_of_their_own_and_gain_words_of_others() -> None:
    rows = [row("a", "How much water does the kettle hold?"), row("b", "Where do small lamps stand at night?")]
    own, other = map(words_of, rows)
    asked = [words_of(one) for one in with_variants(rows, 40, 0) if one.id.startswith("a~")]
    assert all(own & words for words in asked)
    assert any(other & words for words in asked) and any(not other & words for words in asked)
    assert any(len(own & words) < len(own) for words in asked)


def test_variants_follow_from_the_seed_and_the_row_and_not_from_the_order() -> None:
    rows = [row("a", "How much water does the kettle hold?"), row("b", "Where does the small lamp stand?")]
    forward, backward = with_variants(rows, 5, 1), with_variants(rows[::-1], 5, 1)
    assert sorted(forward, key=lambda r: r.id) == sorted(backward, key=lambda r: r.id)
    assert with_variants(rows, 5, 2) != forward
    assert len({r.prompt[-1].content for r in forward}) > 8
