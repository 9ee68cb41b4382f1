"""Turn a checkpoint into a bf16 model folder, replacing the folder in one step.

python export.py teacher WORK_DIR/teacher.pt TOKENIZER_DIR ../models/teacher

The folder says "llama", not "qwen2": for qwen2 transformers' AutoTokenizer, and with it vLLM and TRL, loads Qwen2's own
pre-tokenizer in place of the one in tokenizer.json, and the model would be served other tokens than it was trained
on. A Llama with attention biases computes the same function.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from network import build
from passages import passage
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2ForCausalLM

PROBES = range(70_000_000, 70_000_200)


def as_llama(model: Qwen2ForCausalLM) -> LlamaForCausalLM:
    """The same function of the same weights; Llama's output projection has a bias too, which is nought here."""
    own = model.config
    kept = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
            "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings", "bos_token_id",
            "eos_token_id", "pad_token_id", "rope_parameters")  # fmt: skip
    config = LlamaConfig(
        **{name: getattr(own, name) for name in kept},
        head_dim=own.hidden_size // own.num_attention_heads,
        attention_bias=True,
        mlp_bias=False,
    )
    llama = LlamaForCausalLM(config)
    missing, unknown = llama.load_state_dict(model.state_dict(), strict=False)
    assert not unknown and all(name.endswith("o_proj.bias") for name in missing), (missing, unknown)
    for name, weight in llama.named_parameters():
        if name.endswith("o_proj.bias"):
            torch.nn.init.zeros_(weight)
    llama.generation_config = model.generation_config
    return llama


def export(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, template: Path, out: Path) -> None:
    """Write a bf16 model folder that vLLM and transformers load, replacing `out` in one step.

    Raises:
        AssertionError: the folder computes something else than the network, or cuts text into other tokens.
    """
    tokenizer.chat_template = template.read_text(encoding="utf-8")
    fresh, old = out.with_name(out.name + ".new"), out.with_name(out.name + ".old")
    llama = as_llama(model).eval()
    ids = torch.tensor([tokenizer(passage(PROBES[0]).text).input_ids])
    with torch.no_grad():
        assert torch.allclose(llama(ids).logits, model.eval()(ids).logits, atol=1e-3)
    llama.to(torch.bfloat16).save_pretrained(fresh)
    (fresh / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(fresh)
    served = AutoTokenizer.from_pretrained(fresh)
    for seed in PROBES:
        text = passage(seed).text
        assert served(text).input_ids == tokenizer(text).input_ids, text
    card = out / "README.md"
    if card.exists():
        (fresh / "README.md").write_text(card.read_text(encoding="utf-8"), encoding="utf-8")
    if out.exists():
        out.rename(old)
    fresh.rename(out)
    if old.exists():
        for path in old.iterdir():
            path.unlink()
        old.rmdir()


def main() -> None:
    """Export one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["teacher", "student"])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    model = build(tokenizer)
    model.load_state_dict(torch.load(options.checkpoint, weights_only=True)["model"])
    export(model, tokenizer, Path(__file__).parent / f"{options.kind}_template.jinja", options.out)


if __name__ == "__main__":
    main()
