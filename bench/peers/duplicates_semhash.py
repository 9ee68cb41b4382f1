"""semhash with a model2vec model of random vectors, one for each word: no hub can be reached, and none is needed.

Such a model sees the words that two texts share and nothing of their meaning, which is what a Jaccard similarity
sees too. Similarity is the cosine; a cosine of 0.9 is its default and stands in for 0.8 of shared words.
"""

import json
import re
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from model2vec import StaticModel
from semhash import SemHash
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace

THRESHOLD = 0.9


def main() -> None:
    """Read a corpus, write the numbers of the removed records."""
    corpus, out = Path(sys.argv[1]), Path(sys.argv[2])
    lines = [json.loads(line) for line in corpus.open(encoding="utf-8")]
    texts = [f"{question} {answer}" for _, question, answer, _ in lines]
    words = sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]+", text.lower())})
    tokenizer = Tokenizer(WordLevel({word: k for k, word in enumerate(["[UNK]", *words])}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = Lowercase(), Whitespace()
    vectors = np.random.default_rng(0).standard_normal((len(words) + 1, 256)).astype(np.float32)
    model = StaticModel(vectors=vectors, tokenizer=tokenizer, normalize=True)
    records = [{"text": text, "number": str(line[0])} for text, line in zip(texts, lines, strict=True)]
    index = SemHash.from_records(records=records, columns=["text"], model=model)
    result = index.self_deduplicate(threshold=THRESHOLD)
    left = {int(record["number"]) for record in result.selected}
    note = f"random word vectors of 256 dimensions, cosine >= {THRESHOLD}: another measure than the Jaccard similarity"
    removed = [line[0] for line in lines if line[0] not in left]
    out.write_text(json.dumps({"version": version("semhash"), "removed": removed, "note": note}))


if __name__ == "__main__":
    main()
