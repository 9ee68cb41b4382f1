"""The validate stage: from a finished candidate and a held-out file to a verdict."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from synth.core.calls import ChatRequest, Completion
from synth.core.config import build
from synth.core.errors import ConfigError, InferenceError, RunError
from synth.core.jsonl import FileDigest, digest_file, read_lines, write_json, write_jsonl
from synth.core.records import Message, Passage
from synth.core.resources import resource
from synth.core.runs import Run, StageEntry
from synth.inference.scripted import ScriptedTeacher
from synth.inference.weights import weights_revision
from tests.stub_endpoint import stub_endpoint
from tune.budget import prompt_count
from tune.candidate import Candidate
from tune.contenders import WeightsName
from tune.validation import Progress, ValidateConfig, read_verdict, validate
from tune.verdict import Verdict

if TYPE_CHECKING:
    from synth.inference.server import VLLMServer

DOCUMENTS, EACH = 12, 3
CHECKOUT = Path(__file__).resolve().parent.parent

Reply = Callable[[ChatRequest], str | Completion | Exception]


def make_run(folder: Path, *, decontaminated: bool = True) -> tuple[Run, Path]:
    """A run with a dataset about gadgets and the finished candidate "first", and its held-out file."""
    heldout = folder / "heldout.jsonl"
    items = [
        {
            "id": f"{document}-{n}",
            "question": f"How heavy is part {n} of gadget {document}?",
            "answers": [f"{document}{n} grams"],
            "document_id": f"gadget{document}.md",
        }
        for document in range(DOCUMENTS)
        for n in range(EACH)
    ]
    write_jsonl(heldout, items)
    run = Run.create(folder / "run")
    texts = [
        " ".join([f"Gadget {d} has parts.", *(f"Part {n} of gadget {d} weighs {d}{n} grams." for n in range(EACH))])
        for d in range(DOCUMENTS)
    ]
    passages = [Passage(f"gadget{d}.md", text, 0, len(text)) for d, text in enumerate(texts)]
    write_jsonl(run.passages_path, [passage.to_json() for passage in passages])
    rows = [
        {
            "id": f"{d:016x}",
            "document_id": f"gadget{d}.md",
            "prompt": [{"role": "user", "content": f"What does gadget {d} weigh?"}],
            "completion": [{"role": "assistant", "content": f"{d} grams"}],
        }
        for d in range(DOCUMENTS)
    ]
    train = write_jsonl(run.train_path, rows[:8])
    write_jsonl(run.validation_path, rows[8:10])
    inputs = {"heldout": digest_file(heldout)} if decontaminated else {}
    run.finish_stage("filter", StageEntry(config={}, inputs=inputs))
    base = folder / "small"
    write_json(base / "config.json", {"model_type": "none"})
    add_candidate(run, "first", base, train)
    return run, heldout


def add_candidate(
    run: Run,
    name: str,
    base: Path,
    train: FileDigest,
    *,
    finished: str = "2026-01-01T00:00:00Z",
    others: Mapping[str, FileDigest] | None = None,
) -> None:
    """Write a candidate as `tune sft` leaves one, without weights."""
    folder = run.student_path(name)
    folder.mkdir(parents=True, exist_ok=True)
    report = {
        "method": "lora",
        "student": base.name,
        "student_revision": weights_revision(base),
    }
    write_json(folder / "training.json", report)
    if not (folder / "adapter_config.json").exists():
        write_json(folder / "adapter_config.json", {"r": 8, "name": name})
    outputs = {f"students/{name}/{path.name}": digest_file(path) for path in folder.iterdir()}
    entry = StageEntry(
        config={"student": str(base), "method": "lora"},
        inputs={"dataset/train.jsonl": train, **(others or {})},
        outputs=outputs,
        finished=finished,
    )
    run.finish_stage(f"sft:{name}", entry)


def right(request: ChatRequest) -> str:
    """Answer as the held-out file does."""
    words = request.messages[-1].content.removesuffix("?").split()
    return f"{words[-1]}{words[-4]} grams"


def wrong(request: ChatRequest) -> str:
    """Answer beside the point, the more so the longer the prompt."""
    return "grams" if len(request.messages) > 1 else "no idea"


def judged(
    run: Run,
    heldout: Path,
    *,
    base: Reply = wrong,
    tuned: Reply = right,
    **settings: Any,  # noqa: ANN401
) -> tuple[Verdict, ScriptedTeacher, ScriptedTeacher]:
    """Validate with scripted weights."""
    teachers = ScriptedTeacher(base, model="small"), ScriptedTeacher(tuned, model="small+first")
    endpoints: dict[WeightsName, Any] = {"base": teachers[0], "tuned": teachers[1]}
    config = build(ValidateConfig, {"heldout": heldout, "resamples": 1000}, settings)
    return validate(run, config=config, endpoints=endpoints), *teachers


def answers(run: Run, candidate: str = "first") -> list[dict[str, Any]]:
    """The answers on file, contenders in the order of their names."""
    files = sorted((run.answers_path(candidate) / "answers").iterdir())
    return [row for path in files for _, row in read_lines(path)]


def untimed(value: Any) -> Any:  # noqa: ANN401  (any JSON)
    """The value without latencies."""
    if isinstance(value, dict):
        return {key: untimed(held) for key, held in value.items() if key != "latency"}
    return [untimed(held) for held in value] if isinstance(value, list) else value


def test_a_better_student_is_accepted_and_every_answer_is_on_file(tmp_path: Path) -> None:
    run, heldout = make_run(tmp_path)
    verdict, base, tuned = judged(run, heldout)
    assert verdict.accepted
    assert (len(base.requests), len(tuned.requests)) == (3 * 36, 36)
    assert all(r.sampling.temperature == 0 and r.schema is None for r in base.requests + tuned.requests)
    rows = answers(run)
    assert [(row["contender"], row["id"]) for row in rows] == [
        (contender, f"{d}-{n}")
        for contender in ("base", "few-shot", "retrieval", "tuned")
        for d in range(DOCUMENTS)
        for n in range(EACH)
    ]
    last = rows[-1]
    assert (last["answer"], last["references"]) == ("112 grams", ["112 grams"])
    assert last["values"] == {"f1": 1.0, "em": 1.0}
    assert last["prompt"] == [{"role": "user", "content": "How heavy is part 2 of gadget 11?"}]
    assert (
        "Text: Gadget 3 has parts."
        in next(r for r in rows if (r["contender"], r["id"]) == ("retrieval", "3-0"))["prompt"][0]["content"]
    )
    # Few-shot answers "grams" against "00 grams": precision 1, recall 1/2.
    assert verdict.gap("few-shot").points == pytest.approx(100 - 200 / 3, abs=1e-3)
    assert read_verdict(run, "first") == verdict
    assert verdict.subject["heldout"]["places"] == {"train": 24, "validation": 6, "neither": 6}
    entry = run.stages()["validate:first"]
    assert entry.counts["accepted"] == 1 and entry.counts["answers"] == 144
    assert entry.inputs["heldout"] == digest_file(heldout)


def test_no_held_out_text_reaches_another_question(tmp_path: Path) -> None:
    run, heldout = make_run(tmp_path)
    judged(run, heldout)
    for row in answers(run):
        before = [turn["content"] for turn in row["prompt"][:-1]]
        assert not any("How heavy" in text for text in before)
        assert row["prompt"][-1]["content"].count("How heavy") == 1


def test_a_worse_student_is_rejected(tmp_path: Path) -> None:
    run, heldout = make_run(tmp_path)
    verdict, *_ = judged(run, heldout, base=right, tuned=wrong)
    assert not verdict.accepted
    assert run.stages()["validate:first"].counts["accepted"] == 0


def test_the_same_validation_asks_nothing_again(tmp_path: Path) -> None:
    run, heldout = make_run(tmp_path)
    first, *_ = judged(run, heldout)
    before = run.manifest_path.read_bytes()
    again, base, tuned = judged(run, heldout)
    assert again == first
    assert base.requests == tuned.requests == []
    assert run.manifest_path.read_bytes() == before


def test_another_rule_is_judged_from_the_journal(tmp_path: Path) -> None:
    run, heldout = make_run(tmp_path)
    judged(run, heldout)
    verdict, base, tuned = judged(run, heldout, margin=60.0)
    assert not verdict.accepted and "the margin of 60 points" in verdict.text
    assert base.requests == tuned.requests == []


def test_other_weights_never_answer_from_an_old_journal(tmp_path: Path) -> None:
    run, heldout = make_run(tmp_path)
    judged(run, heldout)
    endpoints: dict[WeightsName, Any] = {
        "base": ScriptedTeacher(wrong, model="small"),
        "tuned": ScriptedTeacher(wrong, model="small+other"),
    }
    verdict = validate(run, config=ValidateConfig(heldout=heldout), endpoints=endpoints)
    assert not verdict.accepted
    assert (len(endpoints["base"].requests), len(endpoints["tuned"].requests)) == (0, 36)


def test_the_last_finished_candidate_is_judged_unless_one_is_named(tmp_path: Path) -> None:
    run, heldout = make_run(tmp_path)
    add_candidate(run, "second", tmp_path / "small", digest_file(run.train_path), finished="2026-01-02T00:00:00Z")
    verdict, *_ = judged(run, heldout)
    assert verdict.subject["candidate"] == "second"
    verdict, *_ = judged(run, heldout, candidate="first")
    assert verdict.subject["candidate"] == "first"
    assert {"validate:first", "validate:second"} <= run.stages().keys()
    with pytest.raises(RunError, match="did you mean first"):
        judged(run, heldout, candidate="firts")


def test_a_candidate_that_was_changed_after_tuning_is_refused(tmp_path: Path) -> None:
    run, heldout = make_run(tmp_path)
    (run.student_path("first") / "adapter_config.json").write_text("{}")
    with pytest.raises(RunError, match="not as `tune sft` left it"):
        judged(run, heldout)


def test_an_untuned_model_that_was_changed_after_tuning_is_refused(tmp_path: Path) -> None:
    run, heldout = make_run(tmp_path)
    (tmp_path / "small" / "config.json").write_text("{}")
    with pytest.raises(RunError, match="changed since the candidate was tuned"):
        judged(run, heldout)


def test_a_run_without_a_student_names_the_command(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    with pytest.raises(RunError, match="tune sft"):
        validate(run, config=ValidateConfig(heldout=tmp_path / "h.jsonl"))


def test_a_held_out_question_in_the_training_set_is_reported_and_does_not_decide(tmp_path: Path) -> None:
    run, heldout = make_run(tmp_path)
    with run.train_path.open("ab") as file:
        leak = {"role": "user", "content": "How heavy is part 0  of GADGET 3?"}
        row = {
            "id": "f" * 16,
            "document_id": "d",
            "prompt": [leak],
            "completion": [{"role": "assistant", "content": "x"}],
        }
        file.write(orjson.dumps(row) + b"\n")
    verdict, *_ = judged(run, heldout)
    assert (verdict.all.items, verdict.clean.items) == (36, 35)
    assert verdict.subject["heldout"]["overlap"] == {"exact": 1, "near": 0}
    assert any("1 of 36 held-out questions" in warning for warning in verdict.warnings)
    assert len(answers(run)) == 4 * 36


def test_a_dataset_that_was_not_decontaminated_is_a_loud_warning(tmp_path: Path) -> None:
    run, heldout = make_run(tmp_path, decontaminated=False)
    verdict, *_ = judged(run, heldout)
    assert any("not decontaminated against this held-out file (none was used)" in w for w in verdict.warnings)
    other = tmp_path / "other.jsonl"
    other.write_bytes(heldout.read_bytes() + b"\n")
    run.finish_stage("filter", StageEntry(config={}, inputs={"heldout": digest_file(other)}))
    verdict, *_ = judged(run, heldout, margin=1.0)
    assert any("another one was used" in w for w in verdict.warnings)


def test_a_dataset_that_changed_after_tuning_is_a_warning(tmp_path: Path) -> None:
    run, heldout = make_run(tmp_path)
    write_jsonl(run.train_path, [row for _, row in read_lines(run.train_path)][:6])
    verdict, *_ = judged(run, heldout)
    assert any("is not what the candidate was tuned on" in w for w in verdict.warnings)


def test_a_student_of_rows_from_elsewhere_is_judged_beside_the_contenders_that_need_no_dataset(tmp_path: Path) -> None:
    made, heldout = make_run(tmp_path)
    run = Run.create(tmp_path / "mine")
    add_candidate(run, "first", tmp_path / "small", digest_file(made.train_path))
    verdict, *_ = judged(run, heldout, contenders=("base", "tuned"), must_beat=("base",))
    assert verdict.accepted and any("no dataset of its own" in w for w in verdict.warnings)
    with pytest.raises(RunError, match="leave few-shot out of --contenders"):
        judged(run, heldout, contenders=("base", "few-shot", "tuned"), must_beat=("base",))
    with pytest.raises(RunError, match="passage"):
        judged(run, heldout, contenders=("base", "retrieval", "tuned"), must_beat=("base",))


def test_rows_that_were_learned_beside_the_dataset_are_a_doubt(tmp_path: Path) -> None:
    run, heldout = make_run(tmp_path)
    train = digest_file(run.train_path)
    add_candidate(run, "first", tmp_path / "small", train, others={"replay:old.jsonl": train})
    (said,) = (w for w in judged(run, heldout)[0].warnings if "also learned" in w)
    assert "replay:old.jsonl" in said and "--heldout heldout.jsonl" in said


def test_a_failed_validation_leaves_the_verdict_that_stands(tmp_path: Path) -> None:
    run, heldout = make_run(tmp_path)
    judged(run, heldout)
    before = run.stages()["validate:first"]
    torn = run.answers_path("first") / "answers" / ".base.jsonl.x.part"
    torn.write_text("half")
    with pytest.raises(InferenceError):
        judged(run, heldout, base=lambda _: InferenceError("gone"), max_tokens=65)
    assert run.stages()["validate:first"] == before and not torn.exists()


def test_questions_without_documents_are_a_warning(tmp_path: Path) -> None:
    run, heldout = make_run(tmp_path)
    write_jsonl(heldout, [{k: v for k, v in row.items() if k != "document_id"} for _, row in read_lines(heldout)])
    verdict, *_ = judged(run, heldout)
    assert verdict.documents == 36
    assert any("names no documents" in w for w in verdict.warnings)


def failing_on(text: str) -> Reply:
    """Fail where the question holds `text`, else answer wrong."""
    return lambda request: (
        InferenceError("the prompt is too long") if text in request.messages[-1].content else wrong(request)
    )


def test_few_failed_calls_leave_their_question_out_for_every_contender(tmp_path: Path) -> None:
    run, heldout = make_run(tmp_path)
    verdict, *_ = judged(run, heldout, base=failing_on("part 1 of gadget 3"), max_failed=0.05)
    assert verdict.items == 35 and {row.items for row in verdict.rows} == {35}
    assert any("1 question." in w for w in verdict.warnings)
    failed = [row for row in answers(run) if row["error"]]
    assert [row["contender"] for row in failed] == ["base", "few-shot", "retrieval"]
    assert {row["id"] for row in failed} == {"3-1"}
    assert all(row["answer"] is None and row["values"] == {} for row in failed)
    assert "too long" in failed[0]["error"]
    # The failures are worth another try, and only they are asked again.
    verdict, base, tuned = judged(run, heldout, max_failed=0.05)
    assert verdict.items == 36
    assert (len(base.requests), len(tuned.requests)) == (3, 0)


def test_a_systemic_fault_stops_early_and_keeps_what_was_answered(tmp_path: Path) -> None:
    run, heldout = make_run(tmp_path)
    tuned = ScriptedTeacher(right, model="small+first")
    gone = ScriptedTeacher(failing_on("gadget"), model="small")
    endpoints: dict[WeightsName, Any] = {"base": gone, "tuned": tuned}
    with pytest.raises(InferenceError, match=r"calls failed, so there is no verdict; the first reason: .*too long"):
        validate(run, config=ValidateConfig(heldout=heldout), endpoints=endpoints, max_in_flight=4)
    # One call in 144 may fail; the second failure stops all that is not in flight.
    assert 2 <= len(gone.requests) <= 5
    assert "validate:first" not in run.stages()
    verdict, base, _ = judged(run, heldout)
    assert verdict.accepted and len(base.requests) == 108


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"contenders": "base,tuned", "must_beat": "few-shot"}, "must_beat names 'few-shot'"),
        ({"contenders": "retrieval,tuned"}, "neither base nor few-shot"),
        ({"contenders": "base,few-shot"}, "nothing to judge"),
        ({"contenders": "base,fewshot,tuned"}, "did you mean few-shot"),
        ({"must_beat": "tuned"}, "another contender than the tuned student"),
        ({"server_base": "x"}, "without server"),
        ({"min_document": 3}, "did you mean min_documents"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(ValidateConfig, {"heldout": "h.jsonl"}, settings)


def test_contenders_are_given_as_a_list_or_with_commas(tmp_path: Path) -> None:
    run, heldout = make_run(tmp_path)
    verdict, *_ = judged(run, heldout, contenders=("base,tuned-retrieval", "tuned"), must_beat=["base"])
    assert [row.contender for row in verdict.rows] == ["base", "tuned-retrieval", "tuned"]


def test_progress_counts_every_call(tmp_path: Path) -> None:
    run, heldout = make_run(tmp_path)
    seen: list[Progress] = []
    endpoints: dict[WeightsName, Any] = {
        "base": ScriptedTeacher(wrong, model="small"),
        "tuned": ScriptedTeacher(right, model="tuned"),
    }
    validate(run, config=ValidateConfig(heldout=heldout), endpoints=endpoints, on_progress=seen.append)
    (told,) = (p.told for p in seen if p.told)
    assert told.startswith("By a usual spread: With 36 items a difference under")
    counts = [p for p in seen if not p.told]
    assert [p.done for p in counts] == list(range(145)) and {p.total for p in counts} == {144}


# A process of its own, for what happens at a kill and at Ctrl-C.
SCRIPT = """
import sys
from pathlib import Path
from synth.core.errors import SynthError
from synth.core.runs import Run
from tune.validation import ValidateConfig, validate
run, heldout, url = sys.argv[1:]
config = ValidateConfig(heldout=Path(heldout), server=url, server_base="stub", server_tuned="stub")
try:
    validate(Run.open(Path(run)), config=config, max_in_flight=4)
except SynthError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def start(run: Run, heldout: Path, url: str) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", SCRIPT, str(run.path), str(heldout), url]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)


def stop_when(bodies: Sequence[object], count: int, process: "subprocess.Popen[bytes]", how: signal.Signals) -> str:
    """Send the signal once the endpoint was asked so often; return what the process said at its end."""
    while len(bodies) < count:
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.005)
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    return said.decode()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_validation_goes_on_and_repeats_at_most_the_calls_in_flight(
    tmp_path: Path, how: signal.Signals
) -> None:
    (tmp_path / "a").mkdir()
    run, heldout = make_run(tmp_path / "a")
    whole = Run(tmp_path / "b")
    shutil.copytree(run.path, whole.path)

    def reply(body: dict[str, Any]) -> str:
        return f"{len(body['messages'][-1]['content'])} grams"

    with stub_endpoint(reply, delay=0.3) as stub:
        process = start(run, heldout, stub.url)
        said = stop_when(stub.bodies, 40, process, how)
        asked = len(stub.bodies)
        assert 40 <= asked < 108
        assert "validate:first" not in run.stages()
        if how is signal.SIGINT:
            assert process.returncode == 130
            assert "run the same command again" in said
        config = ValidateConfig(heldout=heldout, server=stub.url, server_base="stub", server_tuned="stub")
        validate(run, config=config)
        calls = Counter(orjson.dumps(body["messages"]) for body in stub.bodies)
        # Base and tuned are one model here, so their questions are the same calls: 36 × 3 in all.
        assert len(calls) == 108
        repeated = sum(calls.values()) - 108
        assert repeated <= 4 if how is signal.SIGKILL else repeated == 0
        validate(whole, config=config)
    stopped, straight = ([{**row, "seconds": None, "in_flight": None} for row in answers(r)] for r in (run, whole))
    assert stopped == straight
    assert {4, 64} <= {row["in_flight"] for row in answers(run)}
    assert all(row["seconds"] > 0 for row in answers(run))
    # What was timed differs, and so may the check that asks whether the student is faster than retrieval.
    first, second = (untimed(read_verdict(r, "first").to_json()["tables"]) for r in (run, whole))
    assert first == second


def test_a_server_that_serves_other_models_is_named(tmp_path: Path) -> None:
    run, heldout = make_run(tmp_path)
    with stub_endpoint() as stub:
        with pytest.raises(ConfigError, match=r"does not serve 'small'; known: stub"):
            validate(run, config=ValidateConfig(heldout=heldout, server=stub.url))
        assert stub.bodies == []


@pytest.mark.vllm
def test_answers_of_the_real_engine_are_scored(tmp_path: Path, engine: "VLLMServer") -> None:
    run, heldout = make_run(tmp_path)
    config = ValidateConfig(
        heldout=heldout,
        server=engine.base_url,
        server_base=engine.served,
        server_tuned=engine.served,
        max_tokens=16,
        resamples=1000,
    )
    verdict = validate(run, config=config)
    # The same weights on both sides: the student cannot be better than itself.
    assert not verdict.accepted
    assert verdict.gap("base").points == 0.0
    assert verdict.items == 36
    rows = answers(run)
    assert all(row["finish_reason"] in ("stop", "length") for row in rows)
    assert all(row["seconds"] > 0 and 0 < row["confidence"] <= 1 for row in rows)
    weights = resource("demo", "models") / "teacher"
    count = prompt_count(Candidate("teacher", weights, "full", "teacher", weights, "", {}, False))
    assert all(count([Message(**turn) for turn in row["prompt"]]) == row["prompt_tokens"] for row in rows)
    assert "not checked" in " ".join(verdict.warnings)


@pytest.mark.vllm
def test_an_adapter_changes_the_tuned_answers_and_leaves_those_of_its_base_alone(
    tmp_path: Path, engine: "VLLMServer"
) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    weights = resource("demo", "models") / "teacher"
    run, heldout = make_run(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(weights, local_files_only=True)
    # Not the neutral start of a training: random matrices, scaled up until nothing of the model is left.
    loud = LoraConfig(r=8, lora_alpha=256, target_modules="all-linear", init_lora_weights=False)
    lora = get_peft_model(model, loud)
    lora.save_pretrained(run.student_path("loud"), save_embedding_layers=False)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(weights / name, run.student_path("loud") / name)
    add_candidate(run, "loud", weights, digest_file(run.train_path), finished="2026-01-02T00:00:00Z")
    alone = ValidateConfig(
        heldout=heldout, server=engine.base_url, server_base=engine.served, server_tuned=engine.served, max_tokens=16
    )
    validate(run, config=alone)
    expected = {(r["contender"], r["id"]): r["answer"] for r in answers(run, "loud")}
    started = alone.model_copy(update={"server": None, "server_base": None, "server_tuned": None})
    verdict = validate(run, config=started)
    found = {(r["contender"], r["id"]): r["answer"] for r in answers(run, "loud")}
    assert verdict.subject["served_by"] == "vllm"
    # Greedy answers may part at a near tie when batches differ; an adapter at work changes nearly all of them.
    untuned = [key for key in found if key[0] != "tuned"]
    assert sum(found[key] == expected[key] for key in untuned) >= 0.9 * len(untuned)
    tuned = [key for key in found if key[0] == "tuned"]
    assert sum(found[key] == expected[key] for key in tuned) <= 0.1 * len(tuned)
