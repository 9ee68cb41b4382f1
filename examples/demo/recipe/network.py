"""The network of both models, and a start from which copying is there at step one.

Layer 0 begins as heads that look one, two and three tokens back (query and key biases under RoPE), layer 1 as
induction heads that find where the last tokens stood before and copy what followed (Olsson et al. 2022,
"In-context Learning and Induction Heads"; Trockman and Kolter 2023, "Mimetic Initialization"). Trained from a default
start, a network this small spends most of its budget discovering the same.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

WIDTH, LAYERS, HEADS, HEAD_WIDTH, INNER, CONTEXT = 192, 4, 3, 64, 512, 2048
ROPE_THETA = 1e6


def build(tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> Qwen2ForCausalLM:
    """A fresh fp32 network for this tokenizer, with the structured start."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-6, tie_word_embeddings=True, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        attn_implementation="sdpa",
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    with torch.no_grad():
        _default_start(model)
        _structured_start(model, tokenizer.convert_ids_to_tokens(range(len(tokenizer))))
    return model


def _default_start(model: Qwen2ForCausalLM) -> None:
    for name, weight in model.named_parameters():
        if weight.ndim == 2:
            nn.init.normal_(weight, std=0.6 / math.sqrt(weight.shape[1]))
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.mul_(0.3)
        elif name.endswith("bias"):
            nn.init.zeros_(weight)


def _token_codes(tokens: list[str], width: int) -> torch.Tensor:
    """One random code per token; spellings of one word (case, leading blank) get nearly the same."""
    codes = torch.randn(len(tokens), width)
    first: dict[str, int] = {}
    for index, token in enumerate(tokens):
        word = token.replace("\u0120", "").lower() or token
        if word in first:
            codes[index] = 0.93 * codes[first[word]] + 0.36 * codes[index]
        else:
            first[word] = index
    return codes


def _structured_start(model: Qwen2ForCausalLM, tokens: list[str]) -> None:
    """Write previous-token heads into layer 0 and induction heads into layer 1."""
    half = HEAD_WIDTH // 2
    angles = ROPE_THETA ** (-torch.arange(0, HEAD_WIDTH, 2).float() / HEAD_WIDTH)
    fast = (angles > 0.08).nonzero().flatten().tolist()
    slow = (angles < 0.005).nonzero().flatten()
    slow = torch.cat([slow, slow + half])
    rank = min(WIDTH // (HEADS + 1), HEAD_WIDTH)
    basis = torch.linalg.qr(torch.randn(WIDTH, WIDTH))[0]
    # Four orthogonal subspaces of the residual stream: this token, and those one, two and three places back.
    spaces = [basis[:, i * rank : (i + 1) * rank].T for i in range(HEADS + 1)]
    embedding = model.model.embed_tokens.weight
    embedding.copy_(_token_codes(tokens, rank) @ spaces[0] * 0.08 + torch.randn_like(embedding) * 0.02)
    scale = embedding.norm(dim=1).mean() / math.sqrt(WIDTH)
    shift, induction = model.model.layers[0].self_attn, model.model.layers[1].self_attn
    sharpness = math.sqrt(60.0)
    for head in range(HEADS):
        rows = slice(head * HEAD_WIDTH, (head + 1) * HEAD_WIDTH)
        copied = slice(head * HEAD_WIDTH, head * HEAD_WIDTH + rank)
        for attention in (shift, induction):
            for projection in (attention.q_proj, attention.k_proj):
                projection.weight[rows] *= 0.05
            attention.v_proj.weight[rows] = 0
            attention.v_proj.weight[copied] = spaces[0]
            attention.o_proj.weight[:, rows] = 0
        for i in fast:
            at = head * HEAD_WIDTH + i
            shift.k_proj.bias[at] = sharpness
            shift.q_proj.bias[at] = sharpness * torch.cos(angles[i] * (head + 1))
            shift.q_proj.bias[at + half] = -sharpness * torch.sin(angles[i] * (head + 1))
        shift.o_proj.weight[:, copied] = spaces[head + 1].T * 0.6 * scale
        # Head h of layer 1 matches the last h + 1 tokens with those before the place it copies from.
        edges = torch.linspace(0, len(slow), head + 2).int().tolist()
        matcher = torch.randn(len(slow), rank) / math.sqrt(rank) * 1.4
        weights = torch.linspace(1.3, 0.8, head + 1) if head else torch.ones(1)
        for back, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
            at = slow[low:high] + head * HEAD_WIDTH
            induction.q_proj.weight[at] = matcher[low:high] @ spaces[back] * 1.6 * weights[back]
            induction.k_proj.weight[at] = matcher[low:high] @ spaces[back + 1] * 1.6 * weights[back]
        induction.o_proj.weight[:, copied] = spaces[0].T * 8.0 * scale
