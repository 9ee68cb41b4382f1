"""The score `pii`: is the row free of personal data and secrets? Also where they stand, and a mask over them.

Looks at what a dataset row shows, the prompt and the completion. The context is in no row and is not looked
at, unless the prompt shows it. A finding names the kind and the place; the value goes into no reason, no
log and no error. Names of people and postal addresses need a model and are not found.
"""

import bisect
import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType

from synth.core.errors import ConfigError, did_you_mean
from synth.core.records import Message, Record
from synth.filters.base import FaultScorer
from synth.filters.pii_keys import find_keys

# Nothing to find is without a digit, an at sign or a long run of letters; most texts end here.
_ANY = re.compile(r"[@0-9]|-----BEGIN|[A-Za-z_-]{20}")
_EMAIL = re.compile(
    r"(?<![\w.+'-])[\w](?:[\w.+'-]{0,62}[\w+-])?@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}(?![\w@-])"
)
# Card numbers and phone numbers have seven digits near each other; looking for that is quicker than for them.
_SEVEN = re.compile(r"\d(?:[ ()/.-]{0,2}\d){6}")
# Runs of digits in groups; card numbers stand in groups, or in one piece.
_CARD = re.compile(r"(?<![\w.,+-])\d(?:[ -]?\d){12,18}(?![\w-]|[.,]\d)")
_ISSUERS = re.compile(
    r"4\d{15}(?:\d{3})?|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d{2}|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|6(?:011|5\d{2}|4[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|3(?:0[0-5]|[68]\d)\d{11}|62\d{14,17}"
)
_IBAN = re.compile(
    r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[A-Z0-9]{11,30}(?![A-Za-z0-9])|(?: [A-Z0-9]{4}){3,7}(?: [A-Z0-9]{1,3})?)"
)
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{1,4}(?![\w:])")
_VERSIONED = re.compile(
    r"(?:version|release|firmware|build|driver|update|upgrade|revision|patch|clause|section|chapter|article|"
    r"paragraph|appendix|annex|rule|table|figure|step|item|software|v|ver|rev|no|nr|§)[.:#]?\s{1,3}(?:to\s)?$",
    re.IGNORECASE,
)
_PHONE = re.compile(
    r"(?<![\w+])\+[1-9](?:[ ().-]{0,2}\d){6,14}(?![\w]|[.,-]\d)"
    r"|(?<![\w.+-])(?:\(\d{3}\) ?|\d{3}[.-])\d{3}[.-]\d{4}(?![\w-]|[.,]\d)"
    r"|(?i:\b(?:tel|phone|telephone|fax|mobile|cell|call|dial|ring)\b[^\d\n]{0,12}?)"
    r"(?P<local>\(?0\d(?:[ ()/.-]{0,2}\d){6,11})(?![\w]|[.,-]\d)"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Where a value of some kind stands in a text; the value itself is not kept."""

    kind: str
    start: int
    end: int


def _emails(text: str) -> Iterator[tuple[int, int]]:
    if "@" in text:
        yield from (match.span() for match in _EMAIL.finditer(text))


def _cards(text: str) -> Iterator[tuple[int, int]]:
    if _SEVEN.search(text) is None:
        return
    for match in _CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if _ISSUERS.fullmatch(digits) and _luhn(digits):
            yield match.span()


def _luhn(digits: str) -> bool:
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(doubled) + sum(map(int, digits[-1::-2]))) % 10 == 0


def _ibans(text: str) -> Iterator[tuple[int, int]]:
    for match in _IBAN.finditer(text):
        # A word in capitals may follow the last group, so the groups are taken off one by one.
        written = match[0]
        while len(written.replace(" ", "")) >= 15:
            plain = written.replace(" ", "")
            if int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1:
                yield match.start(), match.start() + len(written)
                break
            written = written.rpartition(" ")[0]


def _addresses(text: str) -> Iterator[tuple[int, int]]:
    if text.count(".") < 3 and text.count(":") < 2:
        return
    for match in (*_IPV4.finditer(text), *_IPV6.finditer(text)):
        try:
            address = ipaddress.ip_address(match[0])
        except ValueError:
            continue
        # Loopback, 0.0.0.0 and netmasks name nobody's machine.
        if address.is_loopback or address.is_unspecified or match[0].startswith("255."):
            continue
        if ":" not in match[0]:
            if _VERSIONED.search(text, max(0, match.start() - 20), match.start()):
                continue
        elif len(match[0]) < 8 or not any(c.isdigit() for c in match[0]):
            continue
        yield match.span()


def _phones(text: str) -> Iterator[tuple[int, int]]:
    if _SEVEN.search(text) is None:
        return
    for match in _PHONE.finditer(text):
        if match["local"] is not None:
            yield match.span("local")
        elif _valid_number(match[0]):
            yield match.span()


def _valid_number(number: str) -> bool:
    phones = _phonenumbers()
    try:
        return bool(phones.is_valid_number(phones.parse(number, None if number.startswith("+") else "US")))
    except phones.NumberParseException:
        return False


@cache
def _phonenumbers() -> ModuleType:
    try:
        import phonenumbers
    except ImportError as error:
        raise ConfigError(
            "looking for phone numbers needs phonenumberslite", fix="install it with `pip install 'synth-tune[pii]'`"
        ) from error
    return phonenumbers


# Where two findings overlap, the kind that comes first here is the one that is named.
_FINDERS: Mapping[str, Callable[[str], Iterator[tuple[int, int]]]] = {
    "secret": find_keys,
    "iban": _ibans,
    "card": _cards,
    "email": _emails,
    "phone": _phones,
    "ip": _addresses,
}
KINDS = tuple(_FINDERS)
"""What is looked for: keys and passwords, IBANs, card numbers, e-mail addresses, phone numbers, IP addresses."""

_MASK = re.compile(rf"<(?:{'|'.join(kind.upper() for kind in KINDS)})>")


def check_kinds(kinds: Iterable[str]) -> tuple[str, ...]:
    """Return the kinds in the order of `KINDS`.

    Raises:
        ConfigError: one is unknown; near matches are named.
    """
    wanted = set(kinds)
    for kind in sorted(wanted - set(KINDS)):
        raise ConfigError(f"no kind of personal data is called {kind!r}", fix=did_you_mean(kind, KINDS))
    return tuple(kind for kind in KINDS if kind in wanted)


def find_pii(text: str, kinds: Sequence[str] = KINDS) -> list[Finding]:
    """Return what stands in the text, by place, none overlapping; masks are no findings.

    Raises:
        ConfigError: the extra `pii` is not installed.
    """
    if _ANY.search(text) is None:
        return []
    found: list[Finding] = []  # in order, none overlapping
    for kind in kinds:
        for start, end in sorted(set(_FINDERS[kind](text)), key=lambda span: (span[0], -span[1])):
            place = bisect.bisect_left(found, end, key=lambda finding: finding.start)
            free = place == 0 or found[place - 1].end <= start
            if free and _MASK.fullmatch(text, start, end) is None:
                found.insert(place, Finding(kind, start, end))
    return found


def mask_text(text: str, kinds: Sequence[str] = KINDS) -> str:
    """Return the text with `<EMAIL>` and the like in place of the values; a masked text comes back as it is."""
    while found := find_pii(text, kinds):
        parts, end = [], 0
        for finding in found:
            parts += [text[end : finding.start], f"<{finding.kind.upper()}>"]
            end = finding.end
        text = "".join((*parts, text[end:]))
    return text


def mask_messages(messages: Sequence[Message], kinds: Sequence[str] = KINDS) -> tuple[Message, ...]:
    """Return the turns with every value masked, for dataset rows and exports; records.jsonl keeps the originals."""
    return tuple(Message(message.role, mask_text(message.content, kinds)) for message in messages)


def pii_scorer(kinds: Iterable[str] = KINDS) -> FaultScorer:
    """Return the scorer `pii`: 1 where prompt and completion hold no value of `kinds`, else 0.

    Raises:
        ConfigError: a kind is unknown or the extra `pii` is not installed: now, and not at the first key.
    """
    wanted = check_kinds(kinds)
    _phonenumbers()
    list(find_keys("://"))

    def find(record: Record) -> list[str]:
        text = "\n".join(message.content for message in (*record.prompt, *record.completion))
        return sorted({finding.kind for finding in find_pii(text, wanted)})

    return FaultScorer("pii", find)
