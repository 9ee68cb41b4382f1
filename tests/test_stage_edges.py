"""Odd generators, odd ends: what the stage makes of them."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from synth import (
    ChatRequest,
    Completion,
    ConfigError,
    GenerateConfig,
    InferenceError,
    Interrupted,
    Passage,
    Record,
    ReplyError,
    RunError,
    ScriptedTeacher,
    Usage,
)
from synth.core.errors import RefusedError
from synth.core.schemas import fault_of
from synth.filtering.config import FilterConfig
from synth.job import Job, check_flags, settings_of
from tests.test_generate import big_folder, lines, pair, run_it

ASK = "from synth import Message, Record\n"


def generator_file(path: Path, body: str) -> str:
    """Write a generator called `G` whose method is `body`, and return its spec."""
    indented = "\n".join(f"        {line}" for line in body.strip().splitlines())
    path.write_text(
        f"import asyncio\n{ASK}class G:\n    name = 'g'\n    async def generate(self, passage, teacher):\n{indented}\n"
    )
    return f"{path}:G"


class Slow(ScriptedTeacher):
    """Takes a moment for each reply."""

    async def complete(self, request: ChatRequest) -> Completion:
        await asyncio.sleep(0.002)
        return await super().complete(request)


SWALLOWS = """
try:
    reply = await teacher.chat([Message("user", passage.text)])
except Exception:
    return []
return [Record.create(passage, f"What of {passage.document_id}?", reply.text, generator="g")]
"""


async def test_a_generator_that_swallows_errors_cannot_hide_that_the_run_was_stopped_or_capped(tmp_path: Path) -> None:
    folder, spec = big_folder(tmp_path / "docs", 100), generator_file(tmp_path / "g.py", SWALLOWS)
    stop = asyncio.Event()

    def reply(request: ChatRequest) -> str:
        if len(teacher.requests) == 10:
            stop.set()
        return "a"

    teacher = Slow(reply)
    config = GenerateConfig(generator=(spec,))
    with pytest.raises(Interrupted):
        await run_it(tmp_path / "run", folder, teacher, config, stop=stop)
    summary = await run_it(tmp_path / "run", folder, Slow(lambda _: "a"), config)
    assert summary.records == 100
    capped = await run_it(tmp_path / "capped", folder, Slow(lambda _: "a"), config.model_copy(update={"max_calls": 30}))
    assert capped.capped == "max_calls" and capped.records == 30 and capped.units_left == 70


async def test_the_same_command_under_a_cap_gives_the_same_records_again(tmp_path: Path) -> None:
    folder = big_folder(tmp_path / "docs", 300)
    config = GenerateConfig(max_calls=405)
    first = await run_it(tmp_path / "run", folder, Slow(pair), config)
    again = await run_it(tmp_path / "run", folder, ScriptedTeacher(pair), config)
    assert again.records == first.records and again.calls == 0
    # Every answer that was paid for is counted, also of units that the cap ended on the way.
    assert first.calls == 405 and first.calls == first.calls_used + first.calls_quarantined + first.calls_between


async def test_a_stop_while_the_journal_is_replayed_leaves_the_records_of_before(tmp_path: Path) -> None:
    folder = big_folder(tmp_path / "docs", 300)
    await run_it(tmp_path / "run", folder, ScriptedTeacher(pair), GenerateConfig(max_calls=500))
    before = len(lines(tmp_path / "run" / "records.jsonl"))
    stop = asyncio.Event()
    stop.set()
    with pytest.raises(Interrupted):
        await run_it(tmp_path / "run", folder, ScriptedTeacher(pair), GenerateConfig(), stop=stop)
    assert before > 400 and len(lines(tmp_path / "run" / "records.jsonl")) == before


async def test_rules_that_accept_less_make_a_finished_number_unfinished(tmp_path: Path) -> None:
    folder = big_folder(tmp_path / "docs", 60)
    config = GenerateConfig(num_records=20)
    first = await run_it(tmp_path / "run", folder, ScriptedTeacher(pair), config, accept=len)
    assert not first.wanting
    same = await run_it(tmp_path / "run", folder, ScriptedTeacher(pair), config, accept=len)
    assert same.current

    def half(records: Sequence[Record]) -> int:
        return len(records) // 2

    teacher = ScriptedTeacher(pair)
    stricter = await run_it(tmp_path / "run", folder, teacher, config, accept=half)
    assert not stricter.current and stricter.records >= 40 and teacher.requests


async def test_a_number_of_records_is_not_overshot_where_several_generators_write(tmp_path: Path) -> None:
    folder = big_folder(tmp_path / "docs", 120)
    specs = tuple(generator_file(tmp_path / f"g{i}.py", SWALLOWS.replace("What of", f"What {i} of")) for i in range(3))
    config = GenerateConfig(generator=specs, num_records=150)
    summary = await run_it(tmp_path / "run", folder, ScriptedTeacher(lambda _: "a"), config, accept=len)
    assert 150 <= summary.records < 200


async def test_a_record_of_the_wrong_form_is_a_line_of_quarantine_and_not_of_the_records(tmp_path: Path) -> None:
    body = """
reply = await teacher.chat([Message("user", passage.text)])
answer = None if passage.document_id.endswith("3.md") else reply.text
return [Record.create(passage, f"What of {passage.document_id}?", answer, generator="g")]
"""
    folder, spec = big_folder(tmp_path / "docs", 20), generator_file(tmp_path / "g.py", body)
    config = GenerateConfig(generator=(spec,))
    summary = await run_it(tmp_path / "run", folder, ScriptedTeacher(lambda _: "a"), config)
    refused = lines(tmp_path / "run" / "quarantine.jsonl")
    assert summary.records == 18 and len(refused) == 2
    assert all("is not of type 'string'" in str(row["reason"]) for row in refused)


@pytest.mark.parametrize(
    "schema",
    [{"type": ["string", "null"]}, {"type": "object", "properties": {"x": True}}, {"type": "array", "items": True}, {}],
)
def test_schemas_of_unusual_form_are_left_to_jsonschema(schema: dict[str, object]) -> None:
    values = {"object": {"x": 1}, "array": [1]}.get(str(schema.get("type")))
    assert fault_of(values, schema) is None


def test_a_schema_that_does_not_hold_names_the_fault() -> None:
    schema = {"type": "object", "properties": {"x": {"type": ["string", "null"]}}, "required": ["x"]}
    assert "3 is not of type 'string', 'null'" in str(fault_of({"x": 3}, schema))


async def test_one_odd_passage_does_not_end_the_job(tmp_path: Path) -> None:
    folder = big_folder(tmp_path / "docs", 20)
    (folder / "plain.txt").write_text("The plain text has no heading at all and weighs nothing.")
    template = tmp_path / "odd.md"
    template.write_text(
        "---\nschema: {type: object, properties: {question: {type: string}, answer: {type: string}},"
        " required: [question, answer]}\n---\n{{ headings[0] }}: {{ passage | fence }}\n"
    )
    teacher = ScriptedTeacher(lambda _: '{"question": "What is it?", "answer": "A thing."}')
    summary = await run_it(tmp_path / "run", folder, teacher, GenerateConfig(generator=(str(template),)))
    refused = lines(tmp_path / "run" / "quarantine.jsonl")
    assert summary.records == 20 and [row["document_id"] for row in refused] == ["plain.txt"]


async def test_a_generator_that_always_fails_ends_the_run_and_keeps_the_records_before_it(tmp_path: Path) -> None:
    body = """
reply = await teacher.chat([Message("user", passage.text)])
if int(passage.document_id[1:4]) >= 10:
    raise KeyError("colour")
return [Record.create(passage, f"What of {passage.document_id}?", reply.text, generator="g")]
"""
    folder, spec = big_folder(tmp_path / "docs", 100), generator_file(tmp_path / "g.py", body)
    with pytest.raises(RunError, match=r"\d+ passages in a row gave nothing.*KeyError: 'colour' \(g\.py:\d+\)"):
        await run_it(tmp_path / "run", folder, ScriptedTeacher(lambda _: "a"), GenerateConfig(generator=(spec,)))
    assert len(lines(tmp_path / "run" / "records.jsonl")) == 10


async def test_a_cancellation_of_the_generators_own_is_no_end_of_the_run(tmp_path: Path) -> None:
    body = """
if passage.document_id == "d003.md":
    task = asyncio.ensure_future(asyncio.sleep(60))
    task.cancel()
    await task
reply = await teacher.chat([Message("user", passage.text)])
return [Record.create(passage, f"What of {passage.document_id}?", reply.text, generator="g")]
"""
    folder, spec = big_folder(tmp_path / "docs", 10), generator_file(tmp_path / "g.py", body)
    config = GenerateConfig(generator=(spec,))
    summary = await run_it(tmp_path / "run", folder, ScriptedTeacher(lambda _: "a"), config)
    assert summary.records == 9 and summary.quarantined == 1


async def test_requests_that_are_refused_for_good_end_in_quarantine_and_the_run_is_finished(tmp_path: Path) -> None:
    folder = big_folder(tmp_path / "docs", 60)

    def reply(request: ChatRequest) -> str | Exception:
        number = int(request.messages[-1].content.split("Part ")[1].split(")")[0].split()[0])
        return RefusedError("the request is longer than the model's context") if 20 <= number < 45 else pair(request)

    summary = await run_it(tmp_path / "run", folder, Slow(reply))
    assert summary.records == 70 and summary.calls_declined == 50 and summary.calls_failed == 0
    assert (await run_it(tmp_path / "run", folder, ScriptedTeacher(pair))).current


async def test_an_endpoint_that_refuses_everything_ends_the_run_early(tmp_path: Path) -> None:
    folder = big_folder(tmp_path / "docs", 900)
    teacher = Slow(lambda _: RefusedError("the endpoint answers 400"))
    with pytest.raises(InferenceError, match="256 passages in a row got no answer.*answers 400"):
        await run_it(tmp_path / "run", folder, teacher)
    assert len(teacher.requests) < 1500


async def test_a_call_that_two_generators_share_is_counted_once(tmp_path: Path) -> None:
    folder = big_folder(tmp_path / "docs", 10)
    options = {"qa": {"question_types": [], "difficulties": []}}
    other = tmp_path / "same.py"
    other.write_text("from synth.generators.qa import QA\nclass Same(QA):\n    name = 'same'\n")
    config = GenerateConfig(generator=("qa", f"{other}:Same"), options={**options, "same": options["qa"]})
    teacher = Slow(pair)
    summary = await run_it(tmp_path / "run", folder, teacher, config)
    assert summary.calls == len(teacher.requests) == 20 and summary.calls_replayed == 20
    assert (
        summary.calls + summary.calls_replayed == summary.calls_used + summary.calls_quarantined + summary.calls_between
    )


async def test_an_emptied_records_file_is_written_again(tmp_path: Path, manuals: Path) -> None:
    await run_it(tmp_path / "run", manuals, ScriptedTeacher(pair))
    (tmp_path / "run" / "records.jsonl").write_bytes(b"")
    summary = await run_it(tmp_path / "run", manuals, ScriptedTeacher(pair))
    assert not summary.current and summary.calls == 0 and len(lines(tmp_path / "run" / "records.jsonl")) == 5


async def test_what_a_killed_write_left_behind_is_swept_up(tmp_path: Path, manuals: Path) -> None:
    (tmp_path / "run").mkdir()
    left = tmp_path / "run" / ".records.jsonl.abc.part"
    left.write_text("half")
    await run_it(tmp_path / "run", manuals, ScriptedTeacher(pair))
    assert not left.exists()


async def test_shards_share_a_sample_of_the_passages(tmp_path: Path) -> None:
    folder = big_folder(tmp_path / "docs", 60)
    asked = 0
    for index in range(3):
        config = GenerateConfig(shard=f"{index}/3", max_passages=12)
        asked += (await run_it(tmp_path / f"s{index}", folder, ScriptedTeacher(pair), config)).units
    assert asked == 12


async def test_a_setting_for_every_generator_that_none_takes_is_an_error_with_near_matches(
    tmp_path: Path, manuals: Path
) -> None:
    with pytest.raises(ConfigError, match="none of the generators takes 'evidense'.*did you mean evidence"):
        await run_it(
            tmp_path / "r", manuals, ScriptedTeacher(pair), GenerateConfig(options={"*": {"evidense": "index"}})
        )
    with pytest.raises(ConfigError, match="none of the generators takes 'rubric'"):
        await run_it(tmp_path / "r", manuals, ScriptedTeacher(pair), GenerateConfig(options={"*": {"rubric": "r.md"}}))


@pytest.mark.parametrize(
    ("source", "fault"),
    [("def (", "is no valid Python"), ("raise NameError('x')", "NameError"), ("1 / 0", "ZeroDivisionError")],
)
async def test_a_module_that_cannot_be_imported_is_a_clear_error(
    tmp_path: Path, manuals: Path, source: str, fault: str
) -> None:
    (tmp_path / "broken.py").write_text(source)
    with pytest.raises(ConfigError, match=fault):
        await run_it(
            tmp_path / "r", manuals, ScriptedTeacher(pair), GenerateConfig(generator=(f"{tmp_path}/broken.py:X",))
        )


def test_a_rule_on_confidence_asks_for_log_probabilities() -> None:
    job = Job(("d",), Path("r"), GenerateConfig(), rules=FilterConfig(rule=("confidence >= 0.9",)))
    assert settings_of(job).logprobs and not settings_of(Job(("d",), Path("r"), GenerateConfig())).logprobs


def test_flags_that_would_do_nothing_are_errors() -> None:
    with pytest.raises(ConfigError, match="--teacher-model: a model's name is for an endpoint"):
        check_flags(Job(("d",), Path("r"), GenerateConfig(), teacher=("models/x",), teacher_model="y"))
    with pytest.raises(ConfigError, match="--vllm-arg"):
        check_flags(Job(("d",), Path("r"), GenerateConfig(), teacher=("http://h/v1",), vllm_args=("--x",)))


async def test_a_reply_that_was_cut_off_before_its_answer_is_counted_and_kept(tmp_path: Path, manuals: Path) -> None:
    teacher = ScriptedTeacher(lambda _: Completion("", "length", Usage(10, 50), reasoning="Let me think"))
    with pytest.raises(RunError, match="none of 3 passages gave a record"):
        await run_it(tmp_path / "run", manuals, teacher)
    refused = lines(tmp_path / "run" / "quarantine.jsonl")
    assert len(refused) == 5 == len(teacher.requests)
    assert all("max_tokens" in str(row["reason"]) for row in refused)
    journal = [row for path in (tmp_path / "run" / "journal").iterdir() for row in lines(path)]
    assert all(json.loads(json.dumps(row))["response"]["reasoning"] == "Let me think" for row in journal)  # type: ignore[index]


def test_reply_errors_are_inference_errors() -> None:
    assert issubclass(ReplyError, InferenceError) and issubclass(RefusedError, InferenceError)
    assert Passage("d.md", "The lamp.", 0, 9).id
