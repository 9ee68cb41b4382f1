"""The one format in which teacher and student are trained and served."""

from __future__ import annotations

import json

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

PIECES = ('{"evidence":"', '","question":"', '","answer":"', '"}', "user\n", "assistant\n", "system\n")
"""Strings that are one token each, so that the model spends nothing on boilerplate."""


def prompt(text: str) -> str:
    """One user message, and the opening of the reply."""
    return f"{START}user\n{text}{END}\n{START}assistant\n"


def _compact(fields: dict[str, str]) -> str:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def evidence_json(evidence: str) -> str:
    """The first field of the teacher's reply, up to and without its closing quote."""
    return _compact({"evidence": evidence}).removesuffix('"}')


def pair_json(question: str, answer: str) -> str:
    """The rest of the reply, in the compact spacing that vLLM's `disable_any_whitespace` asks for."""
    return '",' + _compact({"question": question, "answer": answer}).removeprefix("{")
