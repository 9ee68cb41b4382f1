"""distilabel, as its example "exam questions" has it: `TextGeneration` with a structured output, over passages.

`OpenAILLM` is its client for endpoints of this kind; it gets structured output through instructor, that is by a
forced tool call. How many calls are open at once is the batch size of the step.
"""

import json
from importlib.metadata import version

from distilabel.models.llms import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration
from job import passages, read_job, write_pairs
from pydantic import BaseModel, Field


class ExamQuestion(BaseModel):
    """One pair."""

    question: str = Field(..., description="The question to be answered")
    answer: str = Field(..., description="The correct answer to the question")


class ExamQuestions(BaseModel):
    """The reply."""

    exam: list[ExamQuestion]


SYSTEM = """\
You are an exam writer specialized in writing exams for students.
Your goal is to create questions and answers based on the document provided."""


def main() -> None:
    """Run the pipeline. It starts processes that import this file, so nothing may run at import."""
    job = read_job()
    batch = {"input_batch_size": job.in_flight} if job.in_flight else {}
    with Pipeline(name="exam-generator", cache_dir="cache") as pipeline:
        load = LoadDataFromDicts(data=[{"page": text} for text in passages(job)])
        generate = TextGeneration(
            name="exam_generation",
            system_prompt=SYSTEM,
            template=f"Generate {job.pairs_a_passage} question and answer pairs about the document. "
            "Document:\n\n{{page}}",
            columns=["page"],
            llm=OpenAILLM(
                model=job.model,
                base_url=job.url,
                api_key="none",  # type: ignore[arg-type]
                structured_output={"schema": ExamQuestions},
                generation_kwargs={"max_new_tokens": job.max_tokens, "temperature": 0.7, "top_p": 0.95},
            ),
            **batch,
        )
        load >> generate
    dataset = pipeline.run(use_cache=False)["default"]["train"]
    pairs = []
    for row in dataset:
        exam = json.loads(row["generation"])["exam"] if row["generation"] else []
        pairs += [(pair["question"], pair["answer"]) for pair in exam]
    write_pairs(job, version("distilabel"), pairs)


if __name__ == "__main__":
    main()
