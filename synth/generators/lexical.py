"""What the generators' own checks read in a text: content words, numbers, and calculations that are written out."""

import re
from fractions import Fraction

_WORD = re.compile(r"[^\W_]+(?:[-'’.][^\W_]+)*")
_NUMBER = re.compile(r"(?<![\w.])\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\w*\d)|\d+(?:\.\d+)?")
_COUNTED = "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
_SPELLED = {word: Fraction(value) for value, word in enumerate(_COUNTED.split(), 2)} | {
    word: Fraction(n) for word, n in (("twenty", 20), ("thirty", 30), ("forty", 40), ("fifty", 50), ("dozen", 12))
}
_STOPPED = """
    a about after all also an and any are as at be been before but by can could did do does each every for from had
    has have having how i if in into is it its many may me might more most much must my no nor not of off on one or
    our out over shall should so some such than that the their them then there these they this those to too under
    until up upon us was we were what when where whether which while who whom whose why will with without would you
    your
"""
_STOP = frozenset(_STOPPED.split())
# A term of a calculation: a number with a currency before it or a unit behind it.
_TERM = r"[£$€]?\s?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:\s?(?:[£$€°]|[^\W\d_]{1,12}(?:\s[^\W\d_]{2,12})?))?"
_OPERATOR = r"(?:[-+*/−–×÷·:]|(?<=\s)x(?=\s))"
_CALCULATION = re.compile(rf"({_TERM}(?:\s*{_OPERATOR}\s*{_TERM})+)\s*=\s*({_TERM})")
_SPLIT = re.compile(rf"\s*({_OPERATOR})\s*(?=[£$€]?\s?\d)")


def content_list(text: str) -> list[str]:
    """Return the words of `text` that carry meaning, in order, in lower case and without the plural's s."""
    words = (match.group().lower().replace("’", "'").removesuffix("'s") for match in _WORD.finditer(text))
    return [_singular(word) for word in words if word not in _STOP]


def content_words(text: str) -> set[str]:
    """Return the words of `text` that carry meaning, each once."""
    return set(content_list(text))


def word_starts(text: str) -> set[str]:
    """Return the first six letters of each content word, so that "descale" and "descaling" meet."""
    return {word[:6] for word in content_list(text)}


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def numbers(text: str) -> set[Fraction]:
    """Return the numbers of `text`: "1,200" is 1200, "six" is 6; "one" is left out, as it is often no number."""
    digits = {Fraction(match.group().replace(",", "")) for match in _NUMBER.finditer(text)}
    return digits | {_SPELLED[word] for word in re.findall(r"[a-z]+", text.lower()) if word in _SPELLED}


def same_words(text: str) -> str:
    """Return `text` as its words in lower case: what two wordings of one question have in common."""
    return " ".join(match.group().lower() for match in _WORD.finditer(text))


def calculations(text: str) -> list[tuple[str, Fraction | None, Fraction]]:
    """Return each `a op b = c` of `text` with what its left side comes to and what the text says it is.

    Terms may have units. The left side is None where it divides by zero.
    """
    found = []
    for match in _CALCULATION.finditer(text):
        left, right = match.groups()
        (said,) = numbers_in_order(right)[:1]
        found.append((match.group().strip(), _value(left), said))
    return found


def numbers_in_order(text: str) -> list[Fraction]:
    """Return the numbers that are written in digits, in order."""
    return [Fraction(match.group().replace(",", "")) for match in _NUMBER.finditer(text)]


def _value(expression: str) -> Fraction | None:
    """Work out terms joined by + - × ÷, the latter two first."""
    parts = _SPLIT.split(expression)
    terms, operators = [numbers_in_order(part)[0] for part in parts[::2]], parts[1::2]
    sums: list[tuple[str, Fraction]] = [("+", terms[0])]
    for operator, term in zip(operators, terms[1:], strict=True):
        sign, last = sums[-1]
        if operator in "*×·x":
            sums[-1] = (sign, last * term)
        elif operator in "/÷:":
            if not term:
                return None
            sums[-1] = (sign, last / term)
        else:
            sums.append(("+" if operator == "+" else "-", term))
    return sum((value if sign == "+" else -value for sign, value in sums), Fraction(0))


def agrees(value: Fraction, said: Fraction) -> bool:
    """Whether `said` is `value`, or `value` rounded to a hundredth part of itself."""
    return value == said or (said.denominator != 1 or value.denominator != 1) and abs(value - said) * 100 <= abs(value)
