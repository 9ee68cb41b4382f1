"""`python bench/schema_compile.py [--repeat 5]`: what a server pays to compile one call's schema.

A call that enumerates its passage's sentences has a schema that no other call has, so no cache helps. Compiled is
with xgrammar, as vLLM does, in one thread: the schema of `qa` with sentences enumerated, numbered, and free. Two
vocabularies: the bundled teacher's, and a made-up one of the size that large models have (151,936 byte strings,
seeded), which no tokenizer had to be fetched for.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Iterator

import xgrammar
from transformers import AutoTokenizer

from synth.core.resources import resource
from synth.core.schemas import load_schema
from synth.core.sentences import Sentence
from synth.generators import evidence
from synth.generators.evidence import Choice, EvidenceMode, with_choice

LARGE = 151_936


def bundled_vocabulary() -> xgrammar.TokenizerInfo:
    """Return the bundled teacher's."""
    return xgrammar.TokenizerInfo.from_huggingface(
        AutoTokenizer.from_pretrained(resource("demo", "models") / "teacher")
    )


def large_vocabulary() -> xgrammar.TokenizerInfo:
    """Return a made-up vocabulary: all bytes, then pieces of one to twelve letters, half with a space before them."""
    draw = random.Random(0)
    tokens = [bytes([i]) for i in range(256)]
    known = set(tokens)
    letters = "etaoinshrdlcumwfgypbvkjxqz" + "etaoinshrdlu" * 2
    while len(tokens) < LARGE - 1:
        piece = "".join(draw.choices(letters, k=draw.randint(1, 12)))
        token = (" " * draw.randint(0, 1) + draw.choice([piece, piece.title()])).encode()
        if token not in known:
            known.add(token)
            tokens.append(token)
    return xgrammar.TokenizerInfo([*tokens, b"<end>"], vocab_size=LARGE, stop_token_ids=[LARGE - 1])


def sentences(count: int) -> Iterator[Sentence]:
    """Yield made-up sentences of some 120 characters, none like another."""
    draw = random.Random(count)
    for i in range(count):
        words = [draw.choice(["kettle", "warranty", "customers", "before", "the", "six", "weeks", "replace", "filter"])]
        while sum(map(len, words)) + len(words) < 118:
            words.append("".join(draw.choices("etaoinshrdlcum", k=draw.randint(2, 9))))
        yield Sentence(f"{' '.join(words).capitalize()} {i}.", 0, 0)


def seconds(info: xgrammar.TokenizerInfo, schema: dict[str, object], repeat: int) -> float:
    """Return the median time of a compilation without a cache."""
    times = []
    for _ in range(repeat):
        compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
        started = time.perf_counter()
        compiler.compile_json_schema(json.dumps(schema), any_whitespace=False, separators=(",", ":"))
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    """Print a table: sentences, characters, milliseconds for each mode and vocabulary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    repeat = parser.parse_args().repeat
    # The bounds are what is being chosen here, so they are out of the way.
    evidence.MAX_ENUM_SENTENCES = evidence.MAX_ENUM_CHARS = 10**9
    vocabularies = {"bundled": bundled_vocabulary(), "large": large_vocabulary()}
    modes: tuple[EvidenceMode, ...] = ("enum", "index", "free")
    print("| sentences | characters |" + "".join(f" {mode}, {name} |" for name in vocabularies for mode in modes))
    print("| --- |" + " --- |" * (1 + len(vocabularies) * len(modes)))
    for count in (1, 2, 4, 8, 16, 32, 64, 128, 256):
        offered = list(sentences(count))
        cells = []
        for info in vocabularies.values():
            for mode in modes:
                schema = with_choice(load_schema("qa"), ["evidence"], Choice.of(offered, mode))
                cells.append(f" {seconds(info, schema, repeat) * 1000:.1f} ms |")
        print(f"| {count} | {sum(len(s.text) for s in offered)} |" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
