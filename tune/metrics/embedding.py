"""How near an answer is in meaning to its references, by an embedding model (the extra `[semantic]`)."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

from synth.core.embedding import load_embedder
from tune.metrics.base import Reply

DEFAULT = "wordllama"


def installed() -> bool:
    """Return whether the default model is at hand: its package brings the weights along."""
    return importlib.util.find_spec("wordllama") is not None


@dataclass(frozen=True, slots=True)
class Embedding:
    """The cosine of an answer's vector and that of the nearest reference; below 0 it is 0.

    Attributes:
        model: what `synth.core.embedding.load_embedder` takes: "wordllama" (English), a folder, or a hub id.
    """

    model: str = DEFAULT
    name = "embedding"
    words = "embedding similarity"

    def score(self, replies: Sequence[Reply]) -> list[float | None]:
        """Return a number from 0 to 1 for each answer: 0 for one without words, None where no reference has a vector.

        Raises:
            ConfigError: the extra is not installed, or there is no such model.
        """
        if not replies:
            return []
        embedder = load_embedder(self.model)
        texts = list(dict.fromkeys(text for reply in replies for text in (reply.text, *reply.item.answers)))
        place = {text: number for number, text in enumerate(texts)}
        vectors = embedder.embed(texts)
        found: list[float | None] = []
        for reply in replies:
            wanted = vectors[[place[reference] for reference in reply.item.answers]]
            wanted = wanted[wanted.any(axis=1)]
            cosine = wanted @ vectors[place[reply.text]]
            # Rounding may put the cosine of equal vectors a hair above 1.
            found.append(min(1.0, max(0.0, float(cosine.max()))) if len(cosine) else None)
        return found
