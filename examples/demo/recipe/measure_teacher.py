"""Measure the teacher through a running vLLM server, as the product calls it: one sentence as forced evidence per call.

    python measure_teacher.py http://127.0.0.1:8600/v1 grammar:60
    python measure_teacher.py http://127.0.0.1:8600/v1 passages.jsonl --out pairs.jsonl

`grammar:N` draws N unseen passages and also counts the pairs that the grammar itself would have written. A JSONL file
has a `text` per line; read the pairs in --out to judge them.
"""

from __future__ import annotations

import argparse
import json
import re
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from passages import passage

UNSEEN = 900_000_000


@dataclass(frozen=True, slots=True)
class Call:
    """One sentence of a passage, and the pairs known to be right for it (empty: none known)."""

    text: str
    evidence: str
    known: frozenset[tuple[str, str]]


def calls(source: str) -> list[Call]:
    """The calls for `grammar:N` or for a JSONL file of passages."""
    if source.startswith("grammar:"):
        drawn = [passage(UNSEEN + i, 2, 6) for i in range(int(source.removeprefix("grammar:")))]
        return [Call(p.text, s.text, frozenset(s.pairs)) for p in drawn for s in p.sentences if s.pairs]
    found = []
    for line in Path(source).read_text(encoding="utf-8").splitlines():
        text = json.loads(line)["text"]
        for paragraph in text.split("\n"):
            for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z0-9])", paragraph.strip()):
                if sentence.endswith((".", "!", "?")) and len(sentence.split()) > 3:
                    found.append(Call(text, sentence, frozenset()))
    return found


def ask(url: str, model: str, call: Call, seed: int, temperature: float) -> str:
    """The reply to one call."""
    short = {"type": "string", "maxLength": 200}
    schema = {
        "type": "object",
        "properties": {
            "evidence": {"type": "string", "enum": [call.evidence]},
            "question": short,
            "answer": short,
        },
        "required": ["evidence", "question", "answer"],
        "additionalProperties": False,
    }
    body = {
        "model": model,
        "messages": [{"role": "user", "content": f"<passage>\n{call.text}\n</passage>"}],
        "temperature": temperature,
        "seed": seed,
        "max_tokens": 250,
        "response_format": {"type": "json_schema", "json_schema": {"name": "pair", "schema": schema}},
    }
    request = urllib.request.Request(
        f"{url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=600) as response:
        return json.load(response)["choices"][0]["message"]["content"]


def main() -> None:
    """Ask for a pair per sentence and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("source")
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with urllib.request.urlopen(f"{options.url}/models", timeout=60) as response:
        model = json.load(response)["data"][0]["id"]
    todo = calls(options.source)
    with ThreadPoolExecutor(16) as pool:
        replies = list(
            pool.map(lambda job: ask(options.url, model, job[1], job[0], options.temperature), enumerate(todo))
        )
    valid = grounded = exact = 0
    rows = []
    for call, reply in zip(todo, replies, strict=True):
        try:
            pair = json.loads(reply)
        except json.JSONDecodeError:
            continue
        valid += 1
        inside = re.search(rf"(?<!\w){re.escape(pair['answer'])}(?!\w)", call.evidence) is not None
        grounded += bool(pair["answer"]) and inside
        exact += (pair["question"], pair["answer"]) in call.known
        rows.append(json.dumps(pair, ensure_ascii=False))
    share = {"valid JSON": valid, "answer in evidence": grounded}
    if any(call.known for call in todo):
        share["exact pair"] = exact
    print(f"{options.source}: {len(todo)} calls, " + ", ".join(f"{k} {v / len(todo):.3f}" for k, v in share.items()))
    if options.out:
        options.out.write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
