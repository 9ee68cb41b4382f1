"""The student's view of an answer, measured with the bundled student: batches, padding, limits."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from synth import ConfigError, InferenceError, Message, Passage, Record
from synth.core.resources import resource_folder
from synth.filters.student_view import StudentView
from synth.inference.prompt_logprobs import PromptLogprobs
from tests.fault_server import Fault, fault_server
from tests.stub_endpoint import stub_endpoint

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

STUDENT = resource_folder("demo") / "models" / "student"
TEXT = "The Brevo kettle holds 1.7 litres of water. Descale the Brevo kettle every six weeks."


def record(question: str, answer: str, prompt: tuple[Message, ...] | None = None) -> Record:
    return Record.create(Passage("kettle.md", TEXT, 0, len(TEXT)), question, answer, generator="qa", prompt=prompt)


RECORDS = [
    record(
        f"Answer the question from the text.\n\nText: {TEXT}\n\nQuestion: How often is it descaled?", "every six weeks"
    ),
    record("How much does it hold?", "1.7 litres"),
    record("How?", "by hand, and slowly, with a damp cloth and a little of the soap that came with it in the box"),
    record(
        "",
        "",
        (Message("system", "Be short."), Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "And?")),
    ),
    *[
        record(f"How many parts has number {i}{' of the long list' * (i % 5)}?", f"{i} parts{' and a lid' * (i % 7)}")
        for i in range(40)
    ],
]


@pytest.fixture(scope="module")
def view() -> StudentView:
    return StudentView(STUDENT, batch_tokens=512, device="cpu")


def one_by_one(asked: Record, prompt: str) -> float:
    """The loss of the answer after `prompt`, by the shortest way there is."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(STUDENT)
    model = transformers.AutoModelForCausalLM.from_pretrained(STUDENT, dtype=torch.float32)
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    answer = tokenizer(asked.answer, add_special_tokens=False)["input_ids"]
    labels = [-100] * len(before) + answer
    with torch.no_grad():
        return float(model(input_ids=torch.tensor([before + answer]), labels=torch.tensor([labels])).loss)


def values(scored: Any) -> list[tuple[float | None, float | None]]:  # noqa: ANN401  (a list of ModelScores)
    return [(one.scores["answer_loss"], one.scores["ifd"]) for one in scored]


def test_the_loss_is_that_of_the_answers_tokens_after_the_chat_template(view: StudentView) -> None:
    asked = RECORDS[1]
    [(loss, ifd)] = values(view.score([asked]))
    with_question = one_by_one(asked, f"<|im_start|>user\n{asked.question}<|im_end|>\n<|im_start|>assistant\n")
    alone = one_by_one(asked, "\n<|im_start|>assistant\n")
    assert loss == pytest.approx(with_question, abs=1e-4)
    assert ifd == pytest.approx(with_question / alone, abs=1e-4)


def test_batches_and_padding_change_nothing(view: StudentView) -> None:
    together = values(view.score(RECORDS))
    apart = [values(view.score([one]))[0] for one in RECORDS]
    for both in zip(together, apart, strict=True):
        for batched, single in zip(*both, strict=True):
            assert (batched is None) == (single is None)
            assert batched is None or batched == pytest.approx(single, abs=1e-4)
    backwards = values(view.score(RECORDS[::-1]))[::-1]
    assert [b is None for b, _ in backwards] == [t is None for t, _ in together]
    assert all(b is None or b == pytest.approx(t, abs=1e-4) for (b, _), (t, _) in zip(backwards, together, strict=True))


def test_a_text_that_holds_the_answer_makes_it_easier_and_a_question_from_elsewhere_does_not(view: StudentView) -> None:
    helped = RECORDS[0]
    other = record(helped.question.replace("every six weeks", "with a cloth"), helped.answer)
    [(loss, ifd), (other_loss, other_ifd)] = values(view.score([helped, other]))
    assert loss is not None and other_loss is not None and ifd is not None and other_ifd is not None
    assert loss < other_loss and ifd < other_ifd and ifd < 1


def test_an_empty_answer_and_one_too_long_for_the_student_have_no_score() -> None:
    short = StudentView(STUDENT, max_length=40, device="cpu")
    given = short.score([RECORDS[3], RECORDS[0], RECORDS[1]])
    scored = values(given)
    assert scored[:2] == [(None, None), (None, None)]
    assert [one.remark for one in given] == [
        "the answer is empty",
        "longer than the 40 tokens that the student takes",
        "",
    ]
    assert all(value is not None and math.isfinite(value) for value in scored[2])


def test_turns_that_the_template_refuses_have_no_score_and_say_why(tmp_path: Path) -> None:
    folder = shutil.copytree(STUDENT, tmp_path / "strict")
    template = folder / "chat_template.jinja"
    check = "{%- if messages[0].role == 'system' -%}{{ raise_exception('no system message, please') }}{%- endif -%}"
    template.write_text(check + template.read_text())
    system = record("", "one", (Message("system", "Be short."), Message("user", "How many?")))
    [refused, fine] = StudentView(folder, device="cpu").score([system, RECORDS[1]])
    assert refused.scores == {"answer_loss": None, "ifd": None} and "no system message, please" in refused.remark
    assert fine.scores["answer_loss"] is not None


def test_a_student_that_is_not_there_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"student .*nothing: cannot be loaded .*name a folder"):
        StudentView(tmp_path / "nothing")


# --- through an endpoint


TEACHER = resource_folder("demo") / "models" / "teacher"


@pytest.mark.vllm
async def test_a_served_model_reads_as_the_same_model_does_when_it_is_loaded_here(engine: Any) -> None:  # noqa: ANN401
    served = StudentView(TEACHER, reader=PromptLogprobs(engine.base_url, engine.served))
    with pytest.raises(InferenceError, match=r"refuses to read a text \(404: .*name the student's folder"):
        PromptLogprobs(engine.base_url, "another").losses([((1, 2, 3), 1)])
    # Within a running loop too, as the filter's is.
    there, here = values(served.score(RECORDS)), values(StudentView(TEACHER, device="cpu").score(RECORDS))
    assert sum(loss is not None for loss, _ in here) == len(RECORDS) - 1
    for (far, far_ifd), (near, near_ifd) in zip(there, here, strict=True):
        assert (far is None) == (near is None)
        # The engine computes in bfloat16.
        assert far is None or far == pytest.approx(near, rel=0.03, abs=0.05)
        assert far_ifd is None or far_ifd == pytest.approx(near_ifd, rel=0.05, abs=0.05)


def test_an_endpoint_without_prompt_logprobs_or_that_is_not_there_is_an_error_that_says_so() -> None:
    sequence = [((1, 2, 3), 1)]
    with stub_endpoint(lambda _: "Hello") as stub:
        with pytest.raises(InferenceError, match=r"gives no prompt log probabilities; they need a vLLM server"):
            PromptLogprobs(stub.url, "stub").losses(sequence)
        assert stub.bodies[0]["prompt"] == [1, 2, 3] and stub.bodies[0]["prompt_logprobs"] == 0
    with pytest.raises(InferenceError, match=r"no reply came.*tried 2 times"):
        PromptLogprobs(stub.url, "stub", retries=1).losses(sequence)
    failed = pytest.raises(InferenceError, match="the endpoint answers 500.*tried 2 times")
    with fault_server([Fault.ERROR, Fault.ERROR]) as server, failed:
        PromptLogprobs(server.url, "stub", retries=1).losses(sequence)
    assert server.faults[Fault.ERROR] == 2
