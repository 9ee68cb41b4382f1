"""Keys and passwords in a text: the formats that detect-secrets knows, and newer ones that it does not."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Protocol

from synth.core.errors import ConfigError

# A format is looked for only where one of its literals stands: nearly all texts have none. Formats that are no
# more than a name beside a quoted word, or that match product codes, are left out (docs/pii.md).
_FORMATS: Mapping[str, tuple[str, str]] = {
    r"A3T|ABIA|ACCA|AKIA|ASIA|(?i:aws)": ("aws", "AWSKeyDetector"),
    r"AccountKey=": ("azure_storage_key", "AzureStorageKeyDetector"),
    r"://": ("basic_auth", "BasicAuthDetector"),
    r"[MNO][\w-]{23,25}\.[\w-]{6}\.": ("discord", "DiscordBotTokenDetector"),
    r"gh[pousr]_": ("github_token", "GitHubTokenDetector"),
    r"gl(?:[a-z]{2,5})-|GR1348941": ("gitlab_token", "GitLabTokenDetector"),
    r"eyJ": ("jwt", "JwtTokenDetector"),
    r"-us\d": ("mailchimp", "MailchimpDetector"),
    r"T3BlbkFJ": ("openai", "OpenAIDetector"),
    r"pypi-Ag": ("pypi_token", "PypiTokenDetector"),
    r"SG\.": ("sendgrid", "SendGridDetector"),
    r"(?i:xox[abposr]-|hooks\.slack)": ("slack", "SlackDetector"),
    r"sq0csp-": ("square_oauth", "SquareOAuthDetector"),
    r"[rs]k_live_": ("stripe", "StripeDetector"),
    r"\d{8,10}:[\w-]{35}": ("telegram_token", "TelegramBotTokenDetector"),
    r"(?:AC|SK)[a-z0-9]{32}": ("twilio", "TwilioKeyDetector"),
}
# Where the first group of the pattern is the key, and the rest says what it is for.
_INNER = frozenset(("AWSKeyDetector", "BasicAuthDetector"))
_REST = re.compile(r"[\w=-]*")
# All of them stand in a long word, but for the password of an address.
_LONG = re.compile(r"[\w.=-]{20}|://|-----BEGIN")

# Formats that came up after detect-secrets 1.5, and a private key as a whole where it finds the first line only.
_NEWER = re.compile(
    r"-----BEGIN (?:[A-Z]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:[^-]{0,20000}-----END [A-Z ]{0,40}-----|(?:\s*[A-Za-z0-9+/=]{16,76}\b)*)"
    r"|\bgithub_pat_\w{50,255}\b"
    r"|\bsk-(?:proj|svcacct|admin|ant-[a-z]+\d{2})-[\w-]{40,255}"
    r"|\bhf_[A-Za-z]{34}\b"
    r"|\bnpm_[A-Za-z0-9]{36}\b"
    r"|\bAIza[\w-]{35}(?![\w-])"
)
# One piece at a time, so that a text of many megabytes costs no more than its length asks for.
_PIECE, _OVERLAP = 4096, 1024


class _Plugin(Protocol):
    denylist: Iterable[re.Pattern[str]]


def find_keys(text: str) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of each key and password; places may come twice and overlap.

    Raises:
        ConfigError: detect-secrets is not installed.
    """
    if _LONG.search(text) is None:
        return
    for match in _NEWER.finditer(text):
        yield match.span()
    for start, piece in _pieces(text):
        for place, (hint, (_, name)) in enumerate(_FORMATS.items()):
            if re.search(hint, piece):
                for pattern in _plugins()[place].denylist:
                    yield from _spans(pattern, piece, start, inner=name in _INNER)


def _spans(pattern: re.Pattern[str], piece: str, offset: int, *, inner: bool) -> Iterator[tuple[int, int]]:
    for match in pattern.finditer(piece):
        start, end = match.span(1 if inner and pattern.groups else 0)
        # Some patterns stop at the least that tells a key; what follows in the same word is part of it.
        rest = _REST.match(piece, end)
        yield offset + start, offset + (rest.end() if rest and not inner else end)


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    if len(text) <= _PIECE:
        yield 0, text
        return
    for start in range(0, max(1, len(text) - _OVERLAP), _PIECE - _OVERLAP):
        yield start, text[start : start + _PIECE]


@cache
def _plugins() -> Sequence[_Plugin]:
    try:
        return [
            getattr(import_module(f"detect_secrets.plugins.{module}"), name)() for module, name in _FORMATS.values()
        ]
    except ImportError as error:
        raise ConfigError(
            "looking for keys needs detect-secrets", fix="install it with `pip install 'synth-tune[pii]'`"
        ) from error
