"""Model folders of published dimensions without weights, under the bundled tokenizer: what the GPU scripts run on."""

import json
from pathlib import Path
from typing import Any

from synth.inference.endpoints import bundled_model

# The dimensions in the models' own config.json on the hub. `tiny` is for --allow-cpu.
_QWEN3: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "head_dim": 128,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 40960,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "eos_token_id": 2,
    "vocab_size": 151_936,
}
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3-0.6b": {**_QWEN3, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28},
    "qwen3-4b": {
        **_QWEN3,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
    },
    "qwen3-8b": {
        **_QWEN3,
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "tie_word_embeddings": False,
    },
    "tiny": {
        **_QWEN3,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "max_position_embeddings": 4096,
        "vocab_size": 4096,
    },
}


def make_model(folder: Path, shape: str, role: str = "teacher") -> None:
    """Write a model folder without weights: the config, and a bundled tokenizer grown to the model's vocabulary.

    The tokenizer is that of the bundled teacher or student; the teacher's chat template is of no use for training, as
    it knows no assistant's turn.
    """
    folder.mkdir(parents=True)
    config = SHAPES[shape]
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    source = bundled_model(role)
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    taken = max(*vocabulary.values(), *(token["id"] for token in tokenizer["added_tokens"]))
    # No merge leads to these words, so prompts are cut as before; but each id that is drawn can be written out.
    vocabulary |= {f"\u0120word{number}": number for number in range(taken + 1, config["vocab_size"])}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    settings = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings["model_max_length"] = config["max_position_embeddings"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    template = (source / "chat_template.jinja").read_text(encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
