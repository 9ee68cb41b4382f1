"""Texts as unit vectors, for what words alone do not see: reworded questions, topics, coverage.

The extra `[semantic]` brings the models' libraries; nothing here loads them before a model is asked for. Weights are
read from safetensors files only (no pickle), and code that comes with a model never runs.
"""

import hashlib
import importlib.util
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from synth.core.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

# Texts that are embedded at a time: enough to be fast, little enough that memory stays with the result.
BATCH = 4096
# A question or an answer has said what it is about long before; a run-away text must not fill the memory.
MAX_CHARS = 20_000
_EXTRA = "pip install 'synth-tune[semantic]'"
# What a model is made of. Not among it: pickled weights and Python files.
_MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.model")


class Embedder(Protocol):
    """A model that gives texts of like meaning vectors of like direction."""

    @property
    def name(self) -> str:
        """What the manifest says of the model: its name and a digest or a revision of its files."""
        ...

    def embed(self, texts: Sequence[str]) -> "Vectors":
        """Return a float32 array [texts, dimensions] of rows of length 1; the row of a text without words is 0."""
        ...


class _Model:
    """An embedder around a function that gives vectors of any length to a small batch of texts."""

    def __init__(self, name: str, dimensions: int, encode: "Callable[[list[str]], Vectors]") -> None:
        self.name = name
        self.dimensions = dimensions
        self._encode = encode

    def embed(self, texts: Sequence[str]) -> "Vectors":
        """Return the rows of `texts`, computed in batches; beside the result a batch is held at most."""
        import numpy as np

        rows = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for start in range(0, len(texts), BATCH):
            batch = [text[:MAX_CHARS].strip() for text in texts[start : start + BATCH]]
            told = [place for place, text in enumerate(batch) if text]
            if not told:
                continue
            found = np.asarray(self._encode([batch[place] for place in told]), dtype=np.float32)
            lengths = np.linalg.norm(found, axis=1, keepdims=True)
            np.divide(found, lengths, out=found, where=lengths > 1e-12)
            # A vector that is not a number would be nobody's twin and everybody's: it counts as no vector.
            found[~np.isfinite(found).all(axis=1)] = 0
            rows[start + np.array(told)] = found
        return rows


def load_embedder(spec: str) -> Embedder:
    """Return the model that `spec` names.

    Args:
        spec: "wordllama", whose weights (256 dimensions, English) are in its package and need no network; a folder
            with a model2vec or a sentence-transformers model, told apart by its files; or the id of such a model on
            the hub, "owner/name" or "owner/name@revision".

    Raises:
        ConfigError: the extra is not installed, or there is no such model.
    """
    if spec == "wordllama":
        return _wordllama()
    folder = Path(spec).expanduser()
    if folder.is_dir():
        return _from_folder(folder, f"{folder.resolve().name}@{_digest(_files(folder))}")
    owner, slash, rest = spec.partition("/")
    if not (owner and slash and rest) or rest.count("/") or spec.startswith((".", "~")):
        raise ConfigError(
            "no embedding model is there", where=spec, fix='name a folder, a hub id ("owner/name") or "wordllama"'
        )
    return _from_hub(spec)


def _wordllama() -> Embedder:
    # The package is looked up and not imported: importing it sets up logging for the whole program.
    package = importlib.util.find_spec("wordllama")
    if package is None or not package.submodule_search_locations:
        raise _missing("wordllama")
    try:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer
    except ImportError as error:
        raise _missing("wordllama") from error
    import numpy as np

    root = Path(package.submodule_search_locations[0])
    weights = root / "weights" / "l2_supercat_256.safetensors"
    words = root / "tokenizers" / "l2_supercat_tokenizer_config.json"
    if not (weights.is_file() and words.is_file()):
        raise ConfigError(
            "this version of wordllama does not have its weights in the package",
            where=str(root),
            fix="pip install 'wordllama==0.4.0.post1'",
        )
    table = load_file(weights)["embedding.weight"].astype(np.float32)
    tokenizer = Tokenizer.from_file(str(words))
    tokenizer.no_padding()
    tokenizer.no_truncation()

    def encode(texts: list[str]) -> "Vectors":
        ids = [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
        return _pool(table, ids)

    return _Model(f"wordllama-l2-supercat-256@{_digest([weights, words])}", table.shape[1], encode)


def _pool(table: "Vectors", ids: Sequence[Sequence[int]]) -> "Vectors":
    """Return the mean of the rows of `table` that each list of `ids` names; 0 for an empty list."""
    import numpy as np

    means = np.zeros((len(ids), table.shape[1]), dtype=np.float32)
    for place, tokens in enumerate(ids):
        if tokens:
            means[place] = table[np.minimum(tokens, len(table) - 1)].mean(axis=0)
    return means


def _from_hub(spec: str) -> Embedder:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise _missing("huggingface-hub") from error
    name, _, revision = spec.partition("@")
    try:
        path = snapshot_download(name, revision=revision or None, allow_patterns=list(_MODEL_FILES))
    except Exception as error:  # the hub's client raises errors of many libraries; each means the same here
        raise ConfigError(
            f"the embedding model cannot be fetched ({type(error).__name__}: {str(error).splitlines()[0][:200]})",
            where=spec,
            fix="check the id and the network, or name a folder",
        ) from error
    # The last part of a snapshot's path is the commit, so the name says exactly which files these were.
    return _from_folder(Path(path), f"{name}@{Path(path).name[:12]}")


def _from_folder(folder: Path, name: str) -> Embedder:
    if (folder / "modules.json").is_file() and not _is_static(folder):
        return _sentence_transformer(folder, name)
    if (folder / "config.json").is_file() and (folder / "model.safetensors").is_file() and _is_static(folder):
        return _model2vec(folder, name)
    pickled = [p.name for p in sorted(folder.iterdir()) if p.suffix in {".bin", ".pt", ".pth", ".pkl"}]
    found = f"; pickled weights ({pickled[0]}) are not read" if pickled else ""
    raise ConfigError(
        f"neither a model2vec nor a sentence-transformers model{found}",
        where=str(folder),
        fix="save the model as safetensors, with its config.json (model2vec) or modules.json (sentence-transformers)",
    )


def _is_static(folder: Path) -> bool:
    """Whether this is model2vec's own: mostly it has a modules.json too, for sentence-transformers to read it by."""
    config, modules = _json(folder / "config.json"), _json(folder / "modules.json")
    if isinstance(config, dict) and "model2vec" in (config.get("model_type"), config.get("tokenizer_name")):
        return True
    if isinstance(config, dict) and config.get("architectures") == ["StaticModel"]:
        return True
    first = modules[0] if isinstance(modules, list) and modules else {}
    return str(first.get("type", "")).endswith(".StaticEmbedding") and first.get("path") == "."


def _json(path: Path) -> Any:  # noqa: ANN401  (whatever the file holds)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _model2vec(folder: Path, name: str) -> Embedder:
    try:
        from model2vec import StaticModel
    except ImportError as error:
        raise _missing("model2vec") from error
    model = _loaded(folder, lambda: StaticModel.from_pretrained(str(folder)))
    return _Model(name, int(model.dim), lambda texts: model.encode(texts, use_multiprocessing=False, max_length=None))


def _sentence_transformer(folder: Path, name: str) -> Embedder:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise _missing("sentence-transformers") from error
    options = {"trust_remote_code": False, "local_files_only": True, "model_kwargs": {"use_safetensors": True}}
    model = _loaded(folder, lambda: SentenceTransformer(str(folder), **options))
    # Renamed in version 5; both names are in use.
    size = getattr(model, "get_embedding_dimension", None) or model.get_sentence_embedding_dimension
    return _Model(name, int(size()), lambda texts: model.encode(texts, show_progress_bar=False, convert_to_numpy=True))


def _loaded(folder: Path, load: Callable[[], Any]) -> Any:  # noqa: ANN401  (a model of an untyped library)
    try:
        return load()
    except Exception as error:  # a broken file raises whatever its library raises
        raise ConfigError(
            f"the embedding model cannot be loaded ({type(error).__name__}: {str(error).splitlines()[:1]})",
            where=str(folder),
            fix="check that the model's files are whole",
        ) from error


def _missing(library: str) -> ConfigError:
    return ConfigError(f"{library} is not installed", where="embeddings", fix=_EXTRA)


def _files(folder: Path) -> list[Path]:
    found = [path for pattern in _MODEL_FILES for path in folder.rglob(pattern)]
    return sorted(path for path in found if path.is_file())


def _digest(files: Sequence[Path]) -> str:
    """Return twelve digits that change with any of the files' names or bytes."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        for block in _blocks(path):
            digest.update(block)
    return digest.hexdigest()[:12]


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            yield block
