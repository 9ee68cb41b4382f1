"""A small run with a real student, and scripted answers of the students that follow it: for curves and ablations."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from synth.core.calls import ChatRequest, Completion, Endpoint
from synth.core.errors import InferenceError
from synth.core.jsonl import write_jsonl
from synth.core.records import Message, Record
from synth.core.runs import Run
from synth.inference.scripted import ScriptedTeacher
from tests.export_runs import decided_run, pair
from tests.trainings import config
from tune.candidate import Candidate
from tune.config import TuneConfig
from tune.series import Asking
from tune.serving import by_vllm
from tune.sft import train

DOCUMENTS = 8
QUESTIONS = 6  # of each document


def records(*, each: int = 4, more: Sequence[Record] = ()) -> list[Record]:
    """Return kept records about lamps/0.md to lamps/8.md, the last of which validates, and `more`."""
    kept = [
        pair(n, f"What does lamp {n} of series {d} cost?", f"{n} pounds.", document=f"lamps/{d}.md")
        for d in range(DOCUMENTS + 1)
        for n in range(each)
    ]
    return [*kept, *more]


def rejected(number: int, document: str, *reasons: str, question: str = "", answer: str = "") -> Record:
    """Return a record that was rejected for these reasons."""
    made = pair(number, question or f"Is lamp {number} of {document} red?", answer or "Yes.", document=document)
    assert made.decision is not None
    return replace(made, decision=replace(made.decision, keep=False, reasons=reasons))


def decided(path: Path, made: Sequence[Record]) -> Run:
    """Write a run with these decided records."""
    return decided_run(path, made, validation=(f"lamps/{DOCUMENTS}.md",))


def with_student(run: Run, student: Path, **settings: object) -> TuneConfig:
    """Train the candidate that students of a series follow; return its settings."""
    made = config(student, epochs=1, rank=2, **settings)
    train(run, made)
    return made


def in_this_process(run: Run, settings: TuneConfig, on_note: Callable[[str], None]) -> None:
    """Train as `train_apart` does, but here: torch is loaded once for all students."""
    train(run, settings, on_message=on_note)


def heldout_file(path: Path) -> Path:
    """Write held-out questions about lamps/0.md to lamps/7.md."""
    write_jsonl(
        path,
        (
            {
                "id": f"{d}-{n}",
                "question": f"How dear is part {n} of {d}?",
                "answer": "forty pounds",
                "document_id": f"lamps/{d}.md",
            }
            for d in range(DOCUMENTS)
            for n in range(QUESTIONS)
        ),
    )
    return path


class AsServed:
    """A script under the name of what a vLLM would serve, so that its answers in the journal stand for the server's."""

    def __init__(self, teacher: ScriptedTeacher, candidate: Candidate) -> None:
        services = by_vllm(candidate, log_path=candidate.folder, max_in_flight=1, together=False)
        self._teacher, self._weights = teacher, services[-1].weights["tuned"]

    @property
    def model(self) -> str:
        """The name of the served model."""
        return self._weights.model

    @property
    def revision(self) -> str:
        """The revision of the served model."""
        return self._weights.revision

    async def complete(self, request: ChatRequest) -> Completion:
        """Answer as the script says."""
        return await self._teacher.complete(request)


class Answers:
    """Students that answer the first `right(candidate)` of every document's questions; keeps who was asked.

    Those of another `version` are other models, so that the journal does not have their answers.
    """

    def __init__(
        self,
        right: Callable[[Candidate], int],
        version: str = "",
        *,
        fails: Callable[[Candidate], bool] = lambda candidate: False,
        as_served: bool = False,
    ) -> None:
        self._right, self._version, self._fails, self._as_served = right, version, fails, as_served
        self.teachers: dict[str, ScriptedTeacher] = {}

    def asking(self) -> Asking:
        """Return how such students are asked."""
        return Asking(endpoint_of=self._endpoint)

    @property
    def asked(self) -> int:
        """How many calls there were, of all students."""
        return sum(len(teacher.requests) for teacher in self.teachers.values())

    def _endpoint(self, candidate: Candidate) -> Endpoint:
        right, fails = self._right(candidate), self._fails(candidate)

        def reply(request: ChatRequest) -> str | Exception:
            assert request.messages == (Message("user", request.messages[-1].content),)
            number = int(request.messages[-1].content.split()[4])
            if fails and request.messages[-1].content == "How dear is part 2 of 3?":
                return InferenceError("the model is gone")
            return "forty pounds" if number < right else "no idea"

        teacher = ScriptedTeacher(reply, model=candidate.name + self._version)
        self.teachers[candidate.name] = teacher
        return AsServed(teacher, candidate) if self._as_served else teacher
