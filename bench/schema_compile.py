"""`python bench/schema_compile.py [--repeat 5]`: what a server pays to compile one call's schema.

A call that enumerates its passage's sentences has a schema that no other call has. Compiled is with xgrammar as
vLLM does it, with its cache (which keeps what two schemas share) and without optional white space, but in one thread.
First the schema of `qa` as the first call meets it, then as each further passage does, with sentences enumerated,
numbered, and free. Times are CPU time. Two vocabularies: the bundled teacher's, and a made-up one of the size that
large models have (151,936 byte strings, seeded), which no tokenizer had to be fetched for.
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


def sentences(count: int, salt: int) -> Iterator[Sentence]:
    """Yield made-up sentences of some 120 characters, none like another and none like those of another salt."""
    draw = random.Random(f"{count} {salt}")
    for i in range(count):
        words = [draw.choice(["kettle", "warranty", "customers", "before", "the", "six", "weeks", "replace", "filter"])]
        while sum(map(len, words)) + len(words) < 118:
            words.append("".join(draw.choices("etaoinshrdlcum", k=draw.randint(2, 9))))
        yield Sentence(f"{' '.join(words).capitalize()} {i}.", 0, 0)


def seconds(compiler: xgrammar.GrammarCompiler, schema: dict[str, object]) -> float:
    """Return the CPU time of one compilation."""
    started = time.process_time()
    compiler.compile_json_schema(json.dumps(schema), any_whitespace=False, separators=(",", ":"))
    return time.process_time() - started


def qa(count: int, salt: int, mode: EvidenceMode) -> dict[str, object]:
    """Return the schema of a call of `qa` that offers so many sentences."""
    return with_choice(load_schema("qa"), ["evidence"], Choice.of(sentences(count, salt), mode))


def main() -> None:
    """Print the first compilation of each vocabulary, then a table for the further ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    repeat = parser.parse_args().repeat
    # The bounds are what is being chosen here, so they are out of the way.
    evidence.MAX_ENUM_SENTENCES = evidence.MAX_ENUM_CHARS = 10**9
    compilers = {
        name: xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=True)
        for name, info in (("bundled", bundled_vocabulary()), ("large", large_vocabulary()))
    }
    for name, compiler in compilers.items():
        print(f"{name}: the first schema took {seconds(compiler, qa(4, 0, 'enum')):.2f} s", flush=True)
    modes: tuple[EvidenceMode, ...] = ("enum", "index", "free")
    print("| sentences | characters |" + "".join(f" {mode}, {name} |" for name in compilers for mode in modes))
    print("| --- |" + " --- |" * (1 + len(compilers) * len(modes)))
    for count in (1, 2, 4, 8, 16, 32, 64, 128, 256):
        cells = []
        for compiler in compilers.values():
            for mode in modes:
                times = [seconds(compiler, qa(count, salt, mode)) for salt in range(1, repeat + 1)]
                # Numbered and free schemas come again with other passages: the first of them is the dear one.
                cells.append(f" {(statistics.median(times) if mode == 'enum' else times[0]) * 1000:.1f} ms |")
        print(f"| {count} | {sum(len(s.text) for s in sentences(count, 1))} |" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
