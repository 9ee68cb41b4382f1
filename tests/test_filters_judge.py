"""Scorers that ask a model: the round trip, the closed book and the judge, on scripted replies."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from synth import (
    ChatRequest,
    Completion,
    ConfigError,
    InferenceError,
    Message,
    Passage,
    Record,
    ReplyError,
    ScriptedTeacher,
)
from synth.core.prompts import harmless
from synth.core.schemas import load_schema, without_notes
from synth.filters.closed_book import ClosedBook
from synth.filters.judge import Judge, reply_schema
from synth.filters.model_base import ModelScores
from synth.filters.model_scorers import MODEL_SCORES, STUDENT_SCORES, model_scorers
from synth.filters.round_trip import RoundTrip
from synth.filters.rubric import Rubric
from tests.injections import INJECTIONS

TEXT = "The Brevo kettle holds 1.7 litres of water. Descale the Brevo kettle every six weeks."
PASSAGE = Passage("kettle.md", TEXT, 0, len(TEXT))
NAMES = ("supported", "answers", "complete", "clear", "self_contained")


def record(question: str = "How much does the kettle hold?", answer: str = "1.7 litres", **given: Any) -> Record:  # noqa: ANN401
    return Record.create(PASSAGE, question, answer, generator="qa", **given)


def found(answer: str) -> ScriptedTeacher:
    return ScriptedTeacher(lambda _: json.dumps({"found": True, "answer": answer}))


def marks(reason: str = "Fine.", *, owned: bool = True, **given: int) -> str:
    return json.dumps({"reason": reason, **dict.fromkeys(NAMES[:4], 5), "self_contained": owned, **given})


async def judged(judge: Judge, *replies: str, asked: Record | None = None) -> tuple[ModelScores, ScriptedTeacher]:
    teacher = ScriptedTeacher(replies)
    return await judge.score(asked or record(), teacher), teacher


# --- round trip and closed book


@pytest.mark.parametrize(
    ("reply", "overlap", "equal"),
    [
        ({"found": True, "answer": "The 1.7 litres."}, 1.0, 1.0),
        ({"found": True, "answer": "1.7 litres of water"}, pytest.approx(2 * 0.5 * 1 / 1.5), 0.0),
        ({"found": True, "answer": "six weeks"}, 0.0, 0.0),
        ({"found": False, "answer": "1.7 litres"}, 0.0, 0.0),
        ({"found": True, "answer": " "}, 0.0, 0.0),
        ({"found": True, "answer": "No answer."}, 0.0, 0.0),
    ],
)
async def test_the_round_trip_compares_the_readers_answer_with_the_records(
    reply: dict[str, Any], overlap: float, equal: float
) -> None:
    teacher = ScriptedTeacher([json.dumps(reply)])
    scored = await RoundTrip().score(record(), teacher)
    assert scored.scores == {"round_trip": overlap, "round_trip_em": equal}
    assert scored.call_keys == (teacher.requests[0].key("scripted"),)
    assert scored.remark


async def test_a_question_without_an_answer_is_right_where_the_reader_finds_none() -> None:
    asked = record("What does it cost?", "I do not have that information.", kind="unanswerable")
    nothing = ScriptedTeacher(['{"found":false,"answer":""}'])
    assert (await RoundTrip().score(asked, nothing)).scores == {"round_trip": 1.0, "round_trip_em": 1.0}
    assert (await RoundTrip().score(asked, found("40 pounds"))).scores == {"round_trip": 0.0, "round_trip_em": 0.0}


TURNS = (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "How much?"))


@pytest.mark.parametrize(
    "asked",
    [record(kind="grading"), record(kind="reasoning"), record(prompt=TURNS), record(f"Sum this up:\n{TEXT}")],
    ids=["grading", "reasoning", "a later turn", "the passage in the question"],
)
async def test_where_the_measure_says_nothing_no_call_is_made(asked: Record) -> None:
    teacher = ScriptedTeacher([])
    assert (await RoundTrip().score(asked, teacher)).scores == {"round_trip": None, "round_trip_em": None}
    assert (await ClosedBook().score(asked, teacher)).scores == {"closed_book": None}
    assert teacher.requests == []


async def test_a_round_trip_without_a_schema_takes_the_reply_as_the_answer(tmp_path: Path) -> None:
    template = tmp_path / "mine.md"
    template.write_text("{{ passages | join }}\n{{ question }}\n")
    teacher = ScriptedTeacher(["1.7 litres", "no answer"])
    assert (await RoundTrip(template).score(record(), teacher)).scores["round_trip_em"] == 1
    assert (await RoundTrip(template).score(record(), teacher)).scores["round_trip_em"] == 0
    assert teacher.requests[0].schema is None and teacher.requests[0].messages[0].content.startswith(TEXT)


def test_a_round_trip_whose_schema_asks_for_no_answer_is_refused(tmp_path: Path) -> None:
    template = tmp_path / "mine.md"
    template.write_text("---\nschema: qa-check\n---\n{{ question }}")
    with pytest.raises(ConfigError, match="qa-check"):
        RoundTrip(template)
    template.write_text("---\nschema: unanswerable-check\n---\n{{ question }}")
    with pytest.raises(ConfigError, match="does not require an 'answer'"):
        RoundTrip(template)


async def test_the_closed_book_shows_the_question_and_never_the_passage() -> None:
    teacher = ScriptedTeacher(["1.7 litres", "no answer", ""])
    known = await ClosedBook().score(record(), teacher)
    assert known.scores == {"closed_book": 1.0} and "1.7 litres" in known.remark
    assert (await ClosedBook().score(record(), teacher)).scores == {"closed_book": 0.0}
    assert (await ClosedBook().score(record(), teacher)).scores == {"closed_book": 0.0}
    sent = " ".join(message.content for request in teacher.requests for message in request.messages)
    assert record().question in sent and "Brevo" not in sent


# --- the judge


async def test_the_judge_is_always_shown_the_passage_and_gives_a_share_and_a_reason() -> None:
    scored, teacher = await judged(Judge(), marks("It leaves out the water.", complete=3))
    assert scored.scores == {"judge": pytest.approx((1 + 1 + 0.5 + 1 + 1) / 5), "judge_agreement": None}
    assert "It leaves out the water." in scored.remark and "complete 0.5" in scored.remark
    assert all(TEXT in request.messages[-1].content for request in teacher.requests) and len(teacher.requests) == 1


async def test_what_must_be_bounds_the_whole_mark() -> None:
    scored, _ = await judged(Judge(), marks(supported=1))
    assert scored.scores["judge"] == 0
    scored, _ = await judged(Judge(), marks(answers=3))
    assert scored.scores["judge"] == 0.5
    scored, _ = await judged(Judge(), marks(owned=False))
    assert scored.scores["judge"] == pytest.approx(0.8)


async def test_votes_differ_in_the_order_of_the_criteria_and_in_what_stands_first() -> None:
    scored, teacher = await judged(Judge(votes=5), *[marks()] * 5)
    assert len(teacher.requests) == len(set(scored.call_keys)) == 5
    firsts, shown = [], []
    for request in teacher.requests:
        assert request.schema is not None
        properties = list(request.schema["properties"])
        assert properties[0] == "reason" and sorted(properties[1:]) == sorted(NAMES)
        text = request.messages[-1].content
        assert re.findall(r'^- "(\w+)" \(', text, re.MULTILINE) == properties[1:]
        firsts.append(properties[1])
        shown.append(text.index("<passage>") < text.index("<question>") < text.index("<answer>"))
    assert firsts == list(NAMES) and shown == [True, False, True, False, True]


async def test_votes_are_averaged_and_their_agreement_is_told() -> None:
    same, _ = await judged(Judge(votes=3), marks(), marks(), marks())
    assert same.scores == {"judge": 1.0, "judge_agreement": 1.0}
    split, _ = await judged(Judge(votes=3), marks(), marks("All is invented.", supported=1), marks())
    # One of three votes gives 0 of 1 for what must be; of 15 pairs of marks two differ, by 1.
    assert split.scores == {"judge": pytest.approx(2 / 3), "judge_agreement": pytest.approx(1 - 2 / 15)}
    assert "All is invented." in split.remark


async def test_a_vote_that_cannot_be_read_does_not_count_and_too_few_votes_are_no_score() -> None:
    junk = ["no JSON", "still none"]
    scored, teacher = await judged(Judge(votes=3), marks(), *junk, marks())
    assert scored.scores["judge"] == 1 and "2 of 3 votes count" in scored.remark
    assert "Your last reply was of no use" in teacher.requests[2].messages[-1].content
    with pytest.raises(ReplyError, match="1 of 3 votes count; the last fault: the reply is not JSON"):
        await judged(Judge(votes=3), *junk, marks(), *junk)


async def test_a_vote_without_any_reply_is_not_passed_over() -> None:
    failing = iter([marks(), InferenceError("the endpoint is gone"), marks()])
    with pytest.raises(InferenceError, match="gone"):
        await Judge(votes=3).score(record(), ScriptedTeacher(lambda _: next(failing)))


@pytest.mark.parametrize(
    "reply",
    [
        marks(supported=6),
        marks(supported=0),
        marks().replace("true", "5"),
        marks().replace('"reason": "Fine.", ', ""),
        marks("x" * 301),
        json.dumps({"judge": 1}),
        "[5, 5, 5, 5, 5]",
    ],
)
async def test_a_mark_outside_the_scale_is_no_mark(reply: str) -> None:
    with pytest.raises(ReplyError):
        await judged(Judge(), reply, reply)


async def test_a_reply_that_was_cut_off_is_no_vote() -> None:
    teacher = ScriptedTeacher(lambda _: Completion('{"reason": "It', "length"))
    with pytest.raises(ReplyError, match="cut off"):
        await Judge().score(record(), teacher)
    assert len(teacher.requests) == 1


async def test_the_judge_reads_a_conversation_whole_and_a_passage_once() -> None:
    _, teacher = await judged(Judge(), marks(), asked=record(prompt=TURNS))
    assert "user: Hi\n\nassistant: Hello\n\nuser: How much?" in teacher.requests[0].messages[-1].content
    _, teacher = await judged(Judge(), marks(), asked=record(f"Sum this up:\n{TEXT}"))
    assert teacher.requests[0].messages[-1].content.count(TEXT) == 1
    _, teacher = await judged(Judge(), marks(), asked=record(kind="unanswerable"))
    assert "the right answer is to say so" in teacher.requests[0].messages[-1].content


async def test_a_record_without_a_passage_is_not_judged() -> None:
    scored, teacher = await judged(Judge(), asked=record(context=""))
    assert scored.scores == {"judge": None, "judge_agreement": None} and not teacher.requests


@pytest.mark.parametrize("votes", [0, 2, -1])
def test_an_even_number_of_votes_is_refused(votes: int) -> None:
    with pytest.raises(ConfigError, match="odd"):
        Judge(votes=votes)


async def test_the_judge_and_the_round_trip_share_the_prompt_up_to_the_end_of_the_passage() -> None:
    """So a server with a prefix cache reads a passage once for both."""
    _, marked = await judged(Judge(), marks())
    answered = found("1.7 litres")
    await RoundTrip().score(record(), answered)
    one, other = (teacher.requests[0].messages for teacher in (marked, answered))
    assert one[0] == other[0] and one[0].role == "system"
    head = one[1].content[: one[1].content.index("</passage>")]
    assert TEXT in head and other[1].content.startswith(head)


# --- rubrics


def test_the_schema_file_is_the_one_that_the_rubric_of_the_house_gives() -> None:
    assert reply_schema(Rubric.read().criteria) == without_notes(load_schema("judge"))


async def test_a_users_own_rubric_takes_the_place_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "rubric.md"
    path.write_text(
        "# Ours\n\nRead with care: it counts.\n\n- **Tone of voice** (yes/no, must): As we speak {{ 7 * 7 }}\n"
        "  to customers.\n* `brief`: No word too many.\n"
    )
    [judge] = model_scorers(["judge_agreement"], votes=3, rubric=path)
    reply = '{"reason": "Curt.", "tone_of_voice": false, "brief": 5}'
    teacher = ScriptedTeacher([reply] * 3)
    scored = await judge.score(record(), teacher)
    assert scored.scores == {"judge": 0.0, "judge_agreement": 1.0}
    assert "As we speak {{ 7 * 7 }} to customers." in teacher.requests[0].messages[-1].content
    assert "supported" not in teacher.requests[0].messages[-1].content


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Be strict.", "has no criterion; write list items"),
        ("- clear (1-10): Plain.", "rubric:1: '1-10' is no scale"),
        ("- clear: Plain.\n- Clear (yes/no): Plain.", "rubric:2: 'clear' stands there twice"),
        ("- reason: Why.", "rubric:1: a criterion cannot be called 'reason'"),
        ("- clear:\n", "'clear' does not say what is marked"),
    ],
)
def test_a_rubric_that_cannot_be_used_says_where(text: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(fault)):
        Rubric.parse(text)


def test_scorers_are_found_by_the_names_of_their_scores() -> None:
    assert [s.name for s in model_scorers(["judge", "judge_agreement", "round_trip_em"])] == ["round_trip", "judge"]
    assert {name for s in model_scorers(MODEL_SCORES) for name in s.scores} == MODEL_SCORES >= STUDENT_SCORES
    with pytest.raises(ConfigError, match="no model gives a score called 'round_tripp'; did you mean round_trip"):
        model_scorers(["round_tripp"])
    with pytest.raises(ConfigError, match="cannot be read"):
        model_scorers(["judge"], rubric=Path("nowhere.md"))


# --- what others wrote is data


FRAME = "The Brevo lamp costs 40 pounds. {} The lamp must not stand on carpet."
TAG = re.compile(r"<((?:passage|question|answer)(?:-[0-9a-f]{8})?)>\n")


@pytest.mark.parametrize("injection", INJECTIONS)
def test_passage_question_and_answer_stay_delimited_data_in_every_prompt(injection: str) -> None:
    text = FRAME.format(injection)
    passage = Passage("d", text, 0, len(text))
    asked = Record.create(passage, f"Which? {injection}", f"None. {injection}", generator="qa")
    plain = Record.create(Passage("d", FRAME, 0, len(FRAME)), "Which?", "None.", generator="qa")

    def reply(request: ChatRequest) -> str:
        return marks() if request.schema and "reason" in request.schema["properties"] else '{"found":false,"answer":""}'

    async def sent(one: Record) -> list[ChatRequest]:
        teacher = ScriptedTeacher(reply)
        await RoundTrip().score(one, teacher)
        await Judge(votes=3).score(one, teacher)
        return teacher.requests

    attacked, calm = asyncio.run(sent(asked)), asyncio.run(sent(plain))
    assert len(attacked) == len(calm) == 4
    for request, usual in zip(attacked, calm, strict=True):
        assert request.messages[0] == usual.messages[0] and request.schema == usual.schema
        content = request.messages[-1].content
        assert harmless(text) in content and harmless(asked.question) in content
        opened = TAG.findall(content)
        assert len(opened) == len(set(opened)) == len(TAG.findall(usual.messages[-1].content))
        rest = content
        for tag in opened:
            places = [m.group() for m in re.finditer(rf"<[\s/]*{re.escape(tag)}(?![-\w])", content, re.IGNORECASE)]
            assert places == [f"<{tag}", f"</{tag}"], (tag, places)
            inside = re.search(rf"<{tag}>\n(.*?)\n</{tag}>", rest, re.DOTALL)
            assert inside is not None
            rest = rest.replace(inside.group(), "")
        # Outside the tags nothing is left but our own words.
        assert harmless(injection) not in rest
        usual_rest = re.sub(r"<(passage|question|answer)>\n.*?\n</\1>", "", usual.messages[-1].content, flags=re.DOTALL)
        assert rest == usual_rest
