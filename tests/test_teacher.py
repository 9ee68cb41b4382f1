import asyncio
import random
from dataclasses import replace
from pathlib import Path

import pytest

from synth.core.calls import ChatRequest, Completion, Sampling
from synth.core.errors import InferenceError
from synth.core.records import Message
from synth.inference.journal import Journal
from synth.inference.scripted import ScriptedTeacher
from synth.inference.teacher import JournaledTeacher, derived_seed

ASK = [Message("user", "Ask about the lamp.")]
OTHER = [Message("user", "Ask about the kettle.")]


def echo(request: ChatRequest) -> str:
    return f"{request.messages[-1].content} {request.index} {request.sampling.seed}"


def teacher_of(endpoint: ScriptedTeacher, journal: Journal, *, seed: int = 1, round: int = 0) -> JournaledTeacher:
    return JournaledTeacher(endpoint, journal, seed=seed, sampling=Sampling(), round=round)


async def test_an_answered_call_is_not_made_again_by_the_next_process(tmp_path: Path) -> None:
    endpoint = ScriptedTeacher(echo)
    async with Journal(tmp_path) as journal:
        first = teacher_of(endpoint, journal)
        answers = [await first.chat(ASK), await first.chat(ASK), await first.chat(OTHER)]
    async with Journal(tmp_path) as journal:
        second = teacher_of(endpoint, journal)
        again = [await second.chat(ASK), await second.chat(ASK), await second.chat(OTHER)]
    assert again == answers
    assert len(endpoint.requests) == 3
    assert second.calls == first.calls == answers
    assert second.prompt_sha256 == first.prompt_sha256


async def test_equal_requests_get_new_indices_and_seeds_and_so_do_rounds(tmp_path: Path) -> None:
    endpoint = ScriptedTeacher(echo)
    async with Journal(tmp_path) as journal:
        for round_number in (0, 1):
            teacher = teacher_of(endpoint, journal, round=round_number)
            await teacher.chat(ASK)
            await teacher.chat(ASK)
    assert [request.index for request in endpoint.requests] == [0, 1, 1_000_000, 1_000_001]
    seeds = [request.sampling.seed for request in endpoint.requests]
    assert len(set(seeds)) == 4
    assert all(seed is not None and 0 <= seed < 2**31 for seed in seeds)


async def test_a_seed_that_the_call_names_is_kept(tmp_path: Path) -> None:
    endpoint = ScriptedTeacher(echo)
    async with Journal(tmp_path) as journal:
        await teacher_of(endpoint, journal).chat(ASK, sampling=Sampling(seed=5), schema={"type": "object"})
    assert endpoint.requests[0].sampling.seed == 5
    assert endpoint.requests[0].schema == {"type": "object"}


async def test_the_same_run_repeats_and_another_seed_differs(tmp_path: Path) -> None:
    texts = []
    for number, seed in enumerate((1, 1, 2)):
        async with Journal(tmp_path / str(number)) as journal:
            texts.append((await teacher_of(ScriptedTeacher(echo), journal, seed=seed).chat(ASK)).text)
    assert texts[0] == texts[1] != texts[2]


def test_a_derived_seed_is_the_same_on_every_machine() -> None:
    # A golden value: if it changes, every journal written before is asked anew.
    assert derived_seed(7, "0" * 64, 3) == 1588377047


class SlowEndpoint:
    """Answers after a moment that differs from call to call, so that replies overtake each other."""

    model, revision = "slow", ""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.asked = 0
        self.started = asyncio.Event()
        self.cancelled = 0

    async def complete(self, request: ChatRequest) -> Completion:
        self.asked += 1
        self.started.set()
        try:
            await asyncio.sleep(self.random.uniform(0, 0.01))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return Completion(echo(request))


async def test_the_order_of_replies_changes_nothing(tmp_path: Path) -> None:
    results = []
    for number in range(3):
        endpoint = SlowEndpoint(number)
        async with Journal(tmp_path / str(number)) as journal:
            teacher = JournaledTeacher(endpoint, journal, seed=1, sampling=Sampling())
            await asyncio.gather(*(teacher.chat(ASK if n % 2 else OTHER) for n in range(8)))
            results.append((teacher.calls, teacher.prompt_sha256))
    assert results[0] == results[1] == results[2]
    assert len({call.text for call in results[0][0]}) == 8


async def test_two_passages_with_the_same_text_share_one_call_in_flight(tmp_path: Path) -> None:
    endpoint = SlowEndpoint(0)
    async with Journal(tmp_path) as journal:
        teachers = [JournaledTeacher(endpoint, journal, seed=1, sampling=Sampling()) for _ in range(5)]
        answers = await asyncio.gather(*(teacher.chat(ASK) for teacher in teachers))
        assert len(journal) == 1
    assert endpoint.asked == 1
    assert len(set(answers)) == 1


async def test_a_shared_call_outlives_one_of_its_askers_and_dies_with_the_last(tmp_path: Path) -> None:
    endpoint = SlowEndpoint(0)
    async with Journal(tmp_path) as journal:
        askers = [
            asyncio.create_task(JournaledTeacher(endpoint, journal, seed=1, sampling=Sampling()).chat(ASK))
            for _ in range(2)
        ]
        await endpoint.started.wait()
        askers[0].cancel()
        assert (await askers[1]).text.startswith("Ask about the lamp.")
        endpoint.started.clear()
        alone = asyncio.create_task(JournaledTeacher(endpoint, journal, seed=2, sampling=Sampling()).chat(ASK))
        await endpoint.started.wait()
        alone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await alone
    assert (endpoint.asked, endpoint.cancelled) == (2, 1)


async def test_a_failed_call_is_not_journaled_and_the_next_time_it_is_asked_again(tmp_path: Path) -> None:
    async with Journal(tmp_path) as journal:
        failing = ScriptedTeacher(lambda _: InferenceError("down"))
        teacher = teacher_of(failing, journal)
        with pytest.raises(InferenceError, match="down"):
            await teacher.chat(ASK)
        assert (len(journal), teacher.calls) == (0, [])
        good = teacher_of(ScriptedTeacher(echo), journal)
        assert (await good.chat(ASK)).text.startswith("Ask about the lamp. 0 ")


async def test_other_weights_under_the_same_name_are_asked_anew(tmp_path: Path) -> None:
    class Revised(ScriptedTeacher):
        @property
        def revision(self) -> str:
            return "r2"

    async with Journal(tmp_path) as journal:
        one = await teacher_of(ScriptedTeacher(echo), journal).chat(ASK)
        two = await teacher_of(Revised(echo), journal).chat(ASK)
        assert len(journal) == 2
    assert one.key != two.key
    assert replace(one, key="") != replace(two, key="")  # the seed comes from the key
