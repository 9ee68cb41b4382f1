"""A model's own tokenizer, as a measure of text.

Only `tokenizer.json` is read, by the `tokenizers` library: no code of the model runs, and transformers is not needed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from synth.core.errors import ConfigError

if TYPE_CHECKING:
    import tokenizers

FILE = "tokenizer.json"


class Tokens(Protocol):
    """Says how many tokens a text has, special tokens left out."""

    def __call__(self, text: str, /) -> int:
        """Return the number of tokens of `text`."""
        ...


class Tokenizer:
    """Counts tokens with a model's own tokenizer. `inner` is the `tokenizers.Tokenizer`."""

    def __init__(self, inner: "tokenizers.Tokenizer") -> None:
        # A tokenizer file may cut or pad what it is given, as its training did; a measure must not.
        inner.no_truncation()
        inner.no_padding()
        self.inner = inner

    def __call__(self, text: str, /) -> int:
        """Return the number of tokens of `text`, without special tokens."""
        return len(self.inner.encode(text, add_special_tokens=False).ids)

    def count_all(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text; faster than one by one."""
        return [len(one.ids) for one in self.inner.encode_batch_fast(list(texts), add_special_tokens=False)]


def load_tokenizer(source: str | Path, *, revision: str | None = None) -> Tokenizer:
    """Load the tokenizer of a model.

    Args:
        source: a folder with a `tokenizer.json`, such a file, or a model's id on the hub. Of the hub the local cache is
            asked first, then the network.
        revision: a branch, tag or commit of the model on the hub.

    Raises:
        ConfigError: there is no such file or model, it has no `tokenizer.json`, or the hub cannot be reached.
    """
    import tokenizers

    path = _local(source) or _from_hub(str(source), revision)
    try:
        inner = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for a file that it cannot read
        raise ConfigError(
            f"not a tokenizer ({error})", where=str(path), fix=f"save the model again, with its {FILE}"
        ) from error
    return Tokenizer(inner)


def _local(source: str | Path) -> Path | None:
    path = Path(source)
    if path.is_dir():
        if not (path / FILE).is_file():
            raise ConfigError(
                f"the folder has no {FILE}",
                where=str(path),
                fix="save it there with the tokenizer's save_pretrained, or measure passages in characters",
            )
        return path / FILE
    if path.is_file():
        return path
    looks_like_id = isinstance(source, str) and source.count("/") <= 1 and not source.startswith((".", "/", "~"))
    if not looks_like_id:
        raise ConfigError("there is no such file or folder", where=str(source), fix="name a model's folder or hub id")
    return None


def _from_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        cached = try_to_load_from_cache(name, FILE, revision=revision)
        return Path(cached if isinstance(cached, str) else hf_hub_download(name, FILE, revision=revision))
    except HFValidationError as error:
        raise ConfigError("neither a folder nor a model's id on the hub", where=name) from error
    except RepositoryNotFoundError as error:
        raise ConfigError(
            "there is no such model on the hub, or it needs a login", where=name, fix="check the name; `hf auth login`"
        ) from error
    except LocalEntryNotFoundError as error:
        raise ConfigError(
            "the tokenizer is not in the local cache, and the hub cannot be reached",
            where=name,
            fix="download the model where there is a network, and name its folder",
        ) from error
    except EntryNotFoundError as error:
        raise ConfigError(
            f"the model has no {FILE}", where=name, fix="measure passages in characters, or name a folder that has one"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise ConfigError(
            f"the hub did not give {FILE} ({str(error).splitlines()[0]})",
            where=name,
            fix="try again, or name a folder that has one",
        ) from error
