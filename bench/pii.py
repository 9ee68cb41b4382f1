"""How well and how fast detectors of personal data and secrets do on the texts of tests/pii_cases.py.

    python bench/pii.py [--peers]

Prints a line for each detector: found of each kind, negatives that it flags, texts a second of processor time,
seconds to import. `--peers` adds those that are installed of detect-secrets alone, presidio-analyzer's pattern
recognisers (no spaCy model, the suffix list that its tldextract carries), scrubadub, datafog, datafog-core and
cpex-pii-filter; keep them in an environment of their own. The last line of `synth` is the scorer `pii` on records
of about 300 characters.
"""

import argparse
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.pii_cases import negatives, positives  # noqa: E402

Detector = Callable[[str], list[tuple[str, int, int]]]


def ours() -> Detector:
    """The one that `synth` uses."""
    from synth.filters.pii import find_pii

    return lambda text: [(f.kind, f.start, f.end) for f in find_pii(text)]


def detect_secrets() -> Detector:
    """All plugins but those of entropy, keywords and addresses."""
    plugins = import_module("detect_secrets.core.plugins.util").get_mapping_from_secret_type_to_class()
    used = [
        p()
        for name, p in plugins.items()
        if "Entropy" not in name and name not in ("Secret Keyword", "Public IP (ipv4)")
    ]
    return lambda text: [
        ("secret", text.find(value), text.find(value) + len(value)) for p in used for value in p.analyze_string(text)
    ]


def presidio() -> Detector:
    """The pattern recognisers, without a network."""
    tldextract = import_module("tldextract")
    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=())
    named = import_module("presidio_analyzer.predefined_recognizers")
    used = [
        (kind, getattr(named, f"{name}Recognizer")())
        for kind, name in (
            ("email", "Email"),
            ("card", "CreditCard"),
            ("phone", "Phone"),
            ("iban", "Iban"),
            ("ip", "Ip"),
        )
    ]
    return lambda text: [
        (kind, found.start, found.end) for kind, r in used for found in r.analyze(text, r.supported_entities, None)
    ]


def scrubadub() -> Detector:
    """The detectors that are on by default."""
    scrubber = import_module("scrubadub").Scrubber()
    kinds = {"email": "email", "phone": "phone", "credit_card": "card", "credential": "secret"}
    return lambda text: [(kinds[f.type], f.beg, f.end) for f in scrubber.iter_filth(text) if f.type in kinds]


def datafog() -> Detector:
    """The engine of regular expressions."""
    annotator = import_module("datafog.processing.text_processing.regex_annotator").RegexAnnotator()
    kinds = {"EMAIL": "email", "PHONE": "phone", "CREDIT_CARD": "card", "IP_ADDRESS": "ip"}
    return lambda text: [
        (kinds[s.label], s.start, s.end) for s in annotator.annotate_with_spans(text)[1].spans if s.label in kinds
    ]


def datafog_core() -> Detector:
    """The engine in Rust, with its default kinds."""
    scan = import_module("datafog_core").scan
    kinds = {"EMAIL": "email", "PHONE": "phone", "CREDIT_CARD": "card", "IP_ADDRESS": "ip"}
    kinds |= dict.fromkeys(("JWT", "PRIVATE_KEY", "API_KEY", "BEARER_TOKEN", "CREDENTIAL_URI"), "secret")

    def find(text: str) -> list[tuple[str, int, int]]:
        found: list[Any] = [f for f in scan(text) if f.entity_type in kinds]
        return [(kinds[f.entity_type], f.codepoint_range.start, f.codepoint_range.end) for f in found]

    return find


def cpex() -> Detector:
    """The engine in Rust, with its default kinds."""
    detector = import_module("cpex_pii_filter.pii_filter_rust").PIIDetectorRust({})
    kinds = {"email": "email", "phone": "phone", "credit_card": "card", "ip_address": "ip"}
    return lambda text: [
        (kinds.get(kind, kind), f["start"], f["end"]) for kind, rows in detector.detect(text).items() for f in rows
    ]


PEERS: Mapping[str, Callable[[], Detector]] = {
    "detect-secrets": detect_secrets,
    "presidio-analyzer": presidio,
    "scrubadub": scrubadub,
    "datafog": datafog,
    "datafog-core": datafog_core,
    "cpex-pii-filter": cpex,
}


def judge(name: str, make: Callable[[], Detector]) -> None:
    """Print the line of one detector."""
    started = time.perf_counter()
    detect = make()
    detect("warm: a@example.com, +44 20 7946 0958, https://a:b@c.example")
    load = time.perf_counter() - started
    found: Counter[str] = Counter()
    missed = []
    for case in positives():
        start = case.text.index(case.value)
        hit = any(k == case.kind and a < start + len(case.value) and start < b for k, a, b in detect(case.text))
        found[case.kind] += hit
        missed += [] if hit else [case.text]
    wrong = [case.text for case in negatives() if detect(case.text)]
    texts = [case.text for case in positives() + negatives()] * 20
    started = time.process_time()
    for text in texts:
        detect(text)
    rate = len(texts) / (time.process_time() - started)
    of = Counter(case.kind for case in positives())
    kinds = ", ".join(f"{kind} {found[kind]}/{count}" for kind, count in of.items())
    flagged = f"flagged wrongly {len(wrong)}/{len(negatives())}"
    print(f"{name}: {kinds}; {flagged}; {rate:,.0f} texts a second; import {load:.2f} s")
    if name == "synth":
        print("  missed:", *missed or ["none"], sep="\n    ")
        print("  flagged wrongly:", *wrong or ["none"], sep="\n    ")


def speed(count: int = 20_000) -> None:
    """Print how many records a second the scorer does; one in twenty holds something."""
    from synth.core.records import Passage, Record
    from synth.filters.pii import pii_scorer

    said = "The Brevo kettle holds 1.7 litres of water and was made in 2019; descale it every six weeks with vinegar. "
    hits = [case.text for case in positives()]
    records = [
        Record.create(
            Passage("kettle.md", said, 0, len(said)),
            f"How much water does kettle {n} hold?",
            said * 2 + (hits[n // 20 % len(hits)] if n % 20 == 0 else ""),
            generator="qa",
        )
        for n in range(count)
    ]
    scorer = pii_scorer()
    started = time.process_time()
    scores = scorer.score(records)
    rate = count / (time.process_time() - started)
    print(f"scorer pii: {count} records, {rate:,.0f} records a second of processor time, {scores.count(0.0)} flagged")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--peers", action="store_true", help="the other detectors too, where installed")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    try:
        judge("synth", ours)
        speed()
    except ImportError as error:
        print(f"synth: not here ({error.name})")
    for name, make in PEERS.items() if arguments.peers else ():
        try:
            judge(name, make)
        except ImportError as error:
            print(f"{name}: not installed ({error.name})")


if __name__ == "__main__":
    main()
