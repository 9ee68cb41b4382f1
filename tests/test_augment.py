from hypothesis import given
from hypothesis import strategies as st

from synth.core.records import Message
from tune.augment import with_variants
from tune.rows import Row


def row(name: str, question: str) -> Row:
    turns = (Message("system", "Be brief."), Message("user", question))
    return Row(name, "d.md", turns, (Message("assistant", "1.7 litres"),))


@given(question=st.text(min_size=1).filter(str.strip), variants=st.integers(0, 6))
def test_variants_only_shorten_the_last_question(question: str, variants: int) -> None:
    first, *rest = with_variants([row("a", question)], variants, seed=0)
    assert first == row("a", question) and len(rest) == variants
    for number, variant in enumerate(rest, 1):
        assert variant.id == f"a~{number}" and variant.completion == first.completion
        assert variant.prompt[0] == first.prompt[0]
        left = [word.casefold().rstrip("?") for word in variant.prompt[-1].content.split()]
        assert len(left) <= len(question.split())


def test_variants_follow_from_the_seed_and_the_row_and_not_from_the_order() -> None:
    rows = [row("a", "How much water does the kettle hold?"), row("b", "Where does the small lamp stand?")]
    forward, backward = with_variants(rows, 5, 1), with_variants(rows[::-1], 5, 1)
    assert sorted(forward, key=lambda r: r.id) == sorted(backward, key=lambda r: r.id)
    assert with_variants(rows, 5, 2) != forward
    assert len({r.prompt[-1].content for r in forward}) > 8
