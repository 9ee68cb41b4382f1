"""data-designer, as its recipe "RAG evaluation" has it: a seed row for each passage, a structured column for the pair.

One record holds one pair, so as many records are asked for as pairs; the seed rows are gone through in turn.
"""

from importlib.metadata import version
from pathlib import Path

import data_designer.config as dd
import pandas as pd
from data_designer.interface import DataDesigner
from job import passages, read_job, write_pairs
from pydantic import BaseModel, Field


class QAPair(BaseModel):
    """One pair."""

    question: str = Field(..., description="A specific question related to the domain of the context")
    answer: str = Field(..., description="A context-supported answer")


job = read_job()
seeds = Path("passages.csv")
pd.DataFrame({"text": passages(job)}).to_csv(seeds, index=False)
parallel = {"max_parallel_requests": job.in_flight} if job.in_flight else {}
designer = DataDesigner(
    artifact_path=Path("artifacts"),
    model_providers=[dd.ModelProvider(name="bench", endpoint=job.url, provider_type="openai", api_key="none")],
)
builder = dd.DataDesignerConfigBuilder(
    model_configs=[
        dd.ModelConfig(
            alias="teacher",
            model=job.model,
            provider="bench",
            inference_parameters=dd.ChatCompletionInferenceParams(
                temperature=0.7, top_p=0.95, max_tokens=job.max_tokens, **parallel
            ),
        )
    ]
)
builder.with_seed_dataset(dd.LocalFileSeedSource(path=str(seeds)))
builder.add_column(
    dd.LLMStructuredColumnConfig(
        name="qa_pair",
        model_alias="teacher",
        prompt="{{ text }}\n\nGenerate a question-answer pair.\n"
        "The question should be answerable using the provided context.\n\n"
        "- Ensure the answer is fully supported by the context\n",
        output_format=QAPair,
    )
)
results = designer.create(builder, num_records=job.pairs)
rows = results.load_dataset()["qa_pair"]
write_pairs(job, version("data-designer"), [(row.get("question"), row.get("answer")) for row in rows if row])
