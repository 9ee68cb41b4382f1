import importlib.util
import json
import logging
import socket
from pathlib import Path

import numpy as np
import pytest

from synth.core import embedding
from synth.core.embedding import Embedder, load_embedder
from synth.core.errors import ConfigError

needs_wordllama = pytest.mark.skipif(
    importlib.util.find_spec("wordllama") is None, reason="wordllama is not installed (the extra `semantic`)"
)
needs_model2vec = pytest.mark.skipif(
    importlib.util.find_spec("model2vec") is None, reason="model2vec is not installed (the extra `semantic`)"
)
needs_sentence_transformers = pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None, reason="sentence-transformers is not installed"
)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@needs_wordllama
@pytest.mark.usefixtures("no_network")
def test_wordllama_works_without_a_network_and_leaves_logging_alone() -> None:
    before = list(logging.getLogger().handlers)
    model = load_embedder("wordllama")
    rows = model.embed(["Where is the dog?", "", "  ", "Where is the puppy?", "How is tax paid?", "x" * 100_000])
    assert rows.dtype == np.float32 and rows.shape == (6, 256)
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 0, 0, 1, 1, 1], abs=1e-5)
    assert rows[0] @ rows[3] > rows[0] @ rows[4]
    assert list(logging.getLogger().handlers) == before


@needs_wordllama
def test_a_text_has_one_vector_whatever_stands_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_embedder("wordllama")
    texts = [f"How heavy is part {i}, the {'very ' * (i % 7)}small one?" for i in range(50)]
    together = model.embed(texts)
    monkeypatch.setattr(embedding, "BATCH", 7)
    assert np.array_equal(model.embed(texts), together)
    assert np.array_equal(model.embed(texts[::-1])[::-1], together)
    assert model.embed([]).shape == (0, 256)


@needs_wordllama
def test_the_name_says_which_weights_these_are() -> None:
    first, second = load_embedder("wordllama"), load_embedder("wordllama")
    assert first.name == second.name and first.name.startswith("wordllama-l2-supercat-256@")
    assert isinstance(first.name.partition("@")[2], str) and len(first.name.partition("@")[2]) == 12


@pytest.fixture
def static_model(tmp_path: Path) -> Path:
    from model2vec import StaticModel
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = ["[UNK]", "[PAD]", "the", "lamp", "kettle", "red"]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    vectors = np.random.default_rng(0).standard_normal((len(words), 8)).astype(np.float32)
    StaticModel(vectors, tokenizer).save_pretrained(str(tmp_path / "static"))
    return tmp_path / "static"


@needs_model2vec
@pytest.mark.usefixtures("no_network")
def test_a_folder_with_a_static_model_is_loaded_and_named_by_its_bytes(static_model: Path) -> None:
    model: Embedder = load_embedder(str(static_model))
    rows = model.embed(["the red lamp", "the red lamp", "kettle", ""])
    assert rows.shape == (4, 8) and np.array_equal(rows[0], rows[1])
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1, 1, 0], abs=1e-5)
    weights = static_model / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    assert model.name.startswith("static@") and load_embedder(str(static_model)).name != model.name


@needs_model2vec
def test_a_broken_model_is_an_error_that_names_its_folder(static_model: Path) -> None:
    (static_model / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ConfigError, match="cannot be loaded") as caught:
        load_embedder(str(static_model))
    assert caught.value.where == str(static_model)


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(ConfigError, match=r"pickled weights \(pytorch_model.bin\) are not read"):
        load_embedder(str(tmp_path))


@pytest.mark.parametrize("spec", ["nothing", "./nowhere/at/all", "/nowhere/x", "a/b/c"])
def test_what_is_neither_a_folder_nor_an_id_is_an_error(spec: str) -> None:
    with pytest.raises(ConfigError, match="wordllama"):
        load_embedder(spec)


@pytest.mark.parametrize("folder", [False, True])
def test_without_the_extra_the_error_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: bool
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "model2vec"}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(__import__("sys").modules, "model2vec", None)
    with pytest.raises(ConfigError, match=r"synth-tune\[semantic\]"):
        load_embedder(str(tmp_path) if folder else "wordllama")


@needs_sentence_transformers
@pytest.mark.usefixtures("no_network")
def test_a_folder_with_a_sentence_transformer_is_loaded(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as models
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "lamp", "red"])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    bert = tmp_path / "bert"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(bert)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(words), **size)).save_pretrained(bert)
    layer = models.Transformer(str(bert))
    SentenceTransformer(modules=[layer, models.Pooling(16)], device="cpu").save(str(tmp_path / "st"))
    rows = load_embedder(str(tmp_path / "st")).embed(["the red lamp", ""])
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 0], abs=1e-5)
