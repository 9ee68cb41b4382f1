"""A versioned fingerprint of anything that decides what a stage or a call produces.

The fingerprint is SHA-256 over canonical JSON: keys sorted, no spaces, UTF-8, with the version in
front. Raise `FINGERPRINT_VERSION` when the meaning of a field changes, so that old and new results
never pass for each other. `EXCLUDED` is the one table of what does not count, and why.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

FINGERPRINT_VERSION = 1

EXCLUDED: Mapping[str, str] = {
    "max_in_flight": "how many calls run at once changes the speed, not the replies",
    "retries": "how often a failed call is tried again changes no reply that came",
    "timeout": "how long a reply is waited for changes no reply that came",
    "log_path": "where the server's log lies changes nothing in it",
    "teacher_url": "the same model at another address is the same teacher",
    "progress": "what is shown changes nothing that is written",
}


def canonical_json(value: object) -> bytes:
    """Return `value` as canonical JSON bytes; equal values give equal bytes.

    Raises:
        TypeError: `value` holds something that JSON has no form for, or a number that is not finite.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        # A key is no plain text. To allow for that from the start takes half as long again.
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)


def fingerprint(value: Mapping[str, Any]) -> str:
    """Return `v1:` and 64 hexadecimal digits for `value`, its excluded top-level keys left out."""
    counted = {key: item for key, item in value.items() if key not in EXCLUDED}
    digest = hashlib.sha256(canonical_json({"version": FINGERPRINT_VERSION, "value": counted}))
    return f"v{FINGERPRINT_VERSION}:{digest.hexdigest()}"
