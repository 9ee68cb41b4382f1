"""Which weights are up together, under which names, and what a server that runs already is asked for."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from synth.core.calls import ChatRequest, Sampling
from synth.core.errors import ConfigError, RunError
from synth.core.heldout import HeldoutItem
from synth.core.jsonl import digest_file, write_json, write_jsonl
from synth.core.records import Message
from synth.core.runs import Run, StageEntry
from synth.inference.weights import weights_revision
from tests.stub_endpoint import stub_endpoint
from tune.answers import answer_all, make_calls
from tune.candidate import Candidate
from tune.contenders import make_contenders
from tune.serving import Service, at_server, by_vllm, find_earlier, teacher_service

ITEM = HeldoutItem("1", "Why?", ("so",), "d")


def candidate(folder: Path, name: str, *, adapter: bool = True, template: str = "{{ messages }}") -> Candidate:
    """A saved candidate of the model "small", without weights."""
    model, own = folder / "small", folder / name
    if not model.exists():
        write_json(model / "config.json", {})
    write_json(own / ("adapter_config.json" if adapter else "config.json"), {"r": 8, "name": name})
    (own / "chat_template.jinja").write_text(template)
    method = "lora" if adapter else "full"
    return Candidate(name, own, method, "small", model, weights_revision(model), {}, False)


def up(services: list[Service]) -> list[list[str]]:
    """The weights of each service."""
    return [list(service.weights) for service in services]


def test_adapters_of_one_model_share_its_server_where_that_is_sound(tmp_path: Path) -> None:
    judged = candidate(tmp_path, "third")
    earlier = {"candidate:first": candidate(tmp_path, "first"), "candidate:second": candidate(tmp_path, "second")}
    log = tmp_path / "log"
    together = by_vllm(judged, log_path=log, max_in_flight=1, earlier=earlier, together=True)
    apart = by_vllm(judged, log_path=log, max_in_flight=1, earlier=earlier, together=False)
    assert up(together) == [["base", "tuned", "candidate:first", "candidate:second"]]
    assert up(apart) == [["base"], ["tuned"], ["candidate:first"], ["candidate:second"]]
    # How they are served does not change what they are: answers in the journal hold for both.
    assert together[0].weights == {name: held for service in apart for name, held in service.weights.items()}
    names = {held.model for held in together[0].weights.values()}
    assert names == {"small", "small+third", "small+first", "small+second"}


def test_answers_under_other_options_or_through_another_template_are_kept_apart(tmp_path: Path) -> None:
    def revisions(*args: str, template: str = "{{ messages }}") -> dict[str, str]:
        judged = candidate(tmp_path, "third", template=template)
        services = by_vllm(judged, log_path=tmp_path / "log", max_in_flight=1, args=args)
        return {name: held.revision for service in services for name, held in service.weights.items()}

    plain, short, worded = revisions(), revisions("--max-model-len", "512"), revisions(template="{{ messages[0] }}")
    for name in ("base", "tuned"):
        assert len({plain[name], short[name], worded[name]}) == 3
    assert revisions() == plain


def test_what_another_model_or_template_needs_gets_a_server_of_its_own(tmp_path: Path) -> None:
    judged = candidate(tmp_path, "third")
    other = replace(candidate(tmp_path, "other"), student=tmp_path / "elsewhere")
    earlier = {
        "candidate:whole": candidate(tmp_path, "whole", adapter=False),
        "candidate:worded": candidate(tmp_path, "worded", template="{{ messages[0] }}"),
        "candidate:other": other,
        "candidate:first": candidate(tmp_path, "first"),
    }
    services = by_vllm(judged, log_path=tmp_path / "log", max_in_flight=1, earlier=earlier, together=True)
    assert up(services) == [
        ["base", "tuned", "candidate:first"],
        ["candidate:whole"],
        ["candidate:worded"],
        ["candidate:other"],
    ]
    of_hub = replace(judged, student="owner/small", revision="c0ffee")
    at_other_commit = replace(earlier["candidate:first"], student="owner/small", revision="decade")
    services = by_vllm(
        of_hub, log_path=tmp_path / "log", max_in_flight=1, earlier={"candidate:first": at_other_commit}, together=True
    )
    assert up(services) == [["base", "tuned"], ["candidate:first"]]


def test_an_earlier_adapter_that_vllm_does_not_serve_is_named_before_anything_starts(tmp_path: Path) -> None:
    judged, dora = candidate(tmp_path, "third"), candidate(tmp_path, "dora")
    write_json(dora.folder / "adapter_config.json", {"r": 8, "use_dora": True})
    with pytest.raises(RunError, match=r"it has DoRA.*or leave candidate:dora out"):
        by_vllm(judged, log_path=tmp_path / "log", max_in_flight=1, earlier={"candidate:dora": dora})


def test_earlier_candidates_are_found_by_their_names_in_the_run(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run")
    train = write_jsonl(run.train_path, [])
    write_json(tmp_path / "small" / "config.json", {})
    folder = run.student_path("first")
    write_json(folder / "adapter_config.json", {"r": 8})
    report = {"method": "lora", "student_revision": weights_revision(tmp_path / "small")}
    write_json(folder / "training.json", report)
    outputs = {f"students/first/{path.name}": digest_file(path) for path in folder.iterdir()}
    config = {"student": str(tmp_path / "small")}
    run.finish_stage("sft:first", StageEntry(config=config, inputs={"dataset/train.jsonl": train}, outputs=outputs))
    found = find_earlier(run, ["base", "candidate:first", "tuned", "candidate:first"])
    assert {name: held.name for name, held in found.items()} == {"candidate:first": "first"}
    with pytest.raises(RunError, match="did you mean first"):
        find_earlier(run, ["candidate:frist"])


def test_a_server_that_runs_is_asked_for_each_by_its_name_there(tmp_path: Path) -> None:
    judged, first = candidate(tmp_path, "third"), candidate(tmp_path, "first")
    with stub_endpoint(lambda body: "so") as stub:
        served = {"base": "stub", "tuned": "stub", "candidate:first": "stub"}
        (service,) = at_server(stub.url, served, judged, max_in_flight=2, earlier={"candidate:first": first})
        revisions = [held.revision for held in service.weights.values()]
        assert revisions[0] == revisions[1] != revisions[2]
        calls = make_calls(
            [ITEM],
            make_contenders(["base", "candidate:first"], rows=[], passages=[]),
            [service],
            max_tokens=8,
        )
        answers = answer_all(calls, [service], tmp_path / "journal", max_failed=0, max_in_flight=2)
        assert [answer.completion and answer.completion.text for answer in answers] == ["so", "so"]
        assert len(stub.bodies) == 2 and all(body["logprobs"] for body in stub.bodies)


def test_a_teacher_at_an_url_answers_under_its_own_name_there(tmp_path: Path) -> None:
    with stub_endpoint(lambda body: "so") as stub, stub_endpoint() as other:
        service = teacher_service(stub.url, log_path=tmp_path / "log", max_in_flight=2)
        elsewhere = teacher_service(other.url, log_path=tmp_path / "log", max_in_flight=2)
        assert service.weights["teacher"].model == "stub"
        # Of an endpoint the weights cannot be seen, so another address is another teacher.
        assert service.weights["teacher"] != elsewhere.weights["teacher"]
        with service.start() as running:

            async def ask() -> str:
                async with running.open() as endpoints:
                    request = ChatRequest((Message("user", "Why?"),), Sampling())
                    return (await endpoints["teacher"].complete(request)).text

            assert asyncio.run(ask()) == "so"
        with pytest.raises(ConfigError, match="does not serve 'stud'"):
            teacher_service(stub.url, served="stud", log_path=tmp_path / "log", max_in_flight=2)


def test_the_bundled_teacher_is_known_by_its_files_and_a_wrong_name_is_refused(tmp_path: Path) -> None:
    bundled = teacher_service("bundled", log_path=tmp_path / "log", max_in_flight=2)
    assert bundled.weights["teacher"].model == "teacher" and len(bundled.weights["teacher"].revision) == 16
    with pytest.raises(ConfigError, match="no folder, no hub id"):
        teacher_service("./nowhere", log_path=tmp_path / "log", max_in_flight=2)
