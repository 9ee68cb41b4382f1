"""synthetic-data-kit, as its README has it: a config file, then `synthetic-data-kit -c config.yaml create FOLDER`.

The endpoint is named as `api-endpoint`, the provider that keeps several calls open; its `vllm` provider sends one after
the other. The prompt is its own with the number of pairs put in, as its README shows for a prompt of one's own:
the built-in one names no number.
"""

import json
from importlib.metadata import version
from pathlib import Path

import yaml
from job import read_job, write_pairs
from synthetic_data_kit.cli import app

PROMPT = """\
Create {num_pairs} question-answer pairs from this text for LLM training.

Rules:
1. Questions must be about important facts in the text
2. Answers must be directly supported by the text
3. Return JSON format only:

[
  {{
    "question": "Question 1?",
    "answer": "Answer 1."
  }},
  {{
    "question": "Question 2?",
    "answer": "Answer 2."
  }}
]

Text:
{text}
"""

job = read_job()
batch = {"batch_size": job.in_flight} if job.in_flight else {}
config = {
    "llm": {"provider": "api-endpoint"},
    "api-endpoint": {
        "api_base": job.url,
        "api_key": "none",
        "model": job.model,
        "max_retries": 3,
        "retry_delay": 1.0,
    },
    "generation": {
        "temperature": 0.7,
        "top_p": 0.95,
        "chunk_size": job.passage_chars,
        "overlap": 0,
        "max_tokens": job.max_tokens,
        **batch,
    },
    "prompts": {
        "summary": "Summarize this document in 3-5 sentences, focusing on the main topic and key concepts.",
        "qa_generation": PROMPT,
    },
}
path = Path("config.yaml")
path.write_text(yaml.safe_dump(config), encoding="utf-8")
made = Path("generated")
documents = len(list(job.documents.iterdir()))
arguments = ["-c", str(path), "create", str(job.documents), "--type", "qa", "--output-dir", str(made)]
app([*arguments, "--num-pairs", str(round(job.pairs / documents))], standalone_mode=False)
pairs = []
for file in sorted(made.glob("*_qa_pairs.json")):
    for pair in json.loads(file.read_text(encoding="utf-8"))["qa_pairs"]:
        fields = pair if isinstance(pair, dict) else {}
        pairs.append((fields.get("question"), fields.get("answer")))
write_pairs(job, version("synthetic-data-kit"), pairs)
